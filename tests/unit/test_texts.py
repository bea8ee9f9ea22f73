"""Rows to queries, corpus and positives: identity by text, ids, and what is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.data import collecting
from hf_negmine.data.checks import batches_of
from hf_negmine.data.collecting import build_text_set
from hf_negmine.data.texts import TextSet, find_digests, open_text_set, sort_digests
from tests.reference import text_set

QUERIES = ["who?", "where?", "who?", "when?"]
POSITIVES = ["Ada", "Paris", "Grace", "Ada"]


def positives_of(texts: TextSet) -> dict[str, list[str]]:
    """Positives of each query, as texts in the order of their ids."""
    corpus, queries = texts.corpus.texts.to_pylist(), texts.queries.texts.to_pylist()
    bounds = texts.positive_offsets
    return {
        query: [corpus[passage] for passage in texts.positive_ids[bounds[row] : bounds[row + 1]]]
        for row, query in enumerate(queries)
    }


def built(folder: Path, queries: Any, positives: Any, corpus: Any = None) -> TextSet:
    """A `TextSet` of Arrow arrays."""
    return build_text_set(
        folder,
        [(queries, positives)],
        None if corpus is None else [corpus],
        query_column="query",
        positive_column="answer",
    )


def test_rows_with_the_same_query_share_their_positives(tmp_path: Path) -> None:
    texts = text_set(tmp_path, QUERIES, POSITIVES)
    assert texts.queries.texts.to_pylist() == ["who?", "where?", "when?"]
    assert sorted(texts.corpus.texts.to_pylist()) == ["Ada", "Grace", "Paris"]
    assert {query: sorted(found) for query, found in positives_of(texts).items()} == {
        "who?": ["Ada", "Grace"],
        "where?": ["Paris"],
        "when?": ["Ada"],
    }


def test_a_row_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    once, twice = text_set(tmp_path, ["q", "r"], ["p", "s"]), text_set(tmp_path, ["q", "r", "q"], ["p", "s", "p"])
    assert once.fingerprint == twice.fingerprint


def test_passage_ids_do_not_depend_on_the_row_order(tmp_path: Path) -> None:
    forward = text_set(tmp_path, QUERIES, POSITIVES)
    backward = text_set(tmp_path, QUERIES[::-1], POSITIVES[::-1])
    assert forward.corpus.texts.to_pylist() == backward.corpus.texts.to_pylist()
    assert positives_of(forward) == positives_of(backward)


def test_batches_do_not_matter(tmp_path: Path) -> None:
    pairs = [(pa.array(QUERIES[i : i + 1]), pa.array(POSITIVES[i : i + 1])) for i in range(4)]
    texts = build_text_set(tmp_path, pairs, None, query_column="query", positive_column="answer")
    assert texts.fingerprint == text_set(tmp_path, QUERIES, POSITIVES).fingerprint


def test_a_given_corpus_keeps_its_order_and_loses_its_duplicates(tmp_path: Path) -> None:
    texts = text_set(tmp_path, ["q"], ["b"], ["c", "b", "c", "a", "b"])
    assert texts.corpus.texts.to_pylist() == ["c", "b", "a"]
    assert positives_of(texts) == {"q": ["b"]}


def test_positives_that_the_corpus_lacks_follow_it_in_any_row_order(tmp_path: Path) -> None:
    forward = text_set(tmp_path, ["q", "r", "s"], ["new 1", "old", "new 2"], ["old", "other"])
    backward = text_set(tmp_path, ["s", "r", "q"], ["new 2", "old", "new 1"], ["old", "other"])
    found = forward.corpus.texts.to_pylist()
    assert found[:2] == ["old", "other"]
    assert sorted(found[2:]) == ["new 1", "new 2"]
    assert backward.corpus.texts.to_pylist() == found
    assert positives_of(forward) == {"q": ["new 1"], "r": ["old"], "s": ["new 2"]}


def test_an_empty_corpus_leaves_the_positives(tmp_path: Path) -> None:
    assert text_set(tmp_path, ["q"], ["p"], []).corpus.texts.to_pylist() == ["p"]
    nothing = build_text_set(
        tmp_path, [(pa.array(["q"]), pa.array(["p"]))], [], query_column="query", positive_column="answer"
    )
    assert nothing.corpus.texts.to_pylist() == ["p"]


def test_lists_of_positives(tmp_path: Path) -> None:
    nested = text_set(tmp_path, ["q", "r"], [["a", "b", "a"], ["c"]], ["c", "b", "a", "d"])
    assert positives_of(nested) == {"q": ["b", "a"], "r": ["c"]}
    assert nested.fingerprint == text_set(tmp_path, ["q", "q", "r"], ["a", "b", "c"], ["c", "b", "a", "d"]).fingerprint


def test_positives_and_the_querys_own_text_are_excluded_together(tmp_path: Path) -> None:
    texts = text_set(tmp_path, ["x", "y", "z"], ["p", "y", "p"], ["p", "x", "y"])
    assert texts.own_text.tolist() == [1, 2, -1]
    offsets, passages = texts.excluded()
    assert offsets.tolist() == [0, 2, 3, 4]
    assert passages.tolist() == [0, 1, 2, 0]
    assert passages.dtype == np.int32


@pytest.mark.parametrize(
    "convert",
    [
        lambda array: array,
        lambda array: array.cast(pa.large_string()),
        lambda array: array.cast(pa.string_view()),
        lambda array: array.dictionary_encode(),
        lambda array: pa.concat_arrays([pa.array(["before", "earlier"]), array, pa.array(["after"])]).slice(
            2, len(array)
        ),
        lambda array: pa.concat_arrays([pa.array(["x"] * 9), array]).cast(pa.large_string()).slice(9),
        lambda array: pa.concat_arrays([pa.array(["x"] * 3), array]).dictionary_encode().slice(3),
    ],
    ids=["string", "large", "view", "dictionary", "sliced", "sliced large", "sliced dictionary"],
)
def test_the_arrow_type_of_the_text_does_not_matter(tmp_path: Path, convert: Callable[[pa.Array], pa.Array]) -> None:
    plain = built(tmp_path / "plain", pa.array(QUERIES), pa.array(POSITIVES), pa.array(["Ada", "Rome"]))
    other = built(
        tmp_path / "other", convert(pa.array(QUERIES)), convert(pa.array(POSITIVES)), convert(pa.array(["Ada", "Rome"]))
    )
    assert other.fingerprint == plain.fingerprint
    assert other.corpus.texts.to_pylist() == plain.corpus.texts.to_pylist()


def test_sliced_lists_of_positives(tmp_path: Path) -> None:
    lists = pa.array([["skipped", "this"], ["a", "b"], ["c"], ["not", "this"]])
    whole = built(tmp_path, pa.array(["q", "r"]), pa.array([["a", "b"], ["c"]]))
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        sliced = built(tmp_path / str(kind), pa.array(["q", "r"]), lists.cast(kind).slice(1, 2))
        assert sliced.fingerprint == whole.fingerprint


def test_empty_batches_are_passed_over(tmp_path: Path) -> None:
    empty = pa.array([], pa.string())
    pairs = [(empty, empty), (pa.array(QUERIES), pa.array(POSITIVES)), (empty, empty)]
    texts = build_text_set(tmp_path, pairs, [empty, pa.array(["Ada"])], query_column="query", positive_column="answer")
    assert texts.fingerprint == text_set(tmp_path, QUERIES, POSITIVES, ["Ada"]).fingerprint


def test_any_unicode_text_comes_back_as_it_was(tmp_path: Path) -> None:
    passages = [
        "é",
        "e\u0301",
        "日本語のテキスト",
        "🙂" * 50,
        "\u200bzero width",
        "a\x00b",
        " padded ",
        "padded",
        "x" * 100_000,
    ]
    texts = text_set(tmp_path, [f"q{i}" for i in range(len(passages))], passages, passages)
    assert texts.corpus.texts.to_pylist() == passages
    assert [found for (found,) in positives_of(texts).values()] == passages


def test_more_texts_than_fit_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = [f"passage {i % 70}" for i in range(100)]
    whole = text_set(tmp_path / "whole", ["q"], ["passage 3"], corpus)
    monkeypatch.setattr(collecting, "TEXTS_A_BATCH", 7)
    cut = text_set(tmp_path / "cut", ["q"], ["passage 3"], corpus)
    assert (len(whole.corpus), cut.fingerprint) == (70, whole.fingerprint)


def test_a_built_set_opens_again_and_nothing_else_is_left(tmp_path: Path) -> None:
    texts = text_set(tmp_path, QUERIES, POSITIVES)
    again = open_text_set(texts.folder)
    assert again.queries.texts.equals(texts.queries.texts)
    assert again.corpus.texts.equals(texts.corpus.texts)
    np.testing.assert_array_equal(again.positive_ids, texts.positive_ids)
    assert os.listdir(tmp_path / "texts") == [texts.fingerprint]
    assert sorted(os.listdir(texts.folder)) == [
        "corpus",
        "own_text.npy",
        "positive_ids.npy",
        "positive_offsets.npy",
        "queries",
        "texts.json",
    ]


@pytest.mark.parametrize("change", ["query", "positive", "corpus", "order", "edge"])
def test_any_change_gives_another_fingerprint(tmp_path: Path, change: str) -> None:
    queries, positives, corpus = ["q", "r"], ["a", "b"], ["a", "b", "c"]
    before = text_set(tmp_path, queries, positives, corpus).fingerprint
    match change:
        case "query":
            queries[0] += "!"
        case "positive":
            positives[0] = "c"
        case "corpus":
            corpus[2] = "d"
        case "order":
            corpus.reverse()
        case "edge":
            queries.append("q")
            positives.append("b")
    assert text_set(tmp_path, queries, positives, corpus).fingerprint != before


@pytest.mark.parametrize("bad", [None, "", "  \n\t", "\u00a0\u3000"])
@pytest.mark.parametrize("column", ["query", "answer", "corpus"])
def test_an_empty_text_is_refused_with_its_row(tmp_path: Path, bad: str | None, column: str) -> None:
    good: list[str | None] = ["one", "two", "three"]
    columns = {"query": good, "answer": good, "corpus": good, column: ["one", "two", bad]}
    with pytest.raises(InputError, match=f"column '{column}' has 1 empty text.*the first in row 2") as caught:
        built(tmp_path, *(pa.array(texts, pa.string()) for texts in columns.values()))
    assert "filter" in str(caught.value)
    assert os.listdir(tmp_path / "texts") == [], "nothing half-made is left"


def test_the_row_of_an_empty_text_counts_over_the_batches(tmp_path: Path) -> None:
    pairs = [(pa.array(["a", "b"]), pa.array(["c", "d"])), (pa.array(["e", "f"]), pa.array(["g", " "]))]
    with pytest.raises(InputError, match=r"'answer'.*the first in row 3"):
        build_text_set(tmp_path, pairs, None, query_column="query", positive_column="answer")


@pytest.mark.parametrize(
    ("positives", "message"),
    [
        ([["a"], [], None], r"'answer' has 2 row\(s\) without a positive, the first is row 1"),
        ([["a"], ["b", None], ["c"]], "'answer' has 1 empty text.*the first in row 1"),
        ([["a"], ["b"], ["c", " "]], "'answer' has 1 empty text.*the first in row 2"),
    ],
)
def test_a_row_without_a_positive_is_refused(tmp_path: Path, positives: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(tmp_path, pa.array(["q", "r", "s"]), pa.array(positives))


@pytest.mark.parametrize(("values", "kind"), [([1, 2], "int64"), ([{"text": "a"}, {"text": "b"}], "struct")])
def test_a_column_without_text_is_refused_by_its_type(tmp_path: Path, values: list[Any], kind: str) -> None:
    with pytest.raises(InputError, match=f"column 'query' holds {kind}.*expected text"):
        built(tmp_path, pa.array(values), pa.array(["a", "b"]))
    with pytest.raises(InputError, match=f"column 'answer' holds {kind}.*expected text"):
        built(tmp_path, pa.array(["a", "b"]), pa.array(values))


def test_a_column_of_nulls_is_empty_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 'query' has 2 empty text\(s\).*the first in row 0"):
        built(tmp_path, pa.array([None, None]), pa.array(["a", "b"]))


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    empty = pa.array([], pa.string())
    with pytest.raises(InputError, match="the data set is empty: no row with 'query' and 'answer'"):
        built(tmp_path, empty, empty)
    with pytest.raises(InputError, match="the data set is empty"):
        build_text_set(tmp_path, [], None, query_column="query", positive_column="positive")


def test_a_corpus_without_rows_is_a_corpus(tmp_path: Path) -> None:
    texts = build_text_set(tmp_path, [], [pa.array(["a", "b", "a"])], query_column="query", positive_column="positive")
    assert (len(texts.queries), texts.corpus.texts.to_pylist()) == (0, ["a", "b"])
    assert texts.excluded()[0].tolist() == [0]


def test_chunked_columns_are_cut_without_losing_a_row() -> None:
    chunked = pa.chunked_array([["a", "b", "c"], [], ["d"], ["e", "f"]])
    assert [batch.to_pylist() for batch in batches_of(chunked, 2)] == [["a", "b"], ["c"], ["d"], ["e", "f"]]
    assert [batch.to_pylist() for batch in batches_of(chunked.slice(1, 4), 2)] == [["b", "c"], ["d"], ["e"]]
    assert [batch.to_pylist() for batch in batches_of(pa.array(["a", "b", "c"]).slice(1), 5)] == [["b", "c"]]


def test_digests_that_share_their_first_half_are_told_apart() -> None:
    ordered = np.array([[1, 5], [7, 1], [7, 2], [7, 9], [8, 0]], dtype=np.uint64)
    sought = np.array([[7, 9], [7, 3], [7, 1], [9, 0], [0, 0], [8, 0], [1, 5]], dtype=np.uint64)
    assert find_digests(ordered, sought).tolist() == [3, -1, 1, -1, -1, 4, 0]
    assert find_digests(ordered[:0], sought).tolist() == [-1] * 7
    order, again = sort_digests(ordered[[3, 0, 4, 2, 1]])
    assert (order.tolist(), again.tolist()) == ([1, 4, 3, 0, 2], ordered.tolist())
    assert find_digests(again, sought).tolist() == [3, -1, 1, -1, -1, 4, 0]
    assert np.shares_memory(np.ascontiguousarray(again[:, 0]), again)  # a search copies nothing


def test_a_text_is_found_by_its_digest(tmp_path: Path) -> None:
    texts = text_set(tmp_path, QUERIES, POSITIVES, ["Rome", "Ada"])
    corpus = texts.corpus
    assert corpus.find(corpus.digests).tolist() == list(range(len(corpus)))
    assert corpus.find(texts.queries.digests).tolist() == [-1, -1, -1]
    assert corpus.take(np.array([2, 0])).to_pylist() == [corpus.texts[2].as_py(), "Rome"]


@pytest.mark.parametrize("name", ["corpus/utf8.bin", "corpus/digests.npy", "queries/offsets.npy", "positive_ids.npy"])
@pytest.mark.parametrize("left", [0, 10])
def test_a_truncated_file_is_reported(tmp_path: Path, name: str, left: int) -> None:
    texts = text_set(tmp_path, QUERIES, ["a longer text " + positive for positive in POSITIVES])
    copy = tmp_path / "copy" / texts.fingerprint
    shutil.copytree(texts.folder, copy)
    os.truncate(copy / name, left)
    with pytest.raises(StorageError, match="delete"):
        open_text_set(copy)


def test_a_folder_of_other_texts_is_reported(tmp_path: Path) -> None:
    texts = text_set(tmp_path, QUERIES, POSITIVES)
    shutil.copytree(texts.folder, tmp_path / "renamed")
    with pytest.raises(StorageError, match=f"written as texts/{texts.fingerprint}, and is in the wrong place"):
        open_text_set(tmp_path / "renamed")
