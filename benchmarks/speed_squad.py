"""What mining costs once the vectors exist: hf_negmine, sentence-transformers, and the bare matrix product.

SQuAD's training questions against its paragraphs, 4 negatives per row by TopK-PercPos (95 %), on the CPU. Every run has
its own process, so that its memory is its own; they alternate. Where bfloat16 is fast, the search runs in both formats.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import (
    AnonymousPeak,
    Clock,
    Stopwatch,
    dense_teacher,
    forget,
    machine,
    median,
    memory,
    open_squad,
    parser,
    prepare,
    print_table,
    spread,
    store_squad,
    teacher_folder,
)

from hf_negmine.base.devices import has_fast_bfloat16

PRODUCT, PEER = "product", "peer"
NEGATIVES = 4
QUERIES_A_BLOCK = 1024
TEXTS, FINGERPRINT = "read and number the texts", "fingerprint the teacher"
OPEN, SEARCH = "open the stored vectors", "search"
STORE, SELECT = "write the pool", "select"
DEEPEN, WRITE, OTHER = "deepen the pool", "write the rows", "everything else"
PARTS = (TEXTS, FINGERPRINT, OPEN, SEARCH, STORE, DEEPEN, SELECT, WRITE, OTHER)


def peer_folder(cache: Path) -> Path:
    """The folder of the vectors in sentence-transformers' own layout."""
    return cache / "sentence_transformers"


# ---- one run, in its own process -------------------------------------------------------------------------------------


def run_product(cache: Path) -> dict[str, Any]:
    """The float32 product of all queries with all passages, a block of queries at a time, into one buffer.

    By torch, which Sentence Transformers uses, and by numpy, which may use another library.
    """
    import numpy as np
    import torch

    queries, passages = (
        torch.from_numpy(np.load(next(peer_folder(cache).glob(f"{name}_embeddings_*.npy"))))
        for name in ("query", "corpus")
    )
    buffer = torch.empty(QUERIES_A_BLOCK, len(passages))
    torch.mm(queries[:QUERIES_A_BLOCK], passages.T, out=buffer)
    blocks = [queries[start : start + QUERIES_A_BLOCK] for start in range(0, len(queries), QUERIES_A_BLOCK)]
    clock = Clock()
    for block in blocks:
        torch.mm(block, passages.T, out=buffer[: len(block)])
    by_torch = clock.read()
    clock = Clock()
    for block in blocks:
        np.matmul(block.numpy(), passages.numpy().T, out=buffer[: len(block)].numpy())
    return {**by_torch, "by_numpy": clock.read(), "queries": len(queries), "passages": len(passages)}


def run_ours(arguments: argparse.Namespace, cache: Path, first_pass: str) -> dict[str, Any]:
    """`NegativeMiner.fit` and `mine` with stored vectors and nothing else stored."""
    import sentence_transformers  # noqa: F401 - part of the idle memory on both sides

    import hf_negmine.miner
    import hf_negmine.pool.builder
    import hf_negmine.pool.deepening
    import hf_negmine.pool.rankings
    import hf_negmine.pool.retrieving
    import hf_negmine.steps
    from hf_negmine import NegativeMiner, TopKPercPos
    from hf_negmine.teachers import DenseTeacher

    idle = _idle()
    given = open_squad(arguments)
    teacher = dense_teacher(arguments)
    _ = teacher.model
    forget(cache, "pools", "fits", "mined")
    loaded = _idle()
    watch = Stopwatch()
    functions = [
        (hf_negmine.steps, "build_text_set", TEXTS),
        (DenseTeacher, "fingerprint", FINGERPRINT),
        (hf_negmine.pool.builder.PoolBuilder, "searcher", OPEN),
        (hf_negmine.pool.deepening, "search_queries", SEARCH),
        (hf_negmine.pool.rankings, "deepen", DEEPEN),
        (hf_negmine.pool.builder, "retrieve", STORE),
        (hf_negmine.pool.CandidatePool, "save", STORE),
        (hf_negmine.pool.CandidatePool, "select", SELECT),
        (NegativeMiner, "mine", WRITE),
    ]
    with AnonymousPeak() as anonymous:
        clock = Clock()
        with watch.watching(functions), watch.part(OTHER):
            miner = NegativeMiner(
                teacher,
                method=TopKPercPos(0.95),
                num_negatives=NEGATIVES,
                cache_dir=cache,
                device="cpu",
                first_pass=first_pass,  # type: ignore[arg-type]
                query_column="query",
                positive_column="positive",
                progress=False,
            )
            miner.fit(given.rows, corpus=given.corpus)
            mined = miner.mine(given.rows)
        taken = clock.read()
    return {
        **taken,
        "rows": len(mined),
        "parts": dict(watch.seconds),
        **_memory(idle, loaded, anonymous.peak),
    }


def run_peer(arguments: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """`sentence_transformers.util.mine_hard_negatives` with the same vectors in its own cache folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    import hf_negmine.miner  # noqa: F401 - part of the idle memory on both sides

    idle = _idle()
    given = open_squad(arguments)
    corpus = given.corpus.to_pylist()
    model_options = {"dtype": getattr(torch, arguments.dtype)}
    model = SentenceTransformer(teacher_folder(arguments), device="cpu", model_kwargs=model_options)
    model.encode_query = model.encode_document = _refuse  # type: ignore[method-assign,assignment]
    loaded = _idle()
    with AnonymousPeak() as anonymous:
        clock = Clock()
        mined = mine_hard_negatives(
            given.rows,
            model,
            anchor_column_name="query",
            positive_column_name="positive",
            corpus=corpus,
            relative_margin=0.05,
            num_negatives=NEGATIVES,
            output_format="n-tuple",
            cache_folder=str(peer_folder(cache)),
            verbose=False,
        )
        taken = clock.read()
    return {**taken, "rows": len(mined), **_memory(idle, loaded, anonymous.peak)}


def _refuse(*_: Any, **__: Any) -> None:
    raise RuntimeError("sentence-transformers did not find the stored vectors: its cache key has changed")


def _idle() -> dict[str, float]:
    return {"all": memory("VmRSS"), "anonymous": memory("RssAnon")}


def _memory(idle: dict[str, float], loaded: dict[str, float], anonymous_peak: float) -> dict[str, float]:
    return {
        "idle": idle["all"],
        "input": loaded["anonymous"] - idle["anonymous"],
        "peak": memory("VmHWM") - idle["all"],
        "anonymous": anonymous_peak - idle["anonymous"],
    }


# ---- all runs --------------------------------------------------------------------------------------------------------


def store_peer(arguments: argparse.Namespace, cache: Path, texts: Any) -> None:
    """Store the vectors in sentence-transformers' cache layout, with keys as in its util/hard_negatives.py."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from hf_negmine.teachers.vector_store import VectorStore

    folder = peer_folder(cache)
    forget(cache, folder.name)
    folder.mkdir()
    teacher = dense_teacher(arguments)
    model_name = SentenceTransformer(teacher_folder(arguments), device="cpu").model_card_data.base_model or ""
    for name, role, column in (("query", "query", texts.queries), ("corpus", "passage", texts.corpus)):
        key = repr((model_name, None, None, column.texts.to_pylist())).encode()
        vectors = VectorStore(cache).vectors(teacher, column, role)  # type: ignore[arg-type]
        path = folder / f"{name}_embeddings_{hashlib.sha256(key, usedforsecurity=False).hexdigest()}.npy"
        np.save(path, vectors.slice(0, len(column)))


def in_child(kind: str, arguments: argparse.Namespace, cache: Path) -> dict[str, Any]:
    """One run of a kind in its own process."""
    command = [sys.executable, __file__, "--run", kind, "--data", str(arguments.data), "--cache", str(cache)]
    command += ["--dtype", arguments.dtype]
    for option in ("teacher", "threads"):
        if getattr(arguments, option):
            command += [f"--{option}", str(getattr(arguments, option))]
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def report(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the three tables; the parts are those of the first kind of search."""
    product, peer = results[PRODUCT], results[PEER]
    ours = {name: runs for name, runs in results.items() if name not in (PRODUCT, PEER)}
    base = median([run["seconds"] for run in product])
    size = f"{product[0]['queries']:,} x {product[0]['passages']:,}"
    by_numpy = [run["by_numpy"] for run in product]
    rows = [
        _row(f"float32 product, {size}", [run["seconds"] for run in product], base, product),
        _row("the same by numpy", [run["seconds"] for run in by_numpy], base, by_numpy),
    ]
    for name, runs in ours.items():
        alone = [run["seconds"] - run["parts"][TEXTS] - run["parts"][FINGERPRINT] for run in runs]
        rows += [
            _row(f"hf_negmine in {name}, fit and mine", [run["seconds"] for run in runs], base, runs),
            _row(f"hf_negmine in {name}, search, select and write alone", alone, base),
        ]
    rows.append(_row("sentence-transformers mine_hard_negatives", [run["seconds"] for run in peer], base, peer))
    print_table(["median", "seconds", "range", "products", "CPU seconds", "rows written"], rows)
    name, runs = next(iter(ours.items()))
    total = median([run["seconds"] for run in runs])
    parts = [(part, median([run["parts"].get(part, 0.0) for run in runs])) for part in PARTS]
    print_table(
        [f"part of hf_negmine in {name}, median", "seconds", "share"],
        [[part, f"{seconds:.2f}", f"{100 * seconds / total:.0f} %"] for part, seconds in parts],
    )
    kinds = {**{f"hf_negmine in {name}": runs for name, runs in ours.items()}, "sentence-transformers": peer}
    names = ("idle", "input", "peak", "anonymous")
    print_table(
        ["MiB, median", "idle process", "rows and model", "peak over idle", "peak over idle, anonymous"],
        [[kind, *(f"{median([run[name] for run in runs]):,.0f}" for name in names)] for kind, runs in kinds.items()],
    )


def _row(name: str, seconds: list[float], base: float, runs: list[dict[str, Any]] | None = None) -> list[str]:
    written = f"{runs[0]['rows']:,}" if runs and "rows" in runs[0] else ""
    processor = f"{median([run['cpu'] for run in runs]):.1f}" if runs else ""
    return [name, f"{median(seconds):.1f}", spread(seconds), f"{median(seconds) / base:.2f}", processor, written]


def main() -> None:
    assert __doc__
    options = parser(__doc__.splitlines()[0])
    options.add_argument(
        "--vectors", type=Path, default=None, help="folder of queries.npy and corpus.npy, rows as in the Parquet files"
    )
    options.add_argument("--run", default=None, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    cache = prepare(arguments)
    if arguments.run is not None:
        runs = {PRODUCT: lambda: run_product(cache), PEER: lambda: run_peer(arguments, cache)}
        print(json.dumps(runs.get(arguments.run, lambda: run_ours(arguments, cache, arguments.run))()))
        return
    store_peer(arguments, cache, store_squad(arguments, cache))
    print(f"{machine()}; {arguments.repeats} repeats\n", flush=True)
    formats = ("bfloat16", "float32") if has_fast_bfloat16() else ("float32",)
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in (PRODUCT, *formats, PEER)}
    for _ in range(arguments.repeats):
        for kind, found in results.items():
            found.append(in_child(kind, arguments, cache))
    report(results)


if __name__ == "__main__":
    main()
