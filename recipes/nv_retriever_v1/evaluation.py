"""NDCG at 10 of the trained model on the paper's 15 tasks, each under its own instruction."""

from __future__ import annotations

import json
from pathlib import Path

from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import require
from hf_negmine.base.files import write_json
from hf_negmine.data.sources import read_judgements
from hf_negmine.train.evaluation import TEST, beir_evaluator
from recipes.common.command import Tell
from recipes.common.harness import ndcg_by_mteb
from recipes.common.packages import require_package
from recipes.nv_retriever_v1.fixtures import BEIR_FOLDER
from recipes.nv_retriever_v1.recipe import NVRetriever
from recipes.nv_retriever_v1.tasks import TASKS, Task


def check_evaluation(recipe: NVRetriever, data: Path | None) -> None:
    """Check, before any long work, that the evaluation can be run.

    Raises:
        InputError: mteb is not installed, or a BEIR folder is not there, or it has splits and no "test".
    """
    if recipe.evaluation.harness == "mteb":
        require_package("mteb", "evaluation.harness: 'mteb'", instead="take 'beir' with BEIR folders")
        return
    if recipe.data == "fixtures" and data is None:
        return
    require(data is not None, "evaluation.harness: 'beir' needs --data DIR with BEIR folders, DIR/beir/TASK")
    assert data is not None
    missing = [name for name in tasks_of(recipe) if not (data / BEIR_FOLDER / name).is_dir()]
    require(not missing, f"evaluation.harness: {data / BEIR_FOLDER} lacks {missing}")
    for name in tasks_of(recipe):
        read_judgements(data / BEIR_FOLDER / name, None, TEST)


def tasks_of(recipe: NVRetriever) -> dict[str, Task]:
    """The tasks that are run, by name."""
    return {name: task for name, task in TASKS.items() if name not in recipe.evaluation.leave_out}


def evaluate(
    model: SentenceTransformer, recipe: NVRetriever, folder: Path, *, data: Path | None, tell: Tell
) -> dict[str, float]:
    """NDCG at 10 by task, from 0 to 1; a task that is done is read from ``folder``.

    Args:
        model: trained and merged.
        recipe: its settings.
        folder: for one file per task.
        data: folder with BEIR folders in ``beir``, for that harness.
        tell: is handed a line for each task.
    """
    scores = {}
    for name, task in tasks_of(recipe).items():
        note = folder / f"{name}.json"
        if not note.exists():
            prompt = recipe.prompts.query.replace("{task}", task.instruction)
            if recipe.evaluation.harness == "mteb":
                prompts = {"query": prompt, "document": recipe.prompts.passage}
                score = ndcg_by_mteb(model, task.name, prompts, recipe.evaluation.batch_size, folder / "mteb")
            else:
                assert data is not None
                score = _by_folder(model, recipe, data / BEIR_FOLDER / name, prompt)
            write_json(note, {"ndcg_at_10": score})
            tell(f"{name}: NDCG@10 {score:.4f}")
        scores[name] = float(json.loads(note.read_text(encoding="utf-8"))["ndcg_at_10"])
    return scores


def _by_folder(model: SentenceTransformer, recipe: NVRetriever, folder: Path, prompt: str) -> float:
    evaluator = beir_evaluator(folder, batch_size=recipe.evaluation.batch_size)
    evaluator.query_prompt, evaluator.corpus_prompt = prompt, recipe.prompts.passage
    metrics = evaluator(model)
    return float(metrics[str(evaluator.primary_metric)])
