"""Ragged rows as compressed sparse rows: one flat array and the offsets of each row in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hf_negmine.base.schema import AnyArray, BoolArray, IdArray


def offsets_of_counts(counts: IdArray) -> IdArray:
    """Offsets of rows with these lengths, shape (rows + 1,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def offsets_of_rows(rows: IdArray, n_rows: int) -> IdArray:
    """Offsets of sorted row numbers, shape (n_rows + 1,)."""
    return offsets_of_counts(np.bincount(rows, minlength=n_rows))


def flat_positions(starts: IdArray, counts: IdArray) -> tuple[IdArray, IdArray]:
    """All positions start, start + 1, … of every row, and the row of each; both of shape (sum(counts),)."""
    rows = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(len(rows)), rows


def runs(offsets: IdArray, most: int, most_rows: int = 2**62) -> Iterator[tuple[int, int]]:
    """Cut rows into ranges (first, last) of at most so many entries and so many rows, but at least one row."""
    first = 0
    while first < len(offsets) - 1:
        within = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
        last = min(max(within, first + 1), first + most_rows)
        yield first, last
        first = last


def first_where(starts: IdArray, stops: IdArray, holds: Callable[[IdArray], BoolArray]) -> IdArray:
    """The first entry of each row for which ``holds`` is true, else its stop: one binary search in all rows at once.

    Args:
        starts, stops: int64, shape (rows,): the entries of each row.
        holds: takes one entry per row, shape (rows,), and says for which it is true; once true, it stays true.
    """
    low: IdArray = starts.copy()
    high: IdArray = stops.copy()
    last = int(stops.max(initial=0)) - 1
    while (open_ := low < high).any():
        middle = np.minimum((low + high) // 2, last)
        held = holds(middle)
        np.copyto(low, middle + 1, where=open_ & ~held)
        np.copyto(high, middle, where=open_ & held)
    return low


def joined_pieces(values: AnyArray, starts: IdArray, sizes: IdArray) -> AnyArray:
    """The entries start to start + size of every piece, one after the other.

    Adjacent pieces are copied as one. A pool that was deepened for some of its queries consists of few such runs, and
    copying these costs a fraction of indexing every entry.
    """
    filled = sizes > 0
    starts, stops = starts[filled], starts[filled] + sizes[filled]
    begins = np.ones(len(starts), dtype=bool)
    begins[1:] = starts[1:] != stops[:-1]
    ends = np.ones(len(starts), dtype=bool)
    ends[:-1] = begins[1:]
    joined = np.empty(int(sizes.sum()), dtype=values.dtype)
    place = 0
    for start, stop in zip(starts[begins].tolist(), stops[ends].tolist(), strict=True):
        joined[place : place + stop - start] = values[start:stop]
        place += stop - start
    return joined


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: parallel flat arrays, and where each row starts in them.

    Attributes:
        offsets: int64, shape (rows + 1,).
        arrays: the entries, each array of shape (entries,) or (entries, …).
    """

    offsets: IdArray
    arrays: tuple[AnyArray, ...]

    @classmethod
    def concatenated(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, one part after the other."""
        counts = [part.counts for part in parts]
        columns = zip(*(part.arrays for part in parts), strict=True)
        return cls(offsets_of_counts(np.concatenate(counts)), tuple(np.concatenate(column) for column in columns))

    @property
    def counts(self) -> IdArray:
        """The number of entries in each row, shape (rows,)."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> IdArray:
        """The row of each entry, shape (entries,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def take(self, rows: IdArray, most: int | None = None) -> Ragged:
        """Some rows in the order given, possibly repeated, each cut to its first ``most`` entries."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        if most is not None:
            counts = np.minimum(counts, most)
        entries, _ = flat_positions(self.offsets[rows], counts)
        return Ragged(offsets_of_counts(counts), tuple(array[entries] for array in self.arrays))

    def kept(self, keep: BoolArray) -> Ragged:
        """All rows, with only the entries to ``keep``."""
        offsets = np.concatenate([[0], np.cumsum(keep)])[self.offsets].astype(np.int64)
        return Ragged(offsets, tuple(array[keep] for array in self.arrays))
