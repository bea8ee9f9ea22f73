"""The canonical score of a pair, computed for many pairs at once.

It is the float64 dot product of two float32 vectors, rounded to float32. Each product of two float32 numbers is exact
in float64, and on a CPU a pair is always summed in the same order, so a score depends only on its two vectors. (A GPU
may sum in another order; the sums then differ by about 1e-16, which rounding to float32 nearly always removes.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch

from hf_negmine.search.workers import side_by_side

STEP_BYTES = 2 * 2**20
"""Bytes of float32 and float64 vectors in one step: few enough for a cache, and enough to make Python's cost small."""

Gather: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""float32 vectors of passages, shape (n, width), given their ids, int64, shape (n,)."""


def canonical_scores(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    """The score of each pair: the float64 dot product over the last dimension, rounded to float32; never -0.0.

    Args:
        queries: float32, of a shape that broadcasts to that of ``passages``.
        passages: float32, shape (…, width).

    Returns:
        float32, shape (…).
    """
    products = passages.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    products *= queries.double()  # in place: writing them elsewhere would double the time
    return products.sum(dim=-1).float() + 0.0  # turns a -0.0 from rounding into 0.0


def list_scores(queries: torch.Tensor, listed: torch.Tensor, lengths: torch.Tensor, gather: Gather) -> torch.Tensor:
    """Scores of the first passages in each query's list.

    Args:
        queries: float32, shape (rows, width).
        listed: int64 passage ids, shape (rows, length).
        lengths: int64, shape (rows,): how many entries of each list are wanted.
        gather: looks up vectors.

    Returns:
        float32, shape (rows, length); an entry that is not wanted may be -inf.
    """
    width = queries.shape[1]
    lengths, order = lengths.sort()  # so that the rows of a step need similar numbers
    longest = lengths.tolist()
    queries, listed = queries[order].unsqueeze(1), listed[order]  # so that a step is a slice
    found = torch.full(listed.shape, -torch.inf, device=queries.device)

    def score(some: slice) -> None:
        wanted = longest[some.stop - 1]
        passages = gather(listed[some, :wanted].reshape(-1)).view(some.stop - some.start, wanted, width)
        found[some, :wanted] = canonical_scores(queries[some], passages)

    _do_all(list(_slices(longest, STEP_BYTES // (12 * width))), score, queries.device)
    scores = torch.empty_like(found)
    scores[order] = found
    return scores


def pair_scores(queries: torch.Tensor, rows: torch.Tensor, passages: torch.Tensor, gather: Gather) -> torch.Tensor:
    """Scores of pairs.

    Args:
        queries: float32, shape (n_queries, width).
        rows: int64, shape (pairs,): the query of each pair.
        passages: passage ids, same shape.
        gather: looks up vectors.

    Returns:
        float32, shape (pairs,).
    """
    scores = torch.empty(len(rows), device=queries.device)

    def score(some: slice) -> None:
        scores[some] = canonical_scores(queries[rows[some]], gather(passages[some].to(torch.int64)))

    step = max(1, STEP_BYTES // (24 * queries.shape[1]))
    steps = [slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
    _do_all(steps, score, queries.device)
    return scores


def _slices(lengths: list[int], places: int) -> Iterator[slice]:
    """Consecutive rows whose lists, padded to the longest of them, have at most so many places; lengths rise."""
    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and lengths[stop] * (stop + 1 - start) <= places:
            stop += 1
        yield slice(start, stop)
        start = stop


def _do_all(steps: list[slice], work: Callable[[slice], None], device: torch.device) -> None:
    """Do ``work`` for steps that each fit a core's cache."""
    if device.type == "cpu":
        side_by_side(work, steps)
    else:
        for some in steps:
            work(some)
