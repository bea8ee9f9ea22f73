"""Sealed files: a JSON file that holds the size and checksum of the files it covers, and its own checksum.

Everything kept under the cache folder is listed in such a file: ``texts.json``, ``fit.json``, ``pool.json``, one for
each shard of vectors, one beside each single file. A file is verified when a process first uses it, before anything
maps it: mapping a truncated file would kill the process, and a changed number would be used without a warning. A
damaged file is renamed so that nothing reads it, and whatever wrote it writes it again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import xxhash

from hf_negmine.base.errors import DamagedError, StorageError
from hf_negmine.base.files import (
    TEMPORARY_PREFIX,
    is_read_only,
    plain,
    publish_folder,
    read_versioned_json,
    storage_errors,
    write_json,
)
from hf_negmine.base.schema import FORMAT_VERSION

logger = logging.getLogger(__name__)

DAMAGED_PREFIX = f"{TEMPORARY_PREFIX}damaged-"
"""Nothing reads such a name, and it is swept away eventually, like everything unfinished."""
VERSION, FILES, CHECKSUM = "format_version", "files", "checksum"
PLACE = "place"
"""The names of a published folder and of its parent. They say what the folder is about, so that an intact folder in the
wrong place is recognized as not what was written there."""
BYTES_A_READ = 2**20
USED_NOTED_AFTER = 12 * 3600
"""Seconds after which a file's use is noted again; few file systems note it themselves."""
IS_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
"""Other errors of the operating system, such as too many open files, say nothing about what a file holds."""
Sums: TypeAlias = dict[str, list[Any]]
"""For each file, named relative to the JSON's folder: its size in bytes, and its XXH3 as 32 hexadecimal digits."""

_verified: set[tuple[int, int, int, int, str]] = set()
"""Device, inode, size, modification time (in ns) and checksum of each file that this process has read through."""


def write_sealed(
    path: Path, content: Mapping[str, Any], files: Iterable[Path] = (), *, kept: Sums | None = None
) -> None:
    """Write ``content`` as a JSON that seals ``files``, which lie below its folder, and carries over ``kept`` sums."""
    sums = {**(kept or {}), **{file.relative_to(path.parent).as_posix(): _sum_of(file) for file in files}}
    # As it will be read back: every key is a string.
    body = json.loads(
        json.dumps({**content, VERSION: FORMAT_VERSION, FILES: dict(sorted(sums.items()))}, default=plain)
    )
    write_json(path, {**body, CHECKSUM: _checksum(body)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed JSON, after it and all files it names have been verified.

    Raises:
        DamagedError: the JSON or one of the files is not what was written.
        StorageError: the JSON has another version, or a file cannot be opened.
    """
    content = check_sealed(path)
    with suppress(OSError):  # where nothing can be written, nothing is pruned either
        if os.stat(path).st_mtime < time.time() - USED_NOTED_AFTER:
            os.utime(path)
    return content


def check_sealed(path: Path) -> dict[str, Any]:
    """Like `read_sealed`, but without noting the use, which ``hf-negmine cache prune`` goes by."""
    content = _checked(path)
    for name, (size, checksum) in content[FILES].items():
        _verify(path.parent / name, size, checksum)
    return unsealed(content)


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The sealed content without the seal."""
    return {name: value for name, value in content.items() if name not in (VERSION, FILES, CHECKSUM, PLACE)}


def sums_in(path: Path) -> Sums:
    """The files that a sealed JSON names; they are not read."""
    sums: Sums = _checked(path)[FILES]
    return sums


def is_whole(path: Path, *, aside: Path) -> bool:
    """Whether a sealed JSON and everything it names are there, intact. If damaged, ``aside`` is renamed.

    Raises:
        StorageError: see `read_sealed`; also for damage in a folder that cannot be written to.
    """
    try:
        read_sealed(path)
    except DamagedError as error:
        if aside.exists():
            set_aside(aside, error)
        return False
    return True


def set_aside(path: Path, error: DamagedError, *, log: bool = True) -> None:
    """Rename a damaged file or folder so that nothing reads it, and log it; raises ``error`` if that fails."""
    if is_read_only(path.parent):
        raise error
    gone = path.with_name(f"{DAMAGED_PREFIX}{path.name}-{os.urandom(4).hex()}")
    with storage_errors(path), suppress(FileNotFoundError):  # another process was faster
        os.rename(path, gone)
        os.utime(gone)
        if log:
            logger.warning("%s; it is set aside and will be made again", str(error).rpartition("; ")[0])


def publish_sealed(folder: Path, path: Path, name: str, content: Mapping[str, Any]) -> None:
    """Seal a finished folder with a JSON of this name, and publish it; an intact one that already exists is kept."""
    if not is_whole(path / name, aside=path):
        require_writable(path)
        files = [file for file in folder.rglob("*") if file.is_file()]
        write_sealed(folder / name, {**content, PLACE: _place(path)}, files)
        publish_folder(folder, path)


def require_writable(path: Path) -> None:
    """Raise `StorageError` if the folder that ``path`` should be written to is read-only."""
    if is_read_only(path.parent):
        raise StorageError(
            f"{path} is missing, and {path.parent} cannot be written to; run once where it can be, or give another "
            "folder as cache_dir"
        )


def _checked(path: Path) -> dict[str, Any]:
    """The whole JSON, after checking its own checksum but not its files."""
    content = read_versioned_json(path)
    said, sums = content.pop(CHECKSUM, None), content.get(FILES)
    if said != _checksum(content):
        raise _damaged(path, "it is not what was written")
    if not isinstance(sums, dict) or not all(_is_sum(name, value) for name, value in sums.items()):
        raise _damaged(path, "it does not say which files it covers")
    if content.get(PLACE, _place(path.parent)) != _place(path.parent):
        raise _damaged(path, f"it was written as {content[PLACE]}, and is in the wrong place")
    return content


def _place(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _is_sum(name: str, value: Any) -> bool:
    """Whether this is a name below the folder with a size and a checksum."""
    path = PurePosixPath(name)
    inside = bool(path.parts) and not path.is_absolute() and not {"..", "\0"} & {*path.parts, *name}
    pair = isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], str)
    return inside and pair and re.fullmatch("[0-9a-f]{32}", value[1]) is not None


def _checksum(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


def _verify(path: Path, size: int, checksum: str) -> None:
    try:
        status = os.stat(path)
        if (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, checksum) in _verified:
            return
        if status.st_size != size:
            raise _damaged(path, f"it has {status.st_size:,} bytes of {size:,}")
        if _sum_of(path)[1] != checksum:
            raise _damaged(path, "its content has changed")
    except StorageError:
        raise
    except OSError as error:
        if error.errno in IS_DAMAGE:
            raise _damaged(path, os.strerror(error.errno)) from error
        raise StorageError(f"cannot read {path}: {error}") from error


def _sum_of(path: Path) -> list[Any]:
    """Size and checksum of a file, read in pieces; the file counts as verified from now on."""
    state, buffer = xxhash.xxh3_128(), memoryview(bytearray(BYTES_A_READ))
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        while count := file.readinto(buffer):
            state.update(buffer[:count])
    checksum = state.hexdigest()
    _verified.add((status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, checksum))
    return [status.st_size, checksum]


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(f"{path} is damaged: {reason}; run fit again, or delete {path.parent} and run again")
