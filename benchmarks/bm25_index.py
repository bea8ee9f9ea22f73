"""What indexing a corpus for BM25 costs: passages per second and peak memory, compared with bm25s called directly.

Every figure comes from its own process. Memory is what the process holds beyond the texts themselves. The last corpus
is made up: words drawn by Zipf's law.
"""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from common import machine, memory, parser, prepare, print_table

SETS = ("squad", "bioasq_snippets")
MADE_UP, WORDS, VOCABULARY = 75_000, (60, 180), 200_000


def made_up_texts() -> pa.LargeStringArray:
    """Passages of 120 words on average, generated part by part."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number:x}" for number in range(VOCABULARY)], dtype=object)
    shares = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    parts = []
    for _ in range(MADE_UP // 5000):
        ends = np.cumsum(rng.integers(*WORDS, 5000))
        drawn = words[np.searchsorted(shares, rng.random(ends[-1]) * shares[-1])]
        parts.append(pa.array([" ".join(part) for part in np.split(drawn, ends[:-1])], pa.large_string()))
    return pa.concat_arrays(parts)


def by_hf_negmine(texts: pa.LargeStringArray) -> Any:
    """The scorer of `BM25Teacher`."""
    from hf_negmine.teachers import BM25Teacher

    return BM25Teacher(progress=False).index(texts)


def by_bm25s(texts: pa.LargeStringArray) -> Any:
    """The scores of bm25s alone."""
    import bm25s
    import Stemmer

    settings = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts.to_pylist(), return_ids=False, **settings), show_progress=False)
    return retriever.scores, retriever.vocab_dict


WAYS: dict[str, Callable[[pa.LargeStringArray], Any]] = {"hf_negmine": by_hf_negmine, "bm25s": by_bm25s}


def measure(name: str, way: str, data: Path) -> dict[str, Any]:
    """Index a corpus in this process."""
    from hf_negmine.data.sources import read_beir_texts

    texts = made_up_texts() if name == "made up" else read_beir_texts(data / name, "corpus")[1].combine_chunks()
    WAYS[way](texts[:100])  # imports
    gc.collect()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    started, used = time.perf_counter(), time.process_time()
    index = WAYS[way](texts)
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    peak = memory("VmHWM") - before
    return {
        "passages": len(texts),
        "seconds": seconds,
        "processor": processor,
        "peak": peak,
        "index": len(pickle.dumps(index)) / 2**20,
    }


def main() -> None:
    arguments_parser = parser(__doc__ or "", repeats=3)
    arguments_parser.add_argument(
        "--one", nargs=2, metavar=("SET", "WAY"), help="measure that in this process, as JSON"
    )
    arguments = arguments_parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.data)))
        return
    prepare(arguments)
    print(machine())
    rows = []
    for name in (*SETS, "made up"):
        for way in WAYS:
            command = [sys.executable, __file__, "--data", str(arguments.data), "--one", name, way]
            runs = [json.loads(subprocess.check_output(command)) for _ in range(arguments.repeats)]
            best = min(runs, key=lambda run: run["processor"])
            rows.append(
                [
                    f"{name}, {best['passages']:,} passages",
                    way,
                    f"{best['passages'] / best['processor']:,.0f}",
                    f"{best['index']:,.0f}",
                    f"{max(run['peak'] for run in runs):,.0f}",
                ]
            )
    print_table(["corpus", "by", "passages per CPU second", "index, MiB", "peak, MiB"], rows)


if __name__ == "__main__":
    main()
