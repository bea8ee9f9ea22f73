"""How far `try_settings` can be trusted: its gains beside those on test queries that took no part.

Training queries keep one label, and the trial holds a tenth of them out. Then the student is trained on all of them and
tested on the set's test queries, with all labels. Printed are the rank correlation of the gains, and the regret: what
the recommended setting, and the default, lose to the setting that is best on the test queries.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np
import torch
from common import dense_teacher, machine, parser, prepare, print_table

from hf_negmine import NegativeMiner, try_settings
from hf_negmine.data.sources import open_rows
from hf_negmine.teachers.probes import one_thread
from hf_negmine.teachers.vector_store import VectorStore
from hf_negmine.trial import CUTOFF, _Rows, normalize

TESTS = {"nfcorpus": "test", "scifact": "test", "qed_nq": "dev", "bioasq_snippets": "test"}
METHODS = ("naive", "shifted:10", "margin_pos:0.05", "perc_pos:0.98", "perc_pos:0.95", "perc_pos:0.9", "perc_pos:0.8")
SAMPLERS = ("top", "sampled:10", "sampled:50")
DEFAULT = "perc_pos:0.95 top"


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--sets", nargs="+", choices=TESTS, default=["nfcorpus", "scifact", "qed_nq"])
    options.add_argument("--seeds", type=int, default=3)
    arguments = options.parse_args()
    arguments.cache = prepare(arguments)
    print(machine(), end="\n\n")
    lines = [of_one(name, arguments) for name in arguments.sets]
    heads = ["data", "recommended", "rank correlation", "best on test", "default", "regret", "regret of the default"]
    print_table(heads, lines)


def of_one(name: str, arguments: argparse.Namespace) -> list[str]:
    """The line of one data set."""
    folder = arguments.data / name
    train, test = open_rows(folder, split="train"), open_rows(folder, split=TESTS[name])
    rng, labels = np.random.default_rng(0), labels_of(train.rows)
    rows = [{"query": query, "positive": str(rng.choice(sorted(texts)))} for query, texts in labels.items()]
    settings: dict[str, Any] = {"corpus": train.corpus, "cache_dir": arguments.cache, "progress": False}
    teacher = dense_teacher(arguments)
    miner = NegativeMiner(teacher, pool_depth=100, **settings).fit(rows)
    tried = try_settings(miner, METHODS, SAMPLERS, seeds=arguments.seeds)
    guessed = {f"{one.method} {one.sampler}": one.gain for one in tried.settings}
    found = on_test(miner, teacher, labels_of(test.rows), arguments.seeds)
    real = {setting: value - found[DEFAULT] for setting, value in found.items()}
    recommended = DEFAULT if tried.best is None else f"{tried.best.method} {tried.best.sampler}"
    ranks = [np.argsort(np.argsort([gains[setting] for setting in guessed])) for gains in (guessed, real)]
    best = max(real, key=lambda setting: real[setting])
    return [
        name,
        recommended,
        f"{np.corrcoef(*ranks)[0, 1]:.2f}",
        f"{best} ({found[best]:.4f})",
        f"{found[DEFAULT]:.4f}",
        f"{real[best] - real[recommended]:.4f}",
        f"{real[best]:.4f}",
    ]


def labels_of(rows: Any) -> dict[str, set[str]]:
    """The positives of each query."""
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row["query"], set()).add(row["positive"])
    return labels


def on_test(miner: NegativeMiner, teacher: Any, labels: dict[str, set[str]], seeds: int) -> dict[str, float]:
    """Mean NDCG@10 on test queries of students that were trained on all rows, by setting."""
    given = _Rows.of(miner.fitted.texts, teacher, VectorStore(miner.config.cache_dir, progress=False))
    given = dataclasses.replace(given, train_ids=np.concatenate([given.train_ids, given.held_out]))
    queries = normalize(torch.from_numpy(np.asarray(teacher.encode(list(labels), "query"), dtype=np.float32)))
    place = {text: at for at, text in enumerate(given.texts.corpus.texts.to_pylist())}
    relevant = [{place[text] for text in texts if text in place} for texts in labels.values()]
    discounts = 1 / np.log2(np.arange(2, CUTOFF + 2))

    def ndcg(matrix: Any) -> float:
        turned = torch.from_numpy(matrix)
        scores = normalize(queries @ turned) @ normalize(given.passages @ turned).T
        values = []
        for best, wanted in zip(scores.topk(CUTOFF).indices.tolist(), relevant, strict=True):
            hits = np.array([one in wanted for one in best])
            values.append((hits * discounts).sum() / discounts[: len(wanted)].sum() if wanted else 0.0)
        return float(np.mean(values))

    selections = miner.pool.sweep(METHODS, SAMPLERS, n=miner.config.num_negatives, seed=miner.config.seed)
    with one_thread():
        return {
            f"{one.method} {one.sampler}": float(np.mean([ndcg(given.train(one, seed)) for seed in range(seeds)]))
            for one in selections
        }


if __name__ == "__main__":
    main()
