"""The command line of a recipe: ``python recipes/NAME/run.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands.running import reported_errors, set_up_libraries

Tell: TypeAlias = Callable[[str], None]
"""Is handed lines about what happens."""


Run: TypeAlias = Callable[[Any, Path, Path | None, Tell], str]
"""Does all of a recipe, and says in a few lines what came out.

It is given the settings; the folder for everything that is written, where an interrupted run continues; the folder with
the data sets, or None for the Hub; and what is handed lines about what happens.
"""


def command(
    file: Path, settings: Callable[[], tuple[type[Any], Callable[[Any], str]]], study: Callable[[], Run]
) -> typer.Typer:
    """The command of a recipe. What it needs is imported only when it is needed, so that ``--help`` is quick.

    Args:
        file: the recipe's YAML file.
        settings: imports the dataclass that the file is read into, and what says for people what a run takes, by
            arithmetic alone. Its docstring is the command's help.
        study: imports what does the work.
    """
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.command(help=settings.__doc__)
    def run(
        *,
        scale: Annotated[
            str | None, typer.Option(help="A smaller run that the file describes, such as [cyan]small[/].")
        ] = None,
        output: Annotated[
            Path | None, typer.Option(metavar="DIR", help="Where all is written; an interrupted run continues there.")
        ] = None,
        data: Annotated[
            Path | None, typer.Option(metavar="DIR", help="The data sets, instead of the Hub; the README says how.")
        ] = None,
        recipe: Annotated[
            Path, typer.Option("--recipe", metavar="FILE", help="A copy of recipe.yaml, edited.", show_default=False)
        ] = file,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Print what a run takes, and do nothing: arithmetic, no network.")
        ] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback when something fails.")] = False,
    ) -> None:
        with reported_errors(debug, to_save_memory="make the batches in the recipe smaller, or take a smaller --scale"):
            from recipes.common.config import load_recipe

            kind, plan = settings()
            loaded = load_recipe(recipe, kind, scale=scale)
            if dry_run:
                typer.echo(plan(loaded))
                return
            if output is None:
                raise InputError("--output: name a folder for what is written, or see with --dry-run what a run takes")
            set_up_libraries(quiet=False)
            typer.echo(study()(loaded, output, data, lambda line: typer.echo(line, err=True)))

    return app


def in_hours(hours: float, digits: int = 0, unit: str = "") -> str:
    """Hours, with so many digits and the unit behind them; in minutes where they would round to 0."""
    if hours < 0.5 / 10**digits:
        return f"{60 * hours:.2g} min"
    return f"{hours:,.{digits}f}{unit}"
