"""The canonical score of a pair, computed for many pairs at once.

It is the float64 dot product of two float32 vectors, rounded to float32. Each product of two float32 numbers is exact
in float64, and on a CPU a pair is always summed in the same order, so a score depends on nothing but its two vectors.
(A GPU may sum in another order; the sums then differ by about 1e-16, which rounding to float32 nearly always removes.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeAlias

import torch

STEP_BYTES = 8 * 2**20
"""Vectors in float32 and float64 that one step holds: few enough for a cache, and enough for Python not to count."""

Gather: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""float32 vectors of passages, shape (n, width), given their ids, int64, shape (n,)."""


def canonical_scores(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    """The score of each pair: the float64 dot product over the last dimension, rounded to float32.

    Args:
        queries: float32, of a shape that broadcasts to that of ``passages``.
        passages: float32, shape (…, width).

    Returns:
        float32, shape (…).
    """
    products = passages.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    products *= queries.double()  # in place: to write them elsewhere would take as long again
    return products.sum(dim=-1).float()


def list_scores(queries: torch.Tensor, listed: torch.Tensor, lengths: torch.Tensor, gather: Gather) -> torch.Tensor:
    """Scores of the first passages in a list for each query.

    Args:
        queries: float32, shape (rows, width).
        listed: int64 passage ids, shape (rows, length).
        lengths: int64, shape (rows,): how many of each list are wanted.
        gather: looks vectors up.

    Returns:
        float32, shape (rows, length); of what is not wanted it is -inf, or the score.
    """
    (rows, length), width = listed.shape, queries.shape[1]
    lengths, order = lengths.sort()  # so that the rows of a step want about as many
    longest = lengths.tolist()
    queries, listed = queries[order].unsqueeze(1), listed[order]  # so that a step is a slice
    found = torch.full(listed.shape, -torch.inf, device=queries.device)

    def score(some: slice) -> None:
        wanted = longest[some.stop - 1]
        passages = gather(listed[some, :wanted].reshape(-1)).view(-1, wanted, width)
        found[some, :wanted] = canonical_scores(queries[some], passages)

    _in_steps(rows, 12 * length * width, score, queries.device)
    scores = torch.empty_like(found)
    scores[order] = found
    return scores


def pair_scores(queries: torch.Tensor, rows: torch.Tensor, passages: torch.Tensor, gather: Gather) -> torch.Tensor:
    """Scores of pairs.

    Args:
        queries: float32, shape (n_queries, width).
        rows: int64, shape (pairs,): the query of each pair.
        passages: passage ids, same shape.
        gather: looks vectors up.

    Returns:
        float32, shape (pairs,).
    """
    scores = torch.empty(len(rows), device=queries.device)

    def score(some: slice) -> None:
        scores[some] = canonical_scores(queries[rows[some]], gather(passages[some].to(torch.int64)))

    _in_steps(len(rows), 24 * queries.shape[1], score, queries.device)
    return scores


def _in_steps(rows: int, bytes_a_row: int, work: Callable[[slice], None], device: torch.device) -> None:
    """Do ``work`` for all rows in steps that fit a core's cache, as many at a time as torch uses threads.

    A step is worked on by one thread from its first operation to its last. To have torch split each of the small
    operations instead would make all threads wait for one another at every one of them, which costs most of the time as
    soon as the machine has something else to do.
    """
    step = max(1, STEP_BYTES // bytes_a_row)
    steps = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1 or len(steps) == 1:
        for some in steps:
            work(some)
    else:
        list(_workers(os.getpid(), threads).map(work, steps))


@lru_cache(maxsize=1)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads in which torch does not start further ones; others for each process, since a fork does not copy them."""
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, "hf_negmine", initializer=lambda: torch.set_num_threads(1))
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)  # the workers' setting became the default of threads to come
    return pool
