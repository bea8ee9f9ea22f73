"""The study: everything that its tables need, each part once, kept as soon as it is done.

A result lies in a file whose name is a digest of all that it depends on: the student, the teachers, the mining, the
seed, the rows and the test queries. So an interrupted run continues, a recipe with more settings adds to what is
there, and one with others never takes a result that is not its own.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import StorageError, require
from hf_negmine.base.files import digest_of, finish_or_nothing, scratch_folder, write_json
from hf_negmine.base.schema import FloatArray
from hf_negmine.figures.plots import require_matplotlib
from recipes.ablation.comparing import Outcome, Scores
from recipes.ablation.mining import Mine, Mined
from recipes.ablation.recipe import Ablation, Student
from recipes.ablation.report import Findings, draw, report_of
from recipes.ablation.settings import Run, Setting, methods_of, runs_of, teachers_of
from recipes.ablation.small import Collection, ndcg_of, train_small
from recipes.ablation.training import evaluate, evaluate_by_mteb, make_student, of_whole_batches, train
from recipes.common.command import Tell
from recipes.common.data import TestQueries, load_collection, load_training
from recipes.common.packages import require_package

RESULTS, REPORT, FIGURES, CACHE = "results", "report.md", "figures", "cache"


def run(recipe: Ablation, output: Path, data: Path | None = None, tell: Tell = print) -> str:
    """Mine, train and evaluate everything; see `recipes.common.command.Run`.

    Args:
        recipe: its settings.
        output: gets ``report.md``, ``figures`` and ``results``, a file per training. What is there is not done again.
        data: folder with a BEIR folder for each set, under the set's name.
        tell: is handed a line for each training.

    Raises:
        InputError: a set or a package that is not there.
        StorageError: an output folder that cannot be written to.
    """
    if recipe.harness == "mteb":
        require_package("mteb", "harness: 'mteb'", instead="take 'folders' with --data")
    require_matplotlib()
    with scratch_folder(output):  # now, not after the first training, see that the folder can be written to
        study = _Study(recipe, output, *_loaded(recipe, output, data))
    started = time.perf_counter()
    before = {student.name: study.before(student) for student in recipe.students}
    runs, outcomes = runs_of(recipe), {}
    for place, one in enumerate(runs, 1):
        outcomes[one], new = study.after(one)
        if new:
            scores = ", ".join(f"{name} {value:.4f}" for name, value in outcomes[one].ndcg.items())
            minutes = (time.perf_counter() - started) / 60
            tell(f"{place} of {len(runs)}, {minutes:.0f} min: {one}: NDCG@10 {scores}")
    findings = study.findings(before, outcomes)
    for name, picture in draw(recipe, findings).items():
        with finish_or_nothing(output / FIGURES / f"{name}.png") as file:
            file.write(picture)
    report = report_of(recipe, findings, figures=FIGURES)
    with finish_or_nothing(output / REPORT) as file:
        file.write(f"{report}\n".encode())
    return f"{report}\n\nWritten: {output / REPORT} and {output / FIGURES}"


def _loaded(recipe: Ablation, output: Path, data: Path | None) -> tuple[dict[int, Mine], list[TestQueries]]:
    """What mines, by seed, and the test queries. Of folders, the seed draws each query's label."""
    seeds = dict.fromkeys((*recipe.seeds, *recipe.sweep_seeds))
    if recipe.harness == "mteb":
        mine = Mine(recipe, [load_training(one, data) for one in recipe.training_sets], output / CACHE)
        return dict.fromkeys(seeds, mine), []
    require(data is not None, "harness: 'folders' needs --data, the folder with the sets")
    assert data is not None
    pairs = zip(recipe.training_sets, recipe.test_sets, strict=True)
    loaded = [load_collection(train, test, data, seeds) for train, test in pairs]
    mines = {seed: Mine(recipe, [rows[seed] for rows, _ in loaded], output / CACHE) for seed in seeds}
    return mines, [test for _, test in loaded]


@dataclass(frozen=True)
class _Study:
    """What is measured, of a recipe and its data."""

    recipe: Ablation
    output: Path
    mines: Mapping[int, Mine]
    tests: Sequence[TestQueries]
    _collections: dict[tuple[str, str], Collection] = field(default_factory=dict)
    _known: dict[int, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def _tests(self) -> dict[str, str]:
        return {one.name: one.digest for one in self.tests}

    def before(self, student: Student) -> Scores:
        """NDCG at 10 of the untrained student, by test set."""

        def measure() -> dict[str, Any]:
            if student.is_small:
                setting = methods_of(self.recipe)[-1]
                mined = self.mines[self.recipe.seeds[0]].mined(setting, student.negatives, self.recipe.seeds[0])
                given = {name: self._collection(student, name, one) for name, one in mined.items()}
                return _measured({name: ndcg_of(one.student(), one) for name, one in given.items()})
            return self._evaluated(make_student(student, self.recipe.seeds[0]), student)

        return self._scores(self._kept({"student": asdict(student)}, measure)[0])

    def after(self, one: Run) -> tuple[Outcome, bool]:
        """The result of a training, and whether it was made just now."""
        setting, student = one.setting, self.recipe.student_of(one.setting.student)
        if setting.mining.negatives is not None:
            student = replace(student, negatives=setting.mining.negatives)

        def measure() -> dict[str, Any]:
            started = time.perf_counter()
            if student.is_small:
                return self._small(one, student) | {"seconds": round(time.perf_counter() - started, 1)}
            model = make_student(student, one.seed)
            rows = of_whole_batches(self.mines[one.seed].rows(setting, student.negatives, one.seed), student)
            in_batch = setting.in_batch_negatives
            with tempfile.TemporaryDirectory() as scratch:
                trained = train(model, student, rows, one.seed, Path(scratch), in_batch_negatives=in_batch)
            counts = {name: len(own) for name, own in rows.items()}
            result = {**self._evaluated(model, student), "rows": counts, **asdict(trained)}
            return {**result, "seconds": round(time.perf_counter() - started, 1)}

        about = {
            "student": asdict(student),
            "teachers": [asdict(teacher) for teacher in teachers_of(setting, self.recipe)],
            "setting": asdict(setting),
            "seed": one.seed,
        }
        result, new = self._kept(about, measure)
        return Outcome(self._scores(result), sum(result["rows"].values()), result.get("queries", {})), new

    def _small(self, one: Run, student: Student) -> dict[str, Any]:
        """The result of a small student, which is trained on each set by itself."""
        mined = self.mines[one.seed].mined(one.setting, student.negatives, one.seed)
        ndcg, rows = {}, {}
        for name, own in mined.items():
            given = self._collection(student, name, own)
            model, rows[name] = train_small(
                student, given, own, one.setting.mining, one.seed, in_batch=one.setting.in_batch_negatives
            )
            ndcg[name] = ndcg_of(model, given)
        return {**_measured(ndcg), "rows": rows}

    def _evaluated(self, model: SentenceTransformer, student: Student) -> dict[str, Any]:
        """What a transformer reaches on the test queries. MTEB does not tell how each query fares."""
        if self.recipe.harness == "mteb":
            with tempfile.TemporaryDirectory() as scratch:
                return {"ndcg": evaluate_by_mteb(model, student, self.recipe, Path(scratch))}
        return _measured(evaluate(model, student, self.tests))

    def _collection(self, student: Student, name: str, mined: Mined) -> Collection:
        """A set for a small student, opened once: queries, passages and their ids are the same for all seeds."""
        if (student.kind, name) not in self._collections:
            mine = self.mines[self.recipe.seeds[0]]
            teacher, test = mine.teacher(self.recipe.teacher, 0), next(one for one in self.tests if one.name == name)
            self._collections[student.kind, name] = Collection.of(student, mined, test, teacher, mine.cache)
        return self._collections[student.kind, name]

    def findings(self, before: Mapping[str, Scores], outcomes: Mapping[Run, Outcome]) -> Findings:
        """All numbers of the tables and figures: those of the trainings, and what mining alone says."""
        recipe, seed = self.recipe, self.recipe.seeds[0]
        mine, negatives = self.mines[seed], recipe.students[0].negatives
        hidden, judged, histograms = {}, {}, {}
        for setting in methods_of(recipe):
            mined = mine.mined(setting, negatives, seed)
            hidden[setting] = mine.hidden_shares(mined)
            if recipe.judge is not None:
                judged[setting] = mine.judged_shares(mined)
            if setting.teacher == recipe.teacher:
                histograms[setting] = mine.histograms(mined, recipe.students[0].temperature)
        by_setting: dict[Setting, list[Outcome]] = {}
        for one, found in outcomes.items():
            by_setting.setdefault(one.setting, []).append(found)
        agreement = mine.agreement(methods_of(recipe)[0].student, recipe.agreement) if recipe.ensemble else {}
        trials = [self.trials(one) for one in recipe.seeds] if recipe.trial else []
        return Findings(before, by_setting, hidden, judged, histograms, agreement, trials)

    def trials(self, seed: int) -> dict[str, Any]:
        """What trials of the recipe's methods say, by set: the gain of each, and which is recommended."""
        recipe = self.recipe

        def measure() -> dict[str, Any]:
            found = {}
            for name, trials in self.mines[seed].trials(seed).items():
                gains = {f"{one.method} {one.sampler}": one.gain for trial in trials for one in trial.settings}
                best = [trial.best for trial in trials if trial.best is not None]
                top = max(best, key=lambda one: one.ndcg, default=None)
                found[name] = {"gains": gains, "best": None if top is None else f"{top.method} {top.sampler}"}
            return found

        about = {
            "trial": [[one.method, one.sampler] for one in recipe.methods],
            "teachers": [asdict(recipe.teacher_of(recipe.teacher))],
            "seed": seed,
        }
        return self._kept(about, measure)[0]

    def _digests(self, seed: int) -> dict[str, str]:
        if seed not in self._known:
            self._known[seed] = {one.name: one.digest for one in self.mines[seed].sets}
        return self._known[seed]

    def _scores(self, result: Mapping[str, Any]) -> Scores:
        return {one.name: float(result["ndcg"][one.name]) for one in self.recipe.test_sets}

    def _kept(self, about: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """The result of what ``about`` says, measured if it is not there yet, and whether it was."""
        whole = {
            **about,
            "harness": self.recipe.harness,
            "rows": self._digests(about["seed"]) if "seed" in about else {},
            "tests": self._tests or [asdict(one) for one in self.recipe.test_sets],
        }
        path = self.output / RESULTS / f"{digest_of(whole)}.json"
        new = not path.exists()
        if new:
            write_json(path, {"about": whole, "result": measure()})
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["result"]), new
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} holds no result: {error!r}; remove it to have it measured again") from error


def _measured(ndcg: Mapping[str, FloatArray]) -> dict[str, Any]:
    """The means, and what each query has."""
    return {
        "ndcg": {name: float(values.mean()) for name, values in ndcg.items()},
        "queries": {name: [round(float(value), 4) for value in values] for name, values in ndcg.items()},
    }
