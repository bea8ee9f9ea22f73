"""Which format rows are in: by name, or by the names and types of their columns."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa

from hf_negmine.base.errors import ColumnError, InputError, require, require_choice
from hf_negmine.data.formats.cells import holds_passages, is_messages
from hf_negmine.data.formats.columns import LabelledLists, LabelledPairs, NegativeColumns
from hf_negmine.data.formats.labelled import RowFormat
from hf_negmine.data.formats.lists import NegativeLists
from hf_negmine.data.texts import is_list, is_text

NUMBERED = re.compile(r"((?:hard_)?negative)s?(?:_?(\d+))?")
"""Names of the negative columns of Sentence Transformers' rows."""
QUERIES = ("query", "anchor", "question")
POSITIVES = ("positive", "answer", "passage", "passages", "document", "documents")
TITLED = pa.list_(pa.struct([("docid", pa.string()), ("title", pa.string()), ("text", pa.string())]))
CONTEXTS = pa.list_(pa.struct([("title", pa.string()), ("text", pa.string()), ("passage_id", pa.string())]))
CHATS = pa.list_(pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
TEXTS = pa.list_(pa.string())

Found = RowFormat | None
Maker = Callable[[pa.Schema, str | None, str | None], Found]


def _flagembedding(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    if not _has(schema, "query", "pos"):
        return None
    parallel, own = _of(schema, "neg_scores", "neg_id"), _of(schema, "pos_scores", "pos_id")
    return NegativeLists("flagembedding", "query", "pos", ("neg",), TEXTS, parallel, own)


def _tevatron(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    if not _has(schema, "query", "positive_passages"):
        return None
    return NegativeLists("tevatron", "query", "positive_passages", ("negative_passages",), TITLED)


def _dpr(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    if not _has(schema, "question", "positive_ctxs"):
        return None
    negatives = ("hard_negative_ctxs", *_of(schema, "negative_ctxs"))
    return NegativeLists("dpr", "question", "positive_ctxs", negatives, CONTEXTS)


def _swift(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    if not _has(schema, "messages", "positive_messages") or not is_messages(schema.field("messages").type):
        return None
    return NegativeLists("swift", "messages", "positive_messages", ("negative_messages",), CHATS)


def _swift_flat(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    if not _has(schema, "query", "response"):
        return None
    return NegativeLists("swift-flat", "query", "response", ("rejected_response",), TEXTS)


def _automodel(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    queries = _of(schema, "query", "question")
    if len(queries) != 1 or not _has(schema, "pos_doc"):
        return None
    return NegativeLists("automodel", queries[0], "pos_doc", ("neg_doc",), TEXTS)


def _n_tuple(schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    numbered = [(match, name) for name in schema.names if (match := NUMBERED.fullmatch(name))]
    negatives = tuple(name for _, name in sorted((int(match[2] or 0), name) for match, name in numbered))
    kinds = {is_list(schema.field(name).type) for name in negatives}
    if len({match[1] for match, _ in numbered}) != 1 or len(kinds) != 1:
        return None
    columns = _pair(schema, negatives, query, positive)
    if columns is None or not _has(schema, *negatives):
        return None
    scores = "scores" if "scores" in schema.names and is_list(schema.field("scores").type) else None
    if kinds == {True}:
        return NegativeLists("n-tuple", *columns, negatives, TEXTS, scores=scores)
    return NegativeColumns("n-tuple", *columns, negatives, scores=scores)


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

    Args:
        schema: the columns.
        needed: other columns that there must be.
        query, positive: names that the user gave.
        lists: whether positives come in lists; None if they may.
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
    "flagembedding": (_flagembedding, "query, pos, and neg", ("neg",)),
    "tevatron": (_tevatron, "query, positive_passages, and negative_passages", ()),
    "dpr": (_dpr, "question, positive_ctxs, and hard_negative_ctxs", ()),
    "swift": (_swift, "messages, positive_messages, and negative_messages", ()),
    "swift-flat": (_swift_flat, "query, response, and rejected_response", ("rejected_response",)),
    "automodel": (_automodel, "query or question, pos_doc, and neg_doc", ()),
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
    formats = [found for found in (_recognized(one, schema, *given) for one in FORMATS) if found is not None]
    if not formats:
        known = "; ".join(f"{one}: {columns}" for one, (_, columns, _) in FORMATS.items())
        raise InputError(f"rows_format: the rows have {_shown(schema)}, which is none of the known formats ({known})")
    require(
        len(formats) == 1,
        f"rows_format: the rows have {_shown(schema)}, which may be {' or '.join(one.name for one in formats)}; name "
        "one",
    )
    return formats[0]


def _recognized(name: str, schema: pa.Schema, query: str | None, positive: str | None) -> Found:
    maker, _, needed = FORMATS[name]
    found = maker(schema, query, positive) if set(needed) <= set(schema.names) else None
    return None if found is None or {query, positive} - {None, found.query, found.positive} else found


def _has(schema: pa.Schema, *names: str) -> bool:
    return all(name in schema.names and holds_passages(schema.field(name).type) for name in names)


def _of(schema: pa.Schema, *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if name in schema.names)


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({str(field.type)[:60]})" for field in schema) or "no columns"
