"""Mining in ranks: read once, encode and search in shares, and finish with an ordinary run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hf_negmine import steps
from hf_negmine.base.errors import require
from hf_negmine.cluster.executors import Executor
from hf_negmine.cluster.shares import encode_share, search_share
from hf_negmine.config import MiningConfig
from hf_negmine.data.sources import RowSource
from hf_negmine.data.texts import TextSet, open_text_set


class Stage:
    """The work of every rank in one stage; it has the arguments of a datatrove pipeline step, and can be pickled.

    Args:
        work: a function of `shares`.
        config: all settings.
        texts: the folder of the texts, which every rank opens.
    """

    def __init__(
        self, work: Callable[[MiningConfig, TextSet, int, int], None], config: MiningConfig, texts: Path
    ) -> None:
        self.work, self.config, self.texts = work, config.without_corpus(), texts

    def __call__(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Do the share of this rank; ``data`` is what datatrove passes from step to step, here nothing."""
        config = replace(self.config, progress=self.config.progress and rank == 0)
        if config.device is None and torch.cuda.device_count() > 1:  # else each rank has, or all share, the only one
            config = replace(config, device=f"cuda:{rank % torch.cuda.device_count()}")
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
) -> str | None:
    """Encode and search in the ranks of an executor, then call ``finish``, whose fit finds that all done.

    The cache folder must be one that all ranks see. Run again after a failure: what is done is not done again.

    Args:
        executor: where the ranks run, see `parse_executor`.
        config: all settings.
        rows: the rows, as `NegativeMiner.fit` takes them.
        finish: mines the rows. It must be picklable for an executor that runs it elsewhere, and later.
        split: split of the rows, see `NegativeMiner.fit`.
        config_name: config of the rows, see `NegativeMiner.fit`.

    Returns:
        A sentence for the user if everything is only submitted, to run later; None if it is finished.

    Raises:
        InputError: the rows or an argument cannot be used.
        RankError: a rank failed or was killed.
    """
    texts = steps.read(config, rows, None, split=split, config_name=config_name).texts
    require(len(texts.queries) > 0, "executor: there are no queries to search for")
    stages = [Stage(work, config, texts.folder) for work in (encode_share, search_share)]
    return executor.run(stages, finish, config.cache_dir / "cluster")
