"""Filters: what else a candidate must be, besides under its ceiling, to become a negative.

A filter is told of the whole data set once, and then says of lists of candidates which may stay. Candidates are handed
to it from the top of a ranking until enough have stayed, so a filter never makes a row short while the ranking holds
more, or its depth is reached.
"""

from __future__ import annotations

from hf_negmine.select.filters.base import BoundFilter, Filter, Listed, Scene, keep_all
from hf_negmine.select.filters.consistency import Consistency
from hf_negmine.select.filters.duplicates import NearDuplicates
from hf_negmine.select.filters.veto import Veto
from hf_negmine.select.filters.where import Where, other_value, same_value

__all__ = [
    "BoundFilter",
    "Consistency",
    "Filter",
    "Listed",
    "NearDuplicates",
    "Scene",
    "Veto",
    "Where",
    "keep_all",
    "other_value",
    "same_value",
]
