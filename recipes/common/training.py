"""One training, as all studies do it: the trainer's arguments on this machine, and a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from hf_negmine.base.devices import best_device, has_fast_bfloat16, without_data_parallel
from recipes.common.settings import Training

Arguments = TypeVar("Arguments", bound=TrainingArguments)

LOGS = 20
"""How often a training notes its loss."""


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
        others: further arguments of ``kind``.
    """
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
    return training.bf16 and (best_device() == "cuda" or has_fast_bfloat16())


def bfloat16(model: torch.nn.Module, *, wanted: bool) -> AbstractContextManager[Any]:
    """Where it is ``wanted``, ``model`` computes in bfloat16."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16) if wanted else nullcontext()


def run_trainer(trainer: Trainer) -> Trained:
    """Train the trainer's model in place, silently."""
    trainer.remove_callback(PrinterCallback)
    done = trainer.train()
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)  # its forward pass is its own again
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Trained(done.global_step, losses[0], losses[-1])
