"""What a rank does: pure functions of the configuration, the texts, its rank and the number of ranks.

A function returns when its parts are in the cache folder, which all ranks share. What is already there is not done
again, so running a rank twice, or after it was killed, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from hf_negmine.base.protocols import Role, SparseTeacher, StreamingTeacher, TokenTeacher, VectorTeacher
from hf_negmine.config import MiningConfig
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.pool.builder import PoolBuilder, has_slices
from hf_negmine.pool.retrieving import slices_of_rank
from hf_negmine.teachers import models_stay_the_same, vector_store, with_stages
from hf_negmine.teachers.vector_store import VectorStore

Work: TypeAlias = Callable[[MiningConfig, TextSet, int, int], None]
"""What a rank does in a stage, given its rank and the number of ranks."""


def encode_share(config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> None:
    """Encode this rank's shards of the corpus and the queries, with every teacher that has vectors.

    Shards hold the same texts as those of one process, so the vectors are the same, too.
    """
    store = VectorStore(config.cache_dir, progress=config.progress)
    columns: list[tuple[TextColumn, Role]] = [(texts.corpus, "passage"), (texts.queries, "query")]
    with models_stay_the_same():
        for teacher in (stage for member in config.members for stage in with_stages(member)):
            for column, role in columns:
                own = column.slice(*share_of(column, rank, world_size))
                if not len(own):
                    continue
                if isinstance(teacher, VectorTeacher):
                    store.vectors(teacher, own, role)
                elif isinstance(teacher, SparseTeacher):
                    store.sparse(teacher, own, role)
                elif isinstance(teacher, TokenTeacher):
                    store.tokens(teacher, own, role)


def share_of(column: TextColumn, rank: int, world_size: int) -> tuple[int, int]:
    """The first text of a rank's shards, and the one after the last."""
    size = vector_store.TEXTS_A_SHARD
    shards = -(-len(column) // size)
    start, stop = (shards * number // world_size * size for number in (rank, rank + 1))
    return min(start, len(column)), min(stop, len(column))


def search_slices(config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> None:
    """Search this rank's slices of a large corpus, once all ranks have encoded theirs; see `needs_slices`."""
    if needs_slices(config, texts):
        with models_stay_the_same():
            PoolBuilder(config).search_slices(texts, rank, world_size)


def search_share(config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> None:
    """Search the corpus for this rank's parts of the queries, or merge what `search_slices` has found for them."""
    with models_stay_the_same():
        PoolBuilder(config).search_share(texts, slice(rank, None, world_size))


def needs_slices(config: MiningConfig, texts: TextSet) -> bool:
    """Whether some teacher's ranks search slices of the corpus."""
    return any(has_slices(teacher, texts) for teacher in config.members)


def shards_read(work: Work, config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> set[str] | None:
    """The names of the shards of vectors that a rank reads; None for all.

    Ranks that search slices need few of a large corpus, and merging what they have found needs none.
    """
    streaming = any(isinstance(teacher, StreamingTeacher) for teacher in config.members)  # it has shards of any texts
    if streaming or not all(has_slices(teacher, texts) for teacher in config.members):
        return None
    columns = []
    if work is encode_share:
        columns = [column.slice(*share_of(column, rank, world_size)) for column in (texts.corpus, texts.queries)]
    elif work is search_slices:
        own = slices_of_rank(texts, rank, world_size)
        columns = [texts.queries, *(texts.corpus.slice(*one) for one in own)]
    return {name for column in columns for name in vector_store.shard_names(column)}
