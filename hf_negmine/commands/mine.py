"""``hf-negmine mine``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands import options
from hf_negmine.commands.options import mining
from hf_negmine.commands.running import command, open_miners_teachers, set_up_libraries
from hf_negmine.commands.signatures import Given, Signature, argument, option, parameters
from hf_negmine.commands.specs import spec

if TYPE_CHECKING:
    from hf_negmine.miner import NegativeMiner

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

Four processes, on a GPU each if there are four:

[cyan]hf-negmine mine pairs.parquet -t BAAI/bge-m3 --executor local:4 -o mined[/]

After an interruption run the same command again: finished work is kept in the cache.
"""

ROWS = (
    "Rows of (query, positive): a data set id on the Hub, a Parquet, JSONL, CSV or TSV file (compressed or not), here "
    "or at an address, a BEIR folder, or a folder of save_to_disk."
)
API_URL = "Address of an api: teacher's server. The key is taken from the variable OPENAI_API_KEY."
FIRST_STAGE = "Finds the candidates that a cross-encoder: or late-interaction: teacher scores: any other teacher."
ENSEMBLES = parameters("select.ensembles", "resolve_ensemble")["teacher"]

part = Signature("part", "miner", "NegativeMiner.fit")
cross = Signature("loading", "teachers.cross_encoder", "CrossEncoderTeacher")
api = Signature("loading", "teachers.api", "APITeacher")
loading = Signature("loading", "teachers.dense", "DenseTeacher")
consistency = Signature("consistency", "select.filters.consistency", "Consistency")
judging = Signature("judging", "select.judge", "Judge")
server = Signature("server", "select.judge_models", "ChatJudge")

OPTIONS = {
    None: [argument("rows", str, ROWS, "ROWS")],
    options.DATA: [
        options.CORPUS,
        part("split"),
        part("config_name", "--config"),
        *options.COLUMNS,
        options.CORPUS_CONFIG,
    ],
    options.TEACHER: [
        option(
            "teacher", str, f"{options.TEACHERS.help()} {ENSEMBLES.help()}", "-t", metavar="TEACHER", default=...
        ),
        cross(
            "first_stage", metavar="TEACHER", help=FIRST_STAGE,
            show_default="bm25; a late-interaction model's own token vectors",
        ),
        cross("candidates", sentences=2, min=1, show_default="100; 256 of a faiss: teacher"),
        api("base_url", "--api-url", metavar="URL", help=API_URL),
        loading("query_prompt", metavar="TEXT"),
        loading("passage_prompt", metavar="TEXT"),
        loading("dtype", sentences=2, metavar="NAME"),
        loading("max_length", min=1),
        loading("batch_size", min=1),
        loading("truncate_dim", min=1),
        cross("activation"),
        loading("revision"),
        loading("trust_remote_code", sentences=2),
    ],
    options.NEGATIVES: [
        options.METHOD,
        options.SAMPLER,
        mining("num_negatives", "-n", min=1),
        options.POSITIVE_SCORE,
        mining("on_exhausted"),
        mining("seed"),
        mining("pool_depth", min=1),
    ],
    "Filters": [
        option("veto", list[str], **spec("select.filters.specs", "parse_veto", metavar="TEACHER@METHOD")),
        option("near_duplicates", str, **spec("select.filters.specs", "parse_near_duplicates")),
        consistency("top_k", "--consistency", min=1),
        consistency("action", "--consistency-action"),
        judging("judge", sentences=2, metavar="MODEL"),
        judging("budget", "--judge-budget", min=0),
        server("base_url", "--judge-url", metavar="URL"),
        judging("relabel"),
    ],
    options.OUTPUT: [
        options.OUTPUT_FOLDER,
        mining("format", "-f", metavar="NAME"),
        mining("include_scores", "--scores"),
        options.OVERWRITE,
    ],
    options.RUNNING: [
        options.CACHE_DIR,
        options.DEVICE,
        option("executor", str, **spec("cluster.executors", "parse_executor")),
        options.QUIET,
    ],
}  # fmt: skip


@command(OPTIONS, to_save_memory="give --device cpu, or a smaller --batch-size or --max-length")
def mine(
    rows: str,
    part: Given,
    teacher: str,
    loading: Given,
    mining: Given,
    veto: list[str] | None,
    near_duplicates: str | None,
    consistency: Given,
    judging: Given,
    server: Given,
    output: Path,
    overwrite: bool,
    executor: str | None,
    quiet: bool,
) -> None:
    """Mine hard negatives for ROWS."""
    _check_filters(consistency, {**judging, **server})
    from hf_negmine.commands.output import prepare_folder

    prepare_folder(output, overwrite=overwrite)
    set_up_libraries(quiet=quiet)
    from hf_negmine.miner import NegativeMiner

    opened, vetoes = open_miners_teachers(teacher, veto or [], loading)
    filters = [*_near_duplicates(near_duplicates, opened), *_others(consistency, judging, server), *vetoes]
    miner = NegativeMiner(opened, filters=filters, progress=not quiet, **mining)
    finish = partial(_mine_and_save, miner, rows, part, output, quiet)
    if executor is None:
        finish()
        return
    from hf_negmine.cluster import mine_in_ranks, parse_executor

    submitted = mine_in_ranks(parse_executor(executor), miner.config, rows, finish, **part)
    if submitted is not None:
        typer.echo(submitted)


def _mine_and_save(miner: NegativeMiner, rows: str, part: Given, output: Path, quiet: bool) -> None:
    from hf_negmine.commands.output import note_on_exhausted, save

    mined = miner.mine(rows, **part)
    saved = save(mined, miner, output)
    if not quiet:
        typer.echo(f"\n{miner.summary}\n")
        if note := note_on_exhausted(miner.summary):
            typer.echo(f"{note}\n")
    typer.echo(saved)


def _check_filters(consistency: Given, judging: Given) -> None:
    """Raise `InputError` for an option of a filter that was not given."""
    judges = {"budget": "--judge-budget", "base_url": "--judge-url", "relabel": "--relabel"}
    for whole, key, parts, given in (
        ("--consistency", "top_k", {"action": "--consistency-action"}, consistency),
        ("--judge", "judge", judges, judging),
    ):
        alone = [flag for name, flag in parts.items() if name in given]
        if alone and key not in given:
            raise InputError(f"{', '.join(alone)}: for {whole}, which is not given")


def _near_duplicates(value: str | None, teacher: Any) -> list[Any]:
    """The filter of this spec, checked against the teacher."""
    from hf_negmine.base.protocols import VectorTeacher
    from hf_negmine.select.ensembles import Ensemble
    from hf_negmine.select.filters import NearDuplicates
    from hf_negmine.select.filters.specs import parse_near_duplicates
    from hf_negmine.teachers import without_index

    if value is None:
        return []
    by, threshold = parse_near_duplicates(value)
    members = teacher.stages if isinstance(teacher, Ensemble) else [teacher]
    if by == "cosine" and not all(isinstance(without_index(one), VectorTeacher) for one in members):
        raise InputError(
            f"--near-duplicates {threshold:g}: it compares vectors, but {teacher.name} has none; give "
            f"minhash:{threshold:g}, which compares words"
        )
    return [NearDuplicates(threshold, by=by)]


def _others(consistency: Given, judging: Given, server: Given) -> list[Any]:
    """The rule for rows and the judge, if they were asked for."""
    from hf_negmine.select.filters import Consistency
    from hf_negmine.select.judge import Judge
    from hf_negmine.select.judge_models import ChatJudge

    made: list[Any] = [Consistency(**consistency)] if consistency else []
    if judging:
        made.append(Judge(**{**judging, "judge": ChatJudge(judging["judge"], **server)}))
    return made
