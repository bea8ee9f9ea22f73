"""Ragged rows as flat arrays, against lists of lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts, offsets_of_rows, runs

rows_of_entries = st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=6)


def ragged(rows: list[list[int]]) -> Ragged:
    flat = np.array([entry for row in rows for entry in row], dtype=np.int32)
    return Ragged(offsets_of_counts(np.array([len(row) for row in rows], dtype=np.int64)), (flat, flat / 2))


def listed(found: Ragged) -> list[list[int]]:
    entries, halves = found.arrays
    assert (halves * 2 == entries).all()
    assert found.offsets.dtype == np.int64
    assert entries.dtype == np.int32
    return [part.tolist() for part in np.split(entries, found.offsets[1:-1])] if len(found.offsets) > 1 else []


@given(rows_of_entries, st.data())
def test_some_rows_in_any_order(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    most = data.draw(st.none() | st.integers(0, 6))
    taken = ragged(rows).take(np.array(chosen, dtype=np.int64), most)
    assert listed(taken) == [rows[place][:most] for place in chosen]


@given(rows_of_entries, st.data())
def test_some_entries(rows: list[list[int]], data: st.DataObject) -> None:
    keep = [[data.draw(st.booleans()) for _ in row] for row in rows]
    kept = ragged(rows).kept(np.array([one for row in keep for one in row], dtype=bool))
    both = zip(rows, keep, strict=True)
    assert listed(kept) == [[entry for entry, stays in zip(*row, strict=True) if stays] for row in both]
    assert kept.counts.tolist() == [sum(row) for row in keep]
    assert kept.rows.tolist() == [place for place, row in enumerate(keep) for stays in row if stays]


@given(st.lists(rows_of_entries, min_size=1, max_size=4))
def test_parts_one_after_another(parts: list[list[list[int]]]) -> None:
    assert listed(Ragged.concatenated([ragged(part) for part in parts])) == [row for part in parts for row in part]


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 12), st.integers(1, 5))
def test_runs_are_as_long_as_they_may_be(counts: list[int], most: int, most_rows: int) -> None:
    found = list(runs(offsets_of_counts(np.array(counts, dtype=np.int64)), most, most_rows))
    assert [row for first, last in found for row in range(first, last)] == list(range(len(counts)))
    for first, last in found:
        assert last - first <= most_rows
        assert last - first == 1 or sum(counts[first:last]) <= most
        assert last == len(counts) or last - first == most_rows or sum(counts[first : last + 1]) > most


def test_offsets() -> None:
    assert offsets_of_counts(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]
    assert offsets_of_counts(np.array([], dtype=np.int64)).tolist() == [0]
    assert offsets_of_rows(np.array([0, 0, 2]), 4).tolist() == [0, 2, 2, 3, 3]
    assert offsets_of_counts(np.array([2])).dtype == offsets_of_rows(np.array([0]), 1).dtype == np.int64


def test_flat_positions_skip_empty_rows() -> None:
    positions, rows = flat_positions(np.array([5, 0, 9, 2]), np.array([2, 0, 3, 1]))
    assert positions.tolist() == [5, 6, 9, 10, 11, 2]
    assert rows.tolist() == [0, 0, 2, 2, 2, 3]
