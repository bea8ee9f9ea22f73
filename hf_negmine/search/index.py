"""A teacher's view of a corpus, which turns any kind of teacher into a searcher.

An index is opened once per corpus, and then makes searchers for any queries: those of a fit, whose vectors are stored,
or those of rows that come later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.devices import best_device
from hf_negmine.base.errors import InputError
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import (
    FusionTeacher,
    PairTeacher,
    Role,
    ScanningBlock,
    ScoringTeacher,
    Searcher,
    SparseTeacher,
    SparseVectors,
    Teacher,
    TokenTeacher,
    VectorTeacher,
)
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.data.texts import TextColumn
from hf_negmine.search.ann import FaissSearcher, measured_recall
from hf_negmine.search.ann_index import Engine, build_index
from hf_negmine.search.corpus import VectorSource
from hf_negmine.search.exact import VectorSearcher
from hf_negmine.search.late import MaxSim, MeanVectors, TokensInMemory, TokenSource
from hf_negmine.search.pairwise import Queries, check_scores, score_text_pairs
from hf_negmine.search.ranking import Exclusions
from hf_negmine.search.rerank import RerankingSearcher
from hf_negmine.search.scan import ScoreSearcher
from hf_negmine.search.scoring import canonical_scores
from hf_negmine.search.sparse import InvertedIndex, paired_scores
from hf_negmine.teachers import identity_of
from hf_negmine.teachers.pair_store import PairStore
from hf_negmine.teachers.vector_store import VectorStore
from hf_negmine.teachers.vectors import check_sparse, check_tokens, check_vectors, check_widths, unit_length

TEXTS_A_STEP = 16_384


class TeacherIndex(Protocol):
    """A teacher's view of a corpus."""

    def searcher(self, queries: Queries) -> Searcher:
        """Make a searcher of the corpus for some queries."""

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        """The score of each (query, passage) pair of texts that need not be in the corpus; shape (pairs,).

        Raises:
            InputError: the teacher only knows the passages of its corpus.
        """


@dataclass(frozen=True)
class Indexes:
    """Opens teachers over a corpus, each of them once; only the last corpus stays open.

    Attributes:
        store: where vectors and scores of pairs are stored.
        device: the device of the search; None takes a GPU if there is one.
        first_pass: number format of the exact search's first pass.
        engine: ``"exact"``, or a FAISS factory for dense teachers.
    """

    store: VectorStore
    device: str | None = None
    first_pass: FirstPass = "auto"
    engine: str = "exact"
    _opened: dict[tuple[str, str], TeacherIndex] = field(default_factory=dict, repr=False)

    def open(self, teacher: Teacher, corpus: TextColumn) -> TeacherIndex:
        """The teacher's index of ``corpus``, encoding what the store lacks."""
        key = (str(corpus.folder), digest_of(identity_of(teacher)))  # changes if the teacher is trained
        if key not in self._opened:
            for other in [other for other in self._opened if other[0] != key[0]]:
                del self._opened[other]  # it belongs to an earlier corpus
            self._opened[key] = self._new(teacher, corpus)
        return self._opened[key]

    def _new(self, teacher: Teacher, corpus: TextColumn) -> TeacherIndex:
        if isinstance(teacher, VectorTeacher):
            return _VectorIndex(teacher, corpus, self.store, self.device, self.first_pass, self.engine)
        if isinstance(teacher, ScoringTeacher):
            return _ScanIndex(teacher, corpus)
        if isinstance(teacher, SparseTeacher):
            return _SparseIndex(teacher, corpus, self.store)
        if isinstance(teacher, TokenTeacher):
            first = None if teacher.first_stage is None else self.open(teacher.first_stage, corpus)
            return _TokenIndex(teacher, corpus, self.store, first, self.device, self.first_pass)
        if isinstance(teacher, PairTeacher):
            return _PairIndex(teacher, corpus, self.store, self.open(teacher.first_stage, corpus))
        if isinstance(teacher, FusionTeacher):
            exact = replace(self, engine="exact", _opened={})  # a fusion scores every passage
            return _FusionIndex(teacher, len(corpus), [exact.open(stage, corpus) for stage in teacher.stages])
        raise TypeError(f"{teacher!r} follows none of the teachers' protocols")


class _VectorIndex:
    def __init__(
        self,
        teacher: VectorTeacher,
        corpus: TextColumn,
        store: VectorStore,
        device: str | None,
        first_pass: FirstPass,
        engine: str,
    ) -> None:
        self._teacher, self._store = teacher, store
        passages = store.vectors(teacher, corpus, "passage")
        self._width = passages.shape[1]
        # Queries are set by `searcher`; the corpus is loaded once.
        exact = VectorSearcher(
            passages, passages, Exclusions.none(0), device=device or best_device(), first_pass=first_pass
        )
        self._corpus: VectorSearcher | FaissSearcher = exact
        if engine != "exact":
            factory = Engine.parse(engine).factory
            name = digest_of("faiss", teacher.fingerprint("passage"), teacher.similarity, corpus.digests, factory)
            path = store.folder / "indexes" / f"{name}.faiss"
            self._corpus = FaissSearcher(exact, lambda: build_index(passages, engine, path, progress=store.progress))

    def searcher(self, queries: Queries) -> Searcher:
        vectors: VectorSource
        if queries.column is None:
            vectors = VectorsInMemory(self._encode(queries.texts.to_pylist(), "query"))
        elif not len(queries.column):
            return self._corpus
        else:
            vectors = self._store.vectors(self._teacher, queries.column, "query")
        check_widths(vectors.shape[1], self._width, self._teacher)
        return self._corpus.with_queries(vectors, queries.exclusions)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        vectors = self._encode(queries, "query"), self._encode(passages, "passage")
        check_widths(vectors[0].shape[1], vectors[1].shape[1], self._teacher)
        scores = canonical_scores(*(torch.from_numpy(part) for part in vectors))
        return np.asarray(scores.numpy())

    def _encode(self, texts: list[str], role: Role) -> FloatArray:
        vectors = check_vectors(self._teacher.encode(texts, role), self._teacher, texts, None)
        return unit_length(vectors) if self._teacher.similarity == "cosine" else vectors


class _ScanIndex:
    def __init__(self, teacher: ScoringTeacher, corpus: TextColumn) -> None:
        self._teacher, self._n_passages = teacher, len(corpus)
        self._scorer = teacher.index(corpus.texts)

    def searcher(self, queries: Queries) -> Searcher:
        def scores(ids: IdArray) -> FloatArray:
            return self._scorer.scores(queries.texts.take(pa.array(ids)).to_pylist())

        return ScoreSearcher(scores, queries.texts, self._n_passages, queries.exclusions, teacher=self._teacher.name)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        raise _knows_its_corpus_only(self._teacher, passages)


class _SparseIndex:
    def __init__(self, teacher: SparseTeacher, corpus: TextColumn, store: VectorStore) -> None:
        self._teacher, self._store = teacher, store
        stored = store.sparse(teacher, corpus, "passage")
        starts = range(0, len(stored), TEXTS_A_STEP)
        self._index = InvertedIndex.of(
            stored.gather(np.arange(start, min(start + TEXTS_A_STEP, len(stored)))) for start in starts
        )

    def searcher(self, queries: Queries) -> Searcher:
        scores: Callable[[IdArray], FloatArray]
        if queries.column is None or not len(queries.column):

            def scores(ids: IdArray) -> FloatArray:
                return self._index.scores(self._encode(queries.texts.take(pa.array(ids)).to_pylist(), "query"))
        else:
            stored = self._store.sparse(self._teacher, queries.column, "query")

            def scores(ids: IdArray) -> FloatArray:
                return self._index.scores(stored.gather(ids))

        n_passages = self._index.n_passages
        return ScoreSearcher(scores, queries.texts, n_passages, queries.exclusions, teacher=self._teacher.name)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        return paired_scores(self._encode(queries, "query"), self._encode(passages, "passage"))

    def _encode(self, texts: list[str], role: Role) -> SparseVectors:
        return check_sparse(self._teacher.encode_sparse(texts, role), self._teacher, texts)


class _TokenIndex:
    def __init__(
        self,
        teacher: TokenTeacher,
        corpus: TextColumn,
        store: VectorStore,
        first: TeacherIndex | None,
        device: str | None,
        first_pass: FirstPass,
    ) -> None:
        self._teacher, self._store, self._first = teacher, store, first
        self._passages = store.tokens(teacher, corpus, "passage")
        self._means: VectorSearcher | None = None
        if first is None:
            means = MeanVectors(self._passages)
            self._means = VectorSearcher(
                means, means, Exclusions.none(0), device=device or best_device(), first_pass=first_pass
            )

    def searcher(self, queries: Queries) -> Searcher:
        tokens: TokenSource
        if queries.column is None:
            tokens = self._encode(queries.texts.to_pylist(), "query")
        else:
            tokens = (
                self._store.tokens(self._teacher, queries.column, "query") if len(queries.column) else self._passages
            )
        if self._first is not None:
            first_stage = self._first.searcher(queries)
        else:
            assert self._means is not None
            first_stage = self._means.with_queries(MeanVectors(tokens), queries.exclusions)
        return RerankingSearcher(first_stage, self._max_sim(tokens, self._passages).scores, self._teacher.candidates)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        both = np.arange(len(queries))
        tokens = self._encode(queries, "query"), self._encode(passages, "passage")
        return self._max_sim(*tokens).scores(both, both.astype(np.int32))

    def _max_sim(self, queries: TokenSource, passages: TokenSource) -> MaxSim:
        widths = [tokens.gather(np.zeros(1, dtype=np.int64)).vectors.shape[1] for tokens in (queries, passages)]
        check_widths(widths[0], widths[1], self._teacher)
        return MaxSim(queries, passages)

    def _encode(self, texts: list[str], role: Role) -> TokensInMemory:
        return TokensInMemory(check_tokens(self._teacher.encode_tokens(texts, role), self._teacher, texts))


class _PairIndex:
    def __init__(self, teacher: PairTeacher, corpus: TextColumn, store: VectorStore, first: TeacherIndex) -> None:
        self._teacher, self._corpus, self._first = teacher, corpus, first
        both = digest_of(teacher.fingerprint("query"), teacher.fingerprint("passage"))
        self._pairs = PairStore.of(store.folder, both, teacher.name, progress=store.progress)

    def searcher(self, queries: Queries) -> Searcher:
        # Scores of passing queries are not stored: the queries are not likely to come again.
        store = None if queries.column is None else self._pairs
        score_pairs = score_text_pairs(self._teacher.score, self._teacher.name, queries, self._corpus, store)
        return RerankingSearcher(self._first.searcher(queries), score_pairs, self._teacher.candidates)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        return check_scores(self._teacher.score(queries, passages), self._teacher.name, queries, passages)


class _FusionIndex:
    def __init__(self, teacher: FusionTeacher, n_passages: int, indexes: list[TeacherIndex]) -> None:
        self._teacher, self._n_passages, self._indexes = teacher, n_passages, indexes

    def searcher(self, queries: Queries) -> Searcher:
        searchers = [index.searcher(queries) for index in self._indexes]

        def scores(ids: IdArray) -> FloatArray:
            parts: list[FloatArray] = []
            for searcher, stage in zip(searchers, self._teacher.stages, strict=True):
                block = searcher.block(ids)
                if not isinstance(block, ScanningBlock):
                    raise InputError(
                        f"{self._teacher.name} needs the score of every passage, and {stage.name} only scores the "
                        "candidates of another teacher; put it on top of the fusion, with the fusion as its first_stage"
                    )
                parts.append(block.all_scores())
            return self._teacher.fuse(parts)

        return ScoreSearcher(scores, queries.texts, self._n_passages, queries.exclusions, teacher=self._teacher.name)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        raise _knows_its_corpus_only(self._teacher, passages)


@dataclass(frozen=True)
class VectorsInMemory:
    """Vectors of texts that are not stored; see `search.corpus.VectorSource`."""

    vectors: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """(texts, width)."""
        return self.vectors.shape[0], self.vectors.shape[1]

    def slice(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop."""
        return self.vectors[start:stop]

    def gather(self, ids: IdArray) -> FloatArray:
        """Rows with these ids."""
        return self.vectors[ids]


def recall_of(searcher: Searcher, n_queries: int, depth: int) -> float | None:
    """The share of the exact best candidates that an approximate engine finds, on a sample; None for an exact one."""
    searcher = _first_stage(searcher)
    return round(measured_recall(searcher, n_queries, depth), 4) if isinstance(searcher, FaissSearcher) else None


def open_engine(searcher: Searcher) -> None:
    """Build or open the index of an approximate engine now, rather than when candidates are first requested."""
    searcher = _first_stage(searcher)
    if isinstance(searcher, FaissSearcher):
        _ = searcher.index


def _first_stage(searcher: Searcher) -> Searcher:
    while isinstance(searcher, RerankingSearcher):
        searcher = searcher.first_stage
    return searcher


def _knows_its_corpus_only(teacher: Teacher, passages: list[str]) -> InputError:
    return InputError(
        f"{teacher.name} only scores passages of its corpus, and a positive is not in it: {passages[0][:80]!r}; fit on "
        "a corpus that holds the positives"
    )
