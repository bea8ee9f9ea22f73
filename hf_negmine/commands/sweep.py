"""``hf-negmine sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands import miners, options
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, Signature, option
from hf_negmine.commands.specs import spec

HELP = """Try many methods and samplers for the negatives of ROWS, and print them side by side.

The teacher searches once for all of them. The table says how many queries get all their negatives, how high the \
negatives score, how many score over their positive, and how similar they are to those of the default setting.
"""
EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine sweep pairs.jsonl --corpus passages.parquet -t intfloat/e5-base-v2[/]

Four settings of your own, as a table in Markdown:

[cyan]hf-negmine sweep pairs.jsonl -t bm25 -m naive -m perc_pos:0.8 -s top -s sampled:20 -o sweep.md[/]

Which setting trains better? A small student is trained on the negatives of each in seconds:

[cyan]hf-negmine sweep pairs.jsonl -t intfloat/e5-base-v2 --try[/]

What is found is kept in the cache: [cyan]hf-negmine mine[/] with one of the settings does not search again.
"""
swept = Signature("swept", "miner", "NegativeMiner.sweep")
trying = Signature("trying", "trial", "try_settings")

OPTIONS = {
    **miners.DATA,
    **miners.TEACHER,
    options.NEGATIVES: [
        swept("methods", "--method", "-m", **spec("select.methods", "parse_method"), show_default="13 of them"),
        swept(
            "samplers", "--sampler", "-s", **spec("select.samplers", "parse_sampler"),
            show_default="top, sampled:10",
        ),
        options.mining("num_negatives", "-n", min=1),
        options.POSITIVE_SCORE,
        options.mining("seed"),
        options.mining("pool_depth", min=1),
    ],
    "Filters": miners.FILTERS,
    "Trial": [
        option(
            "trial", bool,
            "Also train a small student on the negatives of every setting, test it on a tenth of the queries, and "
            "recommend a setting.",
            "--try", default=False,
        ),
        trying("student", metavar="TEACHER"),
        trying("seeds", min=1),
    ],
    options.OUTPUT: [
        option(
            "output", Path, "File for the table, which is printed, too: .parquet, .csv, .jsonl or .md.", "-o",
            metavar="FILE",
        ),
    ],
    options.RUNNING: [options.CACHE_DIR, options.DEVICE, options.QUIET],
}  # fmt: skip


@command(OPTIONS, to_save_memory=miners.TO_SAVE_MEMORY)
def sweep(
    rows: str,
    part: Given,
    teacher: str,
    loading: Given,
    swept: Given,
    mining: Given,
    trial: bool,
    trying: Given,
    output: Path | None,
    quiet: bool,
    **filters: Any,
) -> None:
    """Compare settings on ROWS."""
    if trying and not trial:
        raise InputError(f"{', '.join(f'--{name}' for name in trying)}: for --try, which is not given")
    set_up_libraries(quiet=quiet)
    miner = miners.open_miner(teacher, loading, {**mining, "progress": not quiet}, **filters)
    from hf_negmine.report.sweep import check_suffix

    if output is not None:
        check_suffix(output)
    miner.fit(rows, **part)
    tried = None
    if trial:
        from hf_negmine.trial import try_settings

        tried = try_settings(miner, **swept, **trying)
    table = miner.sweep(**swept)
    if not quiet or output is None:
        typer.echo(f"\n{table}\n")
    if output is not None:
        table.save(output)
        typer.echo(f"Written: {output}")
    if tried is not None:
        typer.echo(f"\n{tried}\n")
