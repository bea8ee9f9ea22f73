"""Rows of (query, positive), located by their texts among those of a text set, and their negatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from hf_negmine.base.files import text_digests
from hf_negmine.base.ragged import Ragged
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.data.checks import check_texts, flatten_positives
from hf_negmine.data.texts import TextSet


@dataclass(frozen=True)
class RowPairs:
    """Some rows with their positives, one entry per (row, positive) pair.

    Attributes:
        queries: the query text of each row.
        query_ids: int64, shape (rows,); -1 for a query that was not part of `fit`.
        rows: int64, shape (pairs,): the row of each pair, rising.
        positives: positive texts, shape (pairs,).
        positive_ids: int64 passage ids, shape (pairs,); -1 for one outside the corpus.
    """

    queries: pa.LargeStringArray
    query_ids: IdArray
    rows: IdArray
    positives: pa.LargeStringArray
    positive_ids: IdArray

    def of_rows(self, rows: IdArray) -> RowPairs:
        """The pairs of some rows (rising), renumbered from 0."""
        pairs = np.flatnonzero(np.isin(self.rows, rows))
        return RowPairs(
            self.queries.take(pa.array(rows)),
            self.query_ids[rows],
            np.searchsorted(rows, self.rows[pairs]),
            self.positives.take(pa.array(pairs)),
            self.positive_ids[pairs],
        )


@dataclass(frozen=True)
class RowNegatives(RowPairs):
    """Some rows with their positives and negatives.

    Attributes:
        positive_scores: float32, shape (pairs,).
        offsets: int64, shape (pairs + 1,): the negatives of each pair.
        passages: int32 passage ids of the negatives, by falling score.
        scores: float32, same shape.
        consistent: bool, shape (pairs,): whether the teacher finds the positive; None if this was not asked for.
    """

    positive_scores: FloatArray
    offsets: IdArray
    passages: PassageArray
    scores: FloatArray
    consistent: BoolArray | None = None

    @property
    def counts(self) -> IdArray:
        """The number of negatives of each pair."""
        return np.diff(self.offsets)

    @property
    def _negatives(self) -> Ragged:
        return Ragged(self.offsets, (self.passages, self.scores))

    def joined(self, other: RowNegatives) -> RowNegatives:
        """The pairs of both, which must share their rows, in row order."""
        negatives = Ragged.concatenated([self._negatives, other._negatives])
        passages, scores = negatives.arrays
        consistent = None
        if self.consistent is not None or other.consistent is not None:
            # A fit on a corpus alone has no pairs to check, and therefore no flags.
            parts = [
                np.ones(len(one.rows), bool) if one.consistent is None else one.consistent for one in (self, other)
            ]
            consistent = np.concatenate(parts)
        together = RowNegatives(
            self.queries,
            self.query_ids,
            np.concatenate([self.rows, other.rows]),
            pa.concat_arrays([self.positives, other.positives]),
            np.concatenate([self.positive_ids, other.positive_ids]),
            np.concatenate([self.positive_scores, other.positive_scores]),
            negatives.offsets,
            passages,
            scores,
            consistent,
        )
        return together.of(np.argsort(together.rows, kind="stable"))

    def of(self, pairs: IdArray) -> RowNegatives:
        """The selected pairs, in the order given."""
        negatives = self._negatives.take(pairs)
        passages, scores = negatives.arrays
        return RowNegatives(
            self.queries,
            self.query_ids,
            self.rows[pairs],
            self.positives.take(pa.array(pairs)),
            self.positive_ids[pairs],
            self.positive_scores[pairs],
            negatives.offsets,
            passages,
            scores,
            None if self.consistent is None else self.consistent[pairs],
        )


@dataclass(frozen=True)
class PairFinder:
    """Finds the (query, positive) pairs of rows among those of a text set, by their texts."""

    texts: TextSet

    def pairs_of(self, queries: pa.Array, positives: pa.Array, *, query_column: str, positive_column: str) -> RowPairs:
        """The pairs of some rows, checked and with their ids; a positive may be text or a list of texts."""
        numbers = np.arange(len(queries))
        queries = check_texts(queries, numbers, column=query_column)
        flat, lengths = flatten_positives(positives, numbers, column=positive_column)
        return RowPairs(
            queries,
            self.texts.queries.find(text_digests(queries)),
            np.repeat(numbers, lengths),
            flat,
            self.texts.corpus.find(text_digests(flat)),
        )

    def find(self, pairs: RowPairs) -> tuple[IdArray, BoolArray]:
        """The place of each pair among those of the text set, and whether it is one of them."""
        query_ids = pairs.query_ids[pairs.rows]
        return self.places(query_ids, pairs.positive_ids), self.contains(query_ids, pairs.positive_ids)

    def places(self, query_ids: IdArray, passage_ids: IdArray) -> IdArray:
        """The place of each (query, positive) pair of the text set; for any other pair, some place."""
        if not len(self._keys):
            return np.zeros(len(query_ids), dtype=np.int64)
        keys = query_ids * len(self.texts.corpus) + passage_ids
        return np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)

    def contains(self, query_ids: IdArray, passage_ids: IdArray) -> BoolArray:
        """Whether each pair of ids is a query with one of its positives; an id of -1 is never one."""
        if not len(self._keys):
            return np.zeros(len(query_ids), dtype=bool)
        keys = query_ids * len(self.texts.corpus) + passage_ids
        found = self._keys[self.places(query_ids, passage_ids)] == keys
        return np.asarray((query_ids >= 0) & (passage_ids >= 0) & found)

    @cached_property
    def _keys(self) -> IdArray:
        """One number per (query, positive) pair, rising."""
        query = np.repeat(np.arange(len(self.texts.queries)), np.diff(self.texts.positive_offsets))
        return query * len(self.texts.corpus) + self.texts.positive_ids
