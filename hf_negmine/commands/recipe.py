"""``hf-negmine recipe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_negmine.commands import options
from hf_negmine.commands.running import reported_errors, set_up_libraries

RUN_EPILOG = """
[bold]Examples[/]

[dim]What a run takes; needs no network and no GPU[/]
[cyan]hf-negmine recipe run recipes/nv_retriever_v1/recipe.yaml --dry-run[/]

[dim]The same code path in minutes on a laptop, without the Hub[/]
[cyan]hf-negmine recipe run recipes/nv_retriever_v1/recipe.yaml --scale tiny --output tiny[/]
"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Whole experiments, each said by one YAML file.")


@app.callback()
def _recipe() -> None:
    """Keep ``run`` a command of its own while it is the only one."""


@app.command(epilog=RUN_EPILOG)
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recipe, such as recipe.yaml.", show_default=False)],
    *,
    scale: Annotated[
        str | None,
        typer.Option(
            help="A smaller run that the file describes, such as [cyan]small[/] or [cyan]tiny[/].", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for all that is written; a run that was interrupted continues there.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with the data sets, in the place of the Hub; the recipe's README says how it is laid out.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what a run takes, and do nothing: arithmetic, without network.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Run a recipe, or print what it takes.

    The file holds every setting; a key or value that does not fit is an error.
    """
    with reported_errors(debug, to_save_memory="make the batches in FILE smaller, or take a smaller --scale"):
        from hf_negmine.base.errors import InputError
        from hf_negmine.recipes import load_recipe

        recipe = load_recipe(file, scale=scale)
        if dry_run:
            typer.echo(recipe.plan())
            return
        if output is None:
            raise InputError("--output: name a folder for what is written, or see with --dry-run what a run takes")
        set_up_libraries(quiet=False)
        typer.echo(recipe.run(output, data=data, tell=lambda line: typer.echo(line, err=True)))
