"""What a run of the ablation takes, by arithmetic alone. Nothing is loaded."""

from __future__ import annotations

from recipes.ablation.recipe import BM25, RANDOM, Ablation
from recipes.ablation.settings import runs_of
from recipes.common.command import in_hours


def plan(recipe: Ablation) -> str:
    """What a run takes, for people: trainings and rough hours."""
    runs, pace = runs_of(recipe), recipe.pace
    rows = sum(one.rows for one in recipe.training_sets)
    models = [one for one in recipe.teachers if one.model not in (BM25, RANDOM)]
    hours = {"mining": len(models) * (pace.corpus + rows) / pace.embedded / 3600}
    lines = [f"{rows:,} rows of {', '.join(f'{one.name} ({one.rows:,})' for one in recipe.training_sets)}"]
    for student in recipe.students:
        own = [run for run in runs if run.setting.student == student.name]
        texts = rows * student.training.num_train_epochs * (2 + student.negatives)
        batch = student.training.per_device_train_batch_size * student.training.gradient_accumulation_steps
        each = texts / pace.trained[student.name] + pace.tested / pace.evaluated[student.name]
        hours[student.name] = len(own) * each / 3600
        lines.append(
            f"{student.name}: {len(own)} trainings of about {rows * student.training.num_train_epochs // batch:,} "
            f"updates with {student.negatives} negatives per query, about {each:,.0f} s each with its evaluation"
        )
    lines.append(f"Evaluation on {', '.join(one.name for one in recipe.test_sets)} ({recipe.harness})")
    total = ", ".join(f"{name} {in_hours(value, 1)}" for name, value in hours.items())
    lines.append(f"Hours on one device, at the recipe's pace: {total}; together {in_hours(sum(hours.values()), 1)}")
    return "\n".join(lines)
