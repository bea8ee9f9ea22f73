"""The two trainings of LoRA weights, one after the other (appendix B.4, table 9).

A stage is a function of files: the base, the adapter of the stage before, and rows with negatives. It leaves
its own adapter and the history of its loss. While it runs, checkpoints lie beside them.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.training_args import MultiDatasetBatchSamplers
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_negmine.base.devices import without_data_parallel
from hf_negmine.base.files import storage_errors, write_json
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.losses import PositiveAwareMNRL
from recipes.common.command import Tell
from recipes.common.lora import adapter_digest, add_adapter, load_adapter, save_adapter
from recipes.nv_retriever_v1.model import open_base
from recipes.nv_retriever_v1.recipe import NVRetriever, Stage

CHECKPOINTS, HISTORY = "checkpoints", "history.json"
SHARE_PER_CHECKPOINT, SHARE_PER_LOG = 0.05, 0.02
"""Of all steps: how often the run is saved, and how often its loss is noted."""


@dataclass(frozen=True)
class Trained:
    """What a stage leaves behind.

    Attributes:
        folder: of the adapter.
        steps: of the optimizer.
        losses: mean loss since the one before, by step.
        began_with, ended_with: digests of the adapter; a stage begins with what the one before ended with.
    """

    folder: Path
    steps: int
    losses: dict[int, float]
    began_with: str
    ended_with: str

    @classmethod
    def read(cls, folder: Path) -> Trained | None:
        """A stage that is finished, or None."""
        note = folder / HISTORY
        if not note.exists():
            return None
        found = json.loads(note.read_text(encoding="utf-8"))
        losses = {int(step): loss for step, loss in found.pop("losses").items()}
        return cls(folder, losses=losses, **found)


def open_student(recipe: NVRetriever, base: Path, adapter: Path | None) -> SentenceTransformer:
    """The base with the adapter of a finished stage, or with a new one."""
    # One process per GPU, if several were started.
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    model = open_base(recipe.base, base, device)
    add_adapter(model, recipe.lora, recipe.seed)
    if adapter is not None:
        load_adapter(model, adapter)
    return model


def train_stage(
    recipe: NVRetriever,
    stage: Stage,
    rows: datasets.DatasetDict,
    student: SentenceTransformer,
    folder: Path,
    tell: Tell,
) -> Trained:
    """Train the student's adapter on a stage's rows.

    Args:
        recipe, stage: its settings.
        rows: by set, with the stage's negatives.
        student: with the adapter to begin with.
        folder: for the adapter. An interrupted stage continues from its last checkpoint.
        tell: is handed lines about what happens.
    """
    checkpoint, began_with = _begin(folder, student)
    if stage.training.activation_checkpointing:
        # Not by the trainer, which does it in a deprecated way for a model that is not of transformers itself.
        transformer: Any = student[0]
        transformer.auto_model.activation_checkpointing_enable()
    collator = HardNegativeCollator(
        student, num_negatives=stage.hard_negatives, query_column="query", positive_column="positive", seed=recipe.seed
    )
    trainer = _AdapterTrainer(
        model=student,
        args=_arguments(recipe, stage, folder / CHECKPOINTS),
        train_dataset=rows,
        loss=PositiveAwareMNRL(
            student, collator, scale=1 / stage.temperature, in_batch_negatives=stage.in_batch_negatives
        ),
        data_collator=collator,  # type: ignore[arg-type]
        callbacks=[collator, _Telling(stage.name, tell)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if checkpoint is not None:
        tell(f"{stage.name}: continuing from step {_step_of(checkpoint):,}")
    with storage_errors(folder):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    losses = {int(entry["step"]): entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    trained = Trained(folder, trainer.state.global_step, losses, began_with, adapter_digest(student))
    trainer.accelerator.wait_for_everyone()  # each process writes to the checkpoints
    if trainer.is_world_process_zero():
        save_adapter(student, folder)
        write_json(folder / HISTORY, {name: value for name, value in asdict(trained).items() if name != "folder"})
        shutil.rmtree(folder / CHECKPOINTS)
    trainer.accelerator.wait_for_everyone()  # each reads the adapter for the next stage
    return trained


def _begin(folder: Path, student: SentenceTransformer) -> tuple[Path | None, str]:
    """The checkpoint to continue from, None at the start, and the digest of the adapter at the very start."""
    note = folder / CHECKPOINTS / "began_with.json"
    if not note.exists():
        began_with = adapter_digest(student)
        write_json(note, began_with)
        return None, began_with
    # The trainer's state is written last, so a checkpoint without it was cut short.
    whole = [path for path in note.parent.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(whole, key=_step_of, default=None), json.loads(note.read_text(encoding="utf-8"))


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _arguments(recipe: NVRetriever, stage: Stage, checkpoints: Path) -> SentenceTransformerTrainingArguments:
    on_gpu = torch.cuda.is_available()
    args = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        **asdict(replace(stage.training, activation_checkpointing=False)),
        seed=recipe.seed,
        # A batch is of one set, and sets come as often as they are large.
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
        prompts={
            one.name: {"query": recipe.prompts.query_of(one), "positive": recipe.prompts.passage}
            for one in recipe.sets_of(stage)
        },
        # What chooses the length limits.
        router_mapping={"query": "query", "positive": "document"},
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        save_strategy="steps",
        save_steps=SHARE_PER_CHECKPOINT,
        save_total_limit=1,
        logging_steps=SHARE_PER_LOG,
        ddp_find_unused_parameters=False,  # every weight of the adapter is used
        report_to=[],
        disable_tqdm=True,
    )
    without_data_parallel(args)
    return args


class _AdapterTrainer(SentenceTransformerTrainer):
    """A trainer whose checkpoints hold the adapter alone."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        assert output_dir is not None
        save_adapter(self.model, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_adapter(self.model, Path(resume_from_checkpoint))


class _Telling(TrainerCallback):
    """Reports the loss."""

    def __init__(self, name: str, tell: Tell) -> None:
        self._name, self._tell = name, tell

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            self._tell(f"{self._name}: step {state.global_step:,} of {state.max_steps:,}, loss {logs['loss']:.4f}")
