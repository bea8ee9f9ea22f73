"""Shortlists: passages that follow under a ceiling, with scores that are known up to an error bound.

A query whose positive ranks low is asked about stretches far down its ranking, under one ceiling after the other. To
list what lies there costs a matrix product with the whole corpus, and to score it all canonically costs as much again.
So the list is made once, some hundreds of passages long and not scored. Which of them are the best under a lower
ceiling is then decided by the canonical scores of the few that the bound leaves in question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hf_negmine.base.protocols import Ranking
from hf_negmine.base.ragged import first_where, flat_positions, offsets_of_counts
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.select.candidates import CandidateLists, Demand


@dataclass(frozen=True)
class Shortlists:
    """Stretches of the rankings of some queries, with approximate scores.

    Attributes:
        queries: int64, rising, shape (listed,): whose they are.
        ceilings: float32, shape (listed,): what scores at or over it may be missing.
        errors: float32, shape (listed,): no score of the list is further from the canonical one.
        exhausted: bool, shape (listed,): everything eligible under the ceiling is in the list. Otherwise what is not
            scores at most the last entry's score and the error.
        offsets: int64, shape (listed + 1,).
        passages: int32, shape (entries,).
        scores: float32, same shape, falling along a list.
    """

    queries: IdArray
    ceilings: FloatArray
    errors: FloatArray
    exhausted: BoolArray
    offsets: IdArray
    passages: PassageArray
    scores: FloatArray

    @classmethod
    def from_ranking(cls, queries: IdArray, ceilings: FloatArray, ranking: Ranking, errors: FloatArray) -> Shortlists:
        """From what `protocols.ApproximatingSearcher` gave."""
        return cls(queries, ceilings, errors, ranking.exhausted, ranking.offsets, ranking.passages, ranking.scores)

    @classmethod
    def concatenated(cls, parts: Sequence[Shortlists]) -> Shortlists:
        """Those of successive queries as one."""
        return cls(
            np.concatenate([part.queries for part in parts]),
            np.concatenate([part.ceilings for part in parts]),
            np.concatenate([part.errors for part in parts]),
            np.concatenate([part.exhausted for part in parts]),
            offsets_of_counts(np.concatenate([np.diff(part.offsets) for part in parts])),
            np.concatenate([part.passages for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def reaches(self, ceilings: FloatArray) -> BoolArray:
        """Whether each list goes on under its ceiling, or ends with the ranking; shape (listed,)."""
        reached: BoolArray = self.exhausted.copy()
        filled = np.diff(self.offsets) > 0
        reached[filled] |= self.scores[self.offsets[1:][filled] - 1] < ceilings[filled]
        return reached

    def questions(self, lists: CandidateLists, demand: Demand, depth: int) -> Questions:
        """Those targets of ``demand`` that a shortlist may serve.

        Args:
            lists: what is known of the rankings, which does not answer the demand. Where they reach down to a shortlist
                it is asked from its ceiling on, for what they lack.
            demand: a target a query, by rising query; begins at its ceilings, whatever its ranks.
            depth: how many candidates a search would bring.
        """
        _, rows, targets = np.intersect1d(self.queries, demand.queries, assume_unique=True, return_indices=True)
        queries, asked, listed = demand.queries[targets], demand.ceilings[targets], self.ceilings[rows]
        ceilings = np.where(lists.reach(queries) < listed, np.minimum(asked, listed), asked)
        known = lists.count_at_or_over(queries, ceilings) - lists.count_at_or_over(queries, asked)
        inside = ceilings <= listed
        return Questions(
            self, rows[inside], targets[inside], queries[inside], ceilings[inside], (depth - known)[inside]
        )


@dataclass(frozen=True)
class Questions:
    """What is the best under a ceiling, asked of shortlists.

    Attributes:
        shortlists: that are asked.
        rows: int64, shape (questions,): the shortlist of each.
        targets: int64: its place in the demand.
        queries: int64: its query.
        ceilings: float32.
        depths: int64: how many candidates are wanted.
    """

    shortlists: Shortlists
    rows: IdArray
    targets: IdArray
    queries: IdArray
    ceilings: FloatArray
    depths: IdArray

    def of(self, some: slice) -> Questions:
        """The same for some of the questions."""
        return Questions(
            self.shortlists,
            self.rows[some],
            self.targets[some],
            self.queries[some],
            self.ceilings[some],
            self.depths[some],
        )

    def pairs(self) -> tuple[IdArray, PassageArray]:
        """Pairs whose canonical scores are needed: the question of each, rising, and its passage."""
        first, stop = self._in_question
        entries, questions = flat_positions(first, stop - first)
        return questions, self.shortlists.passages[entries]

    def answered(
        self, questions: IdArray, passages: PassageArray, scores: FloatArray
    ) -> tuple[IdArray, CandidateLists]:
        """Which questions the canonical scores of `pairs` answer, and a segment for each of these.

        It is the one that a search would bring. So what a pool holds does not depend on how far the approximate scores
        were off, of which another number format or block size makes others.
        """
        shortlists = self.shortlists
        ends, (_, stop) = shortlists.offsets[self.rows + 1], self._in_question
        all_seen = (stop == ends) & shortlists.exhausted[self.rows]
        # What was not scored: of the list what follows, and what the list lacks, which scores no more than its end.
        unseen = self._scores(np.minimum(stop, ends - 1)) + self._errors
        unseen[all_seen] = -np.inf
        certain = (scores < self.ceilings[questions]) & (scores > unseen[questions])
        questions, passages, scores = questions[certain], passages[certain], scores[certain]
        order = np.lexsort((passages, -scores, questions))
        found = np.bincount(questions, minlength=len(self.rows))
        # One more than wanted, to know that the ranking goes on.
        done = np.flatnonzero(all_seen | (found > self.depths))
        counts = np.minimum(found, self.depths)[done]
        entries, _ = flat_positions((np.cumsum(found) - found)[done], counts)
        chosen = order[entries]
        exhausted = found[done] <= self.depths[done]
        ranking = Ranking(offsets_of_counts(counts), passages[chosen], scores[chosen], exhausted)
        return done, CandidateLists.from_ranking(ranking, self.ceilings[done])

    @cached_property
    def _in_question(self) -> tuple[IdArray, IdArray]:
        """The first entry that may be among the best under its ceiling, and the one after the last.

        Of a list that is too short to tell, none is.
        """
        starts, ends = self.shortlists.offsets[self.rows], self.shortlists.offsets[self.rows + 1]
        ceilings = self.ceilings.astype(np.float64)
        # Not strictly, since adding may round.
        first = first_where(starts, ends, lambda entry: self._scores(entry) <= ceilings + self._errors)
        surely = first_where(first, ends, lambda entry: self._scores(entry) < ceilings - self._errors)
        # So many are surely under the ceiling; what is surely below the last of them is not among the best.
        last = surely + self.depths
        enough = last < ends
        least = np.where(enough, self._scores(np.minimum(last, ends - 1)) - self._errors, -np.inf)
        stop = first_where(surely, ends, lambda entry: self._scores(entry) < least - self._errors)
        return first, np.where(enough | self.shortlists.exhausted[self.rows], stop, first)

    @property
    def _errors(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return self.shortlists.errors[self.rows].astype(np.float64)

    def _scores(self, entries: IdArray) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Approximate scores, to which a bound is added in float64."""
        scores = self.shortlists.scores
        return scores[entries].astype(np.float64) if len(scores) else np.full(len(entries), -np.inf)
