"""``hf-negmine cache``: verify, size, prune."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from hf_negmine.commands import options
from hf_negmine.commands.running import EXIT_FAILED, command
from hf_negmine.commands.signatures import option

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Look after the cache folder: verify, size, prune."
)

PRUNE_HELP = """
Remove from the cache what is no longer useful, and report what was removed.

That is: what killed runs left unfinished (a day without a change), what was set aside as damaged, and fits whose texts
are gone, which can no longer be opened. With [cyan]--unused-for[/], also fits, mined rows, banks, pools and indexes
that no run has used for that long, and texts that are left without any of these: a run makes them again, without
encoding. Vectors, and scores and verdicts on pairs, are never removed, because a teacher or a judge had to compute
them; nor is a pool that a run is working on, nor any file that hf_negmine has not written.
"""

REPAIR = option("repair", bool, "Set damaged files aside, so that the next run makes them again.", default=False)
UNUSED_FOR = option("unused_for", str, "Also what no run has used for this long, such as [cyan]30d[/].", metavar="TIME")
DRY_RUN = option("dry_run", bool, "Show what would be removed, but remove nothing.", default=False)
CACHE_DIR = replace(options.CACHE_DIR, into=None)


def _folder(cache_dir: Path | None) -> Path:
    from hf_negmine.base.errors import InputError
    from hf_negmine.base.files import default_cache_dir
    from hf_negmine.base.paths import folder_of

    folder = default_cache_dir() if cache_dir is None else folder_of(cache_dir, "--cache-dir")
    if not folder.is_dir():
        raise InputError(f"--cache-dir: {folder} is not a folder; nothing is cached there")
    return folder


@app.command()
@command({None: [REPAIR], options.RUNNING: [CACHE_DIR]})
def verify(*, repair: bool, cache_dir: Path | None) -> None:
    """Compare every file of the cache with its checksum; the exit code is 1 if any is damaged."""
    from hf_negmine.commands import cache_folder as cache

    checked, damaged = 0, 0
    for damage in cache.verify(_folder(cache_dir)):
        checked += 1
        if damage is not None:
            damaged += 1
            aside = "; set aside" if repair and damage.repair() else ""
            typer.echo(f"{damage.kind}: {damage.error}{aside}")
    typer.echo(f"{checked:,} checked, {damaged:,} damaged")
    if damaged:
        raise typer.Exit(EXIT_FAILED)


@app.command()
@command({options.RUNNING: [CACHE_DIR]})
def size(*, cache_dir: Path | None) -> None:
    """Show how many entries of each kind the cache holds, and how large they are."""
    from hf_negmine.commands import cache_folder as cache

    folder = _folder(cache_dir)
    rows = cache.measure(folder)
    rows["all"] = (sum(count for count, _ in rows.values()), sum(size for _, size in rows.values()))
    typer.echo(f"{folder}\n\n{'kind':<22}{'count':>10}{'MB':>14}")
    for kind, (count, size) in rows.items():
        typer.echo(f"{kind:<22}{count:>10,}{size / 1e6:>14,.3f}")


@app.command(help=PRUNE_HELP)
@command({None: [UNUSED_FOR, DRY_RUN], options.RUNNING: [CACHE_DIR]})
def prune(*, unused_for: str | None, dry_run: bool, cache_dir: Path | None) -> None:
    """Remove what is no longer useful."""
    from hf_negmine.commands import cache_folder as cache

    seconds = None if unused_for is None else cache.seconds_of(unused_for)
    count, freed = 0, 0
    for one in cache.prune(_folder(cache_dir), unused_for=seconds, dry_run=dry_run):
        count, freed = count + 1, freed + one.size
        typer.echo(f"{', '.join(map(str, one.paths))} ({one.why}): {one.size:,} bytes")
    typer.echo(f"{'Would remove' if dry_run else 'Removed'} {count:,}: {freed:,} bytes")
