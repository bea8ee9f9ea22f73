"""Vectors of a list of texts, spread over the shards of a vector store; row i belongs to text i."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from hf_negmine.base.protocols import SparseVectors, TokenVectors
from hf_negmine.base.ragged import flat_positions, offsets_of_counts
from hf_negmine.base.schema import AnyArray, FloatArray, IdArray

Arrays: TypeAlias = dict[str, AnyArray]
"""The stored arrays of some texts, by file name: ``vectors`` with one row per text; or ``offsets`` and entries."""
Ids: TypeAlias = np.ndarray[Any, Any]


class _Stored:
    def __init__(self, shards: list[Arrays], shard_of: IdArray, row_of: IdArray) -> None:
        self._shards, self._shard_of, self._row_of = shards, shard_of, row_of

    def __len__(self) -> int:
        return len(self._row_of)

    def _by_shard(self, ids: Ids) -> Iterator[tuple[Arrays, IdArray, IdArray]]:
        """Each shard with some of the texts, their places in ``ids``, and their rows in the shard."""
        shard_of, row_of = self._shard_of[ids], self._row_of[ids]
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            yield self._shards[shard], here, row_of[here]


class StoredVectors(_Stored):
    """Dense vectors of a list of texts."""

    @property
    def shape(self) -> tuple[int, int]:
        """(texts, width)."""
        return len(self), self._shards[0]["vectors"].shape[1]

    def slice(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop, float32."""
        return self.gather(np.arange(start, min(stop, len(self))))

    def gather(self, ids: Ids) -> FloatArray:
        """Rows with these ids, in this order, float32."""
        vectors = np.empty((len(ids), self.shape[1]), dtype=np.float32)
        for shard, here, rows in self._by_shard(ids):
            vectors[here] = shard["vectors"][rows]
        return vectors


class _StoredRagged(_Stored):
    def counts(self, ids: Ids) -> IdArray:
        """The number of entries of each of the texts with these ids."""
        counts = np.empty(len(ids), dtype=np.int64)
        for shard, here, rows in self._by_shard(ids):
            counts[here] = shard["offsets"][rows + 1] - shard["offsets"][rows]
        return counts

    def _arrays(self, ids: Ids) -> Arrays:
        """The offsets and the entries of the texts with these ids, in this order."""
        counts = self.counts(ids)
        offsets = offsets_of_counts(counts)
        stored = {name: array for name, array in self._shards[0].items() if name != "offsets"}
        gathered = {name: np.empty((offsets[-1], *array.shape[1:]), array.dtype) for name, array in stored.items()}
        for shard, here, rows in self._by_shard(ids):
            entries, _ = flat_positions(np.asarray(shard["offsets"][rows]), counts[here])
            places, _ = flat_positions(offsets[here], counts[here])
            for name, values in gathered.items():
                values[places] = shard[name][entries]
        return {"offsets": offsets, **gathered}


class StoredSparse(_StoredRagged):
    """Sparse vectors of a list of texts."""

    def gather(self, ids: Ids) -> SparseVectors:
        """The vectors of the texts with these ids, in this order."""
        return SparseVectors(**self._arrays(ids))


class StoredTokens(_StoredRagged):
    """Token vectors of a list of texts."""

    @classmethod
    def in_memory(cls, tokens: TokenVectors) -> StoredTokens:
        """Vectors that are not on disk, as one shard."""
        n_texts = len(tokens.offsets) - 1
        return cls([vars(tokens)], np.zeros(n_texts, dtype=np.int64), np.arange(n_texts))

    @property
    def width(self) -> int:
        """Numbers in each vector."""
        return int(self._shards[0]["vectors"].shape[1])

    def gather(self, ids: Ids) -> TokenVectors:
        """The vectors of the texts with these ids, in this order."""
        return TokenVectors(**self._arrays(ids))
