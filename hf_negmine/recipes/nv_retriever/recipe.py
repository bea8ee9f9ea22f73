"""Every setting of NV-Retriever-v1. The values stand in ``recipes/nv_retriever_v1/recipe.yaml``; here is their meaning.

Fields without a default must be given, so that a recipe file says all of what the paper says. Sources are sections and
tables of arXiv 2407.15831v2; "ours" is what the paper leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hf_negmine.base.errors import InputError, require, require_whole
from hf_negmine.recipes.nv_retriever.sets import KINDS, TrainingSet, choose_sets
from hf_negmine.teachers.encoders import NumberFormat

RANDOM = "random"
"""The name of a base that is made on the spot."""
BASE = "base"
"""The teacher that is the run's own base."""


@dataclass(frozen=True)
class Architecture:
    """The shape of the base model, which parameters, memory and work are counted from (its config.json).

    Attributes:
        layers, hidden_size, intermediate_size: of the transformer.
        key_value_size: width of keys and of values, under grouped queries.
        vocabulary: of the embeddings; the model has no output head as an encoder.
    """

    layers: int
    hidden_size: int
    intermediate_size: int
    key_value_size: int
    vocabulary: int

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "intermediate_size", "key_value_size", "vocabulary"):
            require_whole(getattr(self, name), name, at_least=1)

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear maps of one layer, by their names in transformers."""
        hidden, inner, narrow = self.hidden_size, self.intermediate_size, self.key_value_size
        return {
            "q_proj": (hidden, hidden),
            "k_proj": (hidden, narrow),
            "v_proj": (hidden, narrow),
            "o_proj": (hidden, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def parameters(self) -> int:
        """Weights of the whole encoder."""
        linear = sum(inputs * outputs for inputs, outputs in self.linear_layers.values())
        norms = 2 * self.hidden_size
        return self.vocabulary * self.hidden_size + self.layers * (linear + norms) + self.hidden_size


@dataclass(frozen=True)
class Base:
    """The model that is trained (appendix B.1).

    Attributes:
        name: id on the Hub; mistralai/Mistral-7B-v0.1 in the paper, not the instruct model. `RANDOM` makes a Mistral of
            random weights in the shape of ``architecture``, with a tokenizer of the fixtures' words.
        revision: commit on the Hub; None takes the newest.
        bidirectional: every token sees every other, instead of only those before it; true in the paper.
        pooling: mean over the last layer in the paper.
        mask_instruction: leave the instruction's tokens out of the pooling, not out of attention; true in the paper.
        query_length, passage_length: tokens; 192 and 512 in the paper.
        dtype: of the frozen weights; ours.
        architecture: its shape.
    """

    name: str
    bidirectional: bool
    pooling: Literal["mean", "cls", "lasttoken"]
    mask_instruction: bool
    query_length: int
    passage_length: int
    dtype: Literal["bfloat16", "float16", "float32"]
    architecture: Architecture
    revision: str | None = None

    def __post_init__(self) -> None:
        require_whole(self.query_length, "query_length", at_least=1)
        require_whole(self.passage_length, "passage_length", at_least=1)


@dataclass(frozen=True)
class Lora:
    """Arguments of `peft.LoraConfig` (appendix B.4).

    Attributes:
        r, lora_alpha: rank 16 and alpha 32 in the paper.
        lora_dropout, bias: ours.
        target_modules: linear maps that are adapted; all seven, ours (the paper does not say).
        task_type: what peft calls an encoder.
    """

    r: int
    lora_alpha: int
    lora_dropout: float
    bias: Literal["none", "all", "lora_only"]
    target_modules: tuple[str, ...]
    task_type: Literal["FEATURE_EXTRACTION"]

    def __post_init__(self) -> None:
        require_whole(self.r, "r", at_least=1)
        require_whole(self.lora_alpha, "lora_alpha", at_least=1)
        require(0 <= self.lora_dropout < 1, f"lora_dropout: from 0 to under 1, got {self.lora_dropout!r}")
        require(len(self.target_modules) > 0, "target_modules: name at least one")


@dataclass(frozen=True)
class Prompts:
    """What is put before texts (appendix B.2, and the card of the released model).

    Attributes:
        query: with ``{task}``, the set's task definition; ``"{task}: "`` in the paper.
        passage: ``"passage: "`` in the released model's card.
    """

    query: str
    passage: str

    def __post_init__(self) -> None:
        _check_task(self.query, "query")

    def query_of(self, training_set: TrainingSet) -> str:
        """The prompt of a set's queries."""
        return self.query.replace("{task}", training_set.task)


@dataclass(frozen=True)
class Teacher:
    """Arguments of `DenseTeacher` (section 4.1 and appendix B.3).

    Attributes:
        model: intfloat/e5-mistral-7b-instruct in the paper, for all sets but ArguAna, which an internal model mined.
            `BASE` takes the base of the run itself, untrained.
        max_length: tokens; 4096 in the paper.
        query_prompt: with ``{task}``; that of the teacher's card.
        passage_prompt: the teacher has none.
        dtype: number format of the weights; None keeps the one that the model is stored in.
        batch_size: texts a forward pass; ours.
        revision: commit on the Hub; None takes the newest.
    """

    model: str
    max_length: int
    query_prompt: str
    passage_prompt: str
    dtype: NumberFormat | None
    batch_size: int
    revision: str | None = None

    def __post_init__(self) -> None:
        require_whole(self.max_length, "max_length", at_least=1)
        require_whole(self.batch_size, "batch_size", at_least=1)
        _check_task(self.query_prompt, "query_prompt")


@dataclass(frozen=True)
class Miner:
    """Arguments of `NegativeMiner` (section 3.1 and appendix B.3).

    Attributes:
        method: ``perc_pos:0.95`` in the paper.
        sampler: ``top``: the paper samples in its ablation (section 4.3.2) and does not say so of the model.
        positive_score, on_exhausted, pool_depth: ours.
    """

    method: str
    sampler: str
    positive_score: Literal["min", "each"]
    on_exhausted: Literal["drop", "keep", "error"]
    pool_depth: int

    def __post_init__(self) -> None:
        from hf_negmine.select import resolve_sampler
        from hf_negmine.select.methods import parse_method

        parse_method(self.method)
        resolve_sampler(self.sampler)
        require_whole(self.pool_depth, "pool_depth", at_least=1)


@dataclass(frozen=True)
class Mining:
    """How negatives are mined: a teacher, and what it may choose."""

    teacher: Teacher
    miner: Miner


@dataclass(frozen=True)
class Training:
    """Arguments of `SentenceTransformerTrainingArguments` (table 9, where nothing else is said).

    Attributes:
        per_device_train_batch_size: 32 in stage 1, 8 in stage 2. That it is of one device is our reading.
        gradient_accumulation_steps: 4 in stage 1, 16 in stage 2.
        learning_rate, warmup_steps, num_train_epochs: 1e-5, 100 and 12 in both stages.
        optim: AdamW.
        lr_scheduler_type, weight_decay, max_grad_norm, bf16: ours.
        activation_checkpointing: keep activations between layers only, and compute the others anew; ours. So
            transformers 5.23 calls it; older releases know it as gradient_checkpointing alone.
        dataloader_drop_last: leave out what does not fill a batch; ours.
    """

    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    warmup_steps: int
    num_train_epochs: int
    optim: str
    lr_scheduler_type: str
    weight_decay: float
    max_grad_norm: float
    bf16: bool
    activation_checkpointing: bool
    dataloader_drop_last: bool

    def __post_init__(self) -> None:
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"):
            require_whole(getattr(self, name), name, at_least=1)
        require_whole(self.warmup_steps, "warmup_steps", at_least=0)
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name}: more than 0, got {value!r}")


@dataclass(frozen=True)
class Stage:
    """One of the two trainings (appendix B.4 and table 9).

    Attributes:
        name: for people.
        kinds: of training sets: retrieval in stage 1, all in stage 2.
        leave_out: names of sets that are not trained on; none in the paper.
        hard_negatives: a query; 1 in stage 1, 5 in stage 2.
        in_batch_negatives: whether other rows' passages are negatives, too. Table 9 has them in both stages; the text
            of B.4 can be read otherwise for stage 2.
        homogeneous_batches: whether a batch is of one set, so that in-batch negatives are of its task.
        temperature: of InfoNCE over cosine similarities; ours.
        training: of the trainer.
        paper_steps: steps an epoch of table 9, which the plan compares with; None for another training.
    """

    name: str
    kinds: tuple[str, ...]
    hard_negatives: int
    in_batch_negatives: bool
    homogeneous_batches: bool
    temperature: float
    training: Training
    leave_out: tuple[str, ...] = ()
    paper_steps: int | None = None

    def __post_init__(self) -> None:
        require_whole(self.hard_negatives, "hard_negatives", at_least=0)
        require(
            self.hard_negatives > 0 or self.in_batch_negatives,
            "hard_negatives: 0 without in_batch_negatives leaves nothing to tell the positive from",
        )
        require(
            math.isfinite(self.temperature) and self.temperature > 0,
            f"temperature: more than 0, got {self.temperature!r}",
        )
        choose_sets(self.kinds, self.leave_out)

    @property
    def sets(self) -> tuple[TrainingSet, ...]:
        """What is trained on, in the order of table 7."""
        return choose_sets(self.kinds, self.leave_out)


@dataclass(frozen=True)
class Evaluating:
    """How the model is evaluated: MTEB's retrieval tasks in English, which are those of BEIR (section 4.4).

    Attributes:
        harness: ``mteb`` takes the package of that name and its data, as the paper does; ``beir`` takes BEIR folders,
            ``beir/TASK`` in the folder of the data sets.
        batch_size: texts a forward pass.
        leave_out: tasks that are not run; none in the paper.
    """

    harness: Literal["mteb", "beir"]
    batch_size: int
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from hf_negmine.recipes.nv_retriever.tasks import TASKS

        require_whole(self.batch_size, "batch_size", at_least=1)
        for name in self.leave_out:
            if name not in TASKS:
                raise InputError(f"leave_out: {name!r} is not among {list(TASKS)}")


@dataclass(frozen=True)
class Machines:
    """What the plan reckons with; nothing that is trained depends on it.

    Attributes:
        gpus: 8 A100 in the paper.
        memory: GiB of one; 80, ours.
        teraflops: of one in bfloat16 at its peak; 312 of an A100.
        utilisation: share of the peak that is reached; ours.
    """

    gpus: int
    memory: int
    teraflops: float
    utilisation: float

    def __post_init__(self) -> None:
        require_whole(self.gpus, "gpus", at_least=1)
        require_whole(self.memory, "memory", at_least=1)
        require(math.isfinite(self.teraflops) and self.teraflops > 0, f"teraflops: more than 0, got {self.teraflops!r}")
        require(0 < self.utilisation <= 1, f"utilisation: over 0, at most 1, got {self.utilisation!r}")


@dataclass(frozen=True)
class Output:
    """Where the model goes.

    Attributes:
        repo: ``USER/NAME`` on the Hub; None keeps it here.
        private: whether only you see it.
    """

    repo: str | None = None
    private: bool = True


@dataclass(frozen=True)
class NVRetriever:
    """NV-Retriever-v1, from its sets to its repository.

    Attributes:
        base, lora, prompts, mining, stages, evaluation, machines, output: see their classes.
        data: where the sets come from: the Hub, or `fixtures`, made-up ones of the same columns.
        samples: rows of a set at most; None takes the counts of table 7.
        decontaminate: drop rows that occur in the evaluation set of their task; ours.
        seed: of samples, draws and training; ours.
    """

    base: Base
    lora: Lora
    prompts: Prompts
    mining: Mining
    stages: tuple[Stage, ...]
    evaluation: Evaluating
    machines: Machines
    output: Output = Output()
    data: Literal["hub", "fixtures"] = "hub"
    samples: int | None = None
    decontaminate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.stages) > 0, "stages: at least one")
        names = [stage.name for stage in self.stages]
        require(len(set(names)) == len(names), f"stages: names must differ, got {names}")
        if self.samples is not None:
            require_whole(self.samples, "samples", at_least=1)
        known = self.base.architecture.linear_layers
        for name in self.lora.target_modules:
            if name not in known:
                raise InputError(f"lora.target_modules: {name!r} is not among {sorted(known)}")

    @property
    def sets(self) -> tuple[TrainingSet, ...]:
        """What any stage trains on, in the order of table 7."""
        used = {one.name for stage in self.stages for one in stage.sets}
        return tuple(one for one in choose_sets(KINDS) if one.name in used)

    @property
    def num_negatives(self) -> int:
        """Negatives a query that are mined: what the stage with most needs."""
        return max(stage.hard_negatives for stage in self.stages)

    def samples_of(self, one: TrainingSet) -> int:
        """Rows of a set at most."""
        return one.samples if self.samples is None else min(one.samples, self.samples)

    def passages_of(self, one: TrainingSet) -> int:
        """Passages that negatives of a set are mined from, at most."""
        if self.data == "fixtures":
            from hf_negmine.recipes.nv_retriever.fixtures import PASSAGES

            return PASSAGES
        return one.corpus_size or self.samples_of(one)

    def plan(self) -> str:
        """What a run takes: rows, negatives, steps, memory and hours, by arithmetic alone."""
        from hf_negmine.recipes.nv_retriever.plan import Plan

        return str(Plan(self))

    def run(self, output: Path, *, data: Path | None = None, tell: Callable[[str], None] = print) -> str:
        """Mine, train both stages, merge, evaluate and push; see `run.run`."""
        from hf_negmine.recipes.nv_retriever.run import run

        return run(self, output, data=data, tell=tell)


def _check_task(prompt: str, argument: str) -> None:
    require("{task}" in prompt, f"{argument}: expected {{task}} in the prompt, got {prompt!r}")
