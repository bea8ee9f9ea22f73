"""Several pieces of work at once, each in its own thread."""

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
    """The results of ``work`` for all pieces, in their order; as many run at a time as torch uses threads.

    One thread processes a piece from its first operation to its last. Having torch split each of many small operations
    instead would make all threads wait for one another at every one of them, which takes most of the time as soon as
    the machine has something else to do.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) == 1:
        return [work(piece) for piece in pieces]
    return list(_workers(os.getpid(), threads).map(work, pieces))


@lru_cache(maxsize=1)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads in which torch starts no further threads; one pool per process, since a fork does not copy threads."""
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)
    pool = ThreadPoolExecutor(threads, "hf_negmine", initializer=_one_thread)
    for _ in range(threads):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)  # the workers' setting became the default for new threads
    return pool


def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # this fixes the number for this thread; before, it would follow that of the process
