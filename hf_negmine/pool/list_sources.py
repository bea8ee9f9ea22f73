"""What users have of scored lists, opened: texts by id, a scored list per query, and positives by id.

Ids are texts or whole numbers. Where one side has numbers and the other texts, they are compared as texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from hf_negmine.base.errors import ColumnError, InputError, require
from hf_negmine.base.schema import AnyArray, FloatArray, IdArray
from hf_negmine.data.checks import TEXTS_A_BATCH, check_texts, in_code
from hf_negmine.data.formats.cells import after_titles
from hf_negmine.data.sources import Rows, find_texts, open_rows, read_beir_texts, table_batches
from hf_negmine.data.sources.columns import whole

LISTS_A_BATCH = 1024
"""Lists that are read at a time; they may have thousands of candidates each."""
QUERY, DOCUMENTS, SCORES = "query_id", "document_ids", "scores"
POSITIVES, POSITIVE_SCORES = "positive_ids", "positive_scores"


class ListSource(Protocol):
    """Tables of a list per row, in batches that can be read again."""

    @property
    def column_names(self) -> list[str]:
        """Their columns."""

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """Batches of these columns."""


@dataclass(frozen=True)
class ListRows:
    """The rows of a data set as a `ListSource`."""

    rows: Rows

    @property
    def column_names(self) -> list[str]:
        """Its columns."""
        return list(self.rows.column_names or [])

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """See `ListSource`."""
        return table_batches(self.rows, columns, LISTS_A_BATCH)


@dataclass(frozen=True)
class ParquetLists:
    """Parquet files as a `ListSource`, read where they are: `datasets` would copy them as Arrow into its cache first.

    Attributes:
        paths: the files, which have the same columns.
    """

    paths: tuple[Path, ...]

    @property
    def column_names(self) -> list[str]:
        """The columns of the first file."""
        with self._errors(self.paths[0]):
            return list(pq.read_schema(self.paths[0]).names)

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """See `ListSource`."""
        for path in self.paths:
            with self._errors(path), pq.ParquetFile(path, memory_map=True) as file:
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(LISTS_A_BATCH, row_groups=[group], columns=columns):
                        batch.validate(full=True)  # Parquet does not check that text is UTF-8
                        yield pa.Table.from_batches([batch])
                    pa.default_memory_pool().release_unused()  # else what was read stays in memory

    @contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} could not be read as parquet: {reason}") from error


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
        source = pa.table({"id": pa.array(list(source)), what: pa.array(list(source.values()), pa.large_string())})
    name = {"documents": "corpus"}.get(what, what)
    if isinstance(source, str | os.PathLike) and find_texts(folder := Path(source).expanduser(), name):
        source = pa.table(list(read_beir_texts(folder, name)), names=["id", "text"])
    rows, code = _stored_rows(source, what)
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


def open_lists(source: Any) -> ListSource:
    """Open scored lists; see `CandidatePool.from_lists`."""
    if hasattr(source, "tables"):
        opened: ListSource = source
    elif (path := _parquet_file(source)) is not None:
        opened = ParquetLists((path,))
    elif _is_nested(source, Mapping):
        lists = list(source.values())
        table = {
            QUERY: pa.array(list(source)),
            DOCUMENTS: _lists_of([list(one) for one in lists], "scores"),
            SCORES: _lists_of([list(one.values()) for one in lists], "scores"),
        }
        opened = ListRows(_stored_rows(pa.table(table), "scores")[0])
    else:
        opened = ListRows(_stored_rows(source, "scores")[0])
    for column in (QUERY, DOCUMENTS, SCORES):
        if column not in opened.column_names:
            raise ColumnError(column, opened.column_names, argument="scores")
    return opened


@dataclass(frozen=True)
class PairBatch:
    """Some (query, positive) pairs by id.

    Attributes:
        queries, documents: the ids, shape (pairs,).
        scores: float32, NaN where none was given.
    """

    queries: pa.Array
    documents: pa.Array
    scores: FloatArray


def positive_batches(source: Any, lists: ListSource) -> Iterator[PairBatch]:
    """The positives in batches; see `CandidatePool.from_lists`."""
    if source is None:
        require(
            POSITIVES in lists.column_names,
            f"positives: the lists have the columns {lists.column_names} and no {POSITIVES}; give positives=, such as "
            "{query id: [document id]}",
        )
        opened = lists
    elif isinstance(source, Mapping) and not _is_table(source):
        opened = ListRows(_stored_rows(_table_of_positives(source), "positives")[0])
    else:
        opened = ListRows(_stored_rows(source, "positives")[0])
    names = opened.column_names
    kept = [name for name in (QUERY, POSITIVES, "document_id", POSITIVE_SCORES, "positive_score") if name in names]
    if QUERY not in kept or not {POSITIVES, "document_id"} & set(kept):
        raise InputError(
            f"positives: expected the columns {QUERY} and {POSITIVES} (lists), or {QUERY} and document_id, got {names}"
        )
    return (_pairs_of(table, POSITIVES in kept) for table in opened.tables(kept))


def _table_of_positives(source: Mapping[Any, Any]) -> pa.Table:
    columns = {
        QUERY: pa.array(list(source)),
        POSITIVES: _lists_of([[one] if isinstance(one, str) else list(one) for one in source.values()], "positives"),
    }
    if not _is_nested(source, Mapping):
        return pa.table(columns)
    scores = [list(one.values()) for one in source.values()]
    grades = next((one for some in scores for one in some if not isinstance(one, float | np.floating)), None)
    require(
        grades is None,
        f"positives: expected the teacher's scores as float, got {grades!r}, which looks like a relevance judgement; "
        "give lists of ids, such as {query id: [document id]}",
    )
    return pa.table({**columns, POSITIVE_SCORES: _lists_of(scores, "positives")})


def _pairs_of(table: pa.Table, in_lists: bool) -> PairBatch:
    queries, score = whole(table[QUERY]), "positive_score"
    documents = whole(table[POSITIVES if in_lists else "document_id"])
    lengths = np.ones(len(queries), dtype=np.int64)
    if in_lists:
        score = POSITIVE_SCORES
        documents, lengths = flat_lists(documents, POSITIVES)
    scores = np.full(len(documents), np.nan, dtype=np.float32)
    if score in table.column_names:
        given = whole(table[score])
        if in_lists:
            given, of_scores = flat_lists(given, score)
            require_same_lengths(queries, lengths, of_scores, POSITIVES, score)
        scores = numbers_of(given, score)
        wrong = ~np.isfinite(scores) & ~np.asarray(pc.is_null(given).to_numpy(zero_copy_only=False), dtype=bool)
        require(not wrong.any(), f"{score}: {wrong.sum():,} of {len(wrong):,} scores are not finite numbers")
    rows = np.repeat(np.arange(len(queries)), lengths)
    return PairBatch(queries.take(pa.array(rows)), documents, scores)


def require_same_lengths(queries: pa.Array, one: IdArray, two: IdArray, name: str, other: str) -> None:
    """Raise `InputError` for the first row whose two lists have different lengths."""
    if len(wrong := np.flatnonzero(one != two)):
        row = int(wrong[0])
        raise InputError(
            f"{name} and {other}: {len(wrong):,} row(s) of a batch have lists of different lengths, the first is that "
            f"of query {queries[row].as_py()!r} with {one[row]} ids and {two[row]} scores; give a score for each id"
        )


def flat_lists(lists: pa.Array, column: str) -> tuple[pa.Array, IdArray]:
    """The entries of all lists, and the length of each list, 0 for a missing one."""
    kind = lists.type
    if not (pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind)):
        raise InputError(f"column {column!r} holds {str(kind)[:120]}, expected a list in every row")
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return pc.list_flatten(lists), np.asarray(lengths)


def numbers_of(values: pa.Array, column: str) -> FloatArray:
    """Numbers as float32; a missing one is NaN, and one beyond the range of float32 infinite."""
    if not (pt.is_floating(values.type) or pt.is_integer(values.type) or pt.is_null(values.type)):
        raise InputError(f"column {column!r} holds {str(values.type)[:120]}, expected numbers")
    given: AnyArray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return given.astype(np.float32)


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


def _stored_rows(source: Any, what: str) -> tuple[Any, str]:
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


def _parquet_file(source: Any) -> Path | None:
    path = Path(source).expanduser() if isinstance(source, str | os.PathLike) else None
    return path if path is not None and path.suffix == ".parquet" and path.is_file() else None


def _is_nested(source: Any, kind: type) -> bool:
    return isinstance(source, Mapping) and bool(source) and all(isinstance(one, kind) for one in source.values())


def _is_table(source: Mapping[Any, Any]) -> bool:
    return QUERY in source and (POSITIVES in source or "document_id" in source)


def _lists_of(values: list[list[Any]], what: str) -> pa.Array:
    try:
        return pa.array(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{what}: {error}; expected values of one type") from error
