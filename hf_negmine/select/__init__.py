"""Selection: how negatives are chosen among a query's candidates."""

from __future__ import annotations

from hf_negmine.base.choices import PositiveScore
from hf_negmine.select.choosing import Survivors, choose
from hf_negmine.select.samplers import Mixed, Sampled, SimANS, Top, Top1Sampled, parse_sampler, resolve_sampler
from hf_negmine.select.selection import Positives, Selection

__all__ = [
    "Mixed",
    "PositiveScore",
    "Positives",
    "Sampled",
    "Selection",
    "SimANS",
    "Survivors",
    "Top",
    "Top1Sampled",
    "choose",
    "parse_sampler",
    "resolve_sampler",
]
