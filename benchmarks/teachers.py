"""What teachers mine alone and together, and what a judge adds: how many false negatives, and how hard they are.

As in ``false_negatives.py`` one judged positive per query is the label and the others are hidden: a mined negative that
is one of the hidden ones is certainly a false negative. All means are on MiniLM's scale, whoever mined. The hidden
labels play the judge.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import dense_teacher, for_each_set, print_table
from false_negatives import SPLITS, HiddenPositives, Judged, open_judged, pair_scores

import hf_negmine.select.judge
from hf_negmine import BM25Teacher, NegativeMiner, RandomTeacher
from hf_negmine.report.summary import agreement_table
from hf_negmine.select.ensembles import CrossSample, IntraSample
from hf_negmine.select.filters import Consistency, Veto
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.teachers import Fusion

NEGATIVES = 4
SEEDS = 5
PERC_POS = "perc_pos:0.95"
BUDGETS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Numbers of verdicts, as shares of the mined negatives."""
FIRST = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    label: str
    teacher: Any
    method: str
    filters: Sequence[Any] = ()
    seeds: int = 1


@dataclass(frozen=True)
class Bench:
    """A data set with hidden positives, and the measurements of mined negatives."""

    judged: Judged
    minilm: Any
    cache: Path
    tables: dict[str, list[str]] = field(default_factory=dict)

    def mine(self, setting: Setting, seed: int) -> tuple[NegativeMiner, Any, Any]:
        """The miner, and the query and passage of each of its negatives."""
        miner = NegativeMiner(
            setting.teacher,
            method=setting.method,
            filters=setting.filters,
            num_negatives=NEGATIVES,
            corpus=self.judged.corpus,
            on_exhausted="keep",
            cache_dir=self.cache,
            device="cpu",
            seed=seed,
            progress=False,
        ).fit(self.judged.rows)
        fitted = miner.fitted
        queries = np.repeat(np.arange(len(fitted.offsets) - 1), np.diff(fitted.offsets))
        return miner, queries, np.asarray(fitted.passages)

    def row(self, setting: Setting) -> list[str]:
        """One row of the table; random draws are averaged over several seeds."""
        shares, scores, complete, used = [], [], [], []
        for seed in range(setting.seeds):
            miner, queries, passages = self.mine(setting, seed)
            texts, summary = miner.fitted.texts, miner.summary
            hidden = HiddenPositives(self.judged, texts)
            if miner.fitted.consistent is not None:  # leave out the queries of dropped rows
                kept = np.asarray(miner.fitted.consistent)[queries]
                queries, passages = queries[kept], passages[kept]
            used.append(len(np.unique(queries)) / len(texts.queries))
            complete.append(summary.complete / len(texts.queries))
            shares.append(hidden.share(queries, passages))
            scores.append(float(pair_scores(self.minilm, texts, self.cache, queries, passages).mean()))
            if summary.agreement is not None:
                self.tables[setting.label] = agreement_table(
                    summary.agreement["teachers"], summary.agreement["jaccard"]
                )
        cells = [f"{100 * np.mean(shares):.1f} %", f"{np.mean(scores):.3f}"]
        return [setting.label, *cells, f"{100 * np.mean(complete):.1f} %", f"{100 * np.mean(used):.1f} %"]


def settings(minilm: Any) -> list[Setting]:
    bm25, random = BM25Teacher(), RandomTeacher()
    both = [minilm, bm25]
    lexical_veto = Veto(bm25, PERC_POS, abstain_at=0.0)
    return [
        Setting("MiniLM, naive", minilm, "naive"),
        Setting("BM25, naive", bm25, "naive"),
        Setting("random, naive", random, "naive"),
        Setting("fusion by ranks, naive", Fusion(both), "naive"),
        Setting("fusion by scores, naive", Fusion(both, "sum"), "naive"),
        Setting("cross-sample, naive", CrossSample(both), "naive", seeds=SEEDS),
        Setting("intra-sample, naive", IntraSample(both), "naive"),
        Setting("MiniLM", minilm, PERC_POS),
        Setting("BM25", bm25, PERC_POS),
        Setting("fusion by ranks", Fusion(both), PERC_POS),
        Setting("fusion by scores", Fusion(both, "sum"), PERC_POS),
        Setting("cross-sample", CrossSample(both), PERC_POS, seeds=SEEDS),
        Setting("intra-sample", IntraSample(both), PERC_POS),
        Setting("intra-sample, dedup", IntraSample(both, dedup=True), PERC_POS),
        Setting("MiniLM, veto by BM25", minilm, PERC_POS, [Veto(bm25, PERC_POS)]),
        Setting("MiniLM, veto by BM25 where it finds the label", minilm, PERC_POS, [lexical_veto]),
        Setting("BM25, veto by MiniLM", bm25, PERC_POS, [Veto(minilm, PERC_POS)]),
        Setting("BM25 naive, veto by MiniLM", bm25, "naive", [Veto(minilm, PERC_POS)]),
        Setting("MiniLM, label in its top 100", minilm, PERC_POS, [Consistency(top_k=100)]),
        Setting("MiniLM, label in its top 20", minilm, PERC_POS, [Consistency(top_k=20)]),
    ]


def answers(queries: Sequence[str], passages: Sequence[str], *, hidden: dict[str, set[str]]) -> list[bool]:
    """The verdict of a person on each pair."""
    return [passage in hidden[query] for query, passage in zip(queries, passages, strict=True)]


def judge_rows(bench: Bench, method: str, name: str) -> list[list[str]]:
    """False negatives left for each number of verdicts, asking about the likeliest first."""
    rows: list[list[str]] = []
    total = 0
    for share in (*BUDGETS, None):
        budget = None if share is None else round(share * total)
        function = functools.partial(answers, hidden=bench.judged.hidden)
        judge = FunctionJudge(function, name=f"labels of {name}", version="1")
        filters = [hf_negmine.select.judge.Judge(judge, budget=budget)] if budget != 0 else []
        miner, queries, passages = bench.mine(Setting("", bench.minilm, method, filters), 0)
        total = total or len(passages)
        hidden = HiddenPositives(bench.judged, miner.fitted.texts)
        left = hidden.share(queries, passages)
        asked = miner.summary.judged or 0
        found = miner.summary.removed.get(f"judge {judge.name}", 0) if asked else 0
        scores = pair_scores(bench.minilm, miner.fitted.texts, bench.cache, queries, passages)
        caught = f"{100 * found / asked:.0f} %" if asked else "-"
        rows.append(
            [
                method,
                f"{asked:,}",
                f"{100 * asked / total:.0f} %",
                caught,
                f"{100 * left:.1f} %",
                f"{scores.mean():.3f}",
            ]
        )
    return rows


def order_rows(bench: Bench, method: str) -> list[list[str]]:
    """The share of false negatives among the likeliest ones, under several meanings of "likely"."""
    miner, queries, passages = bench.mine(Setting("", bench.minilm, method), 0)
    selection = miner.pool.select(method, n=NEGATIVES)
    false = HiddenPositives(bench.judged, miner.fitted.texts).among(queries, passages)
    orders = {
        "the score": selection.scores,
        "the score less the label's": selection.scores - selection.references,
        "the rank among the query's": -np.concatenate([np.arange(count) for count in selection.counts]),
    }
    rows: list[list[str]] = []
    for words, values in orders.items():
        ordered = false[np.argsort(-values, kind="stable")]
        rows.append([method, words, *(f"{100 * ordered[: round(part * len(ordered))].mean():.0f} %" for part in FIRST)])
    return rows


def run(name: str, arguments: argparse.Namespace, cache: Path) -> None:
    judged = open_judged(arguments.data / name, SPLITS[name])
    mean_hidden = np.mean([len(hidden) for hidden in judged.hidden.values()])
    print(
        f"### {name}: {len(judged.rows):,} queries, {len(judged.corpus):,} passages, {mean_hidden:.1f} hidden "
        "positives per query\n"
    )
    minilm = dense_teacher(arguments)
    bench = Bench(judged, minilm, cache)
    headers = ["mined by", "hidden positives", f"mean {minilm.name} score", "queries with 4", "queries with any"]
    print_table(headers, [bench.row(setting) for setting in settings(minilm)])
    for label in ("intra-sample, naive", "intra-sample"):
        print(f"{label}\n\n```\n" + "\n".join(bench.tables[label]) + "\n```\n")
    print("How many of MiniLM's negatives are false among the likeliest ones, by three measures of likelihood:\n")
    headers = ["method", "measure", *(f"first {100 * part:.0f} %" for part in FIRST)]
    print_table(headers, [row for method in ("naive", PERC_POS) for row in order_rows(bench, method)])
    print("A judge, asked about MiniLM's negatives:\n")
    headers = ["method", "verdicts", "share of negatives", "found relevant", "hidden positives left", "mean score"]
    print_table(headers, [row for method in ("naive", PERC_POS) for row in judge_rows(bench, method, name)])


if __name__ == "__main__":
    for_each_set(__doc__, SPLITS, run)
