"""The command ``hf-negmine`` (also ``hf negmine``) with all its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from hf_negmine.commands import audit, cache, demo, mine, report, share, sweep, train

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


app.command(help=mine.HELP, short_help="Mine hard negatives and write them as Parquet.", epilog=mine.EPILOG)(mine.mine)
app.command(help=sweep.HELP, short_help="Compare methods and samplers side by side.", epilog=sweep.EPILOG)(sweep.sweep)
app.command(help=audit.HELP, short_help="Find likely false negatives in rows that have some.", epilog=audit.EPILOG)(
    audit.audit
)
app.command(
    help=report.REPORT_HELP, short_help="Write a page to look at mined negatives.", epilog=report.REPORT_EPILOG
)(report.report)
app.command(
    help=report.EXPLORE_HELP, short_help="Open that page for all queries, and label.", epilog=report.EXPLORE_EPILOG
)(report.explore)
app.command(help=train.HELP, short_help="Fine-tune a model with hard negatives.", epilog=train.EPILOG)(train.train)
app.command(help=share.PUSH_HELP, short_help="Push what mine has written to the Hub.", epilog=share.PUSH_EPILOG)(
    share.push
)
app.command(
    help=share.REPRODUCE_HELP, short_help="Mine a pushed data set again, and compare.", epilog=share.REPRODUCE_EPILOG
)(share.reproduce)
app.add_typer(cache.app, name="cache")
app.command(epilog=demo.EPILOG)(demo.demo)


def main() -> None:
    """Entry point of the command."""
    app()
