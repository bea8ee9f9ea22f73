"""What a model makes of a few texts, as proof of what it is, in a form that last digits do not change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hf_negmine.base.files import digest_of
from hf_negmine.base.schema import FloatArray

PROBES = ("What is tea?", "Hard negatives look relevant.", "Über 3.50 €", "tea")
"""Texts whose vectors are part of a fingerprint; short ones, which no model cuts."""
GRID = 64
"""Steps of 1/64 in a probe's numbers, of which there are three per text. In float32 a number moves by some 1e-6 from
machine to machine, so that one of twelve crosses a step with a chance of about 12 * 2e-6 * 64 = 0.2 %."""


def probe_digest(vectors: FloatArray) -> str:
    """Digest of the vectors of some texts, shape (texts, width), the same for vectors that differ in last digits.

    Each vector is reduced to its length and to two projections of its direction, rounded to a grid.
    """
    found = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(found, axis=1)
    # Directions that no version of a random generator can change; a projection is about 0.7 in size.
    directions = np.cos(np.outer(np.arange(1, found.shape[1] + 1), [1.0, 2.0]))
    projected = (found / np.where(lengths > 0, lengths, 1.0)[:, None]) @ directions
    numbers = np.column_stack([np.log(np.where(lengths > 0, lengths, 1.0)), projected])
    return digest_of(np.rint(numbers * GRID) + 0.0)  # without a zero's sign


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch compute in one thread, as a worker of a map does, so that a probe's last digits are the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def place_of_computing(model: Any) -> str:
    """What vectors depend on besides the model where they are not exact: device, and what the processor can do."""
    import torch

    kind = str(getattr(model, "device", "cpu")).partition(":")[0]
    return f"{kind} {torch.backends.cpu.get_cpu_capability()}" if kind == "cpu" else kind
