"""Pictures of mined sets and of studies. The only room that draws; matplotlib is loaded when something is drawn."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.errors import InputError
from hf_negmine.base.schema import FloatArray
from hf_negmine.figures.stats import FrontPoint, Histogram, ScoreHistograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK, LIGHT = "#1b3a5c", "#d98c2b"
"""Colors that also differ in lightness, so that a gray print tells them apart; hatching and dashes do the rest."""


def plot_scores(histograms: ScoreHistograms, *, title: str = "") -> Figure:
    """Figure 4 of NV-Retriever: scores of positives and negatives, their difference, and the contrastive loss per row.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = _new_figure(10.5, 3.2)
    scores, differences, losses = figure.subplots(1, 3)
    _bars(scores, histograms.positives, DARK, "positives")
    _bars(scores, histograms.negatives, LIGHT, "negatives", hatch="////")
    scores.set_xlabel("teacher's score")
    scores.set_ylabel("share of the texts")
    scores.legend(frameon=False)
    _bars(differences, histograms.differences, DARK, "")
    differences.axvline(0.0, color="black", linewidth=1, linestyle="--")
    differences.set_xlabel("positive score - negative score")
    differences.set_ylabel("share of the negatives")
    _bars(losses, histograms.losses, DARK, "")
    losses.set_xlabel(f"contrastive loss, temperature {histograms.temperature:g}")
    losses.set_ylabel("share of the rows")
    for axes in (scores, differences, losses):
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def plot_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    levels: Mapping[str, float],
    *,
    x_label: str,
    y_label: str,
) -> Figure:
    """Figures 1 and 2 of NV-Retriever: a measure against a threshold, one panel per curve on a common scale.

    Args:
        curves: points (x, y) of each curve, by name.
        levels: measures that do not depend on the threshold, by name; drawn as dashed lines.
        x_label: label of every panel, after the curve's name.
        y_label: label of the measure.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = _new_figure(3.6 * len(curves), 3.2)
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (name, points) in zip(panels, curves.items(), strict=True):
        axes.plot(*zip(*points, strict=True), color=DARK, marker="o", markersize=4)
        for (label, level), style in zip(levels.items(), ("--", ":", "-."), strict=False):
            axes.axhline(level, color=LIGHT, linewidth=1.4, linestyle=style, label=label)
        axes.set_xlabel(f"{name}, {x_label}")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(y_label)
    if levels:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_shares(shares: Mapping[str, Mapping[str, float]], *, x_label: str) -> Figure:
    """Figure 3 of NV-Retriever: shares from 0 to 1 as groups of bars.

    Args:
        shares: by group (a data set), then by bar (a method); the bars may differ between groups.
        x_label: the quantity that these are percentages of.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = _new_figure(3.0 + 3.2 * max(len(shares), 1), 3.4)
    panels = figure.subplots(1, max(len(shares), 1), sharey=True, squeeze=False)[0]
    for axes, (group, bars) in zip(panels, shares.items(), strict=False):
        places = np.arange(len(bars))[::-1]
        drawn = axes.barh(places, [100 * share for share in bars.values()], color=DARK, alpha=0.85)
        axes.bar_label(drawn, fmt="%.1f", padding=3, fontsize="small")
        axes.set_yticks(places, list(bars))
        axes.set_title(group, fontsize="medium")
        axes.set_xlabel(x_label)
        axes.set_xlim(right=max(1.0, axes.get_xlim()[1]))  # where nothing is false, a hundredth of a percent is no bar
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_front(points: Sequence[FrontPoint], *, title: str = "") -> Figure:
    """Settings of a sweep: the mean score of their negatives against the share of false ones, and the front.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = _new_figure(7.2, 4.2)
    axes = figure.subplots()
    others = [(one.score, 100 * one.share) for one in points if not one.front]
    front = sorted((one.score, 100 * one.share) for one in points if one.front)
    if others:
        axes.plot(*zip(*others, strict=True), color=LIGHT, marker="x", linestyle="none", label="other settings")
    axes.plot(*zip(*front, strict=True), color=DARK, marker="o", linewidth=1.2, label="front")
    for one in points:
        if one.best:
            axes.plot(
                one.score, 100 * one.share, color=DARK, marker="D", markersize=11, fillstyle="none", linestyle="none",
                label=f"recommended: {one.name}",
            )  # fmt: skip
    axes.set_xlabel("mean score of the negatives")
    axes.set_ylabel("false negatives, %")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def plot_ranks(quartiles: FloatArray, positives: FloatArray, *, title: str = "") -> Figure:
    """How candidates' scores fall along the ranking, beside those of the positives.

    Args:
        quartiles: scores at each rank, shape (3, ranks): first quartile, median and third quartile over the queries.
        positives: the same of the positives, shape (3,).
        title: shown above.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = _new_figure(7.2, 3.6)
    axes = figure.subplots()
    ranks = np.arange(1, quartiles.shape[1] + 1)
    axes.fill_between(ranks, quartiles[0], quartiles[2], color=LIGHT, alpha=0.35, label="candidates, middle half")
    axes.plot(ranks, quartiles[1], color=LIGHT, label="candidates, median")
    axes.axhline(positives[1], color=DARK, linestyle="--", label="positives, median")
    band: dict[str, Any] = {"facecolor": "none", "edgecolor": DARK, "hatch": "////", "alpha": 0.35, "linewidth": 0}
    axes.axhspan(positives[0], positives[2], label="positives, middle half", **band)
    axes.set_xlabel("rank")
    axes.set_ylabel("teacher's score")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def plot_agreement(names: Sequence[str], shares: FloatArray, *, title: str = "") -> Figure:
    """How alike the teachers' negatives are, as a heat map with its numbers.

    Args:
        names: of the teachers.
        shares: from 0 to 1, shape (teachers, teachers).
        title: shown above.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = _new_figure(3.6 + 0.8 * len(names), 1.6 + 0.6 * len(names))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=2.0)  # half the scale, so that black stands out from every color
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center")
    places = range(len(names))
    axes.set_xticks(places, [str(place + 1) for place in places])
    axes.set_yticks(
        places, [f"{place + 1} {name if len(name) <= 36 else name[:35] + '…'}" for place, name in enumerate(names)]
    )
    axes.tick_params(length=0)
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def save_png(figure: Figure, path: Path | Any) -> None:
    """Write a picture without a date or a program name, so that the same numbers give the same file."""
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def require_matplotlib() -> None:
    """Raise `InputError` unless matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("plots need matplotlib: pip install 'hf_negmine[plots]'")


def _new_figure(width: float, height: float) -> Figure:
    require_matplotlib()
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A notebook shows figures of pyplot by itself, and others by this method."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            save_png(self, buffer)
            return buffer.getvalue()

    return Picture(figsize=(width, height), layout="constrained")


def _bars(axes: Axes, histogram: Histogram, color: str, label: str, *, hatch: str | None = None) -> None:
    counts = np.array(histogram.counts, dtype=np.float64)
    shares = counts / max(counts.sum(), 1.0)
    edges = np.array(histogram.edges)
    if hatch is None:
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.85, label=label)
    else:
        axes.stairs(shares, edges, fill=True, facecolor="none", edgecolor=color, hatch=hatch, linewidth=0, label=label)
        axes.stairs(shares, edges, color=color, linewidth=1.4)
