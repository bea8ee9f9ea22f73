"""Retrieval of a pool: every query's best candidates and the scores of its positives.

It writes one part per `QUERIES_A_PART` queries, whole or not at all, so that a killed run continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hf_negmine.base.checksums import is_whole, require_writable, write_sealed
from hf_negmine.base.errors import require
from hf_negmine.base.files import only_writer, read_arrays, write_arrays
from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import Searcher
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.candidate_pool import CandidatePool
from hf_negmine.pool.deepening import search_in_blocks
from hf_negmine.pool.stored import ABOUT, StoredPool, arrays_of, has_pool, write_pool
from hf_negmine.search import open_index
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

QUERIES_A_PART = 8192


def retrieve(
    texts: TextSet,
    open_searcher: Callable[[], Searcher],
    folder: Path,
    about: dict[str, Any],
    *,
    depth: int,
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
        notes: provenance that is only known once the pool is made.
    """
    require(depth >= 1, f"pool_depth: at least 1 candidate per query, got {depth}")
    if not has_pool(folder, about=about):
        require_writable(folder / ABOUT)
        with only_writer(folder):  # one process searches; those that need the same pool wait for it
            if not has_pool(folder, about=about, locked=True, aside=folder / ABOUT):
                parts, opened = folder / "parts", cache(open_searcher)
                lists, positives = _candidates(texts, opened, parts, depth, progress)
                about = {**about, "depth": depth, **({} if notes is None else notes())}
                keys = texts.queries.digests[:, 0], texts.corpus.digests[:, 0]
                write_pool(folder, StoredPool(lists, positives, *keys, about))
                shutil.rmtree(parts, ignore_errors=True)
    return CandidatePool.load(folder, open_searcher=open_searcher, progress=progress)


def search_share(
    texts: TextSet,
    open_searcher: Callable[[], Searcher],
    folder: Path,
    about: dict[str, Any],
    *,
    depth: int,
    share: slice,
    progress: bool = True,
) -> None:
    """Search only a share of the parts of the pool in ``folder``; `retrieve` finds them there and joins them.

    ``share`` says which parts, by number. Processes with shares of their own need no lock: nobody else writes their
    parts.
    """
    if not has_pool(folder, about=about):
        paths = dict(list(_parts(texts, folder / "parts").items())[share])
        _fill(texts, cache(open_searcher), paths, depth, progress)


def _parts(texts: TextSet, folder: Path) -> dict[int, Path]:
    """The file of each part, by its first query."""
    return {start: folder / f"{start:012d}.npy" for start in range(0, len(texts.queries), QUERIES_A_PART)}


def _fill(
    texts: TextSet, open_searcher: Callable[[], Searcher], paths: dict[int, Path], depth: int, progress: bool
) -> None:
    """Search the parts that are missing; the bar counts those of an earlier run as done, but not for the rate."""
    parts = {start: np.arange(start, min(start + QUERIES_A_PART, len(texts.queries))) for start in paths}
    missing = [start for start, path in paths.items() if not _has_part(path)]
    if missing:
        open_index(open_searcher())  # encodes and indexes, with their own bars
    total = sum(map(len, parts.values()))
    done = total - sum(len(parts[start]) for start in missing)
    with bar("Searching", "queries", total, done=done, shown=progress) as searched:
        for start in missing:
            bounds = texts.positive_offsets[start : parts[start][-1] + 2]
            rows = np.repeat(np.arange(len(parts[start])), np.diff(bounds))
            passages = texts.positive_ids[bounds[0] : bounds[-1]]
            lists, scores = search_in_blocks(open_searcher(), parts[start], rows, passages, depth, searched.update)
            write_arrays(paths[start], [*arrays_of(lists), scores])
            write_sealed(paths[start].with_suffix(".json"), {}, [paths[start]])


def _candidates(
    texts: TextSet, open_searcher: Callable[[], Searcher], folder: Path, depth: int, progress: bool
) -> tuple[CandidateLists, Positives]:
    """The best ``depth`` candidates of every query, and the scores of the positives."""
    lists_of_parts, scores_of_parts = [], []
    paths = _parts(texts, folder)
    _fill(texts, open_searcher, paths, depth, progress)
    for path in paths.values():
        *arrays, scores = read_arrays(path, len(dataclasses.fields(CandidateLists)) + 1)
        lists_of_parts.append(CandidateLists(*arrays))
        scores_of_parts.append(scores)
    positives = Positives(texts.positive_offsets, texts.positive_ids, np.concatenate(scores_of_parts))
    return CandidateLists.concatenated(lists_of_parts), positives


def _has_part(path: Path) -> bool:
    return is_whole(path.with_suffix(".json"), aside=path.with_suffix(".json"))
