"""Reports: numbers (`stats`) and pictures (`plots`) of a mined set."""

from __future__ import annotations

from hf_negmine.figures.stats import Histogram, ScoreHistograms

__all__ = ["Histogram", "ScoreHistograms"]
