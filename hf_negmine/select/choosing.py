"""Choosing negatives among scored candidates, by array operations without a loop over rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_negmine.base.protocols import Sampler
from hf_negmine.base.ragged import offsets_of_counts
from hf_negmine.base.randomness import KeyArray, random_keys
from hf_negmine.base.schema import AnyArray, BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.select.candidates import CandidateLists, Demand
from hf_negmine.select.methods import Method
from hf_negmine.select.samplers import draw

CANDIDATES_A_STEP = 2**20


def demand_of(
    queries: IdArray, positive_scores: FloatArray, method: Method, sampler: Sampler, n: int, n_passages: int
) -> Demand:
    """What a selection by ``method`` and ``sampler`` needs to know about each target's ranking."""
    first_rank, last_rank = method.ranks(n_passages)
    return Demand(
        queries=queries,
        ceilings=method.ceilings(positive_scores),
        floor=method.floor,
        first_rank=first_rank,
        last_rank=last_rank,
        wanted=min(sampler.depth(n), n_passages),
    )


@dataclass(frozen=True)
class Survivors:
    """The candidates of some targets that may become negatives: entries start to start + count of two flat arrays.

    Attributes:
        passages: int32 passage ids.
        scores: float32, same shape, falling within a target.
        starts, counts: int64, shape (targets,).
        certain: bool, shape (targets,); False where a list ends before enough of them are found.
    """

    passages: PassageArray
    scores: FloatArray
    starts: IdArray
    counts: IdArray
    certain: BoolArray


def choose(
    survivors: Survivors,
    positive_scores: FloatArray,
    wanted: int,
    sampler: Sampler,
    n: int,
    seed: int,
    query_keys: KeyArray,
    passage_keys: KeyArray,
) -> tuple[IdArray, PassageArray, FloatArray]:
    """Draw n negatives for each target, or as many as there are; returns their offsets, passages and scores.

    Args:
        survivors: the candidates to draw from, at most ``wanted`` per target.
        positive_scores: the score that set each target's ceiling, shape (targets,).
        wanted: how many of them the sampler looks at.
        sampler: draws n of them.
        n: negatives per target.
        seed: the seed of the draws.
        query_keys: for each target, the first half of its query's digest, uint64, shape (targets,).
        passage_keys: first halves of the passage digests, uint64, shape (n_passages,).
    """
    passages: list[PassageArray] = []
    scores: list[FloatArray] = []
    width = max(wanted, n)
    step = max(1, CANDIDATES_A_STEP // width)
    for first in range(0, len(survivors.starts), step):
        some = slice(first, first + step)
        starts, counts = survivors.starts[some], survivors.counts[some]
        candidate_scores = padded(survivors.scores, starts, counts, width, -np.inf)
        candidates = padded(survivors.passages, starts, counts, width, 0)
        keys = random_keys(seed, query_keys[some], passage_keys[candidates])
        columns = draw(sampler, positive_scores[some], candidate_scores, keys, n)
        chosen = columns < counts[:, None]
        passages.append(np.take_along_axis(candidates, columns, axis=1)[chosen])
        scores.append(np.take_along_axis(candidate_scores, columns, axis=1)[chosen])
    offsets = offsets_of_counts(np.minimum(survivors.counts, n))
    return offsets, np.concatenate(passages).astype(np.int32), np.concatenate(scores).astype(np.float32)


def count_removed(
    lists: CandidateLists, demand: Demand, method: Method, positive_scores: FloatArray, depth: int
) -> dict[str, int]:
    """Count, for each ceiling and shift on its own, how many of each query's best ``depth`` candidates it kept out.

    Other selections may have deepened the lists since; they do not change the counts.
    """
    removed = {
        str(rule): int(np.minimum(lists.count_at_or_over(demand.queries, rule.ceilings(positive_scores)), depth).sum())
        for rule in method.rules
    }
    top = lists.offsets[demand.queries]
    if demand.first_rank:
        sizes = lists.stops[top] - lists.starts[top]
        removed[f"ranks before {demand.first_rank}"] = int(np.minimum(sizes, min(demand.first_rank, depth)).sum())
    return removed


def padded(values: AnyArray, starts: IdArray, counts: IdArray, width: int, absent: float) -> AnyArray:
    """The entries start to start + count of each row, shape (rows, width), filled up with ``absent``."""
    if not len(values):
        return np.full((len(counts), width), absent, dtype=values.dtype)
    places = np.arange(width)
    present = places < counts[:, None]
    return np.where(present, values[np.where(present, starts[:, None] + places, 0)], values.dtype.type(absent))
