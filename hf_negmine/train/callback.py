"""`RemineCallback`: negatives that keep up with the model in training."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch.distributed
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback
from transformers.utils import logging

from hf_negmine.base.choices import RefreshRule
from hf_negmine.base.errors import InputError, StorageError, require, require_choice, require_whole
from hf_negmine.base.protocols import PositiveSampler, Searcher, Similarity
from hf_negmine.base.schema import FloatArray
from hf_negmine.search import open_searcher, pair_scores
from hf_negmine.select import Top
from hf_negmine.teachers import DenseTeacher
from hf_negmine.teachers.vector_store import VectorStore
from hf_negmine.train.bank import BankVersion, NegativeBank, Notes, is_bank
from hf_negmine.train.collator import HardNegativeCollator, epochs_done
from hf_negmine.train.refresh import Reserve, changed_entries, mine_with_student, with_fallback
from hf_negmine.train.source import NegativeSource

logger = logging.get_logger(__name__)

RESERVE = 8
"""Under rule ``"easy"`` the teacher's ranking is kept this many times as deep as the bank."""


@dataclass(frozen=True)
class Refresh:
    """What one refresh did to the negatives of one data set.

    Attributes:
        dataset: the data set's name in the DatasetDict, empty for the only one.
        step, epoch: the optimizer steps done at the refresh, and the epoch.
        staleness: optimizer steps since the previous negatives were made.
        seconds: how long it took.
        negatives: the number of negatives in the bank.
        changed: how many of them were not there before.
        share_of_training: seconds spent on refreshes so far, divided by the seconds since training began.
    """

    dataset: str
    step: int
    epoch: float
    staleness: int
    seconds: float
    negatives: int
    changed: int
    share_of_training: float


class RemineCallback(TrainerCallback):
    """Refreshes the negatives of a `HardNegativeCollator` during training.

    Args:
        collator: a collator whose negatives come from a miner or a pool.
        rule: ``"student"`` searches the corpus with the model in training (ANCE), under the method's ceiling on the
            model's own scores, and leaves out passages that the teacher scores over its ceiling; a query for which
            that leaves nothing keeps what it had. ``"easy"`` keeps the teacher's ranking, and replaces negatives that
            the model now finds easy by the next ones in it (Conan-embedding).
        every_epochs: refresh before every so many epochs, but not before the first one. The default is 1.
        every_steps: refresh every so many optimizer steps, instead of by epochs. Batches that are already made keep
            their negatives: one batch, plus ``dataloader_prefetch_factor`` batches per worker.
        at_start: whether to refresh before the first epoch, too.
        folder: where the versions of the negatives are stored; None takes ``negatives`` in the trainer's output
            folder. All ranks read it.
        progress: whether to show bars.

    Attributes:
        history: what each `Refresh` did; it is also in ``trainer.state.log_history``.

    Raises:
        InputError: the collator's rows hold their own negatives.
    """

    def __init__(
        self,
        collator: HardNegativeCollator,
        *,
        rule: RefreshRule = "student",
        every_epochs: int | None = None,
        every_steps: int | None = None,
        at_start: bool = False,
        folder: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        require_choice(rule, get_args(RefreshRule), argument="rule")
        require(every_epochs is None or every_steps is None, "every_epochs and every_steps: give one of them")
        for name, value in (("every_epochs", every_epochs), ("every_steps", every_steps)):
            if value is not None:
                require_whole(value, name, at_least=1)
        if not isinstance(collator.model, SentenceTransformer):
            raise InputError(f"RemineCallback: encodes with a SentenceTransformer, got {type(collator.model).__name__}")
        if rule == "student" and collator.labels == "scores":
            raise InputError(
                "RemineCallback: negatives that a student finds have its own scores, but labels='scores' promises the "
                "teacher's; take rule='easy', which keeps the teacher's ranking"
            )
        seeing = [str(one.sampler) for one in collator.sources.values() if isinstance(one.sampler, PositiveSampler)]
        if rule == "student" and seeing:
            raise InputError(
                f"RemineCallback: negatives that a student finds have its own scores, but {seeing[0]} compares them "
                "with the teacher's score of the positive; take rule='easy', or another sampler"
            )
        with_bank = {name: source for name, source in collator.sources.items() if source.bank is not None}
        if not with_bank:
            raise InputError(
                "the collator has no pool whose negatives could be refreshed: give it negatives=, either a miner "
                "fitted on the rows or a pool"
            )
        self.collator, self.rule, self.at_start = collator, rule, at_start
        self.every_steps = every_steps
        self.every_epochs = 1 if every_steps is None and every_epochs is None else every_epochs
        self.folder = None if folder is None else Path(folder)
        self.progress = progress
        self.history: list[Refresh] = []
        self._sources = with_bank
        self._began = 0.0
        self._spent = 0.0
        self._epochs_begun = 0
        self._resumes_inside = False

    # ---- when --------------------------------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the banks into the run's folder, and undo the refreshes that a resumed run has yet to do.

        Raises:
            InputError: the model compares vectors by a distance, or a prompt is the name of one.
        """
        self._began, self._spent = time.perf_counter(), 0.0
        epoch = epochs_done(args, state, kwargs.get("train_dataloader"))
        self._epochs_begun, self._resumes_inside = int(epoch), not epoch.is_integer()
        folder = self.folder or Path(args.output_dir) / "negatives"
        own = kwargs["model"].similarity_fn_name
        require(
            own in get_args(Similarity),
            f"RemineCallback: the model compares vectors by {own!r}, and is searched with by 'cosine' or 'dot'; set "
            "model.similarity_fn_name to one of these",
        )
        for name, source in self._sources.items():
            self._teacher(name, kwargs["model"])  # its prompts are checked now, not after an epoch
            home = folder / (name or "rows")
            if state.is_world_process_zero:
                self._settle(name, home, state, kwargs["model"])
            _wait_for_all()
            source.bank = NegativeBank(home)
        if self.at_start and state.global_step == 0:
            self._refresh(state, kwargs["model"])

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refresh before an epoch; all its batches are made afterwards."""
        # Counted here, because for a stream of unknown length the trainer's epoch stays a fraction.
        epoch, inside = self._epochs_begun, self._resumes_inside
        self._epochs_begun, self._resumes_inside = epoch + 1, False
        if self.every_epochs is not None and epoch > 0 and epoch % self.every_epochs == 0 and not inside:
            self._refresh(state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refresh after every ``every_steps`` steps."""
        is_last = state.global_step >= state.max_steps
        if self.every_steps is not None and state.global_step % self.every_steps == 0 and not is_last:
            self._refresh(state, kwargs["model"])

    # ---- how ---------------------------------------------------------------------------------------------------

    def _settle(self, name: str, home: Path, state: Any, model: Any) -> None:
        """Start a run's bank at version 0, or restore its state at the step that the run resumes at."""
        if home.exists() and not is_bank(home):
            raise StorageError(f"{home} holds something other than negatives; give RemineCallback another folder")
        if state.global_step == 0:
            shutil.rmtree(home, ignore_errors=True)  # left by an earlier run
        elif home.exists():
            NegativeBank(home).forget_after(state.global_step)
        kept = {version["step"] for version in NegativeBank(home).versions()}
        told = [entry["step"] for entry in state.log_history if entry.get("negatives_dataset") == name]
        if lost := [step for step in told if step not in kept]:
            logger.warning(
                f"The run that resumes had refreshed its negatives at step {lost[-1]}, but {home} does not hold them: "
                "until the next refresh it trains on earlier ones. Give RemineCallback the folder= of that run."
            )
        if (home / "0").exists():
            return
        source = self._sources[name]
        if self.rule == "student":
            assert source.first_bank is not None
            NegativeBank.create(home, source.first_bank.current()[1])
            return
        with self._student(name, home, model) as searcher:
            reserve = Reserve.begin(_ranked(source), source.sampler.depth(source.n))
            reserve = reserve.with_scores(_scores(source, reserve.bank, searcher))
        NegativeBank.create(home, reserve.bank, reserve.notes)

    def _refresh(self, state: Any, model: Any) -> None:
        for name, source in self._sources.items():
            assert source.bank is not None
            versions = source.bank.versions()
            if state.is_world_process_zero and versions and versions[-1]["step"] == state.global_step:
                # The run was killed right after a refresh, and resumed from a checkpoint right before it.
                self._tell(Refresh(**{key: value for key, value in versions[-1].items() if key != "version"}), state)
            elif state.is_world_process_zero:
                started = time.perf_counter()
                _, old = source.bank.current()
                new, notes = self._new_version(name, model)
                seconds = time.perf_counter() - started
                self._spent += seconds
                refresh = Refresh(
                    dataset=name,
                    step=state.global_step,
                    epoch=float(state.epoch or 0.0),
                    staleness=state.global_step - (versions[-1]["step"] if versions else 0),
                    seconds=round(seconds, 3),
                    negatives=len(new.passages),
                    changed=changed_entries(old, new, len(source.texts.corpus)),
                    share_of_training=round(self._spent / (time.perf_counter() - self._began), 4),
                )
                source.bank.publish(new, asdict(refresh), notes)
                self._tell(refresh, state)
            _wait_for_all()

    def _new_version(self, name: str, model: Any) -> tuple[BankVersion, Notes]:
        source = self._sources[name]
        assert source.bank is not None
        home = source.bank.folder
        if self.rule == "student":
            folder = home / "student"
            new = mine_with_student(
                source, self._teacher(name, model), folder, device=str(model.device), progress=self.progress
            )
            shutil.rmtree(folder, ignore_errors=True)  # it belongs to weights that are about to change
            return with_fallback(new, source.bank.current()[1]), {}
        notes = source.bank.notes(Reserve.NOTES)
        assert notes is not None, "version 0 was written with them"
        reserve = Reserve.of_notes(_ranked(source), source.bank.current()[1].offsets, notes)
        with self._student(name, home, model) as searcher:
            reserve = reserve.without_easy(_scores(source, reserve.bank, searcher))
            reserve = reserve.with_scores(_scores(source, reserve.bank, searcher))
        return reserve.bank, reserve.notes

    @contextmanager
    def _student(self, name: str, home: Path, model: Any) -> Iterator[Searcher]:
        """The model in training, in its current state, ready to score pairs."""
        student, store = self._teacher(name, model), VectorStore(home / "student", progress=self.progress)
        yield open_searcher(student, self._sources[name].texts, store, device=str(model.device))
        shutil.rmtree(home / "student", ignore_errors=True)

    def _teacher(self, name: str, model: Any) -> DenseTeacher:
        """The model as a teacher, with the prompts it is trained with."""
        query, passage = self.collator.prompt_of("query", name), self.collator.prompt_of("positive", name)
        # A model trained without a prompt encodes without one, whatever prompts it carries.
        return DenseTeacher(model, query_prompt=query or "", passage_prompt=passage or "", name="student")

    def _tell(self, refresh: Refresh, state: Any) -> None:
        self.history.append(refresh)
        entry = {f"negatives_{name}": value for name, value in asdict(refresh).items() if name not in ("step", "epoch")}
        state.log_history.append({"epoch": refresh.epoch, **entry, "step": refresh.step})
        logger.info(
            f"Refreshed {refresh.negatives:,} negatives at step {refresh.step}: {refresh.changed:,} are new, the "
            f"previous ones were {refresh.staleness} steps old, in {refresh.seconds:.1f} s "
            f"({refresh.share_of_training:.0%} of the time so far)"
        )


def _ranked(source: NegativeSource) -> BankVersion:
    """The teacher's ranking under the ceiling, deeper than the bank."""
    assert source.pool is not None
    depth = min(RESERVE * source.sampler.depth(source.n), source.pool.n_passages - 1)
    return BankVersion.of(source.pool.select(source.method, Top(), depth, positive_score=source.positive_score))


def _scores(source: NegativeSource, bank: BankVersion, searcher: Searcher) -> FloatArray:
    """The student's score of every entry of the bank."""
    queries, _ = source.positives.targets(source.positive_score)
    return pair_scores(searcher, np.repeat(queries, np.diff(bank.offsets)), bank.passages)


def _wait_for_all() -> None:
    """Wait until every rank is here: the others read what rank 0 has written."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
