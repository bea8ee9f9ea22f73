"""Ragged rows as compressed sparse rows: one flat array and the offsets of each row in it."""

from __future__ import annotations

import numpy as np

from hf_negmine.schema import IdArray


def offsets_of_counts(counts: IdArray) -> IdArray:
    """Offsets of rows with these lengths, shape (rows + 1,)."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def offsets_of_rows(rows: IdArray, n_rows: int) -> IdArray:
    """Offsets of sorted row numbers, shape (n_rows + 1,)."""
    return offsets_of_counts(np.bincount(rows, minlength=n_rows))


def flat_positions(starts: IdArray, counts: IdArray) -> tuple[IdArray, IdArray]:
    """All positions start, start + 1, … of every row, and the row of each. Shapes (sum(counts),)."""
    rows = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(len(rows)), rows
