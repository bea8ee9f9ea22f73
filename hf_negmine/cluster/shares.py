"""What a rank does: pure functions of the configuration, the texts, its rank and the number of ranks.

A function returns when its parts are in the cache folder, which all ranks share. What is already there is not done
again, so running a rank twice, or after it was killed, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from hf_negmine import steps
from hf_negmine.base.protocols import Role, SparseTeacher, StreamingTeacher, Teacher, TokenTeacher, VectorTeacher
from hf_negmine.config import MiningConfig
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.pool.builder import PoolBuilder, has_slices
from hf_negmine.pool.retrieving import slices_of_rank
from hf_negmine.select.filters import Consistency, Filter
from hf_negmine.select.judge import Judge
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
        for teacher in _encoding(config):
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


def _encoding(config: MiningConfig) -> Iterator[Teacher]:
    """The teachers that encode whole columns: those that search, and those of filters."""
    others = (getattr(one, "teacher", None) for one in config.candidate_filters)
    for teacher in (*config.members, *(one for one in others if one is not None)):
        yield from with_stages(teacher)


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


def select_share(config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> None:
    """Select for this rank's parts of the queries, once all ranks have searched, and keep what that takes.

    These are candidates that are searched deeper, scores of vetoes, and a judge's verdicts: all are stored, so that the
    last step finds them. See `needs_selecting`.
    """
    if not needs_selecting(config, texts):
        return
    config = replace(config, filters=_independent(config), on_exhausted="drop")
    with models_stay_the_same():
        builder = PoolBuilder(config)
        for some, pool in builder.pools_of_share(texts, slice(rank, None, world_size)):
            steps.select(builder, pool, some)


def needs_selecting(config: MiningConfig, texts: TextSet) -> bool:
    """Whether ranks can do something for the selection: search deeper for it, or ask a filter or a judge."""
    top_k = 0 if config.consistency is None else config.consistency.top_k or 0
    if config.method.sees_all_positives or top_k > config.pool_depth:  # a rank knows neither
        return False
    if any(not isinstance(one, Consistency) for one in _independent(config)):
        return True
    first, last = config.method.ranks(len(texts.corpus))
    deepest = max(first + config.sampler.depth(config.num_negatives), last or 0)
    may_search = bool(config.method.rules) or deepest > config.pool_depth
    return may_search and not all(has_slices(teacher, texts) for teacher in config.members)


def _independent(config: MiningConfig) -> list[Filter | Consistency | Judge]:
    """The filters that decide about each query alone: a judge with a budget reads the likeliest pairs of all."""
    return [one for one in config.filters if not isinstance(one, Judge) or one.budget is None]


def needs_slices(config: MiningConfig, texts: TextSet) -> bool:
    """Whether some teacher's ranks search slices of the corpus."""
    return any(has_slices(teacher, texts) for teacher in config.members)


def shards_read(work: Work, config: MiningConfig, texts: TextSet, rank: int, world_size: int) -> set[str] | None:
    """The names of the shards of vectors that a rank reads; None for all.

    Ranks that search slices need few of a large corpus, and merging what they have found needs none, nor does a
    selection without filters.
    """
    streaming = any(isinstance(teacher, StreamingTeacher) for teacher in config.members)  # it has shards of any texts
    if streaming or not all(has_slices(teacher, texts) for teacher in config.members):
        return None
    if work is select_share and config.candidate_filters:
        return None
    columns = []
    if work is encode_share:
        columns = [column.slice(*share_of(column, rank, world_size)) for column in (texts.corpus, texts.queries)]
    elif work is search_slices:
        own = slices_of_rank(texts, rank, world_size)
        columns = [texts.queries, *(texts.corpus.slice(*one) for one in own)]
    return {name for column in columns for name in vector_store.shard_names(column)}
