"""A candidate pool from lists that somebody else scored: read, completed by their teacher, stored, and opened."""

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
from hf_negmine.pool.ids import POSITIONS, Ids
from hf_negmine.pool.list_reading import Read, read_lists
from hf_negmine.pool.list_sources import POSITIVE_SCORES
from hf_negmine.pool.stored import ABOUT, LISTS, StoredPool, arrays_of, has_pool, read_pool, write_pool
from hf_negmine.search import Indexes, Queries, pair_scores
from hf_negmine.select.filters import Scene
from hf_negmine.teachers import ListTeacher, identity_of, resolve_teacher
from hf_negmine.teachers.vector_store import VectorStore


@dataclass(frozen=True)
class ListedPool:
    """A pool of lists on disk, and what can be done with its texts.

    Attributes:
        folder: the pool's folder.
        texts: queries, corpus and positives.
        teacher: what scored the lists.
        indexes: opens teachers over the corpus.
        ids: what the texts were given as.
    """

    folder: Path
    texts: TextSet
    teacher: ListTeacher
    indexes: Indexes
    ids: Ids = POSITIONS

    def scene(self, counted: BoolArray | None) -> Scene:
        """What filters may look at; ``counted`` is that of the pool."""
        return Scene.of(self.texts, self.teacher.continued_by or self.teacher, self.indexes, counted=counted)

    @property
    def open_searcher(self) -> Callable[[], Searcher] | None:
        """Opens what continues the lists, if there is a teacher."""
        teacher = self.teacher.continued_by
        return None if teacher is None else cache(partial(self._searcher, teacher))

    def _searcher(self, teacher: Teacher) -> Searcher:
        searcher = self.indexes.open(teacher, self.texts.corpus).searcher(Queries.of(self.texts))
        return ContinuedSearcher(searcher, read_pool(self.folder).lists.tops(), len(self.texts.corpus))


def lists_pool_name(teacher: ListTeacher) -> str:
    """The name of the folder of a pool of lists: the digest of everything in it."""
    return digest_of("pool", FORMAT_VERSION, _about(teacher))


def _about(teacher: ListTeacher) -> dict[str, Any]:
    own = {"texts": teacher.texts, "library_version": version("hf_negmine"), "source": LISTS}
    return {**identity_of(teacher), **own}


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
        digest = digest_of(LISTS, read.texts.fingerprint, read.positives.scores, *arrays_of(read.lists))
        name = name or (LISTS if made is None else made.name)
        scorer = ListTeacher(name, digest, read.texts.fingerprint, made)
        folder, about = home / "pools" / lists_pool_name(scorer), _about(scorer)
        keys = read.texts.queries.digests[:, 0], read.texts.corpus.digests[:, 0]
        with only_writer(folder):
            if not has_pool(folder, about=about, locked=True, aside=folder / ABOUT):
                write_pool(folder, StoredPool(read.lists, read.positives, *keys, about))
    return ListedPool(folder, read.texts, scorer, indexes, read.ids)


def _score_missing(read: Read, teacher: Teacher, indexes: Indexes) -> None:
    """Score the positives that have no score, after checking that the lists are the teacher's."""
    searcher = indexes.open(teacher, read.texts.corpus).searcher(Queries.of(read.texts))
    require_same_scale(searcher, read.lists, teacher.name)
    positives = read.positives
    missing = np.flatnonzero(np.isnan(positives.scores))
    positives.scores[missing] = pair_scores(searcher, positives.query_of_pair[missing], positives.ids[missing])


def _require_scores(read: Read) -> None:
    """Raise `InputError` unless every positive has a score."""
    missing = np.flatnonzero(np.isnan(read.positives.scores))
    if len(missing):
        query = int(read.positives.query_of_pair[missing[0]])
        raise InputError(
            f"positives: {len(missing):,} of {len(read.positives.scores):,} have no score, the first is that of query "
            f"{read.texts.queries.texts[query].as_py()[:80]!r}; add them to the lists, give their scores "
            f"({POSITIVE_SCORES}), or give the teacher= that made the lists, which scores the missing ones"
        )
