"""The mining methods: which candidates of a query may become negatives. One function per formula, with its source.

A method is a ceiling (the score a negative must stay under), a floor, and a window of ranks. Section and table numbers
are those of NV-Retriever (arXiv 2407.15831). Methods combine with ``&``: ``TopKPercPos(0.95) & RankBand(10, 100)``
takes the candidates that both allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, cast

import numpy as np

from hf_negmine.base.errors import MOST, InputError, is_integer, require
from hf_negmine.base.protocols import Ceiling
from hf_negmine.base.schema import FloatArray
from hf_negmine.base.wording import number_text


def perc_pos_ceiling(positive_scores: FloatArray, percentage: float) -> FloatArray:
    """Section 3.1, TopK-PercPos: ``p * percentage``, as ``p - |p| (1 - percentage)``, lower than p for p < 0, too."""
    scores = positive_scores.astype(np.float64)
    return (scores - np.abs(scores) * (1.0 - percentage)).astype(np.float32)


def margin_pos_ceiling(positive_scores: FloatArray, margin: float) -> FloatArray:
    """Section 3.1, TopK-MarginPos: ``p - margin``."""
    return (positive_scores.astype(np.float64) - margin).astype(np.float32)


def abs_ceiling(positive_scores: FloatArray, threshold: float) -> FloatArray:
    """Section 3.1, TopK-Abs: the same ``threshold`` for every query."""
    return np.full(positive_scores.shape, threshold, dtype=np.float32)


@dataclass(frozen=True)
class PercentileCeiling:
    """The same ceiling for every query: a percentile of the scores of all positives.

    Attributes:
        threshold: that score; None until `Method.settled` has seen the scores.
    """

    threshold: float | None = None

    def __call__(self, positive_scores: FloatArray, percentile: float) -> FloatArray:
        """See `Rule.formula`."""
        if self.threshold is None:
            raise InputError(
                f"percentile:{number_text(percentile)} depends on the scores of all positives; select from a pool, or "
                "take method.settled(scores)"
            )
        return abs_ceiling(positive_scores, self.threshold)


@dataclass(frozen=True)
class Rule:
    """One limit on the score of a negative that depends on the positive score.

    Attributes:
        name: the rule's word in a method's spec.
        value: the rule's only number.
        formula: maps positive scores and the number to ceilings.
    """

    name: str
    value: float
    formula: Callable[[FloatArray, float], FloatArray]

    def ceilings(self, positive_scores: FloatArray) -> FloatArray:
        """The ceiling for each positive score (exclusive), float32, same shape."""
        return self.formula(positive_scores, self.value)

    def __str__(self) -> str:
        return f"{self.name}:{number_text(self.value)}"


@dataclass(frozen=True)
class Method:
    """Which candidates of a query may become its negatives.

    Attributes:
        rules: ceilings (a `Rule`, or anything that follows the `Ceiling` protocol); the lowest one counts.
        floor: the lowest score (inclusive) a negative may have.
        first_rank: ranks below it are left out. Ranks count from 0 among the passages that are neither a
            positive of the query nor its own text, before any ceiling. A float is a fraction of the corpus.
        last_rank: ranks from it on are left out; None for all. A float is a fraction of the corpus.
    """

    rules: tuple[Ceiling, ...] = ()
    floor: float = -float("inf")
    first_rank: int | float = 0
    last_rank: int | float | None = None

    def __post_init__(self) -> None:
        first, last = self.first_rank, self.last_rank
        require(not np.isnan(self.floor), f"Method: floor is a number, got {self.floor!r}")
        require(
            first >= 0 and (last is None or first < last), f"Method: 0 <= first_rank < last_rank; got {first}, {last}"
        )

    def ceilings(self, positive_scores: FloatArray) -> FloatArray:
        """The ceiling for each positive score (exclusive; +inf for none), float32, same shape."""
        limits = np.full(positive_scores.shape, np.inf, dtype=np.float32)
        for rule in self.rules:
            limits = np.minimum(limits, rule.ceilings(positive_scores))
        return limits

    @property
    def sees_all_positives(self) -> bool:
        """Whether its ceilings depend on the positives of other queries, so that `settled` must see them first."""
        return any(map(_is_percentile, self.rules))

    def settled(self, every: FloatArray) -> Method:
        """The same method for a data set whose positives have these scores, so that percentiles of them are known."""

        def settle(rule: Ceiling) -> Ceiling:
            if not _is_percentile(rule):
                return rule
            return replace(rule, formula=PercentileCeiling(float(np.percentile(every.astype(np.float64), rule.value))))

        return replace(self, rules=tuple(map(settle, self.rules)))

    def ranks(self, n_passages: int) -> tuple[int, int | None]:
        """The first rank and the rank to stop before, for a corpus of this size."""
        first = _rank(self.first_rank, n_passages)
        return first, None if self.last_rank is None else max(_rank(self.last_rank, n_passages), first + 1)

    def __and__(self, other: Method) -> Method:
        ranks = (self.first_rank, self.last_rank, other.first_rank, other.last_rank)
        if len({isinstance(rank, float) for rank in ranks if rank}) > 1:
            raise InputError(f"{self} and {other} cannot be combined: one counts ranks, the other percentiles")
        lasts = [last for last in (self.last_rank, other.last_rank) if last is not None]
        first, last = max(self.first_rank, other.first_rank), min(lasts) if lasts else None
        require(
            last is None or first < last, f"{self} and {other} cannot be combined: no rank is inside both their bands"
        )
        return Method(self.rules + other.rules, max(self.floor, other.floor), first, last)

    def __str__(self) -> str:
        parts = [str(rule) for rule in self.rules]
        if self.last_rank is not None:
            parts.append(f"band:{_rank_text(self.first_rank)}-{_rank_text(self.last_rank)}")
        elif self.first_rank:
            parts.append(f"shifted:{_rank_text(self.first_rank)}")
        if self.floor > -np.inf:
            parts.append(f"min:{number_text(self.floor)}")
        return "+".join(parts) or "naive"


def NaiveTopK() -> Method:
    """Every passage but the positives may be a negative (section 3.1)."""
    return Method()


def TopKShifted(n: int = 10) -> Method:
    """Leave out the first ``n`` non-positives of the ranking (section 3.1; table 3: N = 10)."""
    require(is_integer(n) and 0 <= n <= MOST, f"TopKShifted: n is a number of ranks, 0 or more; got {n!r}")
    return Method(first_rank=int(n))


def TopKAbs(threshold: float = 0.7) -> Method:
    """Keep candidates that score under a fixed ``threshold`` (section 3.1; table 3: 0.7)."""
    return Method((Rule("abs", _finite(threshold, "TopKAbs: threshold"), abs_ceiling),))


def TopKMarginPos(margin: float = 0.05) -> Method:
    """Keep candidates that score under the positive score minus ``margin`` (section 3.1; table 3: 0.05)."""
    return Method((Rule("margin_pos", _finite(margin, "TopKMarginPos: margin"), margin_pos_ceiling),))


def TopKPercPos(percentage: float = 0.95) -> Method:
    """Keep candidates that score under ``percentage`` of the positive score (section 3.1; table 3: 95 %).

    Args:
        percentage: a fraction, 0.95 for 95 %. The paper sweeps it up to 1.05.
    """
    percentage = _finite(percentage, "TopKPercPos: percentage")
    require(
        0.0 <= percentage <= 2.0,
        f"TopKPercPos: percentage is a fraction between 0 and 2, got {percentage:g}"
        + (f"; for {percentage:g} % give {percentage / 100:g}" if percentage > 2 else ""),
    )
    return Method((Rule("perc_pos", percentage, perc_pos_ceiling),))


def TopKPercentile(percentile: float = 25.0) -> Method:
    """Keep candidates that score under a percentile of the scores of all positives of the data set.

    Unlike an absolute ceiling it follows the teacher's scale.

    Args:
        percentile: from 0 to 100; at 25, three quarters of the positives score over the ceiling.
    """
    percentile = _finite(percentile, "TopKPercentile: percentile")
    require(0 <= percentile <= 100, f"TopKPercentile: percentile is between 0 and 100, got {percentile:g}")
    return Method((Rule("percentile", percentile, PercentileCeiling()),))


def RankBand(first: int | float, last: int | float) -> Method:
    """Keep ranks from ``first`` (from 0) up to but excluding ``last`` (SFR-Embedding-Mistral: 30 to 100).

    Two floats are fractions of the corpus: ``RankBand(0.03, 0.04)`` is ConFit v2's runner-up mining.
    """
    if isinstance(first, float) or isinstance(last, float):
        valid = 0 <= first < last <= 1 and (isinstance(first, float) or first == 0)
        require(valid, f"RankBand: percentiles are fractions with 0 <= first < last <= 1; got {first!r} and {last!r}")
        return Method(first_rank=float(first), last_rank=float(last))
    valid = is_integer(first) and is_integer(last) and 0 <= first < last <= MOST
    require(valid, f"RankBand: ranks are whole numbers with 0 <= first < last; got {first!r} and {last!r}")
    return Method(first_rank=int(first), last_rank=int(last))


def ScoreFloor(minimum: float) -> Method:
    """Keep candidates that score at least ``minimum``."""
    return Method(floor=_finite(minimum, "ScoreFloor: minimum"))


_RANK = r"(\d+(?:\.\d+)?(?:e-\d+)?)(%?)"


def resolve_method(method: Any) -> Method:
    """Make a method from what users write: a `Method`, its spec, or None for the paper's best (table 3)."""
    if method is None:
        return TopKPercPos()
    if isinstance(method, str):
        return parse_method(method)
    require(isinstance(method, Method), f"method: expected a method such as TopKPercPos(0.95), got {method!r}")
    return cast(Method, method)


def parse_method(spec: str) -> Method:
    """Make a method from its spec, the inverse of ``str(method)``.

    Args:
        spec: which passages may be negatives, by the teacher's score: ``perc_pos:0.95`` under 95 % of the positive's
            score, ``margin_pos:0.05`` more than 0.05 below it, ``abs:0.7`` under 0.7, ``percentile:25`` under the
            lowest quarter of all positives' scores, ``shifted:10`` all but the first 10 ranks, ``band:30-100`` only
            these ranks (``band:3%-4%`` of the corpus), ``min:0.2`` at least 0.2, ``naive`` all. Several joined by ``+``
            must all agree.

    Raises:
        InputError: the spec is not understood, or a number is out of range.
    """
    method = Method()
    for part in spec.split("+"):
        name, _, value = part.strip().partition(":")
        method = method & _parse_part(name, value, spec)
    return method


def _parse_part(name: str, value: str, spec: str) -> Method:
    makers: dict[str, Callable[[float], Method]] = {
        "abs": TopKAbs,
        "margin_pos": TopKMarginPos,
        "perc_pos": TopKPercPos,
        "percentile": TopKPercentile,
        "min": ScoreFloor,
    }
    if name == "naive" and not value:
        return NaiveTopK()
    if name == "band" and (match := re.fullmatch(f"{_RANK}-{_RANK}", value)):
        first, first_unit, last, last_unit = match.groups()
        if last_unit:
            return RankBand(float(first) / 100, float(last) / 100)
        if first.isdecimal() and last.isdecimal() and not first_unit:
            return RankBand(int(first), int(last))
    if name == "shifted" and value.isdecimal():
        return TopKShifted(int(value))
    if name in makers:
        try:
            return makers[name](float(value))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
    raise InputError(
        f"method {spec!r} is not understood; write for example perc_pos:0.95, margin_pos:0.05, abs:0.7, percentile:25, "
        "shifted:10, band:30-100, band:3%-4%, min:0.2 or naive, several joined by +"
    )


def _is_percentile(rule: Ceiling) -> TypeGuard[Rule]:
    return isinstance(rule, Rule) and isinstance(rule.formula, PercentileCeiling)


def _rank(rank: int | float, n_passages: int) -> int:
    # 0.29 * 100 is 28.999999999999996
    return int(rank * n_passages + 1e-6) if isinstance(rank, float) else rank


def _rank_text(rank: int | float) -> str:
    return f"{rank * 100:.15g}%" if isinstance(rank, float) else str(rank)


def _finite(value: float, argument: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    require(bool(np.isfinite(number)) and not isinstance(value, bool), f"{argument} is a finite number; got {value!r}")
    return number
