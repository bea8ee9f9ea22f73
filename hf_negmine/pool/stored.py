"""A candidate pool on disk: Arrow tables, keys and `pool.json`, which is written last."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.base.checksums import Sums, read_sealed, set_aside, sums_in, unsealed, write_sealed
from hf_negmine.base.errors import DamagedError, StorageError
from hf_negmine.base.files import (
    digest_of,
    is_read_only,
    only_writer,
    plain,
    read_array,
    read_table,
    read_versioned_json,
    write_array,
    write_table,
)
from hf_negmine.base.schema import CANDIDATES_SCHEMA, POSITIVES_SCHEMA, SEGMENTS_SCHEMA, DigestArray, IdArray
from hf_negmine.data.checks import whole
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

LISTS_NAME = re.compile("[0-9a-f]{12}")
ABOUT, POSITIVES, KEYS = "pool.json", "positives.arrow", "{}_keys.npy"
LISTS = "lists"
"""The ``source`` in `pool.json` of candidates that came from elsewhere: nobody looked further than their lists."""


@dataclass(frozen=True)
class StoredPool:
    """The content of a pool's folder; see `CandidatePool` for the fields."""

    lists: CandidateLists
    positives: Positives
    query_keys: DigestArray
    passage_keys: DigestArray
    about: dict[str, Any]


def is_shared(name: str) -> bool:
    """Whether this file in a pool's folder is pushed with the pool."""
    return name.endswith((".arrow", ".npy", ".json"))


def write_pool(folder: Path, pool: StoredPool) -> None:
    """Write a whole pool. The caller is the folder's only writer; an earlier pool is replaced file by file."""
    positives = pool.positives
    write_table(
        folder / POSITIVES,
        pa.table([positives.query_of_pair, positives.ids, positives.scores], schema=POSITIVES_SCHEMA),
    )
    write_array(folder / KEYS.format("query"), np.asarray(pool.query_keys))
    write_array(folder / KEYS.format("passage"), np.asarray(pool.passage_keys))
    names = (POSITIVES, KEYS.format("query"), KEYS.format("passage"))
    _write_lists(folder, pool.lists, pool.about, [folder / name for name in names], {})


def write_lists(folder: Path, lists: CandidateLists, about: dict[str, Any]) -> None:
    """Write what a selection can change, and `pool.json`, which names the valid lists; earlier lists are deleted."""
    kept = {name: values for name, values in sums_in(folder / ABOUT).items() if "-" not in name}
    _write_lists(folder, lists, about, [], kept)


def _write_lists(folder: Path, lists: CandidateLists, about: dict[str, Any], files: list[Path], kept: Sums) -> None:
    candidates = pa.table([lists.passages, lists.scores], schema=CANDIDATES_SCHEMA)
    segments = pa.table(
        [
            np.repeat(np.arange(lists.n_queries), np.diff(lists.offsets)),
            lists.starts,
            lists.stops,
            lists.ceilings,
            lists.first_ranks,
            lists.exhausted,
        ],
        schema=SEGMENTS_SCHEMA,
    )
    # The two belong together: they share a name, and pool.json, written last, names the valid pair.
    name = digest_of(*arrays_of(lists))[:12]
    tables = {folder / f"candidates-{name}.arrow": candidates, folder / f"segments-{name}.arrow": segments}
    for path, table in tables.items():
        write_table(path, table)
    content = {**about, "lists": name, "n_queries": lists.n_queries}
    write_sealed(folder / ABOUT, content, [*files, *tables], kept=kept)
    for stale in folder.glob("*-*.arrow"):
        if name not in stale.name:
            stale.unlink()


def read_pool(folder: Path, *, locked: bool = False, sealed: bool = True) -> StoredPool:
    """Open the files of a folder by memory map.

    Args:
        folder: the pool's folder.
        locked: whether the caller is the folder's only writer.
        sealed: whether the files must be unchanged since they were written; if not, they come from elsewhere, and only
            their content is checked.

    Raises:
        StorageError: files are missing, damaged, of another version, or outside the folder.
    """
    try:
        about = read_sealed(folder / ABOUT) if sealed else unsealed(read_versioned_json(folder / ABOUT))
        return _open(folder, about)
    except StorageError:
        if locked or not sealed or not (folder / ABOUT).exists() or is_read_only(folder):
            raise
    with only_writer(folder):  # another run may have been about to write it
        return read_pool(folder, locked=True)


def has_pool(
    folder: Path, *, about: Mapping[str, Any] | None = None, locked: bool = False, aside: Path | None = None
) -> bool:
    """Whether a folder holds an intact pool; of a damaged one the path ``aside`` is renamed.

    Args:
        folder, locked: as in `read_pool`.
        about: the identity that it must have; another pool, such as that of another teacher, counts as damaged.
        aside: the path to set aside.

    Raises:
        StorageError: see `read_pool`; also for a damaged pool in a folder that cannot be written to.
    """
    try:
        if (folder / ABOUT).exists():
            found = read_pool(folder, locked=locked).about
            wanted = json.loads(json.dumps(about or {}, default=plain))
            if any(found.get(name) != value for name, value in wanted.items()):
                raise DamagedError(
                    f"{folder / ABOUT} is damaged: it belongs to another teacher or other texts; run fit again"
                )
            return True
    except DamagedError as error:
        if aside is not None:
            set_aside(aside, error)
        elif is_read_only(folder):
            raise
    return False


def _open(folder: Path, about: dict[str, Any]) -> StoredPool:
    name, n_queries = about.pop("lists", None), about.pop("n_queries", None)
    if not isinstance(name, str) or LISTS_NAME.fullmatch(name) is None:  # part of file names, possibly foreign
        raise StorageError(f"{folder / ABOUT} names the lists {name!r}, which is not a name that hf_negmine gives")
    query_keys, passage_keys = (read_array(folder / KEYS.format(keys)) for keys in ("query", "passage"))
    if n_queries != len(query_keys):
        raise StorageError(f"{folder} has keys for {len(query_keys)} queries, expected {n_queries!r}")
    candidates = read_table(folder / f"candidates-{name}.arrow", CANDIDATES_SCHEMA)
    segments = read_table(folder / f"segments-{name}.arrow", SEGMENTS_SCHEMA)
    positives = read_table(folder / POSITIVES, POSITIVES_SCHEMA)
    lists = CandidateLists(
        _column(candidates, "passage_id"),
        _column(candidates, "score"),
        _offsets_of_sorted(_column(segments, "query_id"), n_queries),
        *(_column(segments, name) for name in ("start", "stop", "ceiling", "first_rank", "exhausted")),
    )
    return StoredPool(
        lists,
        Positives(
            _offsets_of_sorted(_column(positives, "query_id"), n_queries),
            _column(positives, "passage_id"),
            _column(positives, "score"),
        ),
        query_keys,
        passage_keys,
        about,
    )


def arrays_of(lists: CandidateLists) -> list[np.ndarray[Any, Any]]:
    """The arrays of the lists, without copying them."""
    return [getattr(lists, field.name) for field in dataclasses.fields(lists)]


def _column(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(whole(table[name]).to_numpy(zero_copy_only=False))


def _offsets_of_sorted(rows: np.ndarray[Any, Any], n_rows: int) -> IdArray:
    if len(rows) and rows[-1] >= n_rows:
        raise StorageError(f"the pool names query {rows[-1]} of {n_rows}; delete its folder and run again")
    return np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)
