"""Several pieces of work at once, each in a thread of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """The results of ``work`` for all pieces, in their order; as many at a time as torch uses threads.

    A piece is worked on by one thread from its first operation to its last. To have torch split each of many small
    operations instead would make all threads wait for one another at every one of them, which costs most of the time as
    soon as the machine has something else to do.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) == 1:
        return [work(piece) for piece in pieces]
    return list(_workers(os.getpid(), threads).map(work, pieces))


@lru_cache(maxsize=1)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads in which torch does not start further ones; others for each process, since a fork does not copy them."""
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, "hf_negmine", initializer=_one_thread)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)  # the workers' setting became the default of threads to come
    return pool


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # from now on this thread keeps its number; until then it would take that of the process
