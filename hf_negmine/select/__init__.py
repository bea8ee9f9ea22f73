"""Selection: how negatives are chosen among a query's candidates."""

from __future__ import annotations

from hf_negmine.base.choices import PositiveScore
from hf_negmine.select.samplers import Sampled, Top, Top1Sampled, parse_sampler, resolve_sampler
from hf_negmine.select.selection import Positives, Selection, Survivors, choose

__all__ = [
    "PositiveScore",
    "Positives",
    "Sampled",
    "Selection",
    "Survivors",
    "Top",
    "Top1Sampled",
    "choose",
    "parse_sampler",
    "resolve_sampler",
]
