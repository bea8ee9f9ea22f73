"""The candidates of one teacher as the page reads them: some targets, with their positives and ranked candidates."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts
from hf_negmine.base.schema import AnyArray, IdArray
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

MINED, RELEVANT, OF_OTHERS = 1, 2, 4
"""Flags of a candidate: this teacher chose it as a negative; a judge called it relevant; another teacher chose it."""


@dataclass(frozen=True)
class View:
    """What one teacher has found and chosen.

    Attributes:
        teacher: its name.
        lists: the candidates of every query.
        positives: the scored positives of every query.
        wanted: how many negatives of a target it chooses.
        targets: int64, those for which it chooses.
    """

    teacher: str
    lists: CandidateLists
    positives: Positives
    wanted: int
    targets: IdArray


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
            flags[np.isin(self.queries[item] * n_passages + passages, relevant[0] * n_passages + relevant[1])] |= (
                RELEVANT
            )
        return flags

    def content(self, queries: IdArray, passages: IdArray, flags: AnyArray) -> dict[str, Any]:
        """Everything about these targets as JSON-able content; arrays are base64 of little-endian.

        Args:
            queries, passages: int64, rising: the ids of the texts that are on the page, to whose places it refers.
            flags: from `flags`.
        """
        lists, (segments, item_of_segment) = self.view.lists, self._segments
        _, deciding = self.view.positives.targets(self.positive_score)
        return {
            "teacher": self.view.teacher,
            "targets": len(self.view.targets),
            "wanted": self.view.wanted,
            "query_places": packed(np.searchsorted(queries, self.queries), "<i4"),
            "deciding": packed(deciding[self.targets], "<f4"),
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
