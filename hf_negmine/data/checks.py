"""What a column of texts must be, and errors that name the row and say in Python how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError
from hf_negmine.base.schema import IdArray

TEXTS_A_BATCH = 16_384


def check_texts(
    texts: pa.Array, rows: IdArray, *, column: str, code: str = "rows", remedy: str | None = None
) -> pa.LargeStringArray:
    """Texts as a large-string array, or `InputError` naming the first of ``rows`` that is null, blank or not text.

    Args:
        texts: one per row.
        rows: the row numbers, for errors.
        column: the column's name, for errors.
        code: Python for the rows as a Dataset, used in suggested remedies.
        remedy: Python that leaves blank texts out, if that is not a filter of these rows.
    """
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = _cast_texts(texts, column, code if remedy is None else None)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as error:  # Parquet, for example, does not check its strings
        raise InputError(
            f"column {column!r} has text that is not valid UTF-8 among rows {rows[0]} to {rows[-1]} ({error}); save it "
            "as UTF-8 and read it again"
        ) from error
    blank = are_blank(texts)
    if pc.any(blank).as_py():
        blank_rows = rows[blank.to_numpy(zero_copy_only=False)]
        remedy = remedy or in_code(code, f".filter(lambda row: (row[{column!r}] or '').strip())")
        raise InputError(
            f"column {column!r} has {len(blank_rows)} empty text(s) among rows {rows[0]} to {rows[-1]}, the first in "
            f"row {blank_rows[0]}; filter them out first, for example with {remedy}"
        )
    return texts.cast(pa.large_string())


def _cast_texts(texts: pa.Array, column: str, code: str | None) -> pa.Array:
    """Cast text of another Arrow type, or raise `InputError` with a remedy."""
    kind = texts.type
    if is_text(kind):
        return texts.cast(pa.large_string())
    remedy = "give texts" if code is None else "name a column of texts"
    if code is not None and pa.types.is_struct(kind) and kind.get_field_index("text") >= 0:
        remedy = "take the text out first, for example with " + _mapped(code, column, f"row[{column!r}]['text']")
    raise InputError(f"column {column!r} holds {str(kind)[:120]}, expected text (string); {remedy}")


def flatten_positives(
    positives: pa.Array, rows: IdArray, *, column: str, code: str = "rows"
) -> tuple[pa.LargeStringArray, np.ndarray[Any, Any]]:
    """All positives of these rows in one array, and how many each row has; for ``code`` see `check_texts`."""
    if not is_list(positives.type):
        return check_texts(positives, rows, column=column, code=code), np.ones(len(positives), dtype=np.int64)
    lengths = lengths_of(positives)
    if len(bare := np.flatnonzero(lengths == 0)):
        raise InputError(
            f"column {column!r} has {len(bare)} row(s) without a positive, the first is row {rows[bare[0]]}; "
            "a query needs at least one, so filter them out first, for example with "
            + in_code(code, f".filter(lambda row: bool(row[{column!r}]))")
        )
    flat = positives.flatten()
    _check_kind_in_lists(flat.type, column, code)
    flat = flat.cast(pa.large_string())
    if len(blank := np.flatnonzero(are_blank(flat).to_numpy(zero_copy_only=False))):
        row = int(np.searchsorted(np.cumsum(lengths), blank[0], side="right"))
        place = int(blank[0] - (np.cumsum(lengths)[row] - lengths[row]))
        kept = f"[text for text in row[{column!r}] if (text or '').strip()]"
        raise InputError(
            f"column {column!r} has {len(blank)} empty text(s) in the lists of rows {rows[0]} to {rows[-1]}, the first "
            f"in row {rows[row]}, place {place}: {flat[int(blank[0])].as_py()!r:.20}; take them out first, for example "
            "with " + _mapped(code, column, kept, f".filter(lambda row: bool(row[{column!r}]))")
        )
    return flat, lengths


def _check_kind_in_lists(kind: pa.DataType, column: str, code: str) -> None:
    """Raise `InputError` with a remedy unless lists hold text."""
    if is_text(kind):
        return
    remedy = "name a column of texts"
    if is_list(kind):
        flat = f"[text for texts in row[{column!r}] for text in texts]"
        remedy = f"put the positives of a row into one list, for example with {_mapped(code, column, flat)}"
    elif pa.types.is_struct(kind) and kind.get_field_index("text") >= 0:
        own = f"[passage['text'] for passage in row[{column!r}]]"
        remedy = f"take the texts out first, for example with {_mapped(code, column, own)}"
    raise InputError(
        f"column {column!r} holds lists of {str(kind)[:120]}, expected text (string) or lists of text; {remedy}"
    )


def _mapped(code: str, column: str, value: str, then: str = "") -> str:
    return in_code(code, f".map(lambda row: {{{column!r}: {value}}}){then}")


def in_code(code: str, call: str, name: str = "rows") -> str:
    """Python that calls a method on the user's data.

    Args:
        code: Python for the data as a Dataset: its name, or an expression that makes it.
        call: the call, such as ``.filter(…)``.
        name: the name to give the data if ``code`` is an expression.
    """
    return f"{code}{call}" if code.isidentifier() else f"{name}{call} (after {name} = {code})"


def is_text(kind: pa.DataType) -> bool:
    """Whether it can be cast to text without changing any; nulls count as missing texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(is_kind(kind) for is_kind in kinds)


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds)


def lengths_of(lists: pa.Array) -> IdArray:
    """The length of each list, 0 for a missing one."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.asarray(lengths, dtype=np.int64)


def are_blank(texts: pa.Array) -> pa.BooleanArray:
    """Which texts are missing, empty or only white space."""
    return pc.fill_null(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), True)


def batches_of(array: pa.ChunkedArray | pa.Array, size: int = TEXTS_A_BATCH) -> Iterator[pa.Array]:
    """Cut an Arrow column into arrays of at most ``size`` texts without copying it whole."""
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    for chunk in chunks:
        for start in range(0, len(chunk), size):
            yield chunk.slice(start, size)


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)
