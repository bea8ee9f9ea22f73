"""The arguments of Sentence Transformers' function, checked with its error messages; limits on scores as a method."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import cast

import numpy as np

from hf_negmine.base.choices import Format
from hf_negmine.base.errors import InputError, require, require_whole
from hf_negmine.select.methods import Method, NaiveTopK, ScoreFloor, TopKAbs, TopKMarginPos, TopKPercPos

logger = logging.getLogger(__name__)

FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


@dataclass(frozen=True)
class Limits:
    """Limits on the score of a negative, by argument name; None for those not given."""

    absolute_margin: float | None
    relative_margin: float | None
    max_score: float | None
    min_score: float | None

    def __post_init__(self) -> None:
        for name in self.given:
            value = getattr(self, name)
            number = isinstance(value, int | float | np.number) and bool(np.isfinite(value))
            require(number, f"{name}: expected a finite number or None, got {value!r}")
        share = self.relative_margin
        require(
            share is None or -1 <= share <= 1,
            f"relative_margin: expected a share of the positive score between -1 and 1, such as 0.05, got {share}",
        )

    @property
    def given(self) -> list[str]:
        """The names of the limits that were given."""
        return [name for name, value in vars(self).items() if value is not None]

    @property
    def method(self) -> Method:
        """All limits as one method."""
        method = NaiveTopK()
        if self.absolute_margin is not None:
            method &= TopKMarginPos(self.absolute_margin)
        if self.relative_margin is not None:
            method &= TopKPercPos(1.0 - self.relative_margin)
        if self.max_score is not None:
            method &= TopKAbs(self.max_score)
        if self.min_score is not None:
            method &= ScoreFloor(self.min_score)
        return method


def check_numbers(num_negatives: int, range_min: int, range_max: int | None, faiss_batch_size: int) -> None:
    """Raise `InputError` for numbers that Sentence Transformers refuses, with its wording."""
    require_whole(num_negatives, "num_negatives")
    require_whole(range_min, "range_min")
    if range_max is not None:
        require_whole(range_max, "range_max")
    require(num_negatives >= 1, f"num_negatives must be at least 1, got num_negatives={num_negatives}.")
    require(range_min >= 0, f"range_min must be non-negative, got range_min={range_min}.")
    require(faiss_batch_size > 0, f"faiss_batch_size must be a positive integer, got {faiss_batch_size}.")
    if range_max is None:
        return
    require(
        range_min < range_max,
        f"range_min must be smaller than range_max, got range_min={range_min} and range_max={range_max}.",
    )
    require(
        num_negatives <= range_max - range_min,
        f"Cannot mine {num_negatives} negatives per query: only {range_max - range_min} candidates remain after "
        f"skipping the first range_min={range_min} of range_max={range_max}. Consider decreasing num_negatives or "
        "range_min, or increasing range_max.",
    )


def settle_format(
    output_format: str, output_scores: bool, as_triplets: bool | None, *, include_positives: bool
) -> tuple[Format, bool]:
    """The format, and whether it has scores, after applying deprecated arguments and ``include_positives``."""
    if as_triplets is not None:
        output_format = "triplet" if as_triplets else "n-tuple"
        logger.warning("`as_triplets` is deprecated: use output_format=%r", output_format)
    if include_positives and output_format != "n-tuple":
        output_format = "n-tuple"
        logger.warning("include_positives=True keeps the ranking: output_format is set to 'n-tuple'")
    if output_format == "n-tuple-scores":
        output_format, output_scores = "n-tuple", True
        logger.warning("output_format='n-tuple-scores' is deprecated: use 'n-tuple' with output_scores=True")
    if output_format not in FORMATS:
        raise InputError(
            f"Invalid output_format: {output_format}. Must be one of 'triplet', 'n-tuple', 'labeled-pair', or "
            "'labeled-list'."
        )
    return cast(Format, output_format), output_scores
