"""The ids that users have given to texts: they are read by them, and files are written under them.

Ids are texts or whole numbers. Where one side has numbers and the other texts, they are compared as texts. In a pool
queries and passages are positions. A text that was given under several ids is written under the first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import text_digests
from hf_negmine.base.schema import AnyArray, IdArray
from hf_negmine.data.checks import TEXTS_A_BATCH, check_texts, in_code, whole
from hf_negmine.data.formats.cells import after_titles
from hf_negmine.data.sources import find_texts, open_rows, read_beir_texts, table_batches
from hf_negmine.data.sources.columns import array_of
from hf_negmine.data.texts import TextColumn, TextSet


class IdIndex:
    """Finds the rows of ids."""

    def __init__(self, ids: pa.Array, what: str) -> None:
        self.ids, self.what = plain_ids(ids, what), what

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: pa.Array, what: str) -> IdArray:
        """The row of each id, -1 where there is none; ``what`` names them in errors."""
        given, own = plain_ids(ids, what), self.ids
        if given.type != own.type:
            given, own = given.cast(pa.large_string()), self._as_text
        rows = pc.index_in(given, value_set=own)
        return np.asarray(pc.fill_null(rows, -1).to_numpy(zero_copy_only=False).astype(np.int64))

    def require(self, ids: pa.Array, what: str) -> IdArray:
        """Like `find`, or `InputError` if some are unknown."""
        rows = self.find(ids, what)
        if len(unknown := np.flatnonzero(rows < 0)):
            raise InputError(
                f"{what}: {len(unknown):,} of {len(rows):,} ids in a batch are not among the {len(self):,} ids of "
                f"{self.what}, the first is {ids[int(unknown[0])].as_py()!r}; give the {self.what} that the lists were "
                "made from, or leave these ids out"
            )
        return rows

    @cached_property
    def _as_text(self) -> pa.Array:
        return self.ids.cast(pa.large_string())


@dataclass(frozen=True)
class TextsById:
    """Texts and their ids, read in batches.

    Attributes:
        rows: the data set; never a stream.
        column: its column of texts.
        index: finds the rows of ids.
        without_blanks: Python that leaves out blank texts, for errors.
    """

    rows: Any
    column: str
    index: IdIndex
    without_blanks: str

    def batches(self) -> Iterator[pa.Array]:
        """The texts in order."""
        return (whole(table[self.column]) for table in table_batches(self.rows, [self.column]))

    def take(self, rows: IdArray) -> pa.Array:
        """The texts of some rows, in this order, or `InputError` for a blank one."""
        chosen = self.rows.select_columns([self.column]).with_format("arrow")
        parts = [
            whole(chosen[rows[start : start + TEXTS_A_BATCH].tolist()][self.column].cast(pa.large_string()))
            for start in range(0, len(rows), TEXTS_A_BATCH)
        ]
        texts = pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())
        return check_texts(texts, rows, column=self.column, remedy=self.without_blanks)


def open_texts(source: Any, what: str) -> TextsById:
    """Open the texts of ``queries`` or ``documents``; see `CandidatePool.from_lists`."""
    without_blanks = f"{{name: text for name, text in {what}.items() if text.strip()}}"
    by_id = isinstance(source, Mapping) and bool(source) and all(isinstance(text, str) for text in source.values())
    if by_id:
        texts = array_of(list(source.values()), what, pa.large_string())
        source = pa.table({"id": array_of(list(source), f"{what}, ids"), what: texts})
    name = {"documents": "corpus"}.get(what, what)
    if isinstance(source, str | os.PathLike) and find_texts(folder := Path(source).expanduser(), name):
        source = pa.table(list(read_beir_texts(folder, name)), names=["id", "text"])
    rows, code = stored_rows(source, what)
    names = list(rows.column_names)
    ids = [name for name in names if name in ("id", "_id") or name.endswith(("_id", "-id"))]
    others = [name for name in names if name not in ids]
    if sorted(others) == ["text", "title"]:  # as in a BEIR corpus
        rows = rows.map(_with_titles, batched=True, remove_columns="title")
        others = ["text"]
    require(
        len(ids) == 1 and len(others) == 1,
        f"{what}: expected a column of ids, named id or ending in _id, and one of texts, or title and text, got "
        f"{names}; leave the others out",
    )
    parts = [whole(table[ids[0]]) for table in table_batches(rows, ids)]
    require(bool(parts), f"{what}: there are no rows")
    if not by_id:
        without_blanks = in_code(code, f".filter(lambda row: (row[{others[0]!r}] or '').strip())", what)
    return TextsById(rows, others[0], IdIndex(pa.concat_arrays(parts), what), without_blanks)


def _with_titles(batch: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    titles, texts = (pa.array(batch[name], pa.large_string()) for name in ("title", "text"))
    return {"text": after_titles(titles, pc.fill_null(texts, "")).to_pylist()}


@dataclass(frozen=True)
class Ids:
    """The id of every query and of every passage, as texts or int64, by position; None where these are the ids."""

    queries: pa.Array | None = None
    documents: pa.Array | None = None

    def given(self, texts: TextSet | None, queries: Any, documents: Any) -> Ids:
        """The same with the ids of these tables, where one is given; see `CandidatePool.to_lists`."""
        if queries is None and documents is None:
            return self
        if texts is None:
            raise InputError(
                "queries, documents: ids are found by the texts, which this pool came without; write "
                "the pool of a miner that is fitted on them, or of from_lists"
            )
        return Ids(
            self.queries if queries is None else _of_texts(texts.queries, open_texts(queries, "queries")),
            self.documents if documents is None else _of_texts(texts.corpus, open_texts(documents, "documents")),
        )


POSITIONS = Ids()
SPACE = r"[\s\v\x1c-\x1f\x{85}\pZ]"
"""What separates the fields of TREC's files: all that `str.split` takes for white space."""


def places_in(column: TextColumn, given: TextsById) -> IdArray:
    """The place of every given text among the texts of a column, -1 where it is not there."""
    parts = [column.find(text_digests(batch.cast(pa.large_string()))) for batch in given.batches()]
    return np.concatenate(parts)


def ids_of(given: TextsById, places: AnyArray, count: int) -> tuple[pa.Array, IdArray]:
    """The first id of each of ``count`` texts, null where there is none, and the texts without one."""
    rows = np.flatnonzero(places >= 0)[::-1]
    row_of = np.full(count, -1, dtype=np.int64)
    row_of[places[rows]] = rows
    return given.index.ids.take(pa.array(row_of, mask=row_of < 0)), np.flatnonzero(row_of < 0)


def _of_texts(column: TextColumn, given: TextsById) -> pa.Array:
    ids, lacking = ids_of(given, places_in(column, given), len(column))
    if len(lacking):
        first = column.take(lacking[:1])[0].as_py()
        raise InputError(
            f"{given.index.what}: {len(lacking):,} of the pool's {len(column):,} texts are not among the "
            f"{len(given.index):,} given ones, the first is {first[:80]!r}; give all that the pool was made from"
        )
    if len(pc.unique(ids)) < len(ids):
        counts = pc.value_counts(ids)
        twice = next(one["values"] for one in counts.to_pylist() if one["counts"] > 1)
        raise InputError(f"{given.index.what}: the id {twice!r} belongs to several texts, expected an id for each text")
    return ids


def taken(ids: pa.Array | None, positions: AnyArray) -> pa.Array:
    """The ids at some positions."""
    return pa.array(positions, pa.int64()) if ids is None else ids.take(pa.array(positions))


def require_fields(ids: Ids, separators: str, what: str) -> None:
    """Raise `InputError` for an id that is empty or holds one of the separators of a file's fields, as a pattern."""
    for name, column in (("queries", ids.queries), ("documents", ids.documents)):
        if column is None or not pa.types.is_large_string(column.type):
            continue
        wrong = column.filter(pc.or_(pc.equal(column, ""), pc.match_substring_regex(column, separators)))
        if len(wrong):
            raise InputError(
                f"{name}: {len(wrong):,} of {len(column):,} ids cannot be a field of {what}, the first is "
                f"{wrong[0].as_py()!r}: it is empty, or holds what separates fields; rename them, or write to_lists"
            )


def plain_ids(ids: pa.Array, what: str) -> pa.Array:
    """Ids as int64 or large string, or `InputError`."""
    if pt.is_dictionary(ids.type):
        ids = ids.cast(ids.type.value_type)
    require(ids.null_count == 0, f"{what}: {ids.null_count} of {len(ids)} ids in a batch are missing, expected all")
    if pt.is_null(ids.type):
        return ids.cast(pa.large_string())
    if pt.is_integer(ids.type):
        try:
            return ids.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(f"{what}: {error}; give such ids as texts") from error
    if pt.is_string(ids.type) or pt.is_large_string(ids.type) or pt.is_string_view(ids.type):
        return ids.cast(pa.large_string())
    raise InputError(f"{what}: the ids are {str(ids.type)[:120]}, expected texts or whole numbers")


def stored_rows(source: Any, what: str) -> tuple[Any, str]:
    """Rows that can be read more than once and in any order, and Python that makes them, for errors."""
    try:
        opened = open_rows(source)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    rows = opened.rows
    require(
        hasattr(rows, "select_columns") and hasattr(rows, "select"),
        f"{what}: got a stream, expected rows that can be read more than once; load them without streaming=True",
    )
    return rows, what if opened.code == "rows" else opened.code
