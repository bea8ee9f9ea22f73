"""How a published data set is laid out, and how its rows become pairs of (query, positive).

A layout knows tables and columns; `Tables` opens them, from the Hub or from a folder. What comes out is Arrow columns,
in the order of the source; sampling, decontamination and labels' draws are in `load`.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_negmine.base.errors import ColumnError, InputError
from hf_negmine.data.writing import in_memory

SEPARATOR = " "
"""Between a title and a text, as the clustering sets and BEIR's own code have it."""


@dataclass(frozen=True)
class Table:
    """One table of a data set: a configuration and a split.

    Attributes:
        config: as on the Hub; None for data sets with one.
        split: as on the Hub.
    """

    config: str | None
    split: str

    @property
    def file(self) -> str:
        """Where the table lies in a folder that takes the place of the Hub."""
        return f"{self.config or 'default'}/{self.split}.parquet"


def folder_of(root: Path, hub_id: str) -> Path:
    """Where a data set lies in a folder of many, each with ``CONFIG/SPLIT.parquet``."""
    return root / hub_id.replace("/", "--")


class Tables:
    """The tables of one data set.

    Args:
        hub_id: on the Hub.
        source: a folder with ``CONFIG/SPLIT.parquet`` (``default`` for no configuration), instead of the Hub.
        revision: on the Hub.
    """

    def __init__(self, hub_id: str, source: str | Path | None = None, revision: str | None = None) -> None:
        self.hub_id, self.revision = hub_id, revision
        self.source = None if source is None else Path(source)

    def read(self, table: Table, columns: Sequence[str], *, every: int = 1) -> pa.Table:
        """Some columns of a table, and of its rows the first of ``every`` so many.

        Raises:
            InputError: it is not there, or lacks a column.
        """
        found = self._from_hub(table) if self.source is None else self._from_folder(table, self.source)
        for column in columns:
            if column not in found.column_names:
                raise ColumnError(column, found.column_names, argument=f"{self.hub_id} ({table.file})")
        found = found.select_columns(list(columns))
        if every > 1:
            found = found.select(range(0, len(found), every))
        return found.with_format("arrow")[:]

    def _from_folder(self, table: Table, folder: Path) -> datasets.Dataset:
        path = folder / table.file
        if not path.is_file():
            there = sorted(str(one.relative_to(folder)) for one in folder.glob("*/*.parquet"))
            raise InputError(f"{self.hub_id}: {folder} lacks {table.file}, it holds {there}")
        return in_memory(pq.read_table(path))

    def _from_hub(self, table: Table) -> datasets.Dataset:
        try:
            loaded = datasets.load_dataset(self.hub_id, table.config, split=table.split, revision=self.revision)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a data set that is a script
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise InputError(
                f"{self.hub_id} ({table.file}) could not be loaded from the Hub: {reason}; give a folder that holds "
                f"{table.file} as source"
            ) from error
        assert isinstance(loaded, datasets.Dataset)
        return loaded


@dataclass(frozen=True)
class PairTable:
    """Pairs, and the corpus that came with them.

    Attributes:
        query, positive: large_string, one row per pair.
        corpus: large_string; None where the positives are all there is.
    """

    query: pa.Array
    positive: pa.Array
    corpus: pa.Array | None = None


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with a label each: ``texts`` large_string, ``labels`` string."""

    texts: pa.Array
    labels: pa.Array


@dataclass(frozen=True)
class Pairs:
    """A row is a pair.

    Attributes:
        table: where the rows are.
        query, positive: columns.
        also: columns of further passages, which go into the corpus: the contradictions of NLI.
        every: take the first of every so many rows, of a table that would not fit into memory.
    """

    table: Table
    query: str
    positive: str
    also: tuple[str, ...] = ()
    every: int = 1

    def pairs(self, tables: Tables) -> PairTable:
        """Rows with both texts."""
        found = tables.read(self.table, [self.query, self.positive, *self.also], every=self.every)
        found = found.filter(pc.and_(pc.is_valid(found[self.query]), pc.is_valid(found[self.positive])))
        corpus = None
        if self.also:
            corpus = pc.unique(pa.concat_arrays([as_texts(found[name]) for name in (self.positive, *self.also)]))
        return PairTable(as_texts(found[self.query]), as_texts(found[self.positive]), corpus)

    @property
    def columns(self) -> str:
        """For people."""
        return ", ".join((self.query, self.positive, *self.also))


@dataclass(frozen=True)
class Beir:
    """Queries, a corpus and judgements in three tables, as in BEIR and MTEB.

    Attributes:
        judged: the judgements (query-id, corpus-id, score); a score over 0 is a positive.
        queries: _id, text.
        corpus: _id, title, text; a title is put before its text.
    """

    judged: Table
    queries: Table = Table("queries", "queries")
    corpus: Table = Table("corpus", "corpus")

    def pairs(self, tables: Tables) -> PairTable:
        """A row for each judgement."""
        judged = self._judged(tables)
        query_ids, queries = self._queries(tables)
        table = tables.read(self.corpus, ["_id", "title", "text"])
        corpus = joined([table["title"], table["text"]])
        return PairTable(
            queries.take(_places(query_ids, judged["query-id"], f"{tables.hub_id}: {self.queries.file}")),
            corpus.take(_places(table["_id"], judged["corpus-id"], f"{tables.hub_id}: {self.corpus.file}")),
            pc.unique(corpus),
        )

    def judged_queries(self, tables: Tables) -> pa.Array:
        """The queries that have a judgement: the others of the table are of other splits."""
        query_ids, queries = self._queries(tables)
        judged = pc.unique(self._judged(tables)["query-id"])
        return queries.take(_places(query_ids, judged, f"{tables.hub_id}: {self.queries.file}"))

    def _judged(self, tables: Tables) -> pa.Table:
        table = tables.read(self.judged, ["query-id", "corpus-id", "score"])
        return table.filter(pc.greater(table["score"].cast(pa.float64()), 0.0))

    def _queries(self, tables: Tables) -> tuple[pa.ChunkedArray, pa.Array]:
        table = tables.read(self.queries, ["_id", "text"])
        return table["_id"], as_texts(table["text"])

    @property
    def columns(self) -> str:
        """For people."""
        return "query-id, corpus-id, score; _id, text; _id, title, text"


@dataclass(frozen=True)
class QuestionsWithIds:
    """Questions that list the ids of their passages, which are in another table.

    Attributes:
        questions: with columns ``question`` and ``ids``, a list of ids or such a list written as text.
        passages: with columns ``passage`` and ``passage_id``.
    """

    questions: Table
    passages: Table
    question: str
    ids: str
    passage: str
    passage_id: str

    def pairs(self, tables: Tables) -> PairTable:
        """A row for each listed passage that is there; passages without a text are left out."""
        questions = tables.read(self.questions, [self.question, self.ids])
        passages = tables.read(self.passages, [self.passage_id, self.passage])
        passages = passages.filter(pc.not_equal(pc.utf8_trim_whitespace(passages[self.passage]), ""))
        known = {str(name): place for place, name in enumerate(passages[self.passage_id].to_pylist())}
        rows, places = [], []
        for row, listed in enumerate(questions[self.ids].to_pylist()):
            for name in _ids(listed, tables.hub_id):
                if name in known:
                    rows.append(row)
                    places.append(known[name])
        corpus = as_texts(passages[self.passage])
        return PairTable(
            as_texts(questions[self.question]).take(pa.array(rows, pa.int64())),
            corpus.take(pa.array(places, pa.int64())),
            pc.unique(corpus),
        )

    @property
    def columns(self) -> str:
        """For people."""
        return f"{self.question}, {self.ids}; {self.passage_id}, {self.passage}"


@dataclass(frozen=True)
class Labelled:
    """Texts with a label.

    Attributes:
        table: where the rows are.
        texts: columns that make the text, joined by a space: a title, or title and abstract.
        label: column of the class or cluster.
    """

    table: Table
    texts: tuple[str, ...]
    label: str

    def labelled(self, tables: Tables) -> LabelledTexts:
        """Every text once, with its label. A text with two labels is left out: it would contradict itself."""
        found = self._read(tables)
        found = found.filter(pc.is_valid(found[self.label]))
        texts = joined([found[name] for name in self.texts])
        labels = _array(found[self.label].cast(pa.string()))
        by_text = pa.table({"text": texts, "label": labels}).group_by("text")
        grouped = by_text.aggregate([("label", "count_distinct"), ("label", "min")])
        kept = grouped.filter(pc.and_(pc.equal(grouped["label_count_distinct"], 1), pc.not_equal(grouped["text"], "")))
        return LabelledTexts(as_texts(kept["text"]), _array(kept["label_min"]))

    def _read(self, tables: Tables) -> pa.Table:
        return tables.read(self.table, [*self.texts, self.label])

    @property
    def columns(self) -> str:
        """For people."""
        return ", ".join((*self.texts, self.label))


@dataclass(frozen=True)
class Similar:
    """Two sentences and how alike they are.

    Attributes:
        table: where the rows are.
        first, second, score: columns.
        at_least: the score from which two sentences are positives of one another.
    """

    table: Table
    at_least: float
    first: str = "sentence1"
    second: str = "sentence2"
    score: str = "score"

    def pairs(self, tables: Tables) -> PairTable:
        """Both directions of every pair that is alike enough; the corpus is all sentences."""
        found = tables.read(self.table, [self.first, self.second, self.score])
        first, second = as_texts(found[self.first]), as_texts(found[self.second])
        corpus = pc.unique(pa.concat_arrays([first, second]))
        alike = pc.greater_equal(_array(found[self.score]).cast(pa.float64()), self.at_least)
        first, second = first.filter(alike), second.filter(alike)
        return PairTable(pa.concat_arrays([first, second]), pa.concat_arrays([second, first]), corpus)

    @property
    def columns(self) -> str:
        """For people."""
        return f"{self.first}, {self.second}, {self.score}"


Layout: TypeAlias = Pairs | Beir | QuestionsWithIds | Labelled | Similar


def joined(columns: Sequence[pa.ChunkedArray]) -> pa.Array:
    """Texts of several columns in one, trimmed; a missing one is empty."""
    filled = [pc.fill_null(column.cast(pa.large_string()), "") for column in columns]
    separator = pa.scalar(SEPARATOR, pa.large_string())
    return _array(pc.utf8_trim_whitespace(pc.binary_join_element_wise(*filled, separator)))


def _ids(listed: Any, hub_id: str) -> list[str]:
    if isinstance(listed, str):
        try:
            listed = ast.literal_eval(listed)
        except (ValueError, SyntaxError) as error:
            raise InputError(f"{hub_id}: {listed!r:.80} is not a list of ids") from error
    if not isinstance(listed, list | tuple | np.ndarray):
        raise InputError(f"{hub_id}: {listed!r:.80} is not a list of ids")
    return [str(one) for one in listed]


def _places(ids: pa.ChunkedArray, wanted: pa.Array | pa.ChunkedArray, what: str) -> pa.Array:
    at = pc.index_in(wanted.cast(pa.string()), value_set=_array(ids.cast(pa.string())))
    if at.null_count:
        missing = pc.unique(wanted.filter(pc.is_null(at)))
        raise InputError(f"{what} lacks {len(missing)} judged id(s), the first is {missing[0].as_py()!r}")
    return _array(at)


def as_texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece, large_string."""
    return _array(column.cast(pa.large_string()))


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
