"""The highest products of each query, found by FAISS without a matrix of all of them.

FAISS multiplies a few thousand pairs at a time and takes the best of them while they are in the processor's cache.
Where a product of whole blocks and a search through it would wait for memory, that takes little more than half the
time. It knows no ceiling and no exclusions: what is excluded is taken out of a list that is longer by as much.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hf_negmine.search.faiss_library import faiss_threads, load_faiss


def has_fused_search(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `highest_products` does it.

    FAISS and torch each bring an OpenMP runtime of their own, and on macOS the second one that starts ends the process.
    """
    return device.type == "cpu" and dtype == torch.float32 and sys.platform != "darwin"


def highest_products(
    queries: torch.Tensor, passages: torch.Tensor, length: int, excluded: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``length`` highest dot products of each query.

    Args:
        queries: float32, shape (rows, width).
        passages: float32, shape (columns, width).
        length: at most the number of columns.
        excluded: rows (rising) and columns of the pairs that are left out, int64, shape (pairs,); none twice.

    Returns:
        Products (float32, falling, -inf where there are no more) and their columns (int64), shape (rows, length).
    """
    rows, columns = excluded
    counts = torch.bincount(rows, minlength=len(queries))
    most = int(counts.max()) if len(rows) else 0
    faiss = load_faiss()
    with faiss_threads(torch.get_num_threads()), _always_multiplied(faiss):
        found = faiss.knn(
            queries.contiguous().numpy(),
            passages.contiguous().numpy(),
            min(length + most, len(passages)),
            metric=faiss.METRIC_INNER_PRODUCT,
        )
    products, places = (torch.from_numpy(part) for part in found)
    if most == 0:
        return products, places
    padded = torch.full((len(queries), most), -1)
    padded[rows, torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]] = columns
    for nth in range(most):
        products.masked_fill_(places == padded[:, nth, None], -torch.inf)
    best = products.topk(length, dim=1)
    return best.values, places.gather(1, best.indices)


@contextmanager
def _always_multiplied(faiss: Any) -> Iterator[None]:
    """Have FAISS make matrix products for a few queries, too: one by one they take up to ten times as long."""
    settings = faiss.cvar
    before = settings.distance_compute_blas_threshold
    settings.distance_compute_blas_threshold = 1
    try:
        yield
    finally:
        settings.distance_compute_blas_threshold = before
