"""InfoNCE over hard negatives and in-batch passages, without the batch's false negatives.

MultipleNegativesRankingLoss treats every other passage of the batch as a negative. Some are known positives of the
query, or score over its ceiling, which would have excluded them from mining. Here they are left out of the softmax. Any
number of negatives works, and so does GradCache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.util import cos_sim
from torch import Tensor

from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.softmax import Direction, Hardness, Partition, PositiveAwareSoftmax, Similarity, SoftmaxSettings


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
        scale: multiplies the similarities, the inverse of the temperature.
        similarity_fct: the similarity of two sets of embeddings.
        gather_across_devices: whether to use the passages of the other ranks, too.
        in_batch_negatives: False compares a query with its own negatives only (as in NV-Retriever's second stage).
        student_margin: also leave out what the model in training itself finds more similar than the positive by this
            margin, among the other rows' passages and queries (0.1 in Qwen3-Embedding, arXiv 2506.05176). None for no
            such limit.
        hardness_mode: which negatives weigh more the more similar they are: those of the other rows
            (``"in_batch_negatives"``; LLaVE, arXiv 2503.04812), the row's own (``"hard_negatives"``; EmbeddingGemma,
            arXiv 2509.20354), or ``"all_negatives"``. What is left out stays out.
        hardness_strength: their logits grow by this times the similarity, through which no gradient flows (LLaVE takes
            9, EmbeddingGemma 5).
        directions: what is compared, as Sentence Transformers names it: ``"query_to_doc"``, and also
            ``"query_to_query"``, ``"doc_to_query"``, ``"doc_to_doc"`` (GTE, arXiv 2308.03281). A query is left out
            wherever its positive would be.
        partition_mode: ``"joint"`` for one softmax over all directions, ``"per_direction"`` for the mean of one each.

    Raises:
        InputError: an argument is unknown, or arguments do not go together.
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
        student_margin: float | None = None,
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: Partition = "joint",
    ) -> None:
        super().__init__(model, scale=scale, similarity_fct=similarity_fct, gather_across_devices=gather_across_devices)
        settings = SoftmaxSettings(
            scale,
            similarity_fct,
            gather_across_devices,
            in_batch_negatives,
            student_margin,
            hardness_mode,
            hardness_strength,
            directions,
            partition_mode,
        )
        self.false_negatives = PositiveAwareSoftmax(collator, settings)

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


class CachedPositiveAwareMNRL(CachedMultipleNegativesRankingLoss):
    """`PositiveAwareMNRL` with GradCache: batches of any size in the memory of ``mini_batch_size`` rows.

    Args:
        model, collator, scale, similarity_fct, gather_across_devices, in_batch_negatives: see `PositiveAwareMNRL`.
        student_margin, hardness_mode, hardness_strength, directions, partition_mode: see `PositiveAwareMNRL`.
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
        student_margin: float | None = None,
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: Partition = "joint",
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
        settings = SoftmaxSettings(
            scale,
            similarity_fct,
            gather_across_devices,
            in_batch_negatives,
            student_margin,
            hardness_mode,
            hardness_strength,
            directions,
            partition_mode,
        )
        self.false_negatives = PositiveAwareSoftmax(collator, settings)

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
