"""``hf-negmine audit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hf_negmine.base.errors import InputError
from hf_negmine.base.wording import counted
from hf_negmine.commands import miners, options
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, argument, option
from hf_negmine.commands.specs import FILE

if TYPE_CHECKING:
    import datasets

    from hf_negmine.auditing import Audit

HELP = """Look at the negatives that ROWS have already: how many are likely false ones?

The teacher scores them, and each is held against the ceiling of a method, the filters and the judge. Nothing is \
changed, unless --repair asks for it.
"""
EPILOG = """
[bold]Examples[/]

[cyan]hf-negmine audit toy_finetune_data.jsonl -t BAAI/bge-m3[/]

Every negative with what speaks against it, and an exit code for tests: 1 if more than a tenth are doubtful:

[cyan]hf-negmine audit mined.parquet -t BAAI/bge-m3 -o audit.parquet --fail-over 0.1[/]

Others in the place of doubtful ones, from a corpus:

[cyan]hf-negmine audit pairs.jsonl -t BAAI/bge-m3 --corpus passages.parquet --repair repaired.jsonl[/]
"""
ROWS = (
    "Rows with a query, positives and negatives, in the format of Sentence Transformers, FlagEmbedding or another "
    "tool: what mine has written, a data set id on the Hub, a file, a folder of save_to_disk, or a BEIR folder, whose "
    "judgements of 0 are negatives."
)
SUFFIXES = (".parquet", ".jsonl")

OPTIONS = {
    None: [argument("rows", str, ROWS, "ROWS")],
    options.DATA: [
        miners.part("split"),
        miners.part("config_name", "--config"),
        options.CORPUS,
        *options.COLUMNS,
        options.CORPUS_CONFIG,
    ],
    **miners.TEACHER,
    options.NEGATIVES: [options.METHOD, options.POSITIVE_SCORE],
    "Filters": [*miners.FILTERS[:2], *miners.JUDGE[:-1]],
    options.OUTPUT: [
        option("output", Path, "File for the table of all negatives: .parquet.", "-o", **FILE),
        option(
            "repair", Path,
            "File for the rows in their own format, with other negatives in the place of doubtful ones: .parquet or "
            ".jsonl. What changed is written beside it.",
            **FILE,
        ),
        option(
            "positives", Path,
            "With --judge: file for the pairs of a query and a negative that it calls relevant: .parquet or .jsonl.",
            **FILE,
        ),
        option("drop", bool, "With --repair: drop doubtful negatives without replacing them.", default=False),
        option(
            "fail_over", float, "Exit with 1 if more than this share of the negatives is doubtful.", metavar="SHARE",
            min=0.0, max=1.0,
        ),
    ],
    options.RUNNING: [options.CACHE_DIR, options.DEVICE, options.QUIET, options.JSON],
}  # fmt: skip


@command(OPTIONS, to_save_memory=miners.TO_SAVE_MEMORY)
def audit(
    rows: str,
    part: Given,
    teacher: str,
    loading: Given,
    mining: Given,
    output: Path | None,
    repair: Path | None,
    positives: Path | None,
    drop: bool,
    fail_over: float | None,
    quiet: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Audit the negatives of ROWS."""
    if drop and repair is None:
        raise InputError("--drop: for --repair, which is not given")
    if positives is not None and not filters["judging"]:
        raise InputError("--positives: for --judge, which is not given")
    for flag, path in (("--repair", repair), ("--positives", positives)):
        if path is not None and path.suffix not in SUFFIXES:
            raise InputError(f"{flag} {path}: rows are written as .parquet or .jsonl; end the name of the file so")
    from hf_negmine.commands.output import DATA, is_output

    if is_output(Path(rows)):
        rows = str(Path(rows) / DATA)
    _require_different(rows, mining.get("corpus"), output, repair, positives)
    quiet |= as_json
    set_up_libraries(quiet=quiet)
    miner = miners.open_miner(teacher, loading, {**mining, "progress": not quiet}, consistency={}, **filters)
    from hf_negmine import auditing

    if output is not None:
        auditing.check_suffix(output)
    done = auditing.audit(rows, miner, **part)
    if not quiet:
        typer.echo(f"\n{done}\n")
    told = []
    if output is not None:
        done.save(output)
        told.append(f"Written: {output}")
    if positives is not None:
        found = done.mined_positives()
        _write(found, positives)
        told.append(f"Written: {positives}, {counted(len(found), 'pair')} that the judge calls relevant")
    if repair is not None:
        told.append(_repair(done, repair, drop))
    typer.echo(json.dumps(done.as_dict()) if as_json else "\n".join(told), nl=as_json or bool(told))
    if fail_over is not None and done.share > fail_over:
        typer.echo(f"{100 * done.share:.1f} % of the negatives are doubtful, over {100 * fail_over:g} %", err=True)
        raise typer.Exit(1)


def _changes_of(repair: Path) -> Path:
    """The file beside repaired rows that says what changed."""
    return repair.with_name(f"{repair.stem}.changes.parquet")


def _require_different(
    rows: str, corpus: str | None, output: Path | None, repair: Path | None, positives: Path | None
) -> None:
    """Raise `InputError` if a file would be written over the rows, the corpus, or another output."""
    read = {"ROWS": Path(rows), "--corpus": None if corpus is None else Path(corpus)}
    files = {**read, "--output": output, "--positives": positives}
    if repair is not None:
        files |= {"--repair": repair, "what changed, beside --repair": _changes_of(repair)}
    seen: dict[Path, str] = {}
    for name, path in files.items():
        if path is None:
            continue
        whole = path.expanduser().resolve()
        if whole in seen:
            raise InputError(f"{name} and {seen[whole]} are the same file, {path}; give another name to one of them")
        seen[whole] = name


def _repair(audited: Audit, path: Path, drop: bool) -> str:
    """Write the repaired rows and what changed; returns what to tell."""
    repaired = audited.repair(replace=not drop)
    changes = _changes_of(path)
    _write(repaired.rows, path)
    _write(repaired.changes, changes)
    return f"{repaired}\nWritten: {path}, and what changed: {changes}"


def _write(rows: datasets.Dataset, path: Path) -> None:
    """Write rows as the name of the file says, whole or not at all."""
    from hf_negmine.base.files import finish_or_nothing

    with finish_or_nothing(path) as file:
        if path.suffix == ".jsonl":
            rows.to_json(file)
        else:
            rows.to_parquet(file)
