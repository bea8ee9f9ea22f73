"""Scored lists as commands name them: three tables that `sentence_transformers.util.resolve_ids` joins, or a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError, require
from hf_negmine.data.sources import open_rows, read_beir_texts, read_judgements
from hf_negmine.data.sources.files import open_shards
from hf_negmine.pool.list_sources import QUERY, RUN_ENDINGS, ParquetLists, RunFile, is_run, read_qrels
from hf_negmine.select.judgements import Judgements

TABLES = ("queries", "documents", "scores")


def open_lists_at(
    source: str,
    *,
    rows: str | None = None,
    corpus: str | None = None,
    qrels: str | None = None,
    split: str | None = None,
) -> tuple[Any, Any, Any, pa.Table | None]:
    """Open scored lists in a folder, on the Hub or in a TREC run, as the first arguments of `CandidatePool.from_lists`.

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
        queries, documents, scores = (_table(source, name, split) for name in TABLES)  # first: it may not be there
        require(
            rows is None and corpus is None,
            f"{source} has its own queries and documents; leave out the rows and --corpus",
        )
        return queries, documents, scores, judged
    run = RunFile(Path(source).expanduser())
    if rows is None:
        raise InputError(f"{source}: a run has only ids; give the BEIR folder, or the file of queries, that it ranks")
    if not os.path.isdir(rows):
        require(corpus is not None, f"{source}: a run has only ids; give --corpus, the file of passages with their ids")
        require(judged is not None, f"{source}: a run does not say which passages are positives; give --qrels")
        require(split is None, f"split: {split!r}, but --qrels has no splits; leave it out")
        return rows, corpus, run, judged
    require(corpus is None, f"--corpus: {rows} has its own; leave it out")
    require(judged is None or split is None, f"split: {split!r}, but --qrels has no splits; leave it out")
    if judged is None:
        columns = read_judgements(Path(rows), split, "train")
        judged = pa.table(list(columns), names=[QUERY, "document_id"])
    return rows, rows, run, judged


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
