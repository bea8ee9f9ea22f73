"""Retrieval of a pool: every query's best candidates and the scores of its positives.

It writes one part per `QUERIES_A_PART` queries, whole or not at all, so that a killed run continues where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hf_negmine.base.checksums import require_writable
from hf_negmine.base.errors import require
from hf_negmine.base.files import only_writer
from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import Searcher
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.candidate_pool import CandidatePool
from hf_negmine.pool.deepening import search_in_blocks
from hf_negmine.pool.parts import deepest, has_part, merge_slices, of_slice, read_part, slices, write_part
from hf_negmine.pool.stored import ABOUT, StoredPool, has_pool, write_pool
from hf_negmine.search import open_index
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

QUERIES_A_PART = 8192

OpenSlice: TypeAlias = Callable[[TextSet], Searcher]


def retrieve(
    texts: TextSet,
    open_searcher: Callable[[], Searcher],
    folder: Path,
    about: dict[str, Any],
    *,
    depth: int,
    open_slice: OpenSlice | None = None,
    notes: Callable[[], dict[str, Any]] | None = None,
    progress: bool = True,
) -> CandidatePool:
    """Open the pool in ``folder``, made if missing: the best ``depth`` candidates and all positive scores.

    Args:
        texts: queries, corpus and positives.
        open_searcher: makes the teacher's searcher over ``texts``; called only if a search is needed.
        folder: where the pool is stored.
        progress: whether to show bars.
        about: provenance that is stored with the pool.
        depth: candidates per query at first; selections deepen the pool where they need more.
        open_slice: makes the searcher over a slice of the corpus (`TextSet.slice`). Then one slice after another is
            searched for all queries, so that a large corpus is read once.
        notes: provenance that is only known once the pool is made.
    """
    require(depth >= 1, f"pool_depth: at least 1 candidate per query, got {depth}")
    if not has_pool(folder, about=about):
        require_writable(folder / ABOUT)
        with only_writer(folder):  # one process searches; those that need the same pool wait for it
            if not has_pool(folder, about=about, locked=True, aside=folder / ABOUT):
                parts = folder / "parts"
                if open_slice is not None:
                    search_slices(texts, open_slice, folder, about, depth=depth, progress=progress)
                lists, positives = _candidates(texts, open_searcher, parts, depth, progress)
                about = {**about, "depth": depth, **({} if notes is None else notes())}
                keys = texts.queries.digests[:, 0], texts.corpus.digests[:, 0]
                write_pool(folder, StoredPool(lists, positives, *keys, about))
                shutil.rmtree(parts, ignore_errors=True)
    return CandidatePool.load(folder, open_searcher=open_searcher, progress=progress)


def search_share(
    texts: TextSet,
    open_searcher: Callable[[], Searcher] | None,
    folder: Path,
    about: dict[str, Any],
    *,
    depth: int,
    share: slice,
    progress: bool = True,
) -> None:
    """Search only a share of the parts of the pool in ``folder``; `retrieve` finds them there and joins them.

    ``share`` says which parts, by number. Processes with shares of their own need no lock: nobody else writes their
    parts. Without ``open_searcher`` they are only merged, if all their slices have been searched (`search_slices`).
    """
    if has_pool(folder, about=about):
        return
    paths = dict(list(paths_of_parts(texts, folder / "parts").items())[share])
    if open_searcher is None:
        _missing(texts, paths, depth)
    else:
        _fill(texts, open_searcher, paths, depth, progress)


def search_slices(
    texts: TextSet,
    open_slice: OpenSlice,
    folder: Path,
    about: dict[str, Any],
    *,
    depth: int,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = True,
) -> None:
    """Search only the slices of a rank for its parts of the queries; `search_share` merges what all have found.

    Slices are the same for any number of ranks. A rank goes through all parts of a slice before the next, so that it
    reads few slices, each once if the device can hold it.
    """
    if has_pool(folder, about=about):
        return
    parts, every = paths_of_parts(texts, folder / "parts"), slices(len(texts.corpus))
    for one, starts in slices_of_rank(texts, rank, world_size).items():
        some, what = texts.slice(*one), f"Searching slice {every.index(one) + 1} of {len(every)}"
        paths = {start: of_slice(parts[start], one[0]) for start in starts if not has_part(parts[start])}
        _fill(some, partial(open_slice, some), paths, depth, progress, what)


def slices_of_rank(texts: TextSet, rank: int, world_size: int) -> dict[tuple[int, int], list[int]]:
    """The slices that a rank searches (see `slices`), and the first query of each part that it searches there for."""
    starts = range(0, len(texts.queries), QUERIES_A_PART)
    every = [(one, start) for one in slices(len(texts.corpus)) for start in starts]
    own: dict[tuple[int, int], list[int]] = {}
    for one, start in every[len(every) * rank // world_size : len(every) * (rank + 1) // world_size]:
        own.setdefault(one, []).append(start)
    return own


def paths_of_parts(texts: TextSet, folder: Path) -> dict[int, Path]:
    """The file of each part, by its first query."""
    return {start: folder / f"{start:012d}.npy" for start in range(0, len(texts.queries), QUERIES_A_PART)}


def _fill(
    texts: TextSet,
    open_searcher: Callable[[], Searcher],
    paths: dict[int, Path],
    depth: int,
    progress: bool,
    what: str = "Searching",
) -> None:
    """Search the parts that are missing; the bar counts those of an earlier run as done, but not for the rate."""
    parts = {start: np.arange(start, min(start + QUERIES_A_PART, len(texts.queries))) for start in paths}
    missing = _missing(texts, paths, depth)
    if not missing:
        return
    searcher = open_searcher()
    open_index(searcher)  # encodes and indexes, with their own bars
    total = sum(map(len, parts.values()))
    done = total - sum(len(parts[start]) for start in missing)
    with bar(what, "queries", total, done=done, shown=progress) as searched:
        for start in missing:
            bounds = texts.positive_offsets[start : parts[start][-1] + 2]
            rows = np.repeat(np.arange(len(parts[start])), np.diff(bounds))
            passages = texts.positive_ids[bounds[0] : bounds[-1]]
            lists, scores = search_in_blocks(searcher, parts[start], rows, passages, depth, searched.update)
            write_part(paths[start], lists, scores)


def _missing(texts: TextSet, paths: dict[int, Path], depth: int) -> list[int]:
    """The first query of each part that must still be searched for, once those found in slices are merged."""
    ends = {start: min(start + QUERIES_A_PART, len(texts.queries)) for start in paths}
    lacking = [start for start, path in paths.items() if not has_part(path)]
    return [start for start in lacking if not merge_slices(texts, paths[start], start, ends[start], depth)]


def _candidates(
    texts: TextSet, open_searcher: Callable[[], Searcher], folder: Path, depth: int, progress: bool
) -> tuple[CandidateLists, Positives]:
    """The best ``depth`` candidates of every query, and the scores of the positives."""
    lists_of_parts, scores_of_parts = [], []
    paths = paths_of_parts(texts, folder)
    _fill(texts, open_searcher, paths, depth, progress)
    for path in paths.values():
        lists, scores = read_part(deepest(path))
        lists_of_parts.append(lists)
        scores_of_parts.append(scores)
    positives = Positives(texts.positive_offsets, texts.positive_ids, np.concatenate(scores_of_parts))
    return CandidateLists.concatenated(lists_of_parts), positives
