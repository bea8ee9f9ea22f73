"""What many settings cost in one sweep, in runs of one setting: the grid of NV-Retriever's ablation, three samplings.

Both start from stored vectors of SQuAD's training questions and its paragraphs, and end with the negatives' ids.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from common import Clock, dense_teacher, machine, median, parser, prepare, print_table, spread, store_squad

from hf_negmine.base.defaults import POOL_DEPTH
from hf_negmine.config import MiningConfig
from hf_negmine.pool.builder import PoolBuilder

METHODS = (
    "naive",
    "shifted:10",
    "band:30-100",
    *(f"abs:{value / 100:g}" for value in range(95, 45, -5)),
    *(f"margin_pos:{value / 100:g}" for value in range(0, 55, 5)),
    *(f"perc_pos:{value / 100:g}" for value in (105, 100, 98, *range(95, 45, -5))),
)
SAMPLERS = ("top", "sampled:10", "top1_sampled:10")
DEEPEST_RANK = 100


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
    settings = len(METHODS) * len(SAMPLERS)
    print(f"{machine()}; {arguments.repeats} repeats\n", flush=True)
    times: dict[str, list[dict[str, float]]] = {}
    searched = 0

    def pool(depth: int) -> Any:
        shutil.rmtree(cache / "pools", ignore_errors=True)
        config = MiningConfig(teacher, pool_depth=depth, cache_dir=cache, device="cpu", progress=False)
        return PoolBuilder(config).pool(texts, ("query", "positive"))

    for _ in range(arguments.repeats):
        clock = Clock()
        pool(POOL_DEPTH).select("perc_pos:0.95")
        times.setdefault("1 setting", []).append(clock.read())
        clock = Clock()
        swept = pool(DEEPEST_RANK)
        times.setdefault(f"the search of a pool of {DEEPEST_RANK}", []).append(clock.read())
        before = len(swept.lists.passages)
        swept.sweep(METHODS, SAMPLERS)
        times.setdefault(f"{settings} settings", []).append(clock.read())
        searched = len(swept.lists.passages) - before
    one = median([each["seconds"] for each in times["1 setting"]])
    rows = []
    for name, each in times.items():
        seconds = [time["seconds"] for time in each]
        cpu = median([time["cpu"] for time in each])
        rows.append([name, f"{median(seconds):.1f}", spread(seconds), f"{median(seconds) / one:.2f}", f"{cpu:.1f}"])
    print_table([f"{len(texts.queries):,} queries", "seconds", "range", "runs", "CPU seconds"], rows)
    print(f"The sweep looked {searched:,} candidates further.")
    shutil.rmtree(cache / "pools", ignore_errors=True)


if __name__ == "__main__":
    main()
