"""Candidate lists: the known parts of each query's ranking, and exactly how far that knowledge reaches.

The ranking of a query is its eligible passages (all but its positives and its own text), by falling score and rising
id. A *segment* is an unbroken stretch of it. A query has one segment or several, with unknown stretches between them:
one from the top, perhaps another further down under a low ceiling. Because each segment records where it begins, where
it ends and whether anything lies below, every question is answered exactly or known to need a deeper search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_negmine.base.protocols import Ranking
from hf_negmine.base.ragged import first_where, joined_pieces, offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray, PassageArray


@dataclass(frozen=True)
class Demand:
    """What a selection needs to know about a query's ranking, for each of its targets.

    Attributes:
        queries: int64 query ids, shape (targets,).
        ceilings: float32, shape (targets,); candidates must score strictly under them.
        floor: candidates must score at least this.
        first_rank: ranks below it are left out.
        last_rank: ranks from it on are left out; None for all.
        wanted: how many of the best remaining candidates are needed.
    """

    queries: IdArray
    ceilings: FloatArray
    floor: float
    first_rank: int
    last_rank: int | None
    wanted: int

    def of(self, targets: np.ndarray[Any, Any]) -> Demand:
        """The same demand for some of the targets."""
        return replace(self, queries=self.queries[targets], ceilings=self.ceilings[targets])


@dataclass(frozen=True)
class Answer:
    """Where the candidates of a `Demand` are: entries start to start + count of the lists, for each target.

    Attributes:
        starts: int64, shape (targets,).
        counts: int64, at most ``wanted``.
        certain: bool; False where the lists do not reach far enough to tell.
    """

    starts: IdArray
    counts: IdArray
    certain: BoolArray


@dataclass(frozen=True)
class CandidateLists:
    """Segments of every query's ranking, as flat arrays.

    Attributes:
        passages: int32, shape (entries,).
        scores: float32, shape (entries,).
        offsets: int64, shape (n_queries + 1,): the segments of each query, by falling ceiling.
        starts, stops: int64, shape (segments,): the entries of each segment.
        ceilings: float32, shape (segments,): the segment holds every eligible passage that scores under it, down to
            the last entry.
        first_ranks: int64, shape (segments,): rank of the first entry, -1 where unknown.
        exhausted: bool, shape (segments,): whether nothing eligible lies below the last entry.
    """

    passages: PassageArray
    scores: FloatArray
    offsets: IdArray
    starts: IdArray
    stops: IdArray
    ceilings: FloatArray
    first_ranks: IdArray
    exhausted: BoolArray

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self.offsets) - 1

    @property
    def extent(self) -> tuple[int, int, int]:
        """How much is known: entries, segments, and segments that reach the end of the ranking."""
        return len(self.passages), len(self.starts), int(self.exhausted.sum())

    @classmethod
    def from_ranking(cls, ranking: Ranking, ceilings: FloatArray, skipped: int = 0) -> CandidateLists:
        """One segment per query, from a search under ``ceilings`` that left out the first ``skipped`` places."""
        starts, stops = ranking.offsets[:-1], ranking.offsets[1:]
        complete_under = ceilings
        first_ranks = np.where(np.isposinf(ceilings), skipped, -1).astype(np.int64)
        if skipped:
            # Passages that tie with the first entry may be among the skipped ones.
            complete_under = np.full(len(starts), -np.inf, dtype=np.float32)
            present = stops > starts
            complete_under[present] = ranking.scores[starts[present]]
        return cls(
            ranking.passages,
            ranking.scores,
            np.arange(len(starts) + 1),
            starts,
            stops,
            complete_under.astype(np.float32),
            first_ranks,
            ranking.exhausted,
        )

    @classmethod
    def concatenated(cls, parts: Sequence[CandidateLists]) -> CandidateLists:
        """Join the lists of successive queries."""
        entries = np.cumsum([0] + [len(part.passages) for part in parts])
        segments = np.cumsum([0] + [len(part.starts) for part in parts])
        return cls(
            np.concatenate([part.passages for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([[0]] + [part.offsets[1:] + first for part, first in zip(parts, segments, strict=False)]),
            np.concatenate([part.starts + first for part, first in zip(parts, entries, strict=False)]),
            np.concatenate([part.stops + first for part, first in zip(parts, entries, strict=False)]),
            np.concatenate([part.ceilings for part in parts]),
            np.concatenate([part.first_ranks for part in parts]),
            np.concatenate([part.exhausted for part in parts]),
        )

    def answer(self, demand: Demand) -> Answer:
        """Find the candidates of each target, or report that the lists do not reach far enough."""
        by_score = self._lowest_segment(demand, lambda segment: self.ceilings[segment] >= demand.ceilings)
        scored = self._window(demand, by_score)
        if demand.first_rank == 0 and demand.last_rank is None:
            return scored
        by_rank = self._lowest_segment(
            demand,
            lambda segment: (self.first_ranks[segment] >= 0) & (self.first_ranks[segment] <= demand.first_rank),
        )
        skip = np.maximum(demand.first_rank - self.first_ranks[by_rank], 0)
        stop = None if demand.last_rank is None else demand.last_rank - self.first_ranks[by_rank]
        ranked = self._window(demand, by_rank, skip, stop)
        if demand.last_rank is not None:
            return ranked
        # Past the last entry of a segment that holds rank `first_rank`, every passage has a higher rank: only the
        # ceiling matters there.
        beyond = (by_rank >= 0) & ~ranked.certain & (ranked.counts == 0) & (self._sizes[by_rank] > skip)
        return Answer(
            np.where(beyond, scored.starts, ranked.starts),
            np.where(beyond, scored.counts, ranked.counts),
            np.where(beyond, scored.certain, ranked.certain),
        )

    def slice(self, start: int, stop: int) -> CandidateLists:
        """The lists of the queries from ``start`` to ``stop``."""
        first, last = self.offsets[start], self.offsets[stop]
        return replace(
            self,
            offsets=self.offsets[start : stop + 1] - first,
            starts=self.starts[first:last],
            stops=self.stops[first:last],
            ceilings=self.ceilings[first:last],
            first_ranks=self.first_ranks[first:last],
            exhausted=self.exhausted[first:last],
        )

    def tops(self) -> CandidateLists:
        """Only the first segment of each query."""
        first = self.offsets[:-1]
        return replace(
            self,
            offsets=np.arange(len(first) + 1),
            starts=self.starts[first],
            stops=self.stops[first],
            ceilings=self.ceilings[first],
            first_ranks=self.first_ranks[first],
            exhausted=self.exhausted[first],
        )

    def count_at_or_over(self, queries: IdArray, ceilings: FloatArray) -> IdArray:
        """How many candidates in each query's first segment score at or over the ceiling, shape (targets,)."""
        top = self.offsets[queries]
        return self._first_under(self.starts[top], self.stops[top], ceilings) - self.starts[top]

    def merged(self, queries: IdArray, found: CandidateLists) -> CandidateLists:
        """These lists with one more segment for each of ``queries``; segments that touch are joined."""
        every = np.concatenate([self._query_of_segment, queries])
        ceilings = np.concatenate([self.ceilings, found.ceilings])
        ranks = np.concatenate([self.first_ranks, found.first_ranks])
        order = np.lexsort((np.where(ranks < 0, np.iinfo(np.int64).max, ranks), -ceilings, every))
        together = CandidateLists(
            np.concatenate([self.passages, found.passages]),
            np.concatenate([self.scores, found.scores]),
            offsets_of_rows(every, self.n_queries),
            np.concatenate([self.starts, found.starts + len(self.passages)])[order],
            np.concatenate([self.stops, found.stops + len(self.passages)])[order],
            ceilings[order],
            ranks[order],
            np.concatenate([self.exhausted, found.exhausted])[order],
        )
        together = together._join(together._touching())  # which also leaves the entries compact
        while (touching := together._touching()).any():
            together = together._join(touching)
        return together

    @property
    def _sizes(self) -> IdArray:
        return self.stops - self.starts

    @property
    def _query_of_segment(self) -> IdArray:
        return np.repeat(np.arange(self.n_queries), np.diff(self.offsets))

    def _lowest_segment(self, demand: Demand, fits: Callable[[IdArray], BoolArray]) -> IdArray:
        """For each target, the lowest segment of its query that ``fits``, -1 if none does.

        ``fits`` is given one segment per target, shape (targets,).
        """
        first, counts = self.offsets[demand.queries], np.diff(self.offsets)[demand.queries]
        chosen = np.full(len(first), -1, dtype=np.int64)
        for place in range(int(counts.max(initial=0))):
            segment = np.minimum(first + place, len(self.starts) - 1)
            chosen = np.where((place < counts) & fits(segment), segment, chosen)
        return chosen

    def _window(
        self, demand: Demand, segments: IdArray, skip: IdArray | int = 0, stop: IdArray | None = None
    ) -> Answer:
        """Candidates of each target within one segment, from place ``skip`` on and before place ``stop``."""
        known = segments >= 0
        start, end = self.starts[segments], self.stops[segments]
        begin = np.minimum(np.maximum(self._first_under(start, end, demand.ceilings), start + skip), end)
        limit = end if demand.floor == -np.inf else self._first_under(start, end, demand.floor)
        reaches_limit = (limit < end) | self.exhausted[segments]
        if stop is not None:
            limit = np.minimum(limit, start + np.maximum(stop, 0))
            reaches_limit |= start + stop <= end
        counts = np.clip(limit - begin, 0, demand.wanted)
        certain = known & ((counts == demand.wanted) | reaches_limit)
        return Answer(begin, np.where(known, counts, 0), certain)

    def _first_under(self, start: IdArray, end: IdArray, limit: FloatArray | float) -> IdArray:
        """The first entry in [start, end) that scores under ``limit``, else end."""
        return first_where(start, end, lambda entry: self.scores[entry] < limit)

    def _touching(self) -> BoolArray:
        """For each segment, whether the next one belongs to the same query and follows it without a gap."""
        query = self._query_of_segment
        touching = np.zeros(len(query), dtype=bool)
        one, two = np.arange(len(query) - 1), np.arange(1, len(query))
        last_score = np.full(len(one), np.inf, dtype=np.float32)
        filled = self._sizes[one] > 0
        last_score[filled] = self.scores[self.stops[one][filled] - 1]
        by_score = self.ceilings[two] > last_score
        known = (self.first_ranks[one] >= 0) & (self.first_ranks[two] >= 0)
        by_rank = known & (self.first_ranks[two] <= self.first_ranks[one] + self._sizes[one])
        # An empty segment of known rank shows that the ranking ends before it; one of unknown rank cannot show that.
        tells_end = (self.first_ranks[one] < 0) & (self.first_ranks[two] >= 0) & (self._sizes[two] == 0)
        touching[:-1] = (query[one] == query[two]) & ~tells_end & (self.exhausted[one] | by_score | by_rank)
        return touching

    def _join(self, touching: BoolArray) -> CandidateLists:
        """Join each touching segment with the next, starting with the first of a run; all entries in one run."""
        joined = touching.copy()
        joined[1:] &= ~touching[:-1]
        one = np.flatnonzero(joined)
        two = one + 1
        kept = np.ones(len(self.starts), dtype=bool)
        kept[two] = False
        exhausted = self.exhausted.copy()
        exhausted[one] |= self.exhausted[two]
        first_ranks = self.first_ranks.copy()
        learns = one[(first_ranks[one] < 0) & (first_ranks[two] >= 0) & (self._sizes[two] > 0)]
        first = self.starts[learns + 1]
        shared = self._not_above(learns, self.scores[first], self.passages[first])
        first_ranks[learns] = first_ranks[learns + 1] - (shared - self.starts[learns])
        # Each kept segment is followed by those entries of the next that are joined to it.
        pieces, sizes = np.zeros((2, len(self.starts), 2), dtype=np.int64)
        pieces[:, 0], sizes[:, 0] = self.starts, self._sizes
        pieces[one, 1] = self._after_last_of(one, two)
        sizes[one, 1] = self.stops[two] - pieces[one, 1]
        pieces, sizes = pieces[kept], sizes[kept]
        bounds = offsets_of_counts(sizes.sum(axis=1))
        return CandidateLists(
            joined_pieces(self.passages, pieces.reshape(-1), sizes.reshape(-1)),
            joined_pieces(self.scores, pieces.reshape(-1), sizes.reshape(-1)),
            offsets_of_rows(self._query_of_segment[kept], self.n_queries),
            bounds[:-1],
            bounds[1:],
            self.ceilings[kept],
            first_ranks[kept],
            exhausted[kept],
        )

    def _not_above(self, segments: IdArray, score: FloatArray, passage: PassageArray) -> IdArray:
        """In each segment the first entry that does not rank above a passage with this score, else its end."""
        return first_where(
            self.starts[segments],
            self.stops[segments],
            lambda entry: (
                (self.scores[entry] < score) | ((self.scores[entry] == score) & (self.passages[entry] >= passage))
            ),
        )

    def _after_last_of(self, one: IdArray, two: IdArray) -> IdArray:
        """The first entry of segments ``two`` that ranks below the last entry of segments ``one``."""
        if not len(self.scores):
            return self.stops[two]
        last = np.maximum(self.stops[one] - 1, 0)
        cut = self._not_above(two, self.scores[last], self.passages[last] + 1)
        cut = np.where(self._sizes[one] > 0, cut, self.starts[two])  # an empty list from elsewhere: all is below it
        return np.where(self.exhausted[one], self.stops[two], cut)
