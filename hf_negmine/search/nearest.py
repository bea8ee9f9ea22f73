"""The scores nearest below a ceiling, found without looking at those above it.

Each query and passage gets a few extra dimensions, through which the matrix product gives score - origin: below zero
exactly where a passage may be eligible, since the origin lies above the ceiling by as much as rounding can contribute.
Read as an integer, a negative float is lower the nearer it is to zero, and lower than every other float. So the lowest
integers are the best passages under the ceiling, and nothing needs to be masked. Moreover, scores near the ceiling,
where they crowd, become numbers near zero, which bfloat16 hardly rounds at all.
"""

from __future__ import annotations

import numpy as np
import torch

from hf_negmine.search.workers import side_by_side

ORIGIN_PIECES = 3
"""bfloat16 numbers of 8 bits each that together hold a float32 number of 24: no hardware rounds them any further."""
EXTRA_COLUMNS = 16
"""More than `ORIGIN_PIECES`, so that rows start at the alignment that matrix units like."""
COLUMNS_A_GROUP = 16
LONG_LIST = 256
"""From this length on, numpy finds the lowest faster than torch does."""
ROWS_AT_ONCE = 16
"""Rows of a score block that numpy processes at a time: few enough for a core's cache."""
INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


def with_ones(passages: torch.Tensor) -> torch.Tensor:
    """Passage vectors with the dimensions that multiply an origin: same dtype, (n, width + `EXTRA_COLUMNS`)."""
    extra = passages.new_zeros(len(passages), EXTRA_COLUMNS)
    extra[:, :ORIGIN_PIECES] = 1
    return torch.cat([passages, extra], dim=1)


def with_origins(queries: torch.Tensor, origins: torch.Tensor) -> torch.Tensor:
    """Query vectors whose product with `with_ones` passages is score - origin; same dtype and width as these."""
    extra = queries.new_zeros(len(queries), EXTRA_COLUMNS)
    rest = -origins
    for column in range(ORIGIN_PIECES):
        extra[:, column] = rest.bfloat16()
        rest = rest - extra[:, column].float()
    return torch.cat([queries, extra], dim=1)


def origins_over(
    limits: torch.Tensor, error: torch.Tensor, highest: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins above any first-pass score of a passage under its limit, and the error bound that includes them.

    Args:
        limits: float32, shape (rows,), perhaps infinite.
        error: how far rounding can move a score, shape (rows,).
        highest: upper bound of the magnitude of first-pass scores, shape (rows,).
        width: dimensions of the vectors.

    Returns:
        Origins, finite, and how far rounding can move score - origin + origin; both float32, shape (rows,).
    """
    origins = (limits + error).clamp(-highest, highest)
    # As in `Precision.error`: each of the summed terms may cost 2 * 2^-24 of the sum of magnitudes.
    more = 2 * (width + EXTRA_COLUMNS) * 2.0**-24 * origins.abs() * 1.01 + 1e-30
    return origins + 2 * more, error + more


def nearest_below_zero(scores: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``length`` highest scores below zero of each row.

    Args:
        scores: bfloat16 or float32, shape (rows, columns), no NaN.
        length: at most the number of columns.

    Returns:
        Scores (float32, falling, -inf where there are no more) and their columns (int64), shape (rows, length).
    """
    bits = scores.view(INTEGERS[scores.dtype])
    if length > LONG_LIST and bits.device.type == "cpu":
        lowest, places = _lowest_by_numpy(bits, length)
        return lowest.view(scores.dtype).float().masked_fill(lowest >= 0, -torch.inf), places
    groups = bits.shape[1] // COLUMNS_A_GROUP
    columns = None
    if groups > length:
        # Each of the lowest is in a group whose minimum is among the ``length`` lowest group minima. A group is every
        # `groups`-th column, since a matrix's minimum over rows is faster than its minimum over columns.
        grouped = groups * COLUMNS_A_GROUP
        lowest = bits[:, :grouped].view(len(bits), COLUMNS_A_GROUP, groups).amin(dim=1)
        chosen = lowest.topk(length, dim=1, largest=False, sorted=False).indices
        steps = torch.arange(0, grouped, groups, device=bits.device)
        ungrouped = torch.arange(grouped, bits.shape[1], device=bits.device).expand(len(bits), -1)
        columns = torch.cat([(chosen[:, None, :] + steps[:, None]).flatten(1), ungrouped], dim=1)
        bits = bits.gather(1, columns)
    found = bits.topk(length, dim=1, largest=False)
    values = found.values.view(scores.dtype).float().masked_fill(found.values >= 0, -torch.inf)
    return values, found.indices if columns is None else columns.gather(1, found.indices)


def _lowest_by_numpy(bits: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``length`` lowest integers of each row, rising, and their columns; for long lists, in a third of the time."""
    rows, n_columns = bits.shape
    values, columns = bits.new_empty(rows, length), torch.empty(rows, length, dtype=torch.int64)

    def find(start: int) -> None:
        some = slice(start, start + ROWS_AT_ONCE)
        numbers = bits[some].to(torch.int32).numpy()  # numpy has vector instructions for 32 and 64 bits
        last = np.partition(numbers, length - 1, axis=1)[:, length - 1, None]
        places = np.flatnonzero(numbers <= last)
        firsts = np.arange(len(numbers)) * n_columns
        counts = np.diff(np.searchsorted(places, np.append(firsts, numbers.size)))
        # Sorting a number and its column as one integer is several times as fast as an argsort.
        found = numbers.reshape(-1)[places].astype(np.int64) << 32 | (places - np.repeat(firsts, counts))
        keys = np.full((len(numbers), counts.max()), np.iinfo(np.int64).max)
        keys[np.arange(keys.shape[1]) < counts[:, None]] = found
        keys.sort(axis=1)
        values[some] = torch.from_numpy(keys[:, :length] >> 32).to(bits.dtype)
        columns[some] = torch.from_numpy(keys[:, :length] & 0xFFFFFFFF)

    side_by_side(find, range(0, rows, ROWS_AT_ONCE))
    return values, columns
