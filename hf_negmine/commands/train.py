"""``hf-negmine train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.base.paths import model_source
from hf_negmine.commands import options
from hf_negmine.commands.options import mining
from hf_negmine.commands.running import command, open_teacher, set_up_libraries
from hf_negmine.commands.signatures import Given, Signature, argument, option
from hf_negmine.commands.specs import folder, spec

if TYPE_CHECKING:
    from hf_negmine.train.data import TrainingData
    from hf_negmine.train.settings import TrainingSettings

HELP = """Fine-tune a Sentence Transformers model with hard negatives.

Either ROWS of (query, positive), which are mined first by --teacher and get other negatives every epoch, or rows that \
hold their negatives already: what mine has written, as --mined or as ROWS.
"""
STOPPED = "stopped; run the same command with --resume to continue"
TO_SAVE_MEMORY = (
    "give --device cpu, a smaller --batch-size or --max-seq-length, or --loss cached with a small --mini-batch-size"
)
EPILOG = """
[bold]Examples[/]

On what mine has written, with NDCG@10 before and after:

[cyan]hf-negmine train --mined nq-mined --model intfloat/e5-base-v2 --eval scifact/ -o nq-model[/]

Mined on the way: 4 negatives per query, drawn every epoch from the 10 best that the method allows:

[cyan]hf-negmine train pairs.jsonl -t BAAI/bge-m3 --model intfloat/e5-base-v2 --epochs 3 -o model[/]

With negatives that keep up with the model:

[cyan]hf-negmine train scifact/ -t bm25 --model intfloat/e5-base-v2 --epochs 3 --refresh student -o model[/]

After an interruption run the same command with [cyan]--resume[/].
"""

SAMPLER = "sampled:10"
READING = ("query_column", "positive_column", "num_negatives", "sampler")
"""Settings of mining that also say how mined rows are read."""
PROMPTS = ("query_prompt", "passage_prompt")
ROWS = (
    "Rows of (query, positive), as in mine; they are mined first, by --teacher. Or rows that hold negatives: a folder "
    "that mine has written, or any file of such rows."
)
MINED = "Mined rows to train on, instead of mining: a folder that mine has written. With ROWS, only those of ROWS."
SPLIT = "Split of ROWS, or of --mined without ROWS if it is a data set id or a folder with splits."
IN_BATCH = "Contrast the positive with its own negatives only, not with the batch's other passages."
EVAL = "A BEIR folder (corpus, queries, qrels) on which NDCG@10 is measured before and after."
START_OVER = "Start over in a folder that holds a model, an interrupted run or other files."

part = Signature("part", "miner", "NegativeMiner.fit")
training = Signature("training", "train.settings", "TrainingSettings")
loading = Signature("loading", "teachers.dense", "DenseTeacher")

OPTIONS = {
    None: [argument("rows", str, ROWS, "ROWS", None)],
    options.DATA: [
        option("mined", str, MINED, metavar="DIR"),
        options.CORPUS,
        part("split", help=SPLIT),
        part("config_name", "--config", help="Config of the same, if it is a data set id."),
        *options.COLUMNS,
        options.CORPUS_CONFIG,
    ],
    "Training": [
        option(
            "model", str, "The Sentence Transformers model to train: an id or a folder.", metavar="MODEL", default=...
        ),
        training("loss"),
        option("no_in_batch_negatives", bool, IN_BATCH, default=False),
        training("epochs", min=0),
        training("batch_size", "-b", min=1),
        training("mini_batch_size", min=1),
        training("learning_rate", "--learning-rate", "--lr", min=0),
        training("warmup_ratio", min=0, max=1),
        training("max_seq_length", min=1),
        training("query_prompt", metavar="TEXT"),
        training("passage_prompt", metavar="TEXT"),
        training("seed", min=0),
    ],
    options.TEACHER: [
        option("teacher", str, f"{options.TEACHERS.help()} For rows without negatives.", "-t", metavar="MODEL"),
        loading(
            "query_prompt", "--teacher-query-prompt", metavar="TEXT",
            help="Text that the teacher puts before every query.",
            show_default="its own; --query-prompt if it is the trained model",
        ),
        loading(
            "passage_prompt", "--teacher-passage-prompt", metavar="TEXT", help="The same before every passage.",
            show_default="likewise",
        ),
    ],
    options.NEGATIVES: [
        options.METHOD,
        mining(
            "sampler", "-s", **spec("select.samplers", "parse_sampler", besides="Every epoch draws again."),
            show_default=f"{SAMPLER}, or the first of the mined ones",
        ),
        mining(
            "num_negatives", "-n", min=1,
            show_default=f"{mining.parameters['num_negatives'].default}, or all that a mined row has",
        ),
        options.POSITIVE_SCORE,
        training("refresh", show_default=False),
    ],
    "Evaluation": [
        option("eval", Path, EVAL, metavar="DIR", callback=folder),
        option("eval_split", str, "Split of its qrels.", show_default="the only one, or test"),
    ],
    options.OUTPUT: [
        option("output", Path, "Folder for the model and its card.", "-o", metavar="DIR", callback=folder, default=...),
        option("overwrite", bool, START_OVER, default=False),
    ],
    options.RUNNING: [
        training("resume", help="Continue an interrupted run in --output from where it was last saved."),
        options.CACHE_DIR,
        training("device"),
        option("quiet", bool, "Print only the evaluation and where the model went.", "-q", default=False),
    ],
}  # fmt: skip


@command(OPTIONS, stopped=STOPPED, to_save_memory=TO_SAVE_MEMORY)
def train(
    rows: str | None,
    mined: str | None,
    part: Given,
    model: str,
    no_in_batch_negatives: bool,
    training: Given,
    teacher: str | None,
    loading: Given,
    mining: Given,
    eval: Path | None,
    eval_split: str | None,
    output: Path,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Fine-tune a model."""
    only_for_mining = [name for name in mining if name not in READING] + ["refresh"] * ("refresh" in training)
    _check_train(rows, mined, part, teacher, [*only_for_mining, *(f"teacher_{name}" for name in loading)])
    model = model_source(model, "--model")
    if eval_split is not None and eval is None:
        raise InputError(
            f"--eval-split: {eval_split!r} is a split of the folder that --eval names, but --eval is not given"
        )
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"  # Sentence Transformers' bar for the card has no other switch
    set_up_libraries(quiet=quiet)
    from hf_negmine.train.evaluation import beir_evaluator
    from hf_negmine.train.output import prepare_output
    from hf_negmine.train.run import fine_tune
    from hf_negmine.train.settings import TrainingSettings

    settings = TrainingSettings(**training, in_batch_negatives=not no_in_batch_negatives, progress=not quiet)
    prepare_output(output, resume=settings.resume, overwrite=overwrite)
    evaluator = None if eval is None else beir_evaluator(eval, split=eval_split, progress=not quiet)
    if teacher is None:
        data = _of_mined(rows, mined, part, mining)
    else:
        if os.path.expanduser(teacher) == model:
            loading = {name: training[name] for name in PROMPTS if name in training} | loading
        data = _to_be_mined(rows or "", part, teacher, loading, mining, settings)
    if data.left_out and not quiet:
        typer.echo(f"Note: rows not trained on, because they lack negatives: {data.left_out:,}.\n")
    result = fine_tune(model, data, output, settings, evaluator=evaluator, tell=typer.echo)
    if result.after is not None:
        typer.echo(f"NDCG@10 after training: {result.after:.4f}")
    typer.echo(result)


def _of_mined(rows: str | None, mined: str | None, part: Given, reading: Given) -> TrainingData:
    """Rows that hold their negatives."""
    from hf_negmine.commands.output import open_mined
    from hf_negmine.train.data import TrainingData

    source = open_mined(mined or rows or "", **({} if mined and rows else part))
    only = rows if mined else None
    return TrainingData.of_mined(
        source.rows, lookups=source.lookups, summary=source.summary, only=only, **part, **reading
    )


def _to_be_mined(
    rows: str, part: Given, teacher: str, loading: Given, mining: Given, settings: TrainingSettings
) -> TrainingData:
    """Rows without negatives, mined."""
    from hf_negmine.miner import NegativeMiner
    from hf_negmine.train.data import TrainingData

    opened = open_teacher(teacher, loading, prefix="--teacher-")
    given = {"sampler": SAMPLER, "seed": settings.seed, "device": settings.device, **mining}
    miner = NegativeMiner(opened, progress=settings.progress, **given)
    data = TrainingData.to_be_mined(rows, miner, **part)
    if settings.progress:
        typer.echo(f"\n{miner.summary}\n")
    return data


def _check_train(
    rows: str | None, mined: str | None, part: Given, teacher: str | None, only_for_mining: list[str]
) -> None:
    """Check that the options agree on where negatives come from, before anything is read."""
    from hf_negmine.commands.output import is_output

    if rows is None and mined is None:
        raise InputError(
            "nothing to train on: give ROWS and --teacher, or --mined with what hf-negmine mine has written"
        )
    has_negatives = mined or (rows if is_output(Path(rows or "")) else None)
    if has_negatives is not None and teacher is not None:
        raise InputError(f"--teacher {teacher!r}: {has_negatives} already holds mined negatives; leave one of them out")
    if teacher is None and only_for_mining:
        names = ", ".join(f"--{name.removesuffix('_name').replace('_', '-')}" for name in only_for_mining)
        raise InputError(f"{names}: for rows that are mined first, but no --teacher is given")
    for name, value in part.items():
        if is_output(Path(rows or mined or "")):
            what = name.removesuffix("_name")
            raise InputError(
                f"--{what}: {value!r}, but {rows or mined} has no {what}s, as hf-negmine mine has written it; leave it "
                "out"
            )
