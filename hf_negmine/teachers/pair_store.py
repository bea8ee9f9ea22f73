"""The pair store: the score of each (query, passage) pair from a slow or expensive scorer, stored once, on disk.

Each scorer has a folder, and each run a file in it, to which records are appended as they arrive. A record carries a
checksum, so that neither a record half written by a killed run nor one damaged since is read. Nothing is ever
rewritten, and two runs never share a file.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hf_negmine.base.files import digest_of, storage_errors
from hf_negmine.base.progress import bar
from hf_negmine.base.randomness import KeyArray, random_keys
from hf_negmine.base.schema import AnyArray, BoolArray, DigestArray, FloatArray, IdArray
from hf_negmine.data.texts import find_digests, sort_digests, unique_digests

logger = logging.getLogger(__name__)

RECORD = np.dtype([("pair", "<u8", (2,)), ("score", "<f4"), ("check", "<u4")])


def pair_digests(queries: DigestArray, passages: DigestArray) -> DigestArray:
    """128-bit digests of (query, passage) pairs from those of the texts, all of shape (pairs, 2)."""
    halves = [random_keys(half, queries[:, half], passages[:, half, None]) for half in (0, 1)]
    return np.concatenate(halves, axis=1)


@dataclass
class PairStore:
    """The scores of pairs by one scorer.

    Attributes:
        folder: the scorer's folder.
        name: the scorer's name on progress bars.
        progress: whether to show bars.
    """

    folder: Path
    name: str
    progress: bool = True
    _runs: list[tuple[DigestArray, FloatArray]] | None = field(default=None, repr=False)
    _file_name: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)

    @classmethod
    def of(cls, cache_dir: Path, fingerprint: str, name: str, *, progress: bool = True) -> PairStore:
        """The store of the scorer with this fingerprint."""
        return cls(cache_dir / "pairs" / digest_of("pairs", fingerprint), name, progress)

    def find(self, pairs: DigestArray) -> FloatArray:
        """The stored score of each pair, NaN where there is none; shape (pairs,)."""
        scores = np.full(len(pairs), np.nan, dtype=np.float32)
        order = np.argsort(pairs[:, 0])  # neighbors are close in memory, which halves the time of many searches
        for digests, values in self._read():
            at = find_digests(digests, pairs[order])
            scores[order[at >= 0]] = values[at[at >= 0]]
        return scores

    def complete(
        self, pairs: DigestArray, score: Callable[[IdArray], Iterator[tuple[IdArray, FloatArray]]]
    ) -> FloatArray:
        """The score of each pair, computing those that are not stored, each once.

        Args:
            pairs: from `pair_digests`.
            score: takes places in ``pairs``, and yields places among these with their scores, as they arrive.
        """
        scores = self.find(pairs)
        missing = np.flatnonzero(np.isnan(scores))
        if not len(missing):
            return scores
        asked = np.sort(missing[unique_digests(pairs[missing])[0]])
        found = []
        with (
            bar(f"Scoring by {self.name}", "pairs", len(asked), shown=self.progress) as scored,
            _Writer(self.folder / f"{self._file_name}-{os.getpid()}.pairs") as writer,
        ):
            try:
                for places, values in score(asked):
                    writer.add(pairs[asked[places]], values)
                    found.append((pairs[asked[places]], values))
                    scored.update(len(places))
            finally:  # scores from before an error are kept in memory, too
                self._add(found)
        scores[missing] = self.find(pairs[missing])
        return scores

    def _read(self) -> list[tuple[DigestArray, FloatArray]]:
        if self._runs is None:
            parts = [_read_file(path) for path in sorted(self.folder.glob("*.pairs"))]
            self._runs = [_merged(parts)] if parts else []
        return self._runs

    def _add(self, parts: list[tuple[DigestArray, FloatArray]]) -> None:
        runs = self._read()
        if parts:
            runs.append(_merged(parts))
        while len(runs) > 1 and len(runs[-2][1]) < 2 * len(runs[-1][1]):  # runs at least halve in length
            runs[-2:] = [_merged(runs[-2:])]


class _Writer:
    """Appends records to a file, which is created with the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> _Writer:
        return self

    def add(self, pairs: DigestArray, scores: FloatArray) -> None:
        records = np.empty(len(pairs), dtype=RECORD)
        records["pair"], records["score"] = pairs, scores
        records["check"] = _checks(records)
        with storage_errors(self._path):
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                # A full disk may have left half a record, which would misalign all records after it.
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size // RECORD.itemsize * RECORD.itemsize)
            rest = memoryview(records.tobytes())
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)


def damaged_records(path: Path) -> int:
    """The number of records in a file that are damaged; half a record at its end is only unfinished."""
    return int(np.count_nonzero(~_read_records(path)[1]))


def _read_file(path: Path) -> tuple[DigestArray, FloatArray]:
    records, whole = _read_records(path)
    if not whole.all():
        logger.warning(
            "%s has %d damaged records of %d; these pairs are scored again", path, (~whole).sum(), len(records)
        )
    records = records[whole]
    return records["pair"].astype(np.uint64), records["score"].astype(np.float32)


def _read_records(path: Path) -> tuple[AnyArray, BoolArray]:
    """All complete records of a file, and which of them are undamaged."""
    with storage_errors(path):
        content = path.read_bytes()
    records = np.frombuffer(content, dtype=RECORD, count=len(content) // RECORD.itemsize)
    return records, _checks(records) == records["check"]


def _checks(records: AnyArray) -> AnyArray:
    bits: KeyArray = records["score"].view("<u4").astype(np.uint64)
    return random_keys(1, records["pair"][:, 0] ^ bits, records["pair"][:, 1, None])[:, 0].astype(np.uint32)


def _merged(parts: list[tuple[DigestArray, FloatArray]]) -> tuple[DigestArray, FloatArray]:
    digests = np.concatenate([part for part, _ in parts])
    scores = np.concatenate([values for _, values in parts])
    order, ordered = sort_digests(digests)
    return ordered, scores[order]
