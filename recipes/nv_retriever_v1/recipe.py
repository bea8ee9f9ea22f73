"""Every setting of NV-Retriever-v1. The values are in ``recipe.yaml``; this file says what they mean.

Fields without a default must be given, so that a recipe file says all of what the paper says. Sources are sections and
tables of arXiv 2407.15831v2; "ours" is what the paper leaves open.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from hf_negmine.base.choices import NumberFormat, OnExhausted, PositiveScore
from hf_negmine.base.errors import require, require_choice
from recipes.common.config import STRICT, EachOnce, Method, Sampler, Seeds, require_names
from recipes.common.sets import FOLDER_SETS, KINDS, SETS, TrainingSet, choose_sets
from recipes.common.settings import Lora
from recipes.nv_retriever_v1.fixtures import PASSAGES
from recipes.nv_retriever_v1.tasks import TASKS

RANDOM = "random"
"""The name of a base that is made on the spot."""
BASE = "base"
"""The teacher that is the run's own base."""


def _with_task(prompt: str) -> str:
    require("{task}" in prompt, f"expected {{task}} in the prompt, got {prompt!r}")
    return prompt


TaskPrompt = Annotated[str, AfterValidator(_with_task)]
"""With ``{task}``, where the task of the set goes."""


@dataclass(frozen=True, config=STRICT)
class Architecture:
    """The shape of the base model, which parameters, memory and work are counted from (its config.json).

    Attributes:
        layers, hidden_size, intermediate_size: of the transformer.
        key_value_size: width of keys and of values, under grouped queries.
        vocabulary: of the embeddings; the model has no output head as an encoder.
        kind: which names its linear maps have in transformers.
    """

    layers: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    key_value_size: PositiveInt
    vocabulary: PositiveInt
    kind: Literal["mistral", "bert"] = "mistral"

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear maps of one layer, by their names in transformers."""
        hidden, inner, narrow = self.hidden_size, self.intermediate_size, self.key_value_size
        if self.kind == "bert":
            return {
                "query": (hidden, hidden),
                "key": (hidden, narrow),
                "value": (hidden, narrow),
                "attention.output.dense": (hidden, hidden),
                "intermediate.dense": (hidden, inner),
                "output.dense": (
                    inner,
                    hidden,
                ),  # by which peft finds attention's, too, as it looks at the end of names
            }
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
        """Weights of the whole encoder, but for a BERT's biases and positions."""
        linear = sum(inputs * outputs for inputs, outputs in self.linear_layers.values())
        norms = 2 * self.hidden_size
        return self.vocabulary * self.hidden_size + self.layers * (linear + norms) + self.hidden_size


@dataclass(frozen=True, config=STRICT)
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
    query_length: PositiveInt
    passage_length: PositiveInt
    dtype: Literal["bfloat16", "float16", "float32"]
    architecture: Architecture
    revision: str | None = None


@dataclass(frozen=True, config=STRICT)
class Prompts:
    """What is put before texts (appendix B.2, and the card of the released model).

    Attributes:
        query: with ``{task}``, the set's task definition; ``"{task}: "`` in the paper.
        passage: ``"passage: "`` in the released model's card.
    """

    query: TaskPrompt
    passage: str

    def query_of(self, training_set: TrainingSet) -> str:
        """The prompt of a set's queries."""
        return self.query.replace("{task}", training_set.task)


@dataclass(frozen=True, config=STRICT)
class Teacher:
    """Arguments of `DenseTeacher` (section 4.1 and appendix B.3).

    Attributes:
        model: intfloat/e5-mistral-7b-instruct in the paper, for all sets but ArguAna, which an internal model mined.
            `BASE` takes the base of the run itself, untrained.
        max_length: tokens; 4096 in the paper.
        query_prompt: that of the teacher's card; ``{task}`` in it is the set's task.
        passage_prompt: the teacher has none.
        dtype: number format of the weights; None keeps the one that the model is stored in.
        batch_size: texts per forward pass; ours.
        revision: commit on the Hub; None takes the newest.
    """

    model: str
    max_length: PositiveInt
    query_prompt: str
    passage_prompt: str
    dtype: NumberFormat | None
    batch_size: PositiveInt
    revision: str | None = None


@dataclass(frozen=True, config=STRICT)
class Miner:
    """Arguments of `NegativeMiner` (section 3.1 and appendix B.3).

    Attributes:
        method: ``perc_pos:0.95`` in the paper.
        sampler: ``top``: the paper samples in its ablation (section 4.3.2) and does not say so of the model.
        positive_score, on_exhausted, pool_depth: ours.
    """

    method: Method
    sampler: Sampler
    positive_score: PositiveScore
    on_exhausted: OnExhausted
    pool_depth: PositiveInt


@dataclass(frozen=True, config=STRICT)
class Mining:
    """How negatives are mined: a teacher, and what it may choose."""

    teacher: Teacher
    miner: Miner


@dataclass(frozen=True, config=STRICT)
class Training:
    """Arguments of `SentenceTransformerTrainingArguments` (table 9, where nothing else is said).

    Attributes:
        per_device_train_batch_size: 32 in stage 1, 8 in stage 2. That it is per device is our reading.
        gradient_accumulation_steps: 4 in stage 1, 16 in stage 2.
        learning_rate, warmup_steps, num_train_epochs: 1e-5, 100 and 12 in both stages.
        optim: AdamW.
        lr_scheduler_type, weight_decay, max_grad_norm, bf16: ours.
        activation_checkpointing: keep activations between layers only, and compute the others again; ours. The
            name is transformers 5.23's; older releases know it as gradient_checkpointing.
        dataloader_drop_last: leave out what does not fill a batch; ours.
    """

    per_device_train_batch_size: PositiveInt
    gradient_accumulation_steps: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    num_train_epochs: PositiveInt
    optim: str
    lr_scheduler_type: str
    weight_decay: float
    max_grad_norm: PositiveFloat
    bf16: bool
    activation_checkpointing: bool
    dataloader_drop_last: bool


@dataclass(frozen=True, config=STRICT)
class Stage:
    """One of the two trainings (appendix B.4 and table 9).

    Attributes:
        name: for people.
        kinds: of training sets: retrieval in stage 1, all in stage 2.
        leave_out: names of sets that are not trained on; none in the paper.
        hard_negatives: per query; 1 in stage 1, 5 in stage 2.
        in_batch_negatives: whether other rows' passages are negatives, too. Table 9 has them in both stages; the text
            of B.4 can be read otherwise for stage 2.
        homogeneous_batches: whether a batch is of one set, so that in-batch negatives are of its task.
        temperature: of InfoNCE over cosine similarities; ours.
        training: of the trainer.
        paper_steps: steps an epoch of table 9, which the plan compares with; None for another training.
    """

    name: str
    kinds: tuple[str, ...]
    hard_negatives: NonNegativeInt
    in_batch_negatives: bool
    homogeneous_batches: bool
    temperature: PositiveFloat
    training: Training
    leave_out: tuple[str, ...] = ()
    paper_steps: int | None = None

    def __post_init__(self) -> None:
        require(
            self.hard_negatives > 0 or self.in_batch_negatives,
            "hard_negatives: 0 without in_batch_negatives leaves nothing to tell the positive from",
        )
        for kind in self.kinds:
            require_choice(kind, KINDS, argument="kinds")


@dataclass(frozen=True, config=STRICT)
class Evaluating:
    """How the model is evaluated: MTEB's retrieval tasks in English, which are those of BEIR (section 4.4).

    Attributes:
        harness: ``mteb`` takes the package of that name and its data, as the paper does; ``beir`` takes BEIR folders,
            ``beir/TASK`` in the folder of the data sets; ``own`` takes the test queries of the sets that are trained
            on, of which all must be BEIR folders.
        batch_size: texts per forward pass.
        leave_out: tasks that are not run; none in the paper.
        queries: of a set, at most, for ``own``; None takes all.
        passages: of a set, at most, for ``own``: those that are relevant to the queries, then others; None takes all.
    """

    harness: Literal["mteb", "beir", "own"]
    batch_size: PositiveInt
    leave_out: tuple[str, ...] = ()
    queries: PositiveInt | None = None
    passages: PositiveInt | None = None

    def __post_init__(self) -> None:
        for name in self.leave_out:
            require_choice(name, TASKS, argument="leave_out")


@dataclass(frozen=True, config=STRICT)
class Machines:
    """What the plan reckons with; nothing that is trained depends on it.

    Attributes:
        gpus: 8 A100 in the paper.
        memory: GiB of one; 80, ours.
        teraflops: of one in bfloat16 at its peak; 312 of an A100.
        utilisation: share of the peak that is reached; ours.
    """

    gpus: PositiveInt
    memory: PositiveInt
    teraflops: PositiveFloat
    utilisation: Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class Output:
    """Where the model goes.

    Attributes:
        repo: ``USER/NAME`` on the Hub; None keeps it here.
        private: whether only you see it.
    """

    repo: str | None = None
    private: bool = True


@dataclass(frozen=True, config=STRICT)
class Study:
    """The whole recipe several times, which says how much of a gain is chance.

    Attributes:
        seeds: of the runs; each draws rows, orders them and begins with other LoRA weights.
        against: methods of mining that the recipe's own is compared with, all else equal.
    """

    seeds: Annotated[Seeds, Field(min_length=1)]
    against: Annotated[tuple[Method, ...], EachOnce]


@dataclass(frozen=True, config=STRICT)
class NVRetriever:
    """NV-Retriever-v1, from its sets to its repository.

    Attributes:
        base, lora, prompts, mining, stages, evaluation, machines, output: see their classes.
        data: where the sets come from: the Hub; `fixtures`, made-up ones of the same columns; or `folders`, other sets,
            which are BEIR folders.
        samples: rows per set at most; None takes the counts of table 7.
        passages: of a set, at most, that negatives are mined from, besides the positives; None takes all.
        study: None runs the recipe once, with its own seed.
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
    data: Literal["hub", "fixtures", "folders"] = "hub"
    samples: PositiveInt | None = None
    passages: PositiveInt | None = None
    study: Study | None = None
    decontaminate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require_names(self.stages, "stages")
        for name in self.lora.target_modules:
            require_choice(name, sorted(self.base.architecture.linear_layers), argument="lora.target_modules")
        for stage in self.stages:
            self.sets_of(stage)
        require(
            (self.data == "folders") == (self.evaluation.harness == "own") == (self.study is not None),
            "data: 'folders', evaluation.harness: 'own' and a study go together, so all or none of them",
        )

    def sets_of(self, stage: Stage) -> tuple[TrainingSet, ...]:
        """What a stage trains on, in the order of table 7."""
        return choose_sets(stage.kinds, stage.leave_out, among=self._known)

    @property
    def sets(self) -> tuple[TrainingSet, ...]:
        """What any stage trains on, in the order of table 7."""
        used = {one.name for stage in self.stages for one in self.sets_of(stage)}
        return tuple(one for name, one in self._known.items() if name in used)

    @property
    def _known(self) -> dict[str, TrainingSet]:
        return FOLDER_SETS if self.data == "folders" else SETS

    @property
    def num_negatives(self) -> int:
        """Negatives per query that are mined: what the stage with most needs."""
        return max(stage.hard_negatives for stage in self.stages)

    def samples_of(self, one: TrainingSet) -> int:
        """Rows of a set, at most."""
        return one.samples if self.samples is None else min(one.samples, self.samples)

    def passages_of(self, one: TrainingSet) -> int:
        """Passages that negatives of a set are mined from, at most."""
        if self.data == "fixtures":
            return PASSAGES
        corpus = one.corpus_size or self.samples_of(one)
        return corpus if self.passages is None else min(corpus, self.passages + self.samples_of(one))
