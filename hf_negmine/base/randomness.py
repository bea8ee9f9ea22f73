"""Random numbers keyed by what they are for, so that they do not depend on batching, order or processes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

KeyArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]


def random_keys(seed: int, query_keys: KeyArray, passage_keys: KeyArray) -> KeyArray:
    """A random 64-bit number for each (query, passage).

    Args:
        seed: any integer.
        query_keys: first halves of the query digests, uint64, shape (rows,).
        passage_keys: first halves of the passage digests, uint64, shape (rows, k) or (1, k).

    Returns:
        uint64, shape (rows, k).
    """
    row = _mix(query_keys ^ _mix(np.full(1, int(seed) % 2**64, dtype=np.uint64)))
    return _mix(passage_keys + row[:, None])


def seed_of_epoch(seed: int, epoch: int) -> int:
    """The seed for the draws of an epoch; epoch 0 uses ``seed`` itself."""
    if epoch == 0:
        return seed
    both = np.array([int(seed) % 2**64, epoch], dtype=np.uint64)
    return int(_mix(_mix(both[:1]) ^ both[1:])[0])


def uniform(keys: KeyArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers strictly between 0 and 1 from random 64-bit keys, same shape."""
    return np.asarray(((keys >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53)


def _mix(values: KeyArray) -> KeyArray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every input bit moves every output bit.

    uint64 arithmetic on arrays wraps around silently in numpy, as the algorithm requires.
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))
