"""The study: every kind of negatives with every seed, results kept after each run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_negmine.base.files import finish_or_nothing, write_json
from hf_negmine.base.protocols import Teacher
from hf_negmine.teachers import BM25Teacher, DenseTeacher
from recipes.common.command import Tell
from recipes.common.data import TrainingRows, load_test, load_training
from recipes.common.offline import place_of
from recipes.common.results import markdown, mean_and_spread, open_results
from recipes.common.training import in_bfloat16
from recipes.reranker.evaluation import Candidates, find_candidates
from recipes.reranker.recipe import Encoder, FirstStage, Negatives, Reranker
from recipes.reranker.training import make_reranker, mine, train

RESULTS, TABLE, CACHE, MODELS = "results.json", "table.md", "cache", "models"
FIRST_STAGE, BEST, UNTRAINED = "first stage", "best order", "untrained"
MAY_GROW = ("negatives", "seeds", "pace", "corpus_size", "keep_models")
"""Settings that may differ in a continued study: they change no run that is done."""


def run(recipe: Reranker, output: Path, data: Path | None = None, tell: Tell = print) -> str:
    """Mine, train and evaluate every kind of negatives with every seed; see `recipes.common.command.Run`.

    Args:
        recipe: its settings.
        output: gets ``results.json`` and ``table.md``. Runs that the results hold are not done again.
        data: folder with a BEIR folder for each set, under the set's name.
        tell: is handed a line for each run.

    Raises:
        InputError: a set that is not there, or an output folder with the results of other settings or rows.
    """
    sets = [load_training(one, data) for one in recipe.training_sets]
    tests = [load_test(one, data) for one in recipe.test_sets]
    about = {
        "settings": {name: value for name, value in asdict(recipe).items() if name not in MAY_GROW},
        "rows": {one.name: one.digest for one in sets},
        "other_positives": {one.name: sum(map(len, one.hidden.values())) for one in sets},
        "queries": {one.name: one.digest for one in tests},
    }
    results = open_results(output / RESULTS, about, recipe.negatives)
    cache = output / CACHE
    candidates = [
        find_candidates(one, _first_stage(recipe.first_stage), recipe.first_stage.candidates, cache) for one in tests
    ]
    results[FIRST_STAGE] = {one.name: one.first_stage for one in candidates}
    results[BEST] = {one.name: one.best for one in candidates}
    for seed in recipe.seeds:
        for kind in (None, *recipe.negatives):
            key = f"{UNTRAINED if kind is None else kind.name}/{seed}"
            if key in results["runs"]:
                continue
            started = time.perf_counter()
            result = _one_run(recipe, kind, sets, candidates, seed, output)
            results["runs"][key] = result | {"seconds": round(time.perf_counter() - started, 1)}
            write_json(output / RESULTS, results)
            scores = ", ".join(f"{name} {value:.4f}" for name, value in result["ndcg"].items())
            tell(f"{key}: NDCG@10 {scores}")
    table = table_of(results, [kind.name for kind in recipe.negatives], recipe.seeds)
    with finish_or_nothing(output / TABLE) as file:
        file.write(f"{table}\n".encode())
    rows = ", ".join(f"{one.name} {len(one.rows):,}" for one in sets)
    queries = ", ".join(f"{one.name} {len(one.queries):,}" for one in candidates)
    return f"NDCG@10 of the candidates ordered again; trained on {rows} rows, tested on {queries} queries.\n\n{table}"


def table_of(results: dict[str, Any], kinds: Iterable[str], seeds: Iterable[int]) -> str:
    """Means and standard deviations over the seeds, as Markdown; one column per test set."""
    sets = list(results[FIRST_STAGE])
    rows = [[name, *(f"{results[name][one]:.4f}" for one in sets)] for name in (FIRST_STAGE, BEST)]
    for kind in (UNTRAINED, *kinds):
        runs = [results["runs"][f"{kind}/{seed}"] for seed in seeds]
        rows.append([kind, *(mean_and_spread([one["ndcg"][name] for one in runs]) for name in sets)])
    return markdown(["order of the candidates", *sets], rows)


def _one_run(
    recipe: Reranker,
    kind: Negatives | None,
    sets: list[TrainingRows],
    candidates: list[Candidates],
    seed: int,
    output: Path,
) -> dict[str, Any]:
    """The result of one reranker; without a kind of negatives it is not trained."""
    model = make_reranker(place_of(recipe.base.model), recipe.base, seed)
    result: dict[str, Any] = {}
    if kind is not None:
        miners = mine(recipe, _teacher(recipe.teacher), kind, sets, output / CACHE)
        with tempfile.TemporaryDirectory() as scratch:
            result = asdict(train(model, recipe, sets, miners, seed, Path(scratch)))
        if recipe.keep_models:
            model.save_pretrained(str(output / MODELS / f"{kind.name}-{seed}"))
    bf16 = in_bfloat16(recipe.training)
    return result | {"ndcg": {one.name: one.reranked(model, bf16=bf16) for one in candidates}}


def _teacher(encoder: Encoder) -> Teacher:
    return DenseTeacher(**asdict(encoder) | {"model": place_of(encoder.model)})


def _first_stage(stage: FirstStage) -> Teacher:
    return BM25Teacher(progress=False) if stage.encoder is None else _teacher(stage.encoder)
