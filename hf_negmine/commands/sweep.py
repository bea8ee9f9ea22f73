"""``hf-negmine sweep``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands import miners, options
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, Signature, option
from hf_negmine.commands.specs import FILE, spec

if TYPE_CHECKING:
    from hf_negmine.report.sweep import Sweep

HELP = """Try many methods and samplers for the negatives of ROWS, and print them side by side.

The teacher searches once for all of them. The table says how many queries get all their negatives, how high the \
negatives score, how many score over their positive, and how similar they are to those of the default setting. With \
judgements it also says how many are false, and which setting to take.
"""
EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine sweep pairs.jsonl --corpus passages.parquet -t intfloat/e5-base-v2[/]

Four settings of your own, as a table in Markdown:

[cyan]hf-negmine sweep pairs.jsonl -t bm25 -m naive -m perc_pos:0.8 -s top -s sampled:20 -o sweep.md[/]

How many negatives are false, by judgements of some:

[cyan]hf-negmine sweep pairs.jsonl -t intfloat/e5-base-v2 --judgements judged.jsonl[/]

Which setting trains better? A small student is trained on the negatives of each in seconds:

[cyan]hf-negmine sweep pairs.jsonl -t intfloat/e5-base-v2 --try[/]

What is found is kept in the cache: [cyan]hf-negmine mine[/] with one of the settings does not search again.
"""
SETTINGS = ("methods", "samplers")
swept = Signature("swept", "miner", "NegativeMiner.sweep")
trying = Signature("trying", "trial", "try_settings")

JUDGEMENTS = (
    "Judged (query, passage) pairs, to measure the share of false negatives: JSON lines with [cyan]query[/], "
    "[cyan]document[/] and [cyan]relevant[/]."
)
QRELS = (
    "The same as TREC relevance judgements with the ids of ROWS, a BEIR folder. All passages that it does not call "
    "relevant to one of its queries count as not relevant."
)

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
    "False negatives": [
        swept("judgements", **FILE, help=JUDGEMENTS),
        option("qrels", Path, QRELS, **FILE),
        swept("tolerance", min=0.0, max=1.0),
    ],
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
            **FILE,
        ),
    ],
    options.RUNNING: [options.CACHE_DIR, options.DEVICE, options.QUIET, options.JSON],
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
    qrels: Path | None,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Compare settings on ROWS."""
    if qrels is not None and "judgements" in swept:
        raise InputError("--qrels and --judgements: give one of them")
    if trying and not trial:
        raise InputError(f"{', '.join(f'--{name}' for name in trying)}: for --try, which is not given")
    set_up_libraries(quiet=quiet or as_json)
    miner = miners.open_miner(teacher, loading, {**mining, "progress": not (quiet or as_json)}, **filters)
    from hf_negmine.pool.list_files import judgements_of_qrels
    from hf_negmine.report.sweep_files import check_suffix
    from hf_negmine.select.judgements import Judgements

    if output is not None:
        check_suffix(output)
    if "judgements" in swept:
        swept["judgements"] = Judgements(swept["judgements"])
    if qrels is not None:
        swept["judgements"] = judgements_of_qrels(rows, qrels)
    miner.fit(rows, **part)
    tried = None
    if trial:
        from hf_negmine.trial import try_settings

        tried = try_settings(miner, **{name: swept[name] for name in SETTINGS if name in swept}, **trying)
    table = miner.sweep(**swept)
    if output is not None:
        table.save(output)
    if as_json:
        typer.echo(json.dumps(table.as_dict() | ({} if tried is None else {"trial": tried.as_dict()})))
        return
    if not quiet or output is None:
        show(table)
    if output is not None:
        typer.echo(f"Written: {output}")
    if tried is not None:
        typer.echo(f"\n{tried}\n")


def show(table: Sweep) -> None:
    """Print a sweep: in a terminal that is wide enough as a table of rich, elsewhere as plain lines."""
    from rich.console import Console
    from rich.table import Table

    from hf_negmine.report.swept_setting import NAMES

    console = Console()
    plain = str(table)
    if not sys.stdout.isatty() or max(map(len, plain.splitlines()[2:4])) > console.width:
        typer.echo(f"\n{plain}\n")
        return
    heads, *rows = table.cells()
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, head in enumerate(heads):
        drawn.add_column(head, justify="left" if place < NAMES else "right", no_wrap=True)
    for row, setting in zip(rows, table.settings, strict=True):
        best = setting == table.recommended
        drawn.add_row(*row, style="bold green" if best else "" if setting.front in (True, None) else "dim")
    before, after = plain.split("\n\n", 1)[0], plain.split("\n\n", 2)[2]
    typer.echo(f"\n{before}\n")
    console.print(drawn)
    typer.echo(f"\n{after}\n")
