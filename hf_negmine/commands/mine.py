"""``hf-negmine mine``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hf_negmine.base.defaults import POOL_DEPTH
from hf_negmine.base.errors import InputError
from hf_negmine.commands import mine_options as own
from hf_negmine.commands import options
from hf_negmine.commands.running import open_miners_teachers, reported_errors, set_up_libraries

HELP = """Mine hard negatives for the queries of ROWS and write them as Parquet.

The teacher scores the passages of the corpus for each query. Passages that score as high as the positive, or nearly \
so, are often unlabeled right answers: the method keeps them out, and the best of the others are taken.
"""
EPILOG = """
[bold]Examples[/]

Question and answer pairs from the Hub, searched among their own answers:

[cyan]hf-negmine mine sentence-transformers/natural-questions -t intfloat/e5-base-v2 -o nq-mined[/]

A file with its own corpus, 7 negatives per query from the 20 best:

[cyan]hf-negmine mine pairs.jsonl --corpus passages.parquet -t bm25 -s sampled:20 -n 7 -o mined[/]

A BEIR folder as ids and scores, for distillation:

[cyan]hf-negmine mine scifact/ --split train -t BAAI/bge-m3 -f ids -o scifact-mined[/]

Candidates of BM25, scored by a cross-encoder:

[cyan]hf-negmine mine pairs.jsonl -t cross-encoder:BAAI/bge-reranker-base --candidates 50 -o mined[/]

Two teachers, of which each query draws one, and negatives that BM25 keeps under its ceiling, too:

[cyan]hf-negmine mine pairs.jsonl -t "cross-sample(BAAI/bge-m3, intfloat/e5-base-v2)" --veto bm25@perc_pos:0.95@0 -o \
mined[/]

After an interruption run the same command again: finished work is kept in the cache.
"""


def mine(
    rows: options.RowsArgument,
    *,
    corpus: options.Corpus = None,
    split: options.Split = None,
    config: options.RowsConfig = None,
    query_column: options.QueryColumn = None,
    positive_column: options.PositiveColumn = None,
    corpus_column: options.CorpusColumn = None,
    corpus_config: options.CorpusConfig = None,
    teacher: own.MineTeacher,
    first_stage: own.FirstStage = None,
    candidates: own.Candidates = None,
    api_url: own.ApiUrl = None,
    query_prompt: options.QueryPrompt = None,
    passage_prompt: options.PassagePrompt = None,
    dtype: options.Dtype = None,
    max_length: options.MaxLength = None,
    batch_size: own.BatchSize = None,
    truncate_dim: own.TruncateDim = None,
    activation: own.Activation = None,
    revision: own.Revision = None,
    trust_remote_code: own.TrustRemoteCode = False,
    method: options.MethodSpec = "perc_pos:0.95",
    sampler: options.SamplerSpec = "top",
    num_negatives: options.NumNegatives = 4,
    positive_score: options.PositiveScoreOption = options.PositiveScoreName.MIN,
    on_exhausted: options.OnExhausted = options.OnExhaustedName.DROP,
    seed: options.Seed = 0,
    pool_depth: options.PoolDepth = POOL_DEPTH,
    veto: own.Vetoes = None,
    near_duplicates: own.NearDuplicatesSpec = None,
    consistency: own.ConsistencyTop = None,
    consistency_action: own.ConsistencyActionOption = None,
    judge: own.JudgeModel = None,
    judge_budget: own.JudgeBudget = None,
    judge_url: own.JudgeUrl = None,
    relabel: own.Relabel = False,
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
    with reported_errors(debug, to_save_memory="give --device cpu, or a smaller --batch-size or --max-length"):
        loading = {
            "query_prompt": query_prompt,
            "passage_prompt": passage_prompt,
            "dtype": None if dtype is None else dtype.value,
            "max_length": max_length,
            "batch_size": batch_size,
            "truncate_dim": truncate_dim,
            "activation": None if activation is None else activation.value,
            "revision": revision,
            "trust_remote_code": trust_remote_code or None,
            "first_stage": first_stage,
            "candidates": candidates,
            "api_url": api_url,
        }
        filtering = {
            "veto": veto or [],
            "near_duplicates": near_duplicates,
            "consistency": consistency,
            "consistency_action": None if consistency_action is None else consistency_action.value,
            "judge": judge,
            "judge_budget": judge_budget,
            "judge_url": judge_url,
            "relabel": relabel or None,
        }
        _check_filtering(filtering)
        settings = {
            "corpus": corpus,
            "query_column": query_column,
            "positive_column": positive_column,
            "corpus_column": corpus_column,
            "corpus_config_name": corpus_config,
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
        _mine(
            rows,
            {"split": split, "config_name": config},
            output,
            teacher,
            loading,
            filtering,
            settings,
            overwrite=overwrite,
        )


def _check_filtering(filtering: dict[str, Any]) -> None:
    """Raise `InputError` for an option of a filter that was not given."""
    for whole, parts in (("consistency", ["consistency_action"]), ("judge", ["judge_budget", "judge_url", "relabel"])):
        given = [f"--{part.replace('_', '-')}" for part in parts if filtering[part] is not None]
        if given and filtering[whole] is None:
            raise InputError(f"{', '.join(given)}: for --{whole}, which is not given")


def _filters(filtering: dict[str, Any], teacher: Any) -> list[Any]:
    """All filters except the vetoes."""
    from hf_negmine.base.protocols import VectorTeacher
    from hf_negmine.select.ensembles import Ensemble
    from hf_negmine.select.filters import Consistency, NearDuplicates
    from hf_negmine.select.judge import Judge
    from hf_negmine.select.judge_models import ChatJudge
    from hf_negmine.teachers import without_index

    members = teacher.stages if isinstance(teacher, Ensemble) else [teacher]
    made: list[Any] = []
    if filtering["near_duplicates"] is not None:
        by, threshold = own.near_duplicates_parts(filtering["near_duplicates"])
        if by == "cosine" and not all(isinstance(without_index(one), VectorTeacher) for one in members):
            raise InputError(
                f"--near-duplicates {threshold:g}: it compares vectors, but {teacher.name} has none; give "
                f"minhash:{threshold:g}, which compares words"
            )
        made.append(NearDuplicates(threshold, by=by))
    if filtering["consistency"] is not None:
        made.append(Consistency(filtering["consistency"], action=filtering["consistency_action"] or "drop"))
    if filtering["judge"] is not None:
        judge = ChatJudge(filtering["judge"], base_url=filtering["judge_url"])
        made.append(Judge(judge, budget=filtering["judge_budget"], relabel=bool(filtering["relabel"])))
    return made


def _mine(
    rows: str,
    part: dict[str, str | None],
    output: Path,
    teacher: str,
    loading: dict[str, Any],
    filtering: dict[str, Any],
    settings: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    from hf_negmine.commands.output import note_on_exhausted, prepare_folder, save

    prepare_folder(output, overwrite=overwrite)
    set_up_libraries(quiet=not settings["progress"])
    from hf_negmine.miner import NegativeMiner

    opened, vetoes = open_miners_teachers(teacher, filtering["veto"], loading)
    miner = NegativeMiner(opened, filters=[*_filters(filtering, opened), *vetoes], **settings)
    mined = miner.mine(rows, **part)
    saved = save(mined, miner, output)
    if settings["progress"]:
        typer.echo(f"\n{miner.summary}\n")
        if note := note_on_exhausted(miner.summary):
            typer.echo(f"{note}\n")
    typer.echo(saved)
