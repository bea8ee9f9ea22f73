"""What a rank does: pure functions of the configuration, the texts, its rank and the number of ranks.

A function returns when its parts are in the cache folder, which all ranks share. What is already there is not done
again, so running a rank twice, or after it was killed, changes nothing.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hf_negmine.base.protocols import Role, SparseTeacher, TokenTeacher, VectorTeacher
from hf_negmine.base.schema import AnyArray, IdArray
from hf_negmine.config import MiningConfig
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.teachers import models_stay_the_same, vector_store, with_stages


def encode_share(config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> None:
    """Encode this rank's shards of the corpus and the queries, with every teacher that has vectors.

    Shards hold the same texts as those of one process, so the vectors are the same, too.
    """
    store = vector_store.VectorStore(config.cache_dir, progress=config.progress)
    columns: list[tuple[TextColumn, Role]] = [(texts.corpus, "passage"), (texts.queries, "query")]
    with models_stay_the_same():
        for teacher in (stage for member in config.members for stage in with_stages(member)):
            for column, role in columns:
                shard_of = np.arange(len(column)) // vector_store.TEXTS_A_SHARD
                own = _Some(column, np.flatnonzero(shard_of % world_size == rank))
                if not len(own):
                    continue
                if isinstance(teacher, VectorTeacher):
                    store.vectors(teacher, own, role)
                elif isinstance(teacher, SparseTeacher):
                    store.sparse(teacher, own, role)
                elif isinstance(teacher, TokenTeacher):
                    store.tokens(teacher, own, role)


def search_share(config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> None:
    """Search the whole corpus for this rank's parts of the queries, once all ranks have encoded theirs."""
    with models_stay_the_same():
        PoolBuilder(config).search_share(texts, slice(rank, None, world_size))


class _Some(TextColumn):
    """Some of the texts of a column, which stay where they are."""

    def __init__(self, column: TextColumn, ids: IdArray) -> None:
        self.folder, self.digests = column.folder, column.digests[ids]
        self._column, self._ids = column, ids

    def take(self, ids: AnyArray) -> pa.LargeStringArray:
        return self._column.take(self._ids[ids])
