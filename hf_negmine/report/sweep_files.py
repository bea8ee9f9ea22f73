"""The table of a sweep in a file: how its name ends, and reading it back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hf_negmine.base.errors import InputError, require

KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "int64": (int,), "float64": (float, int), "bool": (bool,)}


def check_suffix(path: Path) -> None:
    """Raise `InputError` for the name of a file that `Sweep.save` cannot write."""
    if path.suffix not in (".parquet", ".csv", ".jsonl", ".md"):
        raise InputError(f"{path}: a sweep is written as .parquet, .csv, .jsonl or .md; end the name of the file so")


def read_table(path: Path | str, columns: Mapping[str, str], optional: Collection[str]) -> list[dict[str, Any]]:
    """The rows of a file that `Sweep.save` has written.

    Args:
        path: the file.
        columns: the columns by name, with their types.
        optional: those in which a value may be missing.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    from hf_negmine.data.sources import open_file

    file = Path(path).expanduser()
    require(
        file.suffix != ".md", f"sweep: {path} is a sweep for people to read; write it as .parquet, .csv or .jsonl, too"
    )
    require(file.is_file(), f"sweep: there is no file {path}; give what `hf-negmine sweep --output` has written")
    table = open_file(file)  # of a CSV file, all columns may be of text
    lacking = [name for name in columns if name not in table.column_names]
    named = f"sweep: {path} is not a sweep (`hf-negmine sweep --output`, Sweep.save):"
    require(not lacking, f"{named} it lacks the columns {', '.join(lacking)}")
    require(len(table) > 0, f"{named} it has no rows")
    rows: list[dict[str, Any]] = table.select_columns(list(columns)).to_list()
    for place, row in enumerate(rows, 1):
        for name, kind in columns.items():
            if file.suffix == ".csv":
                row[name] = _value(str(row[name]), kind)
            fits = type(row[name]) in KINDS[kind] or (row[name] is None and name in optional)
            require(fits, f"{named} in row {place}, {name} is {row[name]!r:.40}, expected {kind}")
    return rows


def _value(text: str, kind: str) -> Any:
    """What a cell of a CSV file holds; the cell itself if that is of another kind."""
    if kind == "string":
        return text
    if text in ("", "None"):
        return None
    try:
        return {"True": True, "False": False}.get(text, text) if kind == "bool" else KINDS[kind][0](text)
    except ValueError:
        return text
