"""Made-up data instead of the Hub: every training and evaluation set in its own tables, and BEIR folders.

What tables and columns a set has is read from its `layouts.Layout`, so that nothing is written twice. The texts
are few and can be learned: a passage answers a query if it is about the same thing of the same kind, and most others
are about one of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_negmine.base.files import publish_folder, scratch_folder
from recipes.common.sets import SETS
from recipes.common.sets.layouts import (
    Beir,
    Labelled,
    Layout,
    Pairs,
    QuestionsWithIds,
    Similar,
    Table,
    folder_of,
)
from recipes.common.sets.training_set import Columns
from recipes.nv_retriever_v1.tasks import TASKS

ROWS, TESTED = 20, 8
"""Pairs of a training set, and judged queries of an evaluation set; a table of labels has as many texts as pairs."""
PASSAGES = 2 * ROWS
"""Of a corpus at most."""
BEIR_FOLDER = "beir"

THINGS = ("tea", "rain", "bread", "glass", "salt", "wool", "paper", "iron", "honey", "sand", "rope", "milk", "stone")
KINDS = ("old", "red", "warm", "thin", "loud", "rare", "soft", "dark", "wet", "sweet", "plain")
CLASSES = (
    ("glad", "cheerful", "merry"),
    ("sad", "gloomy", "tearful"),
    ("angry", "furious", "cross"),
    ("calm", "quiet"),
)
LONG = 1
"""The pair whose texts are longer than a small model reads."""
SHARED = "Where does the shared text come from?"
"""A row of every set. The evaluation sets hold it in another case and punctuation, so that it is dropped."""
COPY = "where does the SHARED text come from"

Content = dict[str, list[Any]]


def write_fixtures(folder: Path) -> None:
    """Write all of it, whole or not at all: ``HUB--ID/CONFIG/SPLIT.parquet`` and ``beir/TASK``."""
    with scratch_folder(folder.parent) as scratch:
        for (hub_id, table), content in tables().items():
            path = folder_of(scratch, hub_id) / table.file
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(content), path)
        for place, name in enumerate(TASKS):
            _write_beir(scratch / BEIR_FOLDER / name, place, name)
        publish_folder(scratch, folder)


def tables() -> dict[tuple[str, Table], Content]:
    """Every table of every data set, by its id on the Hub."""
    made: dict[tuple[str, Table], Content] = {}
    for place, one in enumerate(SETS.values()):
        parts: list[tuple[str, Layout | Columns]] = [(one.hub_id, one.layout)]
        if one.evaluation is not None:
            parts.append((one.evaluation.hub_id, one.evaluation.layout))
        for hub_id, layout in parts:
            for table, content in _tables_of(layout, place, one.name):
                made.setdefault((hub_id, table), {}).update(content)  # sets may share a table, with other columns
    return made


def texts() -> Iterator[str]:
    """What a tokenizer must know: all texts and all instructions."""
    yield from (f"{one.task}:" for one in SETS.values())
    yield from (f"{task.instruction}:" for task in TASKS.values())
    for content in tables().values():
        for column in content.values():
            yield from (text for text in column if isinstance(text, str))


def _tables_of(layout: Layout | Columns, place: int, name: str) -> Iterator[tuple[Table, Content]]:
    queries, passages = [SHARED], ["It is a long story."]
    for number in range(1, PASSAGES):
        query, passage = _pair(number, place, name)
        queries.append(query)
        passages.append(passage)
    some = slice(0, ROWS)
    if isinstance(layout, Pairs):
        columns = {layout.query: queries[some], layout.positive: passages[some]}
        columns |= dict.fromkeys(layout.also, passages[ROWS:])
        yield (
            layout.table,
            {name: [text for text in column for _ in range(layout.every)] for name, column in columns.items()},
        )
    elif isinstance(layout, Beir):
        yield from _beir_tables(layout, queries, passages)
    elif isinstance(layout, QuestionsWithIds):
        yield layout.questions, {layout.question: queries[some], layout.ids: [f"[{number}]" for number in range(ROWS)]}
        yield layout.passages, {layout.passage_id: list(range(PASSAGES)), layout.passage: passages}
    elif isinstance(layout, Labelled):
        labels = [number % len(CLASSES) for number in range(ROWS)]
        columns = {one: [_of_class(one, number, place) for number in range(ROWS)] for one in layout.texts}
        yield layout.table, {**columns, layout.label: labels}
    elif isinstance(layout, Similar):
        scores = [layout.at_least if number < ROWS - 4 else 0.0 for number in range(ROWS)]
        yield layout.table, {layout.first: queries[some], layout.second: passages[some], layout.score: scores}
    else:
        lists = "sentences" in layout.names  # one list per row, as the clustering sets have them
        tested = [COPY, *queries[ROWS : ROWS + TESTED]]
        yield layout.table, {name: [tested] if lists else tested for name in layout.names}


def _beir_tables(layout: Beir, queries: list[str], passages: list[str]) -> Iterator[tuple[Table, Content]]:
    """Queries of both splits are in one table; a judged query of the test split is the copy."""
    numbers = range(ROWS) if layout.judged.split == "train" else range(ROWS, ROWS + TESTED)
    yield (
        layout.judged,
        {
            "query-id": [*(f"q{number}" for number in numbers), *(["copy"] if numbers.start else [])],
            "corpus-id": [*(f"d{number}" for number in numbers), *(["d0"] if numbers.start else [])],
            "score": [1] * (len(numbers) + bool(numbers.start)),
        },
    )
    yield layout.queries, {"_id": [*(f"q{number}" for number in range(PASSAGES)), "copy"], "text": [*queries, COPY]}
    ids = [f"d{number}" for number in range(PASSAGES)]
    yield layout.corpus, {"_id": ids, "title": [""] * PASSAGES, "text": passages}


def _write_beir(folder: Path, place: int, name: str) -> None:
    (folder / "qrels").mkdir(parents=True)
    pairs = [_pair(number, place, name) for number in range(PASSAGES)]
    for file, prefix, column in (("queries", "q", 0), ("corpus", "d", 1)):
        ids = [f"{prefix}{number}" for number in range(PASSAGES)]
        pq.write_table(pa.table({"_id": ids, "text": [pair[column] for pair in pairs]}), folder / f"{file}.parquet")
    judged = {
        "query-id": [f"q{number}" for number in range(TESTED)],
        "corpus-id": [f"d{number}" for number in range(TESTED)],
        "score": [1] * TESTED,
    }
    pq.write_table(pa.table(judged), folder / "qrels" / "test.parquet")


def _pair(number: int, place: int, name: str) -> tuple[str, str]:
    """A query and its passage. Numbers under 143 differ in the thing or its kind, as 11 and 13 are coprime."""
    thing, kind = THINGS[(number + place) % len(THINGS)], KINDS[(number + 3 * place) % len(KINDS)]
    more = " and so on" * 20 if number == LONG else ""
    return f"where does {kind} {thing} of {name} come from{more}", f"{kind} {thing} is made by the sea{more}"


def _of_class(column: str, number: int, place: int) -> str:
    """A text whose class shows in one word."""
    words = CLASSES[number % len(CLASSES)]
    word, thing = words[number // len(CLASSES) % len(words)], THINGS[(number + place) % len(THINGS)]
    return f"{thing} made me {word}, {column} {number}"
