"""Fine-tuning from the first row to the saved model: the work of ``hf-negmine train``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_negmine.base.devices import has_fast_bfloat16, without_data_parallel
from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import storage_errors
from hf_negmine.base.paths import model_source
from hf_negmine.base.progress import bar
from hf_negmine.base.wording import counted
from hf_negmine.teachers.lengths import limit_length, require_own_limit
from hf_negmine.teachers.text_encoders import require_prompt
from hf_negmine.train.callback import RemineCallback
from hf_negmine.train.card import negatives_section
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.data import TrainingData
from hf_negmine.train.losses import CachedPositiveAwareMNRL, PositiveAwareMNRL
from hf_negmine.train.output import CARD, CHECKPOINTS, begin, save, step_of
from hf_negmine.train.settings import MINI_BATCH, TrainingSettings

SHARE_A_CHECKPOINT, SHARE_A_LOG = 0.1, 0.02
"""Shares of all steps after which the run is saved, and its loss logged."""


@dataclass(frozen=True)
class FineTuned:
    """The result of a run.

    Attributes:
        folder: the model's folder.
        steps, seconds: optimizer steps in all; seconds of this run, which may have resumed in the middle.
        before, after: NDCG at 10, None without an evaluator.
    """

    folder: Path
    steps: int
    seconds: float
    before: float | None = None
    after: float | None = None

    def __str__(self) -> str:
        return (
            f"Written: {self.folder} (the model, and its card in {CARD}) after {counted(self.steps, 'step')}.\n"
            f'Load it: model = sentence_transformers.SentenceTransformer("{self.folder}")'
        )


def fine_tune(
    model: str,
    data: TrainingData,
    output: Path,
    settings: TrainingSettings,
    *,
    evaluator: InformationRetrievalEvaluator | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> FineTuned:
    """Train ``model`` on ``data`` and save it with its card in ``output``.

    While it runs, ``checkpoints`` in ``output`` holds what an interrupted run continues from; it is removed at the end.

    Args:
        model: id or folder of a Sentence Transformers model.
        data: rows and negatives.
        output: a folder that `prepare_output` has accepted.
        settings: the training settings.
        evaluator: run before and after.
        tell: receives lines about the progress.

    Raises:
        InputError: the model cannot be loaded, settings do not fit the data or the run to be resumed, or the trained
            weights are not finite; then nothing is saved.
        StorageError: the folder cannot be written to.
    """
    if settings.refresh is not None and data.miner is None:
        raise InputError("refresh: the rows hold their negatives; give a teacher, so that they can be mined again")
    model = model_source(model, "model")
    student = _load(model, settings)
    checkpoint = begin(output / CHECKPOINTS, model, data, settings)
    before = _ndcg(evaluator, student, 0, 0)
    if before is not None:
        tell(f"NDCG@10 before training: {before:.4f}")
    collator = HardNegativeCollator(student, data.miner, seed=settings.seed, **data.collating)
    loss = _loss(student, collator, settings)
    trainer = _trainer(student, collator, loss, data.rows, output / CHECKPOINTS, settings)
    if checkpoint is not None:
        tell(f"Continuing from step {step_of(checkpoint):,}")
    with storage_errors(output):
        done = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    # The trainer's forward pass may be in bfloat16; the measured and saved model is not.
    student = trainer.accelerator.unwrap_model(student, keep_fp32_wrapper=False)
    _require_finite_weights(student, output, settings)
    after = _ndcg(evaluator, student, round(trainer.state.epoch or 0), trainer.state.global_step)
    evaluated = None if before is None or after is None or evaluator is None else (evaluator.name, before, after)
    section = negatives_section(
        data,
        settings,
        masked=None if settings.loss == "mnrl" else loss.false_negatives.share,
        refreshes=sum("negatives_staleness" in entry for entry in trainer.state.log_history),  # also earlier ones
        resumed_at=None if checkpoint is None else step_of(checkpoint),
        evaluated=evaluated,
    )
    save(student, section, output)
    return FineTuned(output, trainer.state.global_step, float(done.metrics["train_runtime"]), before, after)


# ---- parts ---------------------------------------------------------------------------------------------------------


def _trainer(
    student: SentenceTransformer,
    collator: HardNegativeCollator,
    loss: Any,
    rows: datasets.Dataset,
    checkpoints: Path,
    settings: TrainingSettings,
) -> SentenceTransformerTrainer:
    callbacks: list[TrainerCallback] = [collator, _Bar(settings.progress)]
    if settings.refresh is not None:
        callbacks.append(RemineCallback(collator, rule=settings.refresh, progress=settings.progress))
    trainer = SentenceTransformerTrainer(
        model=student,
        args=_arguments(checkpoints, settings, _prompts(student), student.device.type),
        train_dataset=rows,
        loss=loss,
        data_collator=collator,  # type: ignore[arg-type]
        callbacks=callbacks,
    )
    for own in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(own)
    return trainer


class _Bar(TrainerCallback):
    """One bar over all steps, with the loss."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar = bar("Training", "steps", state.max_steps, done=state.global_step, shown=self._shown, delay=0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self._bar.set_postfix(loss=f"{logs['loss']:.4f}", epoch=f"{state.epoch:.2f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar.close()


def _load(model: str, settings: TrainingSettings) -> SentenceTransformer:
    """The model in float32, whatever its stored format: half precision would lose small updates."""
    try:
        student = SentenceTransformer(model, device=settings.device, model_kwargs={"dtype": torch.float32})
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(f"model {model!r} could not be loaded: {reason}") from error
    weights = list(student.parameters())
    require(
        any(weight.requires_grad for weight in weights),
        f"model {model!r} has {len(weights)} weight tensors, and all are loaded frozen, like those of an adapter "
        "(LoRA); train the model that it was merged into, or its base",
    )
    if settings.max_seq_length is not None:
        limit_length(student, settings.max_seq_length, argument="max_seq_length")
    require_own_limit(student, f"model {model!r}")
    require_prompt(settings.query_prompt, "query_prompt", student.prompts)
    require_prompt(settings.passage_prompt, "passage_prompt", student.prompts)
    for name, prompt in (("query", settings.query_prompt), ("document", settings.passage_prompt)):
        if prompt is not None:
            student.prompts[name] = prompt
    return student


def _prompts(student: SentenceTransformer) -> dict[str, str]:
    """The prompts of `encode_query` and `encode_document`, by the collator's columns."""
    passage = next((student.prompts[name] for name in ("document", "passage", "corpus") if name in student.prompts), "")
    prompts = {"query": student.prompts.get("query", ""), "positive": passage}
    return {column: prompt for column, prompt in prompts.items() if prompt}


def _loss(student: SentenceTransformer, collator: HardNegativeCollator, settings: TrainingSettings) -> Any:
    if settings.loss == "mnrl":
        return MultipleNegativesRankingLoss(student)
    if settings.loss == "cached":
        return CachedPositiveAwareMNRL(
            student,
            collator,
            mini_batch_size=settings.mini_batch_size or MINI_BATCH,
            in_batch_negatives=settings.in_batch_negatives,
        )
    return PositiveAwareMNRL(student, collator, in_batch_negatives=settings.in_batch_negatives)


def _arguments(
    checkpoints: Path, settings: TrainingSettings, prompts: dict[str, str], device: str
) -> SentenceTransformerTrainingArguments:
    bf16 = device == "cpu" and has_fast_bfloat16()
    if device == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    args = SentenceTransformerTrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_ratio,  # under 1 it is a ratio
        seed=settings.seed,
        bf16=bf16,
        use_cpu=device == "cpu",
        prompts=prompts or None,
        dataloader_pin_memory=device == "cuda",
        save_strategy="steps",
        save_steps=SHARE_A_CHECKPOINT,
        save_total_limit=1,
        logging_steps=SHARE_A_LOG,
        report_to=[],
        disable_tqdm=True,
    )
    without_data_parallel(args)
    return args


def _ndcg(
    evaluator: InformationRetrievalEvaluator | None, student: SentenceTransformer, epoch: int, step: int
) -> float | None:
    if evaluator is None:
        return None
    metrics = evaluator(student, epoch=epoch, steps=step)
    return float(metrics[str(evaluator.primary_metric)])


def _require_finite_weights(student: SentenceTransformer, output: Path, settings: TrainingSettings) -> None:
    """Raise `InputError` if training has diverged; its checkpoints, which cannot be continued, are removed."""
    if all(weight.isfinite().all() for weight in student.parameters()):
        return
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    raise InputError(
        f"learning_rate: with {settings.learning_rate!r} the weights became NaN or infinite, so the model was not "
        "saved; give a lower learning rate"
    )
