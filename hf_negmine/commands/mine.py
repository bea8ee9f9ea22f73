"""``hf-negmine mine``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hf_negmine.commands import options
from hf_negmine.commands.running import open_teacher, reported_errors, set_up_libraries
from hf_negmine.defaults import POOL_DEPTH

HELP = """Mine hard negatives for the queries of ROWS and write them as Parquet.

The teacher scores the passages of the corpus for each query. Passages that score as high as the positive, or nearly \
so, are often right answers that nobody labelled: the method keeps them out, and the best of the others are taken.
"""
EPILOG = """
[bold]Examples[/]

Question and answer pairs from the Hub, searched among their own answers:

[cyan]hf-negmine mine sentence-transformers/natural-questions -t intfloat/e5-base-v2 -o nq-mined[/]

A file with a corpus of its own, 7 negatives a query from the 20 best:

[cyan]hf-negmine mine pairs.jsonl --corpus passages.parquet -t bm25 -s sampled:20 -n 7 -o mined[/]

A BEIR folder as ids and scores, for distillation:

[cyan]hf-negmine mine scifact/ --split train -t BAAI/bge-m3 -f ids -o scifact-mined[/]

After an interruption run the same command again: finished work is kept in the cache.
"""


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
    with reported_errors(debug):
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
    set_up_libraries(quiet=not settings["progress"])
    from hf_negmine.miner import NegativeMiner

    miner = NegativeMiner(open_teacher(teacher, loading, settings["device"]), **settings)
    mined = miner.mine(rows, split=split)
    saved = save(mined, miner, output)
    if settings["progress"]:
        typer.echo(f"\n{miner.summary}\n")
        if note := note_on_exhausted(miner.summary):
            typer.echo(f"{note}\n")
    typer.echo(saved)
