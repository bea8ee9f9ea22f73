"""Rows and corpora of any content: opened and read, or refused by one sentence, and never by an error of a library."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from hf_negmine.base.errors import NegmineError
from hf_negmine.data.collecting import build_text_set
from hf_negmine.data.sources import choose_columns, open_corpus, open_rows, pair_batches
from tests.thorough import THOROUGH, examples

fuzzed = examples(5000, every=125, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _as_long_as_it_takes(_no_hanging_test: None) -> None:
    if THOROUGH and hasattr(signal, "SIGALRM"):
        signal.alarm(0)


good = st.sampled_from(["who?", "where?", "Ada", "日本 🙂", "a\tb", 'a "quote"', "x" * 3000])
texts = st.one_of(
    good, good, good, st.text(max_size=8), st.sampled_from(["", " ", "\ud800", "a\0b", "\r\n", "NA", "0"])
)
scalars = st.one_of(
    texts,
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.binary(max_size=3),
    st.dates(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-9, max_value=9),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=2) | st.tuples(inner, inner),
    max_leaves=6,
)
names = st.one_of(
    st.sampled_from(
        ["query", "positive", "text", "label", "labels", "score", "scores", "id", "title", "", "a\0b", "\ud800"]
    ),
    st.text(max_size=3),
)
lists_of_texts = st.lists(texts | st.none(), max_size=3)


@st.composite
def tables(draw: st.DrawFn) -> dict[Any, list[Any]]:
    """Columns of equal length; most are of one type, as tables are."""
    count = draw(st.integers(0, 5))
    kinds = [
        texts,
        good,
        lists_of_texts,
        st.integers(-1, 2),
        st.booleans(),
        st.floats(),
        values,
        st.lists(good, min_size=1),
    ]
    columns = {}
    for name in draw(st.lists(names | st.integers(0, 2), max_size=4, unique=True)):
        kind = draw(st.sampled_from(kinds))
        columns[name] = draw(st.lists(kind, min_size=count, max_size=count))
    return columns


def as_given(columns: dict[Any, list[Any]], how: str) -> Any:
    """The same columns as a user may have them; `None` where that cannot be made."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    try:
        match how:
            case "columns":
                return columns
            case "rows":
                return rows
            case "pairs":
                return [tuple(row.values()) for row in rows]
            case "frame":
                return pd.DataFrame(columns)
            case "series":
                return pd.Series(next(iter(columns.values()), []))
            case "array":
                return np.array(next(iter(columns.values()), []), dtype=object)
            case "table":
                return pa.table(columns)
            case "data set":
                return Dataset.from_dict(columns)
            case "stream":
                return Dataset.from_dict(columns).to_iterable_dataset()
            case "texts":
                return next(iter(columns.values()), [])
    except Exception:
        return None
    raise AssertionError(how)


def read_rows(source: Any, folder: str) -> None:
    opened = open_rows(source)
    query, positive = choose_columns(opened.rows, *opened.columns)
    pairs = pair_batches(opened.rows, query, positive, code=opened.code)
    found = build_text_set(
        Path(folder), pairs, opened.corpus, query_column=query, positive_column=positive, code=opened.code
    )
    assert len(found.queries) > 0
    assert len(found.positive_ids) > 0


def read_corpus(source: Any, folder: str, column: str | None) -> None:
    opened = open_corpus(source, column=column)
    found = build_text_set(
        Path(folder), [], opened, query_column="query", positive_column="positive", corpus_remedy=opened.without_blanks
    )
    assert len(found.queries) == 0


def check(call: Any, *arguments: Any) -> None:
    """It goes through, or is refused by an error of ours; any other one fails the test."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(NegmineError):
        call(arguments[0], folder, *arguments[1:])


KINDS = ["columns", "rows", "pairs", "frame", "table", "data set", "stream"]


@fuzzed
@given(columns=tables(), how=st.sampled_from(KINDS))
def test_rows_of_any_content(columns: dict[Any, list[Any]], how: str) -> None:
    source = as_given(columns, how)
    if source is not None:
        check(read_rows, source)


@fuzzed
@given(
    columns=tables(),
    how=st.sampled_from([*KINDS, "series", "array", "texts"]),
    column=st.none() | st.sampled_from(["text", "id"]) | texts,
)
def test_corpora_of_any_content(columns: dict[Any, list[Any]], how: str, column: str | None) -> None:
    source = as_given(columns, how)
    if source is not None:
        check(read_corpus, source, column)


@fuzzed
@given(source=values | st.lists(values, max_size=4))
def test_anything_at_all_as_rows_or_a_corpus(source: Any) -> None:
    check(read_rows, source)
    check(read_corpus, source, None)


cells = st.one_of(texts, st.sampled_from(["query", "positive", "text", "1", '"', '"a', 'a""b"', "a,b"]))


@examples(1000, every=60, suppress_health_check=list(HealthCheck))
@given(
    lines=st.lists(st.lists(cells, min_size=1, max_size=3), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r", ""]),
    name=st.sampled_from(["rows.csv", "rows.tsv", "rows.txt", "rows.jsonl", "rows.csv.gz"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_files_of_any_content(lines: list[list[str]], end: str, name: str, encoding: str) -> None:
    separator = "," if "csv" in name else "\t"
    content = "".join(separator.join(cell[:200] for cell in line) + end for line in lines)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", Path(folder) / "cache")
        path = Path(folder) / name
        path.write_bytes(content.encode(encoding, errors="surrogatepass"))
        check(read_rows, str(path))
        check(read_corpus, str(path), None)
