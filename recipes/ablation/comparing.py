"""What one row of a table has more than another, query by query, and what one student says of the other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from hf_negmine.base.schema import FloatArray
from recipes.ablation.recipe import Ablation
from recipes.ablation.settings import Setting
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
    """How well the first student's gains foretell those of the second, over the rows that both have."""
    first, sets = recipe.students[0].name, [one.name for one in recipe.test_sets]
    pairs = {replace(one, student=first, in_batch_negatives=recipe.in_batch_negatives[0]): one for one in settings}
    pairs = {ours: theirs for ours, theirs in pairs.items() if ours in outcomes}
    own = next((place for place, one in enumerate(pairs) if _is_own(one, recipe)), None)
    if own is None or len(pairs) < 3:
        return []
    cells: list[list[str]] = []
    for name in sets:
        guide, real = (
            np.array([statistics.mean(one.ndcg[name] for one in outcomes[setting]) for setting in side])
            for side in (pairs.keys(), pairs.values())
        )
        ranks = [np.argsort(np.argsort(values)) for values in (guide, real)]
        chosen, names = int(guide.argmax()), [name_of(one, recipe) for one in pairs]
        losses = (f"{real.max() - real[place]:.4f}" for place in (chosen, own))
        cells.append(
            [name, f"{float(np.corrcoef(ranks).ravel()[1]):.2f}", names[chosen], names[int(real.argmax())], *losses]
        )
    head = ["set", "rank correlation", f"best for {first}", "best here", "regret", f"regret of {recipe.mining}"]
    return [f"Were {first} the guide ({len(pairs)} rows, seeds averaged):", markdown(head, cells)]


def _is_own(setting: Setting, recipe: Ablation) -> bool:
    """Whether a row is the recipe's own mining, which the others are compared with."""
    return setting.mining == recipe.mining and setting.teacher == recipe.teacher


def _gains(outcomes: Outcomes, setting: Setting, own: Setting, name: str) -> FloatArray:
    """Of one set, shape (seeds, queries)."""
    ours, theirs = (np.array([one.queries[name] for one in outcomes[which]]) for which in (setting, own))
    return np.asarray(ours - theirs)
