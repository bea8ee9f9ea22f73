"""Ragged rows as flat arrays."""

from __future__ import annotations

import numpy as np

from hf_negmine.base.ragged import flat_positions, offsets_of_counts, offsets_of_rows


def test_offsets() -> None:
    assert offsets_of_counts(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of_counts(np.array([], dtype=np.int64)).tolist() == [0]
    assert offsets_of_rows(np.array([0, 0, 2]), 4).tolist() == [0, 2, 2, 3, 3]
    assert offsets_of_counts(np.array([2])).dtype == offsets_of_rows(np.array([0]), 1).dtype == np.int64


def test_flat_positions_skip_empty_rows() -> None:
    positions, rows = flat_positions(np.array([5, 0, 9, 2]), np.array([2, 0, 3, 1]))
    assert positions.tolist() == [5, 6, 9, 10, 11, 2]
    assert rows.tolist() == [0, 0, 2, 2, 2, 3]
