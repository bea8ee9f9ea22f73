"""Histograms against plain numpy, and pictures that are the same for the same numbers."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.figures.plots import plot_scores, save_png
from hf_negmine.figures.stats import ScoreHistograms, contrastive_losses
from hf_negmine.report.summary import MiningSummary

ROWS = [{"query": f"question {i}", "positive": f"the answer to question {i} is {i * i}"} for i in range(30)]


@pytest.fixture
def summary(tmp_path: Path) -> MiningSummary:
    miner = NegativeMiner("random:1", num_negatives=3, cache_dir=tmp_path, progress=False, on_exhausted="keep")
    return miner.fit(ROWS).summary


@given(st.lists(st.lists(st.floats(-50, 50, width=32), max_size=4), min_size=1, max_size=6), st.floats(0.01, 2.0))
def test_losses_are_those_of_cross_entropy(negatives: list[list[float]], temperature: float) -> None:
    positives = np.linspace(-1, 1, len(negatives)).astype(np.float32)
    offsets = np.cumsum([0] + [len(row) for row in negatives]).astype(np.int64)
    flat = np.array([score for row in negatives for score in row], dtype=np.float32)
    differences = np.repeat(positives, np.diff(offsets)) - flat
    losses = contrastive_losses(differences, offsets, temperature)
    expected = []
    for positive, row in zip(positives, negatives, strict=True):
        if row:
            logits = np.array([positive, *row], dtype=np.float64) / temperature
            expected.append(float(np.logaddexp.reduce(logits) - logits[0]))
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-4)


def test_a_positive_aware_set_has_no_difference_below_zero(summary: MiningSummary) -> None:
    found = summary.histograms
    assert found is not None
    assert sum(found.positives.counts) == summary.positive_scores.count == 30
    assert sum(found.negatives.counts) == sum(found.differences.counts) == summary.negative_scores.count
    assert found.differences.edges[0] >= 0
    assert found.differences.mean == pytest.approx(summary.differences.mean, abs=1e-5)
    assert found.positives.edges == found.negatives.edges, "one axis for both"


def test_histograms_survive_json_and_older_summaries_lack_them(summary: MiningSummary) -> None:
    content = json.loads(json.dumps(summary.as_dict()))
    assert MiningSummary.from_dict(content) == summary
    del content["histograms"]
    older = MiningSummary.from_dict(content)
    assert older == replace(summary, histograms=None)
    with pytest.raises(InputError, match="without histograms"):
        older.plot()


def test_the_same_numbers_give_the_same_picture(summary: MiningSummary) -> None:
    pytest.importorskip("matplotlib")
    pictures = []
    for _ in range(2):
        buffer = io.BytesIO()
        save_png(summary.plot(), buffer)
        pictures.append(buffer.getvalue())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(b"\x89PNG")
    assert [axes.get_xlabel() for axes in summary.plot().axes] == [
        "teacher's score",
        "positive score - negative score",
        "contrastive loss, temperature 0.05",
    ]


def test_nothing_mined_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    nothing = np.empty(0, dtype=np.float32)
    empty = ScoreHistograms.of(nothing, nothing, np.zeros(1, dtype=np.int64), nothing)
    save_png(plot_scores(empty), io.BytesIO())
