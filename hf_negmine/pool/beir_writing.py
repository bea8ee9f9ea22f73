"""BEIR folders: a pool's negatives as judgements of 0, and a data set cut down to what several runs rank high."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import StorageError, require, require_whole
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.paths import folder_of
from hf_negmine.base.schema import AnyArray, BoolArray, IdArray
from hf_negmine.data.checks import TEXTS_A_BATCH, whole
from hf_negmine.data.sources import read_beir_table, read_qrels_table
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.data.writing import in_memory
from hf_negmine.pool.ids import IdIndex, Ids, require_fields, taken
from hf_negmine.pool.list_sources import (
    DOCUMENTS,
    QUERY,
    SCORES,
    flat_lists,
    numbers_of,
    open_lists,
    require_same_lengths,
)

QRELS = ("query-id", "corpus-id", "score")
SEPARATORS = r"[\t\r\n]"
ROWS_A_STEP = 2**20
CARD = """---
configs:
- config_name: corpus
  data_files: corpus.jsonl
- config_name: queries
  data_files: queries.jsonl
- config_name: default
  data_files:
  - split: {split}
    path: qrels/{split}.jsonl
---
"""
"""With it, mteb and `load_dataset` read the folder as they do such a data set on the Hub."""


def write_beir(
    folder: Path, texts: TextSet, ids: Ids, split: str, judged: Sequence[tuple[IdArray, AnyArray, int]]
) -> None:
    """Write texts and judgements, each file whole or not at all; see `CandidatePool.to_beir`.

    ``judged`` are query ids, passage ids, and the score of each of these pairs.
    """
    require(
        isinstance(split, str) and re.fullmatch(r"\w[\w.-]*", split) is not None,
        f"split: expected a name of letters, digits, '_', '-' and '.', got {split!r}",
    )
    require_fields(ids, SEPARATORS, "a TSV file")
    there = [name for name in ("corpus.jsonl", "queries.jsonl", "qrels") if (folder / name).exists()]
    if there:
        raise StorageError(f"{folder} holds {there[0]} already, so nothing was written; give another folder")
    _write_texts(folder / "corpus.jsonl", texts.corpus, ids.documents, {"title": ""})
    _write_texts(folder / "queries.jsonl", texts.queries, ids.queries, {})
    queries, passages = (np.concatenate([one[column] for one in judged]) for column in (0, 1))
    scores = np.repeat([score for *_, score in judged], [len(one) for one, *_ in judged])
    order = np.argsort(queries, kind="stable")
    columns = taken(ids.queries, queries[order]), taken(ids.documents, passages[order]), pa.array(scores[order])
    _write_qrels(folder, split, columns)


def write_hard_subset(
    source: Path | str, runs: Iterable[Any], folder: Path | str, *, top_k: int = 250, split: str | None = None
) -> Path:
    """Write a BEIR folder with the passages that are hard for several systems, to evaluate on less.

    This is how the ``…HardNegatives`` tasks of mteb were made: the corpus is cut down to the positives and the
    ``top_k`` best passages of each query in any of the runs. The queries that have positives and their judgements
    stay, except those of passages that are gone; rows keep all their columns.

    Args:
        source: a BEIR folder: ``corpus``, ``queries`` and ``qrels``.
        runs: TREC runs (``.trec`` or ``.run``, or these with ``.gz``), or lists as `CandidatePool.from_lists` takes
            them, with the ids of the folder. Mteb has pooled BM25, a small and a large model.
        folder: where it is written; an earlier one is replaced file by file.
        top_k: passages per query and run. Of equal scores the first ones count.
        split: the split of the judgements; None takes the only one, or ``test``.

    Returns:
        The folder.

    Raises:
        InputError: an id of a run is not in the corpus, a run has none of the queries, or something cannot be read.
        StorageError: the folder cannot be written to.
    """
    require_whole(top_k, "top_k", at_least=1)
    runs = [runs] if isinstance(runs, str | Path) else list(runs)
    require(len(runs) > 0, "runs: there is none, expected the runs of one system or more")
    source, folder = folder_of(source, "source"), folder_of(folder, "folder")
    require(source.resolve() != folder.resolve(), f"folder: {folder} is the source; give another one")
    split, qrels = read_qrels_table(source, split, "test")
    (corpus, passage_ids), (queries, query_ids) = (read_beir_table(source, name) for name in ("corpus", "queries"))
    passages, asked = IdIndex(passage_ids, f"{source}: corpus"), IdIndex(query_ids, f"{source}: queries")
    query, passage, score = (whole(qrels[name]) for name in QRELS)
    relevant = pc.greater(score, 0)
    wanted, kept = np.zeros(len(asked), dtype=bool), np.zeros(len(passages), dtype=bool)
    wanted[asked.require(query.filter(relevant), "qrels")] = True
    kept[passages.require(passage.filter(relevant), "qrels")] = True
    require(bool(wanted.any()), f"{source} has no judgement with a score over 0")
    for place, run in enumerate(runs):
        kept[_best(run, asked, passages, wanted, top_k, f"runs[{place}]")] = True
    stays = _holds(wanted, asked.find(query, "qrels")) & _holds(kept, passages.find(passage, "qrels"))
    _write_rows(folder / "corpus.jsonl", corpus.filter(pa.array(kept)))
    _write_rows(folder / "queries.jsonl", queries.filter(pa.array(wanted)))
    _write_qrels(folder, split, [one.filter(pa.array(stays)) for one in (query, passage, score)])
    return folder


def _best(run: Any, asked: IdIndex, passages: IdIndex, wanted: BoolArray, top_k: int, what: str) -> IdArray:
    """The rows of the best passages of the wanted queries in a run."""
    parts: list[tuple[AnyArray, ...]] = [(np.empty(0, dtype=np.int64),) * 3]
    for table in open_lists(run).tables([QUERY, DOCUMENTS, SCORES]):
        rows = asked.find(whole(table[QUERY]), what)
        documents, lengths = flat_lists(whole(table[DOCUMENTS]), DOCUMENTS)
        values, of_scores = flat_lists(whole(table[SCORES]), SCORES)
        require_same_lengths(whole(table[QUERY]), lengths, of_scores, f"{what}: {DOCUMENTS}", SCORES)
        scores = numbers_of(values, SCORES)
        require(bool(np.isfinite(scores).all()), f"{what}: a score is not a finite number; give a score for each id")
        of_query = np.repeat(rows, lengths)
        some = np.flatnonzero(_holds(wanted, of_query))
        found = passages.require(documents.take(pa.array(some)), what)
        parts.append((of_query[some], found, scores[some]))
    query, passage, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    require(len(query) > 0, f"{what}: it has none of the {int(wanted.sum()):,} queries that have a positive")
    order = np.lexsort((-score, query))
    _, first = np.unique((query * len(passages) + passage)[order], return_index=True)
    order = order[np.sort(first)]  # each passage once, however often a list names it
    query, passage = query[order], passage[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    return np.asarray(passage[rank < top_k])


def _holds(chosen: BoolArray, rows: IdArray) -> BoolArray:
    """Which rows are chosen; -1 is none."""
    return np.asarray((rows >= 0) & chosen[rows])


def _write_texts(path: Path, texts: TextColumn, ids: pa.Array | None, more: dict[str, str]) -> None:
    with finish_or_nothing(path) as file:
        for start in range(0, len(texts), TEXTS_A_BATCH):
            some = np.arange(start, min(start + TEXTS_A_BATCH, len(texts)))
            pairs = zip(taken(ids, some).to_pylist(), texts.take(some).to_pylist(), strict=True)
            lines = [json.dumps({"_id": str(name), **more, "text": text}, ensure_ascii=False) for name, text in pairs]
            file.write("".join(f"{line}\n" for line in lines).encode())


def _write_rows(path: Path, rows: pa.Table) -> None:
    with finish_or_nothing(path) as file:
        in_memory(rows).to_json(file, force_ascii=False)


def _write_qrels(folder: Path, split: str, columns: Sequence[pa.Array]) -> None:
    """Write the judgements, for readers of BEIR folders and as lines for mteb, and the card that names the files."""
    with finish_or_nothing(folder / "qrels" / f"{split}.jsonl") as file:
        in_memory(pa.table(list(columns), names=QRELS)).to_json(file)
    with finish_or_nothing(folder / "qrels" / f"{split}.tsv") as file:
        file.write(("\t".join(QRELS) + "\n").encode())
        for start in range(0, len(columns[0]), ROWS_A_STEP):
            some = zip(*(one[start : start + ROWS_A_STEP].to_pylist() for one in columns), strict=True)
            file.write("".join(f"{query}\t{passage}\t{score:g}\n" for query, passage, score in some).encode())
    with finish_or_nothing(folder / "README.md") as file:
        file.write(CARD.format(split=split).encode())
