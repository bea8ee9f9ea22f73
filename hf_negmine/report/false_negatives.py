"""How many negatives are false: measured on judged ones, and estimated from them for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_negmine.base.schema import AnyArray, BoolArray, IdArray
from hf_negmine.data.texts import TextSet
from hf_negmine.select import Selection
from hf_negmine.select.judgements import Judgements

FEWEST = 10
"""Relevant and other judged negatives that an estimate needs at least, of each."""
Z = 1.959964
"""Half the width of a 95 % interval of a normal distribution, in standard deviations."""
STEPS, RIDGE = 50, 1e-3


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), for ``of`` independent draws of which ``count`` hit; ``of`` > 0."""
    share, square = count / of, Z * Z / of
    middle = (share + square / 2) / (1 + square)
    half = Z * np.sqrt(share * (1 - share) / of + square / (4 * of)) / (1 + square)
    return 0.0 if count == 0 else float(middle - half), 1.0 if count == of else float(middle + half)


@dataclass(frozen=True)
class Labels:
    """Judged (query, passage) pairs by id.

    Attributes:
        keys: int64, rising: query * n_passages + passage.
        relevant: bool, same shape.
        n_passages: number of passages in the corpus.
        complete: whether all other passages of the judged queries are not relevant.
    """

    keys: IdArray
    relevant: BoolArray
    n_passages: int
    complete: bool

    @classmethod
    def of(cls, judgements: Judgements, texts: TextSet) -> Labels:
        """The judgements about these texts; see `Judgements.located`."""
        queries, passages, relevant = judgements.located(texts.queries.digests, texts.corpus)
        keys, first = np.unique(queries * len(texts.corpus) + passages, return_index=True)
        return cls(keys, relevant[first], len(texts.corpus), judgements.complete)

    def about(self, queries: IdArray, passages: AnyArray) -> tuple[BoolArray, BoolArray]:
        """Which pairs are judged, and which are relevant, both of their shape."""
        keys = queries * self.n_passages + passages
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        judged = self.keys[at] == keys
        relevant = judged & self.relevant[at]
        return (np.isin(queries, self.keys // self.n_passages) if self.complete else judged), relevant


@dataclass(frozen=True)
class Share:
    """The share of false negatives in a selection.

    Attributes:
        judged: how many of its negatives are judged.
        measured, low, high: the share of these that are relevant, with its 95 % interval; None without any.
        estimated: the share among all, where those that are not judged have the probability of judged ones with such
            scores; None if too few are judged.
    """

    judged: int = 0
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    estimated: float | None = None


def shares(selections: Sequence[Selection], queries: IdArray, labels: Labels) -> list[Share]:
    """The share of false negatives in each of some selections for the same targets.

    The probability is a logistic regression on a negative's score and on its distance to the positive's score, over the
    judged negatives of all selections. It assumes that among passages with equal scores the judged ones were not chosen
    for being relevant.

    Args:
        selections: the selections.
        queries: the query of each target.
        labels: the judged pairs.
    """
    of_negatives = [np.repeat(queries, one.counts) for one in selections]
    about = [labels.about(asked, one.passages) for asked, one in zip(of_negatives, selections, strict=True)]
    features = [_features(one) for one in selections]
    keys = np.concatenate(
        [(asked * labels.n_passages + one.passages)[judged]
         for asked, one, (judged, _) in zip(of_negatives, selections, about, strict=True)]
    )  # fmt: skip
    _, first = np.unique(keys, return_index=True)
    seen = np.concatenate([one[judged] for one, (judged, _) in zip(features, about, strict=True)])[first]
    relevant = np.concatenate([yes[judged] for judged, yes in about])[first]
    enough = min(relevant.sum(), (~relevant).sum()) >= FEWEST
    weights = _fitted(seen, relevant) if enough else None
    return [_share(*one, rows, weights) for one, rows in zip(about, features, strict=True)]


def _share(judged: BoolArray, relevant: BoolArray, features: AnyArray, weights: AnyArray | None) -> Share:
    count, estimated = int(judged.sum()), None
    if len(judged) and (weights is not None or judged.all()):
        likely = relevant.astype(np.float64)
        if weights is not None:
            likely[~judged] = _probabilities(features[~judged], weights)
        estimated = round(float(likely.mean()), 6)
    if not count:
        return Share(estimated=estimated)
    low, high = wilson(int(relevant.sum()), count)
    return Share(count, round(float(relevant.sum() / count), 6), round(low, 6), round(high, 6), estimated)


def _features(selection: Selection) -> AnyArray:
    """For each negative 1, its distance to the positive's score, and its score, in spreads of the positives' scores."""
    pairs = selection.pair_scores.astype(np.float64)
    spread = max(float(pairs.std()), 1e-6) if len(pairs) else 1.0
    scores = selection.scores.astype(np.float64)
    distances = (scores - selection.references) / spread
    return np.stack([np.ones(len(scores)), distances, (scores - pairs.mean()) / spread], axis=1)


def _probabilities(features: AnyArray, weights: AnyArray) -> AnyArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(features @ weights, -30, 30))))


def _fitted(features: AnyArray, relevant: BoolArray) -> AnyArray:
    """The weights of a logistic regression, by Newton's method with a slight pull towards 0."""
    weights = np.zeros(features.shape[1])
    pull = RIDGE * len(features) * np.diag([0.0, 1.0, 1.0]) + 1e-9 * np.eye(3)
    for _ in range(STEPS):
        likely = _probabilities(features, weights)
        slope = features.T @ (relevant - likely) - pull @ weights
        bend = (features * (likely * (1 - likely))[:, None]).T @ features + pull
        step = np.linalg.solve(bend, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights
