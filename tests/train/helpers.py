"""A small world to train in: texts, a teacher, models of 32 dimensions, and losses that remember what reached them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from hf_negmine import NegativeMiner
from hf_negmine.base.protocols import Role, Similarity
from hf_negmine.base.schema import FloatArray

WORDS = [f"w{number}" for number in range(120)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "q", "d", "ask", "find", "tell", "seek"]

QUERIES = [f"q w{3 * i} w{3 * i + 1}" for i in range(16)]
CORPUS = [f"d w{3 * i} w{3 * i + 1} w{3 * i + 2}" for i in range(40)]
CORPUS[16:32] = [f"d w{3 * i} w{3 * i + 4} w{60 + i}" for i in range(16)]
POSITIVES = CORPUS[:16]


def rows(first: int = 0, last: int = 16) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"query": QUERIES[first:last], "positive": POSITIVES[first:last]})


@dataclass(frozen=True)
class WordTeacher:
    """A vector teacher: a text is the sum of one random vector a word."""

    name: str = "words"
    similarity: Similarity = "cosine"
    width: int = 12

    def fingerprint(self, role: Role) -> str:
        return f"words-{self.width}"

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        return np.stack([sum(self._word(word) for word in text.split()) for text in texts]).astype(np.float32)

    def _word(self, word: str) -> Any:
        weight = 0.1 if word in ("q", "d") else 1.0
        return weight * np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.width)


def make_miner(folder: Path, teacher: Any = None, **settings: Any) -> NegativeMiner:
    """A miner over the small corpus that draws 2 of 8."""
    settings = {"num_negatives": 2, "sampler": "sampled:8@0.2", "corpus": CORPUS, "seed": 7, **settings}
    return NegativeMiner(
        WordTeacher() if teacher is None else teacher, cache_dir=folder, device="cpu", progress=False, **settings
    )


def write_models(folder: Path) -> None:
    """The folders ``bert`` and ``mlm``: random weights, no dropout, a tokenizer of whole words."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    names = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "PAD", "CLS", "SEP", "MASK")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    for name, kind in (("bert", BertModel), ("mlm", BertForMaskedLM)):
        kind(config).save_pretrained(folder / name)
        fast.save_pretrained(folder / name)


def load_model(folder: Path) -> SentenceTransformer:
    """A new copy of the same model."""
    transformer = Transformer(str(folder / "bert"), max_seq_length=32)
    return SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")


def read_texts(model: Any, ids: torch.Tensor) -> list[str]:
    """Texts of rows of token ids."""
    found: list[str] = model.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return found


def columns_of(batch: dict[str, Any], model: Any) -> dict[str, list[str]]:
    """Texts of each column of a batch."""
    return {
        key.removesuffix("_input_ids"): read_texts(model, value)
        for key, value in batch.items()
        if key.endswith("_input_ids")
    }


def rows_of(columns: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Positive and negatives of each query of a batch."""
    return {query: tuple(rest) for query, *rest in zip(*columns.values(), strict=True)}


def arguments(folder: Path, kind: Any = SentenceTransformerTrainingArguments, **settings: Any) -> Any:
    """Of a trainer that logs every step."""
    settings = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "logging_steps": 1,
        "seed": 3,
        **settings,
    }
    return kind(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, dataloader_pin_memory=False, **settings
    )


class Remembering(MultipleNegativesRankingLoss):
    """Remembers the texts of each batch and its loss."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.batches: list[list[list[str]]] = []
        self.losses: list[float] = []
        self.tasks: list[list[Any]] = []

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        features = list(sentence_features)
        self.batches.append([read_texts(self.model, column["input_ids"]) for column in features])
        self.tasks.append([column.get("task") for column in features])
        loss: torch.Tensor = super().forward(features, labels)
        self.losses.append(float(loss.detach()))
        return loss

    def drawn(self, first: int = 0, last: int | None = None) -> dict[str, tuple[str, ...]]:
        """Positive and negatives of each query of some of the batches."""
        return {query: tuple(rest) for batch in self.batches[first:last] for query, *rest in zip(*batch, strict=True)}


def logged_losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
