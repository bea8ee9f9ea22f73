"""The first pass: a matrix product that proposes passages, and bounds the error of its scores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from hf_negmine.base.schema import IdArray
from hf_negmine.search.corpus import Corpus, PassageBlock
from hf_negmine.search.faiss_products import has_faiss_products, highest_products
from hf_negmine.search.nearest import nearest_below_zero, origins_over, with_origins
from hf_negmine.search.precision import Precision, exact_accumulation

_Found: TypeAlias = tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""For a passage block: its first passage id, approximate scores, their columns, error bounds and origins."""


@dataclass(frozen=True)
class Proposals:
    """The best approximate scores of each row.

    Attributes:
        scores: float32, falling, -inf where there are no more, shape (rows, length).
        passages: int64, shape (rows, length).
        error: the most that the product can be off, shape (rows,).
        spread: the same including the rounding of the output, shape (rows, length).
    """

    scores: torch.Tensor
    passages: torch.Tensor
    error: torch.Tensor
    spread: torch.Tensor


class ScoreBuffer(threading.local):
    """Memory for a block of scores, one per thread, reused because fresh pages cost as much as a product."""

    def __init__(self) -> None:
        self._memory: dict[torch.dtype, torch.Tensor] = {}

    def of(self, dtype: torch.dtype, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """A part of the memory, not cleared."""
        memory = self._memory.get(dtype)
        if memory is None or memory.numel() < rows * columns:
            memory = self._memory[dtype] = torch.empty(rows * columns, dtype=dtype, device=device)
        return memory[: rows * columns].view(rows, columns)


@dataclass(frozen=True)
class Product:
    """The product of some queries and a corpus in one number format.

    Attributes:
        corpus: the passages.
        precision: the number format.
        queries: float32, shape (rows, width).
        limits: ceilings, float32, shape (rows,), perhaps infinite.
        excluded: rows and passages of the pairs that are not candidates.
        buffer: memory for the scores.
    """

    corpus: Corpus
    precision: Precision
    queries: torch.Tensor
    limits: torch.Tensor
    excluded: tuple[IdArray, IdArray]
    buffer: ScoreBuffer

    def best(self, length: int) -> Proposals:
        """The ``length`` best passages per row that may be under their limits.

        The product is off by at most the error. Rounding its output moves a score by at most
        `Precision.rounds_output` times its distance to an origin, in addition.
        """
        rows, device = len(self.queries), self.queries.device
        scores = torch.empty((rows, 0), device=device)
        passages = torch.empty((rows, 0), dtype=torch.int64, device=device)
        worst_error = torch.zeros(rows, device=device)
        way = self._way(length)
        highest_origins = torch.full_like(worst_error, -torch.inf if way == self._nearest else 0.0)
        for start, values, columns, error, origins in way(length):
            scores = torch.cat([scores, values], dim=1)
            passages = torch.cat([passages, columns + start], dim=1)
            if start > 0:
                merged = scores.topk(min(length, scores.shape[1]), dim=1)
                scores, passages = merged.values, passages.gather(1, merged.indices)
            worst_error = torch.maximum(worst_error, error)
            highest_origins = torch.maximum(highest_origins, origins)
        rounding = self.precision.rounds_output * (scores - highest_origins[:, None]).abs()
        return Proposals(scores, passages, worst_error, worst_error[:, None] + rounding)

    def blocks(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(first passage id, scores with ineligible ones at -inf, error bound per row) of each passage block."""
        low = self.queries.to(self.precision.dtype)
        for block in self.corpus.blocks(self.precision.dtype):
            scores = self._buffer(block)
            with exact_accumulation(scores.device):
                torch.mm(low, block.vectors.T, out=scores)
            error = self.precision.error(self.queries, low, block)
            if self._has_limits:
                # Certainly at or over the ceiling, whatever the rounding (including that of this comparison's format).
                surely_over = self.limits + error
                surely_over = surely_over + 2 * self.precision.rounds_output * surely_over.abs()
                scores.masked_fill_(scores > surely_over.to(self.precision.dtype)[:, None], -torch.inf)
            self._exclude(scores, block, -torch.inf)
            yield block.start, scores, error

    @property
    def _has_limits(self) -> bool:
        return bool((self.limits < torch.inf).any())

    def _way(self, length: int) -> Callable[[int], Iterator[_Found]]:
        """The fastest way to find the best."""
        by_faiss = has_faiss_products(self.queries.device, self.precision.dtype)
        if self._has_limits:
            return self._nearest if by_faiss or self.precision.dtype == torch.bfloat16 else self._highest
        most_excluded = np.bincount(self.excluded[0], minlength=1).max()
        return self._highest_by_faiss if by_faiss and most_excluded <= length else self._highest

    def _highest(self, length: int) -> Iterator[_Found]:
        """The best of each passage block, ineligible ones masked."""
        for start, scores, error in self.blocks():
            top = scores.topk(min(length, scores.shape[1]), dim=1)
            yield start, top.values.float(), top.indices, error, torch.zeros_like(error)

    def _highest_by_faiss(self, length: int) -> Iterator[_Found]:
        """The best of each passage block if there are no limits, by `faiss_products`."""
        for block in self.corpus.blocks(self.precision.dtype):
            error = self.precision.error(self.queries, self.queries, block)
            values, columns = highest_products(
                self.queries, block.vectors, min(length, len(block.vectors)), self._excluded_in(block)
            )
            yield block.start, values, columns, error, torch.zeros_like(error)

    def _nearest(self, length: int) -> Iterator[_Found]:
        """The best of each passage block under the limits, by `nearest`."""
        low = self.queries.to(self.precision.dtype)
        norm = torch.linalg.vector_norm(low.float(), dim=1)
        for block in self.corpus.blocks(self.precision.dtype):
            error = self.precision.error(self.queries, low, block)
            origins, error = origins_over(self.limits, error, 1.01 * norm * block.max_norm, low.shape[1])
            scores = self._buffer(block)
            with exact_accumulation(scores.device):
                block.multiply_extended(with_origins(low, origins), scores)
            self._exclude(scores, block, torch.inf)
            values, columns = nearest_below_zero(scores, min(length, scores.shape[1]))
            yield block.start, values + origins[:, None], columns, error, origins

    def _buffer(self, block: PassageBlock) -> torch.Tensor:
        """Room for the scores of a block."""
        return self.buffer.of(self.precision.dtype, len(self.queries), len(block.vectors), self.queries.device)

    def _exclude(self, scores: torch.Tensor, block: PassageBlock, value: float) -> None:
        """Replace the scores of excluded pairs by ``value``."""
        scores[self._excluded_in(block)] = value

    def _excluded_in(self, block: PassageBlock) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and columns of a block's excluded pairs."""
        rows, passages = self.excluded
        here = (passages >= block.start) & (passages < block.start + len(block.vectors))
        device = self.queries.device
        return torch.from_numpy(rows[here]).to(device), torch.from_numpy(passages[here] - block.start).to(device)
