"""What another selection from a stored pool costs: every method at its paper setting, and a sweep of 20 thresholds.

Each method starts from the pool as it was retrieved: the best 48 candidates of each query, and shortlists. Where the
candidates do not decide the first selection deepens the pool, and the second does not have to. The sweep puts all
thresholds to one pool.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
from common import dense_teacher, machine, median, parser, prepare, print_table, store_squad
from tqdm.auto import tqdm

import hf_negmine.pool.candidate_pool
from hf_negmine import CandidatePool
from hf_negmine.candidates import CandidateLists, Demand
from hf_negmine.protocols import Searcher
from hf_negmine.retrieval import Retrieval
from hf_negmine.search import open_searcher
from hf_negmine.shortlists import Shortlists
from hf_negmine.store import VectorStore

NEGATIVES = 4
DEPTH = 48
METHODS = (
    ("naive", "top"),
    ("shifted:10", "top"),
    ("abs:0.7", "top"),
    ("margin_pos:0.05", "top"),
    ("perc_pos:0.95", "top"),
    ("perc_pos:0.95", "sampled:10"),
    ("perc_pos:0.95", "top1_sampled:10"),
    ("band:30-100", "sampled:70"),
)
SWEEP = (
    *(f"perc_pos:{value / 100:g}" for value in (105, 100, 98, 95, 90, 85, 80, 70, 60, 40)),
    *(f"margin_pos:{value / 100:g}" for value in (0, 5, 10, 15, 20)),
    *(f"abs:{value / 100:g}" for value in (90, 80, 70, 60, 50)),
)


class Deepened:
    """Counts the queries for which a pool is deepened."""

    def __init__(self) -> None:
        self.queries = 0
        self._deepen = hf_negmine.pool.candidate_pool.deepen

    def __call__(
        self,
        lists: CandidateLists,
        searcher: Searcher,
        demand: Demand,
        shortlists: Shortlists | None,
        *,
        progress: bool = False,
    ) -> CandidateLists:
        self.queries += len(np.unique(demand.queries))
        return self._deepen(lists, searcher, demand, shortlists, progress=progress)


def timed_select(pool: CandidatePool, method: str, sampler: str = "top") -> tuple[float, int]:
    """Seconds of a selection, and the number of queries it deepened the pool for."""
    deepened = Deepened()
    with patch.object(hf_negmine.pool.candidate_pool, "deepen", deepened):
        started = time.perf_counter()
        pool.select(method, sampler, NEGATIVES)
        return time.perf_counter() - started, deepened.queries


class Pools:
    """Fresh copies of a pool as it was retrieved."""

    def __init__(self, pristine: Path, searcher: Searcher) -> None:
        self._pristine, self._copy, self._searcher = pristine, pristine.with_name("copy"), searcher

    def fresh(self) -> CandidatePool:
        """Open a new copy."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._pristine, self._copy)
        return CandidatePool.load(self._copy, open_searcher=lambda: self._searcher, progress=False)


def report_methods(pools: Pools, repeats: int) -> None:
    rows: list[list[str]] = []
    for method, sampler in METHODS:
        first, again, queries = [], [], 0
        for _ in range(repeats):
            pool = pools.fresh()
            seconds, queries = timed_select(pool, method, sampler)
            first.append(seconds)
            again.append(timed_select(pool, method, sampler)[0])
        words = f"{method}, {sampler}" if sampler != "top" else method
        share = f"{100 * queries / pool.n_queries:.1f} %"
        rows.append([words, f"{median(first):.2f}", f"{median(again):.3f}", f"{queries:,}", share])
    print_table(["method", "first, s", "again, s", "deepened queries", "share"], rows)


def report_sweep(pools: Pools, repeats: int) -> None:
    pool = pools.fresh()
    candidates = len(pool.lists.passages)
    first: dict[str, tuple[float, int]] = {}
    for method in tqdm(SWEEP, desc="Sweeping"):
        first[method] = timed_select(pool, method)
        tqdm.write(f"{method}: {first[method][0]:.2f} s, deepened for {first[method][1]:,} queries", file=sys.stderr)
    again = {method: median([timed_select(pool, method)[0] for _ in range(repeats)]) for method in SWEEP}
    rows = []
    for kind in ("perc_pos", "margin_pos", "abs"):
        methods = [method for method in SWEEP if method.startswith(kind)]
        deep = [method for method in methods if first[method][1]]
        rows.append(
            [
                f"{methods[0]} to {methods[-1].partition(':')[2]}",
                str(len(methods)),
                f"{sum(first[method][0] for method in methods):.1f}",
                f"{sum(again[method] for method in methods):.2f}",
                str(len(deep)),
                f"{sum(first[method][1] for method in methods):,}",
            ]
        )
    total = [sum(found[0] for found in first.values()), sum(again.values())]
    every = [f"{total[0]:.1f}", f"{total[1]:.2f}", str(sum(found[1] > 0 for found in first.values()))]
    rows.append(["all", str(len(SWEEP)), *every, f"{sum(found[1] for found in first.values()):,}"])
    headers = ["thresholds", "number", "first, s", "again, s", "that deepened", "queries deepened, summed"]
    print_table(headers, rows)
    print(f"The pool grew from {candidates:,} to {len(pool.lists.passages):,} candidates.\n")
    print_table(
        ["threshold", "first, s", "again, s", "deepened queries"],
        [[method, f"{first[method][0]:.2f}", f"{again[method]:.3f}", f"{first[method][1]:,}"] for method in SWEEP],
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
    shutil.rmtree(cache / "pools", ignore_errors=True)  # a pool that a selection has deepened is not as retrieved
    # As a miner with a ceiling retrieves it, before the first selection.
    retrieval = Retrieval(teacher, cache, DEPTH, "min", device="cpu", look_ahead=True)
    pool = retrieval.pool(texts)
    assert isinstance(pool, CandidatePool)
    pool.save(work / "pristine")
    print(f"{machine()}; {arguments.repeats} repeats\n\n{pool}\n", flush=True)
    searcher = open_searcher(teacher, texts, VectorStore(cache), device="cpu")
    pools = Pools(work / "pristine", searcher)
    report_methods(pools, arguments.repeats)
    report_sweep(pools, arguments.repeats)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
