"""Options that several commands share, each with one plain sentence of help. Imports nothing heavy: help is quick."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from hf_negmine.base.errors import InputError

DATA, NEGATIVES, TEACHER, OUTPUT, RUNNING = "Data", "Negatives", "Teacher", "Output", "Running"

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
    "What scores passages: a Sentence Transformers model id or folder, [cyan]cross-encoder:MODEL[/], "
    "[cyan]sparse:MODEL[/], [cyan]late-interaction:MODEL[/], [cyan]api:MODEL[/] of an OpenAI-compatible server, "
    "[cyan]faiss:IVF1024,Flat:MODEL[/] or another FAISS index of a model's vectors, for corpora of many millions, "
    "[cyan]bm25[/] ([cyan]bm25:german[/]), [cyan]random[/], or [cyan]fixed:FOLDER[/] with vectors of your own; several "
    "combined into one score, [cyan]rrf(bm25, MODEL)[/] by their ranks or [cyan]sum(bm25, MODEL)[/] by their scores."
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

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def method_spec(value: str | None) -> str | None:
    """The spec of a method, checked."""
    from hf_negmine.select.methods import parse_method

    return checked(parse_method, value)


def sampler_spec(value: str | None) -> str | None:
    """The spec of a sampler, checked."""
    from hf_negmine.select.samplers import parse_sampler

    return checked(parse_sampler, value)


def folder(parameter: typer.CallbackParam, value: Path | None) -> Path | None:
    """A folder with its ``~`` resolved, which a shell does not do after ``--output=``."""
    from hf_negmine.base.paths import folder_of

    try:
        return None if value is None else folder_of(value, str(parameter.name))
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


def checked(parse: Callable[[str], object], value: str | None) -> str | None:
    """``value`` if it is None or can be parsed; a usage error if not, before anything is read."""
    try:
        if value is not None:
            parse(value)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    return value


def option(
    panel: str, help: str, *names: str, value: str | None = None, default: str | bool = True, **more: Any
) -> Any:
    """An option in a panel of the help.

    Args:
        value: the name of its value.
        default: the default in words.
    """
    return typer.Option(*names, rich_help_panel=panel, help=help, metavar=value, show_default=default, **more)


RowsArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="ROWS",
        help="Rows of (query, positive): a data set id on the Hub, a Parquet, JSONL, CSV or TSV file (compressed or "
        "not), here or at an address, a BEIR folder, or a folder of save_to_disk.",
    ),
]
Corpus: TypeAlias = Annotated[
    str | None,
    option(
        DATA,
        "Passages to search besides the positives: a file, a folder or a data set id.",
        value="PATH",
        default="the positives alone, or a BEIR folder's own",
    ),
]
Split: TypeAlias = Annotated[str | None, option(DATA, "Split of ROWS.", value="NAME", default="the only one, or train")]
RowsConfig: TypeAlias = Annotated[
    str | None,
    option(
        DATA,
        "Config of ROWS, where they are a data set on the Hub that has several.",
        "--config",
        value="NAME",
        default="the only one",
    ),
]
CorpusConfig: TypeAlias = Annotated[
    str | None, option(DATA, "Config of the corpus, likewise.", value="NAME", default="the only one")
]
QueryColumn: TypeAlias = Annotated[
    str | None, option(DATA, "Column of the query texts.", value="NAME", default="the first of just two columns")
]
PositiveColumn: TypeAlias = Annotated[
    str | None,
    option(
        DATA,
        "Column of the positives, one text or a list of texts per row.",
        value="NAME",
        default="the second of just two columns",
    ),
]
CorpusColumn: TypeAlias = Annotated[
    str | None,
    option(
        DATA, "Column of the passages in the corpus.", value="NAME", default="text, passage, document, or the only text"
    ),
]

MethodSpec: TypeAlias = Annotated[
    str, option(NEGATIVES, METHODS_HELP, "--method", "-m", value="SPEC", callback=method_spec)
]
SamplerSpec: TypeAlias = Annotated[
    str, option(NEGATIVES, SAMPLERS_HELP, "--sampler", "-s", value="SPEC", callback=sampler_spec)
]
NumNegatives: TypeAlias = Annotated[
    int, option(NEGATIVES, "Negatives per query.", "--num-negatives", "-n", value="N", min=1)
]
PositiveScoreOption: TypeAlias = Annotated[
    PositiveScoreName,
    option(
        NEGATIVES, "With several positives per query, the lowest score sets the limit (min), or each its own (each)."
    ),
]
OnExhausted: TypeAlias = Annotated[
    OnExhaustedName,
    option(NEGATIVES, "A row for which the corpus has too few passages is dropped, kept with fewer, or an error."),
]
Seed: TypeAlias = Annotated[
    int, option(NEGATIVES, "Seed of the sampler; the same seed gives the same negatives.", value="N")
]
PoolDepth: TypeAlias = Annotated[
    int, option(NEGATIVES, "Candidates per query that are kept in the cache.", value="N", min=1)
]

QueryPrompt: TypeAlias = Annotated[
    str | None, option(TEACHER, "Text put before every query.", value="TEXT", default="the model's own")
]
PassagePrompt: TypeAlias = Annotated[
    str | None, option(TEACHER, "Text put before every passage.", value="TEXT", default="the model's own")
]
Dtype: TypeAlias = Annotated[
    DtypeName | None,
    option(
        TEACHER,
        "Number format of the weights. [cyan]bfloat16[/] takes half the memory and, on a processor made for it, less "
        "than half the time; some of the negatives change.",
        value="NAME",
        default="the one that the model is stored in",
    ),
]
MaxLength: TypeAlias = Annotated[
    int | None, option(TEACHER, "Tokens that the model reads of a text.", value="N", default="the model's own", min=1)
]

Output: TypeAlias = Annotated[
    Path, option(OUTPUT, "Folder to write to.", "--output", "-o", value="DIR", callback=folder)
]
FormatOption: TypeAlias = Annotated[FormatName, option(OUTPUT, FORMATS_HELP, "--format", "-f", value="NAME")]
Scores: TypeAlias = Annotated[bool, option(OUTPUT, "Also write the teacher's scores.", "--scores")]
Overwrite: TypeAlias = Annotated[
    bool, option(OUTPUT, "Write into a folder with files that this command did not write.", "--overwrite")
]

CacheDir: TypeAlias = Annotated[
    Path | None,
    option(
        RUNNING,
        "Where vectors and scores are stored, so that a second run is quick.",
        value="DIR",
        callback=folder,
        default="$HF_NEGMINE_CACHE or ~/.cache/hf_negmine",
    ),
]
Device: TypeAlias = Annotated[
    str | None,
    option(RUNNING, "Where to encode and search: cpu, cuda, cuda:1, …", value="NAME", default="a GPU if there is one"),
]
Quiet: TypeAlias = Annotated[bool, option(RUNNING, "Print only where the data went.", "--quiet", "-q")]
Debug: TypeAlias = Annotated[bool, option(RUNNING, "Show the traceback when something fails.", "--debug")]
