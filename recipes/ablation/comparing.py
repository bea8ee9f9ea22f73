"""What one row of a table has more than another, query by query, and what one student says of the other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from hf_negmine.base.schema import FloatArray
from recipes.ablation.recipe import Ablation
from recipes.ablation.settings import Setting, settings_of_methods
from recipes.common.results import interval, markdown, resampled

Scores = Mapping[str, float]
"""NDCG at 10 by test set, from 0 to 1."""


@dataclass(frozen=True)
class Outcome:
    """Of one training.

    Attributes:
        ndcg: of the student.
        rows: that it was trained on.
        queries: NDCG of each test query, by set; empty for a student whose harness does not tell.
    """

    ndcg: Scores
    rows: int
    queries: Mapping[str, Sequence[float]] = field(default_factory=dict)


Outcomes: TypeAlias = Mapping[Setting, Sequence[Outcome]]
"""By setting, one for each seed."""


def name_of(setting: Setting, recipe: Ablation) -> str:
    """A setting in the first column: its mining, or its teacher if that is not the main one."""
    return str(setting.mining) if setting.teacher == recipe.teacher else f"{setting.teacher} negatives"


def differences(settings: Sequence[Setting], recipe: Ablation, outcomes: Outcomes) -> list[str]:
    """What each row has more than the recipe's own mining; nothing where NDCG is not known of every query."""
    own = next((one for one in settings if _is_own(one, recipe)), None)
    sets = [one.name for one in recipe.test_sets]
    if own is None or not all(one.queries for setting in settings for one in outcomes[setting]):
        return []
    cells = []
    for setting in settings:
        if setting != own:
            drawn = [resampled(_gains(outcomes, setting, own, name), place) for place, name in enumerate(sets)]
            together = np.mean([values for _, values in drawn], axis=0)
            both = [(statistics.mean(gain for gain, _ in drawn), together), *drawn]
            cells.append([name_of(setting, recipe), *(interval(gain, values) for gain, values in both)])
    title = f"More than with {recipe.mining}: 95 % intervals over queries and seeds, for the same seed and query"
    return [f"{title}.", markdown(["NDCG@10", "average", *sets], cells)]


def as_a_guide(settings: Sequence[Setting], recipe: Ablation, outcomes: Outcomes) -> list[str]:
    """How well one student's gains foretell another's, over the rows that both have: a small student's the first's.

    Args:
        settings: of the second student.
        recipe: whose first student is the other; if both are small, it is the guide.
        outcomes: of both.
    """
    first, sets = recipe.students[0], [one.name for one in recipe.test_sets]
    twins = [replace(one, student=first.name, in_batch_negatives=recipe.in_batch_negatives[0]) for one in settings]
    pairs = [(ours, theirs) for ours, theirs in zip(twins, settings, strict=True) if ours in outcomes]
    own = next((place for place, (one, _) in enumerate(pairs) if _is_own(one, recipe)), None)
    if own is None or len(pairs) < 3:
        return []
    if not first.is_small:
        pairs = [(theirs, ours) for ours, theirs in pairs]
    guides, others = zip(*pairs, strict=True)
    names, cells = [name_of(one, recipe) for one in guides], []
    for name in sets:
        guide, real = (_means(side, outcomes, name) for side in (guides, others))
        cells.append([name, *_guided(guide, real, names, [int(guide.argmax())], own)])
    return [
        f"Were {guides[0].student} the guide to {others[0].student} ({len(pairs)} rows, seeds averaged):",
        markdown(_heads(f"best for {guides[0].student}", others[0].student, recipe), cells),
    ]


def trial_as_a_guide(recipe: Ablation, outcomes: Outcomes, trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """How well `try_settings`, which sees the training rows alone, foretells the first student's gains.

    Args:
        recipe: whose methods were tried.
        outcomes: of the trainings.
        trials: for each seed, the gains and the recommended setting by set; without any there is no table.
    """
    if not trials:
        return []
    student = recipe.students[0].name
    settings = settings_of_methods(recipe, student, in_batch=recipe.in_batch_negatives[0])
    settings = [one for one in settings if one.teacher == recipe.teacher and one in outcomes]
    names = [f"{one.mining.method} {one.mining.sampler}" for one in settings]
    own = next(place for place, one in enumerate(settings) if _is_own(one, recipe))
    cells = []
    for name in (one.name for one in recipe.test_sets):
        guide = np.array([statistics.mean(trial[name]["gains"][setting] for trial in trials) for setting in names])
        chosen = [own if trial[name]["best"] is None else names.index(trial[name]["best"]) for trial in trials]
        cells.append([name, *_guided(guide, _means(settings, outcomes, name), names, chosen, own)])
    return [
        f"Were `try_settings` the guide to {student}, which tries the methods on the training rows of each seed:",
        markdown(_heads("recommended", student, recipe), cells),
    ]


def _means(settings: Sequence[Setting], outcomes: Outcomes, name: str) -> FloatArray:
    """NDCG of each setting on a set, the mean over its seeds."""
    return np.array([statistics.mean(one.ndcg[name] for one in outcomes[setting]) for setting in settings])


def _guided(guide: FloatArray, real: FloatArray, names: Sequence[str], chosen: Sequence[int], own: int) -> list[str]:
    """What following a guide would have given: its choices, and what they and the recipe's own mining lose."""
    ranks = [np.argsort(np.argsort(values)) for values in (guide, real)]
    losses = (f"{real.max() - value:.4f}" for value in (real[list(chosen)].mean(), real[own]))
    picked = " / ".join(dict.fromkeys(names[one] for one in chosen))
    return [f"{float(np.corrcoef(ranks).ravel()[1]):.2f}", picked, names[int(real.argmax())], *losses]


def _heads(chosen: str, student: str, recipe: Ablation) -> list[str]:
    return ["set", "rank correlation", chosen, f"best for {student}", "regret", f"regret of {recipe.mining}"]


def _is_own(setting: Setting, recipe: Ablation) -> bool:
    """Whether a row is the recipe's own mining, which the others are compared with."""
    return setting.mining == recipe.mining and setting.teacher == recipe.teacher


def _gains(outcomes: Outcomes, setting: Setting, own: Setting, name: str) -> FloatArray:
    """Of one set, shape (seeds, queries)."""
    ours, theirs = (np.array([one.queries[name] for one in outcomes[which]]) for which in (setting, own))
    return np.asarray(ours - theirs)
