"""Filters: the conditions besides the ceiling that a candidate must meet to become a negative.

A filter is bound to the whole data set once, and then decides which candidates of a list may stay. It gets candidates
from the top of a ranking until enough have stayed, so a filter leaves a row short only where the ranking ends or the
filter's depth is reached.
"""

from __future__ import annotations

from hf_negmine.select.filters.base import Bound, BoundFilter, Filter, Listed, Scene, keep_all, kept_by
from hf_negmine.select.filters.consistency import Consistency
from hf_negmine.select.filters.duplicates import NearDuplicates
from hf_negmine.select.filters.veto import Veto
from hf_negmine.select.filters.where import Where, other_value, same_value

__all__ = [
    "Bound",
    "BoundFilter",
    "Consistency",
    "Filter",
    "Listed",
    "NearDuplicates",
    "Scene",
    "Veto",
    "Where",
    "keep_all",
    "kept_by",
    "other_value",
    "same_value",
]
