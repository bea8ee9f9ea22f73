"""What a row's softmax holds: the passages (and queries) of the batch without false negatives, and how each weighs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import numpy as np
import torch
from sentence_transformers.util import all_gather, all_gather_with_grad, cos_sim, get_rank
from torch import Tensor

from hf_negmine.base.errors import InputError, require, require_choice, require_finite, require_flag
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.false_negatives import BatchKeys, false_negatives, false_negatives_by_direction

Similarity = Callable[[Tensor, Tensor], Tensor]
Hardness: TypeAlias = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
Direction: TypeAlias = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
Partition: TypeAlias = Literal["joint", "per_direction"]


class LossSettings(TypedDict, total=False):
    """The keyword arguments of `SoftmaxSettings`, which describes them."""

    scale: float
    similarity_fct: Similarity
    gather_across_devices: bool
    in_batch_negatives: bool
    student_margin: float | None
    hardness_mode: Hardness | None
    hardness_strength: float
    directions: Sequence[Direction]
    partition_mode: Partition


@dataclass(frozen=True, kw_only=True)
class SoftmaxSettings:
    """What a row's softmax holds.

    Attributes:
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
        InputError: one is unknown or out of range, or they do not go together.
    """

    scale: float = 20.0
    similarity_fct: Similarity = cos_sim
    gather_across_devices: bool = False
    in_batch_negatives: bool = True
    student_margin: float | None = None
    hardness_mode: Hardness | None = None
    hardness_strength: float = 0.0
    directions: Sequence[Direction] = ("query_to_doc",)
    partition_mode: Partition = "joint"

    def __post_init__(self) -> None:
        require_finite(self.scale, "scale")
        require(self.scale > 0, f"scale: over 0, the inverse of the temperature; got {self.scale!r}")
        require(callable(self.similarity_fct), f"similarity_fct: a function of embeddings, got {self.similarity_fct!r}")
        require_flag(self.gather_across_devices, "gather_across_devices")
        require_flag(self.in_batch_negatives, "in_batch_negatives")
        if self.hardness_mode is not None:
            require_choice(self.hardness_mode, get_args(Hardness), argument="hardness_mode")
        strength = self.hardness_strength
        require_finite(strength, "hardness_strength")
        require(strength >= 0, f"hardness_strength: a finite number, 0 or more; got {strength!r}")
        require(
            (strength > 0) == (self.hardness_mode is not None),
            f"hardness_mode {self.hardness_mode!r} and hardness_strength {strength!r} come together, such as "
            "hardness_mode='hard_negatives', hardness_strength=5.0",
        )
        margin = self.student_margin
        if margin is not None:
            require_finite(margin, "student_margin")
        directions = self.directions
        require(not isinstance(directions, str), f"directions: expected a sequence of names, got {directions!r}")
        for direction in directions:
            require_choice(direction, get_args(Direction), argument="directions")
        require("query_to_doc" in directions, f"directions: 'query_to_doc' is always among them, got {directions!r}")
        require_choice(self.partition_mode, get_args(Partition), argument="partition_mode")
        if self.partition_mode == "per_direction" and {"query_to_query", "doc_to_doc"} & set(directions):
            raise InputError(
                f"partition_mode='per_direction' needs a positive in each direction, and {tuple(directions)!r} has "
                "some without; take partition_mode='joint'"
            )
        if not self.in_batch_negatives and self.hardness_mode == "in_batch_negatives":
            raise InputError(
                "hardness_mode='in_batch_negatives' weighs negatives that in_batch_negatives=False leaves out; take "
                "'hard_negatives'"
            )
        if not self.in_batch_negatives and (len(directions) > 1 or margin is not None):
            raise InputError(
                f"in_batch_negatives=False leaves nothing to the directions {tuple(directions)!r} or to "
                f"student_margin={margin!r}, which are about the rest of the batch"
            )

    def of_their_loss(self) -> dict[str, Any]:
        """Those that Sentence Transformers' loss takes, too."""
        return {name: getattr(self, name) for name in ("scale", "similarity_fct", "gather_across_devices")}

    def shown(self) -> dict[str, Any]:
        """Those besides Sentence Transformers' own that differ from its defaults, for the model card."""
        shown: dict[str, Any] = {"in_batch_negatives": self.in_batch_negatives}
        if self.student_margin is not None:
            shown["student_margin"] = self.student_margin
        if self.hardness_mode is not None:
            shown |= {"hardness_mode": self.hardness_mode, "hardness_strength": self.hardness_strength}
        if len(self.directions) > 1:
            shown |= {"directions": list(self.directions), "partition_mode": self.partition_mode}
        return shown


@dataclass(frozen=True)
class Batch:
    """The embeddings of a batch, and what its keys say.

    Attributes:
        queries: those of this rank, shape (rows, width).
        all_queries: those of all ranks, if a direction needs them; else those of this rank.
        positives: those of this rank, shape (rows, width).
        passages: all of them, column by column, shape (passages, width).
        first: the place of the first own row among the rows of all ranks, and of its positive among the passages.
        own: whether a passage belongs to the row, bool, shape (rows, passages).
        masked: what is left out in each direction, bool.
        weights: of each row's own negatives, float32, shape (rows, n); None for all 1.
    """

    queries: Tensor
    all_queries: Tensor
    positives: Tensor
    passages: Tensor
    first: int
    own: Tensor
    masked: dict[str, Tensor]
    weights: Tensor | None


class PositiveAwareSoftmax:
    """Computes the loss of rows from their embeddings.

    Attributes:
        settings: see `SoftmaxSettings`.
        passages, masked: how many pairs of a query and a passage of the batch were seen so far, and how many left out.
    """

    def __init__(self, collator: HardNegativeCollator, settings: SoftmaxSettings) -> None:
        if collator.labels == "scores" or collator.layout != "n-tuple":
            raise InputError(
                f"the collator makes batches of layout {collator.layout!r} with labels {collator.labels!r}, but this "
                "loss reads keys in place of the label; give it its own collator"
            )
        collator.labels = "keys"
        self.settings = settings
        self._collator = collator
        self.passages = self.masked = 0

    @property
    def share(self) -> float:
        """The share of the in-batch passages seen so far that were left out."""
        return self.masked / self.passages if self.passages else 0.0

    def batch(self, queries: Tensor, documents: list[Tensor], labels: Tensor | None) -> Batch:
        """What all rows' losses need.

        Args:
            queries: shape (rows, width).
            documents: positives and each column of negatives, shape (rows, width) each.
            labels: int64, shape (rows, 2 + n) or, with weights, (rows, 2 + 2n); from the collator.

        Raises:
            InputError: the labels are not those of the loss's collator.
        """
        rows, columns = len(queries), 1 + len(documents)
        gather = self.settings.gather_across_devices
        if (
            labels is None
            or labels.dtype != torch.int64
            or tuple(labels.shape) not in ((rows, columns), (rows, 2 * columns - 2))
        ):
            found = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)} and {labels.dtype}"
            raise InputError(
                f"{found}, expected the keys of {columns} texts per row; give the loss's collator to the trainer, "
                "data_collator=collator, callbacks=[collator]"
            )
        first = get_rank() * rows if gather else 0
        weights = None
        if labels.shape[1] > columns:  # as some devices have no float64, on the processor
            weights = labels[:, columns:].cpu().contiguous().view(torch.float64).float().to(labels.device)
        keys = labels[:, :columns].contiguous()
        masked = self._masked(all_gather(keys) if gather else keys, first, rows)
        positives = documents[0]
        if gather:
            documents = [all_gather_with_grad(column) for column in documents]
        needs_queries = gather and len(self.settings.directions) > 1
        row_of_passage = torch.arange(len(documents[0]), device=queries.device).repeat(len(documents))
        own_rows = torch.arange(first, first + rows, device=queries.device)
        return Batch(
            queries,
            all_gather_with_grad(queries) if needs_queries else queries,
            positives,
            torch.cat(documents),
            first,
            row_of_passage[None] == own_rows[:, None],
            masked,
            weights,
        )

    def losses(self, batch: Batch, some: slice) -> Tensor:
        """-log softmax of each of some rows' positive, shape (rows,)."""
        settings, queries = self.settings, batch.queries[some]
        similarities = {"query_to_doc": settings.similarity_fct(queries, batch.passages)}
        if "query_to_query" in settings.directions:
            similarities["query_to_query"] = settings.similarity_fct(queries, batch.all_queries)
        if "doc_to_query" in settings.directions:
            similarities["doc_to_query"] = settings.similarity_fct(batch.all_queries, batch.positives[some]).T
        if "doc_to_doc" in settings.directions:
            similarities["doc_to_doc"] = settings.similarity_fct(batch.passages, batch.positives[some]).T
        rows = torch.arange(len(queries), device=queries.device)
        targets = rows + batch.first + (some.start or 0)
        of_positive = similarities["query_to_doc"][rows, targets]
        logits = {}
        for direction, values in similarities.items():
            left_out = batch.masked[direction][some]
            if settings.student_margin is not None:
                left_out = left_out | self._too_similar(direction, values, of_positive, batch.own[some], targets)
            scaled = values * settings.scale
            if direction == "query_to_doc":
                own_positive = torch.zeros_like(left_out)
                own_positive[rows, targets] = True
                if settings.hardness_mode is not None:
                    scaled = scaled + self._hardness(values.detach(), batch.own[some], own_positive)
                if batch.weights is not None:
                    weights = torch.ones_like(scaled)
                    weights[batch.own[some] & ~own_positive] = batch.weights[some].to(scaled.dtype).reshape(-1)
                    scaled = scaled + weights.log()
            logits[direction] = scaled.masked_fill(left_out, -torch.inf)
        if settings.partition_mode == "joint":
            total = torch.cat(list(logits.values()), dim=1).logsumexp(dim=1)
        else:
            total = torch.stack([one.logsumexp(dim=1) for one in logits.values()]).mean(dim=0)
        return total - of_positive * settings.scale

    def _masked(self, keys: Tensor, first: int, rows: int) -> dict[str, Tensor]:
        batch = BatchKeys(keys.cpu().numpy().view(np.uint64), np.arange(first, first + rows))
        settings, sources = self.settings, list(self._collator.sources.values())
        if len(settings.directions) > 1:
            masked = false_negatives_by_direction(batch, sources, settings.directions)
        else:
            found = false_negatives(batch, sources, in_batch_negatives=settings.in_batch_negatives)
            masked = {"query_to_doc": found}
        if settings.in_batch_negatives:
            counted = masked["query_to_doc"]
            self.passages, self.masked = self.passages + counted.size, self.masked + int(counted.sum())
        return {direction: torch.from_numpy(found).to(keys.device) for direction, found in masked.items()}

    def _too_similar(self, direction: str, values: Tensor, of_positive: Tensor, own: Tensor, targets: Tensor) -> Tensor:
        """What the student itself takes for more relevant than the positive, among the other rows'."""
        assert self.settings.student_margin is not None
        found = values.detach() > (of_positive.detach() + self.settings.student_margin)[:, None]
        if direction == "query_to_doc":
            return found & ~own
        found[torch.arange(len(targets)), targets] = False  # the own pair; in the other directions it is masked anyway
        return found

    def _hardness(self, similarities: Tensor, own: Tensor, own_positive: Tensor) -> Tensor:
        """What the logits of the negatives grow by, as in Sentence Transformers."""
        harder = {
            "in_batch_negatives": ~own,
            "hard_negatives": own & ~own_positive,
            "all_negatives": ~own_positive,
        }[self.settings.hardness_mode or "all_negatives"]
        return self.settings.hardness_strength * similarities * harder
