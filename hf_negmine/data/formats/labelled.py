"""What every format of rows with negatives has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.ragged import offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import IdArray
from hf_negmine.data.checks import are_blank, check_texts, flatten_positives, is_text
from hf_negmine.data.formats.cells import elements_of, texts_of_elements

POSITIVE = "positive"
QUERY = "query"


@dataclass(frozen=True)
class LabelledTexts:
    """Queries with the passages that rows label as their positives and their negatives.

    Attributes:
        queries: large strings, shape (n,), one per row; in labeled pairs one per distinct query, by first appearance.
        positives: large strings, those of all rows one after the other.
        positive_offsets: int64, shape (n + 1,); no row is without a positive.
        negatives: like the positives; nulls and blank texts of the rows are left out.
        negative_offsets: int64, shape (n + 1,); a row may have no negative.
    """

    queries: pa.LargeStringArray
    positives: pa.LargeStringArray
    positive_offsets: IdArray
    negatives: pa.LargeStringArray
    negative_offsets: IdArray


@dataclass(frozen=True)
class RowFormat(ABC):
    """A format of rows, for tables with one set of columns; `format_of` makes it.

    Attributes:
        name: the name of the format.
        query: the column of queries.
        positive: the column of positives.
        of_positives: columns with one value for each positive.
    """

    name: str
    query: str
    positive: str
    of_positives: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    @abstractmethod
    def of_negatives(self) -> tuple[str, ...]:
        """Columns of negatives, or about them."""

    @property
    def read_columns(self) -> tuple[str, ...]:
        """All columns that the format says something about; rows may lack some."""
        return (self.query, self.positive, *self.of_positives, *self.of_negatives)

    @abstractmethod
    def read(self, table: pa.Table) -> LabelledTexts:
        """The texts of some rows.

        Raises:
            InputError: a query or positive is missing, blank or not text, or a text is not valid UTF-8.
        """

    @abstractmethod
    def with_negatives(
        self, table: pa.Table, negatives: pa.LargeStringArray, offsets: IdArray, places: IdArray | None = None
    ) -> pa.Table:
        """The same rows in the same format with other negatives; everything else about them is kept.

        Args:
            table: the rows, as `read` takes them.
            negatives: texts, shape (m,).
            offsets: int64, shape (n + 1,): the negatives of each of the n rows that `read` returns.
            places: int64, shape (m,): which of the negatives that `read` returns each of these is, -1 for a new one.
                One that was there keeps its id, title, score and whatever else the row says about it. None means that
                all are new.

        Raises:
            InputError: the arguments do not fit the rows.
        """

    def pairs(self, table: pa.Table, query: str, positive: str) -> pa.Table:
        """The rows as texts in a column ``query`` and texts or lists of texts in ``positive``, without negatives.

        All other columns are kept, except those that say something about single passages.
        """
        queries, positives = texts_of_pairs(table, self.query, self.positive)
        kept = {name: table[name] for name in table.column_names if name not in self.read_columns}
        return pa.table({query: queries, positive: positives, **kept})


@dataclass(frozen=True)
class Located:
    """Texts of some rows, and where they are.

    Attributes:
        texts: large strings, shape (m,).
        rows: int64, shape (m,), rising: the row of each.
        columns: int64, shape (m,): the place of its column among those that were read.
        elements: int64, shape (m,): its place among the flat elements of that column.
    """

    texts: pa.LargeStringArray
    rows: IdArray
    columns: IdArray
    elements: IdArray


def locate(table: pa.Table, names: tuple[str, ...]) -> Located:
    """The texts in columns of texts or of lists, by row and then in this order of columns, without blank ones."""
    parts, rows, columns, elements = [], [], [], []
    for place, name in enumerate(names):
        flat, offsets = elements_of(table[name])
        texts = texts_of_elements(flat, name)
        there = np.flatnonzero(~are_blank(texts).to_numpy(zero_copy_only=False))
        row_of = np.repeat(np.arange(len(table)), np.diff(offsets))[there]
        parts.append(check_texts(texts.take(pa.array(there)), row_of, column=name))
        rows.append(row_of)
        columns.append(np.full(len(there), place))
        elements.append(there)
    if not parts:
        return Located(pa.array([], pa.large_string()), *(np.empty(0, dtype=np.int64),) * 3)
    row, column, element = (np.concatenate(arrays).astype(np.int64) for arrays in (rows, columns, elements))
    order = np.lexsort((element, column, row))
    return Located(pa.concat_arrays(parts).take(pa.array(order)), row[order], column[order], element[order])


def texts_of_pairs(table: pa.Table, query: str, positive: str) -> tuple[pa.Array, pa.Array]:
    """The query texts of some rows, and their positives as lists of texts or, if each has one, as texts."""
    queries = texts_of_elements(table[query].combine_chunks(), query)
    column = table[positive]
    flat, offsets = elements_of(column)
    texts = texts_of_elements(flat, positive)
    if not is_text(flat.type) and (blank := np.flatnonzero(are_blank(texts).to_numpy(zero_copy_only=False))).size:
        raise InputError(
            f"column {positive!r} has {len(blank)} empty passage(s), the first is "
            f"{flat[int(blank[0])].as_py()!r:.200}; leave them out"
        )
    if len(texts) == len(table) == offsets[-1] and (np.diff(offsets) == 1).all():
        return queries, texts
    return queries, pa.LargeListArray.from_arrays(offsets, texts)


def labelled_texts(table: pa.Table, query: str, positive: str, negatives: Located) -> LabelledTexts:
    """The checked texts of rows, one query per row."""
    numbers = np.arange(len(table))
    queries, positives = texts_of_pairs(table, query, positive)
    flat, lengths = flatten_positives(positives, numbers, column=positive)
    return LabelledTexts(
        check_texts(queries, numbers, column=query),
        flat,
        offsets_of_counts(lengths),
        negatives.texts,
        offsets_of_rows(negatives.rows, len(table)),
    )


def check_new_negatives(
    negatives: pa.LargeStringArray, offsets: IdArray, places: IdArray | None, *, rows: int, known: int
) -> IdArray:
    """The places, -1 for each negative if there are none, or `InputError` if the arguments do not fit the rows."""
    require(
        len(offsets) == rows + 1 and offsets[0] == 0 and offsets[-1] == len(negatives),
        f"with_negatives: offsets of {len(offsets) - 1} rows up to {offsets[-1]}, expected {rows} rows and "
        f"{len(negatives)} negatives",
    )
    if places is None:
        return np.full(len(negatives), -1, dtype=np.int64)
    require(
        len(places) == len(negatives) and bool(((places >= -1) & (places < known)).all()),
        f"with_negatives: {len(places)} places for {len(negatives)} negatives, expected as many, each from -1 to "
        f"{known - 1}",
    )
    return np.asarray(places, dtype=np.int64)
