"""CSV and TSV files before they are read: whether the first line names the columns, and what quotes mean."""

from __future__ import annotations

import csv
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from hf_negmine.base.errors import InputError, require

ROWS_LOOKED_AT = 50
ENOUGH_ROWS = 3
"""From this many lines on, lines that all differ in kind from the first one show that it is a header."""
NAME = re.compile(r"[^\W\d][\w.:/\-]{0,39}")
KNOWN = re.compile(
    r"(quer(y|ies)|questions?|anchor|positives?|pos|negatives?|neg|answers?|passages?|documents?|docs?|docid|texts?|id"
    r"|qid|pid|title|body|content|context|abstract|sentences?|premise|hypothesis|claim|response|instruction|labels?"
    r"|scores?|url)\d*"
)
"""Words that name columns."""


def reading_options(
    local: str, path: str, separator: str, named: Iterable[str], *, as_corpus: bool = False
) -> dict[str, Any]:
    """Arguments for the CSV builder of `datasets` that fit a file.

    Args:
        local: the local file.
        path: the user's name for it.
        separator: a comma, or a tab.
        named: columns that the user has named.
        as_corpus: whether lines of one text, or of a number and a text, are understood without a header.

    Raises:
        InputError: a first line that may be data, a duplicate name, lines of different lengths, quotes that do not
            match, or a file that is not UTF-8.
    """
    options: dict[str, Any] = {"sep": separator} if separator != "," else {}
    options["keep_default_na"] = False  # "NA" and "None" are texts
    try:
        if _quotes_are_letters(local, path, separator):
            options["quoting"] = csv.QUOTE_NONE
        literal = "quoting" in options
        rows = list(itertools.islice(_records(local, separator, literal=literal), ROWS_LOOKED_AT + 1))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    require(bool(rows), f"{path} is empty")
    (_, first), *others = rows
    wrong = next(((line, len(row)) for line, row in others if len(row) != len(first)), None)
    if wrong is not None:
        raise _ragged(path, wrong[0], wrong[1], len(first))
    if not _is_header(first, [row for _, row in others], set(named)):
        names = _names_without_header(first, [row for _, row in others]) if as_corpus else None
        if names is None:
            raise _no_header(path, separator, first, as_corpus=as_corpus)
        options["column_names"] = names
    twice = [name for name in first if first.count(name) > 1]
    require("column_names" in options or not twice, f"{path}: the first line names {twice[:1]} twice; rename one")
    require("column_names" in options or len(rows) > 1, f"{path} has a line with names but no rows")
    return options


def _is_header(first: list[str], others: list[list[str]], named: set[str]) -> bool:
    """Whether the first line surely names the columns: it holds a given name, or differs from the other lines."""
    if named & set(first):
        return True
    cells = [cell for cell in first if cell.strip()]  # pandas writes an index without a name
    if not cells or not all(_is_name(cell) for cell in cells):
        return False
    if any(_is_known(cell) for cell in cells):
        return True
    columns = zip(first, *others, strict=True) if len(others) >= ENOUGH_ROWS else ()
    return any(_is_name(own) and not any(map(_is_name, below)) for own, *below in columns)


def _is_name(cell: str) -> bool:
    return NAME.fullmatch(cell.strip()) is not None


def _is_known(cell: str) -> bool:
    return any(KNOWN.fullmatch(word) for word in re.split(r"[\W_]+", cell.lower()))


def _names_without_header(first: list[str], others: list[list[str]]) -> list[str] | None:
    """Names for lines of one text, or of a number and a text; None if it is not clear what the lines are."""
    if len(first) == 1 and not _is_name(first[0]):
        return ["text"]
    if len(first) == 2 and all(row[0].isdecimal() and not row[1].isdecimal() for row in [first, *others]):
        return ["id", "text"]
    return None


def _quotes_are_letters(local: str, path: str, separator: str) -> bool:
    """Whether quotes are ordinary characters, as in files that were written without quoting.

    In a TSV file they are if each line by itself has all its fields, and some quotes do not enclose a field. Otherwise
    all quotes must enclose fields; one that does not could swallow the lines that follow.
    """
    with open(local, "rb") as file:
        if not any(b'"' in chunk for chunk in iter(lambda: file.read(1 << 20), b"")):
            return False
    if separator == "\t":
        lengths, odd = set(), False
        for _, row in _records(local, separator, literal=True):
            lengths.add(len(row))
            odd = odd or any(cell.startswith('"') and not _is_quoted(cell) for cell in row)
        if len(lengths) == 1:
            return odd
    width, line = None, 0
    try:
        for line, row in _records(local, separator, literal=False):
            if len(row) != (width := width or len(row)):
                raise _ragged(path, line, len(row), width)
    except csv.Error as error:
        raise InputError(
            f"{path}: after line {line}, {error}; a text with quotes in it must be enclosed in quotes, with its own "
            "quotes doubled; or save the file as JSONL or Parquet"
        ) from error
    return False


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell.endswith('"') and '"' not in cell[1:-1].replace('""', "")


def _records(local: str, separator: str, *, literal: bool) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, as fields, each with the number of its last line in the file."""
    with open(local, encoding="utf-8-sig", newline=None if literal else "") as file:
        if literal:
            for line, text in enumerate(file, 1):
                if text.strip("\n"):
                    yield line, text.rstrip("\n").split(separator)
            return
        before = csv.field_size_limit(sys.maxsize)
        try:
            reader = csv.reader(file, delimiter=separator, strict=True)
            yield from ((reader.line_num, row) for row in reader if row)
        finally:
            csv.field_size_limit(before)


def _ragged(path: str, line: int, found: int, expected: int) -> InputError:
    return InputError(
        f"{path}: line {line} has {found} field(s) and the first one {expected}; enclose a text with separators in "
        "quotes, or save the file as JSONL or Parquet"
    )


def _no_header(path: str, separator: str, first: list[str], *, as_corpus: bool) -> InputError:
    shown = [cell if len(cell) <= 40 else cell[:39] + "…" for cell in first[:3]]
    names, arguments = ["query", "positive"], "query_column and positive_column"
    if as_corpus:
        names, arguments = ["id", "text"][-len(first) :], "corpus_column"
    names = names if len(names) == len(first) else [f"column_{place + 1}" for place in range(len(first))]
    sep = f", sep={separator!r}" if separator != "," else ""
    return InputError(
        f"{path}: the first line, {shown}, may be data rather than column names; if it names the columns, say which "
        f"to take ({arguments}); if not, put a line with names on top, or give "
        f"load_dataset('csv', data_files={path!r}{sep}, column_names={names}, split='train')"
    )
