"""The cells of rows: texts, passages with titles, messages, and lists of these, as flat arrays of texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError
from hf_negmine.base.ragged import offsets_of_counts
from hf_negmine.base.schema import IdArray
from hf_negmine.data.checks import is_list, is_text, lengths_of, whole


def is_passage(kind: pa.DataType) -> bool:
    """Whether values of this type are a text, a record with a ``text``, or a list of messages."""
    if is_text(kind):
        return True
    if pa.types.is_struct(kind):
        place = kind.get_field_index("text")
        return place >= 0 and is_text(kind.field(place).type)
    return is_messages(kind)


def is_messages(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of messages, records with a ``role`` and a ``content``."""
    if not is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    return all(kind.value_type.get_field_index(name) >= 0 for name in ("role", "content"))


def holds_passages(kind: pa.DataType) -> bool:
    """Whether values of this type are passages or lists of passages."""
    return is_passage(kind) or (is_list(kind) and is_passage(kind.value_type))


def holds_texts(kind: pa.DataType) -> bool:
    """Whether values of this type are texts or lists of texts."""
    return is_text(kind) or (is_list(kind) and is_text(kind.value_type))


def elements_of(column: pa.ChunkedArray | pa.Array) -> tuple[pa.Array, IdArray]:
    """The elements of all cells of a column and their offsets, shape (rows + 1,); a cell that is no list is one.

    A cell of ``None`` holds no element, wherever other cells are lists.
    """
    cells = whole(column)
    if not is_list(cells.type) or is_messages(cells.type):
        return cells, np.arange(len(cells) + 1, dtype=np.int64)
    return cells.flatten(), offsets_of_counts(lengths_of(cells))


def texts_of_elements(elements: pa.Array, column: str) -> pa.LargeStringArray:
    """The text of each element, null without one: a title comes before the text, and messages follow one another.

    Raises:
        InputError: the elements hold no texts.
    """
    kind = elements.type
    if not is_passage(kind):
        raise InputError(f"column {column!r} holds {str(kind)[:120]}, expected text, passages with a text, or messages")
    try:
        elements.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(f"column {column!r} has text that is not valid UTF-8 ({error}); save it as UTF-8") from error
    if is_text(kind):
        return elements.cast(pa.large_string())
    return _with_title(elements) if pa.types.is_struct(kind) else _joined_messages(elements)


def have_titles(kind: pa.DataType) -> bool:
    """Whether values of this type are records with a text and a title, or lists of these."""
    kind = kind.value_type if is_list(kind) else kind
    place = kind.get_field_index("title") if pa.types.is_struct(kind) else -1
    return place >= 0 and is_text(kind.field(place).type) and is_passage(kind)


def _with_title(passages: pa.StructArray) -> pa.LargeStringArray:
    texts = _field(passages, "text")
    return after_titles(_field(passages, "title"), texts) if have_titles(passages.type) else texts


def after_titles(titles: pa.LargeStringArray, texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Each text after its title and a space; either alone, as it is, where the other is blank; null without a text."""
    titles = pc.fill_null(titles, "")
    titled, told = (pc.not_equal(pc.utf8_trim_whitespace(part), "") for part in (titles, texts))
    both = pc.binary_join_element_wise(titles, texts, pa.scalar(" ", pa.large_string()))
    return pc.if_else(titled, pc.if_else(told, both, titles), texts)


def _field(records: pa.StructArray, name: str) -> pa.LargeStringArray:
    return pc.struct_field(records, name).cast(pa.large_string())


def _joined_messages(chats: pa.Array) -> pa.LargeStringArray:
    contents = pc.fill_null(_field(chats.flatten(), "content"), "")
    bounds = offsets_of_counts(lengths_of(chats))
    return pc.binary_join(pa.LargeListArray.from_arrays(bounds, contents), pa.scalar(" ", pa.large_string()))


def new_elements(texts: pa.LargeStringArray, kind: pa.DataType) -> pa.Array:
    """Elements of this type that hold these texts; what else they have room for is null, or blank for a title."""
    if is_text(kind):
        return texts.cast(pa.string() if pa.types.is_null(kind) else kind)
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([_filled(field, texts) for field in kind], fields=list(kind))
    record = kind.value_type
    values = {"role": pa.array(["user"] * len(texts), pa.large_string()), "content": texts}
    fields = [
        values[field.name].cast(field.type) if field.name in values else pa.nulls(len(texts), field.type)
        for field in record
    ]
    messages = pa.StructArray.from_arrays(fields, fields=list(record))
    return pa.ListArray.from_arrays(np.arange(len(texts) + 1, dtype=np.int32), messages).cast(kind)


def _filled(field: pa.Field, texts: pa.LargeStringArray) -> pa.Array:
    if field.name == "text":
        return texts.cast(field.type)
    if field.name == "title" and is_text(field.type):
        return pa.array([""] * len(texts), pa.large_string()).cast(field.type)
    return pa.nulls(len(texts), field.type)


def lists_like(kind: pa.DataType, elements: pa.Array, offsets: IdArray) -> pa.Array:
    """Elements as a column of lists of this type, or of its own if that has no element type yet."""
    large = pa.LargeListArray.from_arrays(offsets, elements)
    if pa.types.is_fixed_size_list(kind) or not is_list(kind) or pa.types.is_null(kind.value_type):
        return large.cast(pa.list_(elements.type))
    return large.cast(kind)


def passage_texts(cell: Any, column: str) -> list[str]:
    """The texts in one cell, as `texts_of_elements` reads them in a whole column, without blank ones.

    Args:
        cell: a passage (a text, a record with a ``text``, or a list of messages), a list of these, or None.
        column: its column, for errors.

    Raises:
        InputError: it holds something else.
    """
    is_many = isinstance(cell, list | tuple | np.ndarray) and not _is_chat(cell)
    texts = [_passage_text(passage, column) for passage in (cell if is_many else [cell])]
    return [text for text in texts if text and not text.isspace()]


def _passage_text(passage: Any, column: str) -> str | None:
    if passage is None or isinstance(passage, str):
        return passage
    if isinstance(passage, Mapping) and isinstance(passage.get("text", passage), str | None):
        title = passage.get("title")
        text: str | None = passage["text"]
        if text is None or not isinstance(title, str) or not title.strip():
            return text
        return f"{title} {text}" if text.strip() else title
    if _is_chat(passage):
        return " ".join(message["content"] or "" for message in passage)
    raise InputError(f"column {column!r} holds {passage!r:.80}, expected text, passages with a text, or messages")


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list | tuple | np.ndarray)
        and len(value) > 0
        and all(isinstance(one, Mapping) and {"role", "content"} <= one.keys() for one in value)
    )
