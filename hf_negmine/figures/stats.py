"""The numbers behind the pictures of a mined set: histograms as in figure 4 of NV-Retriever (arXiv 2407.15831)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hf_negmine.base.schema import FloatArray, IdArray

BINS = 50
TEMPERATURE = 0.05
"""Temperature of the contrastive loss; the inverse of MultipleNegativesRankingLoss' scale of 20."""


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        edges: edges of the bins, one more than there are counts.
        counts: number of values in each bin.
        mean: mean of the values; None if there are none.
    """

    edges: list[float]
    counts: list[int]
    mean: float | None

    @classmethod
    def of(cls, values: FloatArray, low: float, high: float, bins: int = BINS) -> Histogram:
        """Count ``values`` between ``low`` and ``high``."""
        if high <= low:
            low, high = low - 0.5, high + 0.5
        counts, edges = np.histogram(values.astype(np.float64), bins=bins, range=(low, high))
        mean = round(float(values.astype(np.float64).mean()), 6) if len(values) else None
        return cls([round(float(edge), 6) for edge in edges], counts.tolist(), mean)


@dataclass(frozen=True)
class ScoreHistograms:
    """The data of figure 4 for one mined set.

    Attributes:
        positives, negatives: the teacher's scores, in the same bins.
        differences: the positive score that set a ceiling minus the score of each negative under it.
        losses: -log softmax of that positive among it and its negatives, at ``temperature``, one value per row.
        temperature: the temperature of that softmax.
    """

    positives: Histogram
    negatives: Histogram
    differences: Histogram
    losses: Histogram
    temperature: float

    def as_dict(self) -> dict[str, Any]:
        """The histograms as JSON-able content."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ScoreHistograms:
        """The inverse of `as_dict`."""
        parts = {name: Histogram(**content[name]) for name in ("positives", "negatives", "differences", "losses")}
        return cls(**parts, temperature=content["temperature"])

    @classmethod
    def of(
        cls,
        pair_scores: FloatArray,
        references: FloatArray,
        offsets: IdArray,
        negative_scores: FloatArray,
        *,
        temperature: float = TEMPERATURE,
    ) -> ScoreHistograms:
        """Histograms of a selection.

        Args:
            pair_scores: the teacher's score of every positive.
            references: for each negative, the positive score that set its ceiling, shape (offsets[-1],).
            offsets: int64, shape (targets + 1,): the negatives of each target.
            negative_scores: same shape as ``references``.
            temperature: the temperature of the loss.
        """
        differences = references - negative_scores
        losses = contrastive_losses(differences, offsets, temperature)
        low, high = _range(np.concatenate([pair_scores, negative_scores]))
        return cls(
            positives=Histogram.of(pair_scores, low, high),
            negatives=Histogram.of(negative_scores, low, high),
            differences=Histogram.of(differences, *_range(differences)),
            losses=Histogram.of(losses, 0.0, _range(losses)[1]),
            temperature=temperature,
        )


@dataclass(frozen=True)
class FrontPoint:
    """A setting of a sweep in the picture of its front.

    Attributes:
        name: method and sampler.
        score: mean score of its negatives.
        share: the share of them that are false, from 0 to 1.
        front: whether no other setting is as hard with fewer false negatives.
        best: whether it is recommended.
    """

    name: str
    score: float
    share: float
    front: bool
    best: bool


def contrastive_losses(differences: FloatArray, offsets: IdArray, temperature: float) -> FloatArray:
    """-log softmax of the positive among it and its negatives, for the teacher's scores over the temperature.

    Rows without negatives have no loss. Computed as log(1 + sum of exp((negative - positive) / temperature)), from the
    largest term down, so that no exponential overflows.
    """
    counts = np.diff(offsets)
    rows = np.flatnonzero(counts)
    if not len(rows):
        return np.empty(0, dtype=np.float32)
    gaps = -differences.astype(np.float64) / temperature
    largest = np.maximum(np.maximum.reduceat(gaps, offsets[:-1][rows]), 0.0)
    place = np.repeat(np.arange(len(rows)), counts[rows])
    sums = np.exp(-largest) + np.bincount(place, np.exp(gaps - largest[place]), minlength=len(rows))
    return np.asarray(largest + np.log(sums), dtype=np.float32)


def _range(values: FloatArray) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
