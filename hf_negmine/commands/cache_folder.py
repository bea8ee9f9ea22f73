"""Verifying, measuring and pruning a cache folder.

Only files that hf_negmine has written are touched: each kind of entry has its own folder, and in it names of 32
hexadecimal digits, or names that nothing reads (`OURS`, `LEFT_BEHIND`). Links are not followed.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hf_negmine.base.checksums import check_sealed, set_aside
from hf_negmine.base.errors import DamagedError, InputError, StorageError
from hf_negmine.base.files import (
    ABANDONED_AFTER,
    LOCK,
    TEMPORARY_PREFIX,
    is_read_only,
    read_versioned_json,
    storage_errors,
)
from hf_negmine.teachers.pair_store import damaged_records

OURS = re.compile(r"[0-9a-f]{32}(\.arrow|\.faiss|\.json)?")
LEFT_BEHIND = re.compile(r"\.unfinished-([a-z0-9_]{8}|part-[0-9a-f]{32}|damaged-.+-[0-9a-f]{8})")
"""What killed runs have left, and what was set aside as damaged."""
CHECKED: dict[str, tuple[str, ...]] = {
    "texts": ("*/texts.json",),
    "vectors": ("*/store.json", "*/shard-*/shard.json", "*/part-*/shard.json"),
    "pools": ("*/pool.json", "*/parts/*.json"),
    "fits": ("*/fit.json",),
    "mined": ("*.json",),
    "indexes": ("*.json",),
    "banks": ("*/*/bank.json", "*/versions.json"),
    "pairs": ("*/*.pairs",),
}
"""For each kind, the files that tell whether an entry is intact."""
MADE_AGAIN = ("fits", "mined", "banks", "pools", "indexes", "texts")
"""Kinds that a run makes again without asking the teacher anything it has already answered."""
UNFINISHED_FOR = 24 * 3600
"""Seconds without a change after which an unfinished file counts as abandoned."""


@dataclass(frozen=True)
class Damage:
    """Something in a cache that is not what was written.

    Attributes:
        kind: the kind of entry, such as ``vectors``.
        path: the file that revealed the damage.
        error: names the damaged file, and states what is wrong.
    """

    kind: str
    path: Path
    error: StorageError

    def repair(self) -> bool:
        """Set it aside without logging it, so that a run makes it again; returns whether it did.

        It does not for pairs, whose other records are still good, nor for what only has another version.
        """
        if self.kind == "pairs" or not isinstance(self.error, DamagedError):
            return False
        whole_folder = self.path.name in ("texts.json", "shard.json", "fit.json", "bank.json")
        set_aside(self.path.parent if whole_folder else self.path, self.error, log=False)
        return True


def verify(cache_dir: Path) -> Iterator[Damage | None]:
    """Yield the damage of each entry in a cache, None for an intact one."""
    for kind, patterns in CHECKED.items():
        home, entries = cache_dir / kind, set(_entries(cache_dir, kind))
        for path in (path for pattern in patterns for path in sorted(home.glob(pattern))):
            names = path.relative_to(home).parts
            if home / names[0] in entries and not any(LEFT_BEHIND.fullmatch(name) for name in names):
                damage = _damage(kind, path)
                if damage is not None and not is_read_only(cache_dir):
                    with _unlocked(path, cache_dir) as free:  # a run at work may just have replaced or removed it
                        damage = _damage(kind, path) if free else None
                yield damage


def _damage(kind: str, path: Path) -> Damage | None:
    try:
        if kind != "pairs":
            check_sealed(path)
        elif count := damaged_records(path):
            raise DamagedError(f"{path} is damaged: {count:,} of its records; these pairs will be asked about again")
    except StorageError as error:
        return Damage(kind, path, error) if path.exists() else None
    return None


def measure(cache_dir: Path) -> dict[str, tuple[int, int]]:
    """How many entries of each kind a cache holds, and their bytes; last, everything unfinished or damaged."""
    found: dict[str, tuple[int, int]] = {}
    left_behind: list[Path] = []
    for kind in CHECKED:
        left = [path for path, _ in _left_behind(cache_dir, kind)]
        left_behind += left
        entries = _entries(cache_dir, kind)
        names = {entry.name.partition(".")[0] for entry in entries}
        inside = sum(_size(path) for path in left if path.parent != cache_dir / kind)
        found[kind] = (len(names), sum(map(_size, entries)) - inside)
    return {**found, "unfinished or damaged": (len(left_behind), sum(map(_size, left_behind)))}


@dataclass(frozen=True)
class Pruned:
    """Something that `prune` removes: its files or folder, why, and its bytes."""

    paths: tuple[Path, ...]
    why: str
    size: int


def prune(cache_dir: Path, *, unused_for: float | None = None, dry_run: bool = False) -> Iterator[Pruned]:
    """Remove what is no longer useful, as `cache.PRUNE_HELP` says, and yield each removal.

    ``unused_for`` is in seconds; texts stay for a week at least. A ``dry_run`` removes nothing.

    Raises:
        StorageError: something cannot be removed.
    """
    if is_read_only(cache_dir) and not dry_run:
        raise StorageError(f"{cache_dir} cannot be written to, so nothing can be removed from it")
    for one in _of_no_use(cache_dir, unused_for):
        with _unlocked(one.paths[0], cache_dir) as free:
            if free:
                if not dry_run:
                    _remove(one.paths)
                yield one


def _of_no_use(cache_dir: Path, unused_for: float | None) -> Iterator[Pruned]:
    now = time.time()
    for kind in CHECKED:
        for path, damaged in _left_behind(cache_dir, kind):
            if damaged or _last_used(path) < now - UNFINISHED_FOR:
                yield Pruned((path,), "damaged" if damaged else "unfinished", _size(path))
    named: set[Any] = set()
    for kind in MADE_AGAIN:
        entries: dict[str, list[Path]] = {}
        for entry in _entries(cache_dir, kind):
            entries.setdefault(entry.name.partition(".")[0], []).append(entry)
        for name, paths in entries.items():
            texts = _texts_of(paths[0], kind)
            # A run that has read its texts may encode for days before there is a pool or a fit about them.
            least = ABANDONED_AFTER if kind == "texts" else 0
            unused = unused_for is not None and max(map(_last_used, paths)) < now - max(unused_for, least)
            size = sum(_size(path) for path in paths)
            if kind == "fits" and texts is not None and not (cache_dir / "texts" / texts).exists():
                yield Pruned(tuple(paths), "its texts are gone", size)
            elif unused and name not in named:
                yield Pruned(tuple(paths), "not used", size)
            else:
                named.add(texts)


def _texts_of(entry: Path, kind: str) -> str | None:
    """The name of the text set that a fit or a pool belongs to."""
    with suppress(StorageError):
        if kind in ("fits", "pools"):
            return str(read_versioned_json(entry / CHECKED[kind][0].rpartition("/")[2]).get("texts"))
    return None


def _entries(cache_dir: Path, kind: str) -> list[Path]:
    """The entries of a kind: folders, or files with their JSON."""
    home = cache_dir / kind
    found = [] if home.is_symlink() or not home.is_dir() else sorted(home.iterdir())
    return [path for path in found if OURS.fullmatch(path.name) and not path.is_symlink()]


def _left_behind(cache_dir: Path, kind: str) -> Iterator[tuple[Path, bool]]:
    """Paths whose names nothing reads, and whether each was set aside as damaged."""
    home = cache_dir / kind
    if home.is_symlink() or not home.is_dir():
        return
    for folder in (home, *_entries(cache_dir, kind)):
        for inner, folders, files in os.walk(folder):
            folders[:] = sorted(folders)
            for name in sorted([*folders, *files]):
                if LEFT_BEHIND.fullmatch(name):
                    yield Path(inner, name), name.startswith(f"{TEMPORARY_PREFIX}damaged-")
            # The entries of the kind's own folder are walked in their turn; nothing is listed twice.
            folders[:] = [] if folder == home else [name for name in folders if not LEFT_BEHIND.fullmatch(name)]


def _files(path: Path) -> Iterable[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    return (Path(inner, name) for inner, _, files in os.walk(path) for name in files)


def _statuses(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    """Those of the files that are still there: a run may be at work."""
    for path in paths:
        with suppress(FileNotFoundError):
            yield path.lstat()


def _size(path: Path) -> int:
    return sum(status.st_size for status in _statuses(_files(path)))


def _last_used(path: Path) -> float:
    """When any of its files was last written or noted as used (see `read_sealed`); for mined rows, also last read.

    Mined rows can be read without this library, so the file system's access time counts, though `verify` renews it.
    """
    times = [status.st_mtime for status in _statuses([path, *_files(path)])]
    if path.suffix == ".arrow":
        times += [status.st_atime for status in _statuses([path])]
    return max(times, default=time.time())


@contextmanager
def _unlocked(path: Path, cache_dir: Path) -> Iterator[bool]:
    """Whether no run is working on the pool that a path belongs to; in the block none can start."""
    inside = [parent for parent in (path, *path.parents) if cache_dir in parent.parents]
    lock = next((FileLock(parent / LOCK) for parent in inside if (parent / LOCK).is_file()), None)
    try:
        if lock is not None:
            lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        if lock is not None:
            lock.release(force=True)


def _remove(paths: tuple[Path, ...]) -> None:
    """Remove files, the JSON first, or a folder, renamed first so that nothing reads it."""
    for path in sorted(paths, key=lambda path: path.suffix != ".json"):
        with storage_errors(path), suppress(FileNotFoundError):
            if path.is_symlink() or not path.is_dir():
                path.unlink()
                continue
            gone = path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(4).hex()}")
            path.rename(gone)
            shutil.rmtree(gone)


def seconds_of(duration: str) -> float:
    """Seconds of a duration such as ``30d`` or ``12h``, or `InputError`."""
    match = re.fullmatch(r"(\d{1,9})\s*(d|h)", duration.strip())
    if match is None:
        raise InputError(f"--unused-for: a number of days or hours such as 30d or 12h, got {duration!r}")
    return int(match[1]) * {"d": 24 * 3600.0, "h": 3600.0}[match[2]]
