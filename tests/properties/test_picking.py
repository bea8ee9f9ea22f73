"""Picking numbers out of products, against plain numpy on float32 copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.schema import FloatArray
from hf_negmine.search import picking
from tests.thorough import examples

EDGES = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 2.0**-126, -1e-30, 1.0, -1.0, 1.001, 3.3e38, 3.4e38, -3.4e38],
    dtype=np.float32,
)
"""Numbers at which a format changes its ways; some of them bfloat16 rounds to 0 or to infinity."""


def numbers(rng: np.random.Generator, *shape: int) -> FloatArray:
    edges = rng.choice(EDGES, shape)
    usual = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    found: FloatArray = np.where(rng.random(shape) < rng.random(), edges, usual)
    return found


def products_of(rng: np.random.Generator, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    products = torch.from_numpy(numbers(rng, rows, columns)).to(dtype)
    products[torch.from_numpy(rng.random((rows, columns)) < 0.1)] = -torch.inf
    return products


cases = given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    groups=st.integers(1, 8),
    n=st.integers(1, 128),
    several=st.booleans(),
    bounded=st.booleans(),
)


@examples(400)
@cases
def test_picking_equals_numpy_on_float32(
    seed: int, dtype: torch.dtype, groups: int, n: int, several: bool, bounded: bool
) -> None:
    rng = np.random.default_rng(seed)
    width, rows = groups * picking.COLUMNS_A_GROUP, int(rng.integers(0, 6))
    products = products_of(rng, max(rows, 1), width, dtype)
    row_of = torch.from_numpy(np.sort(rng.integers(0, len(products), rows))) if several else None
    values = (products if row_of is None else products[row_of]).float().numpy()
    low, high = numbers(rng, len(values)), numbers(rng, len(values))
    some = rng.random((2, len(values))) < 0.5  # bounds that are products
    column = rng.integers(0, width, len(values))
    own = values[np.arange(len(values)), column]
    low, high = np.where(some[0] & np.isfinite(own), own, low), np.where(some[1], own, high)
    high = np.where(rng.random(len(high)) < 0.2, np.float32(np.inf), high)
    under = torch.from_numpy(high) if bounded else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picking, "CACHED", int(rng.choice([1, 3 * width, picking.CACHED])))
        found = picking.between(products, row_of, torch.from_numpy(low), under)
        nth = picking.nth_of_groups(products, row_of, under, min(n, width))

    chosen = values >= low[:, None]
    allowed = values <= high[:, None] if bounded else np.ones_like(chosen)
    assert [place.tolist() for place in found] == [place.tolist() for place in np.nonzero(chosen & allowed)]
    kept = np.where(allowed, values, -np.inf)
    size = 16 if groups >= min(n, width) else 1
    best = kept.reshape(len(kept), size, width // size).max(axis=1)
    assert nth.dtype == torch.float32
    assert nth.tolist() == np.sort(best, axis=1)[:, -min(n, width)].tolist()


@examples(100)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 5), columns=st.integers(1, 40))
def test_the_nth_highest_is_that_of_a_sorted_row(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    values = products_of(rng, max(rows, 1), columns, torch.float32)[:rows]
    n = int(rng.integers(1, columns + 1))
    assert picking.nth_highest(values, n).tolist() == np.sort(values.numpy(), axis=1)[:, -n].tolist()
