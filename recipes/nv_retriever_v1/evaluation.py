"""NDCG at 10 of a model: on the paper's 15 tasks, or on test queries of the sets that a study trains on."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import require
from hf_negmine.base.files import write_json
from hf_negmine.data.sources import read_judgements
from hf_negmine.train.evaluation import TEST, beir_evaluator
from recipes.common.command import Tell
from recipes.common.data import TestQueries, load_test
from recipes.common.harness import ndcg_by_mteb
from recipes.common.packages import require_package
from recipes.common.sets import TrainingSet
from recipes.common.sets.layouts import Beir
from recipes.common.settings import TestSet
from recipes.common.training import bfloat16
from recipes.nv_retriever_v1.fixtures import BEIR_FOLDER
from recipes.nv_retriever_v1.recipe import NVRetriever
from recipes.nv_retriever_v1.tasks import TASKS, Task

CUTOFF = 10


def check_evaluation(recipe: NVRetriever, data: Path | None) -> None:
    """Check, before any long work, that the evaluation can be run.

    Raises:
        InputError: mteb is not installed, or a BEIR folder is not there, or it lacks the split of the test.
    """
    if recipe.evaluation.harness == "own":
        require(data is not None, "evaluation.harness: 'own' needs --data DIR with the sets as BEIR folders, DIR/SET")
        for one in tested(recipe):
            own_test(recipe, one, data)
        return
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
    if recipe.evaluation.harness == "own":
        assert data is not None
        found = evaluate_own(model, recipe, folder, data=data, tell=tell)
        return {name: fmean(queries.values()) for name, queries in found.items()}
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


# ---- a study's own sets ---------------------------------------------------------------------------------------------


def tested(recipe: NVRetriever) -> list[TrainingSet]:
    """The sets that have test queries."""
    return [one for one in recipe.sets if one.evaluation is not None]


def own_test(recipe: NVRetriever, one: TrainingSet, data: Path | None) -> TestQueries:
    """Some test queries of a set, with a part of its corpus; the same in every run."""
    assert one.evaluation is not None
    assert isinstance(one.evaluation.layout, Beir)
    limits = recipe.evaluation
    split = one.evaluation.layout.judged.split
    return load_test(TestSet(one.evaluation.hub_id, split, limits.queries, limits.passages), data)


def evaluate_own(
    model: SentenceTransformer, recipe: NVRetriever, folder: Path, *, data: Path, tell: Tell, prompts: bool = True
) -> dict[str, dict[str, float]]:
    """NDCG at 10 by set and by test query, from 0 to 1; for the other arguments see `evaluate`.

    Args:
        prompts: whether to put them before texts.
    """
    scores: dict[str, dict[str, float]] = {}
    for one in tested(recipe):
        note = folder / f"{one.name}.json"
        if not note.exists():
            before = (recipe.prompts.query_of(one), recipe.prompts.passage) if prompts else ("", "")
            found = ndcg_by_query(model, own_test(recipe, one, data), before, recipe)
            write_json(note, {"ndcg_at_10": fmean(found.values()), "queries": found})
            tell(f"{one.name}: NDCG@10 {fmean(found.values()):.4f}")
        scores[one.name] = json.loads(note.read_text(encoding="utf-8"))["queries"]
    return scores


def ndcg_by_query(
    model: SentenceTransformer, test: TestQueries, prompts: tuple[str, str], recipe: NVRetriever
) -> dict[str, float]:
    """NDCG at 10 of each test query, from 0 to 1; every relevant passage counts alike.

    Args:
        model: to be evaluated.
        test: queries and corpus.
        prompts: of queries and of passages.
        recipe: says the batch size, and whether to compute in bfloat16, as in training.
    """
    passages: list[str] = test.corpus.to_pylist()
    options: Any = {"batch_size": recipe.evaluation.batch_size, "show_progress_bar": False}
    with bfloat16(model, wanted=recipe.stages[-1].training.bf16):
        asked = model.encode_query(list(test.relevant), prompt=prompts[0], **options)
        given = model.encode_document(passages, prompt=prompts[1], **options)
    # In float32: scores in bfloat16 have many ties.
    unit = [
        torch.nn.functional.normalize(torch.from_numpy(np.asarray(one, dtype=np.float32))) for one in (asked, given)
    ]
    best = (unit[0] @ unit[1].T).topk(min(CUTOFF, len(passages))).indices.tolist()
    gains = 1 / np.log2(np.arange(2, CUTOFF + 2))
    return {
        query: float(gains[: len(found)][[passages[place] in own for place in found]].sum() / gains[: len(own)].sum())
        for (query, own), found in zip(test.relevant.items(), best, strict=True)
    }
