"""Number formats of the first pass, and how far each can move a score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.devices import has_fast_bfloat16
from hf_negmine.search.corpus import PassageBlock

SMALLEST = 2.0**-126
"""The smallest number that float32 and bfloat16 hold in full."""


@dataclass(frozen=True)
class Precision:
    """A number format, and how far it can move a score.

    Attributes:
        dtype: the number format of the product.
        rounds_inputs: share of a vector's length that the hardware may round away in addition.
        rounds_output: share of a product that its last rounding may remove.
    """

    dtype: torch.dtype
    rounds_inputs: float
    rounds_output: float

    def error(self, norm: torch.Tensor, residual: torch.Tensor, width: int, block: PassageBlock) -> torch.Tensor:
        """Upper bound of |first-pass score before its last rounding - exact score| for each query.

        q'p' - qp = (q' - q)p' + q(p' - p), and the float32 accumulation of d terms costs at most 2^-24 of the product
        of the norms for each (twice that here, for accumulators that round less carefully). Numbers under 2^-126 may
        be taken for 0. All of it in float64, in which no square of a float32 number overflows or vanishes.

        Args:
            norm: lengths of the queries, float64, shape (rows,).
            residual: how far the number format of the product moves each, same shape.
            width: dimensions of the vectors.
            block: the passages.

        Returns:
            float32, shape (rows,).
        """
        residual = residual + self.rounds_inputs * norm
        accumulation = 2 * (width + 1) * 2.0**-24 * (norm + residual) * block.max_norm
        passage_residual = block.max_residual + self.rounds_inputs * block.max_norm
        vanished = SMALLEST * (width**0.5 * (norm + block.max_norm) + width + 1)
        bound: torch.Tensor = residual * block.max_norm + norm * passage_residual + accumulation + vanished
        return (bound * 1.001).float() + SMALLEST

    def least_product(self, score: torch.Tensor) -> torch.Tensor:
        """The lowest rounded product that may have been at or over ``score`` before its last rounding."""
        return score / (1 + torch.copysign(torch.full_like(score, self.rounds_output), score))

    def greatest_product(self, score: torch.Tensor) -> torch.Tensor:
        """The highest rounded product that may have been at or under ``score`` before its last rounding."""
        return -self.least_product(-score)


def precision_of(first_pass: FirstPass, device: torch.device) -> Precision:
    """The format of the first pass on a device."""
    if first_pass == "auto":
        first_pass = "bfloat16" if device.type == "cuda" or has_fast_bfloat16() else "float32"
    if first_pass == "bfloat16":
        return Precision(torch.bfloat16, rounds_inputs=0.0, rounds_output=2.0**-8)
    # CUDA may compute float32 products in TF32 (10 bits of mantissa), if the user's settings allow it.
    return Precision(torch.float32, rounds_inputs=2.0**-11 if device.type == "cuda" else 0.0, rounds_output=0.0)


@contextmanager
def exact_accumulation(device: torch.device) -> Iterator[None]:
    """Keep CUDA from adding up partial sums in bfloat16, which `Precision.error` does not allow for."""
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = before
