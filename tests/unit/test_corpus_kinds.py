"""Tables, series and other things as a corpus or rows: read where one text is meant, or refused with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDatasetDict

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.data.sources import choose_columns, open_corpus, open_rows, pair_batches
from tests.remedies import suggested

PASSAGES = ["one passage", "another passage", "trois"]
FRAME = pd.DataFrame({"text": PASSAGES, "doc": range(3)})
PAIRS = [("who?", "Ada"), ("where?", "Paris"), ("when?", "now")]
ROWS = [{"query": query, "positive": positive} for query, positive in PAIRS]


class Polars:
    """What polars hands out: a stream of Arrow with views of text."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._table = pa.table({name: pa.array(values, pa.string_view()) for name, values in columns.items()})
        self.columns = list(columns)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def categories(values: list[str]) -> pa.Array:
    """As polars hands out categories."""
    indices, views = pa.array(range(len(values)), pa.uint32()), pa.array(values, pa.string_view())
    return pa.DictionaryArray.from_arrays(indices, views)


class PolarsSeries:
    def __init__(self, values: list[str]) -> None:
        self._values = pa.chunked_array([values], pa.string_view())

    def to_list(self) -> list[Any]:
        return self._values.to_pylist()  # type: ignore[no-any-return]

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._values.__arrow_c_stream__(requested_schema)


def corpus_of(source: Any, **options: Any) -> list[str]:
    return [text for batch in open_corpus(source, **options) for text in batch.to_pylist()]


def miner_in(folder: Path, **settings: Any) -> NegativeMiner:
    given: dict[str, Any] = {"method": "naive", "num_negatives": 2, "progress": False, **settings}
    return NegativeMiner("random", cache_dir=folder, **given)


CORPORA: dict[str, Any] = {
    "frame": FRAME,
    "frame that was filtered": pd.concat([FRAME, FRAME])[3:],
    "frame under an index": FRAME.set_index("doc"),
    "polars": Polars({"text": PASSAGES}),
    "polars series": PolarsSeries(PASSAGES),
    "polars categories": pa.chunked_array([categories(PASSAGES)]),
    "Arrow table": pa.table(FRAME),
    "Arrow batch": pa.table(FRAME).to_batches()[0],
    "columns": {"text": PASSAGES, "doc": [1, 2, 3]},
    "columns of arrays": {"text": np.array(PASSAGES), "doc": np.arange(3)},
    "dictionaries": [{"_id": place, "text": text} for place, text in enumerate(PASSAGES)],
    "series": pd.Series(PASSAGES),
    "categories": pd.Series(PASSAGES, dtype="category"),
    "index": pd.Index(PASSAGES),
    "array": np.array(PASSAGES),
    "array of objects": np.array(PASSAGES, dtype=object),
    "values": dict(zip("abc", PASSAGES, strict=True)).values(),
    "keys": dict.fromkeys(PASSAGES).keys(),
    "splits": DatasetDict(corpus=Dataset.from_pandas(FRAME)),
}


@pytest.mark.parametrize("corpus", CORPORA.values(), ids=CORPORA)
def test_what_has_one_clear_text_is_that_text(corpus: Any) -> None:
    assert corpus_of(corpus) == PASSAGES


@pytest.mark.parametrize("kind", ["frame", "Arrow table", "columns", "dictionaries"])
def test_a_column_that_is_named_is_taken(kind: str) -> None:
    two = {"left": PASSAGES, "right": PASSAGES[::-1]}
    frame = pd.DataFrame(two)
    corpus = {"frame": frame, "Arrow table": pa.table(two), "columns": two, "dictionaries": frame.to_dict("records")}
    assert corpus_of(corpus[kind], column="right") == PASSAGES[::-1]
    with pytest.raises(InputError, match=r"^corpus_column: name the column .*, the corpus has \['left', 'right'\]$"):
        corpus_of(corpus[kind])
    with pytest.raises(InputError, match=r"^corpus_column: column 'middle' is not among \['left', 'right'\]$"):
        corpus_of(corpus[kind], column="middle")


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "texts by their ids": (lambda: dict(zip("abc", PASSAGES, strict=True)), r"got a dict that is not a table"),
    "a set": (lambda: set(PASSAGES), r"got a set, which has no order"),
    "a frozen set": (lambda: frozenset(PASSAGES), r"got a frozenset, which has no order"),
    "a generator": (lambda: (text for text in PASSAGES), r"got a generator, which can only be read once"),
    "a map": (lambda: map(str, PASSAGES), r"got a map, which can only be read once"),
}


@pytest.mark.parametrize(("make", "fact"), REFUSED.values(), ids=REFUSED)
def test_what_could_go_wrong_later_is_refused_with_what_to_do(make: Callable[[], Any], fact: str) -> None:
    with pytest.raises(
        InputError, match=r"^corpus: expected texts, a data set, a data frame or a file, " + fact
    ) as caught:
        open_corpus(make())
    assert sorted(corpus_of(suggested(str(caught.value), corpus=make()))) == sorted(PASSAGES)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (b"one passage", "got bytes"),
        ({"d1": {"title": "a", "text": "b"}}, "got a dict that is not a table of columns; give a list of texts"),
        ({}, "got a dict that is not a table"),
        ([("d1", "one passage")], r"passage 0 is \('d1', 'one passage'\), expected text"),
        ("Solar panels convert sunlight.", "got one text, 'Solar panels convert sunlight.', and no file of that name"),
        (np.array([PASSAGES, PASSAGES]), "corpus: only handle 1-dimensional arrays"),
        (FRAME[:0], "corpus: it has the column 'text' but no rows"),
        (pd.DataFrame({"doc": range(3)}), r"corpus_column: name the column of passage texts, the corpus has \['doc'\]"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "corpus: Duplicate column names found"),
        (pd.DataFrame({"text": ["a", 5]}), "corpus: .*'int' object"),
        ({"text": PASSAGES, "doc": [1]}, "expected columns of equal length"),
        (IterableDatasetDict(), r"split: the DatasetDict of the corpus has \[\]"),
        (pa.array([b"bytes"]), "column 'corpus' holds binary, expected text"),
        (np.arange(3), "column 'corpus' holds int64, expected text"),
        (pa.table(FRAME).to_reader(), "column 'corpus' holds struct<.*>, expected text"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_what_is_no_text_is_refused(tmp_path: Path, corpus: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        miner_in(tmp_path, corpus=corpus).fit(ROWS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "corpus", [CORPORA[kind] for kind in ("frame", "series", "columns")], ids=["frame", "series", "columns"]
)
def test_the_miner_searches_the_texts_of_a_table(tmp_path: Path, corpus: Any) -> None:
    for miner in (miner_in(tmp_path, corpus=corpus).fit(ROWS), miner_in(tmp_path).fit(ROWS, corpus=corpus)):
        assert miner.corpus["document"][:3] == PASSAGES
        assert miner.summary.passages == 6
    mined = miner_in(tmp_path, corpus=corpus).mine(ROWS)
    assert {text for row in mined for text in (row["negative_1"], row["negative_2"])} <= {
        *PASSAGES,
        "Ada",
        "Paris",
        "now",
    }


def test_the_drop_in_searches_the_texts_of_a_table(tmp_path: Path, minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    from hf_negmine import mine_hard_negatives

    def mined(corpus: Any) -> list[dict[str, Any]]:
        given: dict[str, Any] = {"num_negatives": 3, "verbose": False, "cache_folder": str(tmp_path)}
        return mine_hard_negatives(Dataset.from_list(ROWS), model, corpus=corpus, **given).to_list()

    model = SentenceTransformer(minilm, device="cpu")
    assert mined(FRAME) == mined(pd.Series(PASSAGES)) == mined(PASSAGES)


BLANKS: dict[str, tuple[Any, str | None]] = {
    "list": (["one", " ", "two"], None),
    "series": (pd.Series(["one", None, "two"]), None),
    "array": (pa.array(["one", None, "two"]), None),
    "polars series": (PolarsSeries(["one", "", "two"]), None),
    "frame": (pd.DataFrame({"text": ["one", None, "two"]}), None),
    "columns": ({"body": ["one", "", "two"]}, None),
    "dictionaries": ([{"text": "one"}, {"text": None}, {"text": "two"}], None),
    "data set": (Dataset.from_dict({"text": ["one", "", "two"]}), None),
    "splits": (DatasetDict(corpus=Dataset.from_dict({"text": ["one", "", "two"]})), None),
}


@pytest.mark.parametrize("corpus", [corpus for corpus, _ in BLANKS.values()], ids=BLANKS)
def test_the_remedy_for_a_blank_passage_works_on_what_was_given(tmp_path: Path, corpus: Any) -> None:
    with pytest.raises(InputError, match=r"^column 'corpus' has 1 empty text\(s\) .* the first in row 1;") as caught:
        miner_in(tmp_path).fit(ROWS, corpus=corpus)
    assert corpus_of(suggested(str(caught.value), corpus=corpus)) == ["one", "two"]


# ---- rows --------------------------------------------------------------------------------------------------------


def pairs_of(source: Any, **options: Any) -> list[tuple[str, Any]]:
    opened = open_rows(source, **options)
    query, positive = choose_columns(opened.rows, *opened.columns)
    return [
        pair
        for queries, positives in pair_batches(opened.rows, query, positive)
        for pair in zip(queries.to_pylist(), positives.to_pylist(), strict=True)
    ]


KINDS: dict[str, Any] = {
    "pairs": PAIRS,
    "pairs in lists": [list(pair) for pair in PAIRS],
    "frame": pd.DataFrame(ROWS),
    "frame that was filtered": pd.DataFrame([*ROWS, *ROWS])[3:],
    "frame without names": pd.DataFrame(PAIRS),
    "polars": Polars({"query": [query for query, _ in PAIRS], "positive": [text for _, text in PAIRS]}),
    "Arrow batch": pa.Table.from_pylist(ROWS).to_batches()[0],
    "columns": {"query": [query for query, _ in PAIRS], "positive": [text for _, text in PAIRS]},
}


@pytest.mark.parametrize("rows", KINDS.values(), ids=KINDS)
def test_rows_of_every_kind_read_the_same(rows: Any) -> None:
    assert pairs_of(rows) == PAIRS


def test_lists_and_categories_of_polars_are_read() -> None:
    views = pa.array([["Ada", "Grace"], ["Paris"]], pa.large_list(pa.string_view()))
    table = pa.table({"query": categories(["who?", "where?"]), "positive": views})
    assert pairs_of(table) == [("who?", ["Ada", "Grace"]), ("where?", ["Paris"])]
    assert corpus_of(pa.table({"text": categories(PASSAGES)})) == PASSAGES


def test_what_only_later_dictionaries_hold_is_read_too() -> None:
    rows = [*ROWS, {"query": "why?", "label": 0, "positive": "because"}]
    assert open_rows(rows).rows.to_list() == [{"query": None, "positive": None, "label": None} | row for row in rows]
    opened = open_rows(rows)
    with pytest.raises(InputError, match="column 'label' is 0 for 1 of 1 rows") as caught:
        list(pair_batches(opened.rows, "query", "positive", code=opened.code))
    kept = suggested(str(caught.value), rows=rows)
    assert [row["query"] for row in kept] == ["who?", "where?", "when?"]


def test_a_pair_may_have_a_list_of_positives(tmp_path: Path) -> None:
    rows = [("who?", ["Ada", "Grace"]), ("where?", ["Paris"])]
    assert pairs_of(rows) == rows
    assert len(miner_in(tmp_path, num_negatives=1).mine(rows)) == 3


def test_the_index_of_a_frame_is_a_column_if_it_has_a_name() -> None:
    frame = pd.DataFrame(ROWS).set_index("query")
    assert sorted(open_rows(frame).rows.column_names) == ["positive", "query"]


@pytest.mark.parametrize(
    ("rows", "fact"),
    [
        ([("who?", "Ada", "Grace")], "got ('who?', 'Ada', 'Grace') in place 0"),
        ([ROWS[0], PAIRS[0]], "got ('who?', 'Ada') in place 1"),
        ([PAIRS[0], ROWS[0]], "got {'query': 'who?', 'positive': 'Ada'} in place 1"),
        ({"query": ["who?"]}, "got dict with one column, ['query']"),
        ({"d1": "text"}, "got dict"),
        (np.array(PAIRS), "got ndarray"),
        ({"who?"}, "got set"),
        (None, "got NoneType"),
    ],
    ids=repr,
)
def test_what_is_no_rows_is_refused(rows: Any, fact: str) -> None:
    with pytest.raises(InputError, match=r"^rows: expected a data set, a file, a data frame, or a list of ") as caught:
        open_rows(rows)
    assert fact in str(caught.value)


def test_a_generator_of_rows_is_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match=r"got generator; rows are read more than once, so give list\(rows\)$"):
        open_rows(row for row in ROWS)


LISTS_AND_TEXTS: dict[str, tuple[list[Any], str]] = {
    "null in a list": (
        [["a"], ["b", None], ["c"]],
        "1 empty text(s) in the lists of rows 0 to 2, the first in row 1, place 1: None",
    ),
    "blank in a list": ([["a"], ["b"], [" ", "c"]], "the first in row 2, place 0: ' '"),
    "nothing but blanks": (
        [["a"], ["b"], ["", None]],
        "2 empty text(s) in the lists of rows 0 to 2, the first in row 2",
    ),
    "an empty list": (
        [["a"], [], ["c"]],
        "1 row(s) without a positive, the first is row 1; a query needs at least one",
    ),
    "null for a list": ([["a"], None, ["c"]], "1 row(s) without a positive, the first is row 1"),
    "null": (["a", None, "c"], "1 empty text(s) among rows 0 to 2, the first in row 1"),
    "blank": (["a", "b", "\t"], "1 empty text(s) among rows 0 to 2, the first in row 2"),
    "lists of lists": ([[["a"], ["b"]], [["c"]], [["d"]]], "holds lists of list<"),
    "passages": (
        [[{"docid": "1", "text": "a"}], [{"docid": "2", "text": "b"}], [{"docid": "3", "text": "c"}]],
        "holds lists of struct<docid: string, text: string>, expected text (string) or lists of text; take the texts",
    ),
    "one passage": ([{"text": "a"}, {"text": "b"}, {"text": "c"}], "holds struct<text: string>, expected text"),
}


@pytest.mark.parametrize(("positives", "fact"), LISTS_AND_TEXTS.values(), ids=LISTS_AND_TEXTS)
def test_the_remedy_for_a_positive_that_is_no_text_works(tmp_path: Path, positives: list[Any], fact: str) -> None:
    check_remedy(tmp_path, Dataset.from_dict({"query": [query for query, _ in PAIRS], "positive": positives}), fact)


@pytest.mark.parametrize("as_kind", ["stream", "list", "frame", "file", "splits"])
@pytest.mark.parametrize("positives", [["a", None, "c"], [["a"], ["b", None], ["c"]]], ids=["texts", "lists"])
def test_the_remedy_works_on_what_was_given(tmp_path: Path, positives: list[Any], as_kind: str) -> None:
    rows = Dataset.from_dict({"query": [query for query, _ in PAIRS], "positive": positives})
    rows.to_parquet(tmp_path / "rows.parquet")
    given: dict[str, Callable[[], Any]] = {
        "stream": rows.to_iterable_dataset,
        "list": rows.to_list,
        "frame": rows.to_pandas,
        "file": lambda: str(tmp_path / "rows.parquet"),
        "splits": lambda: DatasetDict(train=rows),
    }
    check_remedy(tmp_path, given[as_kind](), "1 empty text(s) ")


def check_remedy(folder: Path, source: Any, fact: str) -> None:
    with pytest.raises(InputError) as caught:
        miner_in(folder / "cache", num_negatives=1).fit(source)
    message = str(caught.value)
    assert message.startswith("column 'positive' ")
    assert fact in message
    assert "\n" not in message
    kept = suggested(message, rows=source)
    if isinstance(kept, datasets.IterableDataset):
        kept = list(kept)
    assert miner_in(folder / "cache", num_negatives=1).fit(kept).is_fitted


@pytest.mark.parametrize("positives", [[[1]], [[1.5]], [[{"docid": "1"}]], [7], [[b"a"]]], ids=repr)
def test_what_holds_no_text_at_all_is_refused_by_its_type(tmp_path: Path, positives: list[Any]) -> None:
    with pytest.raises(
        InputError, match=r"^column 'positive' holds .*, expected text \(string\).*name a column of texts$"
    ):
        miner_in(tmp_path).fit(Dataset.from_dict({"query": ["who?"], "positive": positives}))


# ---- folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["a\0b", "", "  ", 5, b"x", ["x"]], ids=repr)
def test_a_cache_folder_that_can_be_none_is_refused(folder: Any) -> None:
    with pytest.raises(InputError, match=r"^cache_dir: expected the path of a folder, got ") as caught:
        NegativeMiner("random", cache_dir=folder)
    assert "\0" not in str(caught.value)


def test_a_tilde_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pd.DataFrame(ROWS).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    FRAME.to_csv(tmp_path / "corpus.csv", index=False)
    miner = NegativeMiner(
        "random", method="naive", num_negatives=2, cache_dir="~/cache", corpus="~/corpus.csv", progress=False
    )
    assert len(miner.mine("~/rows.jsonl")) == 3
    assert (tmp_path / "cache" / "texts").is_dir()
    assert miner.summary.passages == 6
