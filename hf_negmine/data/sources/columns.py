"""Splits, columns and batches of opened data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
from datasets.arrow_writer import TypedSequence
from datasets.formatting.formatting import LazyBatch

from hf_negmine.base.errors import ColumnError, InputError, require
from hf_negmine.data.checks import TEXTS_A_BATCH, whole
from hf_negmine.data.formats import RowFormat
from hf_negmine.data.sources.labels import Labels, label_columns

Rows: TypeAlias = datasets.Dataset | datasets.IterableDataset

TRAIN = "train"


@dataclass(frozen=True)
class OpenedRows:
    """Rows of (query, positive).

    Attributes:
        corpus: the corpus that came with them, if any.
        columns: the query and the positive column, if the source itself names them.
        code: Python that makes a Dataset of the user's data, for the remedy in an error.
    """

    rows: Rows
    corpus: pa.ChunkedArray | None = None
    columns: tuple[str | None, str | None] = (None, None)
    code: str = "rows"


def choose_split(available: list[str], wanted: str | None, *, where: str, default: str = TRAIN) -> str:
    """The requested split, the only one, or the ``default``."""
    if wanted is not None:
        if wanted not in available:
            raise InputError(f"split: {wanted!r} is not among {available} in {where}")
        return wanted
    if len(available) == 1:
        return available[0]
    require(default in available, f"split: {where} has {available}; name one")
    return default


def column_names(rows: Rows) -> list[str]:
    """The names of the columns; for a stream without them, those of its first row."""
    available = list(rows.column_names or [])
    if not available and isinstance(rows, datasets.IterableDataset):
        available = list(next(iter(rows.take(1)), {}))
    return available


def choose_columns(rows: Rows, query: str | None, positive: str | None) -> tuple[str, str]:
    """The query and positive columns: as named, or the two columns of a data set that has no others."""
    available = column_names(rows)
    require(bool(available), "the data set is empty: it has no rows and no columns, expected a query and a positive")
    for argument, name in (("query_column", query), ("positive_column", positive)):
        if name is not None and name not in available:
            raise ColumnError(name, available, argument=argument)
    if query is None or positive is None:
        others = [name for name in available if name not in (query, positive)]
        lacking = [name for name in (query, positive) if name is None]
        if len(others) != len(lacking):
            raise InputError(
                f"query_column and positive_column: name them, the data set has the columns {available} and only one "
                "with exactly two needs no names"
            )
        query = query if query is not None else others.pop(0)
        positive = positive if positive is not None else others.pop(0)
    require(query != positive, f"query_column and positive_column are both {query!r}")
    return query, positive


def pair_batches(
    rows: Rows, query: str, positive: str, *, code: str = "rows", row_format: RowFormat | None = None
) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Batches of the two columns as Arrow arrays, in order.

    Args:
        rows: the rows.
        query, positive: the names of the two columns, in rows of a format those that `RowFormat.pairs` makes.
        code: the rows as a Dataset in Python, for errors.
        row_format: the format that the rows are in; None for rows that have the two columns themselves.

    Raises:
        InputError: after the last batch, if another column marks some of the passages as not relevant.
    """
    needed = () if row_format is None else row_format.read_columns

    def labelling(available: Iterable[str]) -> list[str]:
        return [name for name in label_columns(available, query, positive) if name not in needed]

    labels = Labels.of(labelling(column_names(rows)), rows.features)
    columns = [query, positive] if row_format is None else [name for name in needed if name in column_names(rows)]
    for batch in table_batches(rows, [*columns, *labels.columns], and_those=labelling):
        labels.expect(labelling(batch.column_names))
        table = batch if row_format is None else row_format.pairs(batch, query, positive)
        labels.add(table, positive)
        yield whole(table[query]), whole(table[positive])
    labels.check(positive, code)


def table_batches(
    rows: Rows,
    columns: list[str] | None = None,
    size: int = TEXTS_A_BATCH,
    *,
    and_those: Callable[[Iterable[str]], list[str]] = lambda available: [],
) -> Iterator[pa.Table]:
    """Batches of rows as Arrow tables, in order.

    A stream may not know its columns: then a row may lack some, which are None there, and ``and_those`` chooses among
    those that a batch has besides.
    """
    if columns is not None and rows.features is None:
        for batch in rows.iter(batch_size=size):
            lacking = [None] * len(next(iter(batch.values())))
            names = dict.fromkeys([*columns, *and_those(batch)])
            yield table_of({name: batch.get(name, lacking) for name in names})
        return
    if columns is not None:
        rows = rows.select_columns(columns)
    if isinstance(rows, datasets.IterableDataset):
        for batch in rows.iter(batch_size=size):
            yield table_of(batch)
        return
    yield from rows.with_format("arrow").iter(batch_size=size)


def table_of(columns: Mapping[str, Any]) -> pa.Table:
    """Columns of Python values as an Arrow table, or `InputError` naming a column whose values differ in type."""
    return pa.table({name: array_of(values, f"column {name!r}") for name, values in columns.items()})


def table_of_batch(batch: LazyBatch) -> pa.Table:
    """The Arrow table behind the batch that `datasets.Dataset.map` passes to a function, with later changes to it."""
    features = batch.formatter.features or {}
    columns = {
        name: batch.pa_table[name]
        if name in batch.keys_to_format
        else array_of(TypedSequence(batch[name], try_type=features.get(name)), f"column {name!r}")
        for name in batch
    }
    return pa.table(columns)


def array_of(values: Any, what: str, kind: pa.DataType | None = None) -> pa.Array:
    """Python values as an Arrow array, or `InputError` naming ``what`` they belong to; None infers the type."""
    try:
        return pa.array(values, kind)
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow's errors are these, too
        raise InputError(f"{what}: {error}; expected values of one type, and text that is valid UTF-8") from error


def with_same_names(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], str]:
    """Rows that all have the names that any of them has, in which what was not there is None; and Python for ``rows``.

    `datasets` and pyarrow take the names of the first row for those of all.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows or len(names) == len(rows[0]):
        return list(rows), "rows"
    return [dict.fromkeys(names) | dict(row) for row in rows], f"[dict.fromkeys({names}) | row for row in rows]"


def take_rows(batch: dict[str, Any], rows: np.ndarray[Any, Any]) -> dict[str, list[Any]]:
    """Some rows of a dictionary of columns, in the order given."""
    places = rows.tolist()
    return {name: [values[place] for place in places] for name, values in batch.items()}
