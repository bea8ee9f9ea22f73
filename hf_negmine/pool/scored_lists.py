"""A candidate pool from lists that somebody else scored: read, completed by their teacher, and stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import default_cache_dir, digest_of, only_writer, scratch_folder
from hf_negmine.base.paths import folder_of
from hf_negmine.base.protocols import Teacher
from hf_negmine.pool.continuing import require_same_scale
from hf_negmine.pool.list_reading import Read, read_lists
from hf_negmine.pool.list_sources import POSITIVE_SCORES
from hf_negmine.pool.listed import ListedPool, about_lists, lists_pool_name
from hf_negmine.pool.stored import ABOUT, LISTS, StoredPool, arrays_of, has_pool, write_pool
from hf_negmine.search import Indexes, Queries, pair_scores
from hf_negmine.select.selection import Positives
from hf_negmine.teachers import ListTeacher, resolve_teacher
from hf_negmine.teachers.vector_store import VectorStore


def open_scored_lists(
    queries: Any,
    documents: Any,
    scores: Any,
    positives: Any,
    *,
    teacher: Any,
    name: str | None,
    cache_dir: Path | str | None,
    device: str | None,
    progress: bool,
) -> ListedPool:
    """Read scored lists into a pool under the cache folder; see `CandidatePool.from_lists`."""
    home = default_cache_dir() if cache_dir is None else folder_of(cache_dir, "cache_dir")
    made = None if teacher is None else resolve_teacher(teacher, progress=progress, device=device)
    indexes = Indexes(VectorStore(home, progress=progress), device)
    with scratch_folder(home / "pools") as scratch:
        read = read_lists(queries, documents, scores, positives, cache_dir=home, scratch=scratch, progress=progress)
        if made is not None:
            _score_missing(read, made, indexes)
        _require_scores(read)
        digest = digest_of(LISTS, read.texts.fingerprint, read.scores, *arrays_of(read.lists))
        name = name or (LISTS if made is None else made.name)
        scorer = ListTeacher(name, digest, read.texts.fingerprint, made)
        return ListedPool(_stored(read, scorer, home), read.texts, scorer, indexes, read.ids)


def _score_missing(read: Read, teacher: Teacher, indexes: Indexes) -> None:
    """Score the positives that have no score, after checking that the lists are the teacher's."""
    searcher = indexes.open(teacher, read.texts.corpus).searcher(Queries.of(read.texts))
    require_same_scale(searcher, read.lists, teacher.name)
    missing = np.flatnonzero(np.isnan(read.scores))
    queries = np.repeat(np.arange(len(read.texts.queries)), np.diff(read.texts.positive_offsets))
    read.scores[missing] = pair_scores(searcher, queries[missing], read.texts.positive_ids[missing])


def _require_scores(read: Read) -> None:
    """Raise `InputError` unless every positive has a score."""
    missing = np.flatnonzero(np.isnan(read.scores))
    if len(missing):
        texts = read.texts
        query = int(np.searchsorted(texts.positive_offsets, missing[0], side="right")) - 1
        raise InputError(
            f"positives: {len(missing):,} of {len(read.scores):,} have no score, the first is that of query "
            f"{texts.queries.texts[query].as_py()[:80]!r}; add them to the lists, give their scores "
            f"({POSITIVE_SCORES}), or give the teacher= that made the lists, which scores the missing ones"
        )


def _stored(read: Read, scorer: ListTeacher, cache_dir: Path) -> Path:
    """Write the pool under the cache folder, unless it is there; its name is the digest of everything in it."""
    texts, about = read.texts, about_lists(scorer)
    folder = cache_dir / "pools" / lists_pool_name(scorer)
    positives = Positives(texts.positive_offsets, texts.positive_ids, read.scores)
    keys = texts.queries.digests[:, 0], texts.corpus.digests[:, 0]
    with only_writer(folder):
        if not has_pool(folder, about=about, locked=True, aside=folder / ABOUT):
            write_pool(folder, StoredPool(read.lists, positives, *keys, about))
    return folder
