"""The folder of a training run: what is in the way, what an interrupted run continues from, and the saved model."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import datasets
from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.files import TEMPORARY_PREFIX, digest_of, scratch_folder, storage_errors, write_json
from hf_negmine.data.sources import table_batches
from hf_negmine.hub.models import stale_weights, with_section
from hf_negmine.hub.provenance import row_digests
from hf_negmine.train.data import TrainingData
from hf_negmine.train.settings import MINI_BATCH, TrainingSettings

CHECKPOINTS, STARTED, MODEL_FILE, CARD = "checkpoints", "started.json", "modules.json", "README.md"
MAY_CHANGE = ("resume", "progress", "device", "library_version")
"""Settings in which a resumed run may differ."""


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


def begin(checkpoints: Path, model: str, data: TrainingData, settings: TrainingSettings) -> Path | None:
    """Record the settings of the run; returns the checkpoint to continue from, None at the start.

    Raises:
        InputError: the run to be resumed had other settings.
    """
    ours = {name: value for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    ours["mini_batch_size"] = settings.mini_batch_size or MINI_BATCH  # naming the default makes no other run
    drawn = f"{data.collating.get('num_negatives')} by {data.collating.get('sampler')}"
    ours |= {"model": model, "rows": len(data.rows), "rows (digest)": _digest(data), "negatives drawn": drawn}
    mined = {} if data.summary is None else data.summary.settings
    ours = json.loads(json.dumps({name: mined[name] for name in mined if name not in MAY_CHANGE} | ours))
    note = checkpoints / STARTED
    if not settings.resume or not note.exists():
        write_json(note, ours)
        return None
    theirs = json.loads(note.read_text(encoding="utf-8"))
    for name in sorted({*ours, *theirs}, key=lambda name: (name == "teacher_fingerprints", name)):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"--resume: the interrupted run had {name} {theirs.get(name)!r}, now it is {ours.get(name)!r}; give "
                "the same rows and settings, or start over with --overwrite"
            )
    # The trainer's state is written last, so a checkpoint without it is incomplete.
    whole = [path for path in checkpoints.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    return max(whole, key=step_of, default=None)


def _digest(data: TrainingData) -> str:
    """A digest of the rows in their order, and of the tables that they name texts of."""
    tables = [data.rows, *(one for one in data.collating.values() if isinstance(one, datasets.Dataset))]
    return digest_of(*(row_digests(batch.to_pylist()) for table in tables for batch in table_batches(table)))


def step_of(checkpoint: Path) -> int:
    """The optimizer step at which a checkpoint was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def save(student: SentenceTransformer, section: str, output: Path) -> None:
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
