"""Which format rows are in: by name, or by the names and types of their columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial

import pyarrow as pa

from hf_negmine.base.errors import ColumnError, InputError, require, require_choice
from hf_negmine.data.checks import is_list, is_text
from hf_negmine.data.formats.cells import holds_passages
from hf_negmine.data.formats.columns import LabelledLists, LabelledPairs, NegativeColumns
from hf_negmine.data.formats.labelled import RowFormat
from hf_negmine.data.formats.lists import SCORES, WEIGHTS, NegativeLists
from hf_negmine.data.formats.tools import TEXTS, TOOLS, Tool

NUMBERED = re.compile(r"((?:hard_)?neg(?:ative)?)s?(?:_?(\d+))?")
"""Names of the negative columns of Sentence Transformers' rows."""
ABOUT_NEGATIVES = re.compile(r"((hard_)?neg(ative)?s?|rejected(_response)?)_[a-z_]+")
"""Names of what is said about negatives, such as ``neg_weights``."""
QUERIES = ("query", "anchor", "question")
POSITIVES = ("positive", "answer", "passage", "passages", "document", "documents")
Found = RowFormat | None
Maker = Callable[[pa.Schema, str | None, str | None], Found]


def _of_tool(tool: Tool, schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    """The format of a tool, whose columns have fixed names."""
    queries = [name for name in tool.queries if name in schema.names]
    if len(queries) != 1 or not _has(schema, queries[0], tool.positive):
        return None
    if any(not holds_passages(schema.field(name).type) for name in _of(schema, *tool.negatives)):
        return None
    later = _of(schema, *tool.negatives[1:])
    return NegativeLists(
        tool.name,
        queries[0],
        tool.positive,
        (tool.negatives[0], *later),
        tool.lists,
        _of(schema, *tool.of_negatives),
        _values(schema, *tool.negatives, *tool.of_negatives),
        of_positives=_of(schema, *tool.of_positives),
    )


def _n_tuple(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    others = [name for name in schema.names if name not in (query, positive)]
    numbered = [(match, name) for name in others if (match := NUMBERED.fullmatch(name))]
    negatives = tuple(name for _, name in sorted((int(match[2] or 0), name) for match, name in numbered))
    kinds = {is_list(schema.field(name).type) for name in negatives}
    if len({match[1] for match, _ in numbered}) != 1 or len(kinds) != 1:
        return None
    columns = _pair(schema, negatives, query, positive)
    if columns is None or not _has(schema, *negatives):
        return None
    values = _values(schema, *negatives, scores=True)
    if kinds == {True}:
        return NegativeLists("n-tuple", *columns, negatives, TEXTS, values=values)
    return NegativeColumns("n-tuple", *columns, negatives, values=values)


def _labeled_list(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    columns = _pair(schema, ("labels",), query, positive, lists=True)
    if columns is None or not is_list(schema.field("labels").type):
        return None
    return LabelledLists("labeled-list", *columns, "labels")


def _labeled_pair(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    columns = _pair(schema, ("label",), query, positive, lists=False)
    if columns is None or not is_text(schema.field(columns[0]).type):
        return None
    return LabelledPairs("labeled-pair", *columns, "label")


def _pair(
    schema: pa.Schema, needed: tuple[str, ...], query: str | None, positive: str | None, *, lists: bool | None = None
) -> tuple[str, str] | None:
    """The query and positive columns: as named, by a usual name, or the only two of texts; None if it is not clear.

    There must be all ``needed`` columns, too; with ``lists`` None, positives may come in lists.
    """
    if not set(needed) <= set(schema.names):
        return None
    kinds = {field.name: field.type for field in schema if field.name not in needed and holds_passages(field.type)}
    queries = [name for name, kind in kinds.items() if not is_list(kind)] if query is None else [query]
    query = _only([name for name in queries if name != positive], QUERIES)
    positives = [name for name, kind in kinds.items() if lists is None or is_list(kind) is lists]
    positives = [name for name in positives if name != query] if positive is None else [positive]
    positive = _only(positives, POSITIVES)
    return None if query is None or positive is None else (query, positive)


def _only(names: list[str], usual: tuple[str, ...]) -> str | None:
    """The name among the usual ones, if there is one, else the only name; None without either."""
    known = [name for name in names if name in usual] or names
    return known[0] if len(known) == 1 else None


FORMATS: dict[str, tuple[Maker, str, tuple[str, ...]]] = {
    "n-tuple": (_n_tuple, "a query, a positive, and negative or negative_1, negative_2, …", ()),
    "labeled-pair": (_labeled_pair, "a query, a passage, and label", ()),
    "labeled-list": (_labeled_list, "a query, a list of passages, and labels", ()),
    **{name: (partial(_of_tool, tool), tool.in_words, tool.distinctive) for name, tool in TOOLS.items()},
}
"""By name: what makes the format for a schema that has it, its columns in words, and those that rows need besides to be
recognized without a name."""


def format_of(
    schema: pa.Schema, name: str | None = None, *, query_column: str | None = None, positive_column: str | None = None
) -> RowFormat:
    """The format of rows with these columns.

    Args:
        schema: names and types of the columns.
        name: one of `FORMATS`; None recognizes the format by its columns.
        query_column, positive_column: columns of a format that does not name them, those of Sentence Transformers.

    Raises:
        InputError: the rows have no known format, several, or not the one that is named.
    """
    given = (query_column, positive_column)
    for argument, column in zip(("query_column", "positive_column"), given, strict=True):
        if column is not None and column not in schema.names:
            raise ColumnError(column, schema.names, argument=argument)
    if name is not None:
        require_choice(name, FORMATS, argument="rows_format")
        maker, columns, _ = FORMATS[name]
        found = maker(schema, *given)
        if found is None:
            raise InputError(f"rows_format {name!r} has {columns}; the rows have {_shown(schema)}")
        return found
    formats = _candidates(schema, *given)
    if not formats:
        known = "; ".join(f"{one}: {columns}" for one, (_, columns, _) in FORMATS.items())
        raise InputError(f"rows_format: the rows have {_shown(schema)}, which is none of the known formats ({known})")
    require(
        len(formats) == 1,
        f"rows_format: the rows have {_shown(schema)}, which may be {' or '.join(one.name for one in formats)}; name "
        "one",
    )
    return formats[0]


def recognized_format(schema: pa.Schema, query_column: str | None, positive_column: str | None) -> RowFormat | None:
    """The only format that rows with these columns can have, those with labels aside; None without one.

    Labels may mean anything, so the formats with labels have to be named.
    """
    found = _candidates(schema, query_column, positive_column)
    formats = [one for one in found if not one.name.startswith("labeled")]
    return formats[0] if len(formats) == 1 else None


def names_of_formats(names: Iterable[str]) -> list[str]:
    """Those of these columns that a format may be recognized by."""
    known = {name for tool in TOOLS.values() for name in (*tool.queries, *tool.read_columns)}
    return [name for name in names if name in (*known, "label", "labels", "scores") or NUMBERED.fullmatch(name)]


def _candidates(schema: pa.Schema, query: str | None, positive: str | None) -> list[RowFormat]:
    """The formats that rows with these columns may have: those of tools, whose names are their own, before others."""
    found = []
    for maker, _, needed in FORMATS.values():
        one = maker(schema, query, positive) if set(needed) <= set(schema.names) else None
        if one is not None and not {query, positive} - {None, one.query, one.positive}:
            found.append(one)
    return [one for one in found if one.name in TOOLS] or found


def _has(schema: pa.Schema, *names: str) -> bool:
    return all(name in schema.names and holds_passages(schema.field(name).type) for name in names)


def _of(schema: pa.Schema, *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if name in schema.names)


def _values(schema: pa.Schema, *others: str, scores: bool = False) -> tuple[str, ...]:
    """The columns of lists, besides ``others``, that by their names have a value for each negative."""
    lists = [field.name for field in schema if is_list(field.type) and field.name not in others]
    return tuple(one for one in lists if one == WEIGHTS or (one == SCORES and scores) or ABOUT_NEGATIVES.fullmatch(one))


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema) or "no columns"
