"""Which negatives change if only the number format, the batch, the threads or the processor changes.

Every line is its own process, which encodes and mines the same rows. In vaswani one judged positive per query is the
label and the others are hidden, so that false negatives can be counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from common import machine, parser, prepare, print_table, teacher_folder
from false_negatives import open_judged

from hf_negmine import DenseTeacher, NegativeMiner
from hf_negmine.data.sources import open_rows

NEGATIVES = 4
OLD_PROCESSOR = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
}
BASE = "float32, batches of 32"
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "rows and corpus in reverse": {"reverse": True},
    "batches of 8": {"batch_size": 8},
    "one thread": {"threads": 1},
    "another instruction set": {"environment": OLD_PROCESSOR},
    "float32, precision 'medium'": {"precision": "medium"},
    "bfloat16, batches of 32": {"dtype": "bfloat16"},
    "bfloat16, batches of 8": {"dtype": "bfloat16", "batch_size": 8},
}


class Timed(DenseTeacher):
    """Counts the texts it encodes, and the processor seconds it takes, which a busy machine hardly changes."""

    texts, seconds = 0, 0.0

    def encode(self, texts: Any, role: Any) -> Any:
        self.model  # noqa: B018 - loading does not count
        started = time.process_time()
        vectors = super().encode(texts, role)
        self.texts += len(texts)
        self.seconds += time.process_time() - started
        return vectors


def open_data(name: str, arguments: argparse.Namespace) -> tuple[list[dict[str, str]], list[str], dict[str, set[str]]]:
    """Rows, the passages to search, and the hidden positives of each query."""
    if name == "vaswani":
        judged = open_judged(arguments.data / name, ("test",))
        rows, corpus = list(judged.rows)[: arguments.rows], judged.corpus.to_pylist()
        hidden = {row["query"]: judged.hidden[row["query"]] for row in rows}
    else:
        opened = open_rows(arguments.data / name, split="train")
        assert opened.corpus is not None
        rows, corpus, hidden = list(opened.rows)[: arguments.rows], opened.corpus.to_pylist(), {}
        corpus = [text[: arguments.characters] for text in corpus]
        rows = [{**row, "positive": row["positive"][: arguments.characters]} for row in rows]
    rows = [{"query": row["query"], "positive": row["positive"]} for row in rows]
    first = [row["positive"] for row in rows] + [text for texts in hidden.values() for text in sorted(texts)]
    return rows, list(dict.fromkeys([*first, *corpus]))[: max(arguments.passages, len(set(first)))], hidden


def mine(name: str, variant: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Negatives and positive score by query, and the texts per second."""
    # "medium" allows torch to round what goes into a float32 product to bfloat16, but not what comes out.
    torch.set_float32_matmul_precision(variant.get("precision", "highest"))
    rows, corpus, hidden = open_data(name, arguments)
    if variant.get("reverse"):
        rows, corpus = rows[::-1], corpus[::-1]
    teacher = Timed(
        teacher_folder(arguments), dtype=variant.get("dtype"), batch_size=variant.get("batch_size", 32), device="cpu"
    )
    with tempfile.TemporaryDirectory() as cache:
        miner = NegativeMiner(
            teacher, corpus=corpus, num_negatives=NEGATIVES, include_scores=True, cache_dir=cache, device="cpu",
            on_exhausted="keep", progress=False,
        )  # fmt: skip
        mined = miner.mine(rows)
    columns = [f"negative_{place + 1}" for place in range(NEGATIVES)]
    negatives = {f"{row['query']}\n{row['positive']}": [row[name] for name in columns if row[name]] for row in mined}
    false = [text in hidden.get(key.split("\n")[0], ()) for key, texts in negatives.items() for text in texts]
    return {
        "negatives": negatives,
        "scores": {f"{row['query']}\n{row['positive']}": row["scores"][0] for row in mined},
        "false": float(np.mean(false)),
        "pace": teacher.texts / teacher.seconds,
        "passages": len(corpus),
    }


def in_a_process(name: str, variant: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run `mine` in a new process, where the threads and the instruction set can still be chosen."""
    threads = str(variant.get("threads", arguments.threads or os.cpu_count()))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, **variant.get("environment", {})}
    command = [sys.executable, __file__, "--one", name, json.dumps(variant), "--data", str(arguments.data)]
    for option in ("rows", "passages", "characters"):
        command += [f"--{option}", str(getattr(arguments, option))]
    command += ["--teacher", arguments.teacher] if arguments.teacher else []
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}, {variant}: {result['pace']:.0f} texts/s", file=sys.stderr)
    return result


def compare(name: str, arguments: argparse.Namespace) -> None:
    results: dict[str, dict[str, Any]] = {}
    lines = []
    for label, variant in VARIANTS.items():
        results[label] = found = in_a_process(name, variant, arguments)
        base = results[BASE]
        rows = base["negatives"]
        other = [len(set(rows[key]) - set(found["negatives"][key])) for key in rows]
        moved = max(abs(base["scores"][key] - found["scores"][key]) for key in rows)
        lines.append(
            [
                label,
                f"{np.count_nonzero(other):,}",
                f"{sum(other):,}",
                f"{moved:.1e}" if moved else "0",
                f"{100 * found['false']:.1f} %" if name == "vaswani" else "-",
                f"{found['pace']:.0f}",
            ]
        )
    total = sum(map(len, rows.values()))
    print(f"### {name}: {len(rows):,} rows, {total:,} negatives from {base['passages']:,} passages\n")
    headers = ["", "rows changed", "negatives changed", "positive scores moved by", "hidden positives", "texts/CPU s"]
    print_table(headers, lines)


def main() -> None:
    assert __doc__
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=200, help="rows of each data set")
    arguments.add_argument("--characters", type=int, default=200, help="length to which scifact's passages are cut")
    arguments.add_argument("--data-sets", nargs="+", choices=("scifact", "vaswani"), default=["scifact", "vaswani"])
    arguments.add_argument("--passages", type=int, default=1000, help="passages to search, besides all labeled ones")
    arguments.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    prepare(given)
    if given.one is not None:
        print(json.dumps(mine(given.one[0], json.loads(given.one[1]), given)))
        return
    print(f"{machine()}\n")
    for name in given.data_sets:
        compare(name, given)


if __name__ == "__main__":
    main()
