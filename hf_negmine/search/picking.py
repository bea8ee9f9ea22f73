"""Picking numbers out of a matrix of products: those between two bounds per row, and a bound to begin with.

On a CPU numpy does it, in a quarter of torch's time, and a few rows at a time, so that they stay in a core's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

from hf_negmine.search.corpus import COLUMNS_A_GROUP

GROUPS_A_PLACE = 10
"""Groups of columns that are looked at for each wanted place."""
CACHED = 2**19
"""Products that are compared at a time on a CPU."""
SIGN_APART = 0x7FFF
"""The bits of a number of 16 bits without its sign."""

Numbers: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Rows: TypeAlias = tuple[slice, Numbers, Numbers | None]
"""Some rows, their products and their upper bounds."""


def between(
    products: torch.Tensor, row_of: torch.Tensor | None, low: torch.Tensor, high: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every product from ``low`` to ``high``, row by row.

    Args:
        products: float32 or bfloat16, shape (n, columns).
        row_of: int64, shape (rows,): the row of ``products`` that is compared with each pair of bounds; None for all.
        low: float32, shape (rows,), finite.
        high: the same, perhaps infinite; None for no upper bound.
    """
    if products.device.type != "cpu":
        matrix = products if row_of is None else products[row_of]
        inside = matrix >= low[:, None]
        rows_and_columns = (inside if high is None else inside & (matrix <= high[:, None])).nonzero()
        return rows_and_columns[:, 0], rows_and_columns[:, 1]
    lowest = _bounds(low, products.dtype, up=True)
    found = []
    for some, values, highest in _few_rows(products, row_of, high):
        chosen = values >= lowest[some, None]
        if highest is not None:
            chosen &= values <= highest
        found.append(np.flatnonzero(chosen) + some.start * products.shape[1])
    rows, columns = np.divmod(np.concatenate(found), products.shape[1])
    return torch.from_numpy(rows), torch.from_numpy(columns)


def nth_of_groups(
    products: torch.Tensor, row_of: torch.Tensor | None, high: torch.Tensor | None, n: int
) -> torch.Tensor:
    """A number that n products of each row that are at most ``high`` reach; float32, shape (rows,), perhaps -inf.

    It is the n-th highest of the highest products of groups of columns, or of all where there are few groups, in as
    many columns as it takes for a good bound. A group has its columns at equal distances: the maximum of a matrix over
    rows is faster than over columns.
    """
    products = products[:, : COLUMNS_A_GROUP * GROUPS_A_PLACE * n]
    width = products.shape[1]
    size = COLUMNS_A_GROUP if width // COLUMNS_A_GROUP >= n else 1
    if products.device.type != "cpu":
        matrix = products if row_of is None else products[row_of]
        if high is not None:
            matrix = matrix.masked_fill(matrix > high[:, None], -torch.inf)
        return nth_highest(matrix.reshape(len(matrix), size, width // size).amax(dim=1).float(), n)
    lowest = _ordered(torch.full((1,), -torch.inf, dtype=products.dtype))
    nth = []
    for _, values, highest in _few_rows(products, row_of, high):
        if highest is not None:
            values = np.where(values <= highest, values, lowest)
        groups = values.reshape(len(values), size, width // size).max(axis=1)
        nth.append(np.partition(groups, groups.shape[1] - n, axis=1)[:, groups.shape[1] - n])
    return _products(np.concatenate(nth))


def nth_highest(values: torch.Tensor, n: int) -> torch.Tensor:
    """The n-th highest number of each row of a float32 matrix."""
    place = values.shape[1] - n
    if values.device.type != "cpu":
        return values.kthvalue(place + 1, dim=1).values
    return torch.from_numpy(np.partition(values.numpy(), place, axis=1)[:, place])


def _few_rows(products: torch.Tensor, row_of: torch.Tensor | None, high: torch.Tensor | None) -> Iterator[Rows]:
    """All rows, so few at a time that their products stay in a core's cache."""
    n_rows = len(products) if row_of is None else len(row_of)
    highest = None if high is None else _bounds(high, products.dtype, up=False)
    step = max(1, CACHED // products.shape[1])
    for start in range(0, max(n_rows, 1), step):  # once for no rows, so that there is something to join
        some = slice(start, start + step)
        values = products[some] if row_of is None else products[row_of[some]]
        yield some, _ordered(values), None if highest is None else highest[some, None]


def _ordered(values: torch.Tensor) -> Numbers:
    """Numbers that numpy sorts alike: it knows no bfloat16, but sorts its bits once the sign is folded into them."""
    if values.dtype == torch.float32:
        return values.numpy()
    return _folded(values.view(torch.int16).numpy())


def _bounds(values: torch.Tensor, dtype: torch.dtype, *, up: bool) -> Numbers:
    """The values rounded up or down to numbers of the format ``dtype``, as `_ordered` has them."""
    near = values.to(dtype)
    ordered = _ordered(near)
    if dtype == torch.float32:
        return ordered
    rounded: Numbers = ordered + (near < values).numpy() if up else ordered - (near > values).numpy()
    # -0.0 and 0.0 are one number, but -1 and 0 here: a bound takes in both.
    return np.where((rounded == -1) | (rounded == 0), -1 if up else 0, rounded).astype(np.int16)


def _products(ordered: Numbers) -> torch.Tensor:
    """What `_ordered` was made of, as float32."""
    if ordered.dtype == np.float32:
        return torch.from_numpy(ordered)
    return torch.from_numpy(_folded(ordered)).view(torch.bfloat16).float()


def _folded(bits: Numbers) -> Numbers:
    folded: Numbers = bits ^ ((bits >> 15) & SIGN_APART)
    return folded
