"""One reranker: made from an encoder, trained by InfoNCE on a row's positive and negatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import torch
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformer,
)
from sentence_transformers.base.modules import Dense
from transformers import set_seed

from hf_negmine import HardNegativeCollator, NegativeMiner
from hf_negmine.base.devices import best_device
from hf_negmine.data.writing import in_memory
from recipes.common.data import TrainingRows
from recipes.common.offline import first_layers
from recipes.common.training import Trained, arguments, run_trainer
from recipes.reranker.loss import RowInfoNCE
from recipes.reranker.recipe import Base, Negatives, Reranker


def make_reranker(model: str, base: Base, seed: int) -> CrossEncoder:
    """A cross-encoder of an encoder's first layers, its own pooling, and a new linear head with one output.

    Args:
        model: folder or id of the encoder, a Sentence Transformers model.
        base: how much of it is kept.
        seed: of the head's weights.
    """
    encoder = SentenceTransformer(model) if base.layers is None else first_layers(model, base.layers, base.max_length)
    encoder.max_seq_length = base.max_length
    set_seed(seed)
    transformer, pooling = encoder[0], encoder[1]
    width: Any = encoder.get_embedding_dimension()
    head = Dense(width, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    reranker: CrossEncoder = CrossEncoder(modules=[transformer, pooling, head], device=best_device())
    return reranker


def mine(recipe: Reranker, teacher: Any, kind: Negatives, sets: Sequence[TrainingRows], cache: Path) -> dict[str, Any]:
    """A fitted miner for each set, which knows all positives of its queries, so that none becomes a negative.

    Args:
        recipe: says how many negatives.
        teacher: as `NegativeMiner` takes it.
        kind: of negatives.
        sets: rows and corpora.
        cache: for vectors and pools, which all kinds share.
    """
    return {
        one.name: NegativeMiner(
            teacher if kind.scores == "teacher" else "random",
            method=kind.method,
            sampler=kind.sampler,
            num_negatives=recipe.num_negatives,
            positive_score="each",  # a row's ceiling is that of its own label
            corpus=one.corpus,
            on_exhausted="keep",
            cache_dir=cache,
            progress=False,
        ).fit(datasets.concatenate_datasets([one.rows, _others(one)]))
        for one in sets
    }


def _others(one: TrainingRows) -> datasets.Dataset:
    """The positives in the corpus, besides those of the rows."""
    texts = pa.array([text for own in one.hidden.values() for text in sorted(own)], pa.large_string())
    queries = pa.array([query for query, own in one.hidden.items() for _ in own], pa.large_string())
    others = pa.table({"query": queries, "positive": texts}).filter(pc.is_in(texts, value_set=one.corpus))
    return in_memory(others).cast(one.rows.features)


def train(
    model: CrossEncoder,
    recipe: Reranker,
    sets: Sequence[TrainingRows],
    miners: dict[str, NegativeMiner],
    seed: int,
    scratch: Path,
) -> Trained:
    """Train ``model`` in place.

    Args:
        model: from `make_reranker`.
        recipe: its settings.
        sets: rows; a batch is of one set.
        miners: by set, fitted; each epoch draws again from what they allow.
        seed: of the order of the rows and the draws.
        scratch: for the trainer.
    """
    rows = datasets.DatasetDict({one.name: one.rows for one in sets})
    collator = HardNegativeCollator(model, miners, fill="random", seed=seed)
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments(CrossEncoderTrainingArguments, recipe.training, seed, scratch),
        train_dataset=rows,
        loss=RowInfoNCE(model, recipe.temperature),
        data_collator=collator,  # type: ignore[arg-type]
        callbacks=[collator],
    )
    return run_trainer(trainer)
