"""Rows of (query, positive), located by their texts among those of a text set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from hf_negmine.base.files import text_digests
from hf_negmine.base.schema import BoolArray, IdArray
from hf_negmine.data.checks import check_texts, flatten_positives
from hf_negmine.data.texts import TextSet


@dataclass(frozen=True)
class RowPairs:
    """Rows with their positives, before their negatives are known; fields as in `RowNegatives`."""

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
