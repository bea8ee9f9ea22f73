"""Formats with one row per query and its negatives in columns of lists, whatever the lists hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError
from hf_negmine.base.ragged import offsets_of_rows
from hf_negmine.base.schema import IdArray
from hf_negmine.data.checks import is_list
from hf_negmine.data.formats.cells import elements_of, is_messages, lists_like, new_elements, texts_of_elements
from hf_negmine.data.formats.labelled import (
    LabelledTexts,
    Located,
    RowFormat,
    check_new_negatives,
    labelled_texts,
    locate,
)

SCORES = "scores"
WEIGHTS = "weights"
"""How much each negative counts in the loss, in rows of any format."""


@dataclass(frozen=True)
class NegativeLists(RowFormat):
    """Rows of a query, positives and lists of negatives.

    Attributes:
        negatives: columns of negatives, the hardest first; new ones go into the first of them.
        lists: the type of that column if neither it nor the positives, in lists, have one.
        parallel: columns with one value for each element of the first column of negatives, such as scores and ids.
        values: see `with_values`.
    """

    negatives: tuple[str, ...]
    lists: pa.DataType
    parallel: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def of_negatives(self) -> tuple[str, ...]:
        """See `RowFormat`."""
        return (*self.negatives, *self.parallel, *self.values)

    def read(self, table: pa.Table) -> LabelledTexts:
        """See `RowFormat.read`."""
        negatives = locate(self._with_lists(table), self.negatives)
        return labelled_texts(table, self.query, self.positive, negatives)

    def with_negatives(
        self, table: pa.Table, negatives: pa.LargeStringArray, offsets: IdArray, places: IdArray | None = None
    ) -> pa.Table:
        """See `RowFormat.with_negatives`."""
        table = self._with_lists(table)
        old = locate(table, self.negatives)
        places = check_new_negatives(negatives, offsets, places, rows=len(table), known=len(old.texts))
        rows = np.repeat(np.arange(len(table)), np.diff(offsets))
        columns, elements = np.zeros(len(places), dtype=np.int64), np.full(len(places), -1, dtype=np.int64)
        known = places >= 0
        columns[known], elements[known] = old.columns[places[known]], old.elements[places[known]]
        as_read = np.lexsort((columns, rows))
        table = with_values(table, self.values, old, offsets, places[as_read])
        for column, name in enumerate(self.negatives):
            some = np.flatnonzero(columns == column)
            cells = Cells(elements[some], offsets_of_rows(rows[some], len(table)))
            for other in self.parallel if column == 0 else ():
                _, given = elements_of(table[name])
                table = with_column(table, other, cells.values(table, other, given, name))
            table = with_column(table, name, cells.passages(table[name], negatives.take(pa.array(some))))
        return table

    def with_positives(self, table: pa.Table, positives: pa.LargeStringArray, offsets: IdArray) -> pa.Table:
        """The same rows with these positives, which keep what the row says about those that it had.

        ``positives`` are texts; ``offsets``, shape (rows + 1,), tell which of them are each row's.
        """
        old, bounds = elements_of(table[self.positive])
        known: dict[tuple[int, str | None], int] = {}
        own_rows = np.repeat(np.arange(len(table)), np.diff(bounds)).tolist()
        for place, key in enumerate(zip(own_rows, texts_of_elements(old, self.positive).to_pylist(), strict=True)):
            known.setdefault(key, place)
        rows = np.repeat(np.arange(len(table)), np.diff(offsets)).tolist()
        wanted = zip(rows, positives.to_pylist(), strict=True)
        cells = Cells(np.array([known.get(key, -1) for key in wanted], dtype=np.int64), offsets)
        for name in self.of_positives:
            table = with_column(table, name, cells.values(table, name, bounds, self.positive))
        column = table[self.positive]
        if is_list(column.type) and not is_messages(column.type):
            return with_column(table, self.positive, cells.passages(column, positives))
        return with_column(table, self.positive, positives.cast(column.type))

    def _with_lists(self, table: pa.Table) -> pa.Table:
        """The table with its first column of negatives, in the type of the positives if it is not there or empty."""
        name, own = self.negatives[0], table.schema.field(self.positive).type
        kind = own if is_list(own) and not is_messages(own) else self.lists
        if name not in table.column_names:
            return table.append_column(name, pa.nulls(len(table), kind))
        given = table.schema.field(name).type
        if pa.types.is_null(given) or (is_list(given) and pa.types.is_null(given.value_type)):
            return with_column(table, name, table[name].cast(kind))
        return table


@dataclass(frozen=True)
class Cells:
    """Lists made of elements that a column has, and of new ones.

    Attributes:
        elements: int64, shape (m,): places among the flat elements, -1 for a new one.
        offsets: int64, shape (rows + 1,).
    """

    elements: IdArray
    offsets: IdArray

    def passages(self, column: pa.ChunkedArray, texts: pa.LargeStringArray) -> pa.Array:
        """The column with these elements; a new one holds the text at its place, ``texts`` has shape (m,)."""
        old, _ = elements_of(column)
        made = new_elements(texts, old.type)
        at = np.where(self.elements >= 0, self.elements, len(old) + np.arange(len(texts)))
        elements = pa.concat_arrays([old.cast(made.type), made]).take(pa.array(at))
        return lists_like(column.type, elements, self.offsets)

    def values(self, table: pa.Table, name: str, given: IdArray, beside: str) -> pa.Array:
        """A column of one value for each element, null for new ones; ``given`` are the offsets of the elements."""
        old, offsets = elements_of(table[name])
        empty = (offsets == 0).all()
        if not empty and not np.array_equal(offsets, given):
            row = int(np.flatnonzero(np.diff(offsets) != np.diff(given))[0])
            raise InputError(
                f"column {name!r} has {np.diff(offsets)[row]} value(s) in row {row} for {np.diff(given)[row]} in "
                f"{beside!r}, expected one each; remove the column or mend it"
            )
        if empty:
            return table[name]
        elements = old.take(pa.array(self.elements, mask=self.elements < 0))
        return lists_like(table[name].type, elements, self.offsets)


def with_column(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with this column in the place of the one of its name, or at the end."""
    if name not in table.column_names:
        return table.append_column(name, column)
    return table.set_column(table.column_names.index(name), name, column)


def with_values(table: pa.Table, names: tuple[str, ...], old: Located, offsets: IdArray, places: IdArray) -> pa.Table:
    """The table with columns of lists that have one value for each negative, null for a new one.

    Among them, `SCORES` has one for the positive, before the others.
    """
    rows = np.repeat(np.arange(len(table)), np.diff(offsets))
    known = places >= 0
    for name in names:
        ahead = int(name == SCORES)
        values, bounds = elements_of(table[name])
        expected = np.bincount(old.rows, minlength=len(table)) + ahead
        wrong = np.flatnonzero(np.diff(bounds) != expected)
        if len(wrong):
            raise InputError(
                f"column {name!r} has {np.diff(bounds)[wrong[0]]} value(s) in row {wrong[0]}, expected one for "
                f"{'the positive and one for ' * ahead}each of its {expected[wrong[0]] - ahead} negative(s); remove "
                "the column or mend it"
            )
        at = np.full(len(places) + ahead * len(table), -1, dtype=np.int64)
        if ahead:
            at[offsets[:-1] + np.arange(len(table))] = bounds[:-1]
        value_of_old = np.arange(len(old.rows)) + ahead * (old.rows + 1)
        at[(np.arange(len(places)) + ahead * (rows + 1))[known]] = value_of_old[places[known]]
        elements = values.take(pa.array(at, mask=at < 0))
        ends = offsets + ahead * np.arange(len(offsets))
        table = with_column(table, name, lists_like(table[name].type, elements, ends))
    return table
