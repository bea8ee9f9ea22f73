"""The table of README.md: NDCG@10 after training with each kind of negatives, several seeds each.

    python recipes/quickstart/table.py --data FOLDER --results results.json

Results are kept after every run, and a run that is there is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from quickstart import MAX_SEQ_LENGTH, NEGATIVES, SETTINGS, first_layers, offline_minilm, one_positive_a_query, train

from hf_negmine.train.evaluation import beir_evaluator


def run(
    options: argparse.Namespace, rows: Any, corpus: Any, evaluate: Any, negatives: str, seed: int
) -> dict[str, Any]:
    """Train one student and evaluate it."""
    student = first_layers(options.teacher, options.layers, MAX_SEQ_LENGTH)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        trainer = train(
            student, rows, corpus, options.teacher, negatives, Path(output),
            num_train_epochs=options.epochs, seed=seed, disable_tqdm=True, logging_strategy="no", **SETTINGS,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    refreshes = [entry for entry in trainer.state.log_history if "negatives_seconds" in entry]
    return {
        "ndcg": evaluate(student)[evaluate.primary_metric],
        "seconds": seconds,
        "masked": trainer.loss.false_negatives.share if hasattr(trainer.loss, "false_negatives") else 0.0,
        "refresh_seconds": sum(entry["negatives_seconds"] for entry in refreshes),
        "changed": [entry["negatives_changed"] / entry["negatives_negatives"] for entry in refreshes],
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Means and spread over the seeds, as Markdown."""
    lines = [
        "| negatives | NDCG@10 | standard deviation | seeds | in-batch passages left out | refresh, share of time |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for negatives in NEGATIVES:
        runs = [result for key, result in results.items() if key.startswith(f"{negatives}/")]
        if not runs:
            continue
        scores = [run["ndcg"] for run in runs]
        spread = f"{statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        share = statistics.mean(run["refresh_seconds"] / run["seconds"] for run in runs)
        lines.append(
            f"| {negatives} | {statistics.mean(scores):.4f} | {spread} | {len(scores)} "
            f"| {statistics.mean(run['masked'] for run in runs):.1%} | {f'{share:.0%}' if share else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder")
    parser.add_argument(
        "--results", type=Path, required=True, help="a JSON file; runs that it holds are not done again"
    )
    parser.add_argument("--teacher", default=None, help="a Sentence Transformers model; the offline MiniLM if left out")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.teacher = options.teacher or offline_minilm()

    rows, corpus = one_positive_a_query(options.data)
    evaluate = beir_evaluator(options.data, split="test")
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    if "before" not in results:
        student = first_layers(options.teacher, options.layers, MAX_SEQ_LENGTH)
        results["before"] = {"ndcg": evaluate(student)[evaluate.primary_metric]}
    for seed in range(options.seeds):
        for negatives in NEGATIVES:
            if f"{negatives}/{seed}" not in results:
                results[f"{negatives}/{seed}"] = run(options, rows, corpus, evaluate, negatives, seed)
                options.results.write_text(json.dumps(results, indent=2))
                print(f"{negatives}, seed {seed}: {results[f'{negatives}/{seed}']}", flush=True)
    print(f"NDCG@10 before training {results['before']['ndcg']:.4f}; {len(rows):,} rows\n\n{table(results)}")


if __name__ == "__main__":
    main()
