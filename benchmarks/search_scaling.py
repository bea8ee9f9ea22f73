"""How the time of an exact search grows with the corpus: hf_negmine, FAISS flat, torch in blocks, the bare product.

Clustered unit vectors of MiniLM's width, made here. Queries lie near passages, so that many passages of their cluster
score nearly alike, as in a real corpus. Every size is searched by all of them in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import AnonymousPeak, Clock, machine, median, memory, parser, prepare, print_table, spread

DEPTH = 48
QUERIES_A_BLOCK = 1024
PASSAGES_A_BLOCK = 32_768
PASSAGES_A_CLUSTER = 2000
VECTORS_A_STEP = 50_000


def main() -> None:
    arguments = options().parse_args()
    cache = prepare(arguments) / "search_scaling"
    cache.mkdir(exist_ok=True)
    print(machine(), end="\n\n")
    measured: dict[str, dict[int, float]] = {}
    rows = []
    for count in arguments.passages:
        corpus, queries = vectors(cache, count, arguments.queries, arguments.width)
        times: dict[str, list[Any]] = {}
        for _ in range(arguments.repeats):
            for name in (PRODUCT, *arguments.ways):
                idle = memory("RssAnon")
                with AnonymousPeak() as anonymous:
                    clock = Clock()
                    (bare_product if name == PRODUCT else WAYS[name])(corpus, queries, arguments.first_pass)
                    read = clock.read()
                times.setdefault(name, []).append({**read, "peak": anonymous.peak - idle})
        product = median([each["seconds"] for each in times[PRODUCT]])
        for name, each in times.items():
            seconds = [one["seconds"] for one in each]
            measured.setdefault(name, {})[count] = median(seconds)
            cpu = median([one["cpu"] for one in each])
            rows.append(
                [
                    f"{count:,}",
                    LABELS.get(name, name),
                    f"{median(seconds):.2f}",
                    spread(seconds),
                    f"{median(seconds) / product:.2f}",
                    f"{cpu:.1f}",
                    f"{max(one['peak'] for one in each):,.0f}",
                ]
            )
    heads = ["passages", f"{arguments.queries:,} queries", "seconds", "range", "products", "CPU seconds", "MiB"]
    print_table(heads, rows)
    if arguments.plot is not None:
        draw(measured, arguments.queries, arguments.plot)


def options() -> argparse.ArgumentParser:
    result = parser(__doc__ or "")
    sizes = [50_000, 200_000, 1_000_000, 4_000_000]
    result.add_argument("--passages", type=int, nargs="+", default=sizes, help="sizes of the corpus")
    result.add_argument("--queries", type=int, default=2048, help="number of queries")
    result.add_argument("--width", type=int, default=384, help="dimensions of the vectors")
    result.add_argument("--first-pass", default="auto", help="number format of hf_negmine's product")
    result.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="what searches, besides the bare product"
    )
    result.add_argument("--plot", type=Path, default=None, help="an image of time against passages to write")
    return result


# ---- vectors ---------------------------------------------------------------------------------------------------------


def vectors(cache: Path, count: int, n_queries: int, width: int) -> tuple[Any, Any]:
    """The corpus, mapped, and the queries; float32 of unit length, shapes (count, width) and (n_queries, width)."""
    path = cache / f"{count}x{width}.npy"
    if not path.exists():
        rng = np.random.default_rng(0)
        centers = unit(rng.standard_normal((max(1, count // PASSAGES_A_CLUSTER), width), dtype=np.float32))
        part = path.with_suffix(".part")
        file = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=(count, width))
        for start in range(0, count, VECTORS_A_STEP):
            size = min(VECTORS_A_STEP, count - start)
            noise = rng.standard_normal((size, width), dtype=np.float32) / np.sqrt(np.float32(width))
            file[start : start + size] = unit(centers[rng.integers(0, len(centers), size)] + 0.8 * noise)
        file.flush()
        part.rename(path)
    corpus = np.load(path, mmap_mode="r")
    rng = np.random.default_rng(1)
    near = corpus[np.sort(rng.integers(0, count, n_queries))]
    return corpus, unit(near + 0.7 * rng.standard_normal(near.shape, dtype=np.float32) / np.sqrt(np.float32(width)))


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Source:
    """Vectors for a searcher."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.shape = rows, rows.shape

    def slice(self, start: int, stop: int) -> Any:
        return np.array(self.rows[start:stop])

    def gather(self, ids: Any) -> Any:
        return self.rows[ids]


# ---- ways to search --------------------------------------------------------------------------------------------------


def by_us(corpus: Any, queries: Any, first_pass: Any) -> None:
    """`VectorSearcher`, from opening the corpus to the rankings, slice by slice as in a fit."""
    from hf_negmine.pool.parts import slices
    from hf_negmine.search import Exclusions, VectorSearcher
    from hf_negmine.search.ranking import merged

    found: dict[int, Any] = {}
    for first, last in slices(len(corpus)):
        some, nothing = Source(corpus[first:last]), Exclusions.none(len(queries))
        searcher = VectorSearcher(Source(queries), some, nothing, first_pass=first_pass)
        for start in range(0, len(queries), searcher.block_size):
            ids = np.arange(start, min(start + searcher.block_size, len(queries)))
            no_ceiling = np.full(len(ids), np.inf, dtype=np.float32)
            ranking = searcher.block(ids).best(np.arange(len(ids)), no_ceiling, DEPTH)
            ranking = replace(ranking, passages=ranking.passages + np.int32(first))
            found[start] = merged(found[start], ranking, DEPTH) if start in found else ranking


def by_faiss(corpus: Any, queries: Any, _: Any) -> None:
    """An exact FAISS search; float32 scores, whose last digits depend on the block."""
    import faiss

    faiss.knn(queries, corpus, DEPTH, metric=faiss.METRIC_INNER_PRODUCT)


def by_torch(corpus: Any, queries: Any, _: Any, *, pick: bool = True) -> None:
    """Block by block; with ``pick``, the best of each block, as `sentence_transformers.util.semantic_search` does."""
    import torch

    given, buffer = torch.from_numpy(queries), torch.empty(QUERIES_A_BLOCK * PASSAGES_A_BLOCK)
    for first in range(0, len(corpus), PASSAGES_A_BLOCK):
        passages = torch.from_numpy(np.array(corpus[first : first + PASSAGES_A_BLOCK]))
        for start in range(0, len(queries), QUERIES_A_BLOCK):
            some = given[start : start + QUERIES_A_BLOCK]
            out = buffer[: len(some) * len(passages)].view(len(some), len(passages))
            torch.mm(some, passages.T, out=out)
            if pick:
                out.topk(min(DEPTH, len(passages)), dim=1)


def bare_product(corpus: Any, queries: Any, _: Any) -> None:
    by_torch(corpus, queries, _, pick=False)


PRODUCT = "torch's float32 product"
LABELS = {"torch": "torch in blocks, with topk", "faiss": "FAISS flat"}
WAYS: dict[str, Callable[[Any, Any, Any], None]] = {"torch": by_torch, "faiss": by_faiss, "hf_negmine": by_us}


def draw(measured: dict[str, dict[int, float]], n_queries: int, path: Path) -> None:
    """Seconds against passages, on logarithmic axes, in which linear growth is a line of slope 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, times in measured.items():
        axes.plot(list(times), list(times.values()), marker="o", label=LABELS.get(name, name))
    axes.set(xscale="log", yscale="log", xlabel="passages", ylabel=f"seconds for {n_queries:,} queries")
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
