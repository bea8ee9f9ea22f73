"""``hf-negmine recipe``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_negmine.commands import options
from hf_negmine.commands.running import reported_errors

PLAN_EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine recipe plan recipes/nv_retriever_v1/recipe.yaml[/]
"""

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Whole experiments, each said by one YAML file.")


@app.callback()
def _recipe() -> None:
    """Keep ``plan`` a command of its own while it is the only one."""


@app.command(epilog=PLAN_EPILOG)
def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recipe, such as recipe.yaml.", show_default=False)],
    *,
    debug: options.Debug = False,
) -> None:
    """Print what a recipe takes: its training sets, negatives, steps, memory and hours.

    It is arithmetic: nothing is loaded, and no network is needed. A key or value that does not fit is an error.
    """
    with reported_errors(debug):
        from hf_negmine.recipes import load_recipe
        from hf_negmine.recipes.nv_retriever.plan import Plan

        typer.echo(Plan(load_recipe(file)))
