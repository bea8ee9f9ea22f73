"""Conditions on the metadata of queries and passages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import ColumnError, InputError, require
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.schema import BoolArray, DigestArray, IdArray
from hf_negmine.data.checks import batches_of
from hf_negmine.data.texts import find_digests, unique_digests
from hf_negmine.select.filters.base import Bound, BoundFilter, Listed, Scene

CANDIDATES_A_STEP = 2**16
ROWS_A_DIGEST = 2**14

Predicate: TypeAlias = Callable[[pa.Table, pa.Table], Any]


@dataclass(frozen=True, eq=False)
class Where:
    """A candidate must meet a condition on its query's metadata and its own.

    Texts are found in the tables by their digests; the first row of a text counts, and a text without a row has null
    metadata. The table of a data set stays on disk: only digests of its texts are held in memory, and a copy in another
    process opens it by its path. Any other table travels with the miner, which takes time with `map`.

    Attributes:
        predicate: maps two tables, with the metadata of a query and of a passage in each row, to one bool per row. The
            result for a row may depend only on that row. Null counts as False.
        queries: metadata of the queries: a data set, an Arrow table, or a dictionary of columns.
        passages: metadata of the passages, the same.
        query_column, passage_column: the columns that hold the texts.
        name: the condition's name; results are stored under it, so another condition needs another name. None takes
            the predicate's own, which a lambda does not have.
        version: change it when the predicate decides differently under the same name. A change in the body of a ``def``
            is noticed by itself; changes in a lambda, an object, or anything a function calls or closes over are not.
    """

    predicate: Predicate
    queries: Any = field(kw_only=True, repr=False)
    passages: Any = field(kw_only=True, repr=False)
    query_column: str = field(default="query", kw_only=True)
    passage_column: str = field(default="text", kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    version: str = field(default="1", kw_only=True)
    _kept: dict[str, _Metadata] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        require(
            callable(self.predicate) and not isinstance(self.predicate, type),
            f"Where: the predicate must be a function of two tables, got {self.predicate!r}",
        )
        if self.name is None:
            object.__setattr__(self, "name", getattr(self.predicate, "__name__", "<none>"))
        if not isinstance(self.name, str) or not self.name or self.name.startswith("<"):
            raise InputError(
                f"Where: results are stored under the predicate's name, and {self.predicate!r} has the name "
                f"{self.name!r}; give it one with name="
            )
        self._metadata("queries"), self._metadata("passages")  # so that a wrong table fails at once

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be computed again."""
        return {**self.__dict__, "_kept": {}}

    @property
    def settings(self) -> dict[str, Any]:
        """See `Filter`."""
        return {
            "filter": str(self),
            "version": self.version,
            "code": code_digest(self.predicate),
            "queries": self._metadata("queries").digest,
            "passages": self._metadata("passages").digest,
        }

    def bind(self, scene: Scene) -> BoundFilter:
        """See `Filter`.

        Raises:
            InputError: a table has none of the queries or none of the passages, unless the rows came after the fit.
        """
        queries, passages = self._metadata("queries"), self._metadata("passages")
        row_of_query = queries.find(scene.queries.digests)
        if scene.whole:
            queries.require_some(row_of_query)
            passages.require_some(passages.find(scene.corpus.digests))

        def keep(listed: Listed) -> BoolArray:
            kept = np.empty(len(listed.passages), dtype=bool)
            query_of = listed.queries[listed.target_of]
            for start in range(0, len(kept), CANDIDATES_A_STEP):
                some = slice(start, start + CANDIDATES_A_STEP)
                of_queries = queries.take(row_of_query[query_of[some]])
                of_passages = passages.take(passages.find(scene.corpus.digests[listed.passages[some]]))
                kept[some] = _as_bools(self.predicate(of_queries, of_passages), len(of_queries), str(self))
            return kept

        return Bound(str(self), keep)

    def _metadata(self, of: Literal["queries", "passages"]) -> _Metadata:
        if of not in self._kept:
            column = self.query_column if of == "queries" else self.passage_column
            argument = f"Where: {of}"
            self._kept[of] = _Metadata(_table_of(getattr(self, of), argument), column, argument)
        return self._kept[of]

    def __str__(self) -> str:
        return f"where {self.name}"


@dataclass(frozen=True)
class _Compared:
    """Compares a column of the queries with one of the passages; a `Predicate`."""

    word: Literal["same", "other"]
    query_column: str
    passage_column: str

    @property
    def __name__(self) -> str:
        columns = [self.query_column, self.passage_column]
        return f"{self.word} {' and '.join(dict.fromkeys(columns))}"

    def __call__(self, queries: pa.Table, passages: pa.Table) -> pa.ChunkedArray:
        columns = []
        for table, name, argument in (
            (queries, self.query_column, "queries"),
            (passages, self.passage_column, "passages"),
        ):
            if name not in table.column_names:
                raise ColumnError(name, table.column_names, argument=f"Where: {self.__name__}: {argument}")
            columns.append(_decoded(table[name]))
        if all(pa.types.is_null(column.type) for column in columns):  # pyarrow does not compare these
            columns = [column.cast(pa.string()) for column in columns]
        try:
            equal = pc.fill_null(pc.equal(*columns), False)
        except (pa.ArrowInvalid, NotImplementedError) as error:
            raise InputError(
                f"Where: {self.__name__} cannot compare {columns[0].type} of the queries with {columns[1].type} of the "
                "passages"
            ) from error
        return equal if self.word == "same" else pc.invert(equal)


def same_value(column: str, passage_column: str | None = None) -> _Compared:
    """Query and passage have the same value in a column: ``Where(same_value("language"), …)``.

    If this is not known (null on either side), the passage is dropped.

    Args:
        column: the column in both tables.
        passage_column: the column in the passages' table, if it has another name there.
    """
    return _Compared("same", column, passage_column or column)


def other_value(column: str, passage_column: str | None = None) -> _Compared:
    """Query and passage are not known to have the same value in a column: ``Where(other_value("document"), …)``.

    If this is not known (null on either side), the passage stays. For the arguments see `same_value`.
    """
    return _Compared("other", column, passage_column or column)


class _Metadata:
    """A table in which rows are found by their texts.

    Raises:
        InputError: the table lacks the column of texts, or the column does not hold text.
    """

    def __init__(self, table: pa.Table, column: str, argument: str) -> None:
        if column not in table.column_names:
            raise ColumnError(column, table.column_names, argument=argument)
        kind = table.schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        require(any(is_kind(kind) for is_kind in texts), f"{argument}: column {column!r} holds {kind}, expected text")
        self._table, self._column, self._argument = table, column, argument

    def require_some(self, rows: IdArray) -> None:
        """Raise `InputError` if texts are there, but none has a row."""
        require(
            not len(rows) or bool((rows >= 0).any()),
            f"{self._argument}: none of the {len(rows):,} {self._argument.split()[-1]} is a text in column "
            f"{self._column!r}, so nothing would be known of any; give their table, with the texts as they are mined",
        )

    def find(self, digests: DigestArray) -> IdArray:
        """The row of each text digest, -1 if there is none."""
        ordered, rows = self._index
        at = find_digests(ordered, digests)
        return np.where(at >= 0, rows[at], -1) if len(rows) else at

    def take(self, rows: IdArray) -> pa.Table:
        """These rows, in this order; nulls for -1."""
        distinct, place = np.unique(rows[rows >= 0], return_inverse=True)
        batches, starts = self._batches
        batch_of = np.searchsorted(starts, distinct, side="right") - 1
        # A batch at a time: Arrow would join all chunks of a column first.
        parts = [batches[one].take(pa.array(distinct[batch_of == one] - starts[one])) for one in np.unique(batch_of)]
        found = pa.Table.from_batches(parts, self._table.schema).combine_chunks()
        places = np.zeros(len(rows), dtype=np.int64)
        places[rows >= 0] = place
        return found.take(pa.array(places, mask=rows < 0))

    @cached_property
    def digest(self) -> str:
        """A digest of all columns, however they are chunked."""
        digest = digest_of("metadata", self._column, [[field.name, str(field.type)] for field in self._table.schema])
        for start in range(0, self._table.num_rows, ROWS_A_DIGEST):
            for batch in self._table.slice(start, ROWS_A_DIGEST).combine_chunks().to_batches():
                digest = digest_of(digest, memoryview(batch.serialize()))
        return digest

    @cached_property
    def _index(self) -> tuple[DigestArray, IdArray]:
        """Digests of the distinct texts, sorted, and the first row of each."""
        digests: list[DigestArray] = [np.empty((0, 2), dtype=np.uint64)]
        rows: list[IdArray] = [np.empty(0, dtype=np.int64)]
        start = 0
        for texts in batches_of(self._table[self._column]):
            there = np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False))
            digests.append(text_digests(_decoded(texts.drop_null())))
            rows.append(start + there)
            start += len(texts)
        every = np.concatenate(digests)
        first, _ = unique_digests(every)
        return every[first], np.concatenate(rows)[first]

    @cached_property
    def _batches(self) -> tuple[list[pa.RecordBatch], IdArray]:
        batches = self._table.to_batches()
        return batches, np.cumsum([0, *(len(batch) for batch in batches)])[:-1]


def code_digest(predicate: Callable[..., Any]) -> str | None:
    """Digest of the body of a ``def``; None for a lambda or an object."""
    code = getattr(predicate, "__code__", None)
    if not isinstance(code, CodeType) or code.co_name == "<lambda>":
        return None
    return digest_of("predicate", _content_of(code))


def _content_of(code: CodeType) -> list[Any]:
    """The content of a function's own body, in a form that is the same in every process."""
    constants: list[Any] = []
    for one in code.co_consts:
        if isinstance(one, CodeType):
            constants.append(_content_of(one))
        else:
            constants.append(sorted(map(repr, one)) if isinstance(one, frozenset) else repr(one))
    return [code.co_code.hex(), constants, list(code.co_names)]


def _table_of(given: Any, argument: str) -> pa.Table:
    """Make a table of what users have; a data set on disk stays there."""
    if isinstance(given, pa.Table):
        return given
    table: Any = None
    if isinstance(given, Mapping):
        try:
            table = pa.table(dict(given))
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
            raise InputError(f"{argument}: these columns do not make a table ({error})") from error
    elif hasattr(given, "with_format") and hasattr(given, "__getitem__"):
        with suppress(TypeError, NotImplementedError):  # a stream
            table = given.with_format("arrow")[:]
    if not isinstance(table, pa.Table):
        raise InputError(
            f"{argument}: expected a data set, an Arrow table or a dictionary of columns, got {type(given).__name__}"
        )
    return table


def _decoded(column: Any) -> Any:
    """The column without dictionary encoding."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _as_bools(found: Any, expected: int, name: str) -> BoolArray:
    """Convert a predicate's result to an array of bools."""
    got = ""
    if not isinstance(found, pa.Array | pa.ChunkedArray):
        array = np.asarray(found)
        if array.dtype == bool and array.shape == (expected,):
            return array
        if array.dtype == object:  # there may be None in it
            try:
                found = pa.array(array)
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                got = type(found).__name__
        else:
            got = f"an array of {array.dtype} with shape {array.shape}"
    if not got:
        if (pa.types.is_boolean(found.type) or pa.types.is_null(found.type)) and len(found) == expected:
            return np.asarray(pc.fill_null(found.cast(pa.bool_()), False).to_numpy(zero_copy_only=False))
        got = f"{len(found)} values of {found.type}"
    raise InputError(
        f"Where: the predicate of {name!r} returned {got} for {expected} candidates, expected one bool per candidate"
    )
