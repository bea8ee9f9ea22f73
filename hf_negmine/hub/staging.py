"""What every push has: a folder for its files, what they are, and the result."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hf_negmine.base.errors import NegmineError, StorageError
from hf_negmine.base.files import default_cache_dir, storage_errors


@dataclass(frozen=True)
class PushResult:
    """The result of a push.

    Attributes:
        repo_id: the repository that was pushed to.
        commit: the id of the commit; None for a dry run.
        url: the URL of the data set or model; None for a dry run.
        folder: the folder of the files; None except for a dry run.
        files: their paths in the repository.
    """

    repo_id: str
    commit: str | None
    url: str | None
    folder: Path | None
    files: list[str]

    def __str__(self) -> str:
        where = f"written to {self.folder}, nothing was sent" if self.commit is None else f"pushed to {self.url}"
        return f"{self.repo_id}: {len(self.files)} files {where}"


@contextmanager
def push_folder() -> Iterator[Path]:
    """A folder for the files of a push; errors name no path, as they may end up in public logs."""
    try:
        with tempfile.TemporaryDirectory(prefix="hf_negmine-") as temporary:
            yield Path(temporary)
    except NegmineError:
        raise
    except OSError as error:
        if error.errno is None:
            raise
        reason = "the disk is full; make room, or set TMPDIR to a folder on another disk, and run again"
        if error.errno != errno.ENOSPC:
            reason = f"{os.strerror(error.errno)}; set TMPDIR to a folder that can be written to"
        raise StorageError(f"cannot write the files of the push: {reason}; nothing was sent") from error


def paths_in(folder: Path) -> list[str]:
    """The paths of all files below a folder, as they will be in the repository."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def kept(folder: Path, repo_id: str) -> Path:
    """Copy the files of a dry run to their own folder."""
    target = default_cache_dir() / "dry-runs" / repo_id
    with storage_errors(target):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    return target
