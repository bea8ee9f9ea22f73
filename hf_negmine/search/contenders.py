"""The first pass: a matrix product, and which passages may be among the best of a query, whatever its rounding.

The corpus is seen block by block. What has been found so far bounds what can still matter: once ``wanted`` passages
surely score at least s, a passage whose product shows that it scores less is out. So a block is compared with one
number per query instead of being sorted (`picking`). What is kept is everything within the error bound of the last
wanted place, not a fixed number of places: nothing has to be searched a second time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from hf_negmine.base.schema import IdArray
from hf_negmine.search.corpus import PassageBlock, lengths
from hf_negmine.search.picking import between, nth_highest, nth_of_groups
from hf_negmine.search.precision import Precision, exact_accumulation
from hf_negmine.search.ranking import NOTHING, pack_keys, unpack_keys

LOWEST = torch.finfo(torch.float32).min
MANY = 256
"""A query that keeps more passages than this beyond those wanted has them scored, so that its list does not grow."""

Score: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Canonical scores, given rows (n,), passage ids (n, length), and how many of each row's ids count (n,)."""


class ScoreBuffer(threading.local):
    """Memory for a block of products, one per thread, reused because fresh pages cost as much as a product."""

    def __init__(self) -> None:
        self._memory: dict[torch.dtype, torch.Tensor] = {}

    def of(self, dtype: torch.dtype, rows: int, columns: int, device: torch.device) -> torch.Tensor:
        """A part of the memory, not cleared."""
        memory = self._memory.get(dtype)
        if memory is None or memory.numel() < rows * columns:
            memory = self._memory[dtype] = torch.empty(rows * columns, dtype=dtype, device=device)
        return memory[: rows * columns].view(rows, columns)


@dataclass(frozen=True)
class _Entries:
    """Passages that may be among the best.

    Attributes:
        rows: int64, shape (entries,).
        passages: int64, same shape.
        products: float32, same shape: the product, or the canonical score of an entry that has one.
    """

    rows: torch.Tensor
    passages: torch.Tensor
    products: torch.Tensor

    @classmethod
    def none(cls, device: torch.device) -> _Entries:
        ids = torch.empty(0, dtype=torch.int64, device=device)
        return cls(ids, ids, torch.empty(0, device=device))

    @classmethod
    def joined(cls, parts: list[_Entries]) -> _Entries:
        """All entries, by row."""
        if len(parts) == 1:
            return parts[0]
        rows = torch.cat([part.rows for part in parts])
        order = rows.to(torch.int16).argsort(stable=True)  # of 16 bits, since these are sorted by their digits
        return cls(
            rows[order],
            torch.cat([part.passages for part in parts])[order],
            torch.cat([part.products for part in parts])[order],
        )

    def of(self, chosen: torch.Tensor) -> _Entries:
        chosen = chosen.nonzero().flatten()
        return _Entries(self.rows[chosen], self.passages[chosen], self.products[chosen])

    def padded(
        self, values: torch.Tensor, n_rows: int, at_least: int, empty: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values of the entries in a row each, shape (n_rows, longest or ``at_least``), and the lengths."""
        counts = torch.bincount(self.rows, minlength=n_rows)
        places = torch.arange(len(self.rows), device=self.rows.device) - (counts.cumsum(0) - counts)[self.rows]
        longest = max(int(counts.max()) if n_rows else 0, at_least)
        table = torch.full((n_rows, longest), empty, dtype=values.dtype, device=values.device)
        table[self.rows, places] = values
        return table, counts


class Contenders:
    """The passages that may be among the best of some queries.

    Args:
        queries: float32, shape (queries, width).
        query_of: int64, shape (rows,): the query of each row, rising. A query with several ceilings has several rows,
            which share its products; at most 32,767 rows.
        limits: ceilings, float32, shape (rows,), perhaps infinite.
        wanted: passages per query.
        excluded: queries and passages of the pairs that are not candidates.
        precision: number format of the product.
        score: canonical scores.
        buffer: memory for the products.
    """

    def __init__(
        self,
        queries: torch.Tensor,
        query_of: torch.Tensor,
        limits: torch.Tensor,
        wanted: int,
        excluded: tuple[IdArray, IdArray],
        precision: Precision,
        score: Score,
        buffer: ScoreBuffer,
    ) -> None:
        self._low = queries.to(precision.dtype)
        self._norm, self._residual = lengths(queries), lengths(self._low.double() - queries.double())
        self._query_of = query_of if len(query_of) > len(queries) else None  # None: row by row
        self._rows = len(query_of)
        self._limits, self._limited = limits, bool((limits < torch.inf).any())
        self._wanted, self._precision, self._score, self._buffer = wanted, precision, score, buffer
        self._excluded = excluded
        self._error = torch.zeros_like(limits)
        self._least = torch.full_like(limits, LOWEST)  # ``wanted`` passages are known to score this or more
        self._parts = [_Entries.none(queries.device)]

    def look_at(self, block: PassageBlock) -> None:
        """Keep the passages of a block that may be among the best."""
        products = self._products(block)
        if len(self._parts) == 1 and not len(self._parts[0].rows):
            self._raise_least(products)
        under = self._perhaps_under() if self._limited else None
        rows, columns = between(products, self._query_of, self._floor(), under)
        found = products[rows if self._query_of is None else self._query_of[rows], columns].float()
        self._parts.append(_Entries(rows, columns + block.start, found))
        if sum(len(part.rows) for part in self._parts[1:]) > self._rows * self._wanted:
            self._compare()

    def _products(self, block: PassageBlock) -> torch.Tensor:
        """The products with a block, -inf for pairs that are not candidates; shape (queries, columns)."""
        width, dtype, device = self._low.shape[1], self._precision.dtype, self._low.device
        # The bound only grows, since products of all blocks are compared.
        error = self._of_rows(self._precision.error(self._norm, self._residual, width, block))
        self._error = torch.maximum(self._error, error)
        products = self._buffer.of(dtype, len(self._low), len(block.vectors), device)
        multiply(self._low, block.vectors, products)
        products[:, block.count :] = -torch.inf
        products[self._excluded_in(block)] = -torch.inf
        return products

    def _of_rows(self, of_queries: torch.Tensor) -> torch.Tensor:
        return of_queries if self._query_of is None else of_queries[self._query_of]

    def best(self, blocks: Iterable[PassageBlock] = ()) -> torch.Tensor:
        """Keys (see `ranking`) of the ``wanted`` best passages under the limits, falling, shape (rows, wanted).

        Args:
            blocks: blocks to look at before.
        """
        for block in blocks:
            self.look_at(block)
        self._compare()
        return self._exactly(self._parts[0], self._rows)

    def _compare(self) -> None:
        """Drop what the entries found so far leave no place for."""
        entries = _Entries.joined(self._parts)
        lowest = entries.products - self._spread(entries)
        if self._limited:
            over = entries.products > self._surely_under()[entries.rows]
            lowest = lowest.masked_fill(over, -torch.inf)
        lowest, _ = entries.padded(lowest, self._rows, self._wanted, -torch.inf)
        self._least = torch.maximum(self._least, nth_highest(lowest, self._wanted))
        entries = entries.of(entries.products >= self._floor()[entries.rows])
        counts = torch.bincount(entries.rows, minlength=self._rows)
        if bool((counts > self._wanted + MANY).any()):
            entries = self._settled(entries, counts > self._wanted + MANY)
        self._parts = [entries]

    def _settled(self, entries: _Entries, many: torch.Tensor) -> _Entries:
        """The entries with only the exact best of the rows that have ``many``."""
        rows = many.nonzero().flatten()
        place = many.cumsum(0) - 1
        some = entries.of(many[entries.rows])
        keys = self._exactly(_Entries(place[some.rows], some.passages, some.products), len(rows), rows)
        found = keys != NOTHING
        scores, passages = unpack_keys(keys)
        full = found[:, -1]
        self._least[rows[full]] = torch.maximum(self._least[rows[full]], scores[full, -1])
        best = _Entries(rows[:, None].expand_as(keys)[found], passages[found].to(torch.int64), scores[found])
        return _Entries.joined([entries.of(~many[entries.rows]), best])

    def _exactly(self, entries: _Entries, n_rows: int, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Keys of the best entries by their canonical scores, falling, shape (n_rows, wanted)."""
        rows = torch.arange(n_rows, device=self._low.device) if rows is None else rows
        passages, counts = entries.padded(entries.passages, n_rows, self._wanted, 0)
        scores = self._score(rows, passages, counts)
        outside = torch.arange(passages.shape[1], device=scores.device) >= counts[:, None]
        scores = scores.masked_fill(outside | (scores >= self._limits[rows, None]), -torch.inf)
        return pack_keys(scores, passages).topk(self._wanted, dim=1).values

    # ---- what rounding can do ----------------------------------------------------------------------------------

    def _raise_least(self, products: torch.Tensor) -> None:
        """Find a first bound from the products with the first block."""
        if products.shape[1] >= self._wanted:
            under = self._surely_under() if self._limited else None
            nth = nth_of_groups(products, self._query_of, under, self._wanted).clamp(min=LOWEST)
            lowest = nth - self._error - self._precision.rounds_output * nth.abs()
            self._least = torch.maximum(self._least, lowest)

    def _spread(self, entries: _Entries) -> torch.Tensor:
        return self._error[entries.rows] + self._precision.rounds_output * entries.products.abs()

    def _floor(self) -> torch.Tensor:
        """The lowest product that a passage can have that is among the best; float32, shape (rows,)."""
        return _lower(self._precision.least_product(self._least - self._error)).clamp(min=LOWEST)

    def _perhaps_under(self) -> torch.Tensor:
        """The highest product that a passage under its limit can have."""
        return _higher(self._precision.greatest_product(self._limits + self._error))

    def _surely_under(self) -> torch.Tensor:
        """A product up to which every passage is under its limit."""
        return _lower(self._precision.least_product(self._limits - self._error))

    def _excluded_in(self, block: PassageBlock) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and columns of a block's excluded pairs."""
        queries, passages = self._excluded
        here = (passages >= block.start) & (passages < block.start + block.count)
        device = self._low.device
        return torch.from_numpy(queries[here]).to(device), torch.from_numpy(passages[here] - block.start).to(device)


def multiply(queries: torch.Tensor, passages: torch.Tensor, out: torch.Tensor) -> None:
    """Write the dot products of all queries with all passages into ``out``, shape (queries, passages)."""
    if out.device.type == "cpu" and out.dtype == torch.float32:
        # numpy's matrix library takes two thirds of the time of torch's on an AMD processor.
        np.matmul(queries.numpy(), passages.numpy().T, out=out.numpy())
        return
    with exact_accumulation(out.device):
        torch.mm(queries, passages.T, out=out)


def _lower(values: torch.Tensor) -> torch.Tensor:
    """Slightly lower numbers, for what computing them in float32 may have added."""
    return torch.where(values.isinf(), values, values - values.abs() * 2.0**-21 - 1e-30)


def _higher(values: torch.Tensor) -> torch.Tensor:
    return -_lower(-values)
