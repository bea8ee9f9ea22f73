"""Finish-or-nothing writes, and digests of texts, arrays and settings.

A reader never sees half a file: content goes to a temporary name in the same folder, is flushed to disk, and is renamed
last. A process killed at any moment leaves the old file, the new file, or a temporary name that nothing reads.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import itertools
import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from hf_negmine.base.addresses import is_address
from hf_negmine.base.errors import DamagedError, StorageError
from hf_negmine.base.schema import FORMAT_VERSION, DigestArray

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".unfinished-"
LOCK = ".lock"
ALIGNMENT = 64
"""Bytes. Every array in a file of several starts at a multiple of this, as numpy aligns the one in its own files."""
TOO_MANY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
ABANDONED_AFTER = 7 * 24 * 3600
"""Seconds without a change after which an unfinished file counts as abandoned."""
PATIENCE = 1.0
"""Seconds until a process that waits for another one logs it."""
ARRAY_HEADER = re.compile(
    r"{'descr': '(\|b1|\|[iu]1|[<>][iuf][248])', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,19}, ?)*\d{0,19})\), } *\n"
)
"""The header that numpy writes for arrays of numbers. No other is accepted, so no foreign header is ever evaluated."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about ``path`` into one `StorageError` that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno is None:  # not about the file: the rows may be streamed from a network while they are written
            raise
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(_existing_parent(path)).free
            reason = f"the disk is full ({free / 1e6:,.0f} MB free); make room and run again, finished parts are kept"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            reason = f"{os.strerror(error.errno)}; give a folder that can be written to"
        else:
            reason = str(error)
        raise StorageError(f"cannot write {path}: {reason}") from error


@contextmanager
def finish_or_nothing(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears as ``path``, whole and on disk, only when the block ends without an error."""
    if path.is_dir():
        raise StorageError(f"cannot write {path}: it is a folder; give the name of a file")
    if is_address(path):  # which would become a folder called s3:
        raise StorageError(f"cannot write {path}: it is an address; give the name of a file of this machine")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if not _is_unfinished(path.parent):  # an unfinished folder is synced when it is published
            _sync_folder(path.parent)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder under ``parent`` that is gone when the block ends, unless it was published."""
    with storage_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for temporary files ($TMPDIR) that is gone when the block ends."""
    with storage_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="hf_negmine-") as folder:
        yield Path(folder)


def lasting_temporary_folder() -> Path:
    """A folder for temporary files that is gone when the process ends."""
    with storage_errors(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="hf_negmine-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def is_read_only(folder: Path) -> bool:
    """Whether a folder, or the nearest existing parent it would be made in, cannot be written to."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK)


def publish_folder(folder: Path, path: Path) -> None:
    """Give a finished folder its final name. An existing one is kept: the name is a digest of the content."""
    with storage_errors(path):
        os.chmod(folder, 0o755)
        for inner, _, _ in os.walk(folder):
            _sync_folder(Path(inner))
        try:
            os.rename(folder, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _sync_folder(path.parent)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process or thread is writing in ``folder``, then keep the others out.

    Readers need no lock. The operating system releases it when a process dies.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            logger.warning("another process is at work in %s; this one continues when it has finished", folder)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON with sorted keys, finish-or-nothing."""
    with finish_or_nothing(path) as file:
        file.write((json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=plain) + "\n").encode())


def plain(value: Any) -> Any:
    """A number of numpy as one of Python, which JSON knows."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write one array as ``.npy``, finish-or-nothing."""
    with finish_or_nothing(path) as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, arrays: Iterable[np.ndarray[Any, Any]]) -> None:
    """Write several arrays one after another into one file, finish-or-nothing."""
    with finish_or_nothing(path) as file:
        for array in arrays:
            np.save(file, array, allow_pickle=False)
            file.write(bytes(-file.tell() % ALIGNMENT))


def read_array(path: Path) -> np.ndarray[Any, Any]:
    """Memory-map an ``.npy`` file, or raise `DamagedError` if it is not what `write_array` writes."""
    return read_arrays(path, 1)[0]


def read_arrays(path: Path, count: int) -> list[np.ndarray[Any, Any]]:
    """Memory-map the ``count`` numeric arrays of a file, or raise `DamagedError` if it is not what was written.

    Uses Arrow rather than numpy, whose map keeps the file open for as long as it lives: a store of a few million
    vectors has more files than a process may have open.
    """
    try:
        with pa.memory_map(str(path)) as file:
            content = memoryview(file.read_buffer())
        arrays, end = [], 0
        for _ in range(count):
            array, end = _array_at(content, end + -end % ALIGNMENT)
            arrays.append(array)
        if bytes(content[end : end + ALIGNMENT]).strip(b"\0") or len(content) - end >= ALIGNMENT:
            raise ValueError(f"{len(content) - end:,} bytes after the numbers")
        return arrays
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _array_at(content: memoryview, start: int) -> tuple[np.ndarray[Any, Any], int]:
    """The array that begins at this byte of a file, and where it ends. Never allocates more than the file holds."""
    magic, length = bytes(content[start : start + 8]), int.from_bytes(bytes(content[start + 8 : start + 10]), "little")
    header = ARRAY_HEADER.fullmatch(bytes(content[start + 10 : start + 10 + length]).decode("latin-1"))
    if magic != b"\x93NUMPY\x01\x00" or header is None:
        raise ValueError("it does not begin like an array of numbers")
    shape = tuple(int(number) for number in re.findall(r"\d+", header[3]))
    array, begin = np.dtype(header[1]), start + 10 + length
    size = math.prod(shape) * array.itemsize
    if size > len(content) - begin:
        raise ValueError(f"an array of shape {shape} and {len(content) - begin:,} bytes left for it")
    numbers = np.frombuffer(content, dtype=array, count=math.prod(shape), offset=begin)
    return numbers.reshape(shape, order="F" if header[2] == "True" else "C"), begin + size


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Arrow IPC file, finish-or-nothing."""
    with finish_or_nothing(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Memory-map an Arrow IPC file of the given schema, or raise `StorageError`."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if table.schema != schema:
        raise StorageError(f"{path} has columns {table.schema.names}, expected {schema.names}")
    return table


def read_versioned_json(path: Path) -> dict[str, Any]:
    """Read a JSON file with a ``format_version``, or raise `StorageError` if it is damaged or has another version."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, error, "run fit again, or delete its folder and run again") from error
    if version != FORMAT_VERSION:
        raise StorageError(
            f"{path.parent} was written in cache format {version}, this version of hf_negmine reads {FORMAT_VERSION}; "
            "give another cache_dir or delete that folder"
        )
    return content


def _unreadable(path: Path, error: Exception, remedy: str = "delete its folder and run again") -> StorageError:
    number = getattr(error, "errno", None)
    if number in TOO_MANY:  # nothing is wrong with the file
        remedy = "raise the limit of this process (ulimit -n, vm.max_map_count) and run again"
        return StorageError(f"cannot read {path}: {error}; {remedy}")
    if number in (errno.EACCES, errno.EPERM):
        return StorageError(f"cannot read {path}: {error}; give a folder that can be read")
    reason = " ".join(str(error).split()) if isinstance(error, OSError | ValueError) else repr(error)
    return DamagedError(f"cannot read {path}: {reason}; {remedy}")


def text_digests(texts: pa.Array) -> DigestArray:
    """128-bit BLAKE2b digests of an Arrow string array without nulls, shape (n, 2), uint64.

    Reads the UTF-8 bytes in place, without making Python strings.
    """
    large = texts.cast(pa.large_string())
    _, offsets_buffer, data_buffer = large.buffers()
    offsets = np.frombuffer(offsets_buffer, dtype=np.int64, count=len(large) + 1 + large.offset)[large.offset :]
    data = memoryview(data_buffer) if data_buffer is not None else memoryview(b"")
    blake2b = hashlib.blake2b
    bounds = offsets.tolist()
    joined = b"".join(blake2b(data[start:stop], digest_size=16).digest() for start, stop in itertools.pairwise(bounds))
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


def digest_of(*parts: Any) -> str:
    """A 32-digit hexadecimal digest of arrays, bytes and JSON-able settings, in the order given."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            header = f"{part.dtype.str}{part.shape}".encode()
            content: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        elif isinstance(part, bytes | memoryview):
            header, content = b"bytes", part
        else:
            header, content = b"json", json.dumps(part, sort_keys=True, default=plain).encode()
        state.update(len(header).to_bytes(8, "little"))
        state.update(header)
        state.update(len(content).to_bytes(8, "little"))
        state.update(content)
    return state.hexdigest()


def default_cache_dir() -> Path:
    """``$HF_NEGMINE_CACHE``, or ``hf_negmine`` under ``$XDG_CACHE_HOME`` (``~/.cache``)."""
    if given := os.environ.get("HF_NEGMINE_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "hf_negmine"


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.resolve().parents if parent.exists())


def _is_unfinished(folder: Path) -> bool:
    """Whether this is a `scratch_folder`, or lies in one."""
    return any(part.startswith(TEMPORARY_PREFIX) for part in folder.parts)


@lru_cache(maxsize=256)  # once per folder that a process writes to
def _sweep(folder: Path) -> None:
    """Remove the unfinished files that runs killed long ago have left in a folder."""
    if _is_unfinished(folder):
        return
    with os.scandir(folder) as entries:
        leftovers = [entry for entry in entries if entry.name.startswith(TEMPORARY_PREFIX)]
    for entry in leftovers:
        with suppress(OSError):  # another process may be sweeping, too
            if entry.stat(follow_symlinks=False).st_mtime < time.time() - ABANDONED_AFTER:
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
