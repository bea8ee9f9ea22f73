"""``hf-negmine push`` and ``hf-negmine reproduce``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands import options
from hf_negmine.commands.options import mining
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, Signature, argument, option
from hf_negmine.commands.specs import FILE, folder

EXIT_DIFFERENT = 1

PUSH_HELP = """Push what mine has written to the Hub.

Sends rows, the queries and the corpus they were mined from, every setting and a card with figures, in one commit: \
anyone with the name can load them, train on them, and mine them again with [cyan]hf-negmine reproduce[/].
"""
PUSH_EPILOG = """
[bold]Examples[/]

See first what would be sent:

[cyan]hf-negmine push nq-mined you/nq-mined --license cc-by-sa-3.0 --dry-run[/]

The license is that of the source, which the card links to:

[cyan]hf-negmine push nq-mined you/nq-mined --source-dataset sentence-transformers/natural-questions[/]

A second method beside the first, with the candidates, to select from them again:

[cyan]hf-negmine push nq-margin you/nq-mined --config margin --with-pool[/]

What you write into the card outside its marks stays. After an interruption run the same command again.
"""
REPRODUCE_HELP = """Mine a pushed data set again and report whether the rows are the same.

Settings, texts and the names of teachers come from the Hub, and nothing is written there. What needs your own key or \
code (a judge, an API, a condition on metadata) must be given from Python: reproduce(…, teacher=…, filters=…).

The exit code is 0 if all rows came out again, 1 if not or if something failed.
"""
REPRODUCE_EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine reproduce you/nq-mined[/]

Another part, as it was at a commit, with a copy of the teacher from this machine:

[cyan]hf-negmine reproduce you/nq-mined --config margin --revision 5f3a1c2 -t ~/models/e5-base-v2[/]
"""

pushing = Signature("settings", "hub.push", "push_dataset")
loading = Signature("settings", "hub.load", "load_mined")
reproducing = Signature("settings", "hub.reproducing", "reproduce")

REPO_ID = argument("repo_id", str, "The data set on the Hub.", "USER/NAME")
CONFIG, SPLIT = pushing("config_name", "--config"), pushing("split")
TOKEN = replace(
    pushing(
        "token", metavar="TOKEN", envvar="HF_TOKEN", help="Hub token; the variable keeps it out of the shell's history."
    ),
    into=None,
)
FROM_CACHE = "Where the rows were mined: their texts and candidates are taken from there."

PUSH = {
    None: [argument("folder", Path, "What mine has written: its --output.", "FOLDER"), REPO_ID],
    "Repository": [
        CONFIG,
        SPLIT,
        pushing("private", "--private/--public"),
        pushing("revision", metavar="BRANCH"),
        pushing("with_pool"),
        pushing("report"),
    ],
    "Card": [
        pushing("license"),
        pushing("languages", "--language", metavar="CODE"),
        pushing("source_datasets", "--source-dataset", metavar="USER/NAME"),
        option("sweep", Path, f"A sweep with judgements, whose front the card shows. {options.SWEEP}", **FILE),
    ],
    options.RUNNING: [
        TOKEN,
        pushing("dry_run"),
        replace(mining("cache_dir", metavar="DIR", callback=folder, help=FROM_CACHE), into=None),
        options.QUIET,
    ],
}
REPRODUCE = {
    None: [REPO_ID],
    "Repository": [CONFIG, SPLIT, loading("revision")],
    options.TEACHER: [reproducing("teacher", "-t", metavar="MODEL")],
    options.RUNNING: [
        TOKEN,
        replace(options.CACHE_DIR, into="settings"),
        option("quiet", bool, "Print only the verdict.", "-q", default=False),
    ],
}


@command(PUSH)
def push(
    folder: Path,
    repo_id: str,
    settings: Given,
    sweep: Path | None,
    token: str | None,
    cache_dir: Path | None,
    quiet: bool,
) -> None:
    """Push FOLDER to USER/NAME."""
    token = _checked_token(token)
    from hf_negmine.commands.output import is_output, open_mined

    if not is_output(folder):
        raise InputError(f"{folder} is not a folder that hf-negmine mine has written: it has no summary")
    set_up_libraries(quiet=quiet)
    from hf_negmine.base.files import default_cache_dir
    from hf_negmine.hub.material import Material
    from hf_negmine.hub.push import push_dataset
    from hf_negmine.report.sweep import Sweep

    table = None if sweep is None else Sweep.read(sweep)
    mined = open_mined(folder)
    assert mined.summary is not None
    home = default_cache_dir() if cache_dir is None else cache_dir
    material = Material.of_saved(mined.rows, mined.summary, home, mined.lookups)
    if not material.can_be_mined_again:
        left = "rows, queries, corpus" if material.lookups else "rows"
        typer.echo(
            f"Note: {home} no longer holds what these rows were mined from; only {left} and summary are pushed, and "
            "reproduce cannot mine them again.",
            err=True,
        )
    result = push_dataset(material, repo_id, token=token, sweep=table, **settings)
    typer.echo(result)
    if result.commit is not None and not quiet:
        config, split = settings.get("config_name", CONFIG.default), settings.get("split", SPLIT.default)
        where = f', revision="{settings["revision"]}"' if "revision" in settings else ""
        typer.echo(f'Load it: rows = datasets.load_dataset("{repo_id}", "{config}", split="{split}"{where})')


@command(REPRODUCE)
def reproduce(repo_id: str, settings: Given, token: str | None, quiet: bool) -> None:
    """Mine USER/NAME again, and compare."""
    token = _checked_token(token)
    set_up_libraries(quiet=quiet)
    from hf_negmine.hub.reproducing import reproduce as mine_again

    found = mine_again(repo_id, token=token, progress=not quiet, **settings)
    typer.echo(found.verdict if quiet else found)
    if not found.identical:
        raise typer.Exit(EXIT_DIFFERENT)


def _checked_token(token: str | None) -> str | None:
    """The token, None for an empty one; a broken one is refused here, as a later error would print it."""
    token = (token or "").strip()
    if not all("!" <= letter <= "~" for letter in token):
        raise InputError("--token: it has a character that no Hub token has; was it copied completely?")
    return token or None
