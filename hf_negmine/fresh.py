"""Mining on the fly: rows that were not there at `fit`, such as those of a stream, against the fitted corpus.

Each row stands for itself: the positives it names set its ceiling, and those that `fit` knows of its query are no
candidates either. A positive outside the corpus is scored, but is no candidate for others. Texts are encoded a batch at
a time: a model whose vectors differ in their last digits from batch to batch (in bfloat16 they do) may order candidates
of nearly the same score differently with another batch size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from hf_negmine.base.devices import is_fork
from hf_negmine.base.files import text_digests
from hf_negmine.base.protocols import Sampler, Teacher
from hf_negmine.base.ragged import flat_positions, offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import IdArray
from hf_negmine.data.layouts import RowNegatives
from hf_negmine.data.texts import TextSet
from hf_negmine.fitted import RowPairs
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.deepening import search_in_blocks
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.search import Exclusions, Indexes, Queries
from hf_negmine.select import Positives, PositiveScore
from hf_negmine.select.ensembles import Ensemble
from hf_negmine.select.filters import Consistency, Filter, Scene
from hf_negmine.select.methods import Method


@dataclass(frozen=True)
class FreshMiner:
    """Mines single rows with the settings of a miner.

    Attributes:
        teacher: scores them.
        texts: what `fit` has seen.
        indexes: opens teachers over the corpus of ``texts``.
        method, sampler, n, seed, positive_score, filters, consistency: as in `NegativeMiner`.
        depth: candidates a query to begin with.
        exclude_positives: whether positives and the query's own text are no candidates.
    """

    teacher: Teacher
    texts: TextSet
    indexes: Indexes
    method: Method
    sampler: Sampler
    n: int
    seed: int
    positive_score: PositiveScore
    depth: int
    filters: tuple[Filter, ...] = ()
    consistency: Consistency | None = None
    exclude_positives: bool = True

    def mine(self, pairs: RowPairs) -> RowNegatives:
        """Negatives of every row of ``pairs``."""
        if is_fork():
            # A fork, such as map(num_proc=…) makes, has none of OpenMP's threads and would wait for them forever.
            torch.set_num_threads(1)
        queries = Queries(pairs.queries, self._exclusions(pairs))
        pool: CandidatePool | EnsemblePool
        if isinstance(self.teacher, Ensemble):
            pool = EnsemblePool(self.teacher, [self._pool(teacher, pairs, queries) for teacher in self.teacher.stages])
        else:
            pool = self._pool(self.teacher, pairs, queries)
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
            selection.pair_scores,
            offsets_of_counts(counts),
            selection.passages[entries],
            selection.scores[entries],
            None if isinstance(pool, EnsemblePool) or self.consistency is None else pool.consistent(),
        )

    def _pool(self, teacher: Teacher, pairs: RowPairs, queries: Queries) -> CandidatePool:
        """One teacher's candidates and positive scores."""
        index = self.indexes.open(teacher, self.texts.corpus)
        searcher = index.searcher(queries)
        inside, outside = np.flatnonzero(pairs.positive_ids >= 0), np.flatnonzero(pairs.positive_ids < 0)
        lists, inside_scores = search_in_blocks(
            searcher,
            np.arange(len(pairs.queries)),
            pairs.rows[inside],
            pairs.positive_ids[inside].astype(np.int32),
            max(self.depth, getattr(teacher, "candidates", 0)),
        )
        scores = np.empty(len(pairs.rows), dtype=np.float32)
        scores[inside] = inside_scores
        if len(outside):
            query_texts = pairs.queries.take(pa.array(pairs.rows[outside])).to_pylist()
            scores[outside] = index.text_scores(query_texts, pairs.positives.take(pa.array(outside)).to_pylist())
        offsets = offsets_of_rows(pairs.rows, len(pairs.queries))
        pool = CandidatePool(
            lists,
            Positives(offsets, pairs.positive_ids.astype(np.int32), scores),
            text_digests(pairs.queries)[:, 0],
            self.texts.corpus.digests[:, 0],
            {"teacher": teacher.name},
            open_searcher=lambda: searcher,
            consistency=self.consistency,
            progress=False,
        )
        pool.positive_score = self.positive_score
        if self.filters:
            known_rows, known_ids = self._known(pairs)
            pool.scene = lambda: Scene(
                queries,
                self.texts.corpus,
                offsets,
                pairs.positive_ids,
                pairs.positives,
                self.positive_score,
                teacher,
                self.indexes,
                pool.counted(),
                known_offsets=offsets_of_rows(known_rows, len(pairs.queries)),
                known_ids=known_ids,
            )
            pool.filters = pool.bound(self.filters, self.positive_score)
        return pool

    def _exclusions(self, pairs: RowPairs) -> Exclusions:
        if not self.exclude_positives:
            return Exclusions.none(len(pairs.queries))
        known_rows, known_ids = self._known(pairs)
        own = self.texts.corpus.find(text_digests(pairs.queries))
        rows = np.concatenate([pairs.rows, known_rows, np.arange(len(own))])
        passages = np.concatenate([pairs.positive_ids, known_ids, own])
        edges = np.unique(np.stack([rows, passages])[:, passages >= 0], axis=1)
        return Exclusions(offsets_of_rows(edges[0], len(pairs.queries)), edges[1].astype(np.int32))

    def _known(self, pairs: RowPairs) -> tuple[IdArray, IdArray]:
        """The positives that `fit` knows of the rows' queries: row (rising) and passage id of each."""
        rows = np.flatnonzero(pairs.query_ids >= 0)
        known = pairs.query_ids[rows]
        starts = self.texts.positive_offsets[known]
        entries, places = flat_positions(starts, self.texts.positive_offsets[known + 1] - starts)
        return rows[places], self.texts.positive_ids[entries].astype(np.int64)
