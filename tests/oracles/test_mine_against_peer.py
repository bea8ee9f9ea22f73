"""Ours against `sentence_transformers.util.mine_hard_negatives`, wherever its semantics agree.

They do where the corpus is given, every query has one positive, and the peer finds enough candidates under the ceiling
within the window that it looks at; its rows that come out short are left out of the comparison. It keeps a candidate
that scores exactly at the ceiling, and orders equal scores as it likes: ties within 1e-6 are forgiven.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from hf_negmine import NegativeMiner, ScoreFloor, TopKAbs, TopKMarginPos, TopKPercPos, TopKShifted
from hf_negmine.base.schema import FloatArray
from hf_negmine.select.methods import Method

TIE = 1e-6
QUERIES, PASSAGES = 100, 300


@pytest.fixture(scope="module")
def pairs(data_dir: Path) -> tuple[Dataset, list[str]]:
    """Queries with one positive, and a corpus that holds it. Texts are cut, to save time: both sides see the same."""
    folder = data_dir / "scifact"
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}")
    read = {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("corpus", "queries", "qrels")}
    texts = {row["id"]: row["text"][:200] for row in read["corpus"]}
    queries = {row["id"]: row["text"] for row in read["queries"]}
    positives: dict[str, set[str]] = {}
    for row in read["qrels"]:
        if row["score"] > 0:
            positives.setdefault(queries[row["query_id"]], set()).add(texts[row["corpus_id"]])
    rows = [{"query": query, "positive": next(iter(own))} for query, own in positives.items() if len(own) == 1]
    rows = rows[:QUERIES]
    corpus = [*(row["positive"] for row in rows), *texts.values()]
    return Dataset.from_list(rows), list(dict.fromkeys(corpus))[:PASSAGES]


@pytest.fixture(scope="module")
def model(minilm: str) -> SentenceTransformer:
    return SentenceTransformer(minilm, device="cpu")  # float32


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def cosines(model: SentenceTransformer, query: str, passages: list[str]) -> FloatArray:
    """Cosine of a query and each passage."""
    vectors = np.asarray(model.encode([query, *passages]), dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors[1:] @ vectors[0], dtype=np.float32)


CASES: dict[str, tuple[Method, dict[str, Any]]] = {
    "naive": (TopKShifted(0), {}),
    "relative margin": (TopKPercPos(0.95), {"relative_margin": 0.05}),
    "wide relative margin": (TopKPercPos(0.7), {"relative_margin": 0.3}),
    "absolute margin": (TopKMarginPos(0.1), {"absolute_margin": 0.1}),
    "highest score": (TopKAbs(0.4), {"max_score": 0.4}),
    "first ranks left out": (TopKShifted(5), {"range_min": 5}),
    "margin and highest score": (TopKPercPos(0.95) & TopKAbs(0.45), {"relative_margin": 0.05, "max_score": 0.45}),
    "margin and lowest score": (TopKMarginPos(0.05) & ScoreFloor(0.1), {"absolute_margin": 0.05, "min_score": 0.1}),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:sentence_transformers", "ignore::FutureWarning")
@pytest.mark.parametrize("case", CASES)
def test_the_same_negatives(
    case: str,
    model: SentenceTransformer,
    pairs: tuple[Dataset, list[str]],
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    method, options = CASES[case]
    rows, corpus = pairs
    miner = NegativeMiner(model, method=method, num_negatives=3, corpus=corpus, cache_dir=cache, progress=False)
    ours = {row["query"]: [row[f"negative_{place}"] for place in (1, 2, 3)] for row in miner.mine(rows)}
    found = mine_hard_negatives(
        rows,
        model,
        anchor_column_name="query",
        positive_column_name="positive",
        corpus=corpus,
        num_negatives=3,
        output_format="n-tuple",
        verbose=False,
        cache_folder=str(tmp_path_factory.getbasetemp() / "peer"),
        **options,
    )
    theirs = {row["query"]: [row[f"negative_{place}"] for place in (1, 2, 3)] for row in found}
    assert len(theirs) > 0.6 * len(rows)
    assert theirs.keys() <= ours.keys()
    for query, texts in theirs.items():
        if set(texts) == set(ours[query]):
            continue
        different = sorted(set(texts) ^ set(ours[query]))
        assert np.ptp(cosines(model, query, different)) < TIE, f"{query}: {different}"
