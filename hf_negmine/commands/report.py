"""``hf-negmine report`` and ``hf-negmine explore``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands import options
from hf_negmine.commands.options import mining
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, Signature, argument, option
from hf_negmine.commands.specs import FILE, folder

if TYPE_CHECKING:
    from hf_negmine.page import Shown

REPORT_HELP = """Write a page to look at mined negatives: one HTML file that needs no network.

It shows the summary, the distributions of scores, and each query with its positives, its negatives and what was held \
back. A slider moves the ceiling, and the page says what would be mined under it. Passages can be labeled.
"""
REPORT_EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine report nq-mined -o nq.html[/]

A set on the Hub that was pushed with its pool:

[cyan]hf-negmine report you/nq-mined -o nq.html[/]

With the table of [cyan]hf-negmine sweep … -o sweep.parquet[/]:

[cyan]hf-negmine report nq-mined -o nq.html --sweep sweep.parquet[/]
"""
EXPLORE_HELP = """Open the page of [cyan]hf-negmine report[/] for all queries, in a browser on this machine.

Labels go into a file at once, for [cyan]hf-negmine mine --judgements[/]. The page is served to this machine alone, \
at an address that nobody can guess, until Ctrl-C.
"""
EXPLORE_EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine explore nq-mined --judgements nq-labels.jsonl[/]
"""
IDS = "BEIR folder with your ids of the texts, under which labels are exported; without it, positions are the ids."
LABELS = Path("judgements.jsonl")

reporting = Signature("settings", "page.writing", "write_report")
serving = Signature("settings", "page.serving", "served")
pushing = Signature("source", "hub.load", "load_mined")

SOURCE = argument("mined", str, "What mine has written: its --output; or a data set on the Hub with its pool.", "DIR")
FROM = [
    pushing("config_name", "--config"),
    pushing("split"),
    pushing("revision", metavar="BRANCH"),
]
CACHE = replace(
    mining("cache_dir", metavar="DIR", callback=folder, help="Where the rows were mined: their candidates lie there."),
    into=None,
)
REPORT = {
    None: [SOURCE],
    options.DATA: FROM,
    options.OUTPUT: [
        option("output", Path, "The file to write: .html.", "-o", **FILE, default=Path("report.html")),
        reporting("queries", min=1),
        option("ids", str, IDS, metavar="DIR"),
        option("sweep", Path, f"Settings to show side by side. {options.SWEEP}", **FILE),
    ],
    options.RUNNING: [CACHE],
}
EXPLORE = {
    None: [SOURCE],
    options.DATA: FROM,
    "Page": [
        option("judgements", Path, "File for the labels: .jsonl.", **FILE, default=LABELS),
        serving("port", min=0, max=65535),
    ],
    options.RUNNING: [CACHE],
}


@command(REPORT)
def report(
    mined: str,
    source: Given,
    output: Path,
    settings: Given,
    ids: str | None,
    sweep: Path | None,
    cache_dir: Path | None,
) -> None:
    """Write a page about DIR."""
    if output.suffix not in (".html", ".htm"):
        raise InputError(f"--output: {output} is not a name for a page; give one that ends in .html")
    set_up_libraries(quiet=True)
    from hf_negmine.page import write_report
    from hf_negmine.report.sweep import Sweep

    table = None if sweep is None else Sweep.read(sweep)
    written = write_report(_open(mined, source, cache_dir), output, sweep=table, ids=ids, **settings)
    typer.echo(f"Written: {written} ({written.stat().st_size / 1e6:.1f} MB). Open it in a browser.")


@command(EXPLORE)
def explore(mined: str, source: Given, judgements: Path, settings: Given, cache_dir: Path | None) -> None:
    """Serve the page of DIR."""
    set_up_libraries(quiet=True)
    from threading import Event

    from hf_negmine.page.serving import served

    with served(_open(mined, source, cache_dir), judgements, **settings) as address:
        typer.echo(f"Open {address}\nLabels go into {judgements}. Stop with Ctrl-C.")
        try:
            Event().wait()
        except KeyboardInterrupt:
            typer.echo("Stopped.")


def _open(mined: str, source: Given, cache_dir: Path | None) -> Shown:
    """The mined set of a folder or of a data set on the Hub."""
    from hf_negmine.base.files import default_cache_dir
    from hf_negmine.commands.output import is_output, open_mined
    from hf_negmine.fitted import Fitted, fit_name
    from hf_negmine.hub.load import load_mined, text_set_of
    from hf_negmine.page import Shown

    home = default_cache_dir() if cache_dir is None else cache_dir
    path = Path(mined).expanduser()
    if is_output(path):
        if source:
            name = next(iter(source)).removesuffix("_name")
            raise InputError(f"--{name}: for a data set on the Hub, but {mined} is a folder; leave it out")
        summary = open_mined(path).summary
        assert summary is not None
        fit = home / "fits" / fit_name(summary.settings, summary.rows)
        if not (fit / "fit.json").exists():
            raise InputError(
                f"{mined}: {home} no longer holds what these rows were mined from; mine again with the same command, "
                "or give the folder as --cache-dir"
            )
        return Shown.of_fit(Fitted.open(fit, home / "texts"), home)
    if path.exists():
        raise InputError(f"{mined} is not a folder that hf-negmine mine has written: it has no summary")
    if mined.count("/") != 1:
        raise InputError(f"there is no folder {mined}, and a data set on the Hub is named USER/NAME")
    data = load_mined(mined, **source, cache_dir=cache_dir)
    if data.pool is None:
        raise InputError(f"{mined} was pushed without its candidates; push it with --with-pool, or report its folder")
    return Shown.of_pool(data.pool, text_set_of(data, home), data.summary)
