"""Training rows of any mined format, read from the dictionaries that a data loader passes to its collator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from hf_negmine.base.errors import ColumnError, InputError, require
from hf_negmine.data.formats.cells import passage_texts
from hf_negmine.data.formats.lists import WEIGHTS
from hf_negmine.data.formats.tools import TOOLS, Tool
from hf_negmine.train.rows import TrainingRow

LABEL_COLUMNS = ("label", "labels", "score", "scores")
NOT_TEXT = (*LABEL_COLUMNS, WEIGHTS, "dataset_name")
NEGATIVES = re.compile(r"((?:hard_)?neg(?:ative)?s?)(?:_?(\d+))?")
"""Names of negative columns: ours, FlagEmbedding's (``neg``) and ``hard_negatives``, numbered or not."""
FEATURES_A_BATCH = 1024

Feature = Mapping[str, Any]


class LookupTables:
    """The texts of format ``ids``: data sets like `NegativeMiner.queries` and ``.corpus``."""

    def __init__(self, queries: datasets.Dataset, corpus: datasets.Dataset) -> None:
        self.queries, self.corpus = _Lookup(queries, "queries"), _Lookup(corpus, "corpus")


class _Lookup:
    """Finds texts by their ids in a table with one column of whole numbers and one of texts."""

    def __init__(self, table: datasets.Dataset, name: str) -> None:
        features = {column: getattr(kind, "dtype", "") for column, kind in table.features.items()}
        ids = [column for column, kind in features.items() if "int" in kind]
        texts = [column for column, kind in features.items() if kind in ("string", "large_string")]
        require(
            len(ids) == 1 and len(texts) == 1,
            f"{name}: expected one column of whole numbers and one of text, got {features}",
        )
        self._name, self._table, self._text = name, table, texts[0]
        values = table.with_format("numpy")[ids[0]][:]
        # A miner's tables count from 0; only other tables need a map from id to place.
        self._place: range | dict[int, int] = range(len(values))
        if len(values) and not (values == self._place).all():
            self._place = {int(value): place for place, value in enumerate(values)}

    def texts(self, ids: Sequence[Any]) -> list[str]:
        """The texts with these ids, in this order; of rows in torch's format they are tensors."""
        ids = [value.item() if hasattr(value, "item") else value for value in ids]
        missing = next((value for value in ids if value not in self._place), None)
        if missing is not None:
            raise InputError(
                f"{self._name}: the id {missing} is not among the {len(self._table):,} of the lookup table"
            )
        found: list[str] = self._table[[self._place[value] for value in ids]][self._text]
        return found


class RowReader:
    """Reads rows with one set of columns.

    Attributes:
        n: negatives per row, None before `n_of` has seen rows.

    Args:
        columns: the columns of the rows.
        query_column, positive_column: may be left out for rows with no other text than these two and negatives.
        lookups: the lookup tables of format ``ids``.

    Raises:
        InputError: the columns match none of the formats.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        query_column: str | None = None,
        positive_column: str | None = None,
        lookups: LookupTables | None = None,
    ) -> None:
        self.n: int | None = None
        self._lookups = lookups
        self.is_ids = "document_ids" in columns
        self.tool = tool_of(columns, query_column, positive_column)
        self.negative_columns = negative_columns(columns) if self.tool is None else own_columns(self.tool, columns)
        self.label_column = next((name for name in LABEL_COLUMNS if name in columns), None)
        require(
            WEIGHTS not in columns or bool(self.negative_columns),
            f"column {WEIGHTS!r} holds a weight per negative, for rows with negatives of their own (negative_1 …, or a "
            f"list), but these have the columns {list(columns)}; remove it",
        )
        if self.is_ids:
            require("query_id" in columns, f"rows with document_ids need query_id, too; got {list(columns)}")
            if lookups is None:
                raise InputError(
                    "rows of format ids hold numbers: give the collator the lookup tables, queries=miner.queries and "
                    "corpus=miner.corpus"
                )
            return
        if self.tool is not None:
            self.query_column = next(name for name in self.tool.queries if name in columns)
            self.positive_column = self.tool.positive
            return
        texts = [name for name in columns if name not in (*NOT_TEXT, *self.negative_columns)]
        for argument, name in (("query_column", query_column), ("positive_column", positive_column)):
            if name is not None and name not in texts:
                raise ColumnError(name, texts, argument=argument)
        others = [name for name in texts if name not in (query_column, positive_column)]
        lacking = (query_column is None) + (positive_column is None)
        require(
            lacking in (0, len(others)),
            f"query_column and positive_column: name them, the rows have the columns {texts} besides negatives and "
            "labels, and only exactly two can be told apart without names",
        )
        self.query_column = query_column if query_column is not None else others.pop(0)
        self.positive_column = positive_column if positive_column is not None else others.pop(0)

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The columns that may hold the teacher's scores beside columns of negatives."""
        return ("scores",) if self.tool is None else (*self.tool.of_positives[:1], *self.tool.of_negatives[:1])

    def n_of(self, rows: Sequence[TrainingRow]) -> int:
        """The number of negatives per row that the columns hold: that of the columns, or the length of every list.

        Raises:
            InputError: lists have different lengths, here or compared with earlier rows.
        """
        seen = {row.room for row in rows if row.negatives} | ({self.n} if self.n else set())
        self.n = one_length(seen) if seen else None
        return self.n or 1

    def holds_negatives(self, feature: Feature) -> bool:
        """Whether rows like this one hold their negatives."""
        if self.is_ids or self.negative_columns:
            return True
        return self.label_column is not None and not isinstance(feature[self.positive_column], str)

    def read(self, feature: Feature) -> TrainingRow:
        """Read one row.

        Raises:
            InputError: no query or positive, or something other than text.
        """
        row = self._read(feature)
        if WEIGHTS in feature:
            row.weights = _weights(feature[WEIGHTS], row)
        return row

    def _read(self, feature: Feature) -> TrainingRow:
        if self.is_ids:
            return self._read_ids(feature)
        if self.tool is not None:
            return self._read_of_tool(feature, self.tool)
        query, positive = feature[self.query_column], feature[self.positive_column]
        if not isinstance(query, str):
            raise InputError(f"column {self.query_column!r} holds {query!r:.80}, expected the text of a query")
        positives = _texts(positive, self.positive_column)
        if not isinstance(positive, str) and self.label_column is not None and not self.negative_columns:
            return _split(query, positives, feature[self.label_column], self.label_column)
        if not positives:
            raise InputError(f"column {self.positive_column!r} holds no positive for {query[:80]!r}; leave the row out")
        row = TrainingRow(query, positives)
        for name in self.negative_columns:
            texts = _texts(feature[name], name)
            row.negatives += texts
            row.room += 1 if feature[name] is None or isinstance(feature[name], str) else len(texts)
        scores = _numbers(feature.get("scores"))
        if scores is not None and len(scores) == 1 + len(row.negatives):
            row.positive_score, row.scores = scores[0], scores[1:]
        else:
            row.scores = [float("nan")] * len(row.negatives)
        return row

    def _read_of_tool(self, feature: Feature, tool: Tool) -> TrainingRow:
        query = passage_texts(feature[self.query_column], self.query_column)
        positives = passage_texts(feature[tool.positive], tool.positive)
        require(
            len(query) == 1, f"column {self.query_column!r} holds {feature[self.query_column]!r:.80}, expected a query"
        )
        require(bool(positives), f"column {tool.positive!r} holds no positive for {query[0][:80]!r}; leave the row out")
        row = TrainingRow(query[0], positives)
        for name in self.negative_columns:
            row.negatives += passage_texts(feature[name], name)
        row.room = len(row.negatives)
        scores = [_numbers(feature.get(name)) for name in self.score_columns]
        row.scores = [float("nan")] * len(row.negatives)
        if [one and len(one) for one in scores] == [len(row.positives), len(row.negatives)]:
            row.positive_scores, row.scores = (one or [] for one in scores)
            row.positive_score = row.positive_scores[0]
        return row

    def is_labeled_pair(self, feature: Feature) -> bool:
        """Whether the row is one text pair with its label, which is trained on unchanged."""
        return self.label_column is not None and not self.holds_negatives(feature)

    def _read_ids(self, feature: Feature) -> TrainingRow:
        assert self._lookups is not None
        query = self._lookups.queries.texts([feature["query_id"]])[0]
        documents = self._lookups.corpus.texts(feature["document_ids"])
        scores = feature.get("scores")
        return _split(query, documents, scores if scores is not None else [float("nan")] * len(documents), "scores")


def one_length(lengths: set[int]) -> int:
    """The single length that all lists of negatives share.

    Raises:
        InputError: there are several lengths.
    """
    if len(lengths) > 1:
        raise InputError(
            "num_negatives: how many negatives per row? Rows with lists do not say, and these hold from "
            f"{min(lengths)} to {max(lengths)}; from a row with more the first are taken, in a row with fewer they "
            "are repeated"
        )
    return next(iter(lengths))


def feature_batches(rows: datasets.Dataset) -> Iterator[list[Feature]]:
    """All rows in order, a batch at a time, as a data loader passes them to its collator."""
    if rows.format["type"] in ("arrow", "pandas", "polars"):
        rows = rows.with_format(None)
    for batch in rows.iter(FEATURES_A_BATCH):
        yield [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def negative_columns(columns: Sequence[str]) -> list[str]:
    """The columns that hold negatives, in order: ``negative_1`` …, or one of texts or lists; see `NEGATIVES`."""
    kinds: dict[str, list[tuple[int, str]]] = {}
    for name in columns:
        match = NEGATIVES.fullmatch(name)
        if match is not None:
            kind = match[1] if match[2] is None else f"{match[1]}_1 …"
            kinds.setdefault(kind, []).append((int(match[2] or 0), name))
    names = sorted(kinds, key=lambda kind: (kind.endswith("…"), kind))
    require(len(kinds) < 2, f"the rows have negatives under several names, {names}; keep one of them")
    return [name for numbered in kinds.values() for _, name in sorted(numbered)]


def tool_of(columns: Sequence[str], query: str | None, positive: str | None) -> Tool | None:
    """The other tool whose rows have these columns, unless other columns were named."""
    for tool in TOOLS.values():
        queries = [name for name in tool.queries if name in columns and query in (None, name)]
        named = queries and tool.positive in columns and positive in (None, tool.positive)
        if named and (own_columns(tool, columns) or not tool.distinctive):
            return tool
    return None


def own_columns(tool: Tool, columns: Sequence[str]) -> list[str]:
    """The columns of negatives that rows of a tool have."""
    return [name for name in tool.negatives if name in columns]


def _split(query: str, documents: Sequence[str], labels: Any, name: str) -> TrainingRow:
    """Read a labeled list: label 1 marks a positive. Scores mark none; with them the first passage is the positive."""
    numbers = _numbers(labels)
    if numbers is None:
        raise InputError(f"a row has {name} {labels!r:.80} for {query[:80]!r}, expected a number for each passage")
    if len(documents) != len(numbers):
        raise InputError(f"a row has {len(documents)} passages and {len(numbers)} {name} for {query[:80]!r}")
    if name in ("label", "labels") and np.isnan(numbers).any():
        raise InputError(f"a row has {name} {labels!r:.80} for {query[:80]!r}, of which some are not a number")
    if name in ("label", "labels"):
        positives = [place for place, number in enumerate(numbers) if number > 0]
        require(bool(positives), f"a row has no passage with a label over 0 for {query[:80]!r}; leave it out")
        scores = [float("nan")] * len(documents)
    else:
        positives, scores = [0], [float(number) for number in numbers]
    others = [place for place in range(len(documents)) if place not in positives]
    return TrainingRow(
        query,
        [documents[place] for place in positives],
        [documents[place] for place in others],
        [scores[place] for place in others],
        scores[positives[0]],
        room=len(others),
    )


def _weights(values: Any, row: TrainingRow) -> list[float]:
    weights = _numbers(values)
    if weights is None or len(weights) != len(row.negatives) or not all(0 <= weight < np.inf for weight in weights):
        raise InputError(
            f"column {WEIGHTS!r} holds {values!r:.80} for {row.query[:80]!r}, expected {len(row.negatives)} finite "
            "numbers, 0 or more, one for each negative"
        )
    return [float(weight) for weight in weights]


def _numbers(values: Any) -> list[float] | None:
    """The numbers in a list, an array or a tensor; None for anything else."""
    values = values.tolist() if hasattr(values, "tolist") else values
    is_list = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
    return list(values) if is_list else None


def _texts(value: Any, column: str) -> list[str]:
    """The texts of a cell, which may hold one, a list, or none; nulls and blank texts are skipped."""
    if value is None or isinstance(value, str):
        return [value] if value and not value.isspace() else []
    if not isinstance(value, list | tuple | np.ndarray) or not all(isinstance(text, str | None) for text in value):
        raise InputError(f"column {column!r} holds {value!r:.80}, expected a text or a list of texts")
    return [text for text in value if text and not text.isspace()]
