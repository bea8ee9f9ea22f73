"""Does a sweep with judgements recommend a sensible setting? Hidden positives tell the true share of false negatives.

One judged positive per query is kept as the label, the others are hidden. A sweep is told verdicts on a few hundred of
the negatives that it compares, drawn at random (`JUDGED`), and its estimates are held against the truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import dense_teacher, for_each_set, print_table
from false_negatives import SPLITS, Judged, open_judged

from hf_negmine import Judgements, NegativeMiner

JUDGED = (100, 300, 1000)
DRAWS = 10


def sample(miner: NegativeMiner, judged: Judged, size: int, seed: int) -> list[dict[str, Any]]:
    """Verdicts on negatives of three different settings, drawn at random."""
    pool, texts = miner.pool, miner.fitted.texts
    pairs: set[tuple[int, int]] = set()
    for selection in pool.sweep(["naive", "perc_pos:0.95", "perc_pos:0.8"], n=miner.config.num_negatives):
        queries = np.repeat(np.arange(len(selection.counts)), selection.counts)
        pairs |= set(zip(queries.tolist(), selection.passages.tolist(), strict=True))
    listed = sorted(pairs)
    chosen = np.random.default_rng(seed).permutation(len(listed))[:size]
    verdicts = []
    for query, passage in (listed[place] for place in chosen):
        texts_of = texts.queries.texts[query].as_py(), texts.corpus.take(np.array([passage]))[0].as_py()
        relevant = texts_of[1] in judged.hidden[texts_of[0]]
        verdicts.append({"query": texts_of[0], "document": texts_of[1], "relevant": relevant})
    return verdicts


def run(name: str, arguments: argparse.Namespace, cache: Path) -> None:
    judged = open_judged(arguments.data / name, SPLITS[name])
    miner = NegativeMiner(dense_teacher(arguments), cache_dir=cache, device="cpu", on_exhausted="keep")
    miner.fit(judged.rows, corpus=judged.corpus)
    hidden = [
        {"query": query, "document": text, "relevant": True} for query, texts in judged.hidden.items() for text in texts
    ]
    truth = miner.sweep(judgements=Judgements(hidden, complete=True))
    shares = {one.name: one.estimated or 0.0 for one in truth.settings}
    print(f"### {name}, {len(judged.rows):,} queries\n\n{truth}\n")
    rows = []
    for size in JUDGED:
        errors, true, unknown = [], [], 0
        for seed in range(DRAWS):
            table = miner.sweep(judgements=sample(miner, judged, size, seed))
            if table.recommended is None:
                unknown += 1
                continue
            errors.append(np.mean([abs((one.estimated or 0.0) - shares[one.name]) for one in table.settings]))
            true.append(shares[table.recommended.name])
        told = [f"{100 * np.mean(errors):.1f}", f"{100 * max(errors):.1f}"] if errors else ["-", "-"]
        spread = f"{_percent(float(np.median(true)))} ({_percent(min(true))} to {_percent(max(true))})" if true else "-"
        rows.append([f"{size:,}", *told, spread, f"{unknown} of {DRAWS}"])
    print_table(["judged", "error in points", "worst draw", "recommended: truly false", "no estimate"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


if __name__ == "__main__":
    for_each_set(__doc__, SPLITS, run)
