"""The command ``hf-negmine`` (and ``hf negmine``). Heavy modules are imported inside the commands: help is quick."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_negmine.errors import InputError, NegmineError

if TYPE_CHECKING:
    from hf_negmine.protocols import Teacher

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

METHODS_HELP = (
    "Which passages may be negatives, by the teacher's score: [cyan]perc_pos:0.95[/] under 95 % of the positive's "
    "score, [cyan]margin_pos:0.05[/] at least 0.05 below it, [cyan]abs:0.7[/] under 0.7, [cyan]shifted:10[/] all but "
    "the first 10 ranks, [cyan]band:30-100[/] only these ranks ([cyan]band:3%-4%[/] of the corpus), [cyan]min:0.2[/] at "
    "least 0.2, [cyan]naive[/] all. Join several with +."
)
SAMPLERS_HELP = (
    "How the negatives are drawn from them: [cyan]top[/] the best, [cyan]sampled:10[/] by softmax from the 10 best, "
    "[cyan]top1_sampled:10[/] the best one and the others so; [cyan]sampled:10@0.05[/] with a temperature."
)
MINE_EPILOG = """
[bold]Examples[/]

Question and answer pairs from the Hub, searched among their own answers:

  hf-negmine mine sentence-transformers/natural-questions --teacher intfloat/e5-base-v2 --output nq-mined

A file, a corpus of its own, and 7 negatives from the 20 best:

  hf-negmine mine pairs.jsonl --corpus passages.parquet --teacher bm25 --sampler sampled:20 -n 7 --output mined

A BEIR folder as ids and scores, for distillation:

  hf-negmine mine scifact/ --split train --teacher BAAI/bge-m3 --format ids --scores --output scifact-mined

Run the same command again after an interruption: finished work is kept in the cache and goes on where it stopped.
"""

app = typer.Typer(
    name="hf-negmine",
    help="Positive-aware hard negatives for retrieval training sets.",
    epilog="Begin with [cyan]hf-negmine demo[/], or read [cyan]hf-negmine mine --help[/].",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
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


def _method_spec(value: str) -> str:
    from hf_negmine.methods import parse_method

    return _usage_checked(parse_method, value)


def _sampler_spec(value: str) -> str:
    from hf_negmine.select.samplers import parse_sampler

    return _usage_checked(parse_sampler, value)


def _usage_checked(parse: Any, value: str) -> str:
    try:
        parse(value)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    return value


def _print_version(wanted: bool) -> None:
    if wanted:
        from hf_negmine import __version__

        typer.echo(f"hf_negmine {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Positive-aware hard negatives for retrieval training sets."""


DATA_PANEL, NEGATIVES_PANEL, TEACHER_PANEL = "Data", "Negatives", "Teacher"
OUTPUT_PANEL, RUNNING_PANEL = "Output", "Running"

CacheDir = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=RUNNING_PANEL,
        show_default="$HF_NEGMINE_CACHE or ~/.cache/hf_negmine",
        help="Where vectors and scores are kept, so that a second run is quick.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RUNNING_PANEL,
        show_default="a GPU if there is one",
        help="Where to encode and search, such as cpu or cuda:1.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", rich_help_panel=OUTPUT_PANEL, help="Write into a folder that holds other files, too."),
]
Debug = Annotated[
    bool, typer.Option("--debug", rich_help_panel=RUNNING_PANEL, help="Show the traceback if something fails.")
]


@app.command(epilog=MINE_EPILOG)
def mine(
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="Rows of (query, positive): a data set id on the Hub, a Parquet, JSONL, CSV or TSV file, a BEIR folder, or "
            "a folder of save_to_disk.",
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            "--teacher",
            "-t",
            rich_help_panel=TEACHER_PANEL,
            help="What scores passages: a Sentence Transformers model id or folder, [cyan]bm25[/] ([cyan]bm25:german[/]), "
            "[cyan]random[/], or [cyan]fixed:FOLDER[/] with vectors of your own.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", rich_help_panel=OUTPUT_PANEL, metavar="DIR", help="Folder to write to.")
    ],
    corpus: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=DATA_PANEL,
            show_default="the positives, or a BEIR folder's own",
            help="Passages to search: a file, a folder or a data set id.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(rich_help_panel=DATA_PANEL, show_default="the only one, or train", help="Split of the rows."),
    ] = None,
    query_column: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=DATA_PANEL, show_default="the first of two columns", help="Column of the query texts."
        ),
    ] = None,
    positive_column: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=DATA_PANEL,
            show_default="the second of two columns",
            help="Column of the positives: a text, or a list of texts.",
        ),
    ] = None,
    corpus_column: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=DATA_PANEL,
            show_default="text, passage, document, or the only one of texts",
            help="Column of the passages in the corpus.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", "-m", rich_help_panel=NEGATIVES_PANEL, callback=_method_spec, help=METHODS_HELP),
    ] = "perc_pos:0.95",
    sampler: Annotated[
        str,
        typer.Option("--sampler", "-s", rich_help_panel=NEGATIVES_PANEL, callback=_sampler_spec, help=SAMPLERS_HELP),
    ] = "top",
    num_negatives: Annotated[
        int, typer.Option("--num-negatives", "-n", min=1, rich_help_panel=NEGATIVES_PANEL, help="Negatives a query.")
    ] = 4,
    positive_score: Annotated[
        PositiveScoreName,
        typer.Option(
            rich_help_panel=NEGATIVES_PANEL,
            help="For a query with several positives: the lowest score sets the limit for all (min), or each its own (each).",
        ),
    ] = PositiveScoreName.MIN,
    on_exhausted: Annotated[
        OnExhaustedName,
        typer.Option(
            rich_help_panel=NEGATIVES_PANEL,
            help="A row for which the corpus holds too few passages is dropped, kept with fewer, or an error.",
        ),
    ] = OnExhaustedName.DROP,
    seed: Annotated[
        int,
        typer.Option(rich_help_panel=NEGATIVES_PANEL, help="Seed of the sampler; the same seed, the same negatives."),
    ] = 0,
    pool_depth: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel=NEGATIVES_PANEL, help="Candidates a query that are kept for later selections."
        ),
    ] = 64,
    query_prompt: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TEACHER_PANEL, show_default="the model's own", help="Text put before every query."
        ),
    ] = None,
    passage_prompt: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TEACHER_PANEL, show_default="the model's own", help="Text put before every passage."
        ),
    ] = None,
    dtype: Annotated[
        DtypeName,
        typer.Option(
            rich_help_panel=TEACHER_PANEL, help="Number format of the weights; auto is bfloat16 where that is fast."
        ),
    ] = DtypeName.AUTO,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=TEACHER_PANEL, show_default="the model's own", help="Tokens a text is cut to."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, rich_help_panel=TEACHER_PANEL, show_default="32", help="Texts the model reads at once."),
    ] = None,
    format: Annotated[
        FormatName,
        typer.Option(
            "--format",
            "-f",
            rich_help_panel=OUTPUT_PANEL,
            help="Layout: a row with all its negatives (n-tuple), a row a negative (triplet), a row a passage with a label "
            "(labeled-pair), lists of passages and labels (labeled-list), or ids with scores and two lookup tables (ids).",
        ),
    ] = FormatName.N_TUPLE,
    scores: Annotated[
        bool, typer.Option("--scores", rich_help_panel=OUTPUT_PANEL, help="Also write the teacher's scores.")
    ] = False,
    overwrite: Overwrite = False,
    cache_dir: CacheDir = None,
    device: Device = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", rich_help_panel=RUNNING_PANEL, help="Print nothing but where the data went."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Mine hard negatives for the queries of ROWS and write them as Parquet.

    The teacher scores every passage of the corpus for each query. Passages that score too near to the positive (or
    over it) are likely unlabelled positives: the method keeps them out before the best of the others are taken.
    """
    ...
