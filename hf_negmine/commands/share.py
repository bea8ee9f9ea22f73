"""``hf-negmine push`` and ``hf-negmine reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.commands import options
from hf_negmine.commands import share_options as own
from hf_negmine.commands.running import reported_errors, set_up_libraries

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


def push(
    folder: own.MinedFolder,
    repo_id: own.RepoId,
    *,
    config: own.Config = "default",
    split: own.HubSplit = "train",
    private: own.Private = None,
    revision: own.PushRevision = None,
    with_pool: own.WithPool = False,
    license: own.License = None,
    language: own.Languages = None,
    source_dataset: own.SourceDatasets = None,
    token: own.Token = None,
    dry_run: own.DryRun = False,
    cache_dir: own.PushCacheDir = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Push FOLDER to USER/NAME."""
    with reported_errors(debug, secret=token):
        settings = {
            "config_name": config,
            "split": split,
            "private": private,
            "revision": revision,
            "with_pool": with_pool,
            "license": license,
            "languages": language or [],
            "source_datasets": source_dataset or [],
            "token": _checked_token(token),
            "dry_run": dry_run,
        }
        _push(folder, repo_id, settings, cache_dir, quiet=quiet)


def _push(folder: Path, repo_id: str, settings: dict[str, Any], cache_dir: Path | None, *, quiet: bool) -> None:
    from hf_negmine.commands.output import is_output, open_mined

    if not is_output(folder):
        raise InputError(f"{folder} is not a folder that hf-negmine mine has written: it has no summary")
    set_up_libraries(quiet=quiet)
    from hf_negmine.base.files import default_cache_dir
    from hf_negmine.hub.material import Material
    from hf_negmine.hub.push import push_material

    mined = open_mined(folder)
    assert mined.summary is not None
    home = default_cache_dir() if cache_dir is None else cache_dir.expanduser()
    material = Material.of_saved(mined.rows, mined.summary, home, mined.lookups)
    if not material.can_be_mined_again:
        left = "rows, queries, corpus" if material.lookups else "rows"
        typer.echo(
            f"Note: {home} no longer holds what these rows were mined from; only {left} and summary are pushed, and "
            "reproduce cannot mine them again.",
            err=True,
        )
    result = push_material(material, repo_id, **settings)
    typer.echo(result)
    if result.commit is not None and not quiet:
        where = f', revision="{settings["revision"]}"' if settings["revision"] else ""
        code = f'datasets.load_dataset("{repo_id}", "{settings["config_name"]}", split="{settings["split"]}"{where})'
        typer.echo(f"Load it: rows = {code}")


def reproduce(
    repo_id: own.RepoId,
    *,
    config: own.Config = "default",
    split: own.HubSplit = "train",
    revision: own.LoadRevision = None,
    teacher: own.OtherTeacher = None,
    token: own.Token = None,
    cache_dir: options.CacheDir = None,
    quiet: own.QuietReproduce = False,
    debug: options.Debug = False,
) -> None:
    """Mine USER/NAME again, and compare."""
    with reported_errors(debug, secret=token):
        token = _checked_token(token)
        set_up_libraries(quiet=quiet)
        from hf_negmine.hub.reproducing import reproduce as mine_again

        found = mine_again(
            repo_id,
            config,
            split=split,
            revision=revision,
            token=token,
            teacher=teacher,
            cache_dir=cache_dir,
            progress=not quiet,
        )
        typer.echo(found.verdict if quiet else found)
        if not found.identical:
            raise typer.Exit(EXIT_DIFFERENT)


def _checked_token(token: str | None) -> str | None:
    """The token, None for an empty one; a broken one is refused here, as a later error would print it."""
    token = (token or "").strip()
    if not all("!" <= letter <= "~" for letter in token):
        raise InputError("--token: it has a character that no Hub token has; was it copied completely?")
    return token or None
