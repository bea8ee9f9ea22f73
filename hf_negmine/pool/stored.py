"""What a candidate pool is on disk: Arrow tables, keys and `pool.json`, which is written last."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.candidates import CandidateLists
from hf_negmine.errors import StorageError
from hf_negmine.files import (
    digest_of,
    read_array,
    read_table,
    read_versioned_json,
    write_array,
    write_json,
    write_table,
)
from hf_negmine.schema import (
    CANDIDATES_SCHEMA,
    FORMAT_VERSION,
    POSITIVES_SCHEMA,
    SEGMENTS_SCHEMA,
    SHORTLISTS_SCHEMA,
    DigestArray,
    IdArray,
)
from hf_negmine.select.selection import Positives
from hf_negmine.shortlists import Shortlists

LISTS_NAME = re.compile("[0-9a-f]{12}")
SHORTLISTS = "shortlists.arrow"


@dataclass(frozen=True)
class StoredPool:
    """The content of a pool's folder; see `CandidatePool` for what it is."""

    lists: CandidateLists
    positives: Positives
    query_keys: DigestArray
    passage_keys: DigestArray
    about: dict[str, Any]
    shortlists: Shortlists | None


def is_shared(name: str) -> bool:
    """Whether this file of a pool's folder goes along where the pool does.

    Shortlists do not: they are of use to who has the teacher's vectors, and a pool is whole without them.
    """
    return name.endswith((".arrow", ".npy", ".json")) and name != SHORTLISTS


def write_pool(folder: Path, pool: StoredPool) -> None:
    """Write all of it. The caller is the folder's only writer; an earlier pool is replaced file by file."""
    positives = pool.positives
    write_table(
        folder / "positives.arrow",
        pa.table([positives.query_of_pair, positives.ids, positives.scores], schema=POSITIVES_SCHEMA),
    )
    write_array(folder / "query_keys.npy", np.asarray(pool.query_keys))
    write_array(folder / "passage_keys.npy", np.asarray(pool.passage_keys))
    if pool.shortlists is not None:
        write_table(folder / SHORTLISTS, _table_of(pool.shortlists))
    else:
        (folder / SHORTLISTS).unlink(missing_ok=True)
    write_lists(folder, pool.lists, pool.about)


def write_lists(folder: Path, lists: CandidateLists, about: dict[str, Any]) -> None:
    """Write all that a selection can change, and `pool.json`, which says which lists count; earlier lists go."""
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
    # Both belong together: they get a common name, and pool.json, written last, says which pair counts.
    name = digest_of(*dataclasses.astuple(lists))[:12]
    write_table(folder / f"candidates-{name}.arrow", candidates)
    write_table(folder / f"segments-{name}.arrow", segments)
    write_json(
        folder / "pool.json", {**about, "format_version": FORMAT_VERSION, "lists": name, "n_queries": lists.n_queries}
    )
    for stale in folder.glob("*-*.arrow"):
        if name not in stale.name:
            stale.unlink()


def read_pool(folder: Path) -> StoredPool:
    """Open the files of a folder by memory map.

    Raises:
        StorageError: files that are missing, damaged, of another version, or outside the folder.
    """
    said = read_versioned_json(folder / "pool.json")
    try:
        return _open(folder, dict(said))
    except StorageError:
        if read_versioned_json(folder / "pool.json") == said:
            raise
        return read_pool(folder)  # it was deepened by another run


def _open(folder: Path, about: dict[str, Any]) -> StoredPool:
    name, n_queries = about.pop("lists", None), about.pop("n_queries", None)
    del about["format_version"]
    if not isinstance(name, str) or LISTS_NAME.fullmatch(name) is None:  # part of file names, perhaps not ours
        raise StorageError(f"{folder / 'pool.json'} names the lists {name!r}, which is no name that hf_negmine gives")
    query_keys, passage_keys = (read_array(folder / f"{keys}_keys.npy") for keys in ("query", "passage"))
    if n_queries != len(query_keys):
        raise StorageError(f"{folder} has keys of {len(query_keys)} queries, expected {n_queries!r}")
    candidates = read_table(folder / f"candidates-{name}.arrow", CANDIDATES_SCHEMA)
    segments = read_table(folder / f"segments-{name}.arrow", SEGMENTS_SCHEMA)
    positives = read_table(folder / "positives.arrow", POSITIVES_SCHEMA)
    lists = CandidateLists(
        _column(candidates, "passage_id"),
        _column(candidates, "score"),
        _offsets_of_sorted(_column(segments, "query_id"), n_queries),
        *(_column(segments, name) for name in ("start", "stop", "ceiling", "first_rank", "exhausted")),
    )
    shortlists = folder / SHORTLISTS
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
        _shortlists_of(read_table(shortlists, SHORTLISTS_SCHEMA)) if shortlists.exists() else None,
    )


def _table_of(shortlists: Shortlists) -> pa.Table:
    offsets = pa.array(shortlists.offsets)
    return pa.table(
        [
            shortlists.queries,
            shortlists.ceilings,
            shortlists.errors,
            shortlists.exhausted,
            pa.LargeListArray.from_arrays(offsets, pa.array(shortlists.passages)),
            pa.LargeListArray.from_arrays(offsets, pa.array(shortlists.scores)),
        ],
        schema=SHORTLISTS_SCHEMA,
    )


def _shortlists_of(table: pa.Table) -> Shortlists:
    passages, scores = (_array(table, name) for name in ("passage_ids", "scores"))
    return Shortlists(
        _column(table, "query_id"),
        _column(table, "ceiling"),
        _column(table, "error"),
        _column(table, "exhausted"),
        np.asarray(passages.offsets),
        np.asarray(passages.values),
        np.asarray(scores.values),
    )


def _column(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(_array(table, name).to_numpy(zero_copy_only=False))


def _array(table: pa.Table, name: str) -> Any:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies one chunk, too


def _offsets_of_sorted(rows: np.ndarray[Any, Any], n_rows: int) -> IdArray:
    if len(rows) and rows[-1] >= n_rows:
        raise StorageError(f"the pool names query {rows[-1]} of {n_rows}; delete its folder and run again")
    return np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)
