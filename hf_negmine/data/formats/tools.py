"""The row formats of other tools, as their own loaders read them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

TEXTS = pa.list_(pa.string())


@dataclass(frozen=True)
class Tool:
    """The columns of a tool's rows.

    Attributes:
        name: the name of the format.
        queries: the names that its column of queries may have, of which rows written anew have the first.
        query_type: the type of a query.
        positive: the column of positives.
        positive_type: the type of its cells.
        negatives: the columns of negatives, the hardest first.
        lists: the type of their cells.
        of_positives, of_negatives: columns with one value for each positive, and for each element of the first column
            of negatives.
        one_positive: whether a row has exactly one positive.
        distinctive: columns without which rows are not recognized by their shape, since others have the rest, too.
        empty: columns of lists that its loader expects, though they may be empty.
    """

    name: str
    queries: tuple[str, ...]
    query_type: pa.DataType
    positive: str
    positive_type: pa.DataType
    negatives: tuple[str, ...]
    lists: pa.DataType
    of_positives: tuple[str, ...] = ()
    of_negatives: tuple[str, ...] = ()
    one_positive: bool = False
    distinctive: tuple[str, ...] = ()
    empty: dict[str, pa.DataType] = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """The columns, for messages."""
        return f"{' or '.join(self.queries)}, {self.positive}, and {self.negatives[0]}"

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The columns of passages, and about them."""
        return (self.positive, *self.negatives, *self.of_positives, *self.of_negatives)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The columns of rows written anew, with their types."""
        return {
            self.queries[0]: self.query_type,
            self.positive: self.positive_type,
            self.negatives[0]: self.lists,
            **self.empty,
        }


def _passages(*names: str) -> pa.DataType:
    return pa.list_(pa.struct([(name, pa.string()) for name in names]))


_TEXT = pa.string()
_CHAT = pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))
_TITLED = _passages("docid", "title", "text")
_CONTEXTS = _passages("title", "text", "passage_id")

TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "flagembedding", ("query",), _TEXT, "pos", TEXTS, ("neg",), TEXTS,
            ("pos_scores", "pos_id"), ("neg_scores", "neg_id"), distinctive=("neg",),
        ),
        Tool("tevatron", ("query",), _TEXT, "positive_passages", _TITLED, ("negative_passages",), _TITLED),
        Tool(
            "dpr", ("question",), _TEXT, "positive_ctxs", _CONTEXTS, ("hard_negative_ctxs", "negative_ctxs"), _CONTEXTS,
            empty={"answers": TEXTS, "negative_ctxs": _CONTEXTS},
        ),
        Tool(
            "swift", ("messages",), _CHAT, "positive_messages", pa.list_(_CHAT), ("negative_messages",),
            pa.list_(_CHAT), one_positive=True,
        ),
        Tool(
            "swift-flat", ("query",), _TEXT, "response", _TEXT, ("rejected_response",), TEXTS,
            one_positive=True, distinctive=("rejected_response",),
        ),
        Tool("automodel", ("question", "query"), _TEXT, "pos_doc", TEXTS, ("neg_doc",), TEXTS),
    )
}  # fmt: skip
"""By name."""
