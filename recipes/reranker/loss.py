"""InfoNCE over a row's own positive and negatives, for cross-encoders."""

from __future__ import annotations

from collections.abc import Generator

from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.losses import MultipleNegativesRankingLoss


class RowInfoNCE(MultipleNegativesRankingLoss):
    """Cross entropy of the positive among the logits of the row's own 1 + n pairs, divided by a temperature.

    Sentence Transformers' loss, without the passages of other rows: it cannot be told to leave all of them out.
    (`ListNetLoss` is not the same: labels 1 and 0 go through a softmax there, so the negatives get a share.)

    Args:
        model: a cross-encoder with one output.
        temperature: of the softmax.
    """

    def __init__(self, model: CrossEncoder, temperature: float = 1.0) -> None:
        scale = 1 / temperature  # annotated as a whole number there, but only multiplied with
        super().__init__(model, num_negatives=0, scale=scale, activation_fn=None)  # type: ignore[arg-type]

    def get_in_batch_negatives(
        self, anchors: list[str], candidates: list[list[str]]
    ) -> Generator[list[str], None, None]:
        """None."""
        yield from ()
