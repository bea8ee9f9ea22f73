"""Search with a teacher that ranks candidates only: a first stage finds them, the teacher scores them.

The teacher only sees these candidates, so its rankings hold nothing else: a query is exhausted when they are, and more
of them (``candidates=``) is the way to find more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np

from hf_negmine.base.protocols import Ranking, Searcher
from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray

ScorePairs: TypeAlias = Callable[[IdArray, PassageArray], FloatArray]
"""Scores of (query id, passage id) pairs, float32, shape (pairs,)."""

QUERIES_A_BLOCK = 1024
CANDIDATES_A_BLOCK = 2**21
"""Candidates of a block, unless a single query has more."""


class FirstStage(Protocol):
    """Finds the candidates of queries.

    Attributes:
        candidates: how many it finds per query, if the corpus holds as many.
    """

    candidates: int

    def propose(self, queries: IdArray) -> Ragged:
        """The candidates of each query: int32 passage ids, each once, none that is excluded."""


@dataclass
class BestOf:
    """The best passages of any searcher, as candidates of a `RerankingSearcher`."""

    searcher: Searcher
    candidates: int

    def propose(self, queries: IdArray) -> Ragged:
        """See `FirstStage`. The searcher gets the queries in pieces of its own size."""
        found: list[Ragged] = []
        for start in range(0, len(queries), self.searcher.block_size):
            piece = queries[start : start + self.searcher.block_size]
            no_ceiling = np.full(len(piece), np.inf, dtype=np.float32)
            best = self.searcher.block(piece).best(np.arange(len(piece)), no_ceiling, self.candidates)
            found.append(Ragged(best.offsets, (best.passages,)))
        return Ragged.concatenated(found)


class RerankingSearcher:
    """Ranks candidates.

    Args:
        first_stage: finds the candidates.
        score_pairs: the teacher's scores.
    """

    def __init__(self, first_stage: FirstStage, score_pairs: ScorePairs) -> None:
        self.first_stage, self.score_pairs = first_stage, score_pairs
        self.block_size = min(QUERIES_A_BLOCK, max(1, CANDIDATES_A_BLOCK // first_stage.candidates))

    def block(self, queries: IdArray) -> _RerankedBlock:
        """See `protocols.Searcher`."""
        return _RerankedBlock(self, queries)


class _RerankedBlock:
    """Some queries of a `RerankingSearcher`; see `protocols.QueryBlock`."""

    def __init__(self, searcher: RerankingSearcher, queries: IdArray) -> None:
        self._searcher, self._queries = searcher, queries

    @cached_property
    def _candidates(self) -> Ragged:
        return self._searcher.first_stage.propose(self._queries)

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """See `protocols.QueryBlock`."""
        return self._searcher.score_pairs(self._queries[rows], passages)

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """See `protocols.QueryBlock`."""
        candidates = self._candidates.take(rows)
        row, (passages,) = candidates.rows, candidates.arrays
        scores = self.pair_scores(rows[row], passages)
        under = scores < ceilings[row]
        row, passages, scores = row[under], passages[under], scores[under]
        order = np.lexsort((passages, -scores, row))
        there = np.bincount(row, minlength=len(rows))
        counts = np.clip(there - skip, 0, depth)
        entries, _ = flat_positions(offsets_of_counts(there)[:-1] + np.minimum(skip, there), counts)
        chosen = order[entries]
        return Ranking(offsets_of_counts(counts), passages[chosen], scores[chosen], there <= depth + skip)
