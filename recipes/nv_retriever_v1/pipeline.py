"""NV-Retriever-v1 from its data to its repository: what is done in which order, and what is already done.

The output folder holds ``recipe.json`` (what the run is), ``fixtures`` (made-up data, if the recipe wants it),
``base``, ``sets`` (rows with negatives), one folder per stage, ``model`` (merged), ``evaluation`` and ``report.md``.
Each is written whole or not at all, so an interrupted run continues with what is missing.

Several GPUs: one process each, started by torchrun. The first one alone does everything but the training.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import StorageError, require
from hf_negmine.base.files import (
    TEMPORARY_PREFIX,
    finish_or_nothing,
    publish_folder,
    scratch_folder,
    storage_errors,
    write_json,
)
from hf_negmine.hub.models import negatives_section, write_model
from hf_negmine.hub.push_models import push_model
from recipes.common.command import Tell
from recipes.common.offline import HUB_ID, OFFLINE
from recipes.common.packages import require_package
from recipes.common.results import markdown
from recipes.nv_retriever_v1.evaluation import check_evaluation, evaluate
from recipes.nv_retriever_v1.fixtures import write_fixtures
from recipes.nv_retriever_v1.model import sees_later_tokens, write_base
from recipes.nv_retriever_v1.negatives import NegativeRows
from recipes.nv_retriever_v1.recipe import RANDOM, NVRetriever, Stage
from recipes.nv_retriever_v1.stages import Trained, open_student, train_stage
from recipes.nv_retriever_v1.tasks import table

RECIPE, FIXTURES, BASE, SETS, MODEL = "recipe.json", "fixtures", "base", "sets", "model"
EVALUATION, REPORT, PUSHED = "evaluation", "report.md", "pushed.json"
MAY_CHANGE = ("machines", "output", "study")
"""Settings that may differ in a continued run: nothing before the push depends on them."""
SECONDS_A_LOOK = 1.0
LOSSES_SHOWN = 5
"""How many logged losses the means at the beginning and at the end are taken over."""


def run(
    recipe: NVRetriever, output: Path, data: Path | None = None, tell: Tell = print, *, vectors: Path | None = None
) -> str:
    """Mine, train both stages, merge, evaluate and push; see `recipes.common.command.Run`.

    Args:
        recipe, output, data, tell: as of every recipe.
        vectors: a folder for the teacher's vectors that several runs share.

    Raises:
        InputError: a package that is missing, data that cannot be used, or another run in ``output``.
        StorageError: ``output`` holds something else, or cannot be written to.
    """
    _check(recipe, data)
    first = os.environ.get("RANK", "0") == "0"
    rows = NegativeRows(recipe, output / SETS, vectors)
    if first:
        _begin(recipe, output, data)
        data = _prepare(recipe, rows, output, data, tell)
    else:
        _wait_for(recipe, rows)
        tell = _silent
    trained = _train(recipe, rows, output, tell)
    if not first:
        return ""
    model = _merge(recipe, rows, output, trained[-1], tell)
    scores = evaluate(model, recipe, output / EVALUATION, data=data, tell=tell)
    report = _report(recipe, trained, scores)
    with finish_or_nothing(output / REPORT) as file:
        file.write(report.encode())
    pushed = _push(recipe, rows, model, output)
    return "\n\n".join([report.rstrip(), f"Written: {output / MODEL} and {output / REPORT}", *pushed])


# ---- before --------------------------------------------------------------------------------------------------------


def _check(recipe: NVRetriever, data: Path | None) -> None:
    """What can be checked before any work."""
    require_package("peft", "lora")
    for place, stage in enumerate(recipe.stages):
        require(
            stage.homogeneous_batches,
            f"stages[{place}].homogeneous_batches: false can be planned and not run, as a batch has one instruction",
        )
        require(
            stage.hard_negatives > 0,
            f"stages[{place}].hard_negatives: 0 can be planned and not run, as the loss wants at least one",
        )
    require(data is None or data.is_dir(), f"--data: there is no folder {data}")
    check_evaluation(recipe, data)


def _begin(recipe: NVRetriever, output: Path, data: Path | None) -> None:
    """Note what the run is, or check that it is the one that is there.

    Raises:
        InputError: it is another one.
        StorageError: the folder holds something else.
    """
    kept = {name: value for name, value in asdict(recipe).items() if name not in MAY_CHANGE}
    ours = json.loads(json.dumps(kept | {"--data": None if data is None else str(data.resolve())}))
    note = output / RECIPE
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in output.iterdir() if not path.name.startswith(TEMPORARY_PREFIX))
    if not note.exists():
        if names:
            raise StorageError(f"{output} holds {names[0]!r} and no run of this recipe; give another folder")
        write_json(note, ours)
        return
    theirs = json.loads(note.read_text(encoding="utf-8"))
    for (path, here), (_, there) in zip(_leaves(ours, theirs), _leaves(theirs, ours), strict=True):
        require(
            here == there,
            f"{path}: the run in {output} has {there!r}, now it is {here!r}; give the same settings, or another folder",
        )


def _leaves(values: Any, others: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their path, in an order that is the same for ``values`` and ``others``."""
    if isinstance(values, dict) and isinstance(others, dict):
        for name in sorted({*values, *others}):
            yield from _leaves(values.get(name), others.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(values, list) and isinstance(others, list) and len(values) == len(others):
        for place, (value, other) in enumerate(zip(values, others, strict=True)):
            yield from _leaves(value, other, f"{path}[{place}]")
    else:
        yield path, values


def _prepare(recipe: NVRetriever, rows: NegativeRows, output: Path, data: Path | None, tell: Tell) -> Path | None:
    """Data, base, and every set with its negatives; returns the folder of the data, None for the Hub."""
    if recipe.data == "fixtures" and data is None:
        data = output / FIXTURES
        if not data.exists():
            write_fixtures(data)
            tell(f"Made-up data: {data}")
    if not (output / BASE).exists():
        write_base(recipe, output / BASE)
        tell(f"Base: {recipe.base.name}, {'bidirectional' if recipe.base.bidirectional else 'causal'}")
    for one in recipe.sets:
        if not rows.is_done(one):
            rows.write(one, base=output / BASE, data=data, tell=tell)
    return data


def _wait_for(recipe: NVRetriever, rows: NegativeRows) -> None:
    """Wait for what the first process prepares. Not by torch.distributed, which gives up after minutes."""
    while not all(rows.is_done(one) for one in recipe.sets):
        time.sleep(SECONDS_A_LOOK)


def _silent(line: str) -> None:
    """Only the first process speaks."""


# ---- training ------------------------------------------------------------------------------------------------------


def _train(recipe: NVRetriever, rows: NegativeRows, output: Path, tell: Tell) -> list[Trained]:
    done: list[Trained] = []
    for number, stage in enumerate(recipe.stages, start=1):
        folder = output / folder_name(number, stage)
        trained = Trained.read(folder)
        if trained is None:
            student = open_student(recipe, output / BASE, done[-1].folder if done else None)
            trained = train_stage(recipe, stage, rows.rows(stage), student, folder, tell)
            tell(f"{stage.name}: done after {trained.steps:,} steps")
        done.append(trained)
    return done


def folder_name(number: int, stage: Stage) -> str:
    """Where a stage lies in the output, counted from 1."""
    return f"stage-{number}-{re.sub('[^a-z0-9]+', '-', stage.name.lower()).strip('-')}"


# ---- after ---------------------------------------------------------------------------------------------------------


def _merge(recipe: NVRetriever, rows: NegativeRows, output: Path, last: Trained, tell: Tell) -> SentenceTransformer:
    """The merged model, written and read back."""
    folder = output / MODEL
    if not folder.exists():
        student = open_student(recipe, output / BASE, last.folder)
        _name_base(student, recipe)
        section = negatives_section(
            recipe.output.repo or str(folder), rows.summary(), base=_hub_name(recipe), prompts=student.prompts
        )
        with scratch_folder(output) as scratch:
            write_model(student, scratch, section)
            publish_folder(scratch, folder)
        tell(f"Merged: {folder}")
    model = SentenceTransformer(str(folder))
    require(
        not recipe.base.bidirectional or sees_later_tokens(model),
        f"{folder} is causal after it was read back, which it must not be",
    )
    return model


def _name_base(model: SentenceTransformer, recipe: NVRetriever) -> None:
    """Have the card name the base on the Hub, which Sentence Transformers would guess from the name of a folder."""
    if recipe.base.name != RANDOM:
        model.model_card_data.base_model = _hub_name(recipe)
        model.model_card_data.base_model_revision = recipe.base.revision


def _hub_name(recipe: NVRetriever) -> str:
    return HUB_ID if recipe.base.name == OFFLINE else recipe.base.name


def _report(recipe: NVRetriever, trained: list[Trained], scores: dict[str, float]) -> str:
    """What came out, as Markdown."""
    lines = [f"# {recipe.base.name} after {len(trained)} stages", "", "| stage | sets | steps | loss | at the end |"]
    lines.append("|---|---:|---:|---:|---:|")
    for stage, one in zip(recipe.stages, trained, strict=True):
        losses = list(one.losses.values())
        first, last = losses[:LOSSES_SHOWN], losses[-LOSSES_SHOWN:]
        lines.append(
            f"| {stage.name} | {len(recipe.sets_of(stage))} | {one.steps:,} | {sum(first) / len(first):.4f} | "
            f"{sum(last) / len(last):.4f} |"
        )
    own = [[name, f"{100 * score:.2f}"] for name, score in scores.items()]
    lines += ["", markdown(["NDCG@10", "ours"], own) if recipe.evaluation.harness == "own" else table(scores), ""]
    if recipe.data == "fixtures":
        lines.append("The data are made up, so our numbers say that it runs, and nothing more.")
    return "\n".join(lines) + "\n"


def _push(recipe: NVRetriever, rows: NegativeRows, model: SentenceTransformer, output: Path) -> list[str]:
    """Push the model if the recipe says where; returns a line about it."""
    repo, note = recipe.output.repo, output / PUSHED
    if repo is None:
        return []
    known = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    if known.get("repo") != repo:
        _name_base(model, recipe)
        hub_ids = dict.fromkeys(one.hub_id for one in recipe.sets)
        done = push_model(
            model,
            repo,
            mined=rows.summary(),
            data_ids=list(hub_ids) if recipe.data == "hub" else [],
            base=_hub_name(recipe),
            private=recipe.output.private,
        )
        write_json(note, {"repo": repo, "commit": done.commit, "url": done.url})
        known = {"url": done.url}
    return [f"Pushed: {known['url']}"]
