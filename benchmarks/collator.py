"""What negatives add to a training batch: held by the rows, drawn from a bank, or mined on the fly; and the mask.

Sentence Transformers' collator on the same rows is the yardstick: tokenizing texts is part of every figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
from common import dense_teacher, machine, median, parser, prepare, print_table, spread, teacher_folder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from hf_negmine import HardNegativeCollator, NegativeMiner
from hf_negmine.data.sources import open_beir
from hf_negmine.train.false_negatives import BatchKeys, false_negatives

NEGATIVES = 4
BATCHES = 20


def batches_of(rows: datasets.Dataset, size: int) -> list[list[dict[str, Any]]]:
    """The first batches of rows, as a data loader passes them on."""
    return [[rows[place] for place in range(first, first + size)] for first in range(0, BATCHES * size, size)]


def times(work: Callable[[Any], Any], inputs: Sequence[Any]) -> list[float]:
    """Milliseconds of each call, after one to warm up."""
    work(inputs[0])
    measured = []
    for value in inputs:
        started = time.perf_counter()
        work(value)
        measured.append(1000 * (time.perf_counter() - started))
    return measured


def main() -> None:
    arguments_parser = parser(__doc__ or "")
    arguments_parser.add_argument("--set", default="nfcorpus", help="folder under --data")
    arguments_parser.add_argument("--batch-size", type=int, default=32)
    arguments = arguments_parser.parse_args()
    cache = prepare(arguments)
    opened = open_beir(arguments.data / arguments.set, split="train")
    seen: set[str] = set()
    rows = opened.rows.filter(lambda query: not (query in seen or seen.add(query)), input_columns="query")
    rows = rows.select_columns(["query", "positive"])
    settings: dict[str, Any] = {"num_negatives": NEGATIVES, "sampler": "sampled:10", "cache_dir": cache}
    settings |= {"on_exhausted": "keep", "progress": False, "corpus": opened.corpus}
    model = SentenceTransformer(teacher_folder(arguments), device="cpu")
    miner = NegativeMiner(dense_teacher(arguments), **settings).fit(rows)
    mined = miner.mine(rows)

    plain = SentenceTransformerDataCollator(preprocess_fn=model.preprocess)
    holds = HardNegativeCollator(model)
    bank = HardNegativeCollator(model, miner, labels="keys")
    fly = HardNegativeCollator(model, NegativeMiner(dense_teacher(arguments), **settings))
    for collator in (holds, bank, fly):
        collator.set_epoch(0)
    size = arguments.batch_size
    with_negatives, without = batches_of(mined, size), batches_of(rows, size)

    def mask(batch: dict[str, Any]) -> Any:
        keys = batch["label"].numpy().view(np.uint64)
        return false_negatives(BatchKeys(keys, np.arange(size)), bank.sources.values(), in_batch_negatives=True)

    measured = {
        "Sentence Transformers' collator, rows that hold negatives": times(plain, with_negatives),
        "ours, rows that hold negatives": times(holds, with_negatives),
        "ours, drawn from the bank, redrawn every epoch": times(bank, without),
        "ours, mined on the fly by the teacher": times(fly, without),
        "the loss's mask of false negatives": times(mask, [bank(batch) for batch in without]),
    }
    yardstick = median(measured["Sentence Transformers' collator, rows that hold negatives"])
    print(f"{machine()}\n")
    print(f"{arguments.set}: {len(rows):,} rows, {len(miner.corpus):,} passages; batches of {size}, {NEGATIVES} each\n")
    print_table(
        ["batch", "ms, median", "range", "relative to Sentence Transformers'"],
        [
            [name, f"{median(values):.1f}", spread(values), f"{median(values) / yardstick:.2f}"]
            for name, values in measured.items()
        ],
    )


if __name__ == "__main__":
    main()
