"""How many mined negatives are positives that the labels lack, by method and teacher.

Two data sets have many judged positives per query. One of them is kept as the label (the first of the qrels), the
others are hidden: a mined negative that is one of the hidden ones is certainly a false negative.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from common import dense_teacher, for_each_set, print_table

from hf_negmine import BM25Teacher, CandidatePool, NegativeMiner, RandomTeacher, Selection, VectorTeacher
from hf_negmine.base.files import text_digests
from hf_negmine.data.sources import open_rows
from hf_negmine.data.texts import TextSet, open_text_set
from hf_negmine.teachers.vector_store import VectorStore

SPLITS = {"vaswani": ("test",), "nfcorpus": ("train", "dev", "test")}
NEGATIVES = 4
SAMPLINGS = 5
METHODS = (
    ("naive", "top"),
    ("shifted:10", "top"),
    ("abs:0.7", "top"),
    ("margin_pos:0.05", "top"),
    ("perc_pos:0.95", "top"),
    ("perc_pos:0.95", "sampled:10"),
    ("perc_pos:0.95", "top1_sampled:10"),
    ("band:30-100", "sampled:70"),
)


@dataclass(frozen=True)
class Judged:
    """A data set with one positive per query left as its label."""

    rows: datasets.Dataset
    corpus: pa.ChunkedArray
    hidden: dict[str, set[str]]


def open_judged(folder: Path, splits: tuple[str, ...]) -> Judged:
    """Queries with at least two judged positives; the first is the label, the others are hidden."""
    positives: dict[str, list[str]] = {}
    for split in splits:
        opened = open_rows(folder, split=split)
        for row in opened.rows:
            positives.setdefault(row["query"], []).append(row["positive"])
    assert opened.corpus is not None
    distinct = {query: list(dict.fromkeys(texts)) for query, texts in positives.items()}
    distinct = {query: texts for query, texts in distinct.items() if len(texts) > 1}
    rows = datasets.Dataset.from_dict({"query": list(distinct), "positive": [texts[0] for texts in distinct.values()]})
    return Judged(rows, opened.corpus, {query: set(texts[1:]) for query, texts in distinct.items()})


class HiddenPositives:
    """The hidden positives as ids of a `TextSet`."""

    def __init__(self, judged: Judged, texts: TextSet) -> None:
        self.n_passages = len(texts.corpus)
        queries = texts.queries.find(_digests(list(judged.hidden)))
        keys = [
            query * self.n_passages + texts.corpus.find(_digests(list(hidden)))
            for query, hidden in zip(queries, judged.hidden.values(), strict=True)
        ]
        self._keys = np.concatenate(keys)

    def among(self, queries: np.ndarray[Any, Any], passages: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Whether each (query, passage) pair is a hidden positive."""
        return np.isin(queries * self.n_passages + passages, self._keys)

    def share(self, queries: np.ndarray[Any, Any], passages: np.ndarray[Any, Any]) -> float:
        """Share of (query, passage) pairs that are hidden positives."""
        return float(self.among(queries, passages).mean())


def _digests(texts: list[str]) -> Any:
    return text_digests(pa.array(texts, type=pa.large_string()))


def pair_scores(teacher: VectorTeacher, texts: TextSet, cache: Path, queries: Any, passages: Any) -> Any:
    """Similarity of each (query, passage) pair under a dense teacher whose vectors are stored."""
    store = VectorStore(cache, progress=False)
    query_vectors = store.vectors(teacher, texts.queries, "query").gather(queries)
    passage_vectors = store.vectors(teacher, texts.corpus, "passage").gather(passages)
    return np.einsum("ij,ij->i", query_vectors, passage_vectors)


def measure(pool: CandidatePool, method: str, sampler: str, hidden: HiddenPositives, dense: Any) -> list[str]:
    """One row of the table; random draws are averaged over several seeds."""
    shares, own, common, complete = [], [], [], []
    for seed in range(SAMPLINGS if "sampled" in sampler else 1):
        selection: Selection = pool.select(method, sampler, NEGATIVES, seed=seed)
        queries = np.repeat(np.arange(len(selection.counts)), selection.counts)
        complete.append(selection.complete.mean())
        if len(queries):
            shares.append(hidden.share(queries, selection.passages))
            own.append(selection.scores.mean())
            common.append(dense(queries, selection.passages).mean())
    words = f"{method}, {sampler}" if sampler != "top" else method
    if not shares:
        return [words, "-", "-", "-", "0 %"]
    cells = [f"{100 * np.mean(shares):.1f} %", f"{np.mean(own):.3f}", f"{np.mean(common):.3f}"]
    return [words, *cells, f"{100 * np.mean(complete):.1f} %"]


def run(name: str, arguments: argparse.Namespace, cache: Path) -> None:
    judged = open_judged(arguments.data / name, SPLITS[name])
    mean_hidden = np.mean([len(hidden) for hidden in judged.hidden.values()])
    print(
        f"### {name}: {len(judged.rows):,} queries, {len(judged.corpus):,} passages, {mean_hidden:.1f} hidden "
        "positives per query\n"
    )
    minilm = dense_teacher(arguments)
    for teacher in (minilm, BM25Teacher(), RandomTeacher()):
        miner = NegativeMiner(teacher, num_negatives=NEGATIVES, cache_dir=cache, device="cpu", on_exhausted="keep")
        miner.fit(judged.rows, corpus=judged.corpus)
        texts = open_text_set(cache / "texts" / miner.pool.about["texts"])
        hidden = HiddenPositives(judged, texts)

        def dense(queries: Any, passages: Any, texts: TextSet = texts) -> Any:
            return pair_scores(minilm, texts, cache, queries, passages)

        positive = float(miner.pool.positives.scores.mean())
        print(f"Teacher {teacher.name}; mean score of the labeled positives {positive:.3f}\n")
        headers = ["method", "hidden positives", "mean score", f"mean {minilm.name} score", "queries with 4"]
        print_table(headers, [measure(miner.pool, *method, hidden, dense) for method in METHODS])


if __name__ == "__main__":
    for_each_set(__doc__, SPLITS, run)
