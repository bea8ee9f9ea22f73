"""A store at an address, for machines that share no disk: a copy of what ranks have finished in their cache folders.

Files keep the names that they have in a cache, where a sealed JSON names the files that it covers. It goes up after
them, and nothing is fetched whose seal is not there: a part that was half sent is absent. It is verified as it is
fetched, and one that is damaged is removed, so that it is made and sent again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from hf_negmine.base.addresses import files_below, opened_address
from hf_negmine.base.checksums import PLACE, check_sealed, sums_in
from hf_negmine.base.errors import DamagedError, InputError, StorageError, require
from hf_negmine.base.files import digest_of, publish_folder, read_versioned_json, scratch_folder

logger = logging.getLogger(__name__)

RUN = "run.json"
SHARD = "vectors/*/shard-*/shard.json"
SEALS = (
    "texts/*/texts.json", "vectors/*/store.json", SHARD, "vectors/*/part-*/shard.json", "pools/*/parts/*.json",
)  # fmt: skip
PAIRS = "pairs/*/*.pairs"
"""Scores of pairs are appended to; each record has a checksum of its own, so that they need no seal."""
AT_ONCE = 16
"""Files that are sent or fetched at the same time."""
SECONDS = 30.0
"""How often a rank at work sends what it has finished."""


def parse_store(spec: str) -> Store:
    """Parse where ranks bring what they have finished.

    Args:
        spec: an empty folder at an address, such as ``s3://bucket/run``, for ranks on machines that share no disk. They
            fetch from it what others have finished; ``--cache-dir`` is then a folder of each machine.

    Raises:
        InputError: it is not an address.
    """
    return Store(spec)


@dataclass(frozen=True)
class Store:
    """A folder at an address that fsspec opens, such as ``s3://bucket/run``. It holds one run."""

    address: str

    def __post_init__(self) -> None:
        require("://" in self.address, f"store: expected an address such as s3://bucket/run, got {self.address!r}")

    def cache_in(self, cache_dir: Path) -> Path:
        """The cache folder of this store's run, below the user's: everything finished in it is sent."""
        return cache_dir / "cluster" / digest_of(self.address.rstrip("/"))

    def claim(self, run: dict[str, Any]) -> None:
        """Note whose the store is, and by which settings ranks select; raises what `require_same` does."""
        self.require_same(run)
        with self._opened() as (files, root):
            files.pipe_file(f"{root}/{RUN}", json.dumps(run).encode())

    def require_same(self, run: dict[str, Any]) -> None:
        """Raise `InputError` if the store holds another run, with other rows or another model."""
        known = self.run()
        if known is not None and known["pools"] != run["pools"]:
            raise InputError(
                f"store: {self.address} holds another run (of {known['teacher']}, {known['queries']:,} queries and "
                f"{known['passages']:,} passages; this one: {run['teacher']}, {run['queries']:,} and "
                f"{run['passages']:,}), or its texts, model or pool_depth, or the version of hf_negmine, have "
                "changed; give another address"
            )

    def run(self) -> dict[str, Any] | None:
        """What `claim` has noted; None in an empty store."""
        with self._opened() as (files, root):
            try:
                found: dict[str, Any] = json.loads(files.cat_file(f"{root}/{RUN}"))
                if not {"pools", "settings", "texts"} <= set(found):
                    raise ValueError(f"it has {list(found)}")
                return found
            except FileNotFoundError:
                require(
                    not files_below(files, root),
                    f"store: {self.address} holds files, but no {RUN} of hf_negmine; give an empty one",
                )
                return None
            except (ValueError, TypeError) as error:
                raise StorageError(
                    f"store: {self.address}/{RUN} is not what was written; delete it, run again"
                ) from error

    def send(self, cache: Path, known: dict[str, int] | None = None) -> None:
        """Send what is finished in a cache folder and not in the store, by its names and sizes ``known``."""
        known = self._sizes() if known is None else known
        units = [path for pattern in (*SEALS, PAIRS) for path in sorted(cache.glob(pattern))]
        with self._opened() as (files, root), ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(partial(self._send, files, root, cache, known), units))

    def _send(self, files: Any, root: str, cache: Path, known: dict[str, int], path: Path) -> None:
        """Send a seal after its files, or a file of pairs."""
        name = path.relative_to(cache).as_posix()
        try:
            size = path.stat().st_size
            if known.get(name) == size:
                return
            covered = list(sums_in(path)) if path.suffix == ".json" else []
            for one in (*(path.parent / other for other in covered), path):
                files.put_file(str(one), f"{root}/{one.relative_to(cache).as_posix()}")
            known[name] = size
        except (FileNotFoundError, DamagedError):
            if path.exists():  # else the parts of a streaming teacher have been joined meanwhile
                raise

    @contextmanager
    def sending(self, cache: Path) -> Iterator[None]:
        """Send what is finished while the block runs, and when it ends or fails."""
        known, ended = self._sizes(), threading.Event()

        def send() -> None:
            while not ended.wait(SECONDS):
                try:
                    self.send(cache, known)
                except StorageError as error:
                    logger.warning("%s; tried again later", error)

        with ThreadPoolExecutor(1) as threads:
            sent = threads.submit(send)
            try:
                yield
            finally:
                ended.set()
                sent.result()
                self.send(cache, known)

    def fetch(self, cache: Path, *, shards: set[str] | None = None) -> None:
        """Fetch what the store holds and a cache folder lacks; what is fetched appears whole.

        Of the vectors, fetch only the shards with these names; None for all.
        """
        sizes = self._sizes()
        with scratch_folder(cache) as scratch, self._opened() as (files, root):
            names = [name for name in sizes if _is_missing(cache, PurePosixPath(name), sizes[name])]
            missing = [name for name in names if shards is None or not _is_one(PurePosixPath(name), SHARD)]
            missing += [name for name in names if shards and PurePosixPath(name).parent.name in shards]
            with ThreadPoolExecutor(AT_ONCE) as threads:
                list(threads.map(partial(self._fetch, files, root, cache, scratch), missing))

    def _fetch(self, files: Any, root: str, cache: Path, scratch: Path, name: str) -> None:
        """Fetch a seal and what it covers, or a file of pairs."""
        target, here = cache / name, scratch / name
        here.parent.mkdir(parents=True, exist_ok=True)
        try:
            files.get_file(f"{root}/{name}", str(here))
            covered = list(sums_in(here)) if here.suffix == ".json" else []
            for one in covered:
                (here.parent / one).parent.mkdir(parents=True, exist_ok=True)
                files.get_file(f"{root}/{PurePosixPath(name).parent}/{one}", str(here.parent / one))
            if here.suffix == ".json":
                check_sealed(here)
        except (FileNotFoundError, DamagedError) as error:
            logger.warning("%s/%s is damaged (%s); it will be made again", self.address, name, error)
            with suppress(FileNotFoundError):
                files.rm_file(f"{root}/{name}")
            return
        if here.suffix == ".json" and PLACE in read_versioned_json(here):
            target.parent.parent.mkdir(parents=True, exist_ok=True)
            publish_folder(here.parent, target.parent)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        for one in (*covered, here.name):
            os.replace(here.parent / one, target.parent / one)

    def _sizes(self) -> dict[str, int]:
        """The files of the store, by their names in a cache folder."""
        with self._opened() as (files, root):
            return files_below(files, root)

    def _opened(self) -> AbstractContextManager[tuple[Any, str]]:
        """The file system and the folder in it."""
        return opened_address(self.address, "store")


def _is_missing(cache: Path, name: PurePosixPath, size: int) -> bool:
    """Whether this is a seal or a file of pairs that should be fetched."""
    if _is_one(name, PAIRS):
        path = cache / name
        return not path.exists() or path.stat().st_size < size
    finished = name.parts[0] == "pools" and (cache / name.parents[1] / "pool.json").exists()
    return any(_is_one(name, pattern) for pattern in SEALS) and not (finished or (cache / name).exists())


def _is_one(name: PurePosixPath, pattern: str) -> bool:
    return name.match(pattern) and len(name.parts) == len(PurePosixPath(pattern).parts) and ".." not in name.parts
