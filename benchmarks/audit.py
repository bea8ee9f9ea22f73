"""How many of the false negatives in a set an audit finds, and how many of what it finds are false.

Two data sets have many judged positives per query. One of them is the label, the others are hidden. Negatives are mined
naively, as the best-ranked passages, and then audited: a hidden positive among them is certainly a false negative.
Doubtful ones are replaced; "as mined" is the share of rows that get the negatives of mining afresh with these settings.
"""

from __future__ import annotations

import argparse
from typing import Any

import datasets
import numpy as np
from common import dense_teacher, machine, parser, prepare, print_table
from false_negatives import SPLITS, open_judged

from hf_negmine import NegativeMiner, Veto, audit

NEGATIVES = 4
PERCENTAGES = (0.8, 0.85, 0.9, 0.95, 1.0)


def main() -> None:
    arguments = parser(__doc__ or "").parse_args()
    arguments.cache = prepare(arguments)
    print(machine(), end="\n\n")
    rows = [line for name in SPLITS for line in of_one(name, arguments)]
    heads = [
        "data",
        "audited with",
        "false",
        "called doubtful",
        "precision",
        "recall",
        "false after repair",
        "as mined",
    ]
    print_table(heads, rows)


def of_one(name: str, arguments: argparse.Namespace) -> list[list[str]]:
    """The lines of one data set."""
    judged = open_judged(arguments.data / name, SPLITS[name])
    settings: dict[str, Any] = {"corpus": judged.corpus, "cache_dir": arguments.cache, "progress": False}
    miner = NegativeMiner(dense_teacher(arguments), method="naive", num_negatives=NEGATIVES, **settings)
    mined = miner.mine(judged.rows)
    ways: dict[str, dict[str, Any]] = {
        f"perc_pos:{value:g}": {"method": f"perc_pos:{value:g}"} for value in PERCENTAGES
    }
    for value in (0.8, 0.95):
        ways[f"veto of BM25 at {value:g}"] = {"filters": [Veto("bm25", f"perc_pos:{value:g}")]}
    ways["perc_pos:0.95 and the veto at 0.95"] = {"method": "perc_pos:0.95", "filters": [Veto("bm25", "perc_pos:0.95")]}
    lines = []
    for way, changes in ways.items():
        done = audit(mined, miner.with_(**changes))
        table = done.to_dataset()
        false = np.array([row["negative"] in judged.hidden[row["query"]] for row in table])
        both = (false & done.doubtful).sum()
        repaired = negatives_of(done.repair().rows)
        afresh = negatives_of(miner.with_(**changes, on_exhausted="keep").mine(judged.rows))
        left = [text in judged.hidden[query] for query, texts in repaired.items() for text in texts]
        same = [texts == afresh[query] for query, texts in repaired.items()]
        lines.append(
            [
                name,
                way,
                f"{100 * false.mean():.1f} %",
                f"{100 * done.share:.1f} %",
                f"{100 * both / max(1, done.doubtful.sum()):.1f} %",
                f"{100 * both / false.sum():.1f} %",
                f"{100 * np.mean(left):.1f} %",
                f"{100 * np.mean(same):.1f} %",
            ]
        )
    return lines


def negatives_of(rows: datasets.Dataset) -> dict[str, set[str]]:
    """The negatives of each query."""
    names = [name for name in rows.column_names if name.startswith("negative_")]
    return {row["query"]: {row[name] for name in names if row[name]} for row in rows}


if __name__ == "__main__":
    main()
