"""``hf-negmine train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands import options
from hf_negmine.commands import train_options as own
from hf_negmine.commands.running import open_teacher, reported_errors, set_up_libraries

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


def train(
    rows: own.TrainRows = None,
    *,
    mined: own.Mined = None,
    corpus: options.Corpus = None,
    split: own.TrainSplit = None,
    config: own.TrainConfig = None,
    query_column: options.QueryColumn = None,
    positive_column: options.PositiveColumn = None,
    corpus_column: options.CorpusColumn = None,
    corpus_config: options.CorpusConfig = None,
    model: own.StudentModel,
    loss: own.LossOption = own.LossName.POSITIVE_AWARE,
    no_in_batch_negatives: own.InBatchNegatives = False,
    epochs: own.Epochs = 1,
    batch_size: own.BatchSize = 32,
    mini_batch_size: own.MiniBatchSize = None,
    learning_rate: own.LearningRate = 2e-5,
    warmup_ratio: own.WarmupRatio = 0.1,
    max_seq_length: own.MaxSeqLength = None,
    query_prompt: own.StudentQueryPrompt = None,
    passage_prompt: own.StudentPassagePrompt = None,
    seed: own.TrainSeed = 0,
    teacher: own.TrainTeacher = None,
    teacher_query_prompt: own.TeacherQueryPrompt = None,
    teacher_passage_prompt: own.TeacherPassagePrompt = None,
    method: own.TrainMethod = None,
    sampler: own.TrainSampler = None,
    num_negatives: own.TrainNumNegatives = None,
    positive_score: own.TrainPositiveScore = None,
    refresh: own.RefreshOption = None,
    eval_folder: own.EvalFolder = None,
    eval_split: own.EvalSplit = None,
    output: own.TrainOutput,
    overwrite: own.TrainOverwrite = False,
    resume: own.Resume = False,
    cache_dir: options.CacheDir = None,
    device: own.TrainDevice = None,
    quiet: own.TrainQuiet = False,
    debug: options.Debug = False,
) -> None:
    """Fine-tune a model."""
    with reported_errors(debug, stopped=STOPPED, to_save_memory=TO_SAVE_MEMORY):
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
            "corpus_config_name": corpus_config,
            "method": method,
            "positive_score": None if positive_score is None else positive_score.value,
        }
        loading = {"query_prompt": teacher_query_prompt, "passage_prompt": teacher_passage_prompt}
        of_teacher = {f"teacher_{name}": text for name, text in loading.items()}
        only_for_mining = {**mining, "refresh": refresh, **of_teacher, "cache_dir": cache_dir}
        given = [name for name, value in only_for_mining.items() if value is not None]
        part = {"split": split, "config_name": config}
        _check_train(rows, mined, part, teacher, given)
        if eval_split is not None and eval_folder is None:
            raise InputError(
                f"--eval-split: {eval_split!r} is a split of the folder that --eval names, but --eval is not given"
            )
        if teacher == model:
            own = {"query_prompt": query_prompt, "passage_prompt": passage_prompt}
            loading = {name: own[name] if text is None else text for name, text in loading.items()}
        _train(
            model, rows, mined, part, teacher, loading, {**reading, **mining, "cache_dir": cache_dir}, settings,
            eval_folder, eval_split, output, overwrite=overwrite,
        )  # fmt: skip


def _check_train(
    rows: str | None,
    mined: str | None,
    part: dict[str, str | None],
    teacher: str | None,
    only_for_mining: list[str],
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
        if value is not None and is_output(Path(rows or mined or "")):
            what = name.removesuffix("_name")
            raise InputError(
                f"--{what}: {value!r}, but {rows or mined} has no {what}s, as hf-negmine mine has written it; leave it "
                "out"
            )


def _train(
    model: str,
    rows: str | None,
    mined: str | None,
    part: dict[str, str | None],
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
        os.environ["TQDM_DISABLE"] = "1"  # Sentence Transformers' bar for the card has no other switch
    set_up_libraries(quiet=not settings["progress"])
    from hf_negmine.commands.output import open_mined
    from hf_negmine.train.data import TrainingData
    from hf_negmine.train.evaluation import beir_evaluator
    from hf_negmine.train.run import TrainingSettings, fine_tune, prepare_output

    trained_with = TrainingSettings(**settings)
    prepare_output(output, resume=trained_with.resume, overwrite=overwrite)
    evaluator = None
    if eval_folder is not None:
        evaluator = beir_evaluator(eval_folder, split=eval_split, progress=trained_with.progress)
    if teacher is None:
        source = open_mined(mined or rows or "", **({} if mined and rows else part))
        data = TrainingData.of_mined(
            source.rows,
            lookups=source.lookups,
            summary=source.summary,
            only=rows if mined else None,
            split=part["split"],
            config_name=part["config_name"],
            **{name: reading[name] for name in ("query_column", "positive_column", "num_negatives", "sampler")},
        )
    else:
        from hf_negmine.miner import NegativeMiner

        given = {name: value for name, value in reading.items() if value is not None}
        miner = NegativeMiner(
            open_teacher(teacher, loading, prefix="--teacher-"),
            **{"sampler": own.TRAIN_SAMPLER, **given},
            seed=trained_with.seed,
            device=trained_with.device,
            progress=trained_with.progress,
        )
        data = TrainingData.to_be_mined(rows or "", miner, **part)
        if trained_with.progress:
            typer.echo(f"\n{miner.summary}\n")
    if data.left_out and trained_with.progress:
        typer.echo(f"Note: rows not trained on, because they lack negatives: {data.left_out:,}.\n")
    result = fine_tune(model, data, output, trained_with, evaluator=evaluator, tell=typer.echo)
    if result.after is not None:
        typer.echo(f"NDCG@10 after training: {result.after:.4f}")
    typer.echo(result)
