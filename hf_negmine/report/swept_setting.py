"""One setting of a sweep in numbers: how hard its negatives are, and how many are false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hf_negmine.report.false_negatives import Share
from hf_negmine.select import Selection
from hf_negmine.select.ensembles import agreement

HEADS = ("method", "sampler", "complete", "mean score", "95th percentile", "over positive", "Jaccard")
FALSE = ("judged", "false, measured", "95 % interval", "false, estimated", "front")
"""Further columns of a sweep with judgements."""
NAMES = 2
"""How many of the first columns are names, and not numbers."""


@dataclass(frozen=True)
class SweptSetting:
    """What one setting selects, in numbers.

    Attributes:
        method, sampler: the setting.
        negatives: how many were selected in all.
        complete: share of the queries (or pairs, with one ceiling per positive) that have n negatives.
        mean_score, percentile_95: of the negatives, in the teacher's scale; None if there are none.
        over_positive: share of the negatives that score over the positive that sets their ceiling; None if
            there are none.
        jaccard: mean Jaccard similarity to the negatives of the miner's own setting.
        judged: how many of the negatives are judged.
        measured, low, high: the share of these that are false, with its 95 % interval (Wilson); None without any.
        estimated: the share of all that are false, see `Sweep`; None without enough judgements.
        front: whether no other setting has negatives as hard with a lower share of false ones; None without estimates.
    """

    method: str
    sampler: str
    negatives: int
    complete: float
    mean_score: float | None
    percentile_95: float | None
    over_positive: float | None
    jaccard: float
    judged: int = 0
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    estimated: float | None = None
    front: bool | None = None

    @classmethod
    def of(cls, selection: Selection, reference: Selection, share: Share) -> SweptSetting:
        """The numbers of a selection; ``reference`` selects for the same targets."""
        scores = selection.scores.astype(np.float64)
        return cls(
            method=str(selection.method),
            sampler=str(selection.sampler),
            negatives=len(scores),
            complete=_mean(selection.complete) or 0.0,
            mean_score=_mean(scores),
            percentile_95=round(float(np.quantile(scores, 0.95)), 6) if len(scores) else None,
            over_positive=_mean(scores > selection.references),
            jaccard=round(float(agreement([selection, reference])[0, 1]), 6),
            **asdict(share),
        )

    @property
    def name(self) -> str:
        """Method and sampler."""
        return f"{self.method} {self.sampler}"

    @property
    def cells(self) -> list[str]:
        """What a table says of it, a text for each of `HEADS`."""
        scores = ["-" if value is None else f"{value:.4f}" for value in (self.mean_score, self.percentile_95)]
        shares = [percent(share) for share in (self.complete, self.over_positive)]
        return [self.method, self.sampler, shares[0], *scores, shares[1], f"{self.jaccard:.2f}"]

    @property
    def false_cells(self) -> list[str]:
        """The same for `FALSE`."""
        interval = "-" if self.low is None else f"[{percent(self.low)}, {percent(self.high)}]"
        shares = [percent(self.measured), interval, percent(self.estimated)]
        return [f"{self.judged:,}", *shares, {None: "-", True: "*", False: ""}[self.front]]


def with_front(settings: Sequence[SweptSetting]) -> tuple[SweptSetting, ...]:
    """The settings, marked where no other is as hard with fewer false negatives, or harder with as few."""
    if any(one.estimated is None for one in settings if one.negatives):
        return tuple(settings)
    points = [(one.mean_score or 0.0, -(one.estimated or 0.0)) for one in settings if one.negatives]

    def leads(one: SweptSetting) -> bool:
        own = (one.mean_score or 0.0, -(one.estimated or 0.0))
        beaten = any(other != own and other[0] >= own[0] and other[1] >= own[1] for other in points)
        return one.negatives > 0 and not beaten

    return tuple(replace(one, front=leads(one)) for one in settings) if points else tuple(settings)


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    return round(float(values.mean(dtype=np.float64)), 6) if len(values) else None
