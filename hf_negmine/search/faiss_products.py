"""Products of float32 vectors by FAISS, whose matrix product is fast and can pick the best products on the way.

On a processor without bfloat16 the matrix product is nearly the whole cost of a search. There (AMD EPYC, AVX2) torch's
takes half as long again as FAISS', which computes a few thousand pairs at a time and picks the best of them while they
are in the processor's cache.
"""

from __future__ import annotations

import sys
import threading

import torch

from hf_negmine.search.faiss_library import faiss_threads, load_faiss


def has_faiss_products(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products on this device and in this number format are left to FAISS.

    FAISS and torch each bring their own OpenMP runtime, and on macOS the second one to start kills the process.
    """
    return device.type == "cpu" and dtype == torch.float32 and sys.platform != "darwin"


class PassageMatrix:
    """Passages that many queries are multiplied with.

    Args:
        passages: float32, shape (columns, width); copied.
    """

    def __init__(self, passages: torch.Tensor) -> None:
        library = load_faiss()
        columns, width = passages.shape
        self._transform = library.LinearTransform(width, columns, False)
        library.copy_array_to_vector(passages.reshape(-1).numpy(), self._transform.A)
        self._transform.is_trained = True

    def multiply(self, queries: torch.Tensor, out: torch.Tensor) -> None:
        """Write the dot products of ``queries``, shape (rows, width), into ``out``: contiguous, (rows, columns)."""
        library = load_faiss()
        with faiss_threads(torch.get_num_threads()):
            self._transform.apply_noalloc(
                len(queries), library.swig_ptr(queries.contiguous().numpy()), library.swig_ptr(out.numpy())
            )


def highest_products(
    queries: torch.Tensor, passages: torch.Tensor, length: int, excluded: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``length`` highest dot products of each query, without computing a matrix of all of them.

    FAISS knows no exclusions: it returns correspondingly more, from which they are removed.

    Args:
        queries: float32, shape (rows, width).
        passages: float32, shape (columns, width).
        length: at most the number of columns.
        excluded: rows (rising) and columns of the pairs that are left out, int64, shape (pairs,).

    Returns:
        Products (float32, falling, -inf where there are no more) and their columns (int64), shape (rows, length).
    """
    rows, columns = excluded
    counts = torch.bincount(rows, minlength=len(queries))
    most = int(counts.max()) if len(rows) else 0
    library = load_faiss()
    with faiss_threads(torch.get_num_threads()), _always_as_matrices:
        found = library.knn(
            queries.contiguous().numpy(),
            passages.contiguous().numpy(),
            min(length + most, len(passages)),
            metric=library.METRIC_INNER_PRODUCT,
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


class _AlwaysAsMatrices:
    """Makes FAISS use matrix products for a few queries, too: one by one they take up to ten times as long.

    The setting is global to the process. The first to enter changes it, and the last to leave restores it.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, 0

    def __enter__(self) -> None:
        settings = load_faiss().cvar
        with self._lock:
            if self._inside == 0:
                self._before = settings.distance_compute_blas_threshold
                settings.distance_compute_blas_threshold = 1
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                load_faiss().cvar.distance_compute_blas_threshold = self._before


_always_as_matrices = _AlwaysAsMatrices()
