"""A teacher's view of a corpus, which turns any kind of teacher into a searcher.

An index is opened once per corpus, and then makes searchers for any queries: those of a fit, whose vectors are stored,
or those of rows that come later.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.devices import best_device
from hf_negmine.base.errors import InputError
from hf_negmine.base.files import digest_of, is_read_only
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
from hf_negmine.search.corpus import VectorsInMemory, VectorSource
from hf_negmine.search.exact import VectorSearcher
from hf_negmine.search.faiss_index import build_index
from hf_negmine.search.late import MaxSim, MeanVectors
from hf_negmine.search.pairwise import Queries, check_scores, pair_scores, score_text_pairs, stored_scores
from hf_negmine.search.proposals import IndexProposals
from hf_negmine.search.ranking import Exclusions
from hf_negmine.search.rerank import BestOf, RerankingSearcher, ScorePairs
from hf_negmine.search.scan import ScoreSearcher
from hf_negmine.search.scoring import canonical_scores
from hf_negmine.search.sparse import InvertedIndex, paired_scores
from hf_negmine.teachers import ApproximateTeacher, BM25Teacher, ListTeacher, identity_of
from hf_negmine.teachers.fusion import require_every_score
from hf_negmine.teachers.pair_store import PairStore
from hf_negmine.teachers.stored import StoredTokens
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
    """

    store: VectorStore
    device: str | None = None
    first_pass: FirstPass = "auto"
    _opened: dict[tuple[str, str], TeacherIndex] = field(default_factory=dict, repr=False)
    _scored: dict[str, PairStore] = field(default_factory=dict, repr=False)

    def open(self, teacher: Teacher, corpus: TextColumn) -> TeacherIndex:
        """The teacher's index of ``corpus``, encoding what the store lacks."""
        key = (str(corpus.folder), digest_of(identity_of(teacher)))  # changes if the teacher is trained
        if key not in self._opened:
            for other in [other for other in self._opened if other[0] != key[0]]:
                del self._opened[other]  # it belongs to an earlier corpus
            self._opened[key] = self._new(teacher, corpus)
        return self._opened[key]

    def scorer(self, teacher: Teacher, corpus: TextColumn, queries: Queries) -> ScorePairs:
        """The teacher's scores of (query id, passage id) pairs.

        Where every query takes a scan of the corpus, the scores for the queries of a fit are stored: each is computed
        once, whatever selection needs it.
        """
        searcher = self.open(teacher, corpus).searcher(queries)
        if not isinstance(searcher, ScoreSearcher) or queries.column is None or is_read_only(self.store.folder):
            return lambda ids, passages: pair_scores(searcher, ids, passages)
        scorer = digest_of(identity_of(teacher), corpus.digests)
        if scorer not in self._scored:
            progress = self.store.progress
            self._scored[scorer] = PairStore.of(self.store.folder, scorer, teacher.name, progress=progress)
        return stored_scores(searcher, queries, corpus, self._scored[scorer])

    @property
    def place(self) -> str:
        """The device where products are computed."""
        return self.device or best_device()

    def exact(self, passages: VectorSource) -> VectorSearcher:
        """A searcher of these vectors, loaded once; queries come with `VectorSearcher.with_queries`."""
        nothing = Exclusions.none(0)
        return VectorSearcher(passages, passages, nothing, device=self.place, first_pass=self.first_pass)

    def _new(self, teacher: Teacher, corpus: TextColumn) -> TeacherIndex:
        if isinstance(teacher, ListTeacher):
            if teacher.continued_by is None:
                raise InputError(
                    f"{teacher.name} only scored its own lists, and some rows have a query or a positive that is not "
                    "among them, or a filter asks it for scores; mine the rows of the lists, or give the teacher that "
                    "made them"
                )
            return self.open(teacher.continued_by, corpus)
        if isinstance(teacher, ApproximateTeacher):
            return _ApproximateIndex(teacher, corpus, self.store, self.open(teacher.teacher, corpus))
        if isinstance(teacher, VectorTeacher):
            return _VectorIndex(teacher, corpus, self)
        if isinstance(teacher, ScoringTeacher):
            if isinstance(teacher, BM25Teacher) and not self.store.progress:
                teacher = replace(teacher, progress=False)  # a veto's may have been made without the miner's settings
            return _ScanIndex(teacher, corpus)
        if isinstance(teacher, SparseTeacher):
            return _SparseIndex(teacher, corpus, self)
        if isinstance(teacher, TokenTeacher):
            return _TokenIndex(teacher, corpus, self)
        if isinstance(teacher, PairTeacher):
            return _PairIndex(teacher, corpus, self.store, self.open(teacher.first_stage, corpus))
        if isinstance(teacher, FusionTeacher):
            require_every_score(teacher.name, teacher.stages)
            return _FusionIndex(teacher, len(corpus), [self.open(stage, corpus) for stage in teacher.stages])
        raise TypeError(f"{teacher!r} follows none of the teachers' protocols")


class _VectorIndex:
    def __init__(self, teacher: VectorTeacher, corpus: TextColumn, indexes: Indexes) -> None:
        self._teacher, self._store = teacher, indexes.store
        self.passages = self._store.vectors(teacher, corpus, "passage")
        self._corpus = indexes.exact(self.passages)

    def searcher(self, queries: Queries) -> VectorSearcher:
        vectors: VectorSource = self.passages  # of no queries
        if queries.column is None:
            vectors = VectorsInMemory(self._encode(queries.texts.to_pylist(), "query"))
        elif len(queries.column):
            vectors = self._store.vectors(self._teacher, queries.column, "query")
        check_widths(vectors.shape[1], self.passages.shape[1], self._teacher)
        return self._corpus.with_queries(vectors, queries.exclusions)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        vectors = self._encode(queries, "query"), self._encode(passages, "passage")
        check_widths(vectors[0].shape[1], vectors[1].shape[1], self._teacher)
        scores = canonical_scores(*(torch.from_numpy(part) for part in vectors))
        return np.asarray(scores.numpy())

    def _encode(self, texts: list[str], role: Role) -> FloatArray:
        vectors = check_vectors(self._teacher.encode(texts, role), self._teacher, texts, None)
        return unit_length(vectors) if self._teacher.similarity == "cosine" else vectors


class _ApproximateIndex:
    def __init__(
        self, teacher: ApproximateTeacher, corpus: TextColumn, store: VectorStore, exact: TeacherIndex
    ) -> None:
        assert isinstance(exact, _VectorIndex)
        self._exact, self._candidates = exact, teacher.candidates
        dense = teacher.teacher
        parts = dense.fingerprint("passage"), dense.similarity, corpus.digests, teacher.index.factory
        path = store.folder / "indexes" / f"{digest_of('faiss', *parts)}.faiss"
        self._open = cache(lambda: build_index(exact.passages, teacher.index, path, progress=store.progress))

    def searcher(self, queries: Queries) -> Searcher:
        exact = self._exact.searcher(queries)
        first_stage = IndexProposals(exact, self._open, self._candidates)
        return RerankingSearcher(first_stage, lambda ids, passages: pair_scores(exact, ids, passages))

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        return self._exact.text_scores(queries, passages)


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
    def __init__(self, teacher: SparseTeacher, corpus: TextColumn, indexes: Indexes) -> None:
        self._teacher, self._store = teacher, indexes.store
        stored = self._store.sparse(teacher, corpus, "passage")
        starts = range(0, len(stored), TEXTS_A_STEP)
        blocks = (stored.gather(np.arange(start, min(start + TEXTS_A_STEP, len(stored)))) for start in starts)
        self._index = InvertedIndex.of(blocks, indexes.place)

    def searcher(self, queries: Queries) -> Searcher:
        stored = self._store.sparse(self._teacher, queries.column, "query") if queries.column else None

        def scores(ids: IdArray) -> FloatArray:
            if stored is not None:
                return self._index.scores(stored.gather(ids))
            return self._index.scores(self._encode(queries.texts.take(pa.array(ids)).to_pylist(), "query"))

        n_passages = self._index.n_passages
        return ScoreSearcher(scores, queries.texts, n_passages, queries.exclusions, teacher=self._teacher.name)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        return paired_scores(self._encode(queries, "query"), self._encode(passages, "passage"))

    def _encode(self, texts: list[str], role: Role) -> SparseVectors:
        return check_sparse(self._teacher.encode_sparse(texts, role), self._teacher, texts)


class _TokenIndex:
    def __init__(self, teacher: TokenTeacher, corpus: TextColumn, indexes: Indexes) -> None:
        self._teacher, self._store, self._device = teacher, indexes.store, indexes.place
        self._passages = self._store.tokens(teacher, corpus, "passage")
        self._first: TeacherIndex | VectorSearcher
        if teacher.first_stage is None:
            self._first = indexes.exact(MeanVectors(self._passages))
        else:
            self._first = indexes.open(teacher.first_stage, corpus)

    def searcher(self, queries: Queries) -> Searcher:
        tokens = self._passages  # of no queries
        if queries.column is None:
            tokens = self._encode(queries.texts.to_pylist(), "query")
        elif len(queries.column):
            tokens = self._store.tokens(self._teacher, queries.column, "query")
        first: Searcher
        if isinstance(self._first, VectorSearcher):
            first = self._first.with_queries(MeanVectors(tokens), queries.exclusions)
        else:
            first = self._first.searcher(queries)
        score_pairs = self._max_sim(tokens, self._passages).scores
        return RerankingSearcher(BestOf(first, self._teacher.candidates), score_pairs)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        both = np.arange(len(queries))
        tokens = self._encode(queries, "query"), self._encode(passages, "passage")
        return self._max_sim(*tokens).scores(both, both.astype(np.int32))

    def _max_sim(self, queries: StoredTokens, passages: StoredTokens) -> MaxSim:
        check_widths(queries.width, passages.width, self._teacher)
        return MaxSim(queries, passages, self._device)

    def _encode(self, texts: list[str], role: Role) -> StoredTokens:
        return StoredTokens.in_memory(check_tokens(self._teacher.encode_tokens(texts, role), self._teacher, texts))


class _PairIndex:
    def __init__(self, teacher: PairTeacher, corpus: TextColumn, store: VectorStore, first: TeacherIndex) -> None:
        self._teacher, self._corpus, self._first = teacher, corpus, first
        both = digest_of(teacher.fingerprint("query"), teacher.fingerprint("passage"))
        self._pairs = PairStore.of(store.folder, both, teacher.name, progress=store.progress)

    def searcher(self, queries: Queries) -> Searcher:
        # Scores of passing queries are not stored: the queries are not likely to come again.
        store = None if queries.column is None else self._pairs
        score_pairs = score_text_pairs(self._teacher.score, self._teacher.name, queries, self._corpus, store)
        return RerankingSearcher(BestOf(self._first.searcher(queries), self._teacher.candidates), score_pairs)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        return check_scores(self._teacher.score(queries, passages), self._teacher.name, queries, passages)


class _FusionIndex:
    def __init__(self, teacher: FusionTeacher, n_passages: int, indexes: list[TeacherIndex]) -> None:
        self._teacher, self._n_passages, self._indexes = teacher, n_passages, indexes

    def searcher(self, queries: Queries) -> Searcher:
        searchers = [index.searcher(queries) for index in self._indexes]

        def scores(ids: IdArray) -> FloatArray:
            parts: list[FloatArray] = []
            for searcher in searchers:
                block = searcher.block(ids)
                assert isinstance(block, ScanningBlock)  # `require_every_score`
                parts.append(block.all_scores())
            return self._teacher.fuse(parts)

        return ScoreSearcher(scores, queries.texts, self._n_passages, queries.exclusions, teacher=self._teacher.name)

    def text_scores(self, queries: list[str], passages: list[str]) -> FloatArray:
        raise _knows_its_corpus_only(self._teacher, passages)


def _knows_its_corpus_only(teacher: Teacher, passages: list[str]) -> InputError:
    return InputError(
        f"{teacher.name} only scores passages of its corpus, and a positive is not in it: {passages[0][:80]!r}; fit on "
        "a corpus that holds the positives"
    )
