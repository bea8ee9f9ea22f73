"""Lists that came from elsewhere, continued by the teacher that made them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import QueryBlock, Ranking, Searcher
from hf_negmine.base.ragged import first_where, flat_positions, offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import AnyArray, FloatArray, IdArray, PassageArray
from hf_negmine.search import pair_scores
from hf_negmine.select.candidates import CandidateLists

SAMPLE = 256
"""Candidates whose scores are compared with the teacher's."""
LARGEST_DIFFERENCE = 0.1
"""Of the scores' standard deviation, in the median: more than number formats explain."""
OVERLAP = 16
"""Candidates of a list that the teacher is at first expected to find again below its end."""


def require_same_scale(searcher: Searcher, lists: CandidateLists, teacher: str) -> None:
    """Raise `InputError` unless the teacher scores a sample of the candidates as the lists do, up to rounding."""
    entries = np.unique(np.linspace(0, len(lists.passages) - 1, min(SAMPLE, len(lists.passages))).astype(np.int64))
    if not len(entries):
        return
    queries = np.searchsorted(lists.stops, entries, side="right")
    passages, given = np.asarray(lists.passages[entries]), np.asarray(lists.scores[entries])
    own = pair_scores(searcher, queries, passages)
    differences = np.abs(own - given)
    allowed = LARGEST_DIFFERENCE * max(float(given.std()), 1e-3 * float(np.abs(given).max()))
    if float(np.median(differences)) > allowed:
        first = int(np.argmax(differences))
        raise InputError(
            f"teacher: {teacher} scores the candidates of the lists differently, for example {own[first]:.4f} where "
            f"the list has {given[first]:.4f}, so ceilings and scores would be in two scales; give the model that made "
            "the lists, with its prompts, or none"
        )


@dataclass
class ContinuedSearcher:
    """Searches a ranking that begins with a list and goes on with what the teacher finds below its last candidate.

    Attributes:
        searcher: the teacher's.
        lists: one segment per query, from the top.
        n_passages: number of passages in the corpus.
    """

    searcher: Searcher
    lists: CandidateLists
    n_passages: int

    def __post_init__(self) -> None:
        self.block_size = self.searcher.block_size

    def block(self, queries: IdArray) -> QueryBlock:
        """See `Searcher`."""
        return _ContinuedBlock(self, self.searcher.block(queries), queries)


@dataclass(frozen=True)
class _ContinuedBlock:
    of: ContinuedSearcher
    teacher: QueryBlock
    queries: IdArray

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        return self.teacher.pair_scores(rows, passages)

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        lists, queries = self.of.lists, self.queries[rows]
        starts, stops = lists.starts[queries], lists.stops[queries]
        begins = first_where(starts, stops, lambda entry: lists.scores[entry] < ceilings)
        counts = np.clip(stops - begins - skip, 0, depth)
        entries, of_list = flat_positions(begins + skip, counts)
        below = np.flatnonzero((counts < depth) & ~lists.exhausted[queries])
        places, passages, scores, ended = self._below(
            rows[below], ceilings[below], depth - counts[below], np.maximum(skip - (stops - begins)[below], 0)
        )
        exhausted = lists.exhausted[queries] & (stops - begins <= depth + skip)
        exhausted[below] = ended
        row = np.concatenate([of_list, below[places]])
        order = np.argsort(row, kind="stable")  # a row's own list comes first
        return Ranking(
            offsets_of_rows(row, len(rows)),
            np.concatenate([lists.passages[entries], passages])[order].astype(np.int32),
            np.concatenate([lists.scores[entries], scores])[order].astype(np.float32),
            exhausted,
        )

    def _below(
        self, rows: IdArray, ceilings: FloatArray, wanted: IdArray, skip: IdArray
    ) -> tuple[IdArray, AnyArray, AnyArray, AnyArray]:
        """What the teacher finds below the last candidate of each row's list: place in ``rows``, passage and score.

        Also whether nothing is left below it, for each row.
        """
        lists, queries = self.of.lists, self.queries[rows]
        filled = lists.stops[queries] > lists.starts[queries]
        last = np.where(filled, lists.stops[queries] - 1, 0)
        last_scores = np.where(filled, lists.scores[last], np.inf) if len(lists.scores) else np.full(len(rows), np.inf)
        last_scores = last_scores.astype(np.float32)
        last_passages = np.where(filled, lists.passages[last], -1) if len(lists.scores) else np.full(len(rows), -1)
        listed, of_list = flat_positions(lists.starts[queries], lists.stops[queries] - lists.starts[queries])
        taken = of_list * self.of.n_passages + lists.passages[listed]
        under = np.minimum(ceilings, np.nextafter(last_scores, np.float32(np.inf)))
        depth = int((wanted + skip).max(initial=0)) + OVERLAP
        while True:
            found = self.teacher.best(rows, under, depth)
            place = np.repeat(np.arange(len(rows)), np.diff(found.offsets))
            new = ~np.isin(place * self.of.n_passages + found.passages, taken)
            new &= (found.scores < last_scores[place]) | (found.passages > last_passages[place])
            counts = np.bincount(place[new], minlength=len(rows))
            if ((counts >= wanted + skip) | found.exhausted).all():
                break
            depth *= 2
        rank = np.arange(new.sum()) - np.repeat(offsets_of_counts(counts)[:-1], counts)
        place = place[new]
        kept = (rank >= skip[place]) & (rank < (skip + wanted)[place])
        ended = found.exhausted & (counts <= skip + wanted)
        return place[kept], found.passages[new][kept], found.scores[new][kept], ended
