"""From rows of (query, positive) to a better retrieval model, to copy: mine, collate, train."""

from __future__ import annotations

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
from recipes.common.offline import place_of
from recipes.quickstart.recipe import Negatives, Quickstart


def train(
    model: SentenceTransformer,
    rows: datasets.Dataset,
    corpus: Any,
    recipe: Quickstart,
    kind: Negatives,
    seed: int,
    output: Path,
) -> SentenceTransformerTrainer:
    """Fine-tune ``model`` in place with one kind of negatives, and return its trainer.

    Args:
        model: the student.
        rows: query and positive.
        corpus: passages to mine from.
        recipe: its settings.
        kind: of negatives.
        seed: of the order of the rows and the draws.
        output: for the trainer.
    """
    miner = NegativeMiner(
        place_of(recipe.teacher),
        method=kind.method,
        sampler=kind.sampler,
        num_negatives=recipe.num_negatives,
        corpus=corpus,
        on_exhausted="keep",
    )
    miner.fit(rows)
    collator = HardNegativeCollator(model, miner, fill="random", seed=seed)
    callbacks: list[Any] = [collator]
    if kind.refresh:
        callbacks.append(RemineCallback(collator, rule="student", every_epochs=1))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(output),
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            warmup_steps=recipe.warmup_steps,
            num_train_epochs=recipe.epochs,
            seed=seed,
            use_cpu=best_device() == "cpu",
            bf16=best_device() == "cuda" or has_fast_bfloat16(),
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows,
        loss=MultipleNegativesRankingLoss(model) if kind.plain_loss else PositiveAwareMNRL(model, collator),
        data_collator=collator,  # type: ignore[arg-type]
        callbacks=callbacks,
    )
    trainer.train()
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)  # so that evaluation is in full precision again
    return trainer
