"""What is trained: the trainings that the tables and figures need, each once."""

from __future__ import annotations

from dataclasses import dataclass

from hf_negmine.teachers import ENSEMBLES, parse_call
from recipes.ablation.recipe import RANDOM, Ablation, Mining, Teacher


@dataclass(frozen=True)
class Setting:
    """One way to train, whatever the seed.

    Attributes:
        student: its name.
        teacher: its name, or a spec of an ensemble of names, such as ``cross-sample(a, b)``.
        mining: method and sampler.
        in_batch_negatives: whether other rows' passages are negatives, too.
    """

    student: str
    teacher: str
    mining: Mining
    in_batch_negatives: bool

    def __str__(self) -> str:
        others = "in-batch and hard" if self.in_batch_negatives else "hard"
        return f"{self.student}, {self.teacher}, {self.mining}, {others} negatives"


@dataclass(frozen=True)
class Run:
    """One training: a setting with a seed."""

    setting: Setting
    seed: int

    def __str__(self) -> str:
        return f"{self.setting}, seed {self.seed}"


def ensemble_of(kind: str, recipe: Ablation) -> str:
    """The spec of an ensemble, as a `Setting` has it."""
    return f"{kind}({', '.join(recipe.ensemble)})"


def mining_of(teacher: Teacher, recipe: Ablation) -> Mining:
    """What is mined with a teacher for table 1. Random scores say nothing about positives, so they have no ceiling."""
    return Mining("naive") if teacher.model == RANDOM else recipe.mining


def settings_of_teachers(recipe: Ablation) -> list[Setting]:
    """The rows of table 1."""
    student, in_batch = recipe.students[0].name, recipe.in_batch_negatives[0]
    return [Setting(student, teacher.name, mining_of(teacher, recipe), in_batch) for teacher in recipe.teachers]


def settings_of_ensembles(recipe: Ablation) -> list[Setting]:
    """The rows of table 2; none without teachers to join."""
    student, in_batch = recipe.students[0].name, recipe.in_batch_negatives[0]
    kinds = ENSEMBLES if recipe.ensemble else ()
    return [Setting(student, ensemble_of(kind, recipe), recipe.mining, in_batch) for kind in kinds]


def settings_of_methods(recipe: Ablation, student: str, *, in_batch: bool) -> list[Setting]:
    """The rows of table 3 or 4; random negatives, which the paper has in table 1 alone, first.

    Masks and samplings are compared with the first student and its first kind of batch, samplings with every small
    student, and methods with each. A bag has hard negatives alone.
    """
    if recipe.student_of(student).kind == "bag":
        in_batch = False
    by_chance = [teacher for teacher in recipe.teachers if teacher.model == RANDOM]
    settings = [Setting(student, teacher.name, mining_of(teacher, recipe), in_batch) for teacher in by_chance]
    first = (student, in_batch) == (recipe.students[0].name, recipe.in_batch_negatives[0])
    small = recipe.student_of(student).is_small
    methods = [one for one in recipe.methods if first or (one.mask is None and (small or one.sampler == "top"))]
    return settings + [Setting(student, recipe.teacher, mining, in_batch) for mining in methods]


def methods_of(recipe: Ablation) -> list[Setting]:
    """The rows of table 3 whose negatives differ, with the first kind of batch: what figures 3 and 4 are about."""
    settings = settings_of_methods(recipe, recipe.students[0].name, in_batch=recipe.in_batch_negatives[0])
    return [one for one in settings if one.mining.mask is None and one.mining.negatives is None]


def teachers_of(setting: Setting, recipe: Ablation) -> list[Teacher]:
    """The teachers of a setting: one, or those of an ensemble."""
    call = parse_call(setting.teacher, ENSEMBLES)
    return [recipe.teacher_of(name) for name in ([setting.teacher] if call is None else call[1])]


def settings_of_sweeps(recipe: Ablation) -> dict[str, list[tuple[float, Setting]]]:
    """The points of figures 1 and 2, by curve."""
    student, in_batch = recipe.students[0].name, recipe.in_batch_negatives[0]
    return {
        sweep.name: [
            (value, Setting(student, recipe.teacher, sweep.mining(value, recipe.mining.method), in_batch))
            for value in sweep.values
        ]
        for sweep in recipe.sweeps
    }


def runs_of(recipe: Ablation) -> list[Run]:
    """Every training, each once: seed by seed, so that a study that is cut off has whole tables of fewer seeds."""
    first, *others = (student.name for student in recipe.students)
    settings = settings_of_methods(recipe, first, in_batch=recipe.in_batch_negatives[0])
    settings += settings_of_teachers(recipe)
    for second in others:
        settings += settings_of_methods(recipe, second, in_batch=recipe.in_batch_negatives[0])
    settings += settings_of_ensembles(recipe)
    for in_batch in recipe.in_batch_negatives[1:]:
        settings += settings_of_methods(recipe, first, in_batch=in_batch)
    swept = [setting for points in settings_of_sweeps(recipe).values() for _, setting in points]
    every = [Run(setting, seed) for seed in recipe.seeds for setting in settings]
    every += [Run(setting, seed) for seed in recipe.sweep_seeds for setting in swept]
    return list(dict.fromkeys(every))
