"""Rows of every mined format, as the collator reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import InputError
from hf_negmine.train import HardNegativeCollator
from hf_negmine.train.data import TrainingData
from hf_negmine.train.reading import LookupTables, RowReader, negative_columns
from hf_negmine.train.rows import TrainingRow
from tests.train.helpers import CORPUS, POSITIVES, QUERIES, columns_of, make_miner, rows, rows_of


def read_all(mined: datasets.Dataset, **settings: Any) -> list[TrainingRow]:
    reader = RowReader(mined.column_names, **settings)
    return [reader.read(row) for row in mined]


def named(found: list[TrainingRow]) -> dict[str, tuple[list[str], list[str]]]:
    return {row.query: (row.positives, row.negatives) for row in found}


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Positive and negatives of each query, from the columns of the widest format."""
    mined = make_miner(tmp_path / "expected").mine(rows())
    return {row["query"]: ([row["positive"]], [row["negative_1"], row["negative_2"]]) for row in mined}


@pytest.mark.parametrize("include_scores", [False, True])
@pytest.mark.parametrize("format", ["n-tuple", "labeled-list"])
def test_a_row_a_query_is_read_from_columns_and_lists_alike(
    tmp_path: Path, expected: dict[str, Any], format: Any, include_scores: bool
) -> None:
    mined = make_miner(tmp_path / "cache", format=format, include_scores=include_scores).mine(rows())
    found = read_all(mined)
    assert named(found) == expected
    for row in found:
        assert np.isfinite([row.positive_score, *row.scores]).all() == include_scores
        if include_scores:
            assert max(row.scores) < row.positive_score


def test_ids_are_read_by_the_miners_lookup_tables(tmp_path: Path, expected: dict[str, Any]) -> None:
    miner = make_miner(tmp_path / "cache", format="ids")
    found = read_all(miner.mine(rows()), lookups=LookupTables(miner.queries, miner.corpus))
    assert named(found) == expected
    assert all(max(row.scores) < row.positive_score for row in found)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_ids_of_formatted_rows_are_found_in_tables_of_any_order(
    tmp_path: Path, expected: dict[str, Any], kind: str
) -> None:
    miner = make_miner(tmp_path / "cache", format="ids")
    mined = miner.mine(rows()).with_format(kind)
    queries, corpus = (table.select(range(len(table))[::-1]) for table in (miner.queries, miner.corpus))
    assert named(read_all(mined, lookups=LookupTables(queries, corpus))) == expected


@pytest.mark.parametrize("kind", ["arrow", "numpy", "pandas", "polars", "torch"])
def test_rows_in_any_format_are_told_apart_by_their_negatives(frozen: SentenceTransformer, kind: str) -> None:
    given = {"query": ["q", "r"], "positive": ["p", "s"], "negatives": [["n", "m"], []]}
    left = HardNegativeCollator(frozen).with_negatives(datasets.Dataset.from_dict(given).with_format(kind))
    assert (left.with_format(None)["query"][:], left.format["type"]) == (["q"], kind)


def test_triplets_are_read_one_negative_a_row(tmp_path: Path, expected: dict[str, Any]) -> None:
    found = read_all(make_miner(tmp_path / "cache", format="triplet").mine(rows()))
    assert [(row.query, row.positives, row.negatives) for row in found] == [
        (query, positives, [negative]) for query, (positives, negatives) in expected.items() for negative in negatives
    ]


def test_a_labelled_list_has_every_passage_with_a_label_over_0_as_a_positive() -> None:
    row = RowReader(["query", "docs", "labels"]).read({"query": "a", "docs": list("bcde"), "labels": [0, 1, 0, 2]})
    assert (row.positives, row.negatives) == (["c", "e"], ["b", "d"])


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"query": "a", "docs": ["b", "c"], "labels": [0, 0]}, "no passage with a label over 0 for 'a'"),
        ({"query": "a", "docs": ["b", "c"], "labels": [1]}, "2 passages and 1 labels for 'a'"),
        ({"query": "a", "docs": ["b", "c"], "labels": [1, float("nan")]}, "for 'a', of which some are not a number"),
    ],
)
def test_a_labelled_list_that_makes_no_sense_is_an_error(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RowReader(list(feature)).read(feature)


def test_lists_and_nulls_are_read_as_what_is_there() -> None:
    reader = RowReader(["query", "positive", "negatives"])
    found = [reader.read({"query": "q", "positive": "p", "negatives": given}) for given in (["b", None, "a"], None, [])]
    assert [row.negatives for row in found] == [["b", "a"], [], []]
    columns = ["query", "positive", "negative_10", "negative_9", "negative_2"]
    assert negative_columns(columns) == ["negative_2", "negative_9", "negative_10"]
    row = RowReader(columns).read(dict(zip(columns, ["q", "p", "ten", None, "two"], strict=True)))
    assert row.negatives == ["two", "ten"]


def test_negatives_under_two_names_are_an_error() -> None:
    with pytest.raises(InputError, match=r"several names.*'negative', 'negative_1 …'"):
        RowReader(["query", "positive", "negative", "negative_1"])
    with pytest.raises(InputError, match=r"several names.*'negatives', 'negative_1 …'"):
        RowReader(["query", "positive", "negatives", "negative_1"])


def test_unclear_columns_are_an_error_that_lists_them() -> None:
    with pytest.raises(InputError, match=r"\['id', 'query', 'positive'\] besides negatives"):
        RowReader(["id", "query", "positive", "negative_1"])
    with pytest.raises(InputError, match=r"query_column.*'wrong'"):
        RowReader(["id", "query", "positive"], query_column="wrong", positive_column="positive")
    reader = RowReader(["id", "query", "positive"], query_column="query", positive_column="positive")
    assert reader.read({"id": "7", "query": "a", "positive": "b"}).query == "a"


def test_ids_without_tables_or_outside_them_are_an_error(frozen: SentenceTransformer) -> None:
    feature = {"query_id": 0, "document_ids": [0, 1], "scores": [0.9, 0.1]}
    with pytest.raises(InputError, match=r"queries=miner.queries and corpus=miner.corpus"):
        HardNegativeCollator(frozen, num_negatives=1).__call__([feature])
    queries = datasets.Dataset.from_dict({"query_id": [5], "query": ["five"]})
    corpus = datasets.Dataset.from_dict({"document_id": [1, 0], "document": ["one", "zero"]})
    reader = RowReader(list(feature), lookups=LookupTables(queries, corpus))
    with pytest.raises(InputError, match="queries: the id 0 is not among the 1"):
        reader.read(feature)
    row = reader.read({**feature, "query_id": 5})
    assert (row.query, row.positives, row.negatives) == ("five", ["zero"], ["one"])
    with pytest.raises(InputError, match="come together"):
        HardNegativeCollator(frozen, queries=queries)
    with pytest.raises(InputError, match=r"expected one column of whole numbers and one of text, got"):
        LookupTables(corpus.rename_column("document_id", "text").cast_column("text", datasets.Value("string")), corpus)


# ---- as batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["n-tuple", "labeled-list", "ids"])
def test_every_format_reaches_the_loss_as_the_same_columns(
    tmp_path: Path, frozen: SentenceTransformer, expected: dict[str, Any], format: Any
) -> None:
    columns = {"query_column": "query", "positive_column": "positive"}
    miner = make_miner(tmp_path / "cache", format=format, **columns)
    data = rows().add_column("number", list(range(16))).add_column("source_id", ["x"] * 16)
    mined = miner.mine(data)
    tables = {"queries": miner.queries, "corpus": miner.corpus} if format == "ids" else {}
    names = {} if format == "ids" else columns
    collator = HardNegativeCollator(frozen, num_negatives=2, **tables, **names)
    collator.set_epoch(0)
    batch = collator([mined[place] for place in (3, 0, 9)])
    texts = columns_of(batch, frozen)
    assert list(texts) == ["query", "positive", "negative_1", "negative_2"]
    assert all(key.startswith(("query_", "positive_", "negative_1_", "negative_2_")) for key in batch)
    assert texts["query"] == [QUERIES[3], QUERIES[0], QUERIES[9]]
    assert rows_of(texts) == {query: (*expected[query][0], *expected[query][1]) for query in texts["query"]}


def test_labelled_pairs_are_passed_on_as_they_are(tmp_path: Path, frozen: SentenceTransformer) -> None:
    mined = make_miner(tmp_path / "cache", format="labeled-pair").mine(rows())
    batch = HardNegativeCollator(frozen)(list(mined.select(range(4))))  # needs no epoch: nothing is drawn
    texts = columns_of(batch, frozen)
    assert list(texts) == ["query", "positive"]
    assert texts["query"] == [QUERIES[0]] * 3 + [QUERIES[1]]
    assert texts["positive"] == mined["positive"][:4]
    assert batch["label"].tolist() == [1, 0, 0, 1]


def test_lists_of_any_length_become_n_columns(frozen: SentenceTransformer) -> None:
    lists = [CORPUS[20:25], CORPUS[30:31], [CORPUS[33], None, CORPUS[34]]]
    features = [
        {"query": QUERIES[place], "positive": POSITIVES[place], "negatives": given} for place, given in enumerate(lists)
    ]
    collator = HardNegativeCollator(frozen, num_negatives=3)
    collator.set_epoch(0)
    found = rows_of(columns_of(collator(features), frozen))
    assert found[QUERIES[0]][1:] == tuple(CORPUS[20:23])
    assert found[QUERIES[1]][1:] == (CORPUS[30],) * 3
    assert found[QUERIES[2]][1:] == (CORPUS[33], CORPUS[34], CORPUS[33])
    unsaid = HardNegativeCollator(frozen)
    unsaid.set_epoch(0)
    with pytest.raises(InputError, match="num_negatives: how many negatives per row"):
        unsaid(features)


def test_a_negative_with_the_text_of_a_positive_or_the_query_is_left_out(frozen: SentenceTransformer) -> None:
    feature = {
        "query": QUERIES[0],
        "positive": [POSITIVES[0], POSITIVES[1]],
        "negatives": [POSITIVES[1], QUERIES[0], CORPUS[30], POSITIVES[0]],
    }
    collator = HardNegativeCollator(frozen, num_negatives=2)
    for epoch in range(4):
        collator.set_epoch(epoch)
        assert rows_of(columns_of(collator([feature]), frozen))[QUERIES[0]][1:] == (CORPUS[30], CORPUS[30])


def test_several_positives_take_turns_by_epoch(frozen: SentenceTransformer) -> None:
    feature = {"query": QUERIES[0], "positive": POSITIVES[:3], "negatives": CORPUS[30:32]}
    collator = HardNegativeCollator(frozen, num_negatives=2)
    seen = []
    for epoch in range(12):
        collator.set_epoch(epoch)
        seen.append(rows_of(columns_of(collator([feature]), frozen))[QUERIES[0]][0])
    assert set(seen) == set(POSITIVES[:3])


def test_the_positive_that_is_trained_on_has_its_own_score(frozen: SentenceTransformer) -> None:
    texts, scores = POSITIVES[:3], [0.9, 0.8, 0.7]
    of_tool = {"query": QUERIES[0], "pos": texts, "pos_scores": scores, "neg": CORPUS[30:31], "neg_scores": [0.5]}
    first_only = {"query": QUERIES[0], "positive": texts, "negatives": CORPUS[30:31], "scores": [0.9, 0.5]}
    collator = HardNegativeCollator(frozen, labels="scores")
    seen = set()
    for epoch in range(12):
        collator.set_epoch(epoch)
        batch = collator([of_tool])
        place = texts.index(rows_of(columns_of(batch, frozen))[QUERIES[0]][0])
        assert batch["label"].tolist()[0] == pytest.approx([scores[place], 0.5])
        if place:
            with pytest.raises(InputError, match="labels='scores' needs a finite score"):
                collator([first_only])
        else:
            assert collator([first_only])["label"].tolist() == batch["label"].tolist()
        seen.add(place)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("scores", [None, 0.7, [0.9], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]])
@pytest.mark.parametrize("sampler", ["sampled:5", "sampled:5@0.01", "top1_sampled:5@0.1", "simans:5"])
def test_a_draw_by_scores_is_refused_where_the_row_has_others(
    frozen: SentenceTransformer, scores: object, sampler: str
) -> None:
    feature = {"query": QUERIES[0], "positive": POSITIVES[0], "negatives": CORPUS[16:21], "scores": scores}
    collator = HardNegativeCollator(frozen, num_negatives=2, sampler=sampler)
    collator.set_epoch(0)
    with pytest.raises(InputError, match=r"draws by the teacher's scores, and the row .* lacks them"):
        collator([feature])


def test_the_sampler_draws_from_the_hardest_of_a_rows_own_negatives(frozen: SentenceTransformer) -> None:
    feature = {"query": QUERIES[0], "positive": POSITIVES[0], "negatives": CORPUS[16:40]}
    collator = HardNegativeCollator(frozen, num_negatives=2, sampler="sampled:5@inf")
    seen: set[str] = set()
    for epoch in range(30):
        collator.set_epoch(epoch)
        seen.update(rows_of(columns_of(collator([feature]), frozen))[QUERIES[0]][1:])
    assert seen == set(CORPUS[16:21])


def test_what_is_known_of_negatives_is_trained_with_from_a_shell_too() -> None:
    ours = {"query": QUERIES[0], "positive": POSITIVES[0], "negatives": CORPUS[30:32], "scores": [0.9, 0.5, 0.4]}
    tool = {"query": QUERIES[0], "pos": POSITIVES[:1], "pos_scores": [0.9], "neg": CORPUS[30:32]}
    for row in (ours, {**tool, "neg_scores": [0.5, 0.4]}):
        given = datasets.Dataset.from_list([{**row, "weights": [1.0, 0.25]}])
        (read,) = read_all(TrainingData.of_mined(given).rows)
        assert (read.positive_score, read.scores, read.weights) == (0.9, [0.5, 0.4], [1.0, 0.25])


def test_rows_labeled_as_not_relevant_are_refused_though_no_fit_saw_them(
    frozen: SentenceTransformer, tmp_path: Path
) -> None:
    collator = HardNegativeCollator(frozen, make_miner(tmp_path).fit(rows(0, 8)))
    labeled = rows().add_column("label", [1] * 15 + [0])  # type: ignore[call-arg]
    with pytest.raises(InputError, match="column 'label' is 0 for 1 of 16 rows, which marks them as not relevant"):
        collator._check(labeled, progress=False)
    collator._check(rows().add_column("label", [1] * 16), progress=False)  # type: ignore[call-arg]


@pytest.mark.parametrize("label", [{"label": 1}, {"labels": [1, 0]}])
def test_weights_without_columns_of_negatives_are_refused(frozen: SentenceTransformer, label: dict[str, Any]) -> None:
    passages = POSITIVES[0] if "label" in label else [POSITIVES[0], CORPUS[30]]
    row = {"query": QUERIES[0], "positive": passages, **label, "weights": [0.5]}
    collator = HardNegativeCollator(frozen, num_negatives=1)
    collator.set_epoch(0)
    with pytest.raises(InputError, match="column 'weights' holds a weight per negative"):
        collator([row])
    with pytest.raises(InputError, match="column 'weights' holds a weight per negative"):
        TrainingData.of_mined(datasets.Dataset.from_list([row]))
