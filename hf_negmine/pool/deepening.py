"""Candidate lists from a searcher: for many queries, block by block, and deeper where a demand begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import Searcher
from hf_negmine.base.ragged import runs
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray
from hf_negmine.select.candidates import CandidateLists, Demand

PLACES_A_STEP = 2**20
"""Ranked passages held by one step of deepening; a band in a large corpus leaves room for few queries at a time."""


def search_queries(
    searcher: Searcher,
    queries: IdArray,
    positive_rows: IdArray,
    positive_ids: np.ndarray[Any, Any],
    depth: int,
) -> tuple[CandidateLists, FloatArray]:
    """Top candidates of a block of queries, and the scores of their positives (rows are indices in ``queries``)."""
    block = searcher.block(queries)
    no_ceiling = np.full(len(queries), np.inf, dtype=np.float32)
    ranking = block.best(np.arange(len(queries)), no_ceiling, depth)
    return CandidateLists.from_ranking(ranking, no_ceiling), block.pair_scores(positive_rows, positive_ids)


def search_in_blocks(
    searcher: Searcher,
    queries: IdArray,
    positive_rows: IdArray,
    positive_ids: np.ndarray[Any, Any],
    depth: int,
    done: Callable[[int], Any] = lambda _: None,
) -> tuple[CandidateLists, FloatArray]:
    """Run `search_queries` on blocks of the searcher's size; ``positive_rows`` must rise."""
    lists: list[CandidateLists] = []
    scores: list[FloatArray] = []
    for start in range(0, len(queries), searcher.block_size):
        block = queries[start : start + searcher.block_size]
        first, last = np.searchsorted(positive_rows, [start, start + len(block)])
        found, positive_scores = search_queries(
            searcher, block, positive_rows[first:last] - start, positive_ids[first:last], depth
        )
        lists.append(found)
        scores.append(positive_scores)
        done(len(block))
    return CandidateLists.concatenated(lists), np.concatenate(scores)


def deepen(
    lists: CandidateLists, searcher: Searcher, demand: Demand, *, ahead: int = 2, progress: bool = False
) -> CandidateLists:
    """The lists with one more segment for every target of ``demand``, where the demand begins.

    All ceilings of a query are served at once, since they share its products. ``ahead`` times as many candidates as
    wanted are fetched, so that the next question is likely answered, too.
    """
    demand = _distinct(demand)
    ranked = _needs_ranks(lists, demand)
    found: list[CandidateLists] = []
    served: list[IdArray] = []
    total = len(np.unique(demand.queries))
    with bar("Looking deeper", "queries", total, shown=progress) as found_for:
        for by_rank in (False, True):
            some = demand.of(np.flatnonzero(ranked == by_rank))
            if by_rank:
                some = _distinct(_under_no_ceiling(some))
            skip = some.first_rank if by_rank else 0
            depth = some.last_rank - skip if by_rank and some.last_rank is not None else ahead * some.wanted
            for targets in _steps(some.queries, searcher.block_size, PLACES_A_STEP // (depth + skip)):
                queries, rows = np.unique(some.queries[targets], return_inverse=True)
                ceilings = some.ceilings[targets]
                ranking = searcher.block(queries).best(rows, ceilings, depth, skip)
                found.append(CandidateLists.from_ranking(ranking, ceilings, skip))
                served.append(some.queries[targets])
                found_for.update(len(queries))
    return lists.merged(np.concatenate(served), CandidateLists.concatenated(found))


def _distinct(demand: Demand) -> Demand:
    """The distinct targets of a demand, by query and falling ceiling."""
    order = np.lexsort((-demand.ceilings, demand.queries))
    queries, ceilings = demand.queries[order], demand.ceilings[order]
    new = np.append(True, (queries[1:] != queries[:-1]) | (ceilings[1:] != ceilings[:-1]))[: len(order)]
    return demand.of(order[new])


def _steps(queries: IdArray, most_queries: int, most_targets: int) -> Iterator[slice]:
    """Consecutive targets of whole queries: at most so many of both, but at least one query."""
    starts = np.flatnonzero(np.append(True, queries[1:] != queries[:-1])[: len(queries)])
    bounds = np.append(starts, len(queries))
    for first, last in runs(bounds, most_targets, most_queries):
        yield slice(int(bounds[first]), int(bounds[last]))


def _needs_ranks(lists: CandidateLists, demand: Demand) -> BoolArray:
    """Whether each target's demand begins, as far as is known, at a rank rather than at its ceiling further down."""
    if demand.first_rank == 0 and demand.last_rank is None:
        return np.zeros(len(demand.queries), dtype=bool)
    if demand.last_rank is not None:
        return np.ones(len(demand.queries), dtype=bool)
    first = lists.answer(replace(_under_no_ceiling(demand), wanted=1))
    under_ceiling = np.ones(len(first.starts), dtype=bool)
    found = np.flatnonzero(first.certain & (first.counts == 1))
    under_ceiling[found] = lists.scores[first.starts[found]] < demand.ceilings[found]
    return under_ceiling


def missing(lists: CandidateLists, demands: Iterable[Demand]) -> list[Demand]:
    """What the lists lack to answer all of ``demands``: at most one demand by score, and one by rank."""
    lacking = [demand.of(np.flatnonzero(~lists.answer(demand).certain)) for demand in demands]
    by_score = [one for one in lacking if len(one.queries) and one.last_rank is None]
    by_rank = [one for one in lacking if len(one.queries) and one.last_rank is not None]
    joined = []
    if by_score:
        joined.append(replace(_joined(by_score), floor=-np.inf, first_rank=0))
    if by_rank:
        first, last = min(one.first_rank for one in by_rank), max(one.last_rank or 0 for one in by_rank)
        joined.append(replace(_under_no_ceiling(_joined(by_rank)), first_rank=first, last_rank=last))
    return joined


def _joined(demands: list[Demand]) -> Demand:
    return replace(
        demands[0],
        queries=np.concatenate([one.queries for one in demands]),
        ceilings=np.concatenate([one.ceilings for one in demands]),
        wanted=max(one.wanted for one in demands),
    )


def _under_no_ceiling(demand: Demand) -> Demand:
    return replace(demand, ceilings=np.full_like(demand.ceilings, np.inf), floor=-np.inf)
