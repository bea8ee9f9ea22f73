"""Turn rows into unique queries, a corpus, and positives as CSR.

Identity is by text: two passages with the same text are one passage, two rows with the same query text share their
positives, and a passage with the query's own text is never its negative.

Passage ids do not depend on the order of the rows: a given corpus keeps its own order, and positives missing from it
follow in the order of their digests, so ties, which are broken by the lower id, fall the same way in any row order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.base.checksums import read_sealed
from hf_negmine.base.errors import StorageError
from hf_negmine.base.files import read_array
from hf_negmine.base.ragged import offsets_of_rows
from hf_negmine.base.schema import DigestArray, IdArray, PassageArray

ABOUT = "texts.json"


class TextColumn:
    """Unique texts on disk, read by memory map: one flat UTF-8 file, int64 offsets, and one digest per text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: DigestArray = read_array(folder / "digests.npy")
        offsets = read_array(folder / "offsets.npy")
        try:
            size = (folder / "utf8.bin").stat().st_size
            data = pa.memory_map(str(folder / "utf8.bin")).read_buffer() if size else pa.py_buffer(b"")
        except OSError as error:
            raise StorageError(f"cannot read {folder / 'utf8.bin'}: {error}; delete {folder} and run again") from error
        if len(offsets) != len(self.digests) + 1 or size != offsets[-1]:
            raise StorageError(f"{folder} is damaged: {size} bytes of text, {offsets[-1]} expected; delete it")
        self.texts: pa.LargeStringArray = pa.LargeStringArray.from_buffers(
            len(offsets) - 1, pa.py_buffer(offsets), data
        )

    def __len__(self) -> int:
        return len(self.digests)

    def take(self, ids: np.ndarray[Any, Any]) -> pa.LargeStringArray:
        """The texts with these ids, in this order."""
        return self.texts.take(pa.array(ids))

    def slice(self, start: int, stop: int) -> TextColumn:
        """The texts from ``start`` to ``stop`` as a column of their own, with ids from 0; they stay where they are."""
        part = object.__new__(TextColumn)
        part.folder = self.folder / f"{start}-{stop}"  # it names the column, and is not there
        part.digests, part.texts = self.digests[start:stop], self.texts[start:stop]
        return part

    def find(self, digests: DigestArray) -> IdArray:
        """Ids of the texts with these digests, -1 where there is none. Shape (n,)."""
        order, ordered = self._sorted_digests
        at = find_digests(ordered, digests)
        return np.where(at >= 0, order[at], -1) if len(order) else at

    def find_keys(self, keys: np.ndarray[Any, np.dtype[np.uint64]]) -> IdArray:
        """Ids of the texts whose digest begins with these 64 bits, -1 where there is none. Shape (n,).

        Among a billion texts, some two share these bits with a chance of 3 %; where that would do harm, use `find`.
        """
        order, firsts = self._sorted_keys
        if not len(order):
            return np.full(len(keys), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(firsts, keys), len(order) - 1)
        return np.where(firsts[at] == keys, order[at], -1)

    @cached_property
    def _sorted_keys(self) -> tuple[IdArray, np.ndarray[Any, np.dtype[np.uint64]]]:
        order, ordered = self._sorted_digests
        return order, np.ascontiguousarray(ordered[:, 0])

    @cached_property
    def _sorted_digests(self) -> tuple[IdArray, DigestArray]:
        return sort_digests(self.digests)


@dataclass(frozen=True)
class TextSet:
    """Everything that later rooms know about the user's data.

    Attributes:
        queries: unique query texts.
        corpus: unique passage texts; a passage id is a position in it.
        positive_offsets: int64, shape (n_queries + 1,).
        positive_ids: int32 passage ids, rising within a query.
        own_text: int64, shape (n_queries,): the passage with the query's own text, -1 without one.
    """

    folder: Path
    queries: TextColumn
    corpus: TextColumn
    positive_offsets: IdArray
    positive_ids: PassageArray
    own_text: IdArray

    @property
    def fingerprint(self) -> str:
        """Digest of the queries, the corpus and the positives."""
        return self.folder.name

    def excluded(self) -> tuple[IdArray, PassageArray]:
        """The passages that are never negatives of a query, as CSR: its positives, and a passage with its own text."""
        counts = np.diff(self.positive_offsets)
        query_ids = np.repeat(np.arange(len(self.queries)), counts)
        with_own = np.flatnonzero(self.own_text >= 0)
        pairs = np.stack(
            [np.concatenate([query_ids, with_own]), np.concatenate([self.positive_ids, self.own_text[with_own]])]
        )
        pairs = np.unique(pairs, axis=1)
        return offsets_of_rows(pairs[0], len(self.queries)), pairs[1].astype(np.int32)

    def slice(self, start: int, stop: int) -> TextSet:
        """The same queries, and the passages from ``start`` to ``stop``, with ids from 0, as the whole corpus."""
        inside = (self.positive_ids >= start) & (self.positive_ids < stop)
        rows = np.repeat(np.arange(len(self.queries)), np.diff(self.positive_offsets))[inside]
        own_text = np.where((self.own_text >= start) & (self.own_text < stop), self.own_text - start, -1)
        return TextSet(
            folder=self.folder / f"{start}-{stop}",
            queries=self.queries,
            corpus=self.corpus.slice(start, stop),
            positive_offsets=offsets_of_rows(rows, len(self.queries)),
            positive_ids=(self.positive_ids[inside] - start).astype(np.int32),
            own_text=own_text,
        )

    def of_queries(self, start: int, stop: int) -> TextSet:
        """The queries from ``start`` to ``stop``, with ids from 0, and the whole corpus."""
        offsets = self.positive_offsets[start : stop + 1]
        return TextSet(
            folder=self.folder / f"queries-{start}-{stop}",
            queries=self.queries.slice(start, stop),
            corpus=self.corpus,
            positive_offsets=offsets - offsets[0],
            positive_ids=self.positive_ids[offsets[0] : offsets[-1]],
            own_text=self.own_text[start:stop],
        )


def open_text_set(folder: Path) -> TextSet:
    """Open a `TextSet` that `build_text_set` wrote, by memory map."""
    read_sealed(folder / ABOUT)
    return TextSet(
        folder=folder,
        queries=TextColumn(folder / "queries"),
        corpus=TextColumn(folder / "corpus"),
        positive_offsets=read_array(folder / "positive_offsets.npy"),
        positive_ids=read_array(folder / "positive_ids.npy"),
        own_text=read_array(folder / "own_text.npy"),
    )


def sort_digests(digests: DigestArray) -> tuple[IdArray, DigestArray]:
    """The order by first, then second half, and the sorted digests, each half contiguous in memory for searching."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    return order, np.asfortranarray(digests[order])


def find_digests(ordered: DigestArray, digests: DigestArray) -> IdArray:
    """Position of each digest in ``ordered`` (from `sort_digests`), -1 where there is none. Shape (n,)."""
    found = np.full(len(digests), -1, dtype=np.int64)
    at = np.searchsorted(np.ascontiguousarray(ordered[:, 0]), digests[:, 0], side="left")
    # Different texts whose digests share the first half are neighbors: step on while a row has another one to try.
    active = np.flatnonzero(at < len(ordered))
    while len(active):
        candidate, sought = ordered[at[active]], digests[active]
        match = (candidate == sought).all(axis=1)
        found[active[match]] = at[active[match]]
        at[active] += 1
        active = active[~match & (candidate[:, 0] == sought[:, 0]) & (at[active] < len(ordered))]
    return found


def unique_digests(digests: DigestArray) -> tuple[IdArray, IdArray]:
    """The first position of each distinct digest, by rising digest, and the place of each digest among those."""
    order, ordered = sort_digests(digests)
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.cumsum(new) - 1
    return order[new], place  # lexsort is stable: the first of a run is the first position
