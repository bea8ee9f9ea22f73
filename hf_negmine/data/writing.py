"""Mined rows as a data set: features, lookup tables, and an Arrow file written in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter

from hf_negmine.base.files import digest_of, finish_or_nothing
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.data.formats.cells import elements_of, texts_of_elements
from hf_negmine.data.formats.lists import NegativeLists, with_column
from hf_negmine.data.layouts import Layout, Written, write_rows
from hf_negmine.data.pairs import RowNegatives
from hf_negmine.data.texts import TextColumn, TextSet

ROWS_A_STEP = 8192


def mined_features(features: datasets.Features, layout: Layout) -> datasets.Features:
    """The features of the result, derived from those of the rows."""
    kept = {name: kind for name, kind in features.items() if name not in layout.replaced_columns}
    new = {
        name: datasets.Features.from_arrow_schema(pa.schema([(name, kind)]))
        for name, kind in layout.new_columns.items()
        if name not in layout.filled_columns or name not in kept
    }
    return datasets.Features({**kept, **{name: feature[name] for name, feature in new.items()}})


def features_in_format(features: datasets.Features, layout: Layout, row_format: NegativeLists) -> datasets.Features:
    """The features of the result in the format that the rows have, too."""
    none = np.empty(0, dtype=np.int64)
    empty = Written(none, {name: pa.array([], kind) for name, kind in layout.new_columns.items()})
    schema = in_format(features.arrow_schema.empty_table(), empty, layout, row_format).schema
    made = datasets.Features.from_arrow_schema(schema)
    own = features.arrow_schema
    same = [name for name in made if name in features and own.field(name).type == schema.field(name).type]
    return datasets.Features({**made, **{name: features[name] for name in same}})


def in_format(table: pa.Table, written: Written, layout: Layout, row_format: NegativeLists) -> pa.Table:
    """The written rows of a batch in the format that it has, with what it says about its positives."""
    tool, columns = layout.tool, dict(written.columns)
    assert tool is not None
    table = table.take(pa.array(written.rows))
    positives, of_row = elements_of(columns.pop(tool.positive))
    table = row_format.with_positives(table, texts_of_elements(positives, tool.positive), of_row)
    negatives, of_row = elements_of(columns.pop(tool.negatives[0]))
    table = row_format.with_negatives(table, texts_of_elements(negatives, tool.negatives[0]), of_row)
    for name, column in columns.items():
        if name not in table.column_names or name in (*tool.of_positives, *tool.of_negatives):
            table = with_column(table, name, column)
    return table


def with_columns(table: pa.Table, written: Written, layout: Layout) -> pa.Table:
    """The written rows of a batch, with their new columns."""
    table = table.take(pa.array(written.rows))
    table = table.drop_columns([name for name in layout.replaced_columns if name in table.column_names])
    for name, column in written.columns.items():
        if name not in table.column_names or name not in layout.filled_columns:
            table = with_column(table, name, column)
    return table


def write_dataset(path: Path, tables: Iterator[pa.Table], features: datasets.Features) -> datasets.Dataset:
    """Write tables into one Arrow file, whole or not at all, and open it by memory map."""
    with (
        finish_or_nothing(path) as file,
        ArrowWriter(stream=pa.PythonFile(file, mode="w"), features=features) as writer,
    ):
        for table in tables:
            writer.write_table(table.select(list(features)))
        writer.finalize(close_stream=False)
    return datasets.Dataset.from_file(str(path))


def in_memory(table: pa.Table) -> datasets.Dataset:
    """A data set made from a table, fingerprinted by its content; datasets would pickle the whole table for that."""
    content = hashlib.blake2b(table.schema.serialize(), digest_size=16)
    for batch in table.to_batches(max_chunksize=ROWS_A_STEP):
        content.update(batch.serialize())
    return datasets.Dataset(table, fingerprint=content.hexdigest())


def dataset_of(found: RowNegatives, corpus: TextColumn, layout: Layout) -> datasets.Dataset:
    """Rows with their negatives as a data set in memory."""
    table = pa.table({layout.query_column: found.queries.cast(pa.string())})
    if layout.format == "ids":  # the columns that the format replaces have to be there first
        table = table.append_column(layout.positive_column, pa.nulls(len(table), pa.string()))
    return in_memory(with_columns(table, write_rows(found, corpus, layout), layout))


def labeled_pairs(texts: TextSet, query_column: str, positive_column: str) -> datasets.Dataset:
    """The texts of every labeled (query, positive) pair, as a data set in memory."""
    queries = np.repeat(np.arange(len(texts.queries)), np.diff(texts.positive_offsets))
    columns = [texts.queries.take(queries), texts.corpus.take(texts.positive_ids)]
    return in_memory(pa.table(columns, names=[query_column, positive_column]))


def scored_positives(texts: TextSet, queries: IdArray, passages: IdArray, scores: FloatArray) -> datasets.Dataset:
    """Pairs of ids and their scores as a data set in memory: texts ``query`` and ``positive``, and ``score``."""
    columns = [texts.queries.take(queries), texts.corpus.take(passages), np.asarray(scores)]
    return in_memory(pa.table(columns, names=["query", "positive", "score"]))


def lookup_table(id_name: str, text_name: str, texts: TextColumn) -> datasets.Dataset:
    """A data set of texts under their ids, which count from 0."""
    table = pa.table({id_name: np.arange(len(texts)), text_name: texts.texts})
    return datasets.Dataset(table, fingerprint=digest_of("lookup", id_name, text_name, texts.digests))
