"""``hf-negmine mine``."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hf_negmine.base.errors import require
from hf_negmine.commands import miners, options
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, Signature, argument, option
from hf_negmine.commands.specs import FILE, folder_or_address, spec

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

Candidates that another tool has scored, and a run of a search engine:

[cyan]hf-negmine mine --candidates-from lists/ -m perc_pos:0.95 -o mined[/]

[cyan]hf-negmine mine scifact/ --split train --candidates-from bm25.trec.gz -o mined[/]

Four processes, on a GPU each if there are four:

[cyan]hf-negmine mine pairs.parquet -t BAAI/bge-m3 --executor local:4 -o mined[/]

After an interruption run the same command again: finished work is kept in the cache.
"""

_teacher, *_loading = miners.TEACHER[options.TEACHER]
candidates = Signature("candidates", "pool.list_files", "open_lists_at")

DRY_RUN = "Only read the rows, and print what mining them is estimated to take in these ranks."

OUTPUT = "Folder to write to, on this machine or at an address, such as [cyan]s3://bucket/mined[/]."

ESTIMATED = (
    "Estimates for these texts, with a model of 110 million parameters that makes one vector of width 768 per text of "
    "128 tokens, 200 TFLOP/s of a GPU and 2 GB/s of storage for each rank; `hf_negmine.cluster.plan` takes others. "
    "Only the rows were read: a run encodes and searches in its ranks, and then finishes in one process."
)

OPTIONS = {
    **miners.DATA,
    None: [argument("rows", str, f"{miners.ROWS} For a run, the texts that it ranks.", "[ROWS]", default=None)],
    "Candidates": [candidates("source", "--candidates-from", metavar="PATH"), candidates("qrels", **FILE)],
    options.TEACHER: [replace(_teacher, default=None), *_loading],
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
        option("output", str, OUTPUT, "-o", metavar="DIR", callback=folder_or_address, default=...),
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
        options.JSON,
    ],
}


@command(OPTIONS, to_save_memory=miners.TO_SAVE_MEMORY)
def mine(
    rows: str | None,
    part: Given,
    candidates: Given,
    teacher: str | None,
    loading: Given,
    mining: Given,
    output: Path | str,
    overwrite: bool,
    executor: str | None,
    store: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Mine hard negatives for ROWS."""
    quiet |= as_json
    set_up_libraries(quiet=quiet)
    from hf_negmine.base.files import default_cache_dir
    from hf_negmine.cluster import mine_in_ranks, parse_executor, parse_store, plan_ranks
    from hf_negmine.commands.output import prepare_folder
    from hf_negmine.commands.output_address import prepare_address

    require(
        not (as_json and (dry_run or executor)), "--json: for a run in this process; leave out --dry-run, --executor"
    )
    require(executor is not None or store is None, "--store: for --executor, which is not given")
    runs = None if executor is None else parse_executor(executor)
    shared = None if store is None else parse_store(store)
    read = {"ROWS": rows, "--corpus": mining.get("corpus"), "--candidates-from": candidates.get("source")}
    mining = {**mining, "progress": not quiet}
    if shared is not None:
        mining["cache_dir"] = shared.cache_in(mining.get("cache_dir", default_cache_dir()))
    if candidates:
        require(runs is None, "executor: candidates from elsewhere are not searched; leave it out")
        require(not dry_run, "--dry-run: candidates from elsewhere are not searched, so there is nothing to estimate")
        lists = miners.lists_teacher(candidates, rows, part, mining)
        mining = {name: value for name, value in mining.items() if name != "corpus"}
        miner = miners.open_miner(teacher, loading, mining, lists=lists, **filters)
        rows = None  # the lists hold their queries
    else:
        require(rows is not None, "ROWS: give the rows to mine for, or --candidates-from")
        require(teacher is not None, "--teacher: give what scores passages, or --candidates-from")
        miner = miners.open_miner(teacher, loading, mining, **filters)
    if dry_run:
        assert rows is not None
        typer.echo(f"{plan_ranks(runs, miner.config, rows, **part)}\n\n{ESTIMATED}")
        return
    if isinstance(output, Path):
        prepare_folder(output, overwrite=overwrite, read=read)
    else:
        prepare_address(output, overwrite=overwrite, read=read)
    finish = partial(_mine_and_save, miner, rows, part, output, quiet, as_json)
    if runs is None:
        finish()
        return
    assert rows is not None
    submitted = mine_in_ranks(runs, miner.config, rows, finish, **part, store=shared)
    if submitted is not None:
        typer.echo(submitted)


def _mine_and_save(
    miner: NegativeMiner, rows: str | None, part: Given, output: Path | str, quiet: bool, as_json: bool
) -> None:
    from hf_negmine.commands.output import note_on_exhausted, save
    from hf_negmine.commands.output_address import save_at

    mined = miner.mine(miner.fit().labeled_rows) if rows is None else miner.mine(rows, **part)
    saved = save(mined, miner, output) if isinstance(output, Path) else save_at(mined, miner, output)
    if as_json:
        typer.echo(json.dumps({**miner.summary.as_dict(), "folder": str(output)}))
        return
    if not quiet:
        typer.echo(f"\n{miner.summary}\n")
        if note := note_on_exhausted(miner.summary):
            typer.echo(f"{note}\n")
    typer.echo(saved)
