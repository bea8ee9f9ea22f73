"""BEIR folders that are written, as mteb's own loader reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_negmine import CandidatePool, write_hard_subset
from tests.unit.test_lists import DOCUMENTS, POSITIVES, QUERIES, SCORES


# mteb 2.26 says that an argument of its own loader is deprecated.
@pytest.mark.filterwarnings("ignore")
def test_mteb_reads_mined_judgements_and_a_hard_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaders = pytest.importorskip("mteb.abstasks.retrieval_dataset_loaders")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    pool = CandidatePool.from_lists(QUERIES, DOCUMENTS, SCORES, POSITIVES, cache_dir=tmp_path / "cache", progress=False)
    pool.to_beir(tmp_path / "mined", pool.select("naive", n=2), split="test")
    write_hard_subset(tmp_path / "mined", [SCORES], tmp_path / "hard", top_k=1)
    for folder, passages in (("mined", set(DOCUMENTS)), ("hard", {"a", "b", "c", "e"})):
        read = loaders.RetrievalDatasetLoader(str(tmp_path / folder), revision=None, split="test").load()
        assert dict(zip(read["corpus"]["id"], read["corpus"]["text"], strict=True)) == {
            name: DOCUMENTS[name] for name in passages
        }
        assert dict(zip(read["queries"]["id"], read["queries"]["text"], strict=True)) == QUERIES
        for query, judged in read["relevant_docs"].items():
            assert {name for name, score in judged.items() if score == 1} == set(POSITIVES[query])
            assert {name for name, score in judged.items() if score == 0} <= set(SCORES[query])
        if folder == "mined":
            assert all(sum(score == 0 for score in judged.values()) == 2 for judged in read["relevant_docs"].values())
