"""Formats of rows with negatives: what is written is read again, and what was kept keeps its ids and scores."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.data.formats import FORMATS, LabelledTexts, format_of

TEXT = st.text("ab é", min_size=1, max_size=4).filter(lambda text: bool(text.strip()))
ROWS = st.lists(
    st.tuples(TEXT, st.lists(TEXT, min_size=1, max_size=2), st.lists(TEXT, max_size=3)), min_size=1, max_size=4
)
ONE_POSITIVE = ("n-tuple", "swift-flat")


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def passage(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {"docid": f"d{number}", "title": "", "text": text, **more}


def table_in(name: str, rows: list[tuple[str, list[str], list[str]]]) -> pa.Table:
    """Rows of (query, positives, negatives) in a format; each negative has an id or a score of its own, if it can."""
    kinds = {"flagembedding": {"neg": pa.list_(pa.string()), "neg_scores": pa.list_(pa.float64())}}
    records: list[dict[str, Any]] = []
    for place, (query, positives, negatives) in enumerate(rows):
        numbers = [100 * place + at for at in range(len(negatives))]
        titled = [passage(number, text) for number, text in zip(numbers, negatives, strict=True)]
        own = [passage(1000 + place, text) for text in positives]
        more = {"kept": f"row {place}"}
        if name == "flagembedding":
            scores = [float(number) for number in numbers]
            ids = [f"d{number}" for number in numbers]
            records.append({"query": query, "pos": positives, "neg": negatives, "neg_scores": scores, "neg_id": ids})
        elif name == "tevatron":
            records.append(
                {"query_id": f"{place}", "query": query, "positive_passages": own, "negative_passages": titled}
            )
        elif name == "dpr":
            records.append(
                {"question": query, "positive_ctxs": own, "negative_ctxs": titled[1:], "hard_negative_ctxs": titled[:1]}
            )
        elif name == "swift":
            records.append(
                {"messages": chat(query), "positive_messages": list(map(chat, positives)),
                 "negative_messages": list(map(chat, negatives))}
            )  # fmt: skip
        elif name == "swift-flat":
            records.append({"query": query, "response": positives[0], "rejected_response": negatives})
        elif name == "automodel":
            records.append({"question_id": f"{place}", "question": query, "pos_doc": positives, "neg_doc": negatives})
        elif name == "n-tuple":
            padded = [*negatives, None, None, None][:3]
            columns = {f"negative_{at}": text for at, text in enumerate(padded, 1)}
            scores = [1.0, *(float(number) for number in numbers)]
            records.append({"anchor": query, "positive": positives[0], **columns, "scores": scores})
        elif name == "labeled-list":
            labels = [1] * len(positives) + [0] * len(negatives)
            records.append({"query": query, "passages": [*positives, *negatives], "labels": labels})
        else:
            for text, label in [*((text, 1) for text in positives), *((text, 0) for text in negatives)]:
                records.append({"query": query, "passage": text, "label": label, "at": len(records)})
        if not name.startswith("labeled"):
            more |= {"weights": [number / 2 for number in numbers], "neg_marks": [f"m{number}" for number in numbers]}
        records[-1] |= {} if name == "labeled-pair" else more
    table = pa.Table.from_pylist(records)
    for column, kind in kinds.get(name, {}).items():
        table = table.set_column(table.column_names.index(column), column, table[column].cast(kind))
    return table


def lists(texts: pa.Array, offsets: Any) -> list[list[str]]:
    return pa.LargeListArray.from_arrays(offsets, texts).to_pylist()  # type: ignore[no-any-return]


def expected(name: str, rows: list[tuple[str, list[str], list[str]]]) -> list[tuple[str, list[str], list[str]]]:
    if name in ONE_POSITIVE:
        return [(query, positives[:1], negatives) for query, positives, negatives in rows]
    if name != "labeled-pair":
        return rows
    grouped: dict[str, tuple[list[str], list[str]]] = {}
    for query, positives, negatives in rows:
        own = grouped.setdefault(query, ([], []))
        own[0].extend(positives)
        own[1].extend(negatives)
    return [(query, *own) for query, own in grouped.items()]


def as_rows(read: LabelledTexts) -> list[tuple[str, list[str], list[str]]]:
    positives = lists(read.positives, read.positive_offsets)
    return list(zip(read.queries.to_pylist(), positives, lists(read.negatives, read.negative_offsets), strict=True))


@pytest.mark.parametrize("name", FORMATS)
@given(ROWS)
def test_a_format_is_recognized_and_read(name: str, rows: list[tuple[str, list[str], list[str]]]) -> None:
    table = table_in(name, rows)
    found = format_of(table.schema)
    assert found.name == name
    assert as_rows(found.read(table)) == expected(name, rows)


@pytest.mark.parametrize("name", FORMATS)
@given(ROWS)
def test_the_same_negatives_give_the_same_rows(name: str, rows: list[tuple[str, list[str], list[str]]]) -> None:
    table = table_in(name, rows)
    found = format_of(table.schema, name)
    read = found.read(table)
    again = found.with_negatives(table, read.negatives, read.negative_offsets, np.arange(len(read.negatives)))
    if name == "labeled-pair":  # whose rows of one query come together
        assert sorted(map(str, again.to_pylist())) == sorted(map(str, table.to_pylist()))
    elif name == "n-tuple":  # whose empty columns are left out
        assert [trimmed(row) for row in again.to_pylist()] == [trimmed(row) for row in table.to_pylist()]
    else:
        assert again.to_pylist() == table.to_pylist()


def trimmed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("name", FORMATS)
@given(ROWS, st.data())
def test_other_negatives_are_read_again_and_kept_ones_keep_what_is_theirs(
    name: str, rows: list[tuple[str, list[str], list[str]]], data: st.DataObject
) -> None:
    table = table_in(name, rows)
    found = format_of(table.schema, name)
    read = found.read(table)
    offsets, places, texts = [0], [], []
    for start, stop in zip(read.negative_offsets, read.negative_offsets[1:], strict=False):
        kept = data.draw(st.lists(st.sampled_from(range(start, stop)), unique=True)) if stop > start else []
        new = data.draw(st.lists(TEXT, max_size=2))
        if name == "dpr":  # the negatives of its second column come after those of the first
            kept = sorted(kept)
        places += [-1] * len(new) * (name == "dpr") + kept + [-1] * len(new) * (name != "dpr")
        own = [read.negatives[at].as_py() for at in kept]
        texts += [*new, *own] if name == "dpr" else [*own, *new]
        offsets.append(len(texts))
    new_texts = pa.array(texts, pa.large_string())
    if name == "dpr":
        firsts = {int(start) for start in read.negative_offsets[:-1]}
        places = [place if place not in firsts else -1 for place in places]
    written = found.with_negatives(table, new_texts, np.array(offsets), np.array(places, dtype=np.int64))
    assert format_of(written.schema, name).name == name
    again = format_of(written.schema, name).read(written)
    assert again.negatives.to_pylist() == texts
    assert again.negative_offsets.tolist() == offsets
    assert again.positives.equals(read.positives)
    assert again.queries.equals(read.queries)
    own_marks, marks = marks_of(name, table), marks_of(name, written)
    if marks:
        assert marks == [own_marks[place] if place >= 0 else None for place in places]
    if "weights" in table.column_names:
        weights = [weight for row in table["weights"].to_pylist() for weight in row]
        assert written["weights"].to_pylist() == [
            [None if place < 0 else weights[place] for place in places[start:stop]]
            for start, stop in itertools.pairwise(offsets)
        ]
    if "kept" in table.column_names:
        assert written["kept"].to_pylist() == table["kept"].to_pylist()


def marks_of(name: str, table: pa.Table) -> list[Any]:
    """What the rows say about each negative besides its text."""
    rows = table.to_pylist()
    if name == "flagembedding":
        marks = [(score, mark) for row in rows for score, mark in zip(row["neg_scores"], row["neg_id"], strict=True)]
        assert all(mark == (None if score is None else f"d{score:.0f}") for score, mark in marks)
        return [mark for _, mark in marks]
    if name == "tevatron":
        return [one["docid"] for row in rows for one in row["negative_passages"]]
    if name == "dpr":
        return [one["docid"] for row in rows for one in [*row["hard_negative_ctxs"], *row["negative_ctxs"]]]
    if name == "n-tuple":
        assert all(row["scores"][0] == 1.0 for row in rows)
        return [score for row in rows for score in row["scores"][1:]]
    return []


def test_the_row_of_a_new_negative_holds_what_is_known_of_its_query_alone() -> None:
    columns = {"score": [0.9, 0.1, 0.8], "source": ["web", "web", None], "none": pa.nulls(3)}
    texts = {"query": ["a", "a", "b"], "passage": ["p", "n", "q"], "label": [1, 0, 1]}
    table = pa.table({**texts, **columns, "tags": [["x"], ["x"], ["y"]]})
    found = format_of(table.schema, "labeled-pair", query_column="query", positive_column="passage")
    new = pa.array(["n", "new", "new"], pa.large_string())
    written = found.with_negatives(table, new, np.array([0, 2, 3]), np.array([0, -1, -1]))
    assert written.schema == table.schema
    assert written["score"].to_pylist() == [0.9, 0.1, None, 0.8, None]
    assert written["source"].to_pylist() == ["web", "web", "web", None, None]
    assert written["tags"].to_pylist() == [["x"], ["x"], None, ["y"], None]
