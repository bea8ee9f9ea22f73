"""A candidate pool from lists that somebody else scored: read, completed by their teacher, and stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import default_cache_dir, digest_of, only_writer, scratch_folder
from hf_negmine.base.paths import folder_of
from hf_negmine.base.protocols import Searcher, Teacher
from hf_negmine.base.schema import FORMAT_VERSION, BoolArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.continuing import ContinuedSearcher, require_same_scale
from hf_negmine.pool.list_reading import Read, read_lists
from hf_negmine.pool.list_sources import POSITIVE_SCORES
from hf_negmine.pool.stored import ABOUT, LISTS, StoredPool, arrays_of, has_pool, read_pool, write_pool
from hf_negmine.search import Indexes, Queries, pair_scores
from hf_negmine.select.filters import Scene
from hf_negmine.select.selection import Positives
from hf_negmine.teachers import ListTeacher, identity_of, resolve_teacher
from hf_negmine.teachers.vector_store import VectorStore


@dataclass(frozen=True)
class OpenedLists:
    """Scored lists as a pool on disk, and what can be done with their texts.

    Attributes:
        folder: the pool's folder.
        texts: queries, corpus and positives.
        teacher: what scored the lists.
        indexes: opens teachers over the corpus.
    """

    folder: Path
    texts: TextSet
    teacher: ListTeacher
    indexes: Indexes

    def scene(self, counted: BoolArray | None) -> Scene:
        """What filters may look at; ``counted`` is that of the pool."""
        texts, teacher = self.texts, self.teacher.continued_by or self.teacher
        offsets, ids = texts.positive_offsets, texts.positive_ids.astype(np.int64)
        return Scene(Queries.of(texts), texts.corpus, offsets, ids, None, "min", teacher, self.indexes, counted)

    @property
    def open_searcher(self) -> Callable[[], Searcher] | None:
        """Opens what continues the lists, if there is a teacher."""
        teacher = self.teacher.continued_by
        return None if teacher is None else cache(partial(self._searcher, teacher))

    def _searcher(self, teacher: Teacher) -> Searcher:
        searcher = self.indexes.open(teacher, self.texts.corpus).searcher(Queries.of(self.texts))
        return ContinuedSearcher(searcher, read_pool(self.folder).lists.tops(), len(self.texts.corpus))


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
) -> OpenedLists:
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
        scorer = ListTeacher(name or (LISTS if made is None else made.name), digest, made)
        return OpenedLists(_stored(read, scorer, home), read.texts, scorer, indexes)


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
    texts = read.texts
    about = {
        **identity_of(scorer),
        "texts": texts.fingerprint,
        "library_version": version("hf_negmine"),
        "source": LISTS,
    }
    folder = cache_dir / "pools" / digest_of("pool", FORMAT_VERSION, about)
    positives = Positives(texts.positive_offsets, texts.positive_ids, read.scores)
    keys = texts.queries.digests[:, 0], texts.corpus.digests[:, 0]
    with only_writer(folder):
        if not has_pool(folder, about=about, locked=True, aside=folder / ABOUT):
            write_pool(folder, StoredPool(read.lists, positives, *keys, about))
    return folder
