"""Many settings at once: what all of them need is searched for together, and then each is selected.

The pool holds the best candidates of every query. Where they do not decide a setting, the ranking must be known further
down, below that setting's ceiling. All ceilings are known beforehand, and those of a query share its products, so one
more search answers every setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from hf_negmine.base.errors import require
from hf_negmine.base.protocols import Sampler
from hf_negmine.select.candidates import CandidateLists, Demand
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.select.samplers import resolve_sampler


def settings_of(
    methods: Sequence[Method | str], samplers: Sequence[Sampler | str | None]
) -> list[tuple[Method, Sampler]]:
    """Every method with every sampler, resolved.

    Raises:
        InputError: one is not understood, or there are none.
    """
    for name, given, example in (("methods", methods, "naive"), ("samplers", samplers, "top")):
        listed = isinstance(given, Sequence) and not isinstance(given, str)
        require(listed, f"{name}: expected a list such as [{example!r}], got {given!r}")
        require(len(given) > 0, f"{name}: give one or more, such as [{example!r}]; the list is empty")
    return [(resolve_method(method), resolve_sampler(sampler)) for method in methods for sampler in samplers]


def missing(lists: CandidateLists, demands: Iterable[Demand]) -> list[Demand]:
    """What the lists lack to answer all of ``demands``: at most one demand by score, and one by rank."""
    by_score: list[Demand] = []
    by_rank: list[Demand] = []
    for demand in demands:
        lacking = demand.of(np.flatnonzero(~lists.answer(demand).certain))
        if len(lacking.queries):
            (by_score if lacking.last_rank is None else by_rank).append(lacking)
    joined = []
    if by_score:
        together = replace(_joined(by_score), floor=-np.inf, first_rank=0, last_rank=None)
        joined.append(together)
    if by_rank:
        first, last = min(one.first_rank for one in by_rank), max(one.last_rank or 0 for one in by_rank)
        together = _joined(by_rank)
        everything = np.full_like(together.ceilings, np.inf)
        joined.append(replace(together, ceilings=everything, floor=-np.inf, first_rank=first, last_rank=last))
    return joined


def _joined(demands: list[Demand]) -> Demand:
    return replace(
        demands[0],
        queries=np.concatenate([one.queries for one in demands]),
        ceilings=np.concatenate([one.ceilings for one in demands]),
        wanted=max(one.wanted for one in demands),
    )
