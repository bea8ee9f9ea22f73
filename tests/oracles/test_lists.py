"""Scored lists as others read them: Sentence Transformers, datasets, and a reader of TREC files."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from sentence_transformers.util import resolve_ids

from hf_negmine.pool import CandidatePool
from tests.unit.test_lists import DOCUMENTS, POSITIVES, QUERIES, SCORES


@pytest.fixture
def pool(tmp_path: Path) -> CandidatePool:
    return CandidatePool.from_lists(QUERIES, DOCUMENTS, SCORES, POSITIVES, cache_dir=tmp_path / "cache", progress=False)


def test_resolve_ids_joins_them(pool: CandidatePool, tmp_path: Path) -> None:
    pool.to_lists(tmp_path / "lists")
    queries, documents, scores = (
        datasets.load_dataset(str(tmp_path / "lists"), name, split="train", cache_dir=str(tmp_path / "hf"))
        for name in ("queries", "documents", "scores")
    )
    scores.set_transform(resolve_ids({"query_id": queries, "document_ids": documents}, output_format="lists"))
    for row, (query, entries) in zip(scores, SCORES.items(), strict=True):
        assert row["query"] == QUERIES[query]
        assert row["documents"] == [DOCUMENTS[one] for one in entries]
        np.testing.assert_allclose(row["scores"], list(entries.values()), rtol=1e-6)
    scores.set_transform(resolve_ids({"query_id": queries, "positive_ids": documents}, output_format="lists"))
    assert [row["positives"] for row in scores] == [[DOCUMENTS[one] for one in row] for row in POSITIVES.values()]


def test_a_reader_of_trec_files_reads_them(pool: CandidatePool, tmp_path: Path) -> None:
    trec = pytest.importorskip("pytrec_eval")
    pool.to_run(tmp_path / "lists.trec", qrels=tmp_path / "qrels", tag="lists")
    with open(tmp_path / "lists.trec") as lists, open(tmp_path / "qrels") as judged:
        run, qrels = trec.parse_run(lists), trec.parse_qrel(judged)
    assert run == {
        query: {one: pytest.approx(score, rel=1e-6) for one, score in entries.items()}
        for query, entries in SCORES.items()
    }
    assert qrels == {query: dict.fromkeys(row, 1) for query, row in POSITIVES.items()}
    found = trec.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)
    assert [found[query]["recip_rank"] for query in QUERIES] == [1, 1 / 2, 1]
