"""A candidate pool as scored lists: three tables that `sentence_transformers.util.resolve_ids` joins, or a TREC run.

A list is the known top of its query's ranking, with the positives where their scores put them. Ids are the user's, or
positions among the queries and in the corpus.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.ragged import flat_positions, offsets_of_counts, offsets_of_rows, runs
from hf_negmine.data.checks import TEXTS_A_BATCH
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.pool.ids import POSITIONS, SPACE, Ids, require_fields, taken
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

ENTRIES_A_STEP = 2**20
SCHEMA = pa.schema(
    [
        ("query_id", pa.int64()),
        ("document_ids", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float32())),
        ("positive_ids", pa.list_(pa.int64())),
    ]
)
CARD = """---
configs:
- config_name: queries
  data_files: queries.parquet
- config_name: documents
  data_files: documents.parquet
- config_name: scores
  data_files: scores.parquet
---
"""
"""With it, `load_dataset(folder, "scores")` works as it does for such a data set on the Hub."""


def list_tables(lists: CandidateLists, positives: Positives, ids: Ids = POSITIONS) -> Iterator[pa.Table]:
    """The lists of all queries, in batches of `SCHEMA`, in which other ids may have another type."""
    tops = lists.tops()
    entries = offsets_of_counts(tops.stops - tops.starts) + positives.offsets
    for first, last in runs(entries, ENTRIES_A_STEP):
        yield _table(tops, positives, ids, first, last)


def _table(tops: CandidateLists, positives: Positives, ids: Ids, first: int, last: int) -> pa.Table:
    queries = np.arange(first, last)
    starts = tops.starts[first:last]
    entries, query = flat_positions(starts, tops.stops[first:last] - starts)
    offsets = positives.offsets[first : last + 1]
    labelled = slice(offsets[0], offsets[-1])
    query = np.concatenate([query, np.repeat(queries - first, np.diff(offsets))])
    passages = np.concatenate([tops.passages[entries], positives.ids[labelled]])
    scores = np.concatenate([tops.scores[entries], positives.scores[labelled]])
    order = np.lexsort((passages, -scores, query))
    query, passages, scores = query[order], passages[order], scores[order]
    again = np.append(False, (passages[1:] == passages[:-1]) & (query[1:] == query[:-1]))  # positives are candidates
    bounds = offsets_of_rows(query[~again], len(queries)).astype(np.int32)
    of_positives = (offsets - offsets[0]).astype(np.int32)
    columns = [
        taken(ids.queries, queries),
        pa.ListArray.from_arrays(bounds, taken(ids.documents, passages[~again])),
        pa.ListArray.from_arrays(bounds, scores[~again]),
        pa.ListArray.from_arrays(of_positives, taken(ids.documents, positives.ids[labelled])),
    ]
    return pa.table(columns, names=SCHEMA.names)


def write_list_tables(folder: Path, texts: TextSet, lists: CandidateLists, positives: Positives, ids: Ids) -> None:
    """Write the three tables as Parquet, each whole or not at all."""
    _write_table(folder / "queries.parquet", _text_tables("query", texts.queries, ids.queries))
    _write_table(folder / "documents.parquet", _text_tables("document", texts.corpus, ids.documents))
    _write_table(folder / "scores.parquet", list_tables(lists, positives, ids))
    with finish_or_nothing(folder / "README.md") as file:
        file.write(CARD.encode())


def _text_tables(name: str, texts: TextColumn, ids: pa.Array | None) -> Iterator[pa.Table]:
    for start in range(0, max(len(texts), 1), TEXTS_A_BATCH):
        some = np.arange(start, min(start + TEXTS_A_BATCH, len(texts)))
        yield pa.table([taken(ids, some), texts.take(some)], names=[f"{name}_id", name])


def _write_table(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with finish_or_nothing(path) as file, pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def write_run(path: Path, lists: CandidateLists, positives: Positives, tag: str, ids: Ids) -> None:
    """Write the lists as a TREC run, compressed if the path ends in ``.gz``."""
    if not tag or len(tag.split()) != 1:
        raise InputError(f"tag: expected a word without spaces, got {tag!r}")
    with _fields_of_trec(path, ids, "a run") as file:
        for table in list_tables(lists, positives, ids):
            for query, documents, scores in zip(*(table[name] for name in SCHEMA.names[:3]), strict=True):
                values = np.asarray(scores.values)  # float32, which print as the shortest text that is read as the same
                lines = (
                    f"{query} Q0 {document} {rank} {score} {tag}\n"
                    for rank, (document, score) in enumerate(zip(documents.values.to_pylist(), values, strict=True), 1)
                )
                file.write("".join(lines).encode())


def write_qrels(path: Path, positives: Positives, ids: Ids) -> None:
    """Write the positives as TREC relevance judgements, compressed if the path ends in ``.gz``."""
    queries, documents = taken(ids.queries, positives.query_of_pair), taken(ids.documents, positives.ids)
    with _fields_of_trec(path, ids, "judgements") as file:
        for query, document in zip(queries.to_pylist(), documents.to_pylist(), strict=True):
            file.write(f"{query} 0 {document} 1\n".encode())


@contextmanager
def _fields_of_trec(path: Path, ids: Ids, what: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """A file for lines of fields, of which some are ids."""
    require_fields(ids, SPACE, what)
    with finish_or_nothing(path) as raw:
        if path.suffix != ".gz":
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
            yield file
