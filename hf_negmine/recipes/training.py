"""What the trainings of the studies have in common: settings, the trainer's arguments on this machine, one run."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hf_negmine.base.errors import require, require_whole

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, TrainingArguments

    Arguments = TypeVar("Arguments", bound=TrainingArguments)

LOGS = 20
"""How often a training notes its loss."""


@dataclass(frozen=True)
class Training:
    """Arguments of the trainer; all ours, the papers do not say them of their studies.

    Attributes:
        per_device_train_batch_size: rows, each with its negatives, of one set.
        gradient_accumulation_steps, num_train_epochs, learning_rate, weight_decay, lr_scheduler_type: as they say.
        warmup_steps: under 1 a share of all steps.
        bf16: compute in bfloat16, in training and in evaluation, where the processor is fast at it.
    """

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    num_train_epochs: int
    learning_rate: float
    warmup_steps: float
    weight_decay: float
    lr_scheduler_type: str
    bf16: bool

    def __post_init__(self) -> None:
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"):
            require_whole(getattr(self, name), name, at_least=1)
        require(
            math.isfinite(self.learning_rate) and self.learning_rate > 0,
            f"learning_rate: more than 0, got {self.learning_rate!r}",
        )
        for name in ("warmup_steps", "weight_decay"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name}: 0 or more, got {value!r}")


@dataclass(frozen=True)
class Trained:
    """What a training was.

    Attributes:
        steps: of the optimizer.
        first_loss, last_loss: means over the first and the last twentieth of the steps; None without a step.
    """

    steps: int
    first_loss: float | None
    last_loss: float | None


def arguments(kind: type[Arguments], training: Training, seed: int, scratch: Path, **others: Any) -> Arguments:
    """The arguments of a trainer that keeps no checkpoints.

    Args:
        kind: the class of the trainer's arguments.
        training: the recipe's settings.
        seed: of the order of the rows.
        scratch: for the trainer.
        others: arguments of ``kind`` besides.
    """
    from hf_negmine.base.devices import best_device, without_data_parallel

    device = best_device()
    made = kind(
        output_dir=str(scratch),
        **asdict(training) | {"bf16": in_bfloat16(training)},
        seed=seed,
        use_cpu=device == "cpu",
        dataloader_drop_last=True,
        dataloader_pin_memory=device == "cuda",
        save_strategy="no",
        logging_steps=1 / LOGS,
        report_to=[],
        disable_tqdm=True,
        **others,
    )
    without_data_parallel(made)
    return made


def in_bfloat16(training: Training) -> bool:
    """Whether to compute in bfloat16 on this machine."""
    from hf_negmine.base.devices import best_device, has_fast_bfloat16

    return training.bf16 and (best_device() == "cuda" or has_fast_bfloat16())


def bfloat16(model: torch.nn.Module, *, wanted: bool) -> AbstractContextManager[Any]:
    """Where it is ``wanted``, what ``model`` computes is in bfloat16."""
    import torch

    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16) if wanted else nullcontext()


def run_trainer(trainer: Trainer) -> Trained:
    """Train the trainer's model in place, without a word."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    done = trainer.train()
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # its forward pass is its own again
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Trained(done.global_step, losses[0], losses[-1])
