"""Candidate lists from a searcher: for many queries, block by block, and deeper where a demand begins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_negmine.base.protocols import Searcher
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
    lists: CandidateLists,
    searcher: Searcher,
    demand: Demand,
    *,
    progress: bool = False,
) -> CandidateLists:
    """The lists with one more segment for every query of ``demand``, where the demand begins.

    A query with several targets is served at its highest ceiling first; another call serves the next.
    """
    order = np.lexsort((-demand.ceilings, demand.queries))
    queries, first = np.unique(demand.queries[order], return_index=True)
    demand = demand.of(order[first])
    ranked = _needs_ranks(lists, demand)
    found: list[CandidateLists] = []
    served: list[IdArray] = []
    with tqdm(total=len(queries), desc="Looking deeper", unit=" queries", disable=not progress, delay=1) as bar:
        for by_rank in (False, True):
            some = np.flatnonzero(ranked == by_rank)
            skip = demand.first_rank if by_rank else 0
            depth = _deeper(demand, by_rank)
            step = max(1, min(searcher.block_size, PLACES_A_STEP // (depth + skip)))
            for start in range(0, len(some), step):
                rows = some[start : start + step]
                ceilings = np.where(by_rank, np.inf, demand.ceilings[rows]).astype(np.float32)
                ranking = searcher.block(queries[rows]).best(np.arange(len(rows)), ceilings, depth, skip)
                found.append(CandidateLists.from_ranking(ranking, ceilings, skip))
                served.append(queries[rows])
                bar.update(len(rows))
    return lists.merged(np.concatenate(served), CandidateLists.concatenated(found))


def _needs_ranks(lists: CandidateLists, demand: Demand) -> BoolArray:
    """Whether each target's demand begins, as far as is known, at a rank rather than at its ceiling further down."""
    if demand.first_rank == 0 and demand.last_rank is None:
        return np.zeros(len(demand.queries), dtype=bool)
    if demand.last_rank is not None:
        return np.ones(len(demand.queries), dtype=bool)
    ranks_only = dataclasses.replace(demand, ceilings=np.full_like(demand.ceilings, np.inf), floor=-np.inf, wanted=1)
    first = lists.answer(ranks_only)
    under_ceiling = np.ones(len(first.starts), dtype=bool)
    found = np.flatnonzero(first.certain & (first.counts == 1))
    under_ceiling[found] = lists.scores[first.starts[found]] < demand.ceilings[found]
    return under_ceiling


def _deeper(demand: Demand, by_rank: bool) -> int:
    """How many candidates to fetch: twice the number wanted, so that the next question is likely answered, too."""
    if by_rank and demand.last_rank is not None:
        return demand.last_rank - demand.first_rank
    return 2 * demand.wanted
