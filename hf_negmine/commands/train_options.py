"""The options of ``hf-negmine train`` that no other command has."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hf_negmine.commands.options import (
    DATA,
    METHODS_HELP,
    NEGATIVES,
    OUTPUT,
    RUNNING,
    SAMPLERS_HELP,
    TEACHER,
    TEACHERS_HELP,
    PositiveScoreName,
    folder,
    method_spec,
    option,
    sampler_spec,
)

TRAINING, EVALUATION = "Training", "Evaluation"
TRAIN_SAMPLER = "sampled:10"
LOSSES_HELP = (
    "[cyan]positive-aware[/] contrasts the positive with its negatives and the batch's other passages, except likely "
    "right answers; [cyan]cached[/] the same for batches larger than the memory; [cyan]mnrl[/] takes every other "
    "passage for wrong."
)
REFRESH_HELP = (
    "Negatives that keep up with the model, before every epoch but the first: [cyan]student[/] searches again with the "
    "model itself, [cyan]easy[/] replaces those that it finds easy by the teacher's next ones."
)


class LossName(str, Enum):
    """`train.run.Loss` for the command line."""

    POSITIVE_AWARE = "positive-aware"
    CACHED = "cached"
    MNRL = "mnrl"


class RefreshName(str, Enum):
    """`train.run.Rule` for the command line."""

    STUDENT = "student"
    EASY = "easy"


TrainRows: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="ROWS",
        show_default=False,
        help="Rows of (query, positive), as in mine; they are mined first, by --teacher. Or rows that hold negatives: "
        "a folder that mine has written, or any file of such rows.",
    ),
]
Mined: TypeAlias = Annotated[
    str | None,
    option(
        DATA,
        "Mined rows to train on, instead of mining: a folder that mine has written. With ROWS, only those of ROWS.",
        value="DIR",
        default=False,
    ),
]
TrainSplit: TypeAlias = Annotated[
    str | None,
    option(
        DATA,
        "Split of ROWS, or of --mined without ROWS if it is a data set id or a folder with splits.",
        "--split",
        value="NAME",
        default="the only one, or train",
    ),
]
TrainConfig: TypeAlias = Annotated[
    str | None,
    option(DATA, "Config of the same, if it is a data set id.", "--config", value="NAME", default="the only one"),
]
StudentModel: TypeAlias = Annotated[
    str, option(TRAINING, "The Sentence Transformers model to train: an id or a folder.", "--model", value="MODEL")
]
LossOption: TypeAlias = Annotated[LossName, option(TRAINING, LOSSES_HELP, "--loss")]
InBatchNegatives: TypeAlias = Annotated[
    bool,
    option(
        TRAINING,
        "Contrast the positive with its own negatives only, not with the batch's other passages.",
        "--no-in-batch-negatives",
        default=False,
    ),
]
Epochs: TypeAlias = Annotated[float, option(TRAINING, "How often every row is trained on.", value="N", min=0)]
BatchSize: TypeAlias = Annotated[
    int, option(TRAINING, "Rows per step, each with its negatives.", "--batch-size", "-b", value="N", min=1)
]
MiniBatchSize: TypeAlias = Annotated[
    int | None, option(TRAINING, "Rows at once in memory, with --loss cached.", value="N", default="32", min=1)
]
LearningRate: TypeAlias = Annotated[
    float, option(TRAINING, "Highest learning rate.", "--learning-rate", "--lr", value="X", min=0)
]
WarmupRatio: TypeAlias = Annotated[
    float, option(TRAINING, "Share of the steps over which the learning rate rises.", value="X", min=0, max=1)
]
MaxSeqLength: TypeAlias = Annotated[
    int | None, option(TRAINING, "Tokens that the model reads of a text.", value="N", default="the model's own", min=1)
]
StudentQueryPrompt: TypeAlias = Annotated[
    str | None,
    option(
        TRAINING,
        "Text put before every query; saved with the model, which then adds it by itself.",
        "--query-prompt",
        value="TEXT",
        default="the model's own",
    ),
]
StudentPassagePrompt: TypeAlias = Annotated[
    str | None,
    option(TRAINING, "The same before every passage.", "--passage-prompt", value="TEXT", default="the model's own"),
]
TrainSeed: TypeAlias = Annotated[
    int,
    option(TRAINING, "Seed of the row order and of the draws of negatives.", "--seed", value="N", min=0),
]

TrainTeacher: TypeAlias = Annotated[
    str | None,
    option(TEACHER, f"{TEACHERS_HELP} For rows without negatives.", "--teacher", "-t", value="MODEL", default=False),
]
TeacherQueryPrompt: TypeAlias = Annotated[
    str | None,
    option(
        TEACHER,
        "Text that the teacher puts before every query.",
        value="TEXT",
        default="its own; --query-prompt if it is the trained model",
    ),
]
TeacherPassagePrompt: TypeAlias = Annotated[
    str | None,
    option(TEACHER, "The same before every passage.", value="TEXT", default="likewise"),
]
TrainMethod: TypeAlias = Annotated[
    str | None,
    option(NEGATIVES, METHODS_HELP, "--method", "-m", value="SPEC", callback=method_spec, default="perc_pos:0.95"),
]
TrainSampler: TypeAlias = Annotated[
    str | None,
    option(
        NEGATIVES,
        SAMPLERS_HELP + " Every epoch draws again.",
        "--sampler",
        "-s",
        value="SPEC",
        callback=sampler_spec,
        default=f"{TRAIN_SAMPLER}, or the first of the mined ones",
    ),
]
TrainNumNegatives: TypeAlias = Annotated[
    int | None,
    option(
        NEGATIVES,
        "Negatives per query.",
        "--num-negatives",
        "-n",
        value="N",
        default="4, or all that a mined row has",
        min=1,
    ),
]
TrainPositiveScore: TypeAlias = Annotated[
    PositiveScoreName | None,
    option(
        NEGATIVES,
        "With several positives per query, the lowest score sets the limit (min), or each its own (each).",
        "--positive-score",
        default="min",
    ),
]
RefreshOption: TypeAlias = Annotated[RefreshName | None, option(NEGATIVES, REFRESH_HELP, "--refresh", default=False)]

EvalFolder: TypeAlias = Annotated[
    Path | None,
    option(
        EVALUATION,
        "A BEIR folder (corpus, queries, qrels) on which NDCG@10 is measured before and after.",
        "--eval",
        value="DIR",
        callback=folder,
        default=False,
    ),
]
EvalSplit: TypeAlias = Annotated[
    str | None, option(EVALUATION, "Split of its qrels.", value="NAME", default="the only one, or test")
]

TrainOutput: TypeAlias = Annotated[
    Path, option(OUTPUT, "Folder for the model and its card.", "--output", "-o", value="DIR", callback=folder)
]
TrainOverwrite: TypeAlias = Annotated[
    bool,
    option(OUTPUT, "Start over in a folder that holds a model, an interrupted run or other files.", "--overwrite"),
]
Resume: TypeAlias = Annotated[
    bool,
    option(RUNNING, "Continue an interrupted run in --output from where it was last saved.", "--resume"),
]
TrainDevice: TypeAlias = Annotated[
    str | None,
    option(RUNNING, "Where to train: cpu or cuda.", "--device", value="NAME", default="a GPU if there is one"),
]
TrainQuiet: TypeAlias = Annotated[
    bool, option(RUNNING, "Print only the evaluation and where the model went.", "--quiet", "-q")
]
