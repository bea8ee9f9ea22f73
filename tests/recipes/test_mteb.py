"""MTEB's own harness gives the model what ours gives it: the task's instruction, the passage's prompt, both limits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import mteb
import pytest
from mteb.abstasks import AbsTaskRetrieval
from sentence_transformers import SentenceTransformer

from hf_negmine.data.sources import open_beir, read_beir_texts
from recipes.common.config import load_recipe
from recipes.nv_retriever_v1.evaluation import evaluate
from recipes.nv_retriever_v1.fixtures import BEIR_FOLDER, write_fixtures
from recipes.nv_retriever_v1.model import write_base
from recipes.nv_retriever_v1.recipe import NVRetriever
from recipes.nv_retriever_v1.tasks import TASKS

RECIPE = Path(__file__).parents[2] / "recipes" / "nv_retriever_v1" / "recipe.yaml"


@pytest.fixture(scope="module")
def recipe() -> NVRetriever:
    return load_recipe(RECIPE, NVRetriever, scale="tiny")


def test_the_tasks_are_mtebs() -> None:
    found = mteb.get_tasks(tasks=list(TASKS))
    assert sorted(task.metadata.name for task in found) == sorted(TASKS)
    assert {task.metadata.main_score for task in found} == {"ndcg_at_10"}
    english = mteb.get_benchmark("MTEB(eng, v1)").tasks
    assert {task.metadata.name for task in english if task.metadata.type == "Retrieval"} == set(TASKS)


# mteb 2.26 with sentence-transformers 6.2: their warnings about each other.
@pytest.mark.filterwarnings("ignore")
def test_scores_are_those_of_the_same_data_in_folders(
    recipe: NVRetriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "fixtures"
    write_fixtures(data)
    write_base(recipe, tmp_path / "base")
    model = SentenceTransformer(str(tmp_path / "base"), device="cpu")

    def load_data(task: Any, **options: Any) -> None:
        name = task.metadata.name
        folder = data / BEIR_FOLDER / ("CQADupstackRetrieval" if name.startswith("CQADupstack") else name)
        task.dataset = {"default": dict.fromkeys(task.eval_splits, split_of(folder))}
        task.data_loaded = True

    monkeypatch.setattr(AbsTaskRetrieval, "load_data", load_data)
    left_out = tuple(name for name in TASKS if name not in ("NFCorpus", "MSMARCO", "CQADupstackRetrieval"))
    scores = {}
    for harness in ("beir", "mteb"):
        of_harness = replace(recipe, evaluation=replace(recipe.evaluation, harness=harness, leave_out=left_out))
        told: list[str] = []
        folder = tmp_path / harness
        scores[harness] = evaluate(model, of_harness, folder, data=data, tell=told.append)
        assert len(told) == 3
        assert json.loads((folder / "NFCorpus.json").read_text())["ndcg_at_10"] == scores[harness]["NFCorpus"]
        assert evaluate(model, of_harness, folder, data=None, tell=told.append) == scores[harness]  # read again
    assert scores["mteb"] == {name: pytest.approx(score, abs=1e-4) for name, score in scores["beir"].items()}
    assert all(0.05 < score < 0.99 and math.isfinite(score) for score in scores["beir"].values())


def split_of(folder: Path) -> dict[str, Any]:
    """A BEIR folder as mteb holds a split."""
    import datasets

    judged: dict[str, dict[str, int]] = {}
    for row in open_beir(folder).rows:
        judged.setdefault(row["query-id"], {})[row["corpus-id"]] = 1
    tables = {}
    for name in ("queries", "corpus"):
        ids, texts = read_beir_texts(folder, name)
        tables[name] = datasets.Dataset.from_dict({"id": ids.to_pylist(), "text": texts.to_pylist()})
    queries = tables["queries"].filter(lambda row: row["id"] in judged)
    return {"corpus": tables["corpus"], "queries": queries, "relevant_docs": judged, "top_ranked": None}
