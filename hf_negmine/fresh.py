"""Mining on the fly: rows that were not there at `fit`, such as those of a stream, against the fitted corpus.

Each row stands for itself: the positives it names set its ceiling, and those that `fit` knows of its query are no
candidates either. A positive outside the corpus is scored, but is no candidate for others. Texts are encoded a batch at
a time: a model whose vectors differ in their last digits from batch to batch (in bfloat16 they do) may order candidates
of nearly the same score differently with another batch size.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from hf_negmine.csr import flat_positions, offsets_of_counts, offsets_of_rows
from hf_negmine.errors import InputError
from hf_negmine.files import text_digests
from hf_negmine.fitted import RowPairs
from hf_negmine.methods import Method
from hf_negmine.mined import RowNegatives
from hf_negmine.pool import CandidatePool, search_queries
from hf_negmine.protocols import Role, Sampler, Searcher, Teacher, VectorTeacher
from hf_negmine.schema import FloatArray, IdArray
from hf_negmine.search import Exclusions, ScoreSearcher, VectorSearcher
from hf_negmine.search.scoring import canonical_scores
from hf_negmine.select import Positives, PositiveScore
from hf_negmine.store import check_vectors, unit_length
from hf_negmine.texts import TextSet

PROCESS_OF_IMPORT = os.getpid()


@dataclass(frozen=True)
class VectorArray:
    """Vectors in memory; see `search.exact.VectorSource`."""

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


@dataclass(frozen=True)
class FreshMiner:
    """Mines single rows with the settings of a miner.

    Attributes:
        teacher: scores them.
        texts: what `fit` has seen.
        open_searcher: makes the teacher's searcher over ``texts``.
        method, sampler, n, seed, positive_score: as in `NegativeMiner`.
        depth: candidates a query to begin with.
        exclude_positives: whether positives and the query's own text are no candidates.
    """

    teacher: Teacher
    texts: TextSet
    open_searcher: Callable[[], Searcher]
    method: Method
    sampler: Sampler
    n: int
    seed: int
    positive_score: PositiveScore
    depth: int
    exclude_positives: bool = True

    def mine(self, pairs: RowPairs) -> RowNegatives:
        """Negatives of every row of ``pairs``."""
        if os.getpid() != PROCESS_OF_IMPORT:
            # A fork, such as map(num_proc=…) makes, has none of OpenMP's threads and would wait for them forever.
            torch.set_num_threads(1)
        n_rows = len(pairs.queries)
        exclusions = self._exclusions(pairs)
        searcher = self._searcher(pairs.queries, exclusions)
        inside = np.flatnonzero(pairs.positive_ids >= 0)
        lists, inside_scores = search_queries(
            searcher, np.arange(n_rows), pairs.rows[inside], pairs.positive_ids[inside].astype(np.int32), self.depth
        )
        positive_scores = np.empty(len(pairs.rows), dtype=np.float32)
        positive_scores[inside] = inside_scores
        outside = np.flatnonzero(pairs.positive_ids < 0)
        if len(outside):
            positive_scores[outside] = self._score_outside(pairs, outside)
        pool = CandidatePool(
            lists,
            Positives(offsets_of_rows(pairs.rows, n_rows), pairs.positive_ids.astype(np.int32), positive_scores),
            text_digests(pairs.queries)[:, 0],
            self.texts.corpus.digests[:, 0],
            {"teacher": self.teacher.name},
            open_searcher=lambda: searcher,
            progress=False,
        )
        selection = pool.select(self.method, self.sampler, self.n, seed=self.seed, positive_score=self.positive_score)
        targets = np.arange(len(pairs.rows)) if self.positive_score == "each" else pairs.rows
        counts = selection.counts[targets]
        entries, _ = flat_positions(selection.offsets[targets], counts)
        return RowNegatives(
            pairs.queries,
            pairs.query_ids,
            pairs.rows,
            pairs.positives,
            pairs.positive_ids,
            positive_scores,
            offsets_of_counts(counts),
            selection.passages[entries],
            selection.scores[entries],
        )

    def _exclusions(self, pairs: RowPairs) -> Exclusions:
        if not self.exclude_positives:
            return Exclusions.none(len(pairs.queries))
        known_rows = np.flatnonzero(pairs.query_ids >= 0)
        known = pairs.query_ids[known_rows]
        starts = self.texts.positive_offsets[known]
        entries, places = flat_positions(starts, self.texts.positive_offsets[known + 1] - starts)
        own = self.texts.corpus.find(text_digests(pairs.queries))
        rows = np.concatenate([pairs.rows, known_rows[places], np.arange(len(own))])
        passages = np.concatenate([pairs.positive_ids, self.texts.positive_ids[entries], own])
        edges = np.unique(np.stack([rows, passages])[:, passages >= 0], axis=1)
        return Exclusions(offsets_of_rows(edges[0], len(pairs.queries)), edges[1].astype(np.int32))

    def _searcher(self, queries: pa.LargeStringArray, exclusions: Exclusions) -> Searcher:
        searcher = self.open_searcher()
        if isinstance(searcher, VectorSearcher):
            return searcher.with_queries(VectorArray(self._encode(queries.to_pylist(), "query")), exclusions)
        assert isinstance(searcher, ScoreSearcher)
        return searcher.with_queries(queries, exclusions)

    def _score_outside(self, pairs: RowPairs, outside: IdArray) -> FloatArray:
        if not isinstance(self.teacher, VectorTeacher):
            first = pairs.positives[int(outside[0])].as_py()
            raise InputError(
                f"{self.teacher.name} scores passages of its corpus only, and a positive is not in it: {first[:80]!r}; "
                "fit on a corpus that holds the positives"
            )
        queries = self._encode(pairs.queries.take(pa.array(pairs.rows[outside])).to_pylist(), "query")
        passages = self._encode(pairs.positives.take(pa.array(outside)).to_pylist(), "passage")
        return canonical_scores(torch.from_numpy(queries), torch.from_numpy(passages)).numpy()

    def _encode(self, texts: list[str], role: Role) -> FloatArray:
        assert isinstance(self.teacher, VectorTeacher)
        vectors = check_vectors(self.teacher.encode(texts, role), self.teacher, texts, None)
        return unit_length(vectors) if self.teacher.similarity == "cosine" else vectors
