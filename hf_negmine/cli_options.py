"""The options of the command, each with one plain sentence of help. Imports nothing heavy, so that help is quick."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from hf_negmine.errors import InputError

DATA, NEGATIVES, TEACHER, OUTPUT, RUNNING = "Data", "Negatives", "Teacher", "Output", "Running"
TRAINING, EVALUATION = "Training", "Evaluation"
REPOSITORY, CARD = "Repository", "Card"

METHODS_HELP = (
    "Which passages may be negatives, by the teacher's score: [cyan]perc_pos:0.95[/] under 95 % of the positive's "
    "score, [cyan]margin_pos:0.05[/] more than 0.05 below it, [cyan]abs:0.7[/] under 0.7, [cyan]shifted:10[/] all but "
    "the first 10 ranks, [cyan]band:30-100[/] only these ranks ([cyan]band:3%-4%[/] of the corpus), [cyan]min:0.2[/] "
    "at least 0.2, [cyan]naive[/] all. Several joined by + must all agree."
)
SAMPLERS_HELP = (
    "How negatives are drawn from them: [cyan]top[/] the best, [cyan]sampled:10[/] by softmax from the 10 best, "
    "[cyan]top1_sampled:10[/] the best and the others by softmax; [cyan]sampled:10@0.05[/] with a temperature."
)
TEACHERS_HELP = (
    "What scores passages: a Sentence Transformers model id or folder, [cyan]bm25[/] ([cyan]bm25:german[/]), "
    "[cyan]random[/], or [cyan]fixed:FOLDER[/] with vectors of your own."
)
FORMATS_HELP = (
    "Layout of the rows: [cyan]n-tuple[/] with all negatives, [cyan]triplet[/] one for each negative, "
    "[cyan]labeled-pair[/] one for each passage with a label, [cyan]labeled-list[/] lists of passages and labels, "
    "[cyan]ids[/] passage ids and scores with lookup tables."
)


class FormatName(str, Enum):
    """`mined.Format` for the command line."""

    N_TUPLE = "n-tuple"
    TRIPLET = "triplet"
    LABELED_PAIR = "labeled-pair"
    LABELED_LIST = "labeled-list"
    IDS = "ids"


class PositiveScoreName(str, Enum):
    """`select.PositiveScore` for the command line."""

    MIN = "min"
    EACH = "each"


class OnExhaustedName(str, Enum):
    """`mined.OnExhausted` for the command line."""

    DROP = "drop"
    KEEP = "keep"
    ERROR = "error"


class DtypeName(str, Enum):
    """Number formats of `teachers.DenseTeacher`."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class LossName(str, Enum):
    """`train.run.Loss` for the command line."""

    POSITIVE_AWARE = "positive-aware"
    CACHED = "cached"
    MNRL = "mnrl"


class RefreshName(str, Enum):
    """`train.run.Rule` for the command line."""

    STUDENT = "student"
    EASY = "easy"


def _method_spec(value: str | None) -> str | None:
    from hf_negmine.methods import parse_method

    return _checked(parse_method, value)


def _sampler_spec(value: str | None) -> str | None:
    from hf_negmine.select.samplers import parse_sampler

    return _checked(parse_sampler, value)


def _checked(parse: Callable[[str], object], value: str | None) -> str | None:
    """``value`` if it is None or can be parsed; a usage error if not, before anything is read."""
    try:
        if value is not None:
            parse(value)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    return value


def _option(
    panel: str, help: str, *names: str, value: str | None = None, default: str | bool = True, **more: Any
) -> Any:
    """An option in a panel of the help.

    Args:
        value: what its value is called.
        default: what leaving it out means, in words.
    """
    return typer.Option(*names, rich_help_panel=panel, help=help, metavar=value, show_default=default, **more)


RowsArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="ROWS",
        help="Rows of (query, positive): a data set id on the Hub, a Parquet, JSONL, CSV or TSV file, a BEIR folder, "
        "or a folder of save_to_disk.",
    ),
]
Corpus: TypeAlias = Annotated[
    str | None,
    _option(
        DATA,
        "Passages to search besides the positives: a file, a folder or a data set id.",
        value="PATH",
        default="the positives alone, or a BEIR folder's own",
    ),
]
Split: TypeAlias = Annotated[
    str | None, _option(DATA, "Split of ROWS.", value="NAME", default="the only one, or train")
]
QueryColumn: TypeAlias = Annotated[
    str | None, _option(DATA, "Column of the query texts.", value="NAME", default="the first of just two columns")
]
PositiveColumn: TypeAlias = Annotated[
    str | None,
    _option(
        DATA,
        "Column of the positives, a text or a list of texts a row.",
        value="NAME",
        default="the second of just two columns",
    ),
]
CorpusColumn: TypeAlias = Annotated[
    str | None,
    _option(
        DATA, "Column of the passages in the corpus.", value="NAME", default="text, passage, document, or the only text"
    ),
]

MethodSpec: TypeAlias = Annotated[
    str, _option(NEGATIVES, METHODS_HELP, "--method", "-m", value="SPEC", callback=_method_spec)
]
SamplerSpec: TypeAlias = Annotated[
    str, _option(NEGATIVES, SAMPLERS_HELP, "--sampler", "-s", value="SPEC", callback=_sampler_spec)
]
NumNegatives: TypeAlias = Annotated[
    int, _option(NEGATIVES, "Negatives a query.", "--num-negatives", "-n", value="N", min=1)
]
PositiveScoreOption: TypeAlias = Annotated[
    PositiveScoreName,
    _option(
        NEGATIVES, "Of a query with several positives, the lowest score sets the limit (min), or each its own (each)."
    ),
]
OnExhausted: TypeAlias = Annotated[
    OnExhaustedName,
    _option(NEGATIVES, "A row for which the corpus has too few passages is dropped, kept with fewer, or an error."),
]
Seed: TypeAlias = Annotated[
    int, _option(NEGATIVES, "Seed of the sampler; the same seed gives the same negatives.", value="N")
]
PoolDepth: TypeAlias = Annotated[
    int, _option(NEGATIVES, "Candidates a query that are kept in the cache.", value="N", min=1)
]

TeacherSpec: TypeAlias = Annotated[str, _option(TEACHER, TEACHERS_HELP, "--teacher", "-t", value="MODEL")]
QueryPrompt: TypeAlias = Annotated[
    str | None, _option(TEACHER, "Text put before every query.", value="TEXT", default="the model's own")
]
PassagePrompt: TypeAlias = Annotated[
    str | None, _option(TEACHER, "Text put before every passage.", value="TEXT", default="the model's own")
]
Dtype: TypeAlias = Annotated[
    DtypeName,
    _option(TEACHER, "Weights as float32, bfloat16, float16, or auto: bfloat16 where that is fast.", value="NAME"),
]
MaxLength: TypeAlias = Annotated[
    int | None, _option(TEACHER, "Tokens that the model reads of a text.", value="N", default="the model's own", min=1)
]

Output: TypeAlias = Annotated[Path, _option(OUTPUT, "Folder to write to.", "--output", "-o", value="DIR")]
FormatOption: TypeAlias = Annotated[FormatName, _option(OUTPUT, FORMATS_HELP, "--format", "-f", value="NAME")]
Scores: TypeAlias = Annotated[bool, _option(OUTPUT, "Also write the teacher's scores.", "--scores")]
Overwrite: TypeAlias = Annotated[
    bool, _option(OUTPUT, "Write into a folder with files that this command did not write.", "--overwrite")
]

CacheDir: TypeAlias = Annotated[
    Path | None,
    _option(
        RUNNING,
        "Where vectors and scores are kept, so that a second run is quick.",
        value="DIR",
        default="$HF_NEGMINE_CACHE or ~/.cache/hf_negmine",
    ),
]
Device: TypeAlias = Annotated[
    str | None,
    _option(RUNNING, "Where to encode and search: cpu, cuda, cuda:1, …", value="NAME", default="a GPU if there is one"),
]
Quiet: TypeAlias = Annotated[bool, _option(RUNNING, "Print only where the data went.", "--quiet", "-q")]
Debug: TypeAlias = Annotated[bool, _option(RUNNING, "Show the traceback when something fails.", "--debug")]

# ---- train ----------------------------------------------------------------------------------------------------------

TRAIN_SAMPLER = "sampled:10"
LOSSES_HELP = (
    "[cyan]positive-aware[/] tells a query from its negatives and from the batch's other passages, but for those that "
    "are likely right answers; [cyan]cached[/] the same for batches larger than the memory; [cyan]mnrl[/] takes every "
    "other passage for wrong."
)
REFRESH_HELP = (
    "Negatives that keep up with the model, before every epoch but the first: [cyan]student[/] searches again with the "
    "model itself, [cyan]easy[/] replaces those that it finds easy by the next of the teacher's."
)

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
    _option(
        DATA,
        "Mined rows to train on, in place of mining: a folder that mine has written. With ROWS, only those of ROWS.",
        value="DIR",
        default=False,
    ),
]
StudentModel: TypeAlias = Annotated[
    str, _option(TRAINING, "The Sentence Transformers model to train: an id or a folder.", "--model", value="MODEL")
]
LossOption: TypeAlias = Annotated[LossName, _option(TRAINING, LOSSES_HELP, "--loss")]
InBatchNegatives: TypeAlias = Annotated[
    bool,
    _option(
        TRAINING,
        "Tell a query from its own negatives only, not from the batch's other passages.",
        "--no-in-batch-negatives",
        default=False,
    ),
]
Epochs: TypeAlias = Annotated[float, _option(TRAINING, "Times that every row is trained on.", value="N", min=0)]
BatchSize: TypeAlias = Annotated[
    int, _option(TRAINING, "Rows a step, each with its negatives.", "--batch-size", "-b", value="N", min=1)
]
MiniBatchSize: TypeAlias = Annotated[
    int, _option(TRAINING, "Rows at once in memory, with --loss cached.", value="N", min=1)
]
LearningRate: TypeAlias = Annotated[
    float, _option(TRAINING, "Highest learning rate.", "--learning-rate", "--lr", value="X", min=0)
]
WarmupRatio: TypeAlias = Annotated[
    float, _option(TRAINING, "Share of the steps over which the learning rate rises.", value="X", min=0, max=1)
]
MaxSeqLength: TypeAlias = Annotated[
    int | None, _option(TRAINING, "Tokens that the model reads of a text.", value="N", default="the model's own", min=1)
]
StudentQueryPrompt: TypeAlias = Annotated[
    str | None,
    _option(
        TRAINING,
        "Text put before every query, and saved with the model, which then puts it there by itself.",
        "--query-prompt",
        value="TEXT",
        default="the model's own",
    ),
]
StudentPassagePrompt: TypeAlias = Annotated[
    str | None,
    _option(TRAINING, "The same before every passage.", "--passage-prompt", value="TEXT", default="the model's own"),
]
TrainSeed: TypeAlias = Annotated[
    int,
    _option(TRAINING, "Seed of the row order and of the draws of negatives.", "--seed", value="N", min=0),
]

TrainTeacher: TypeAlias = Annotated[
    str | None,
    _option(TEACHER, f"{TEACHERS_HELP} For rows without negatives.", "--teacher", "-t", value="MODEL", default=False),
]
TeacherQueryPrompt: TypeAlias = Annotated[
    str | None,
    _option(
        TEACHER,
        "Text that the teacher has before every query.",
        value="TEXT",
        default="its own; --query-prompt if it is the model that is trained",
    ),
]
TeacherPassagePrompt: TypeAlias = Annotated[
    str | None,
    _option(TEACHER, "The same before every passage.", value="TEXT", default="likewise"),
]
TrainMethod: TypeAlias = Annotated[
    str | None,
    _option(NEGATIVES, METHODS_HELP, "--method", "-m", value="SPEC", callback=_method_spec, default="perc_pos:0.95"),
]
TrainSampler: TypeAlias = Annotated[
    str | None,
    _option(
        NEGATIVES,
        SAMPLERS_HELP + " Every epoch draws anew.",
        "--sampler",
        "-s",
        value="SPEC",
        callback=_sampler_spec,
        default=f"{TRAIN_SAMPLER}, or the first of the mined ones",
    ),
]
TrainNumNegatives: TypeAlias = Annotated[
    int | None,
    _option(
        NEGATIVES,
        "Negatives a query.",
        "--num-negatives",
        "-n",
        value="N",
        default="4, or all that a mined row has",
        min=1,
    ),
]
TrainPositiveScore: TypeAlias = Annotated[
    PositiveScoreName | None,
    _option(
        NEGATIVES,
        "Of a query with several positives, the lowest score sets the limit (min), or each its own (each).",
        "--positive-score",
        default="min",
    ),
]
RefreshOption: TypeAlias = Annotated[RefreshName | None, _option(NEGATIVES, REFRESH_HELP, "--refresh", default=False)]

EvalFolder: TypeAlias = Annotated[
    Path | None,
    _option(
        EVALUATION,
        "A BEIR folder (corpus, queries, qrels) on which NDCG@10 is measured before and after.",
        "--eval",
        value="DIR",
        default=False,
    ),
]
EvalSplit: TypeAlias = Annotated[
    str | None, _option(EVALUATION, "Split of its qrels.", value="NAME", default="the only one, or test")
]

TrainOutput: TypeAlias = Annotated[
    Path, _option(OUTPUT, "Folder for the model and its card.", "--output", "-o", value="DIR")
]
TrainOverwrite: TypeAlias = Annotated[
    bool,
    _option(OUTPUT, "Begin anew in a folder that holds a model, an interrupted run or other files.", "--overwrite"),
]
Resume: TypeAlias = Annotated[
    bool,
    _option(RUNNING, "Go on with an interrupted run in --output from where it was last saved.", "--resume"),
]
TrainDevice: TypeAlias = Annotated[
    str | None,
    _option(RUNNING, "Where to train: cpu or cuda.", "--device", value="NAME", default="a GPU if there is one"),
]
TrainQuiet: TypeAlias = Annotated[
    bool, _option(RUNNING, "Print only the evaluation and where the model went.", "--quiet", "-q")
]

# ---- push and reproduce ---------------------------------------------------------------------------------------------

MinedFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="What mine has written: its --output.", show_default=False)
]
RepoId: TypeAlias = Annotated[
    str, typer.Argument(metavar="USER/NAME", help="The data set on the Hub.", show_default=False)
]
Config: TypeAlias = Annotated[
    str,
    _option(
        REPOSITORY,
        "Which part of the data set, such as the name of a method: a repository holds several, and each push replaces "
        "one.",
        "--config",
        value="NAME",
    ),
]
HubSplit: TypeAlias = Annotated[str, _option(REPOSITORY, "Which split of it.", "--split", value="NAME")]
Private: TypeAlias = Annotated[
    bool | None,
    _option(
        REPOSITORY,
        "Who may see a repository that is made by this push.",
        "--private/--public",
        default="the account's default",
    ),
]
PushRevision: TypeAlias = Annotated[
    str | None,
    _option(
        REPOSITORY,
        "Branch to push to; it is made if it is not there.",
        "--revision",
        value="BRANCH",
        default="the main one",
    ),
]
WithPool: TypeAlias = Annotated[
    bool,
    _option(
        REPOSITORY,
        "Push the candidates and scores, too, so that others select by another method without the teacher.",
        "--with-pool",
    ),
]
License: TypeAlias = Annotated[
    str | None,
    _option(
        CARD,
        "Licence of the data, as the Hub names it: cc-by-4.0, mit, unknown, …",
        "--license",
        value="NAME",
        default="what the card has, or what all --source-dataset have",
    ),
]
Languages: TypeAlias = Annotated[
    list[str] | None,
    _option(CARD, "Language of the texts, as a code such as en; may be repeated.", "--language", value="CODE"),
]
SourceDatasets: TypeAlias = Annotated[
    list[str] | None,
    _option(
        CARD, "Data set on the Hub that the rows come from; may be repeated.", "--source-dataset", value="USER/NAME"
    ),
]
Token: TypeAlias = Annotated[
    str | None,
    _option(
        RUNNING,
        "Token of the Hub; a variable keeps it out of the shell's history.",
        "--token",
        value="TOKEN",
        default="the one of hf auth login",
        envvar="HF_TOKEN",
    ),
]
DryRun: TypeAlias = Annotated[
    bool, _option(RUNNING, "Write all files and the card to a folder, and send nothing.", "--dry-run")
]
PushCacheDir: TypeAlias = Annotated[
    Path | None,
    _option(
        RUNNING,
        "Where the rows were mined: their texts and candidates are taken from there.",
        "--cache-dir",
        value="DIR",
        default="$HF_NEGMINE_CACHE or ~/.cache/hf_negmine",
    ),
]
LoadRevision: TypeAlias = Annotated[
    str | None,
    _option(REPOSITORY, "Branch, tag or commit.", "--revision", value="NAME", default="the main branch"),
]
OtherTeacher: TypeAlias = Annotated[
    str | None,
    _option(
        TEACHER,
        "In place of the teacher that was mined with, such as a local copy of it.",
        "--teacher",
        "-t",
        value="MODEL",
        default="the same model from the Hub",
    ),
]
QuietReproduce: TypeAlias = Annotated[bool, _option(RUNNING, "Print only the verdict.", "--quiet", "-q")]
