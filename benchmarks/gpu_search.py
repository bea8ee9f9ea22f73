"""What share of the device's matrix products an exact search under ceilings reaches; queries are checked in float64.

Made-up clustered vectors. The peak is that of one large square product in the same number format, measured here. Run it
where there is a GPU; on a processor give small sizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import machine, median, parser, prepare, print_table, spread
from search_scaling import Source, vectors

DEPTH = 48
PERCENTAGE = 0.95
CHECKED = 64


def main() -> None:
    import torch

    from hf_negmine.base.devices import best_device
    from hf_negmine.base.wording import counted
    from hf_negmine.search.precision import precision_of

    options = parser(__doc__ or "")
    options.add_argument("--passages", type=int, default=1_000_000, help="size of the corpus")
    options.add_argument("--queries", type=int, default=100_000, help="number of queries")
    options.add_argument("--width", type=int, default=1024, help="dimensions of the vectors")
    options.add_argument("--square", type=int, default=8192, help="rows of the matrices that give the peak")
    options.add_argument("--device", default=best_device(), help="where to search")
    options.add_argument("--first-pass", default="auto", help="number format of the product")
    arguments = options.parse_args()
    cache = prepare(arguments) / "search_scaling"
    cache.mkdir(exist_ok=True)
    corpus, queries = vectors(cache, arguments.passages, arguments.queries, arguments.width)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    dtype = precision_of(arguments.first_pass, device).dtype
    number_format = str(dtype).removeprefix("torch.")
    print(f"{machine()}\nOn {name}, products in {number_format}; {counted(arguments.repeats, 'repeat')}\n")

    peak = max(
        2 * arguments.square**3 / seconds(multiplication(arguments.square, dtype, device), device) for _ in range(5)
    )
    operations = 2 * arguments.passages * arguments.queries * arguments.width
    rows = [[f"product of {arguments.square:,} x {arguments.square:,}", "", "", f"{peak / 1e12:.3g}", "100 %"]]
    searches: dict[str, Callable[[], Any]] = {
        "product in blocks": lambda: product(corpus, queries, dtype, device),
        f"hf_negmine, {DEPTH} best under ceilings": lambda: search(corpus, queries, arguments),
    }
    found = None
    for label, work in searches.items():
        times = []
        for _ in range(arguments.repeats):
            started = time.perf_counter()
            found = work()
            times.append(time.perf_counter() - started)
        speed = operations / median(times)
        rows.append(
            [label, f"{median(times):.2f}", spread(times), f"{speed / 1e12:.3g}", f"{100 * speed / peak:.1f} %"]
        )
    print_table(["", "seconds", "range", "Tflop/s", "of the peak"], rows)
    print(f"{check(corpus, queries, found)} of {CHECKED} queries checked have the ranking of a float64 product.")


def multiplication(size: int, dtype: Any, device: Any) -> Callable[[], Any]:
    import torch

    one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: one @ two


def seconds(work: Callable[[], Any], device: Any) -> float:
    """The time of one call, with the device idle before and after it."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    work()
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def product(corpus: Any, queries: Any, dtype: Any, device: Any, *, passages_a_block: int = 32_768) -> None:
    """Every block of passages by all queries, nothing kept: what a search costs that finds nothing."""
    import torch

    given = torch.from_numpy(queries).to(device).to(dtype)
    for first in range(0, len(corpus), passages_a_block):
        passages = torch.from_numpy(np.array(corpus[first : first + passages_a_block])).to(device).to(dtype)
        for some in given.split(4096):
            scores = some @ passages.T
    scores[0, 0].item()  # waits for the device


def search(corpus: Any, queries: Any, arguments: Any) -> tuple[Any, Any, Any]:
    """Offsets, passages and ceilings of the best under 95 % of each query's score with a passage near it."""
    from hf_negmine.search import Exclusions, VectorSearcher

    searcher = VectorSearcher(
        Source(queries),
        Source(corpus),
        Exclusions.none(len(queries)),
        device=arguments.device,
        first_pass=arguments.first_pass,
    )
    positives = positives_of(corpus, queries)
    offsets, passages, ceilings = [np.zeros(1, dtype=np.int64)], [], []
    for start in range(0, len(queries), searcher.block_size):
        ids = np.arange(start, min(start + searcher.block_size, len(queries)))
        rows, block = np.arange(len(ids)), searcher.block(ids)
        ceilings.append(block.pair_scores(rows, positives[ids]) * np.float32(PERCENTAGE))
        ranking = block.best(rows, ceilings[-1], DEPTH)
        offsets.append(ranking.offsets[1:] + offsets[-1][-1])
        passages.append(ranking.passages)
    return np.concatenate(offsets), np.concatenate(passages), np.concatenate(ceilings)


def positives_of(corpus: Any, queries: Any) -> Any:
    """The passage that each query was made from; see `search_scaling.vectors`."""
    return np.sort(np.random.default_rng(1).integers(0, len(corpus), len(queries))).astype(np.int32)


def check(corpus: Any, queries: Any, found: tuple[Any, Any, Any]) -> int:
    """How many of some queries have the ranking that float64 gives."""
    offsets, passages, ceilings = found
    right = 0
    sample = np.linspace(0, len(queries) - 1, CHECKED).astype(int)
    scores = np.empty((CHECKED, len(corpus)), dtype=np.float32)
    for first in range(0, len(corpus), 50_000):
        part = np.asarray(corpus[first : first + 50_000], dtype=np.float64)
        scores[:, first : first + 50_000] = queries[sample].astype(np.float64) @ part.T
    for query, row in zip(sample, scores, strict=True):
        allowed = np.flatnonzero(row < ceilings[query])
        best = allowed[np.lexsort((allowed, -row[allowed]))[:DEPTH]]
        right += np.array_equal(best, passages[offsets[query] : offsets[query + 1]])
    return right


if __name__ == "__main__":
    main()
