"""The candidates of one teacher as the page reads them: some targets, with their positives and ranked candidates."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts
from hf_negmine.base.schema import AnyArray, FloatArray, IdArray
from hf_negmine.select.candidates import CandidateLists, Demand
from hf_negmine.select.methods import Method
from hf_negmine.select.selection import Positives

MINED, RELEVANT, OF_OTHERS, KEPT_OUT = 1, 2, 4, 8
"""Flags of a candidate: this teacher chose it as a negative; a judge called it relevant; another teacher chose it; a \
filter kept it out."""


@dataclass(frozen=True)
class View:
    """What one teacher has found and chosen.

    Attributes:
        teacher: its name.
        lists: the candidates of every query.
        positives: the scored positives of every query, and which of them set a ceiling.
        method: the method by which it was mined, settled.
        wanted: how many negatives of a target it chooses.
        targets: int64, those for which it chooses.
        filtered: whether there are filters whose verdicts show in what was mined: the best were taken, so whatever is
            over the last of them was kept out.
    """

    teacher: str
    lists: CandidateLists
    positives: Positives
    method: Method
    wanted: int
    targets: IdArray
    filtered: bool = False


@dataclass(frozen=True)
class Excerpt:
    """Some targets of a view.

    Attributes:
        view: the view.
        targets: int64, shape (items,), in the order of the page.
        queries: int64, same shape: the query of each.
        positive_score: whether a target is a query (``min``) or a pair (``each``).
    """

    view: View
    targets: IdArray
    queries: IdArray
    positive_score: PositiveScore

    @cached_property
    def positives(self) -> Ragged:
        """Ids and scores of the positives of every item."""
        positives = self.view.positives
        return Ragged(positives.offsets, (positives.ids, positives.scores)).take(self.queries)

    @cached_property
    def candidates(self) -> Ragged:
        """Ids and scores of the candidates, a row per segment."""
        lists = self.view.lists
        sizes = (lists.stops - lists.starts)[self._segments[0]]
        entries, _ = flat_positions(lists.starts[self._segments[0]], sizes)
        return Ragged(
            offsets_of_counts(sizes), (np.asarray(lists.passages[entries]), np.asarray(lists.scores[entries]))
        )

    @cached_property
    def deciding(self) -> FloatArray:
        """The positive score that sets the ceiling of each item."""
        return self.view.positives.targets(self.positive_score)[1][self.targets]

    @property
    def ceilings(self) -> FloatArray:
        """The ceiling of each item, as it was mined."""
        return self.view.method.ceilings(self.deciding)

    @property
    def passages(self) -> IdArray:
        """All passages in it, rising."""
        return np.unique(np.concatenate([self.candidates.arrays[0], self.positives.arrays[0]]))

    def flags(self, negatives: Ragged, relevant: tuple[IdArray, IdArray] | None, n_passages: int) -> AnyArray:
        """The flags of every candidate.

        A teacher has chosen those of the negatives that have its own score: a passage may be another one's choice, too.

        Args:
            negatives: passages and scores of the mined negatives, a row per target.
            relevant: query ids and passage ids of the pairs that a judge called relevant; None without one.
            n_passages: number of passages in the corpus.
        """
        passages, scores = self.candidates.arrays
        item = self._segments[1][self.candidates.rows]
        flags = np.zeros(len(passages), dtype=np.uint8)
        of_items, places = np.unique(item * n_passages + passages, return_index=True)  # segments may overlap
        mined = negatives.take(self.targets)
        keys = mined.rows * n_passages + mined.arrays[0]
        here = np.isin(keys, of_items)
        at = places[np.searchsorted(of_items, keys[here])]
        flags[at] = OF_OTHERS
        flags[at[scores[at] == mined.arrays[1][here]]] = MINED
        if relevant is not None:
            asked = self.queries[item] * n_passages + passages
            flags[np.isin(asked, relevant[0] * n_passages + relevant[1])] |= RELEVANT
        if self.view.filtered:
            entries, item = self._allowed(n_passages)
            at = places[np.searchsorted(of_items, item * n_passages + self.view.lists.passages[entries])]
            last = np.full(len(self.targets), -1, dtype=np.int64)
            chosen = flags[at] & MINED > 0
            np.maximum.at(last, item[chosen], entries[chosen])
            flags[at[(flags[at] == 0) & (entries < last[item])]] = KEPT_OUT
        return flags

    def _allowed(self, n_passages: int) -> tuple[IdArray, IdArray]:
        """The entries of the lists that the method alone allows, by rank, and the item of each."""
        method = self.view.method
        demand = Demand(self.queries, self.ceilings, method.floor, *method.ranks(n_passages), n_passages)
        answer = self.view.lists.answer(demand)
        return flat_positions(answer.starts, answer.counts)

    def content(self, queries: IdArray, passages: IdArray, flags: AnyArray) -> dict[str, Any]:
        """Everything about these targets as JSON-able content; arrays are base64 of little-endian.

        Args:
            queries, passages: int64, rising: the ids of the texts that are on the page, to whose places it refers.
            flags: from `flags`.
        """
        lists, (segments, item_of_segment) = self.view.lists, self._segments
        return {
            "teacher": self.view.teacher,
            "targets": len(self.view.targets),
            "wanted": self.view.wanted,
            "query_places": packed(np.searchsorted(queries, self.queries), "<i4"),
            "deciding": packed(self.deciding, "<f4"),
            "mined_under": packed(self.ceilings, "<f4"),
            "positive_offsets": packed(self.positives.offsets, "<i4"),
            "positive_places": packed(np.searchsorted(passages, self.positives.arrays[0]), "<i4"),
            "positive_scores": packed(self.positives.arrays[1], "<f4"),
            "segment_offsets": packed(
                offsets_of_counts(np.bincount(item_of_segment, minlength=len(self.targets))), "<i4"
            ),
            "entry_offsets": packed(self.candidates.offsets, "<i4"),
            "ceilings": packed(lists.ceilings[segments], "<f4"),
            "first_ranks": packed(lists.first_ranks[segments], "<i4"),
            "exhausted": packed(lists.exhausted[segments], "u1"),
            "places": packed(np.searchsorted(passages, self.candidates.arrays[0]), "<i4"),
            "scores": packed(self.candidates.arrays[1], "<f4"),
            "flags": packed(flags, "u1"),
        }

    @cached_property
    def _segments(self) -> tuple[IdArray, IdArray]:
        """The segments of the rankings, and the item of each."""
        lists = self.view.lists
        return flat_positions(lists.offsets[self.queries], np.diff(lists.offsets)[self.queries])


def packed(values: AnyArray, kind: str) -> str:
    """An array as base64."""
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()
