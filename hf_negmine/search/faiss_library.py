"""FAISS, loaded when it is first needed, and the number of threads it may use."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hf_negmine.base.devices import is_fork


def load_faiss() -> Any:
    """Import FAISS, without the warnings that its bindings raise about themselves in some versions of Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import faiss

        return faiss


@contextmanager
def faiss_threads(most: int | None = None) -> Iterator[None]:
    """Limit FAISS to ``most`` threads, if given, and to one in a fork, which lacks the threads of its parent."""
    count = 1 if is_fork() else most
    faiss = load_faiss()
    before = faiss.omp_get_max_threads()
    if count is None or count == before:
        yield
        return
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
