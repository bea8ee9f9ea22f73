"""Search with a teacher that is too slow for a whole corpus: a first stage finds candidates, the teacher ranks them.

The teacher only sees the best candidates of the first stage, so its rankings hold nothing else: a query is exhausted
when these are, and a deeper first stage (``candidates=``) is the way to find more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeAlias

import numpy as np

from hf_negmine.base.protocols import Ranking, Searcher
from hf_negmine.base.ragged import flat_positions, offsets_of_counts
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray

ScorePairs: TypeAlias = Callable[[IdArray, PassageArray], FloatArray]
"""Scores of (query id, passage id) pairs, float32, shape (pairs,)."""

QUERIES_A_BLOCK = 1024


class RerankingSearcher:
    """Ranks the candidates of another searcher.

    Args:
        first_stage: finds the candidates.
        score_pairs: the teacher's scores.
        candidates: how many candidates are ranked per query.
    """

    def __init__(self, first_stage: Searcher, score_pairs: ScorePairs, candidates: int) -> None:
        self.block_size = QUERIES_A_BLOCK
        self.first_stage, self.score_pairs, self.candidates = first_stage, score_pairs, candidates

    def block(self, queries: IdArray) -> _RerankedBlock:
        """See `protocols.Searcher`."""
        return _RerankedBlock(self, queries)


class _RerankedBlock:
    """Some queries of a `RerankingSearcher`; see `protocols.QueryBlock`."""

    def __init__(self, searcher: RerankingSearcher, queries: IdArray) -> None:
        self._searcher, self._queries = searcher, queries

    @cached_property
    def _candidates(self) -> tuple[IdArray, PassageArray]:
        """The candidates of every query as CSR. The first stage processes the block in pieces of its own size."""
        first, depth = self._searcher.first_stage, self._searcher.candidates
        found: list[Ranking] = []
        for start in range(0, len(self._queries), first.block_size):
            piece = self._queries[start : start + first.block_size]
            no_ceiling = np.full(len(piece), np.inf, dtype=np.float32)
            found.append(first.block(piece).best(np.arange(len(piece)), no_ceiling, depth))
        counts = np.concatenate([np.diff(ranking.offsets) for ranking in found])
        return offsets_of_counts(counts), np.concatenate([ranking.passages for ranking in found])

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """See `protocols.QueryBlock`."""
        return self._searcher.score_pairs(self._queries[rows], passages)

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """See `protocols.QueryBlock`."""
        offsets, candidates = self._candidates
        entries, row = flat_positions(offsets[rows], offsets[rows + 1] - offsets[rows])
        found = candidates[entries]
        scores = self._searcher.score_pairs(self._queries[rows[row]], found)
        under = scores < ceilings[row]
        row, passages, scores = row[under], found[under], scores[under]
        order = np.lexsort((passages, -scores, row))
        there = np.bincount(row, minlength=len(rows))
        counts = np.clip(there - skip, 0, depth)
        entries, _ = flat_positions(offsets_of_counts(there)[:-1] + np.minimum(skip, there), counts)
        chosen = order[entries]
        return Ranking(offsets_of_counts(counts), passages[chosen], scores[chosen], there <= depth + skip)
