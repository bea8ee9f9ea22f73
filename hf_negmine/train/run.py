"""Fine-tuning from the first row to the saved model: the work of ``hf-negmine train``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hf_negmine.base.choices import Loss, RefreshRule
from hf_negmine.base.devices import has_fast_bfloat16, require_device, without_data_parallel
from hf_negmine.base.errors import (
    InputError,
    StorageError,
    require,
    require_choice,
    require_finite,
    require_flag,
    require_whole,
)
from hf_negmine.base.files import TEMPORARY_PREFIX, scratch_folder, storage_errors, write_json
from hf_negmine.base.paths import model_source
from hf_negmine.base.progress import bar
from hf_negmine.base.wording import counted
from hf_negmine.hub.cards import with_section
from hf_negmine.hub.models import stale_weights
from hf_negmine.teachers.encoders import require_prompt
from hf_negmine.teachers.lengths import limit_length, require_own_limit
from hf_negmine.train.callback import RemineCallback
from hf_negmine.train.card import negatives_section
from hf_negmine.train.collator import HardNegativeCollator
from hf_negmine.train.data import TrainingData
from hf_negmine.train.losses import CachedPositiveAwareMNRL, PositiveAwareMNRL

if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

CHECKPOINTS, STARTED, MODEL_FILE, CARD = "checkpoints", "started.json", "modules.json", "README.md"
MINI_BATCH = 32
SHARE_A_CHECKPOINT, SHARE_A_LOG = 0.1, 0.02
"""Shares of all steps after which the run is saved, and its loss logged."""
MOST_EPOCHS = 1_000_000
MAY_CHANGE = ("resume", "progress", "device")
"""Settings in which a resumed run may differ."""


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


def prepare_output(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Check that a model can be trained into ``folder``, before any long work.

    Raises:
        StorageError: it holds a model, an interrupted run (without ``resume``) or other files (without ``overwrite``).
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)}
        started = (folder / CHECKPOINTS / STARTED).exists()
        if overwrite and not resume:
            if started:
                shutil.rmtree(folder / CHECKPOINTS)
        elif started:
            if not resume:
                raise StorageError(
                    f"{folder} holds a run that was interrupted; continue it with --resume, or start over with "
                    "--overwrite"
                )
        elif MODEL_FILE in names:
            reason = "which is finished: there is nothing to resume" if resume else "so nothing was trained"
            raise StorageError(f"{folder} holds a model, {reason}; give another folder, or --overwrite")
        elif names:
            raise StorageError(
                f"{folder} holds {min(names)!r} but no run of this command, so nothing was trained; give another "
                "folder, or --overwrite"
            )
    with scratch_folder(folder):
        pass


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
    checkpoint = _begin(output / CHECKPOINTS, model, data, settings)
    before = _ndcg(evaluator, student, 0, 0)
    if before is not None:
        tell(f"NDCG@10 before training: {before:.4f}")
    collator = HardNegativeCollator(student, data.miner, seed=settings.seed, **data.collating)
    callbacks: list[TrainerCallback] = [collator, _Bar(settings.progress)]
    remine = None
    if settings.refresh is not None:
        remine = RemineCallback(collator, rule=settings.refresh, progress=settings.progress)
        callbacks.append(remine)
    loss = _loss(student, collator, settings)
    trainer = SentenceTransformerTrainer(
        model=student,
        args=_arguments(output / CHECKPOINTS, settings, _prompts(student), student.device.type),
        train_dataset=data.rows,
        loss=loss,
        data_collator=collator,  # type: ignore[arg-type]
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if checkpoint is not None:
        tell(f"Continuing from step {_step_of(checkpoint):,}")
    with storage_errors(output):
        done = trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    # The trainer's forward pass may be in bfloat16; the measured and saved model is not.
    student = trainer.accelerator.unwrap_model(student, keep_fp32_wrapper=False)
    _require_finite_weights(student, output, settings)
    after = _ndcg(evaluator, student, round(trainer.state.epoch or 0), trainer.state.global_step)
    section = negatives_section(
        data.summary,
        rows=len(data.rows),
        left_out=data.left_out,
        drawn_anew=data.miner is not None or data.collating.get("sampler") is not None,
        num_negatives=data.num_negatives,
        sampler=None if data.collating.get("sampler") is None else str(data.collating["sampler"]),
        in_batch=settings.in_batch_negatives,
        masked=None if settings.loss == "mnrl" else loss.false_negatives.share,
        refresh=settings.refresh,
        refreshes=0 if remine is None else len(_refreshes(trainer.state.log_history)),
        resumed_at=None if checkpoint is None else _step_of(checkpoint),
        evaluated=None if before is None or after is None or evaluator is None else (evaluator.name, before, after),
    )
    _save(student, section, output)
    return FineTuned(output, trainer.state.global_step, float(done.metrics["train_runtime"]), before, after)


# ---- parts ---------------------------------------------------------------------------------------------------------


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


def _begin(checkpoints: Path, model: str, data: TrainingData, settings: TrainingSettings) -> Path | None:
    """Record the settings of the run; returns the checkpoint to continue from, None at the start.

    Raises:
        InputError: the run to be resumed had other settings.
    """
    ours = {name: value for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    ours["mini_batch_size"] = settings.mini_batch_size or MINI_BATCH  # naming the default makes no other run
    drawn = f"{data.collating.get('num_negatives')} by {data.collating.get('sampler')}"
    ours |= {"model": model, "rows": len(data.rows), "negatives drawn": drawn}
    if data.summary is not None:
        mined = data.summary.settings
        ours |= {name: mined.get(name) for name in ("teacher", "method", "sampler", "num_negatives", "texts")}
    ours = json.loads(json.dumps(ours))
    note = checkpoints / STARTED
    if not settings.resume or not note.exists():
        write_json(note, ours)
        return None
    theirs = json.loads(note.read_text(encoding="utf-8"))
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"--resume: the interrupted run had {name} {theirs.get(name)!r}, now it is {ours.get(name)!r}; give "
                "the same settings, or start over with --overwrite"
            )
    # The trainer's state is written last, so a checkpoint without it is incomplete.
    whole = [path for path in checkpoints.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(whole, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _ndcg(
    evaluator: InformationRetrievalEvaluator | None, student: SentenceTransformer, epoch: int, step: int
) -> float | None:
    if evaluator is None:
        return None
    metrics = evaluator(student, epoch=epoch, steps=step)
    return float(metrics[str(evaluator.primary_metric)])


def _refreshes(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The refreshes, including those before an interruption: the trainer's history is stored with its checkpoints."""
    return [entry for entry in history if "negatives_staleness" in entry]


def _require_finite_weights(student: SentenceTransformer, output: Path, settings: TrainingSettings) -> None:
    """Raise `InputError` if training has diverged; its checkpoints, which cannot be continued, are removed."""
    if all(weight.isfinite().all() for weight in student.parameters()):
        return
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    raise InputError(
        f"learning_rate: with {settings.learning_rate!r} the weights became NaN or infinite, so the model was not "
        "saved; give a lower learning rate"
    )


def _save(student: SentenceTransformer, section: str, output: Path) -> None:
    """Write the model, replacing an old one; the file that makes it loadable is written last.

    Removes what a resumed run would have needed.
    """
    with storage_errors(output), scratch_folder(output) as scratch:
        student.save(str(scratch), safe_serialization=True)
        card = scratch / CARD
        card.write_text(with_section(card.read_text(encoding="utf-8"), section), encoding="utf-8")
        written = [path.relative_to(scratch).as_posix() for path in scratch.rglob("*")]
        for name in stale_weights([path.name for path in output.iterdir() if path.is_file()], written):
            (output / name).unlink()
        for path in sorted(scratch.iterdir(), key=lambda path: path.name == MODEL_FILE):
            target = output / path.name
            if target.is_dir():
                shutil.rmtree(target)
            path.replace(target)
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
