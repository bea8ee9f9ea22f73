"""Tables and figures in the paper's shape, with the paper's numbers beside ours."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hf_negmine.base.schema import AnyArray
from hf_negmine.figures.plots import plot_curves, plot_scores, plot_shares, save_png
from hf_negmine.figures.stats import ScoreHistograms
from recipes.ablation.comparing import Outcome, Scores, as_a_guide, differences, name_of, trial_as_a_guide
from recipes.ablation.paper import FIGURE_3, TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_6, TEST_SETS, Row
from recipes.ablation.recipe import Ablation, Mining
from recipes.ablation.settings import (
    Setting,
    methods_of,
    settings_of_ensembles,
    settings_of_methods,
    settings_of_sweeps,
    settings_of_teachers,
)
from recipes.common.results import markdown, mean_and_spread


@dataclass(frozen=True)
class Findings:
    """What was measured.

    Attributes:
        before: of the untrained students, by name.
        outcomes: of the trainings, by setting: one per seed.
        hidden: share of the negatives that are hidden positives, by method and training set that hides any.
        judged: the same by the judge's verdicts; empty without one.
        histograms: of the teacher's scores, by method.
        agreement: of the ensemble's teachers, by training set, shape (teachers, teachers).
        trials: for each seed and training set, the gains of the methods in a trial, and the recommended one.
    """

    before: Mapping[str, Scores]
    outcomes: Mapping[Setting, Sequence[Outcome]]
    hidden: Mapping[Setting, Mapping[str, float]]
    judged: Mapping[Setting, Mapping[str, float]]
    histograms: Mapping[Setting, ScoreHistograms]
    agreement: Mapping[str, AnyArray]
    trials: Sequence[Mapping[str, Any]]


def report_of(recipe: Ablation, findings: Findings, *, figures: str) -> str:
    """All tables and figures, as Markdown.

    Args:
        recipe: that was run.
        findings: what came out.
        figures: folder of the pictures, as the report's reader sees it.
    """
    first, *others = recipe.students
    several = len(recipe.training_sets) > 1
    together = "" if not several else ", each by itself" if first.is_small else ", all in one training"
    parts = [
        f"NDCG@10, mean and standard deviation over the seeds {', '.join(map(str, recipe.seeds))}. Trained on "
        + ", ".join(f"{one.name} (at most {one.rows:,} rows)" for one in recipe.training_sets)
        + f"{together}. The columns behind «paper» are the paper's, of its own sets and models.",
        f"### Table 1: teachers, {recipe.mining} (student {first.name}, {first.negatives} negatives)",
        _table("teacher", settings_of_teachers(recipe), _names_of_teachers(recipe), TABLE_1, recipe, findings),
        *_ensembles(recipe, findings),
    ]
    for in_batch in recipe.in_batch_negatives:
        kinds = "and in-batch negatives" if in_batch else "negatives only"
        settings = settings_of_methods(recipe, first.name, in_batch=in_batch)
        parts += [
            f"### Table 3: methods, teacher {recipe.teacher} (student {first.name}, {first.negatives} hard {kinds})",
            _table("method", settings, _names_of_methods(settings, recipe), TABLE_3, recipe, findings),
            *differences(settings, recipe, findings.outcomes),
        ]
    for second in others:
        settings = settings_of_methods(recipe, second.name, in_batch=recipe.in_batch_negatives[0])
        plural = "s" if second.negatives > 1 else ""
        parts += [
            f"### Table 4: methods, teacher {recipe.teacher} (student {second.name}, "
            f"{second.negatives} negative{plural})",
            _table("method", settings, _names_of_methods(settings, recipe), TABLE_4, recipe, findings),
            *differences(settings, recipe, findings.outcomes),
            *as_a_guide(settings, recipe, findings.outcomes),
        ]
    parts += [
        *trial_as_a_guide(recipe, findings.outcomes, findings.trials),
        *_agreement(recipe, findings),
        *_curve("Figure 1: thresholds", f"{figures}/figure1.png", _points(recipe, findings, sampled=False)),
        *_curve(
            "Figure 2: sampling from the k best", f"{figures}/figure2.png", _points(recipe, findings, sampled=True)
        ),
        *_false_negatives(recipe, findings, f"{figures}/figure3.png"),
        f"### Figure 4: scores of {recipe.teacher}, and the loss that they make",
        *(f"![{setting.mining}]({figures}/{_picture(setting)}.png)" for setting in _drawn(findings)),
        _score_means(findings),
    ]
    return "\n\n".join(parts)


def _curve(title: str, picture: str, points: str) -> list[str]:
    """A figure with its numbers; nothing without any."""
    return [f"### {title}", f"![NDCG@10]({picture})", points] if points else []


def draw(recipe: Ablation, findings: Findings) -> dict[str, bytes]:
    """Figures 1 to 4 as PNG, by the name of their file."""
    methods = methods_of(recipe)
    levels = {
        str(setting.mining) if setting.teacher == recipe.teacher else "random negatives": _average(findings, setting)
        for setting in methods
        if str(setting.mining) == "naive"
    }
    curves = {
        name: [(value, _average(findings, setting)) for value, setting in points]
        for name, points in settings_of_sweeps(recipe).items()
    }
    sampled = {name: points for name, points in curves.items() if name == "sampled"}
    thresholds = {name: points for name, points in curves.items() if name != "sampled"}
    pictures = {}
    if thresholds:
        pictures["figure1"] = plot_curves(thresholds, levels, x_label="threshold", y_label="NDCG@10")
    if sampled:
        pictures["figure2"] = plot_curves(sampled, levels, x_label="k", y_label="NDCG@10")
    shares: dict[str, dict[str, float]] = {}
    for setting, by_set in (findings.judged or findings.hidden).items():
        for name, share in by_set.items():
            shares.setdefault(name, {})[name_of(setting, recipe)] = share
    if shares:
        pictures["figure3"] = plot_shares(shares, x_label="% of the negatives")
    for setting in _drawn(findings):
        pictures[_picture(setting)] = plot_scores(findings.histograms[setting], title=str(setting.mining))
    return {name: _png(picture) for name, picture in pictures.items()}


def _drawn(findings: Findings) -> list[Setting]:
    """Rows of table 3 that figure 4 shows: the methods, without their samplings and vetoes."""
    return [setting for setting in findings.histograms if setting.mining == Mining(setting.mining.method)]


def _png(picture: object) -> bytes:
    file = io.BytesIO()
    save_png(picture, file)  # type: ignore[arg-type]
    return file.getvalue()


def _picture(setting: Setting) -> str:
    return "figure4-" + "".join(letter if letter.isalnum() else "-" for letter in str(setting.mining))


# ---- rows ----------------------------------------------------------------------------------------------------------


def _names_of_teachers(recipe: Ablation) -> list[tuple[str, str | None]]:
    return [(teacher.name, teacher.paper) for teacher in recipe.teachers]


def _names_of_methods(settings: Sequence[Setting], recipe: Ablation) -> list[tuple[str, str | None]]:
    by_teacher = [setting.teacher == recipe.teacher for setting in settings]
    return [
        (name_of(setting, recipe), str(setting.mining) if own else None)
        for setting, own in zip(settings, by_teacher, strict=True)
    ]


def _table(
    first: str,
    settings: Sequence[Setting],
    names: Sequence[tuple[str, str | None]],
    paper: Mapping[str, Row],
    recipe: Ablation,
    findings: Findings,
) -> str:
    """Rows of ours with the paper's beside them.

    Args:
        first: what the first column holds.
        settings: one per row.
        names: of each row, and of the paper's row beside it.
        paper: its rows by name.
        recipe: says the sets.
        findings: the numbers.
    """
    sets = [one.name for one in recipe.test_sets]
    with_sets = any(row.sets for row in paper.values())
    paper_head = ["paper", *(f"paper, {name}" for name in TEST_SETS if with_sets)]
    before = findings.before[settings[0].student]
    cells = [["before training", "0", *_means([before], sets), *[""] * len(paper_head)]]
    for setting, (name, of_paper) in zip(settings, names, strict=True):
        row = paper.get(of_paper or "")
        beside = [""] * len(paper_head)
        if row is not None:
            beside = [f"{value:.4f}" for value in (row.average, *((row.sets or ()) if with_sets else ()))]
        rows = statistics.mean(one.rows for one in findings.outcomes[setting])
        cells.append([name, f"{rows:,.0f}", *_means([one.ndcg for one in findings.outcomes[setting]], sets), *beside])
    return markdown([first, "rows", "average", *sets, *paper_head], cells)


def _means(scores: Sequence[Scores], sets: Sequence[str]) -> list[str]:
    """Average and sets, each as its mean over the seeds and their standard deviation."""
    columns = [[statistics.mean(one[name] for name in sets) for one in scores]]
    columns += [[one[name] for one in scores] for name in sets]
    return [mean_and_spread(column) for column in columns]


def _average(findings: Findings, setting: Setting) -> float:
    return statistics.mean(statistics.mean(one.ndcg.values()) for one in findings.outcomes[setting])


def _ensembles(recipe: Ablation, findings: Findings) -> list[str]:
    """Table 2; nothing without teachers to join."""
    settings = settings_of_ensembles(recipe)
    if not settings:
        return []
    kinds = [setting.teacher.partition("(")[0] for setting in settings]
    names = [(kind, kind) for kind in kinds]
    return [
        f"### Table 2: ensembles of {', '.join(recipe.ensemble)}, {recipe.mining}",
        _table("ensemble", settings, names, TABLE_2, recipe, findings),
    ]


def _agreement(recipe: Ablation, findings: Findings) -> list[str]:
    """Table 6; nothing without teachers to compare."""
    if not recipe.ensemble:
        return []
    sets = [one.name for one in recipe.training_sets]
    cells = []
    for one, two in combinations(range(len(recipe.ensemble)), 2):
        pair = (recipe.ensemble[one], recipe.ensemble[two])
        names = tuple(recipe.teacher_of(name).paper or name for name in pair)
        theirs = TABLE_6.get((names[0], names[1]), ())
        beside = [f"{value:.2f}" for value in theirs] or [""] * 3
        cells.append([" and ".join(pair), *(f"{findings.agreement[name][one, two]:.2f}" for name in sets), *beside])
    return [
        f"### Table 6: Jaccard similarity of the {recipe.agreement} best negatives of two teachers",
        markdown(["teachers", *sets, "paper, NQ", "paper, SQuAD", "paper, StackExchange"], cells),
    ]


def _points(recipe: Ablation, findings: Findings, *, sampled: bool) -> str:
    sets = [one.name for one in recipe.test_sets]
    cells = [
        [str(setting.mining), *_means([one.ndcg for one in findings.outcomes[setting]], sets)]
        for name, points in settings_of_sweeps(recipe).items()
        if (name == "sampled") == sampled
        for _, setting in points
    ]
    return markdown(["method", "average", *sets], cells) if cells else ""


def _false_negatives(recipe: Ablation, findings: Findings, picture: str) -> list[str]:
    """Figure 3 with its numbers; nothing where no set hides positives and there is no judge."""
    hiding = [
        one.name for one in recipe.training_sets if any(one.name in shares for shares in findings.hidden.values())
    ]
    judged = [one.name for one in recipe.training_sets if findings.judged]
    if not hiding and not judged:
        return []
    theirs = ["NQ", "StackExchange"]
    head = ["negatives", *(f"{name}, hidden positives" for name in hiding), *(f"{name}, judged" for name in judged)]
    cells = []
    for setting in methods_of(recipe):
        ours = [findings.hidden[setting].get(name) for name in hiding]
        ours += [findings.judged[setting].get(name) for name in judged]
        paper = FIGURE_3.get(str(setting.mining), {}) if setting.teacher == recipe.teacher else {}
        cells.append([name_of(setting, recipe), *map(_percent, [*ours, *(paper.get(name) for name in theirs)])])
    table = markdown([*head, *(f"paper, {name}, judged" for name in theirs)], cells)
    return ["### Figure 3: false negatives", f"![Share of false negatives]({picture})", table]


def _score_means(findings: Findings) -> str:
    cells = []
    for setting, found in findings.histograms.items():
        # Differences and losses are counted from the smallest to the largest of them.
        numbers = (
            found.positives.mean, found.negatives.mean, found.differences.edges[0], found.losses.mean,
            found.losses.edges[-1],
        )  # fmt: skip
        cells.append([str(setting.mining), *("" if number is None else f"{number:.3f}" for number in numbers)])
    head = ["positive score, mean", "negative score, mean", "difference, smallest", "loss, mean", "loss, largest"]
    return markdown(["negatives", *head], cells)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
