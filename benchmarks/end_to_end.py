"""From texts to mined rows with nothing stored: hf_negmine and Sentence Transformers' `mine_hard_negatives`.

Questions of SQuAD, drawn at random, in a corpus of as many of its paragraphs as asked for. Both encode, search and
write with the same model and the same ceiling, in turns. The negatives of the rows that both wrote are compared.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import torch
from common import Clock, machine, median, parser, prepare, print_table, spread, teacher_folder

NEGATIVES = 4


def draw(arguments: argparse.Namespace) -> tuple[datasets.Dataset, list[str]]:
    """Rows of (query, positive), and a corpus that holds all positives."""
    folder = arguments.data / "squad"
    random = np.random.default_rng(0)
    corpus, queries, qrels = (pq.read_table(folder / f"{name}.parquet") for name in ("corpus", "queries", "qrels"))
    paragraphs = corpus.take(random.permutation(len(corpus))[: arguments.passages])
    text_of = dict(zip(paragraphs["id"].to_pylist(), paragraphs["text"].to_pylist(), strict=True))
    question_of = dict(zip(queries["id"].to_pylist(), queries["text"].to_pylist(), strict=True))
    pairs = zip(qrels["query_id"].to_pylist(), qrels["corpus_id"].to_pylist(), strict=True)
    rows = [(question_of[query], text_of[passage]) for query, passage in pairs if passage in text_of]
    chosen = [rows[place] for place in random.permutation(len(rows))[: arguments.queries]]
    return datasets.Dataset.from_dict({"query": [q for q, _ in chosen], "positive": [p for _, p in chosen]}), list(
        dict.fromkeys(text_of.values())
    )


def ours(rows: datasets.Dataset, corpus: list[str], model: Any, cache: str) -> datasets.Dataset:
    """`NegativeMiner.mine`, which stores everything in an empty cache."""
    from hf_negmine import DenseTeacher, NegativeMiner

    teacher = DenseTeacher(model, name="all-MiniLM-L6-v2")
    miner = NegativeMiner(teacher, method="perc_pos:0.95", num_negatives=NEGATIVES, cache_dir=cache, progress=False)
    return miner.mine(rows, corpus=corpus)


def theirs(rows: datasets.Dataset, corpus: list[str], model: Any, cache: str) -> datasets.Dataset:
    """`mine_hard_negatives`, which stores nothing."""
    from sentence_transformers.util import mine_hard_negatives

    mined: datasets.Dataset = mine_hard_negatives(
        rows,
        model,
        corpus=corpus,
        anchor_column_name="query",
        positive_column_name="positive",
        relative_margin=0.05,
        num_negatives=NEGATIVES,
        output_format="n-tuple",
        verbose=False,
    )
    return mined


def same(one: datasets.Dataset, other: datasets.Dataset) -> tuple[int, int]:
    """Of the rows in both, how many negatives there are, and how many are the same."""
    columns = [f"negative_{place}" for place in range(1, NEGATIVES + 1)]
    by_row = [
        {(row["query"], row["positive"]): [row[name] for name in columns] for row in mined} for mined in (one, other)
    ]
    both = by_row[0].keys() & by_row[1].keys()
    return NEGATIVES * len(both), sum(len({*by_row[0][row]} & {*by_row[1][row]}) for row in both)


def main() -> None:
    from sentence_transformers import SentenceTransformer

    assert __doc__
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--queries", type=int, default=16_384, help="questions, each with a paragraph")
    options.add_argument("--passages", type=int, default=4096, help="paragraphs to search")
    arguments = options.parse_args()
    prepare(arguments)
    rows, corpus = draw(arguments)
    model = SentenceTransformer(
        teacher_folder(arguments), device="cpu", model_kwargs={"dtype": getattr(torch, arguments.dtype)}
    )
    print(f"{machine()}; {arguments.dtype}, {arguments.repeats} repeats\n", flush=True)
    runs: dict[str, list[dict[str, float]]] = {"hf_negmine": [], "mine_hard_negatives": []}
    mined: dict[str, datasets.Dataset] = {}
    for _ in range(arguments.repeats):
        for name, mine in zip(runs, (ours, theirs), strict=True):
            with tempfile.TemporaryDirectory() as cache:
                clock = Clock()
                mined[name] = mine(rows, corpus, model, str(Path(cache)))
                runs[name].append(clock.read())
                mined[name] = datasets.Dataset.from_dict(mined[name].to_dict())
    header = [f"{len(rows):,} questions, {len(corpus):,} paragraphs", "seconds", "range", "CPU seconds", "rows written"]
    times = {name: [run["seconds"] for run in some] for name, some in runs.items()}
    cpu = {name: median([run["cpu"] for run in some]) for name, some in runs.items()}
    print_table(
        header,
        [
            [name, f"{median(each):.1f}", spread(each), f"{cpu[name]:.1f}", f"{len(mined[name]):,}"]
            for name, each in times.items()
        ],
    )
    faster = median(times["mine_hard_negatives"]) / median(times["hf_negmine"])
    print(f"{faster:.2f} times as fast, by CPU seconds {cpu['mine_hard_negatives'] / cpu['hf_negmine']:.2f} times.")
    total, equal = same(*mined.values())
    print(f"Of {total:,} negatives in rows that both wrote, {equal / total:.3%} are the same.")


if __name__ == "__main__":
    main()
