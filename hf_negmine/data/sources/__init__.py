"""Opening what users have, as rows and a corpus: data sets, tables, files, addresses, Hub ids and BEIR folders."""

from __future__ import annotations

from hf_negmine.data.sources.beir import (
    find_texts,
    is_beir,
    open_beir,
    open_judged_beir,
    read_beir_table,
    read_beir_texts,
    read_judgements,
    read_qrels_table,
)
from hf_negmine.data.sources.columns import (
    OpenedRows,
    Rows,
    choose_columns,
    choose_split,
    pair_batches,
    table_batches,
    table_of,
    table_of_batch,
    take_rows,
)
from hf_negmine.data.sources.corpora import CorpusSource, OpenedCorpus, open_corpus
from hf_negmine.data.sources.files import open_file
from hf_negmine.data.sources.labels import check_classes, check_labels, label_columns
from hf_negmine.data.sources.reading import Reading, find_format
from hf_negmine.data.sources.rows import RowSource, open_rows

__all__ = [
    "CorpusSource",
    "OpenedCorpus",
    "OpenedRows",
    "Reading",
    "RowSource",
    "Rows",
    "check_classes",
    "check_labels",
    "choose_columns",
    "choose_split",
    "find_format",
    "find_texts",
    "is_beir",
    "label_columns",
    "open_beir",
    "open_corpus",
    "open_file",
    "open_judged_beir",
    "open_rows",
    "pair_batches",
    "read_beir_table",
    "read_beir_texts",
    "read_judgements",
    "read_qrels_table",
    "table_batches",
    "table_of",
    "table_of_batch",
    "take_rows",
]
