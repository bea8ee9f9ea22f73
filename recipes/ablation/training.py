"""One student: made, trained on the negatives of a setting, evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import MultiDatasetBatchSamplers

from hf_negmine import HardNegativeCollator, PositiveAwareMNRL
from hf_negmine.base.devices import best_device
from hf_negmine.base.schema import FloatArray
from recipes.ablation.recipe import Ablation, Student
from recipes.common.data import TestQueries
from recipes.common.harness import ndcg_at_10, ndcg_by_mteb
from recipes.common.lora import add_adapter
from recipes.common.offline import first_layers, place_of
from recipes.common.training import Trained, arguments, bfloat16, in_bfloat16, run_trainer

TEXTS_PER_BATCH = 64
"""Of an evaluation."""


def make_student(student: Student, seed: int) -> SentenceTransformer:
    """An untrained student.

    Args:
        student: what it is.
        seed: of an adapter's weights.
    """
    place = place_of(student.model)
    if student.layers is None:
        model = SentenceTransformer(place, device=best_device())
        model.max_seq_length = student.max_length
    else:
        model = first_layers(place, student.layers, student.max_length)
    model.similarity_fn_name = "cosine"
    network: Any = model[0].auto_model
    tokenizer: Any = model.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if student.bidirectional:
        network.config.is_causal = False
    if not student.dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    if student.frozen_embeddings:
        network.get_input_embeddings().requires_grad_(False)
    if student.lora is not None:
        network.to(torch.bfloat16 if best_device() == "cuda" else torch.float32).requires_grad_(False)
        add_adapter(model, student.lora, seed)
    return model


def of_whole_batches(rows: datasets.DatasetDict, student: Student) -> datasets.DatasetDict:
    """The sets that fill a batch; a threshold may leave fewer rows, and a batch is of one set."""
    batch = student.training.per_device_train_batch_size
    return datasets.DatasetDict({name: own for name, own in rows.items() if len(own) >= batch})


def train(
    model: SentenceTransformer,
    student: Student,
    rows: datasets.DatasetDict,
    seed: int,
    scratch: Path,
    *,
    in_batch_negatives: bool,
) -> Trained:
    """Train ``model`` in place.

    Args:
        model: from `make_student`.
        student: its settings.
        rows: with their negatives, by set; a batch is of one set.
        seed: of the order of the rows.
        scratch: for the trainer.
        in_batch_negatives: whether other rows' passages are negatives, too, all of them as in the usual loss: a mask
            would know more under one method than under another.
    """
    rows = of_whole_batches(rows, student)
    if not rows:  # a threshold that allows hardly a negative
        return Trained(0, None, None)
    collator = HardNegativeCollator(
        model, num_negatives=student.negatives, query_column="query", positive_column="positive", seed=seed
    )
    scale = 1 / student.temperature
    loss: Any = (
        MultipleNegativesRankingLoss(model, scale=scale)
        if in_batch_negatives
        else PositiveAwareMNRL(model, collator, scale=scale, in_batch_negatives=False)
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=trainer_arguments(student, seed, scratch),
        train_dataset=rows,
        loss=loss,
        data_collator=collator,  # type: ignore[arg-type]
        callbacks=[collator],
    )
    return run_trainer(trainer)


def trainer_arguments(student: Student, seed: int, scratch: Path) -> SentenceTransformerTrainingArguments:
    """The trainer's arguments for a student."""
    return arguments(
        SentenceTransformerTrainingArguments,
        student.training,
        seed,
        scratch,
        prompts={"query": student.query_prompt, "positive": student.passage_prompt},
        multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
    )


def evaluate(model: SentenceTransformer, student: Student, tests: Sequence[TestQueries]) -> dict[str, FloatArray]:
    """NDCG at 10 of each query by test set, from 0 to 1; every relevant passage counts alike.

    Args:
        model: to be evaluated.
        student: its prompts, and whether to compute in bfloat16.
        tests: queries and corpora.
    """
    with bfloat16(model, wanted=in_bfloat16(student.training)):
        return {one.name: _ndcg(model, student, one) for one in tests}


def _ndcg(model: SentenceTransformer, student: Student, test: TestQueries) -> FloatArray:
    def encode(texts: list[str], prompt: str) -> torch.Tensor:
        vectors = model.encode(
            texts, prompt=prompt, batch_size=TEXTS_PER_BATCH, normalize_embeddings=True, convert_to_tensor=True,
            show_progress_bar=False,
        )  # fmt: skip
        return vectors.float().cpu()

    queries, passages = list(test.relevant), test.corpus.to_pylist()
    places = {text: place for place, text in enumerate(passages)}
    relevant = [np.array([places[text] for text in texts if text in places]) for texts in test.relevant.values()]
    return ndcg_at_10(encode(queries, student.query_prompt), encode(passages, student.passage_prompt), relevant)


def evaluate_by_mteb(model: SentenceTransformer, student: Student, recipe: Ablation, scratch: Path) -> dict[str, float]:
    """NDCG at 10 by test set of the recipe, a task of MTEB.

    Args:
        model: to be evaluated.
        student: its prompts.
        recipe: its test sets.
        scratch: for MTEB's results.
    """
    prompts = {"query": student.query_prompt, "document": student.passage_prompt}
    return {one.name: ndcg_by_mteb(model, one.name, prompts, TEXTS_PER_BATCH, scratch) for one in recipe.test_sets}
