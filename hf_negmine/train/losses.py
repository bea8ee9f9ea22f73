"""InfoNCE over hard negatives and in-batch passages, without the batch's false negatives.

MultipleNegativesRankingLoss treats every other passage of the batch as a negative. Some are known positives of the
query, or score over its ceiling, which would have excluded them from mining. Here they are left out of the softmax. Any
number of negatives works, and so does GradCache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from hf_negmine.base.arguments import with_arguments_of
from hf_negmine.base.errors import require_whole
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.softmax import LossSettings, PositiveAwareSoftmax, SoftmaxSettings

if TYPE_CHECKING:
    from typing_extensions import Unpack


@with_arguments_of(SoftmaxSettings)
class PositiveAwareMNRL(MultipleNegativesRankingLoss):
    """MultipleNegativesRankingLoss whose softmax leaves out false negatives.

    Left out are in-batch passages that are known positives of the row's query, have the text of its positive or of the
    query itself, score at or over its ceiling by the teacher (if that compares vectors: one small matrix product), or
    are already in the batch. The rows' own negatives were mined under the ceiling.

    Rows with a column ``weights``, one number per negative, count their own negatives by them: a negative of weight w
    is in the softmax w times, one of weight 0 not at all.

    Args:
        model: the model in training.
        collator: makes the batches; it is told to add the keys that this loss reads.
        settings: of the softmax, see `SoftmaxSettings`.

    Raises:
        InputError: an argument is unknown, or arguments do not go together.
    """

    def __init__(self, model: Any, collator: HardNegativeCollator, **settings: Unpack[LossSettings]) -> None:
        softmax = SoftmaxSettings(**settings)
        super().__init__(model, **softmax.of_their_loss())
        self.false_negatives = PositiveAwareSoftmax(collator, softmax)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The mean over the rows of -log softmax of the positive.

        Args:
            embeddings: those of queries, positives and each column of negatives, shape (rows, width) each.
            labels: int64, shape (rows, 2 + n), or (rows, 2 + 2n) with weights, from the collator.
        """
        batch = self.false_negatives.batch(embeddings[0], embeddings[1:], labels)
        return self.false_negatives.losses(batch, slice(None)).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings shown in the model card."""
        return _config(super().get_config_dict(), self.false_negatives.settings)


@with_arguments_of(SoftmaxSettings)
class CachedPositiveAwareMNRL(CachedMultipleNegativesRankingLoss):
    """`PositiveAwareMNRL` with GradCache: batches of any size in the memory of ``mini_batch_size`` rows.

    Args:
        model, collator: see `PositiveAwareMNRL`.
        mini_batch_size: rows per forward pass.
        mini_batch_num_tokens: tokens per forward pass, instead of rows.
        show_progress_bar: whether to show a bar over the mini-batches.
        settings: of the softmax, see `SoftmaxSettings`.
    """

    def __init__(
        self,
        model: Any,
        collator: HardNegativeCollator,
        *,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
        **settings: Unpack[LossSettings],
    ) -> None:
        require_whole(mini_batch_size, "mini_batch_size", at_least=1)
        if mini_batch_num_tokens is not None:
            require_whole(mini_batch_num_tokens, "mini_batch_num_tokens", at_least=1)
        softmax = SoftmaxSettings(**settings)
        super().__init__(
            model,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            show_progress_bar=show_progress_bar,
            **softmax.of_their_loss(),
        )
        self.false_negatives = PositiveAwareSoftmax(collator, softmax)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The same loss over embeddings in mini-batches; with ``with_backward``, gradients are computed after each."""
        queries, documents = torch.cat(reps[0]), [torch.cat(column) for column in reps[1:]]
        rows = len(queries)
        batch = self.false_negatives.batch(queries, documents, labels)
        losses = []
        for start in range(0, rows, self.mini_batch_size):
            some = slice(start, start + self.mini_batch_size)
            loss = self.false_negatives.losses(batch, some).sum() / rows
            if with_backward:
                loss.backward()  # type: ignore[no-untyped-call]
                loss = loss.detach()
            losses.append(loss)
        return torch.stack(losses).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings shown in the model card."""
        return _config(super().get_config_dict(), self.false_negatives.settings)


def _config(settings: dict[str, Any], ours: SoftmaxSettings) -> dict[str, Any]:
    kept = ("scale", "similarity_fct", "mini_batch_size", "mini_batch_num_tokens", "gather_across_devices")
    return {**{name: value for name, value in settings.items() if name in kept}, **ours.shown()}
