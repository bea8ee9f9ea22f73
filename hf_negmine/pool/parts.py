"""The files of a pool in the making: parts of the queries, and what is found for a part in a slice of the corpus.

A part holds the candidates of some queries, and the scores of their positives. If a large corpus has been searched
slice by slice, what was found is merged into the part, which is what a search of the whole corpus gives.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from hf_negmine.base.checksums import is_whole, write_sealed
from hf_negmine.base.files import read_arrays, write_arrays
from hf_negmine.base.protocols import Ranking
from hf_negmine.base.schema import FloatArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.stored import arrays_of
from hf_negmine.search.ranking import merged
from hf_negmine.select.candidates import CandidateLists

PASSAGES_A_SLICE = 2**22
"""A multiple of the texts of a shard, so that a slice's vectors are whole shards; 12.9 GB of them 768 wide."""


def slices(passages: int) -> list[tuple[int, int]]:
    """The first passage of each slice of a corpus, and the one after its last."""
    return [(first, min(first + PASSAGES_A_SLICE, passages)) for first in range(0, passages, PASSAGES_A_SLICE)]


def of_slice(part: Path, first: int) -> Path:
    """The file of what a part of the queries finds in the slice that begins with the passage ``first``."""
    return part.with_name(f"{part.stem}-{first:012d}.npy")


def deeper(part: Path, lists: CandidateLists) -> Path:
    """The file of a part's candidates where a selection has searched deeper; it takes the place of the part's.

    Each has a name of its own, since a store takes a file that it knows by its name for one that it holds.
    """
    return part.with_name(f"{part.stem}-deeper-{len(lists.passages):012d}.npy")


def deepest(part: Path) -> Path:
    """The file of a part that is there, or of the most that has been searched deeper since."""
    found = sorted(part.parent.glob(f"{part.stem}-deeper-*.npy"), reverse=True)
    return next(filter(has_part, found), part)


def merge_slices(texts: TextSet, part: Path, start: int, stop: int, depth: int) -> bool:
    """Write the part of the queries from ``start`` to ``stop``, if it has been found in all slices; says whether."""
    found = {(first, end): of_slice(part, first) for first, end in slices(len(texts.corpus))}
    if len(found) < 2 or not all(map(has_part, found.values())):
        return False
    positives = texts.positive_ids[texts.positive_offsets[start] : texts.positive_offsets[stop]]
    scores, joined = np.empty(len(positives), dtype=np.float32), None
    for (first, end), path in found.items():
        lists, here = read_part(path)
        scores[(positives >= first) & (positives < end)] = here
        offsets = np.append(lists.starts, len(lists.passages))
        ranking = Ranking(offsets, lists.passages + np.int32(first), lists.scores, lists.exhausted)
        joined = ranking if joined is None else merged(joined, ranking, depth)
    assert joined is not None
    no_ceiling = np.full(stop - start, np.inf, dtype=np.float32)
    write_part(part, CandidateLists.from_ranking(joined, no_ceiling), scores)
    return True


def write_part(path: Path, lists: CandidateLists, scores: FloatArray) -> None:
    """Write candidates and the scores of the positives, whole or not at all."""
    write_arrays(path, [*arrays_of(lists), scores])
    write_sealed(path.with_suffix(".json"), {}, [path])


def read_part(path: Path) -> tuple[CandidateLists, FloatArray]:
    """What `write_part` wrote."""
    *arrays, scores = read_arrays(path, len(dataclasses.fields(CandidateLists)) + 1)
    return CandidateLists(*arrays), scores


def has_part(path: Path) -> bool:
    """Whether it is there and whole; a damaged one is set aside."""
    return is_whole(path.with_suffix(".json"), aside=path.with_suffix(".json"))
