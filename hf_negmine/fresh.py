"""Negatives from the fitted corpus for rows that were not part of `fit`, such as those of a stream.

Texts are encoded one batch at a time: a model whose vectors differ in their last digits from batch to batch (as they do
in bfloat16) may order candidates with nearly equal scores differently at another batch size.
"""

from __future__ import annotations

import numpy as np
import torch

from hf_negmine.base.devices import is_fork
from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Sampler
from hf_negmine.data.pairs import RowNegatives, RowPairs
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.builder import PoolBuilder


def mine_fresh(
    builder: PoolBuilder,
    texts: TextSet,
    pairs: RowPairs,
    *,
    n: int | None = None,
    sampler: Sampler | None = None,
    seed: int | None = None,
) -> RowNegatives:
    """Negatives of every row of ``pairs``.

    Args:
        builder: makes the miner's pools.
        texts: the texts that the miner is fitted on.
        pairs: the rows with their positives.
        n, sampler, seed: used instead of the configuration's.

    Raises:
        InputError: the miner has a judge, which is only asked about the rows of a fit.
    """
    config = builder.config
    if config.judge is not None:
        raise InputError(
            f"{config.judge} is only asked at fit(), and these rows were not part of it; fit on all rows, or leave "
            "the judge out of filters="
        )
    if is_fork():
        # A fork, such as those of map(num_proc=…), lacks OpenMP's threads and would wait for them forever.
        torch.set_num_threads(1)
    pool = builder.pool_of_rows(texts, pairs)
    selection = pool.select(
        config.method,
        config.sampler if sampler is None else sampler,
        config.num_negatives if n is None else n,
        seed=config.seed if seed is None else seed,
    )
    targets = np.arange(len(pairs.rows)) if config.positive_score == "each" else pairs.rows
    chosen = selection.ragged.take(targets)
    return RowNegatives(
        pairs.queries,
        pairs.query_ids,
        pairs.rows,
        pairs.positives,
        pairs.positive_ids,
        selection.pair_scores,
        chosen.offsets,
        chosen.arrays[0],
        chosen.arrays[1],
        pool.consistent() if isinstance(pool, CandidatePool) and config.consistency is not None else None,
    )
