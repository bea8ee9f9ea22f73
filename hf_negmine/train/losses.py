"""InfoNCE over hard negatives and in-batch passages, without the batch's false negatives.

MultipleNegativesRankingLoss treats every other passage of the batch as a negative. Some are known positives of the
query, or score over its ceiling, which would have excluded them from mining. Here they are left out of the softmax. Any
number of negatives works, and so does GradCache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import all_gather, all_gather_with_grad, cos_sim, get_rank
from torch import Tensor

from hf_negmine.base.errors import InputError
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.false_negatives import BatchKeys, false_negatives

Similarity = Callable[[Tensor, Tensor], Tensor]


class _FalseNegativeMask:
    """Finds the false negatives of a batch from its keys."""

    def __init__(self, collator: HardNegativeCollator, in_batch_negatives: bool) -> None:
        if collator.labels == "scores" or collator.layout != "n-tuple":
            raise InputError(
                f"the collator makes batches of layout {collator.layout!r} with labels {collator.labels!r}, but this "
                "loss reads keys in place of the label; give it its own collator"
            )
        collator.labels = "keys"
        self.in_batch_negatives = in_batch_negatives
        self._collator = collator
        self.passages = self.masked = 0

    def of(self, labels: Tensor | None, rows: int, columns: int, gather: bool) -> Tensor:
        """The passages left out of each row's softmax, bool, shape (rows, all passages)."""
        if labels is None or labels.dtype != torch.int64 or tuple(labels.shape) != (rows, columns):
            found = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)} and {labels.dtype}"
            raise InputError(
                f"{found}, expected the keys of {columns} texts per row; give the loss's collator to the trainer, "
                "data_collator=collator, callbacks=[collator]"
            )
        first = get_rank() * rows if gather else 0
        keys = all_gather(labels) if gather else labels
        batch = BatchKeys(keys.cpu().numpy().view(np.uint64), np.arange(first, first + rows))
        masked = false_negatives(batch, self._collator.sources.values(), in_batch_negatives=self.in_batch_negatives)
        if self.in_batch_negatives:
            self.passages, self.masked = self.passages + masked.size, self.masked + int(masked.sum())
        return torch.from_numpy(masked).to(labels.device)

    @property
    def share(self) -> float:
        """The share of the in-batch passages seen so far that were left out."""
        return self.masked / self.passages if self.passages else 0.0


class PositiveAwareMNRL(MultipleNegativesRankingLoss):
    """MultipleNegativesRankingLoss whose softmax leaves out false negatives.

    Left out are in-batch passages that are known positives of the row's query, have the text of its positive or of the
    query itself, score at or over its ceiling by the teacher (if that compares vectors: one small matrix product), or
    are already in the batch. The rows' own negatives were mined under the ceiling.

    Args:
        model: the model in training.
        collator: makes the batches; it is told to add the keys that this loss reads.
        scale: multiplies the similarities, the inverse of the temperature.
        similarity_fct: the similarity of two sets of embeddings.
        gather_across_devices: whether to use the passages of the other ranks, too.
        in_batch_negatives: False compares a query with its own negatives only (as in NV-Retriever's second stage).
    """

    def __init__(
        self,
        model: Any,
        collator: HardNegativeCollator,
        *,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        gather_across_devices: bool = False,
        in_batch_negatives: bool = True,
    ) -> None:
        super().__init__(model, scale=scale, similarity_fct=similarity_fct, gather_across_devices=gather_across_devices)
        self.false_negatives = _FalseNegativeMask(collator, in_batch_negatives)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The mean over the rows of -log softmax of the positive.

        Args:
            embeddings: those of queries, positives and each column of negatives, shape (rows, width) each.
            labels: int64, shape (rows, 2 + n), from the collator.
        """
        queries, documents = embeddings[0], embeddings[1:]
        masked = self.false_negatives.of(labels, len(queries), 1 + len(documents), self.gather_across_devices)
        passages, first = _all_passages(queries, documents, self.gather_across_devices)
        losses = _row_losses(queries, passages, masked, first, self.similarity_fct, self.scale)
        return losses.mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings shown in the model card."""
        return _config(super().get_config_dict(), self.false_negatives)


class CachedPositiveAwareMNRL(CachedMultipleNegativesRankingLoss):
    """`PositiveAwareMNRL` with GradCache: batches of any size in the memory of ``mini_batch_size`` rows.

    Args:
        model, collator, scale, similarity_fct, gather_across_devices, in_batch_negatives: see `PositiveAwareMNRL`.
        mini_batch_size: rows per forward pass.
        mini_batch_num_tokens: tokens per forward pass, instead of rows.
        show_progress_bar: whether to show a bar over the mini-batches.
    """

    def __init__(
        self,
        model: Any,
        collator: HardNegativeCollator,
        *,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        in_batch_negatives: bool = True,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale=scale,
            similarity_fct=similarity_fct,
            mini_batch_size=mini_batch_size,
            mini_batch_num_tokens=mini_batch_num_tokens,
            gather_across_devices=gather_across_devices,
            show_progress_bar=show_progress_bar,
        )
        self.false_negatives = _FalseNegativeMask(collator, in_batch_negatives)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The same loss over embeddings in mini-batches; with ``with_backward``, gradients are computed after each."""
        queries, documents = torch.cat(reps[0]), [torch.cat(column) for column in reps[1:]]
        rows = len(queries)
        masked = self.false_negatives.of(labels, rows, 1 + len(documents), self.gather_across_devices)
        passages, first = _all_passages(queries, documents, self.gather_across_devices)
        losses = []
        for start in range(0, rows, self.mini_batch_size):
            some = slice(start, start + self.mini_batch_size)
            of_rows = _row_losses(queries[some], passages, masked[some], first + start, self.similarity_fct, self.scale)
            loss = of_rows.sum() / rows
            if with_backward:
                loss.backward()  # type: ignore[no-untyped-call]
                loss = loss.detach()
            losses.append(loss)
        return torch.stack(losses).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings shown in the model card."""
        return _config(super().get_config_dict(), self.false_negatives)


def _all_passages(queries: Tensor, documents: list[Tensor], gather: bool) -> tuple[Tensor, int]:
    """Embeddings of all passages, column by column, and the column of the first own row's positive."""
    if gather:
        documents = [all_gather_with_grad(column) for column in documents]
    return torch.cat(documents), get_rank() * len(queries) if gather else 0


def _row_losses(
    queries: Tensor, passages: Tensor, masked: Tensor, first: int, similarity: Similarity, scale: float
) -> Tensor:
    """-log softmax of each row's positive, which is in column ``first`` + row. Shape (rows,)."""
    scores = (similarity(queries, passages) * scale).masked_fill(masked, -torch.inf)
    targets = torch.arange(first, first + len(queries), device=scores.device)
    return torch.nn.functional.cross_entropy(scores, targets, reduction="none")


def _config(settings: dict[str, Any], mask: _FalseNegativeMask) -> dict[str, Any]:
    kept = ("scale", "similarity_fct", "mini_batch_size", "mini_batch_num_tokens", "gather_across_devices")
    shown = {name: value for name, value in settings.items() if name in kept}
    return {**shown, "in_batch_negatives": mask.in_batch_negatives}
