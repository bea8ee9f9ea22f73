"""Formats of Sentence Transformers: a negative per column, and passages with labels."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.ragged import offsets_of_rows
from hf_negmine.base.schema import BoolArray, IdArray
from hf_negmine.data.checks import check_texts, whole
from hf_negmine.data.formats.cells import elements_of, lists_like, texts_of_elements
from hf_negmine.data.formats.labelled import LabelledTexts, RowFormat, check_new_negatives, labelled_texts, locate
from hf_negmine.data.formats.lists import with_column, with_values


@dataclass(frozen=True)
class NegativeColumns(RowFormat):
    """Rows of a query, a positive and one negative in each of some columns, null where a row has fewer.

    Attributes:
        negatives: the columns, the hardest first.
        values: see `with_values`.
    """

    negatives: tuple[str, ...]
    values: tuple[str, ...] = ()

    @property
    def of_negatives(self) -> tuple[str, ...]:
        """See `RowFormat`."""
        return (*self.negatives, *self.values)

    def read(self, table: pa.Table) -> LabelledTexts:
        """See `RowFormat.read`."""
        return labelled_texts(table, self.query, self.positive, locate(table, self.negatives))

    def with_negatives(
        self, table: pa.Table, negatives: pa.LargeStringArray, offsets: IdArray, places: IdArray | None = None
    ) -> pa.Table:
        """See `RowFormat.with_negatives`; there are as many columns as the row with most negatives needs."""
        old = locate(table, self.negatives)
        places = check_new_negatives(negatives, offsets, places, rows=len(table), known=len(old.texts))
        table = with_values(table, self.values, old, offsets, places)
        counts = np.diff(offsets)
        first, kind = table.column_names.index(self.negatives[0]), table.schema.field(self.negatives[0]).type
        table = table.drop_columns(list(self.negatives))
        for place, name in enumerate(self._names(int(counts.max(initial=0)))):
            texts = negatives.take(pa.array(offsets[:-1] + place, mask=counts <= place))
            column = texts.cast(pa.string() if pa.types.is_null(kind) else kind)
            table = table.add_column(min(first + place, table.num_columns), name, column)
        return table

    def _names(self, n: int) -> list[str]:
        """The names of ``n`` columns, at least one."""
        if n <= len(self.negatives):
            return list(self.negatives[: max(1, n)])
        stem = re.sub(r"_?\d+$", "", self.negatives[0])
        return [f"{stem}_{place}" for place in range(1, n + 1)]


@dataclass(frozen=True)
class LabelledLists(RowFormat):
    """Rows of a query, a list of passages, and a list of labels, over 0 for a positive."""

    labels: str

    @property
    def of_negatives(self) -> tuple[str, ...]:
        """See `RowFormat`."""
        return (self.labels,)

    def read(self, table: pa.Table) -> LabelledTexts:
        """See `RowFormat.read`."""
        own = self._separated(table)
        return labelled_texts(own, self.query, self.positive, locate(own, (self.labels,)))

    def pairs(self, table: pa.Table, query: str, positive: str) -> pa.Table:
        """See `RowFormat.pairs`."""
        return super().pairs(self._separated(table), query, positive)

    def with_negatives(
        self, table: pa.Table, negatives: pa.LargeStringArray, offsets: IdArray, places: IdArray | None = None
    ) -> pa.Table:
        """See `RowFormat.with_negatives`; a row's positives come first, then its negatives."""
        own = self._separated(table)
        old = locate(own, (self.labels,))
        places = check_new_negatives(negatives, offsets, places, rows=len(table), known=len(old.texts))
        passages, bounds = elements_of(own[self.positive])
        rows = np.concatenate([np.repeat(np.arange(len(table)), np.diff(one)) for one in (bounds, offsets)])
        order, ends = np.argsort(rows, kind="stable"), offsets_of_rows(rows, len(table))
        texts = pa.concat_arrays([texts_of_elements(passages, self.positive), negatives]).take(pa.array(order))
        kind, labels = table.schema.field(self.positive).type, table.schema.field(self.labels).type
        marks = pa.array((order < len(passages)).astype(np.int64)).cast(labels.value_type)
        table = with_column(table, self.positive, lists_like(kind, texts.cast(kind.value_type), ends))
        return with_column(table, self.labels, lists_like(labels, marks, ends))

    def _separated(self, table: pa.Table) -> pa.Table:
        """The rows with their positives in the column of passages, and their negatives in that of the labels."""
        passages, bounds = elements_of(table[self.positive])
        labels, marked = elements_of(table[self.labels])
        if not np.array_equal(bounds, marked):
            row = int(np.flatnonzero(np.diff(bounds) != np.diff(marked))[0])
            raise InputError(
                f"row {row} has {np.diff(bounds)[row]} passage(s) in {self.positive!r} and {np.diff(marked)[row]} "
                f"label(s) in {self.labels!r}, expected one each"
            )
        is_positive = is_relevant(labels, self.labels)
        rows = np.repeat(np.arange(len(table)), np.diff(bounds))
        for name, some in ((self.positive, is_positive), (self.labels, ~is_positive)):
            kept, ends = passages.take(pa.array(np.flatnonzero(some))), offsets_of_rows(rows[some], len(table))
            table = with_column(table, name, pa.LargeListArray.from_arrays(ends, kept))
        return table


@dataclass(frozen=True)
class LabelledPairs(RowFormat):
    """Rows of a query, one passage, and its label, over 0 for a positive; a query has several such rows."""

    label: str

    @property
    def of_negatives(self) -> tuple[str, ...]:
        """See `RowFormat`."""
        return (self.label,)

    def read(self, table: pa.Table) -> LabelledTexts:
        """See `RowFormat.read`; rows of the same query are read as one, in the order of their first appearance."""
        is_positive, query_of_row, queries = self._grouped(table)
        parts: list[pa.Array | IdArray] = []
        for some in (is_positive, ~is_positive):
            rows = np.flatnonzero(some)
            rows = rows[np.argsort(query_of_row[rows], kind="stable")]
            texts = texts_of_elements(table[self.positive].combine_chunks(), self.positive).take(pa.array(rows))
            offsets = offsets_of_rows(query_of_row[rows], len(queries))
            parts += [check_texts(texts, rows, column=self.positive), offsets]
        bare = np.flatnonzero(np.diff(parts[1]) == 0)
        require(
            not len(bare),
            f"column {self.label!r} marks no passage as a positive of {len(bare)} query(s), the first is "
            f"{queries[int(bare[0])].as_py()[:80]!r}; leave their rows out" if len(bare) else "",
        )  # fmt: skip
        return LabelledTexts(queries, parts[0], parts[1], parts[2], parts[3])

    def pairs(self, table: pa.Table, query: str, positive: str) -> pa.Table:
        """See `RowFormat.pairs`: the rows of positives."""
        rows = np.flatnonzero(is_relevant(table[self.label].combine_chunks(), self.label))
        return super().pairs(table.take(pa.array(rows)), query, positive)

    def with_negatives(
        self, table: pa.Table, negatives: pa.LargeStringArray, offsets: IdArray, places: IdArray | None = None
    ) -> pa.Table:
        """See `RowFormat.with_negatives`; the rows of a query's negatives follow those of its positives.

        The row of a new negative has the other columns of its query's first row, except that those which differ among
        the rows of some query, as ids and scores of passages do, are null.
        """
        is_positive, query_of_row, queries = self._grouped(table)
        old = np.flatnonzero(~is_positive)
        old = old[np.argsort(query_of_row[old], kind="stable")]
        places = check_new_negatives(negatives, offsets, places, rows=len(queries), known=len(old))
        query_of_negative = np.repeat(np.arange(len(queries)), np.diff(offsets))
        first_row = np.unique(query_of_row, return_index=True)[1]
        known = places >= 0
        source = first_row[query_of_negative]
        source[known] = old[places[known]]
        positives = np.flatnonzero(is_positive)
        rows = np.concatenate([positives, source])
        order = np.argsort(np.concatenate([query_of_row[positives], query_of_negative]), kind="stable")
        own = texts_of_elements(table[self.positive].combine_chunks(), self.positive).take(pa.array(positives))
        kind, labels = table.schema.field(self.positive).type, table.schema.field(self.label).type
        texts = pa.concat_arrays([own, negatives]).take(pa.array(order)).cast(kind)
        marks = pa.array((np.arange(len(rows)) < len(positives))[order].astype(np.int64)).cast(labels)
        is_new = pa.array(np.concatenate([np.zeros(len(positives), dtype=bool), ~known])[order])
        same, taken = pa.array(first_row[query_of_row]), table.take(pa.array(rows[order]))
        for name in {*table.column_names} - {self.query, self.positive, self.label}:
            if _differ(whole(table[name]), same):
                taken = with_column(taken, name, pc.if_else(is_new, None, whole(taken[name])))
        return with_column(with_column(taken, self.positive, texts), self.label, marks)

    def _grouped(self, table: pa.Table) -> tuple[BoolArray, IdArray, pa.LargeStringArray]:
        """Which rows hold positives, the number of each row's query, and the distinct queries."""
        texts = texts_of_elements(table[self.query].combine_chunks(), self.query)
        encoded = check_texts(texts, np.arange(len(table)), column=self.query).dictionary_encode()
        numbers = np.asarray(encoded.indices).astype(np.int64)
        return is_relevant(table[self.label].combine_chunks(), self.label), numbers, encoded.dictionary


def _differ(values: pa.Array, places: pa.Array) -> bool:
    """Whether a value is not that at its place among them; lists and records, which are not compared, count as such."""
    if pa.types.is_nested(values.type):
        return True
    given = values.take(places)
    unlike = pc.not_equal(pc.is_null(values), pc.is_null(given))
    return bool(
        pc.any(unlike).as_py() or (not pa.types.is_null(values.type) and pc.any(pc.not_equal(values, given)).as_py())
    )


def is_relevant(labels: pa.Array, column: str) -> BoolArray:
    """Whether labels, numbers or booleans, mark a positive. Shape (n,)."""
    require(not labels.null_count, f"column {column!r} has {labels.null_count} missing label(s), expected 0 or 1")
    try:
        numbers = labels.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, NotImplementedError) as error:
        raise InputError(
            f"column {column!r} holds {str(labels.type)[:120]} that is no label ({error}), expected numbers, over 0 "
            "for a positive"
        ) from error
    wrong = int(np.isnan(numbers).sum())
    require(not wrong, f"column {column!r} has {wrong} label(s) that are not a number (NaN), expected 0 or 1")
    return np.asarray(numbers > 0)
