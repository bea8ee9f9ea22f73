"""Scored lists in files: three tables that `sentence_transformers.util.resolve_ids` joins, and TREC runs."""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import ColumnError, InputError, require
from hf_negmine.data.sources import open_rows, read_beir_texts, read_judgements
from hf_negmine.data.sources.files import BUILDERS, endings, open_shards
from hf_negmine.pool.list_sources import DOCUMENTS, QUERY, SCORES, ParquetLists
from hf_negmine.select.judgements import Judgements

TABLES = ("queries", "documents", "scores")
RUN_ENDINGS = (".trec", ".run", ".trec.gz", ".run.gz")
DATA_SETS = BUILDERS.keys() - {".txt"}
"""Endings of files that are data sets, rather than TREC relevance judgements."""
ENTRIES_A_TABLE = 2**20


@dataclass(frozen=True)
class GivenLists:
    """The arguments of `CandidatePool.from_lists`."""

    queries: Any
    documents: Any
    scores: Any
    positives: Any


def open_lists_at(
    source: str,
    *,
    rows: str | None = None,
    corpus: str | None = None,
    qrels: str | None = None,
    split: str | None = None,
) -> GivenLists:
    """Open scored lists in a folder, on the Hub or in a TREC run.

    Args:
        source: candidates that were scored elsewhere: a folder or a data set id on the Hub with the tables or configs
            ``queries``, ``documents`` and ``scores``, or a TREC run (``.trec`` or ``.run``, or these with ``.gz``).
        rows: for a run, the BEIR folder with its texts, or a file of queries with ids.
        corpus: for a run and a file of queries, the file of passages with ids.
        qrels: TREC relevance judgements of the positives; None takes those of the BEIR folder, or the column
            ``positive_ids`` of the scores.
        split: the split of the tables on the Hub, or of the BEIR folder's judgements; None takes the only one, or
            ``train``.

    Raises:
        InputError: something is missing, given twice, or cannot be read.
    """
    judged = None if qrels is None else read_qrels(qrels)
    if not is_run(source):
        require(
            rows is None and corpus is None,
            f"{source} has its own queries and documents; leave out the rows and --corpus",
        )
        queries, documents, scores = (_table(source, name, split) for name in TABLES)
        return GivenLists(queries, documents, scores, judged)
    run = RunFile(Path(source).expanduser())
    if rows is None:
        raise InputError(f"{source}: a run has only ids; give the BEIR folder, or the file of queries, that it ranks")
    if not os.path.isdir(rows):
        require(corpus is not None, f"{source}: a run has only ids; give --corpus, the file of passages with their ids")
        require(judged is not None, f"{source}: a run does not say which passages are positives; give --qrels")
        require(split is None, f"split: {split!r}, but --qrels has no splits; leave it out")
        return GivenLists(rows, corpus, run, judged)
    require(corpus is None, f"--corpus: {rows} has its own; leave it out")
    require(judged is None or split is None, f"split: {split!r}, but --qrels has no splits; leave it out")
    if judged is None:
        columns = read_judgements(Path(rows), split, "train")
        judged = pa.table(list(columns), names=[QUERY, "document_id"])
    return GivenLists(rows, rows, run, judged)


def is_run(source: str) -> bool:
    """Whether this is the name of a TREC run."""
    return source.lower().endswith(RUN_ENDINGS)


def run_at(source: Any) -> Any:
    """The lists of a run, if this is the path of one; anything else unchanged."""
    return RunFile(Path(source).expanduser()) if _is_path(source) and is_run(str(source)) else source


def qrels_at(source: Any) -> Any:
    """The positives of TREC relevance judgements, if this is the path of a file that is no data set by its name."""
    is_file = _is_path(source) and Path(source).expanduser().is_file()
    return read_qrels(source) if is_file and endings(str(source))[0] not in DATA_SETS else source


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)


def _table(source: str, name: str, split: str | None) -> Any:
    """One of the three tables, from a folder or the Hub."""
    folder = Path(os.path.expanduser(source))
    if folder.is_dir():
        require(split is None, f"split: {split!r}, but {source} is a folder without splits; leave it out")
        files = [folder / f"{name}{ending}" for ending in (".parquet", ".jsonl")]
        found = next((file for file in files if file.is_file()), None)
        if found is not None:
            return found
        shards = sorted(folder.glob(f"{name}/*.parquet")) + sorted(folder.glob(f"{name}-*.parquet"))
        require(bool(shards), f"{source} lacks {name}.parquet, and a folder {name} of Parquet files")
        return ParquetLists(tuple(shards)) if name == "scores" else open_shards(shards)
    require(not folder.exists(), f"{source} is a file; a run is named {' or '.join(RUN_ENDINGS)}")
    return open_rows(source, config_name=name, split=split).rows


# ---- TREC ------------------------------------------------------------------------------------------------------------


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
        """See `list_sources.ListSource`."""
        if unknown := set(columns) - set(self.column_names):
            raise ColumnError(min(unknown), self.column_names, argument=str(self.path))
        lists = ((query, list(lines)) for query, lines in itertools.groupby(self._entries(), key=lambda one: one[0]))
        some: list[tuple[str, list[tuple[str, str, float]]]] = []
        size = 0
        for one in lists:
            some.append(one)
            size += len(one[1])
            if size >= ENTRIES_A_TABLE:
                yield _table_of(some).select(columns)
                some, size = [], 0
        if some:
            yield _table_of(some).select(columns)

    def _entries(self) -> Iterator[tuple[str, str, float]]:
        for number, fields in _lines(self.path, 6, "query id, Q0, document id, rank, score and tag"):
            yield fields[0], fields[2], _number(self.path, number, fields[4])


def _table_of(lists: list[tuple[str, list[tuple[str, str, float]]]]) -> pa.Table:
    return pa.table(
        {
            QUERY: pa.array([query for query, _ in lists], pa.large_string()),
            DOCUMENTS: pa.array(
                [[document for _, document, _ in entries] for _, entries in lists], pa.large_list(pa.large_string())
            ),
            SCORES: pa.array([[score for *_, score in entries] for _, entries in lists], pa.large_list(pa.float64())),
        }
    )


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


def judgements_of_qrels(folder: str, path: str | Path) -> Judgements:
    """TREC judgements with the ids of a BEIR folder; what they do not call relevant to their queries is not relevant.

    Raises:
        InputError: the folder or the judgements cannot be read, or no id is one of the folder's.
    """
    require(os.path.isdir(folder), f"qrels: {folder} is not a BEIR folder, which would hold the texts of the ids")
    judged = read_qrels(path)
    texts = {}
    for name, column in (("queries", QUERY), ("corpus", "document_id")):
        ids, of_ids = read_beir_texts(Path(folder), name)
        texts[name] = of_ids.take(pc.index_in(judged[column], value_set=ids)).to_pylist()
    pairs = zip(texts["queries"], texts["corpus"], strict=True)
    rows = [{"query": one, "document": two, "relevant": True} for one, two in pairs if one and two]
    require(bool(rows), f"qrels: {path} judges no query and passage of {folder}; give judgements with its ids")
    return Judgements(rows, complete=True)


def _lines(path: Path, count: int, expected: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of every line that is not blank, each with its number."""
    with _opened(path) as file:
        try:
            for number, line in enumerate(file, 1):
                fields = line.decode().split()
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
        if "_" not in text:  # Python reads 1_0 as 10
            return float(text)
    except ValueError:
        pass
    raise InputError(f"{path}: line {line} has {text!r}, expected a number")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        yield file  # type: ignore[misc]
