"""The pools of a miner: its teachers opened over its texts, searched once, with its filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Searcher, Teacher, VectorTeacher
from hf_negmine.base.schema import FORMAT_VERSION
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool, retrieve
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.search import Indexes, Queries, open_engine, recall_of
from hf_negmine.search.ann_index import Engine
from hf_negmine.search.precision import FirstPass
from hf_negmine.select import PositiveScore
from hf_negmine.select.ensembles import Ensemble
from hf_negmine.select.filters import Consistency, Filter, Scene
from hf_negmine.select.judging import NotRelevant
from hf_negmine.teachers import identity_of
from hf_negmine.teachers.vector_store import VectorStore


@dataclass
class Retrieval:
    """Makes and opens the pools of a teacher or an ensemble.

    Attributes:
        teacher, positive_score, filters, consistency, device, first_pass, engine, progress: as in `NegativeMiner`.
        cache_dir: where vectors, indexes and pools are kept.
        depth: candidates a query to begin with.
        exclude_positives: whether positives and the query's own text are no candidates.
    """

    teacher: Teacher
    cache_dir: Path
    depth: int
    positive_score: PositiveScore
    filters: tuple[Filter, ...] = ()
    consistency: Consistency | None = None
    exclude_positives: bool = True
    device: str | None = None
    first_pass: FirstPass = "auto"
    engine: str = "exact"
    progress: bool = True
    _searchers: dict[tuple[str, str], Searcher] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.engine != "exact":
            self.engine = str(Engine.parse(self.engine))
            if not any(_has_vectors(teacher) for teacher in self.members):
                raise InputError(f"engine: {self.engine!r} is for dense teachers, and {self.teacher.name} is none")

    @property
    def members(self) -> tuple[Teacher, ...]:
        """The teachers that have a pool each: one, or those of an ensemble."""
        return self.teacher.stages if isinstance(self.teacher, Ensemble) else (self.teacher,)

    @cached_property
    def indexes(self) -> Indexes:
        """Opens teachers over a corpus, each once."""
        return Indexes(VectorStore(self.cache_dir, progress=self.progress), self.device, self.first_pass, self.engine)

    def about(self, teacher: Teacher, texts: TextSet) -> dict[str, Any]:
        """What a teacher's pool is about."""
        about = {**identity_of(teacher), "texts": texts.fingerprint, "library_version": version("hf_negmine")}
        return about if self.engine == "exact" else {**about, "engine": self.engine}

    def pool_names(self, texts: TextSet) -> list[str]:
        """Names of the pools' folders, one a member."""
        return [self._pool_name(self.about(teacher, texts)) for teacher in self.members]

    def open_corpus(self, texts: TextSet) -> None:
        """Encode and index the corpus now, not when the first query comes, in every process of a map."""
        for teacher in self.members:
            open_engine(self.searcher(teacher, texts))

    def searcher(self, teacher: Teacher, texts: TextSet) -> Searcher:
        """A teacher's searcher for the queries of ``texts``, kept for as long as the same texts are asked for."""
        key = (texts.fingerprint, digest_of(identity_of(teacher)))
        if key not in self._searchers:
            queries = Queries.of(texts, exclude_positives=self.exclude_positives)
            self._searchers = {other: kept for other, kept in self._searchers.items() if other[0] == key[0]}
            self._searchers[key] = self.indexes.open(teacher, texts.corpus).searcher(queries)
        return self._searchers[key]

    def pool(self, texts: TextSet, not_relevant: NotRelevant | None = None) -> CandidatePool | EnsemblePool:
        """The pool of all members with the filters, made if it is not there.

        Args:
            texts: queries, corpus and positives.
            not_relevant: keeps out what a judge called relevant.
        """
        pools = [self._pool(teacher, texts) for teacher in self.members]
        if not_relevant is not None:
            for pool in pools:
                pool.filters += (not_relevant,)
        return EnsemblePool(self.teacher, pools) if isinstance(self.teacher, Ensemble) else pools[0]

    def _pool_name(self, about: dict[str, Any]) -> str:
        return digest_of("pool", FORMAT_VERSION, about, self.depth, not self.exclude_positives)

    def require_same(self, names: Sequence[str], texts: TextSet) -> None:
        """Raise `InputError` unless the pools that the teachers would have now are the ones with these ``names``."""
        _require_same(list(names) == self.pool_names(texts), self.teacher)

    def _pool(self, teacher: Teacher, texts: TextSet) -> CandidatePool:
        about = self.about(teacher, texts)  # asked for once: a model is read whole each time

        def searcher() -> Searcher:
            _require_same(self.about(teacher, texts) == about, teacher)
            return self.searcher(teacher, texts)

        def recall() -> dict[str, Any]:
            return {"recall": recall_of(self.searcher(teacher, texts), len(texts.queries), self.depth)}

        pool = retrieve(
            texts,
            searcher,
            self.cache_dir / "pools" / self._pool_name(about),
            about,
            depth=max(self.depth, getattr(teacher, "candidates", 0)),
            notes=None if self.engine == "exact" else recall,
            progress=self.progress,
        )
        pool.positives.warn_of_zeros(teacher.name)
        pool.consistency, pool.positive_score = self.consistency, self.positive_score
        pool.with_positives = not self.exclude_positives
        pool.scene = lambda: Scene(
            Queries.of(texts, exclude_positives=self.exclude_positives),
            texts.corpus,
            texts.positive_offsets,
            texts.positive_ids.astype(np.int64),
            None,
            self.positive_score,
            teacher,
            self.indexes,
            pool.counted(),
        )
        pool.filters = pool.bound(self.filters, self.positive_score)
        return pool


def _require_same(same: bool, teacher: Teacher) -> None:
    require(
        same,
        f"{teacher.name} is no longer what it was at fit(): its weights or settings have changed since, and its scores "
        "would mix with the earlier ones; call fit() again",
    )


def _has_vectors(teacher: Teacher) -> bool:
    """Whether a dense teacher searches the corpus, for itself or as the first stage of another."""
    first = getattr(teacher, "first_stage", None)
    return isinstance(teacher, VectorTeacher) or (first is not None and _has_vectors(first))
