"""Passage vectors, block by block, in the number format of the first pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from hf_negmine.base.schema import FloatArray

COLUMNS_A_GROUP = 16
"""Passages of a block of which `picking` looks only at the best for its first bound."""
PASSAGES_A_BLOCK = 8192
"""On a CPU."""
PASSAGES_A_BLOCK_ON_A_GPU = 32_768
LOADING = threading.Lock()
"""Held by the one thread that makes a block that several threads need."""
RESIDENT_BYTES = 256 * 2**20
"""Corpora up to this size are held in memory (on a GPU in its memory, up to a quarter of it)."""


class VectorSource(Protocol):
    """Vectors on disk or in memory, float32, one row per text."""

    @property
    def shape(self) -> tuple[int, int]:
        """(texts, width)."""

    def slice(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop."""

    def gather(self, ids: np.ndarray[Any, Any]) -> FloatArray:
        """Rows with these ids, in this order."""


@dataclass(frozen=True)
class VectorsInMemory:
    """Vectors of texts that are not stored; a `VectorSource`."""

    vectors: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """(texts, width)."""
        return self.vectors.shape[0], self.vectors.shape[1]

    def slice(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop."""
        return self.vectors[start:stop]

    def gather(self, ids: np.ndarray[Any, Any]) -> FloatArray:
        """Rows with these ids."""
        found: FloatArray = self.vectors[ids]
        return found


@dataclass(frozen=True)
class PassageBlock:
    """Consecutive passages of a corpus.

    Attributes:
        start: id of the first passage.
        count: number of passages.
        vectors: in the block's number format, shape (count, rounded up to a multiple of `COLUMNS_A_GROUP`; width).
            The rows behind the last passage are 0.
        max_norm, max_residual: upper bounds of a vector's length, and of how far rounding moved a vector.
    """

    start: int
    count: int
    vectors: torch.Tensor
    max_norm: float
    max_residual: float


def lengths(vectors: torch.Tensor) -> torch.Tensor:
    """The lengths of vectors, float64: in float32 the squares of small and of large numbers would be lost."""
    found: torch.Tensor = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
    return found


class Corpus:
    """The passages in blocks of any number format, held in memory if they are few.

    Args:
        source: the vectors of the passages.
        device: where products are computed.
        passages_a_block: passages per block; None takes what is fast on the device.

    Attributes:
        resident: whether the whole corpus is held in memory, rather than read again each time.
    """

    def __init__(self, source: VectorSource, device: torch.device, passages_a_block: int | None = None) -> None:
        self.source = source
        self.count = source.shape[0]
        self._device = device
        allowed = RESIDENT_BYTES
        if device.type == "cuda":
            allowed = max(allowed, torch.cuda.mem_get_info(device)[1] // 4)
        self.resident = self.count * source.shape[1] * 4 <= allowed
        usual = PASSAGES_A_BLOCK_ON_A_GPU if device.type == "cuda" else PASSAGES_A_BLOCK
        self.passages_a_block = usual if passages_a_block is None else passages_a_block
        self._vectors = torch.from_numpy(source.slice(0, self.count)).to(device) if self.resident else None
        self._blocks: dict[tuple[torch.dtype, int], PassageBlock] = {}

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        """float32 vectors of the passages ``ids`` (1-dimensional)."""
        if self._vectors is not None:
            return self._vectors.index_select(0, ids)
        return torch.from_numpy(self.source.gather(ids.cpu().numpy())).to(self._device)

    def blocks(self, dtype: torch.dtype) -> Iterator[PassageBlock]:
        """All passages, block by block."""
        for start in range(0, self.count, self.passages_a_block):
            if not self.resident:
                yield self._load(dtype, start)
                continue
            with LOADING:
                if (dtype, start) not in self._blocks:
                    self._blocks[dtype, start] = self._load(dtype, start)
            yield self._blocks[dtype, start]

    def _load(self, dtype: torch.dtype, start: int) -> PassageBlock:
        stop = min(start + self.passages_a_block, self.count)
        if self._vectors is not None:
            vectors = self._vectors[start:stop]
        else:
            vectors = torch.from_numpy(self.source.slice(start, stop)).to(self._device)
        low = vectors.to(dtype)
        norm = float(lengths(low).max())
        residual = 0.0 if dtype == torch.float32 else float(lengths(low.double() - vectors.double()).max())
        if missing := -len(low) % COLUMNS_A_GROUP:
            low = torch.nn.functional.pad(low, (0, 0, 0, missing))
        return PassageBlock(start, stop - start, low, norm + residual, residual)
