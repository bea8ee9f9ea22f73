"""What another selection from a stored pool costs: every method at its paper setting, and a sweep of 20 thresholds.

Each method starts from the pool as it was retrieved: the best candidates of each query. Where these do not decide the
selection, the first selection searches again for the queries in question, and the second no longer has to. The sweep
applies all thresholds to one pool.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from common import dense_teacher, machine, median, parser, prepare, print_table, store_squad
from tqdm.auto import tqdm

from hf_negmine import CandidatePool
from hf_negmine.base.defaults import POOL_DEPTH
from hf_negmine.base.protocols import Searcher
from hf_negmine.config import MiningConfig
from hf_negmine.pool import rankings
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.search import open_searcher
from hf_negmine.teachers.vector_store import VectorStore

NEGATIVES = 4
BAND, BAND_DEPTH = ("band:30-100", "sampled:70"), 100
METHODS = (
    ("naive", "top"),
    ("shifted:10", "top"),
    ("abs:0.7", "top"),
    ("margin_pos:0.05", "top"),
    ("perc_pos:0.95", "top"),
    ("perc_pos:0.95", "sampled:10"),
    ("perc_pos:0.95", "top1_sampled:10"),
    BAND,
)
SWEEP = (
    *(f"perc_pos:{value / 100:g}" for value in (105, 100, 98, 95, 90, 85, 80, 70, 60, 40)),
    *(f"margin_pos:{value / 100:g}" for value in (0, 5, 10, 15, 20)),
    *(f"abs:{value / 100:g}" for value in (90, 80, 70, 60, 50)),
)


@dataclass(frozen=True)
class Cost:
    """The cost of a selection.

    Attributes:
        seconds: wall-clock time.
        deepened: queries whose candidates did not decide the selection, so that they were searched for again.
    """

    seconds: float
    deepened: int


@contextmanager
def counting(owner: Any, name: str, size: Callable[..., int]) -> Iterator[list[int]]:
    """Add up the sizes of a function's calls."""
    real, total = getattr(owner, name), [0]

    def counted(*arguments: Any, **named: Any) -> Any:
        total[0] += size(*arguments)
        return real(*arguments, **named)

    with patch.object(owner, name, counted):
        yield total


def cost_of(pool: CandidatePool, method: str, sampler: str = "top") -> Cost:
    """Select once."""
    with counting(rankings, "deepen", lambda _, __, demand: len(np.unique(demand.queries))) as deepened:
        started = time.perf_counter()
        pool.select(method, sampler, NEGATIVES)
        return Cost(time.perf_counter() - started, deepened[0])


class Pools:
    """Fresh copies of a pool as it was retrieved."""

    def __init__(self, pristine: Path, searcher: Searcher) -> None:
        self._pristine, self._copy, self._searcher = pristine, pristine.with_name("copy"), searcher

    def fresh(self) -> CandidatePool:
        """Open a new copy."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._pristine, self._copy)
        return CandidatePool.load(self._copy, open_searcher=lambda: self._searcher, progress=False)


def row_of(words: str, pools: Pools, method: str, sampler: str, repeats: int) -> list[str]:
    """The cells of a method's line."""
    first, again = [], []
    for _ in range(repeats):
        pool = pools.fresh()
        first.append(cost_of(pool, method, sampler))
        again.append(cost_of(pool, method, sampler))
    seconds = [median([cost.seconds for cost in costs]) for costs in (first, again)]
    share = f"{100 * first[0].deepened / pool.n_queries:.1f} %"
    return [words, f"{seconds[0]:.2f}", f"{seconds[1]:.3f}", f"{first[0].deepened:,}", share]


def report_methods(pools: Pools, deep_pools: Pools, repeats: int) -> None:
    rows = [
        row_of(method if sampler == "top" else f"{method}, {sampler}", pools, method, sampler, repeats)
        for method, sampler in METHODS
    ]
    rows.append(row_of(f"{', '.join(BAND)}, {BAND_DEPTH} candidates", deep_pools, *BAND, repeats))
    print_table(["method", "first, s", "again, s", "deepened queries", "share"], rows)


def report_sweep(pools: Pools, repeats: int) -> None:
    pool = pools.fresh()
    candidates = len(pool.lists.passages)
    first: dict[str, Cost] = {}
    for method in tqdm(SWEEP, desc="Sweeping"):
        first[method] = cost_of(pool, method)
        tqdm.write(f"{method}: {first[method]}", file=sys.stderr)
    again = {method: median([cost_of(pool, method).seconds for _ in range(repeats)]) for method in SWEEP}

    def summed(words: str, methods: Sequence[str]) -> list[str]:
        costs = [first[method] for method in methods]
        return [
            words,
            str(len(methods)),
            f"{sum(cost.seconds for cost in costs):.1f}",
            f"{sum(again[method] for method in methods):.2f}",
            f"{sum(cost.deepened for cost in costs):,}",
        ]

    rows = []
    for kind in ("perc_pos", "margin_pos", "abs"):
        methods = [method for method in SWEEP if method.startswith(kind)]
        rows.append(summed(f"{methods[0]} to {methods[-1].partition(':')[2]}", methods))
    rows.append(summed("all", SWEEP))
    print_table(["thresholds", "number", "first, s", "again, s", "queries deepened"], rows)
    print(f"The pool grew from {candidates:,} to {len(pool.lists.passages):,} candidates.\n")
    print_table(
        ["threshold", "first, s", "again, s", "deepened queries"],
        [
            [method, f"{cost.seconds:.2f}", f"{again[method]:.3f}", f"{cost.deepened:,}"]
            for method, cost in first.items()
        ],
    )


def main() -> None:
    assert __doc__
    options = parser(__doc__.splitlines()[0])
    options.add_argument(
        "--vectors", type=Path, default=None, help="folder of queries.npy and corpus.npy, rows as in the Parquet files"
    )
    arguments = options.parse_args()
    cache = prepare(arguments)
    texts = store_squad(arguments, cache)
    teacher = dense_teacher(arguments)
    work = cache / "reselect"
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(cache / "pools", ignore_errors=True)  # a selection may have deepened an older pool
    searcher = open_searcher(teacher, texts, VectorStore(cache), device="cpu")
    pools = {}
    for depth in (POOL_DEPTH, BAND_DEPTH):
        config = MiningConfig(teacher, pool_depth=depth, cache_dir=cache, device="cpu")
        pool = PoolBuilder(config).pool(texts, ("query", "positive"))
        assert isinstance(pool, CandidatePool)
        pool.save(work / f"pristine-{depth}")
        pools[depth] = Pools(work / f"pristine-{depth}", searcher)
        if depth == POOL_DEPTH:
            print(f"{machine()}; {arguments.repeats} repeats\n\n{pool}\n", flush=True)
    report_methods(pools[POOL_DEPTH], pools[BAND_DEPTH], arguments.repeats)
    report_sweep(pools[POOL_DEPTH], arguments.repeats)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
