"""A model's vectors for a few texts, as proof of its identity, in a form that the last digits do not affect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hf_negmine.base.files import digest_of
from hf_negmine.base.schema import FloatArray

PROBES = ("What is tea?", "Hard negatives look relevant.", "Über 3.50 €", "tea")
"""Texts whose vectors are part of a fingerprint; short enough that no model cuts them."""
GRID = 64
"""The numbers of a probe, three per text, are rounded to steps of 1/64. In float32 a number differs by about 1e-6
between machines, so the chance that one of the twelve crosses a step is about 12 * 2e-6 * 64 = 0.2 %."""


def probe_digest(vectors: FloatArray) -> str:
    """The digest of some texts' vectors, shape (texts, width); vectors that differ in the last digits have the same.

    Each vector is reduced to its length and to two projections of its direction, rounded to a grid.
    """
    found = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(found, axis=1)
    # Directions that do not depend on a random generator's version; a projection is about 0.7 in size.
    directions = np.cos(np.outer(np.arange(1, found.shape[1] + 1), [1.0, 2.0]))
    projected = (found / np.where(lengths > 0, lengths, 1.0)[:, None]) @ directions
    numbers = np.column_stack([np.log(np.where(lengths > 0, lengths, 1.0)), projected])
    return digest_of(np.rint(numbers * GRID) + 0.0)  # without a zero's sign


@contextmanager
def one_thread() -> Iterator[None]:
    """Make torch compute in one thread, as in a worker of a map, so that a probe's last digits are the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def place_of_computing(model: Any) -> str:
    """What inexact vectors depend on besides the model: the device, and the processor's instructions."""
    import torch

    kind = str(getattr(model, "device", "cpu")).partition(":")[0]
    return f"{kind} {torch.backends.cpu.get_cpu_capability()}" if kind == "cpu" else kind
