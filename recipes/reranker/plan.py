"""What a run of the reranker recipe takes, by arithmetic alone. Nothing is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_negmine.base.wording import counted
from recipes.common.command import in_hours
from recipes.reranker.recipe import Reranker


@dataclass(frozen=True)
class Plan:
    """What a run takes; ``str(plan)`` is for people."""

    recipe: Reranker

    @property
    def rows(self) -> int:
        """Rows per epoch, at most."""
        return sum(one.rows for one in self.recipe.training_sets)

    @property
    def queries(self) -> int:
        """Test queries, at most."""
        return sum(one.queries or 0 for one in self.recipe.test_sets)

    @property
    def runs(self) -> int:
        """Trainings."""
        return len(self.recipe.negatives) * len(self.recipe.seeds)

    @property
    def steps(self) -> int:
        """Updates of one run on one device. A batch is of one set; what does not fill one is left out."""
        training = self.recipe.training
        batches = sum(one.rows // training.per_device_train_batch_size for one in self.recipe.training_sets)
        return training.num_train_epochs * math.ceil(batches / training.gradient_accumulation_steps)

    @property
    def pairs_trained(self) -> int:
        """Of one run."""
        training = self.recipe.training
        rows = self.steps * training.gradient_accumulation_steps * training.per_device_train_batch_size
        return rows * (1 + self.recipe.num_negatives)

    @property
    def pairs_scored(self) -> int:
        """Of one evaluation."""
        return self.queries * self.recipe.first_stage.candidates

    @property
    def hours(self) -> dict[str, float]:
        """By part, at the recipe's pace. Untrained rerankers are evaluated, too, one per seed."""
        recipe, pace = self.recipe, self.recipe.pace
        encoders = 1 if recipe.first_stage.encoder in (None, recipe.teacher) else 2
        seconds = {
            "embedding": (encoders * recipe.corpus_size + self.rows + self.queries) / pace.embedded,
            "training": self.runs * self.pairs_trained / pace.trained,
            "evaluation": (self.runs + len(recipe.seeds)) * self.pairs_scored / pace.scored,
        }
        return {part: value / 3600 for part, value in seconds.items()}

    def __str__(self) -> str:
        recipe, training = self.recipe, self.recipe.training
        layers = "all layers" if recipe.base.layers is None else f"first {recipe.base.layers} layers"
        first = "BM25" if recipe.first_stage.encoder is None else recipe.first_stage.encoder.model
        kinds = [f"  {one.name}: ranked by {one.scores}, {one.method}, {one.sampler}" for one in recipe.negatives]
        sets = ", ".join(f"{one.name} {one.rows:,}" for one in recipe.training_sets)
        tests = ", ".join(f"{one.name} {one.queries or 0:,} ({one.split})" for one in recipe.test_sets)
        batch, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
        hours = self.hours
        return "\n".join(
            [
                f"BASE: {recipe.base.model}, {layers}, {recipe.base.max_length} tokens per pair, one output",
                f"ROWS: {sets}; {self.rows:,} at most, one positive each",
                f"NEGATIVES: {recipe.num_negatives} per row, teacher {recipe.teacher.model}",
                *kinds,
                f"TEST QUERIES: {tests}; the {recipe.first_stage.candidates} best candidates of {first} each",
                f"RUNS: {counted(len(recipe.negatives), 'kind')} x {counted(len(recipe.seeds), 'seed')} = {self.runs}",
                f"STEPS: {self.steps:,} per run ({training.num_train_epochs} epochs of {batch} x {accumulation} rows "
                f"per step, {self.pairs_trained:,} pairs in all)",
                f"HOURS: {in_hours(sum(hours.values()), 1)} at the recipe's pace on one device: "
                + ", ".join(f"{part} {in_hours(value, 1)}" for part, value in hours.items()),
            ]
        )


def plan(recipe: Reranker) -> str:
    """What a run takes, for people."""
    return str(Plan(recipe))
