"""``hf-negmine mine``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hf_negmine.commands import miners, options
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, option
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

DRY_RUN = "Only read the rows, and print what mining them is estimated to take in these ranks."

ESTIMATED = (
    "Estimates for these texts, with a model of 110 million parameters that makes one vector of width 768 per text of "
    "128 tokens, 200 TFLOP/s of a GPU and 2 GB/s of storage for each rank; `hf_negmine.cluster.plan` takes others. "
    "Only the rows were read: a run encodes and searches in its ranks, and then finishes in one process."
)

OPTIONS = {
    **miners.DATA,
    **miners.TEACHER,
    options.NEGATIVES: [
        options.METHOD,
        options.SAMPLER,
        options.mining("num_negatives", "-n", min=1),
        options.POSITIVE_SCORE,
        options.mining("on_exhausted"),
        options.mining("seed"),
        options.mining("pool_depth", min=1),
    ],
    "Filters": [*miners.FILTERS, *miners.JUDGE],
    options.OUTPUT: [
        options.OUTPUT_FOLDER,
        options.mining("format", "-f", metavar="NAME"),
        options.mining("include_scores", "--scores"),
        options.OVERWRITE,
    ],
    options.RUNNING: [
        options.CACHE_DIR,
        options.DEVICE,
        option("executor", str, **spec("cluster.executors", "parse_executor")),
        option("store", str, **spec("cluster.store", "parse_store", metavar="ADDRESS")),
        option("dry_run", bool, DRY_RUN, default=False),
        options.QUIET,
    ],
}


@command(OPTIONS, to_save_memory=miners.TO_SAVE_MEMORY)
def mine(
    rows: str,
    part: Given,
    teacher: str,
    loading: Given,
    mining: Given,
    output: Path,
    overwrite: bool,
    executor: str | None,
    store: str | None,
    dry_run: bool,
    quiet: bool,
    **filters: Any,
) -> None:
    """Mine hard negatives for ROWS."""
    set_up_libraries(quiet=quiet)
    from hf_negmine.base.errors import require
    from hf_negmine.base.files import default_cache_dir
    from hf_negmine.cluster import mine_in_ranks, parse_executor, parse_store, plan_ranks
    from hf_negmine.commands.output import prepare_folder

    require(executor is not None or store is None, "--store: for --executor, which is not given")
    runs = None if executor is None else parse_executor(executor)
    shared = None if store is None else parse_store(store)
    if shared is not None:
        mining = {**mining, "cache_dir": shared.cache_in(mining.get("cache_dir", default_cache_dir()))}
    miner = miners.open_miner(teacher, loading, {**mining, "progress": not quiet}, **filters)
    if dry_run:
        typer.echo(f"{plan_ranks(runs, miner.config, rows, **part)}\n\n{ESTIMATED}")
        return
    prepare_folder(output, overwrite=overwrite)
    finish = partial(_mine_and_save, miner, rows, part, output, quiet)
    submitted = mine_in_ranks(runs, miner.config, rows, finish, **part, store=shared) if runs else finish()
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
