"""Mining in ranks: read once, encode, search and select in shares, and finish with an ordinary run."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hf_negmine import steps
from hf_negmine.base.errors import InputError, require
from hf_negmine.cluster.executors import (
    Executor,
    JobsExecutor,
    LocalExecutor,
    RayExecutor,
    SlurmExecutor,
    is_of_a_notebook,
)
from hf_negmine.cluster.plan import Plan, Workload, plan
from hf_negmine.cluster.shares import (
    Work,
    encode_share,
    needs_selecting,
    needs_slices,
    search_share,
    search_slices,
    select_share,
    shards_read,
)
from hf_negmine.cluster.store import Store
from hf_negmine.config import MiningConfig
from hf_negmine.data.sources import RowSource
from hf_negmine.data.texts import TextSet, open_text_set
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.select.judge import Judge
from hf_negmine.select.rules import filters_of_settings, settings_of_filters

WORKS: dict[str, Work] = {work.__name__: work for work in (encode_share, search_slices, search_share, select_share)}

ELSEWHERE = (LocalExecutor, RayExecutor, SlurmExecutor, JobsExecutor)
"""Executors whose ranks are processes of their own."""


class Stage:
    """The work of every rank in one stage; it has the arguments of a datatrove pipeline step, and can be pickled.

    ``work`` is a function of `shares`. Every rank opens the folder ``texts``. If ranks share no folder, a ``store`` is
    where each finds what others have finished and brings what it has.
    """

    def __init__(
        self,
        work: Work,
        config: MiningConfig,
        texts: Path,
        store: Store | None = None,
    ) -> None:
        self.work, self.config = work, config.without_corpus()
        self.texts, self.store = texts, store

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Do the share of this rank; ``data`` is what datatrove passes from step to step, here nothing."""
        config = replace(self.config, progress=self.config.progress and rank == 0)
        if config.device is None and torch.cuda.device_count() > 1:  # else each rank has, or all share, the only one
            config = replace(config, device=f"cuda:{rank % torch.cuda.device_count()}")
        if self.store is not None:
            self.store.fetch(config.cache_dir, shards=set())  # the texts tell which vectors are read
            shards = shards_read(self.work, config, open_text_set(self.texts), rank, world_size)
            self.store.fetch(config.cache_dir, shards=shards)
            self.store.require_same(_run(config, open_text_set(self.texts)))  # a changed model fills other parts
        with nullcontext() if self.store is None else self.store.sending(config.cache_dir):
            self.work(config, open_text_set(self.texts), rank, world_size)

    def __repr__(self) -> str:
        return f"{self.work.__name__} of {self.texts}"


def mine_in_ranks(
    executor: Executor,
    config: MiningConfig,
    rows: RowSource,
    finish: Callable[[], object],
    *,
    split: str | None = None,
    config_name: str | None = None,
    store: Store | None = None,
) -> str | None:
    """Encode, search and select in the ranks of an executor, then call ``finish``, whose fit finds that all done.

    Run again after a failure: what is done is not done again.

    Args:
        executor: where the ranks run, see `parse_executor`.
        config: all settings. All ranks must see the cache folder, unless there is a store.
        rows: the rows, as `NegativeMiner.fit` takes them.
        finish: mines the rows. It must be picklable for an executor that runs it elsewhere, and later.
        split: split of the rows, see `NegativeMiner.fit`.
        config_name: config of the rows, see `NegativeMiner.fit`.
        store: for machines that share no folder; the cache folder must be `Store.cache_in`.

    Returns:
        A sentence for the user if everything is only submitted, to run later; None if it is finished.

    Raises:
        InputError: the rows or an argument cannot be used, or the store holds another run.
        StorageError: the store cannot be read or written.
        RankError: a rank failed or was killed.
    """
    require(
        store is not None or not isinstance(executor, JobsExecutor),
        "executor: Hugging Face Jobs share no disk; give a store, such as --store s3://bucket/run",
    )
    if store is not None:
        require(
            "memory:" not in store.address or not isinstance(executor, ELSEWHERE),
            f"store: {store.address} is in the memory of one process, and the ranks are others, which would find it "
            "empty; give an address that all reach, such as s3://bucket/run, or none if they share a folder",
        )
        own = config.cache_dir == store.cache_in(config.cache_dir.parents[1])  # else other runs would be sent, too
        require(own, f"cache_dir: {config.cache_dir} is not the store's own; give store.cache_in(folder)")
        store.run()  # before long work: it may not be readable
    texts = steps.read(config, rows, None, split=split, config_name=config_name).texts
    require(len(texts.queries) > 0, "executor: there are no queries to search for")
    config = sendable(config, executor)
    if store is not None:
        store.claim(_run(config, texts))
        store.send(config.cache_dir)
        finish = partial(_fetch_and, finish, store, config.cache_dir)
    needed = {search_slices: needs_slices, select_share: needs_selecting}
    works = [work for work in WORKS.values() if work not in needed or needed[work](config, texts)]
    stages = [Stage(work, config, texts.folder, store) for work in works]
    return executor.run(stages, finish, config.cache_dir / "cluster")


def sendable(config: MiningConfig, executor: Executor) -> MiningConfig:
    """The configuration for ranks, without what cannot be sent to them; see `_as_far_as`."""
    return _as_far_as(_is_made_again if isinstance(executor, JobsExecutor) else _is_pickled, config)


def _as_far_as(possible: Callable[[Sequence[Any]], bool], config: MiningConfig) -> MiningConfig:
    """The configuration with all filters, without the judge, which is asked last, or with none, as far as possible."""
    without_judge = [one for one in config.filters if not isinstance(one, Judge)]
    return replace(config, filters=next(filter(possible, (config.filters, without_judge)), ()))


def _is_pickled(filters: Sequence[Any]) -> bool:
    try:
        return not is_of_a_notebook(pickle.dumps(filters))
    except Exception:  # whatever a user's object raises
        return False


def _is_made_again(filters: Sequence[Any]) -> bool:
    """Whether `run_rank` can make the filters from their settings."""
    try:
        filters_of_settings(settings_of_filters(filters))
    except InputError:
        return False
    return True


def plan_ranks(
    executor: Executor | None,
    config: MiningConfig,
    rows: RowSource,
    *,
    split: str | None = None,
    config_name: str | None = None,
) -> Plan:
    """What mining these rows in these ranks (in one process without an executor) takes; it only reads them.

    Tokens per text, the model's size and the hardware are the defaults of `Workload`. Raises what `mine_in_ranks` does.
    """
    ranks = 1 if executor is None else executor.ranks
    if ranks is None:
        raise InputError("executor: how many ranks there are is only known when they run; give ray:tasks=8")
    texts = steps.read(config, rows, None, split=split, config_name=config_name).texts
    return plan(Workload(len(texts.corpus), len(texts.queries), ranks, depth=config.pool_depth))


def run_rank(address: str, work: str, rank: int, world_size: int, cache_dir: Path) -> None:
    """Do the share of one rank of a run in a store, on a machine that has nothing but this package and the address.

    Args:
        address: of the store, in which `mine_in_ranks` has noted the run.
        work: ``encode_share``; once all ranks have done that, for a large corpus ``search_slices``; then
            ``search_share``; and then ``select_share``.
        rank: from 0.
        world_size: the number of ranks.
        cache_dir: a folder of this machine.

    Raises:
        InputError: there is no run in the store, no such work, or the teacher cannot be recreated from its settings.
        StorageError: the store cannot be read or written.
    """
    require(work in WORKS, f"work: {work!r} is not among {list(WORKS)}")
    require(0 <= rank < world_size, f"rank: {rank}, expected one from 0 to {world_size - 1}")
    store = Store(address)
    run = store.run()
    if run is None:
        raise InputError(f"store: {address} holds no run; start one with mine --store {address}")
    config = MiningConfig.from_dict(run["settings"], cache_dir=store.cache_in(cache_dir))
    Stage(WORKS[work], config, config.cache_dir / "texts" / run["texts"], store)(None, rank, world_size)


def _run(config: MiningConfig, texts: TextSet) -> dict[str, Any]:
    """What a store notes of its run."""
    return {
        "teacher": config.teacher.name,
        "queries": len(texts.queries),
        "passages": len(texts.corpus),
        "texts": texts.folder.name,
        "pools": PoolBuilder(config).pool_names(texts),
        "settings": _as_far_as(_is_made_again, config).to_dict(),
    }


def _fetch_and(finish: Callable[[], object], store: Store, cache: Path) -> None:
    store.fetch(cache)
    finish()
