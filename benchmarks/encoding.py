"""What encoding costs: hf_negmine's dense teacher and `SentenceTransformer.encode` with its defaults.

Texts of SQuAD, drawn at random. The two alternate in one process, and encode the same texts with the same model, on a
GPU if there is one.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common import Clock, machine, median, parser, prepare, print_table, teacher_folder

from hf_negmine import DenseTeacher

ROLES = {"passage": "corpus", "query": "queries"}


def draw_texts(arguments: argparse.Namespace, role: str) -> list[str]:
    """As many different texts of a role as are asked for, always the same."""
    table = pq.read_table(arguments.data / "squad" / f"{ROLES[role]}.parquet", columns=["text"])
    chosen = np.random.default_rng(0).permutation(len(table))[: arguments.texts]
    texts: list[str] = table["text"].take(chosen).to_pylist()
    return texts


def compare(role: Any, dtype: Any, arguments: argparse.Namespace) -> list[str]:
    """One row of the table."""
    teacher = DenseTeacher(teacher_folder(arguments), dtype=dtype, device=arguments.device)
    texts, model = draw_texts(arguments, role), teacher.model
    peer = model.encode_query if role == "query" else model.encode_document
    encoders: dict[str, Any] = {
        "ours": lambda some: teacher.encode(some, role),
        "theirs": lambda some: peer(some, show_progress_bar=False),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in encoders}
    vectors: dict[str, Any] = {}
    for encode in encoders.values():
        encode(texts[:8])  # a first pass is slower
    for _ in range(arguments.repeats):
        for name, encode in encoders.items():
            clock = Clock()
            vectors[name] = encode(texts).astype(np.float64)
            runs[name].append(clock.read())
    clock = Clock()
    teacher.count_tokens(texts, role)
    counting = clock.read()["cpu"] / median([run["cpu"] for run in runs["ours"]])
    ours, theirs = (vectors[name] / np.linalg.norm(vectors[name], axis=1, keepdims=True) for name in encoders)
    pace = {name: len(texts) / median([run["seconds"] for run in some]) for name, some in runs.items()}
    by_clock, by_processor = (
        [their[unit] / our[unit] for our, their in zip(runs["ours"], runs["theirs"], strict=True)]
        for unit in ("seconds", "cpu")
    )
    return [
        f"{len(texts):,} {role} texts, {dtype}",
        f"{pace['theirs']:.1f}",
        f"{pace['ours']:.1f}",
        f"{median(by_clock):.2f} ({min(by_clock):.2f} to {max(by_clock):.2f})",
        f"{median(by_processor):.2f}",
        f"{100 * counting:.1f} %",
        f"{1 - (ours * theirs).sum(axis=1).min():.0e}",
    ]


def main() -> None:
    from hf_negmine.base.devices import best_device

    assert __doc__
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--texts", type=int, default=2048, help="texts of each role; 2048 are encoded at a time")
    options.add_argument("--device", default=best_device(), help="where to encode")
    options.add_argument("--roles", nargs="+", choices=tuple(ROLES), default=list(ROLES))
    arguments = options.parse_args()
    prepare(arguments)
    print(f"{machine()}; on {arguments.device}; {arguments.repeats} repeats\n", flush=True)
    headers = ["", "theirs, texts/s", "ours, texts/s", "times as fast", "by CPU seconds"]
    headers += ["counting tokens", "1 - smallest cosine"]
    print_table(headers, [compare(role, arguments.dtype, arguments) for role in arguments.roles])


if __name__ == "__main__":
    main()
