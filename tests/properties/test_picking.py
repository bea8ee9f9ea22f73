"""What is picked out of a matrix of products against plain comparisons of float32 numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.search import picking
from hf_negmine.search.corpus import COLUMNS_A_GROUP
from tests.thorough import examples

ODD = [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 0.5, -0.5, 1.0, 1.0039062, 1.0078125, -1.0, 3.0e38, -3.0e38]
FORMATS = st.sampled_from([torch.float32, torch.bfloat16])


def matrix(rng: np.random.Generator, rows: int, groups: int, dtype: torch.dtype, odd: bool) -> torch.Tensor:
    """Products, of which some are no candidates (-inf)."""
    shape = (rows, groups * COLUMNS_A_GROUP)
    values = rng.choice(ODD, shape) if odd else rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3)
    values[rng.random(shape) < 0.1] = -np.inf
    return torch.from_numpy(values.astype(np.float32)).to(dtype)


def some_of(rng: np.random.Generator, values: torch.Tensor, row_of: torch.Tensor) -> torch.Tensor:
    """A bound for each row: one of its finite numbers, or one beside it that the format does not have."""
    some = values.float()[row_of, torch.from_numpy(rng.integers(0, values.shape[1], len(row_of)))]
    some = torch.where(some.isinf(), 0.25, some)
    beside = torch.from_numpy(np.nextafter(some.numpy(), np.float32(rng.choice([-np.inf, np.inf]))))
    return torch.where(torch.from_numpy(rng.random(len(some)) < 0.5), some, beside).clamp(min=-3.4e38, max=3.4e38)


@examples(200)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 7),
    groups=st.integers(1, 5),
    dtype=FORMATS,
    odd=st.booleans(),
    bounded=st.booleans(),
    repeated=st.booleans(),
    cached=st.sampled_from([1, 60, 2**19]),
)
def test_what_lies_between_two_bounds_is_found(
    seed: int, rows: int, groups: int, dtype: torch.dtype, odd: bool, bounded: bool, repeated: bool, cached: int
) -> None:
    rng = np.random.default_rng(seed)
    products = matrix(rng, rows, groups, dtype, odd)
    row_of = torch.arange(rows)
    if repeated and rows:
        row_of = torch.from_numpy(np.sort(rng.integers(0, rows, rng.integers(0, 12))))
    low = some_of(rng, products, row_of)
    high = torch.where(torch.from_numpy(rng.random(len(row_of)) < 0.2), torch.inf, some_of(rng, products, row_of))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picking, "CACHED", cached)
        found = picking.between(products, row_of if repeated else None, low, high if bounded else None)
    values = products.float()[row_of]
    expected = (values >= low[:, None]) & (values <= (high[:, None] if bounded else torch.inf))
    assert torch.stack(found).tolist() == torch.stack(expected.nonzero(as_tuple=True)).tolist()


@examples(200)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 7),
    groups=st.integers(1, 30),
    n=st.integers(1, 16),
    dtype=FORMATS,
    odd=st.booleans(),
    bounded=st.booleans(),
    cached=st.sampled_from([1, 60, 2**19]),
)
def test_n_products_under_the_ceiling_reach_the_first_bound(
    seed: int, rows: int, groups: int, n: int, dtype: torch.dtype, odd: bool, bounded: bool, cached: int
) -> None:
    rng = np.random.default_rng(seed)
    products = matrix(rng, rows, groups, dtype, odd)
    high = some_of(rng, products, torch.arange(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picking, "CACHED", cached)
        bound = picking.nth_of_groups(products, None, high if bounded else None, n)
    values = products.float()
    if bounded:
        values = values.masked_fill(values > high[:, None], -torch.inf)
    reached = (values >= bound[:, None]).sum(dim=1)
    assert bound.dtype == torch.float32
    assert (reached >= n).all()
    if groups == 1:  # too few groups: all numbers are compared
        assert bound.tolist() == values.sort(dim=1, descending=True).values[:, n - 1].tolist()


@examples(50)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 5), columns=st.integers(1, 40), data=st.data())
def test_the_nth_highest_is_that_of_a_sorted_row(seed: int, rows: int, columns: int, data: st.DataObject) -> None:
    values = torch.from_numpy(np.random.default_rng(seed).choice(ODD, (rows, columns)).astype(np.float32))
    n = data.draw(st.integers(1, columns))
    expected = values.sort(dim=1, descending=True).values[:, n - 1]
    assert picking.nth_highest(values, n).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_zeros_are_one_number(dtype: torch.dtype) -> None:
    products, zeros = torch.tensor([[0.0, -0.0] * 8] * 4).to(dtype), torch.tensor([0.0, 0.0, -0.0, -0.0])
    rows, _ = picking.between(products, None, zeros, zeros[[0, 2, 0, 2]])
    assert torch.bincount(rows).tolist() == [16] * 4
    for high in (zeros, -zeros):
        assert picking.nth_of_groups(products, None, high, 16).tolist() == [0.0] * 4
