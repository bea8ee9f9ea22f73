"""Tables and columns in memory, from any library, as Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from hf_negmine.base.errors import InputError
from hf_negmine.data.sources.columns import array_of
from hf_negmine.data.writing import in_memory


def as_dataset(source: Any, what: str) -> tuple[datasets.Dataset, str] | None:
    """A data frame (pandas, polars, …), an Arrow table or batch, or columns of values as a Dataset.

    Also the code that makes one of ``what`` (``rows`` or ``corpus``). None for a source that is not a table.
    """
    try:
        if isinstance(source, pd.DataFrame):
            named = any(name is not None for name in source.index.names)
            table = pa.Table.from_pandas(source, preserve_index=named or False)
            code = f"Dataset.from_pandas({what})"
        elif isinstance(source, pa.Table | pa.RecordBatch) or (
            hasattr(source, "__arrow_c_stream__") and hasattr(source, "columns")
        ):
            table, code = pa.table(source), f"Dataset(pa.table({what}))"
        elif isinstance(source, Mapping) and source and all(_is_column(values) for values in source.values()):
            columns = {str(name): array_of(values, f"{what}: column {name!r}") for name, values in source.items()}
            table, code = pa.table(columns), f"Dataset.from_dict({what})"
        else:
            return None
        if len(set(table.column_names)) < len(table.column_names):
            raise InputError(f"{what}: the columns {table.column_names} include a name twice; rename one")
        kinds = [field.with_type(_plain(field.type)) for field in table.schema]
        return in_memory(table.cast(pa.schema(kinds, table.schema.metadata))), code
    except InputError:
        raise
    except (ValueError, TypeError, OverflowError, LookupError, NotImplementedError) as error:
        # from pyarrow, whose errors are subclasses of these, or from datasets
        raise InputError(
            f"{what}: {_first_line(error)}; expected columns of equal length, each with values of one type"
        ) from error


def as_column(source: Any, what: str) -> pa.Array | pa.ChunkedArray | None:
    """The Arrow array of a series (pandas, polars, …) or of a numpy array; None for anything else."""
    if isinstance(source, pa.Array | pa.ChunkedArray):
        return source
    if isinstance(source, pd.Series | pd.Index | np.ndarray):
        return array_of(source, what)
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        try:
            column = pa.chunked_array(source)
            return column.cast(_plain(column.type))
        except (ValueError, TypeError) as error:
            raise InputError(f"{what}: {_first_line(error)}; expected texts") from error
    return None


def _is_column(values: Any) -> bool:
    kinds = list | tuple | np.ndarray | pd.Series | pa.Array | pa.ChunkedArray
    return isinstance(values, kinds)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type with its texts in one that data sets support: polars exports string views."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain(kind.value_type), kind.ordered)
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    return kind


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
