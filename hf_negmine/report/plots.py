"""Pictures of a mined set. The only room that draws; matplotlib is loaded when something is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.errors import InputError
from hf_negmine.report.stats import Histogram, ScoreHistograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK, LIGHT = "#1b3a5c", "#d98c2b"
"""Far apart in lightness, too, so that a grey print tells them apart; hatching and dashes do the rest."""


def plot_scores(histograms: ScoreHistograms, *, title: str = "") -> Figure:
    """Figure 4 of NV-Retriever: scores of positives and negatives, their difference, and the contrastive loss a row.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install 'hf_negmine[plots]'") from error
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
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


def save_png(figure: Figure, path: Path | Any) -> None:
    """Write a picture without a date or a program's name, so that the same numbers give the same file."""
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def _bars(axes: Axes, histogram: Histogram, color: str, label: str, *, hatch: str | None = None) -> None:
    counts = np.array(histogram.counts, dtype=np.float64)
    shares = counts / max(counts.sum(), 1.0)
    edges = np.array(histogram.edges)
    if hatch is None:
        axes.stairs(shares, edges, fill=True, color=color, alpha=0.85, label=label)
    else:
        axes.stairs(shares, edges, fill=True, facecolor="none", edgecolor=color, hatch=hatch, linewidth=0, label=label)
        axes.stairs(shares, edges, color=color, linewidth=1.4)
