"""What a run of the recipe takes, by arithmetic alone: rows, steps, memory and hours. Nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from recipes.common.command import in_hours
from recipes.common.sets import KINDS, TrainingSet
from recipes.nv_retriever_v1.recipe import NVRetriever, Stage

PAPER_RETRIEVAL_SAMPLES = 728_160
"""Section 4.4 and table 5."""
PAPER_TRAINING_HOURS = 90.0
"""Appendix B.4: both stages, on 8 A100."""
PAPER_HOURS_PER_MILLION_PASSAGES = 1.5
"""Appendix B.3: embedding at up to 4096 tokens, on 8 A100."""

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
ADAPTER_BYTES = 16
"""Of one LoRA parameter in float32: itself, its gradient, and the two moments of AdamW."""
PASSES = {True: 3, False: 2}
"""Forward passes that a training step costs, with and without activation checkpointing.

The base is frozen, so that backward goes through activations only, which costs as much as forward; checkpointing adds a
forward.
"""
USUAL_UTILISATION = 0.6
"""Share of the peak that training a model of this size rarely exceeds."""
GIB = 2**30


@dataclass(frozen=True)
class Reading:
    """Steps per epoch, if a step is so many rows.

    Attributes:
        what: a step is.
        rows: per step.
        mixed: steps if sets are mixed, the last batch left out.
        apart: steps if every step is of one set, its last batch left out.
        apart_kept: the same with its last batch kept.
    """

    what: str
    rows: int
    mixed: int
    apart: int
    apart_kept: int

    @property
    def steps(self) -> tuple[int, int, int]:
        """All three."""
        return self.mixed, self.apart, self.apart_kept

    def off_by(self, paper: int) -> float:
        """How far the nearest of them is from the paper's steps, as a share of these."""
        return min(abs(steps - paper) for steps in self.steps) / paper


@dataclass(frozen=True)
class StagePlan:
    """What a stage takes. Hours are of all machines together, at the recipe's utilisation."""

    recipe: NVRetriever
    stage: Stage

    @cached_property
    def sets(self) -> tuple[TrainingSet, ...]:
        """What is trained on."""
        return self.recipe.sets_of(self.stage)

    @property
    def rows(self) -> int:
        """Rows per epoch."""
        return sum(self.recipe.samples_of(one) for one in self.sets)

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """What a step may be."""
        training, gpus = self.stage.training, self.recipe.machines.gpus
        batch, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
        kinds = (
            (f"an update of one GPU ({batch} x {accumulation})", batch * accumulation),
            (f"a batch on each of {gpus} GPUs ({batch} x {gpus})", batch * gpus),
            (f"an update of {gpus} GPUs ({batch} x {accumulation} x {gpus})", batch * accumulation * gpus),
        )
        samples = [self.recipe.samples_of(one) for one in self.sets]
        return tuple(
            Reading(
                what,
                rows,
                sum(samples) // rows,
                sum(count // rows for count in samples),
                sum(-(-count // rows) for count in samples),
            )
            for what, rows in kinds
        )

    @property
    def nearest(self) -> Reading | None:
        """The reading that comes nearest to the paper's steps."""
        paper = self.stage.paper_steps
        return None if paper is None else min(self.readings, key=lambda reading: reading.off_by(paper))

    @property
    def steps(self) -> int:
        """Updates per epoch of this recipe's own run: a device's batch is of one set, an update of all devices."""
        training = self.stage.training
        batch = training.per_device_train_batch_size
        counts = [self.recipe.samples_of(one) for one in self.sets]
        if not self.stage.homogeneous_batches:
            counts = [sum(counts)]
        batches = sum(count // batch if training.dataloader_drop_last else -(-count // batch) for count in counts)
        of_a_device = math.ceil(batches / self.recipe.machines.gpus)
        return math.ceil(of_a_device / training.gradient_accumulation_steps)

    def tokens(self, *, longest: bool) -> float:
        """Tokens per epoch without padding: every text at its limit, or at the mean of its set."""
        base, passages = self.recipe.base, 1 + self.stage.hard_negatives
        if longest:
            return float(self.rows * (base.query_length + passages * base.passage_length))
        return float(
            sum(
                self.recipe.samples_of(one)
                * (min(one.tokens[0], base.query_length) + passages * min(one.tokens[1], base.passage_length))
                for one in self.sets
            )
        )

    def hours(self, *, longest: bool = False, rows: float | None = None) -> float:
        """Hours of all epochs; ``rows`` per epoch if they are not as many as in table 7."""
        training = self.stage.training
        passes = PASSES[training.activation_checkpointing]
        operations = 2 * self.recipe.base.architecture.parameters * passes * self.tokens(longest=longest)
        share = 1.0 if rows is None else rows / self.rows
        return operations * training.num_train_epochs * share / _operations_per_hour(self.recipe)

    @property
    def activations(self) -> float:
        """GiB of one device's batch, every text at its limit.

        Between layers of all texts, and within the layer that is computed again, of one column.
        """
        base, batch = self.recipe.base, self.stage.training.per_device_train_batch_size
        shape = base.architecture
        # Inputs of norms and maps, queries, keys and values, the two halves of the gated map and their product.
        within = 6 * shape.hidden_size + 2 * shape.key_value_size + 3 * shape.intermediate_size
        tokens = batch * (base.query_length + (1 + self.stage.hard_negatives) * base.passage_length)
        if self.stage.training.activation_checkpointing:
            column = batch * max(base.query_length, base.passage_length)
            numbers = shape.layers * tokens * shape.hidden_size + column * within
        else:
            numbers = shape.layers * tokens * within
        return numbers * BYTES["bfloat16"] / GIB


@dataclass(frozen=True)
class Plan:
    """What a run takes; ``str(plan)`` is for people."""

    recipe: NVRetriever

    @cached_property
    def stages(self) -> tuple[StagePlan, ...]:
        """One for each stage."""
        return tuple(StagePlan(self.recipe, stage) for stage in self.recipe.stages)

    @property
    def mined(self) -> tuple[TrainingSet, ...]:
        """Sets whose negatives the teacher finds."""
        return tuple(one for one in self.recipe.sets if one.kind in ("retrieval", "sts"))

    @property
    def drawn(self) -> tuple[TrainingSet, ...]:
        """Sets whose negatives are texts of other labels."""
        return tuple(one for one in self.recipe.sets if one.kind in ("classification", "clustering"))

    @property
    def passages(self) -> int:
        """Passages that the teacher embeds: a set's corpus, or at most one positive per row."""
        return sum(self.recipe.passages_of(one) for one in self.mined)

    @property
    def adapter_parameters(self) -> int:
        """How many parameters are trained."""
        maps, lora = self.recipe.base.architecture.linear_layers, self.recipe.lora
        return self.recipe.base.architecture.layers * sum(lora.r * sum(maps[name]) for name in lora.target_modules)

    @property
    def fixed_memory(self) -> float:
        """GiB of weights, adapter, gradients and optimizer, on every device."""
        base = self.recipe.base
        return (base.architecture.parameters * BYTES[base.dtype] + self.adapter_parameters * ADAPTER_BYTES) / GIB

    @property
    def mining_hours(self) -> float:
        """Hours to embed the passages, at the paper's pace."""
        return self.passages / 1e6 * PAPER_HOURS_PER_MILLION_PASSAGES

    def __str__(self) -> str:
        parts = [self._sets(), self._mining(), *(self._steps(stage) for stage in self.stages), self._memory()]
        return "\n\n".join([*parts, self._hours()])

    # ---- for people ------------------------------------------------------------------------------------------------

    def _sets(self) -> str:
        rows = [
            [
                one.name,
                one.kind,
                f"{self.recipe.samples_of(one):,}",
                *("x" if one in stage.sets else "" for stage in self.stages),
                "verified" if one.verified else "read",
                one.licence,
            ]
            for one in self.recipe.sets
        ]
        head = ["set", "kind", "samples", *(stage.name for stage in self.recipe.stages), "columns", "licence"]
        samples_of = self.recipe.samples_of
        kinds = {kind: sum(samples_of(one) for one in self.recipe.sets if one.kind == kind) for kind in KINDS}
        sums = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items() if count)
        lines = [
            "SETS (table 7)",
            _table(head, rows, right=(2,)),
            f"In all {sum(kinds.values()):,}: {sums}.",
        ]
        if kinds["retrieval"] != PAPER_RETRIEVAL_SAMPLES:
            lines.append(f"The paper's 15 retrieval sets have {PAPER_RETRIEVAL_SAMPLES:,}.")
        else:
            lines.append(f"The paper states {PAPER_RETRIEVAL_SAMPLES:,} for retrieval, which table 7's counts sum to.")
        lines.append(
            "Columns were read in the sets' cards or in code that uses them; "
            f"{sum(one.verified for one in self.recipe.sets)} of {len(self.recipe.sets)} were verified by loading it."
        )
        return "\n".join(lines)

    def _mining(self) -> str:
        wanted, teacher = self.recipe.num_negatives, self.recipe.mining.teacher
        mined, drawn = (sum(self.recipe.samples_of(one) for one in sets) for sets in (self.mined, self.drawn))
        implied = _operations_per_hour(self.recipe) * PAPER_HOURS_PER_MILLION_PASSAGES
        implied /= 1e6 * 2 * self.recipe.base.architecture.parameters
        return "\n".join(
            [
                f"MINING ({teacher.model}, {self.recipe.mining.miner.method})",
                f"To mine: {mined:,} rows x {wanted} = {mined * wanted:,} negatives, from retrieval and sts sets.",
                f"To draw: {drawn:,} rows x {wanted} = {drawn * wanted:,}, texts of other labels.",
                f"To embed: at most {self.passages:,} passages and {mined:,} queries.",
                f"Hours: {in_hours(self.mining_hours)} for the passages at the paper's "
                f"{PAPER_HOURS_PER_MILLION_PASSAGES:g} per million on 8 A100, a pace that means {implied:,.0f} tokens "
                f"per passage at our utilisation (limit {teacher.max_length:,}).",
            ]
        )

    def _steps(self, plan: StagePlan) -> str:
        stage, paper = plan.stage, plan.stage.paper_steps
        head = ["a step is", "rows", "mixed", "one set each", "with the last"]
        rows = [
            [reading.what, f"{reading.rows:,}", *(f"{steps:,}" for steps in reading.steps)] for reading in plan.readings
        ]
        if paper is not None:
            head += ["paper's rows", "hours of these"]
            for row, reading in zip(rows, plan.readings, strict=True):
                row += [f"{paper * reading.rows:,}", in_hours(plan.hours(rows=paper * reading.rows))]
        lines = [
            f"STEPS PER EPOCH of {stage.name!r} ({plan.rows:,} rows)",
            _table(head, rows, right=tuple(range(1, len(head)))),
        ]
        if paper is not None and plan.nearest is not None:
            lines.append(_verdict(plan.nearest, paper, plan.rows))
        kind = "of one set" if stage.homogeneous_batches else "mixed"
        ending = "left out" if stage.training.dataloader_drop_last else "kept"
        lines.append(
            f"This recipe: {plan.steps:,} updates per epoch, {plan.steps * stage.training.num_train_epochs:,} in all "
            f"(a GPU's batch is {kind}, the last is {ending})."
        )
        return "\n".join(lines)

    def _memory(self) -> str:
        base, machines = self.recipe.base, self.recipe.machines
        weights = base.architecture.parameters * BYTES[base.dtype] / GIB
        lines = [
            "MEMORY OF A GPU (an estimate: no buffers, no fragmentation)",
            f"{base.architecture.parameters / 1e9:.2f} billion weights in {base.dtype}: {weights:.1f} GiB. "
            f"{self.adapter_parameters / 1e6:.1f} million LoRA parameters in float32, with gradients and AdamW: "
            f"{self.fixed_memory - weights:.1f} GiB.",
        ]
        for plan in self.stages:
            needed = self.fixed_memory + plan.activations
            verdict = "fits" if needed < machines.memory else "DOES NOT FIT"
            how = "with" if plan.stage.training.activation_checkpointing else "without"
            lines.append(
                f"Activations of {plan.stage.name!r}, {how} activation checkpointing, texts at their limits: "
                f"{plan.activations:.1f} GiB; together {needed:.0f} of {machines.memory} GiB, which {verdict}."
            )
        return "\n".join(lines)

    def _hours(self) -> str:
        machines = self.recipe.machines
        longest = sum(plan.hours(longest=True) for plan in self.stages)
        mean = sum(plan.hours() for plan in self.stages)
        rows = [
            [plan.stage.name, f"{plan.stage.training.num_train_epochs}"]
            + [
                text
                for longest in (True, False)
                for text in (f"{plan.tokens(longest=longest) / 1e9:.2f}", in_hours(plan.hours(longest=longest)))
            ]
            for plan in self.stages
        ]
        head = ["stage", "epochs", "10^9 tokens at limits", "hours", "at mean lengths", "hours"]
        guessed = [one.name for one in self.recipe.sets if not one.tokens_known]
        passes = {PASSES[stage.training.activation_checkpointing] for stage in self.recipe.stages}
        how = " or ".join(str(2 * count) for count in sorted(passes))
        return "\n".join(
            [
                f"HOURS OF TRAINING on {machines.gpus} GPUs, {machines.teraflops:g} teraflops each, "
                f"{machines.utilisation:.0%} of them used",
                _table(head, rows, right=(1, 2, 3, 4, 5)),
                f"In all {in_hours(longest, unit=' h')} with every text at its limit, {in_hours(mean, unit=' h')} at "
                f"mean lengths without padding ({in_hours(machines.gpus * mean, unit=' GPU hours')}); the paper: about "
                f"{PAPER_TRAINING_HOURS:g} h on 8 A100.",
                f"{how} operations per weight and token; attention itself, loss, evaluation and waiting are left out. "
                "Mean lengths: F2LLM report (arXiv 2510.02294), another tokenizer"
                + (f"; a guess for {', '.join(guessed)}." if guessed else "."),
                _implied(mean, self.stages, machines.utilisation),
            ]
        )


def plan(recipe: NVRetriever) -> str:
    """What a run takes, for people."""
    return str(Plan(recipe))


def _operations_per_hour(recipe: NVRetriever) -> float:
    machines = recipe.machines
    return machines.gpus * machines.teraflops * 1e12 * machines.utilisation * 3600


def _verdict(nearest: Reading, paper: int, rows: int) -> str:
    least = nearest.off_by(paper)
    if least == 0:
        return f"The paper's {paper:,} comes out if a step is {nearest.what}."
    low, high = paper * nearest.rows, (paper + 1) * nearest.rows - 1
    return (
        f"The paper's {paper:,} comes out under no reading; nearest is a step that is {nearest.what}, {least:.0%} off. "
        f"It would need {low:,} to {high:,} rows per epoch, and table 7 counts {rows:,}."
    )


def _implied(mean: float, stages: Sequence[StagePlan], utilisation: float) -> str:
    share = utilisation * mean / PAPER_TRAINING_HOURS
    return f"To train all these rows in {PAPER_TRAINING_HOURS:g} h on such GPUs would use {share:.0%} of their peak" + (
        ", more than is usual: it may have trained on fewer or shorter texts." if share > USUAL_UTILISATION else "."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: tuple[int, ...]) -> str:
    """Columns of text side by side."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
