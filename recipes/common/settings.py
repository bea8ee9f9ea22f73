"""Settings that several recipes have: what to train and test on, how a trainer trains, LoRA."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from recipes.common.config import STRICT


@dataclass(frozen=True, config=STRICT)
class TrainingSet:
    """Rows of (query, positive) to train on.

    Attributes:
        name: of table 7 of NV-Retriever, which is loaded from the Hub; with ``--data``, a BEIR folder in there, whose
            split ``train`` is taken.
        rows: at most; queries count once, with one positive each. Ours.
        passages: of the corpus that negatives are mined from, at most: the rows' positives, and others; None takes all.
            Ours.
        folder: the BEIR folder, if its name is another.
        words: cut passages into chunks of so many words, each overlapping the next by half, which are all relevant
            where the passage is; None leaves them whole. For `load_collection` alone. Ours.
    """

    name: str
    rows: PositiveInt
    passages: PositiveInt | None
    folder: str | None = None
    words: Annotated[int, Field(ge=2)] | None = None


@dataclass(frozen=True, config=STRICT)
class TestSet:
    """Queries to evaluate on.

    Attributes:
        name: id on the Hub of a set in MTEB's layout (``mteb/nq``); with ``--data``, a BEIR folder in there.
        split: of the judgements.
        queries: at most; None takes all. Ours.
        passages: of the corpus, at most: those that are relevant to these queries, then others that are judged in the
            split, then any; None takes all. Ours.
    """

    __test__ = False  # not a class of tests, whatever pytest makes of its name

    name: str
    split: str
    queries: PositiveInt | None = None
    passages: PositiveInt | None = None


@dataclass(frozen=True, config=STRICT)
class Training:
    """Arguments of the trainer; all ours, the papers do not give them for their studies.

    Attributes:
        per_device_train_batch_size: rows, each with its negatives, of one set.
        gradient_accumulation_steps, num_train_epochs, learning_rate, weight_decay, lr_scheduler_type: the trainer's.
        warmup_steps: below 1 a share of all steps.
        bf16: compute in bfloat16, in training and in evaluation, where the processor is fast at it.
    """

    per_device_train_batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt
    num_train_epochs: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeFloat
    weight_decay: NonNegativeFloat
    lr_scheduler_type: str
    bf16: bool


@dataclass(frozen=True, config=STRICT)
class Lora:
    """Arguments of `peft.LoraConfig` (appendix B.4 of NV-Retriever).

    Attributes:
        r, lora_alpha: rank 16 and alpha 32 in the paper.
        lora_dropout, bias: ours.
        target_modules: linear maps that are adapted; all seven, ours (the paper does not say).
        task_type: what peft calls an encoder.
    """

    r: PositiveInt
    lora_alpha: PositiveInt
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    bias: Literal["none", "all", "lora_only"]
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)]
    task_type: Literal["FEATURE_EXTRACTION"]
