"""The recipe several times: with its own method of mining and with others, under several seeds, beside its base.

The output folder holds a folder for each run, as `pipeline` leaves it, with ``after``: the scores after each stage but
the last, whose scores are in ``evaluation``. The first run's folder also has the base's, ``before`` and ``bare``, with
prompts and without. ``vectors`` are shared by all runs; ``report.md`` has the tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import datasets
import numpy as np

from hf_negmine.base.errors import require
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.schema import FloatArray
from hf_negmine.base.wording import counted
from recipes.common.command import Tell
from recipes.common.results import interval, markdown, mean_and_spread, resampled
from recipes.common.sets import TrainingSet
from recipes.common.sets.layouts import Tables, folder_of
from recipes.nv_retriever_v1 import pipeline
from recipes.nv_retriever_v1.evaluation import evaluate_own, tested
from recipes.nv_retriever_v1.model import open_base
from recipes.nv_retriever_v1.negatives import NegativeRows
from recipes.nv_retriever_v1.recipe import NVRetriever, Output
from recipes.nv_retriever_v1.stages import open_student

AFTER, BEFORE, BARE, VECTORS = "after", "before", "bare", "vectors"

Scores = Mapping[str, Mapping[str, float]]
"""NDCG at 10 by set and query, from 0 to 1."""


@dataclass(frozen=True)
class Outcome:
    """Of one run.

    Attributes:
        stages: what the model scored after each.
        rows: with negatives, by set that is mined.
        hidden: share of the negatives that the set itself calls relevant to their query, by set.
    """

    stages: tuple[Scores, ...]
    rows: Mapping[str, int]
    hidden: Mapping[str, float]


def run(recipe: NVRetriever, output: Path, data: Path | None = None, tell: Tell = print) -> str:
    """Run the recipe once, or its study; see `recipes.common.command.Run`.

    Raises:
        InputError: data that cannot be used, or another run in ``output``.
        StorageError: ``output`` cannot be written to.
    """
    if recipe.study is None:
        return pipeline.run(recipe, output, data, tell)
    require(data is not None, "data: 'folders' needs --data DIR with the sets as BEIR folders, DIR/SET")
    assert data is not None
    found, pushed = {}, []
    folders = {(method, seed): output / f"{_slug(method)}-seed-{seed}" for method, seed in runs_of(recipe)}
    for (method, seed), folder in folders.items():
        one = run_of(recipe, method, seed)

        def say(line: str, name: str = folder.name) -> None:
            tell(f"{name}: {line}")

        said = pipeline.run(one, folder, data, say, vectors=output / VECTORS)
        pushed += [line for line in said.splitlines() if line.startswith("Pushed: ")]
        found[method, seed] = _outcome(one, folder, data, say)
    first = next(iter(folders.values()))
    base = open_base(recipe.base, first / pipeline.BASE, None)
    before = evaluate_own(base, recipe, first / BEFORE, data=data, tell=tell)
    bare = evaluate_own(base, recipe, first / BARE, data=data, tell=tell, prompts=False)
    report = report_of(recipe, bare, before, found)
    with finish_or_nothing(output / pipeline.REPORT) as file:
        file.write(f"{report}\n".encode())
    return "\n\n".join([report, f"Written: {output / pipeline.REPORT}", *pushed])


def runs_of(recipe: NVRetriever) -> Iterator[tuple[str, int]]:
    """Method and seed of each run; all methods under a seed before the next seed."""
    assert recipe.study is not None
    for seed in recipe.study.seeds:
        for method in (recipe.mining.miner.method, *recipe.study.against):
            yield method, seed


def run_of(recipe: NVRetriever, method: str, seed: int) -> NVRetriever:
    """The recipe of one run. The first alone, which is the recipe's own method, is pushed."""
    miner = replace(recipe.mining.miner, method=method)
    first = (method, seed) == next(runs_of(recipe))
    output = recipe.output if first else Output()
    return replace(recipe, seed=seed, mining=replace(recipe.mining, miner=miner), output=output)


def _slug(method: str) -> str:
    return re.sub("[^a-z0-9]+", "-", method.lower()).strip("-")


def _outcome(recipe: NVRetriever, folder: Path, data: Path, tell: Tell) -> Outcome:
    """What a finished run left, with the stages before the last evaluated, too."""
    stages = []
    for number, stage in enumerate(recipe.stages[:-1], start=1):
        name = pipeline.folder_name(number, stage)
        student = open_student(recipe, folder / pipeline.BASE, folder / name)
        stages.append(evaluate_own(student, recipe, folder / AFTER / name, data=data, tell=tell))
    names = [one.name for one in tested(recipe)]
    last = {name: _read(folder / pipeline.EVALUATION / f"{name}.json") for name in names}
    rows = NegativeRows(recipe, folder / pipeline.SETS).rows(recipe.stages[-1])
    return Outcome(
        (*stages, last),
        {name: len(rows[name]) for name in names},
        {one.name: _hidden(rows[one.name], one, data) for one in tested(recipe)},
    )


def _read(note: Path) -> dict[str, float]:
    queries: dict[str, float] = json.loads(note.read_text(encoding="utf-8"))["queries"]
    return queries


def _hidden(rows: datasets.Dataset, one: TrainingSet, data: Path) -> float:
    pairs = one.layout.pairs(Tables(one.hub_id, folder_of(data, one.hub_id)))  # type: ignore[union-attr]
    relevant = set(zip(pairs.query.to_pylist(), pairs.positive.to_pylist(), strict=True))
    names = [name for name in rows.column_names if name.startswith("negative_")]
    return fmean((row["query"], row[name]) in relevant for row in rows for name in names)


# ---- the report -----------------------------------------------------------------------------------------------------


def report_of(recipe: NVRetriever, bare: Scores, before: Scores, found: Mapping[tuple[str, int], Outcome]) -> str:
    """The tables, as Markdown."""
    assert recipe.study is not None
    methods, sets = list(dict.fromkeys(method for method, _ in found)), list(before)
    by_method = {method: [found[method, seed] for seed in recipe.study.seeds] for method in methods}
    seeds = counted(len(recipe.study.seeds), "seed")
    parts = [f"# {recipe.base.name} after {len(recipe.stages)} stages, {seeds}", "NDCG@10, means over the seeds:"]
    columns: dict[str, list[Scores]] = {"base as it is": [bare], "with prompts": [before]}
    for method, outcomes in by_method.items():
        for place, stage in enumerate(recipe.stages):
            columns[f"{method}: {stage.name}"] = [one.stages[place] for one in outcomes]
    rows = [[name, *(mean_and_spread(_means(scores, [name])) for scores in columns.values())] for name in sets]
    rows.append(["**average**", *(mean_and_spread(_means(scores, sets)) for scores in columns.values())])
    parts.append(markdown(["set", *columns], rows))
    parts.append("Differences, with 95 % intervals over queries and seeds, for the same seed and query:")
    own = [one.stages[-1] for one in by_method[methods[0]]]
    others: dict[str, tuple[list[Scores], list[Scores]]] = {
        f"{methods[0]}, all stages - with prompts": (own, [before] * len(own)),
        f"{methods[0]}, all stages - base as it is": (own, [bare] * len(own)),
    }
    for place, stage in enumerate(recipe.stages):
        for method in methods[1:]:
            first, second = ([one.stages[place] for one in by_method[which]] for which in (methods[0], method))
            others[f"{methods[0]} - {method}, after {stage.name}"] = (first, second)
    cells = [[title, *_compared(*pair, sets)] for title, pair in others.items()]
    parts.append(markdown(["difference", *sets, "**average**"], cells))
    parts.append("Rows of a set, and the share of their negatives that the set calls relevant, which no run was told:")
    mined = [
        [name, *(_mined([(one.rows[name], one.hidden[name]) for one in outcomes]) for outcomes in by_method.values())]
        for name in sets
    ]
    parts.append(markdown(["set", *by_method], mined))
    return "\n\n".join(parts)


def _means(scores: list[Scores], sets: list[str]) -> list[float]:
    """Of each run, over the queries of a set and then over the sets."""
    return [fmean(fmean(one[name].values()) for name in sets) for one in scores]


def _compared(ours: list[Scores], theirs: list[Scores], sets: list[str]) -> list[str]:
    drawn = [resampled(_gains(ours, theirs, name), place) for place, name in enumerate(sets)]
    together = fmean(gain for gain, _ in drawn), np.mean([samples for _, samples in drawn], axis=0)
    return [interval(*one) for one in (*drawn, together)]


def _gains(ours: list[Scores], theirs: list[Scores], name: str) -> FloatArray:
    """Shape (seeds, queries)."""
    pairs = zip(ours, theirs, strict=True)
    return np.array([[one[name][query] - other[name][query] for query in one[name]] for one, other in pairs])


def _mined(found: list[tuple[int, float]]) -> str:
    return f"{fmean(rows for rows, _ in found):,.0f} rows, {fmean(share for _, share in found):.1%}"
