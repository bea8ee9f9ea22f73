"""Models of a few thousand random weights, one of each kind that Sentence Transformers knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.train.helpers import load_model, write_models

WIDTH = 16


def write_tiny_models(folder: Path) -> None:
    """The folders ``dense``, ``cross``, ``labels`` (a cross-encoder of three), ``sparse`` and ``tokens``."""
    write_models(folder)
    load_model(folder).save(str(folder / "dense"))
    for name, labels in (("cross", 1), ("labels", 3)):
        torch.manual_seed(labels)
        config = BertConfig.from_pretrained(folder / "bert", num_labels=labels)
        BertForSequenceClassification(config).save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(folder / "bert").save_pretrained(folder / name)
    make_sparse(folder).save(str(folder / "sparse"))
    make_tokens(folder).save(str(folder / "tokens"))


def make_cross(folder: Path, **settings: Any) -> CrossEncoder:
    return CrossEncoder(str(folder / "cross"), device="cpu", **settings)


def make_sparse(folder: Path, **settings: Any) -> SparseEncoder:
    """A SPLADE model; of its vocabulary about a third is above zero in any text."""
    transformer = Transformer(str(folder / "mlm"), transformer_task="fill-mask")
    with torch.no_grad():
        transformer.auto_model.cls.predictions.bias.fill_(-2.0)
    return SparseEncoder(modules=[transformer, SpladePooling("max")], device="cpu", **settings)


def make_tokens(
    folder: Path, *, skip: tuple[str, ...] = ("d", "w1"), keep: list[int] | None = None, **settings: Any
) -> MultiVectorEncoder:
    """A ColBERT model: queries are expanded to 12 tokens, passages cut to 24, two words of a passage do not count."""
    transformer = Transformer(
        str(folder / "bert"), query_expansion={"strategy": "fixed", "attend": False, "length": 12}, document_length=24
    )
    torch.manual_seed(5)
    plain = torch.nn.Identity()
    projection = Dense(32, WIDTH, bias=False, activation_function=plain, module_input_name="token_embeddings")
    mask = MultiVectorMask(skiplist_words=list(skip), keep_only_token_ids=keep)
    modules = [transformer, projection, mask, Normalize(module_input_name="token_embeddings")]
    return MultiVectorEncoder(modules=modules, device="cpu", **settings)
