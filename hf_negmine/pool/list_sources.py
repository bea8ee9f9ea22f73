"""What users have of scored lists, opened: a scored list per query, and positives, by id; also in files of TREC."""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from hf_negmine.base.errors import ColumnError, InputError, require
from hf_negmine.base.schema import AnyArray, FloatArray, IdArray
from hf_negmine.data.checks import is_list, lengths_of, whole
from hf_negmine.data.sources import Rows, label_columns, table_batches
from hf_negmine.data.sources.columns import array_of
from hf_negmine.data.sources.files import BUILDERS, endings
from hf_negmine.data.sources.labels import Labels
from hf_negmine.pool.ids import stored_rows

LISTS_A_BATCH = 1024
"""Lists that are read at a time; they may have thousands of candidates each."""
QUERY, DOCUMENTS, SCORES = "query_id", "document_ids", "scores"
POSITIVES, POSITIVE_SCORES = "positive_ids", "positive_scores"
RUN_ENDINGS = (".trec", ".run", ".trec.gz", ".run.gz")
DATA_SETS = BUILDERS.keys() - {".txt"}
"""Endings of files that are data sets, rather than TREC relevance judgements."""
ENTRIES_A_TABLE = 2**20
Pairs: TypeAlias = tuple[pa.Array, pa.Array, FloatArray]


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
                lacking = [name for name in columns if name not in file.schema_arrow.names]
                require(not lacking, f"{path} lacks the columns {lacking}, which {self.paths[0].name} has; add them")
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


def open_lists(source: Any) -> ListSource:
    """Open scored lists; see `CandidatePool.from_lists`."""
    path = _path(source)
    if hasattr(source, "tables"):
        opened: ListSource = source
    elif path is not None and is_run(path.name):
        opened = RunFile(path)
    elif path is not None and path.suffix == ".parquet" and path.is_file():
        opened = ParquetLists((path,))
    elif _is_nested(source):
        table = {
            QUERY: array_of(list(source), "scores, query ids"),
            DOCUMENTS: array_of([list(one) for one in source.values()], "scores"),
            SCORES: array_of([list(one.values()) for one in source.values()], "scores"),
        }
        opened = ListRows(stored_rows(pa.table(table), "scores")[0])
    else:
        opened = ListRows(stored_rows(source, "scores")[0])
    for column in (QUERY, DOCUMENTS, SCORES):
        if column not in opened.column_names:
            raise ColumnError(column, opened.column_names, argument="scores")
    return opened


def positive_batches(source: Any, lists: ListSource) -> Iterator[Pairs]:
    """The ids of queries and of their positives in batches, with scores, NaN where none was given.

    See `CandidatePool.from_lists`.
    """
    path = _path(source)
    if source is None:
        require(
            POSITIVES in lists.column_names,
            f"positives: the lists have the columns {lists.column_names} and no {POSITIVES}; give positives=, such as "
            "{query id: [document id]}",
        )
        opened, code = lists, POSITIVES
    else:
        if path is not None and path.is_file() and endings(path.name)[0] not in DATA_SETS:
            source = read_qrels(path)
        elif isinstance(source, Mapping) and not (QUERY in source and {POSITIVES, "document_id"} & source.keys()):
            source = _table_of_positives(source)
        rows, code = stored_rows(source, "positives")
        opened = ListRows(rows)
    names = opened.column_names
    kept = [name for name in (QUERY, POSITIVES, "document_id", POSITIVE_SCORES, "positive_score") if name in names]
    if QUERY not in kept or not {POSITIVES, "document_id"} & set(kept):
        raise InputError(
            f"positives: expected the columns {QUERY} and {POSITIVES} (lists), or {QUERY} and document_id, got {names}"
        )
    return _labelled_pairs(opened, kept, [] if source is None else names, code)


def _labelled_pairs(opened: ListSource, columns: list[str], names: list[str], code: str) -> Iterator[Pairs]:
    """The pairs in these columns, or `InputError` if one of ``names`` labels some of them as not relevant."""
    positives = POSITIVES if POSITIVES in columns else "document_id"
    features = opened.rows.features if isinstance(opened, ListRows) else None
    labels = Labels.of([name for name in label_columns(names, QUERY, positives) if name != SCORES], features)
    for table in opened.tables([*columns, *labels.columns]):
        labels.add(table, positives)
        yield _pairs_of(table, positives == POSITIVES)
    labels.check(positives, code)


def _table_of_positives(source: Mapping[Any, Any]) -> pa.Table:
    columns = {
        QUERY: array_of(list(source), "positives, query ids"),
        POSITIVES: array_of([_listed(one) for one in source.values()], "positives"),
    }
    if not _is_nested(source):
        return pa.table(columns)
    scores = [list(one.values()) for one in source.values()]
    grades = next((one for some in scores for one in some if not isinstance(one, float | np.floating)), None)
    require(
        grades is None,
        f"positives: expected the teacher's scores as float, got {grades!r}, which looks like a relevance judgement; "
        "give lists of ids, such as {query id: [document id]}",
    )
    return pa.table({**columns, POSITIVE_SCORES: array_of(scores, "positives")})


def _listed(ids: Any) -> list[Any]:
    """The ids of one query's positives, which may be a single one."""
    return list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else [ids]


def _pairs_of(table: pa.Table, in_lists: bool) -> Pairs:
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
    return queries.take(pa.array(rows)), documents, scores


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
    require(is_list(lists.type), f"column {column!r} holds {str(lists.type)[:120]}, expected a list in every row")
    return pc.list_flatten(lists), lengths_of(lists)


def numbers_of(values: pa.Array, column: str) -> FloatArray:
    """Numbers as float32; a missing one is NaN, and one beyond the range of float32 infinite."""
    if not (pt.is_floating(values.type) or pt.is_integer(values.type) or pt.is_null(values.type)):
        raise InputError(f"column {column!r} holds {str(values.type)[:120]}, expected numbers")
    given: AnyArray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return given.astype(np.float32)


def _path(source: Any) -> Path | None:
    return Path(source).expanduser() if isinstance(source, str | os.PathLike) else None


def _is_nested(source: Any) -> bool:
    return isinstance(source, Mapping) and bool(source) and all(isinstance(one, Mapping) for one in source.values())


# ---- TREC ------------------------------------------------------------------------------------------------------------


def is_run(source: str) -> bool:
    """Whether this is the name of a TREC run."""
    return source.lower().endswith(RUN_ENDINGS)


@dataclass(frozen=True)
class RunFile:
    """A TREC run as a `ListSource`: lines of query id, Q0, document id, rank, score and tag; the rank is not read."""

    path: Path

    def __post_init__(self) -> None:
        require(self.path.is_file(), f"there is no file {self.path}")

    @property
    def column_names(self) -> list[str]:
        """The columns of a list."""
        return [QUERY, DOCUMENTS, SCORES]

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """See `ListSource`."""
        lines = _lines(self.path, 6, "query id, Q0, document id, rank, score and tag")
        entries = ((fields[0], fields[2], _number(self.path, number, fields[4])) for number, fields in lines)
        lists: list[tuple[Any, ...]] = []
        size = 0
        for query, some in itertools.groupby(entries, key=lambda entry: entry[0]):
            _, documents, scores = zip(*some, strict=True)
            lists.append((query, documents, scores))
            size += len(documents)
            if size >= ENTRIES_A_TABLE:
                yield _table_of(lists).select(columns)
                lists, size = [], 0
        if lists:
            yield _table_of(lists).select(columns)


def _table_of(lists: list[tuple[Any, ...]]) -> pa.Table:
    kinds = pa.large_string(), pa.large_list(pa.large_string()), pa.large_list(pa.float64())
    columns = [pa.array(column, kind) for column, kind in zip(zip(*lists, strict=True), kinds, strict=True)]
    return pa.table(columns, names=[QUERY, DOCUMENTS, SCORES])


def read_qrels(path: str | Path) -> pa.Table:
    """The pairs judged relevant (over 0) in TREC judgements: lines of query id, iteration, document id and grade."""
    file = Path(os.path.expanduser(path))
    require(file.is_file(), f"qrels: there is no file {path}")
    queries, documents = [], []
    for number, fields in _lines(file, 4, "query id, iteration, document id and grade"):
        if _number(file, number, fields[3]) > 0:
            queries.append(fields[0])
            documents.append(fields[2])
    require(bool(queries), f"qrels: {path} has no judgement over 0")
    return pa.table({QUERY: queries, "document_id": documents})


def _lines(path: Path, count: int, expected: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of every line that is not blank, each with its number."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            for number, line in enumerate(file, 1):
                fields = line.decode("utf-8-sig").split()  # a byte order mark is no text
                if fields and len(fields) != count:
                    raise InputError(f"{path}: line {number} has {len(fields)} fields, expected {count}: {expected}")
                if fields:
                    yield number, fields
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} could not be read: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start} of a line)") from error


def _number(path: Path, line: int, text: str) -> float:
    try:
        if "_" not in text and not np.isnan(number := float(text)):  # Python reads 1_0 as 10
            return number
    except ValueError:
        pass
    raise InputError(f"{path}: line {line} has {text!r}, expected a number")
