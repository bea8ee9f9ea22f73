"""Every kind of negatives with every seed; results are kept after each training."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import finish_or_nothing, write_json
from hf_negmine.data.sources import open_beir
from hf_negmine.train.evaluation import beir_evaluator
from recipes.common.command import Tell
from recipes.common.offline import first_layers, place_of
from recipes.common.results import markdown, mean_and_spread, open_results
from recipes.quickstart.recipe import Quickstart
from recipes.quickstart.training import train

RESULTS, TABLE, UNTRAINED = "results.json", "table.md", "untrained"


def run(recipe: Quickstart, output: Path, data: Path | None = None, tell: Tell = print) -> str:
    """Train and evaluate every student; see `recipes.common.command.Run`.

    Args:
        recipe: its settings.
        output: gets ``results.json`` and ``table.md``. Trainings that the results hold are not done again.
        data: a BEIR folder.
        tell: is handed a line for each training.

    Raises:
        InputError: no BEIR folder, or an output folder with the results of other settings or data.
    """
    if data is None:
        raise InputError("--data: name a BEIR folder (corpus, queries, qrels)")
    rows, corpus = one_positive_per_query(data)
    evaluate = beir_evaluator(data, split="test")
    settings = {name: value for name, value in asdict(recipe).items() if name not in ("seeds", "negatives")}
    results = open_results(output / RESULTS, {"settings": settings, "data": str(data.resolve())}, recipe.negatives)
    runs = results["runs"]
    for name, kind, seed in [
        (UNTRAINED, None, 0),
        *((f"{kind.name}/{seed}", kind, seed) for seed in recipe.seeds for kind in recipe.negatives),
    ]:
        if name in runs:
            continue
        student = first_layers(place_of(recipe.teacher), recipe.layers, recipe.max_seq_length)
        runs[name] = {}
        if kind is not None:
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as scratch:
                trainer = train(student, rows, corpus, recipe, kind, seed, Path(scratch))
            runs[name] = {"seconds": time.perf_counter() - started, **_notes(trainer)}
        runs[name]["ndcg"] = evaluate(student)[str(evaluate.primary_metric)]
        write_json(output / RESULTS, results)
        tell(f"{name}: NDCG@10 {runs[name]['ndcg']:.4f}")
    report = f"NDCG@10 before training {runs[UNTRAINED]['ndcg']:.4f}; {len(rows):,} rows\n\n{table(recipe, runs)}"
    with finish_or_nothing(output / TABLE) as file:
        file.write(f"{report}\n".encode())
    return report


def one_positive_per_query(folder: Path) -> tuple[datasets.Dataset, Any]:
    """Rows (query, positive) of the train split with each query's first positive, and the corpus."""
    opened = open_beir(folder, split="train")
    assert isinstance(opened.rows, datasets.Dataset)
    first: dict[str, int] = {}
    for place, query in enumerate(opened.rows["query"]):
        first.setdefault(query, place)
    return opened.rows.select(first.values()).select_columns(["query", "positive"]), opened.corpus


def table(recipe: Quickstart, runs: dict[str, dict[str, Any]]) -> str:
    """Means and spread over the seeds, as Markdown."""
    rows = []
    for kind in recipe.negatives:
        own = [runs[f"{kind.name}/{seed}"] for seed in recipe.seeds]
        refresh = statistics.mean(one["refresh_seconds"] / one["seconds"] for one in own)
        masked = statistics.mean(one["masked"] for one in own)
        ndcg = mean_and_spread([one["ndcg"] for one in own])
        rows.append([kind.name, ndcg, f"{masked:.1%}", f"{refresh:.0%}" if refresh else ""])
    return markdown(["negatives", "NDCG@10", "in-batch passages left out", "refresh, share of time"], rows)


def _notes(trainer: Any) -> dict[str, Any]:
    """What a training says besides its score: shares of passages left out, time and changes of refreshes."""
    refreshes = [entry for entry in trainer.state.log_history if "negatives_seconds" in entry]
    return {
        "masked": trainer.loss.false_negatives.share if hasattr(trainer.loss, "false_negatives") else 0.0,
        "refresh_seconds": sum(entry["negatives_seconds"] for entry in refreshes),
        "changed": [entry["negatives_changed"] / entry["negatives_negatives"] for entry in refreshes],
    }
