"""How a model is trained: the settings of ``hf-negmine train``, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from hf_negmine.base.choices import Loss, RefreshRule
from hf_negmine.base.devices import require_device
from hf_negmine.base.errors import InputError, require, require_choice, require_finite, require_flag, require_whole
from hf_negmine.teachers.text_encoders import require_prompt

MINI_BATCH = 32
MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained.

    Attributes:
        loss: ``positive-aware`` contrasts the positive with its negatives and the batch's other passages, except likely
            right answers; ``cached`` does the same for batches larger than the memory; ``mnrl`` takes every other
            passage for wrong. They are `PositiveAwareMNRL`, the same with GradCache, and Sentence Transformers' own.
        in_batch_negatives: whether the passages of other rows are negatives, too.
        epochs: how often every row is trained on.
        batch_size: rows per step, each with its negatives.
        mini_batch_size: rows at once in memory, with the loss ``cached``; None takes 32.
        learning_rate: highest learning rate.
        warmup_ratio: share of the steps over which the learning rate rises.
        max_seq_length: tokens that the model reads of a text; None keeps the model's own limit.
        query_prompt: text put before every query, and saved with the model, which then adds it by itself; None keeps
            the model's own.
        passage_prompt: the same before every passage; None keeps the model's own.
        refresh: negatives that keep up with the model, before every epoch except the first: ``student`` searches again
            with the model itself, ``easy`` replaces those that it finds easy by the teacher's next ones; None keeps the
            first ones. See `RemineCallback`.
        seed: seed of the row order and of the draws of negatives.
        device: where to train: ``cpu`` or ``cuda``; None takes a GPU if there is one.
        resume: whether to continue an interrupted run in the same folder from where it was last saved.
        progress: whether to show a bar.
    """

    loss: Loss = "positive-aware"
    in_batch_negatives: bool = True
    epochs: float = 1
    batch_size: int = 32
    mini_batch_size: int | None = None
    learning_rate: float = 2e-5
    warmup_ratio: float = 0.1
    max_seq_length: int | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    refresh: RefreshRule | None = None
    seed: int = 0
    device: str | None = None
    resume: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        require_choice(self.loss, get_args(Loss), argument="loss")
        for name in ("in_batch_negatives", "resume", "progress"):
            require_flag(getattr(self, name), name)
        require_whole(self.batch_size, "batch_size", at_least=1)
        if self.max_seq_length is not None:
            require_whole(self.max_seq_length, "max_seq_length", at_least=1)
        require_prompt(self.query_prompt, "query_prompt")
        require_prompt(self.passage_prompt, "passage_prompt")
        if self.mini_batch_size is not None:
            require_whole(self.mini_batch_size, "mini_batch_size", at_least=1)
            require(
                self.loss == "cached",
                f"mini_batch_size: {self.mini_batch_size}, but the loss {self.loss!r} holds the whole batch in memory; "
                "take 'cached', or a smaller batch_size",
            )
        require_whole(self.seed, "seed", at_least=0)
        for name in ("epochs", "learning_rate", "warmup_ratio"):
            require_finite(getattr(self, name), name)
        for name in ("epochs", "learning_rate"):
            require(getattr(self, name) > 0, f"{name}: more than 0, got {getattr(self, name)!r}")
        require(self.epochs <= MOST_EPOCHS, f"epochs: at most {MOST_EPOCHS:,}, got {self.epochs:g}")
        require(0 <= self.warmup_ratio < 1, f"warmup_ratio: from 0 to under 1, got {self.warmup_ratio!r}")
        if self.refresh is not None:
            require_choice(self.refresh, get_args(RefreshRule), argument="refresh")
        require(
            self.in_batch_negatives or self.loss != "mnrl",
            "in_batch_negatives: the loss 'mnrl' always has them; take 'positive-aware' or 'cached'",
        )
        require_device(self.device)
        if torch.device(self.device or "cpu").index:
            raise InputError(
                f"device: {self.device!r}, but training takes the first GPU it can see; leave --device out and set "
                f"CUDA_VISIBLE_DEVICES={torch.device(self.device or 'cpu').index}"
            )
