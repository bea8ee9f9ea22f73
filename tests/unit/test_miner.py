"""The miner as users meet it: `map`, `mine`, streams, formats, seeds, pickles and summaries."""

from __future__ import annotations

import copy
import importlib.metadata
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from datasets.fingerprint import Hasher
from sentence_transformers.util import resolve_ids

from hf_negmine import NegativeMiner, RandomTeacher, Sampled, TopKPercPos
from hf_negmine.base.errors import ExhaustedError, InputError, NegmineError
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.protocols import Role, Similarity
from hf_negmine.base.schema import FloatArray
from tests.forks import forks
from tests.reference import OWN_FORMATS


class WordTeacher:
    """A vector a text, drawn from the text's digest; a query lies near the passages that share its last word."""

    name = "words"
    similarity: Similarity = "cosine"

    def __init__(self, weights: str = "1") -> None:
        self.weights = weights

    def fingerprint(self, role: Role) -> str:
        return digest_of("words", self.weights, role)

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        return np.stack([_vector(text.split()[-1]) + 0.8 * _vector(text) for text in texts])


class CountingTeacher(WordTeacher):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[tuple[Role, int]] = []

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        self.encoded.append((role, len(texts)))
        return super().encode(texts, role)


def _vector(text: str) -> FloatArray:
    seed = text_digests(pa.array([text]))[0]
    return np.random.default_rng(seed).normal(size=12).astype(np.float32)


def cosines(queries: Sequence[str], passages: Sequence[str]) -> FloatArray:
    """What `WordTeacher` makes of every pair, shape (queries, passages)."""
    parts = [WordTeacher().encode(texts, "query").astype(np.float64) for texts in (queries, passages)]
    left, right = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts)
    return np.asarray(left @ right.T, dtype=np.float32)


TOPICS = ("tea", "ice", "oak", "sun", "sea")
ROWS = Dataset.from_dict(
    {
        "id": list(range(30)),
        "query": [f"question {i % 24} about {TOPICS[i % 24 % 5]}" for i in range(30)],
        "positive": [f"answer {i} on {TOPICS[i % 24 % 5]}" for i in range(30)],
        "meta": [{"source": f"page {i}"} for i in range(30)],
    }
)
CORPUS = [
    *(f"answer {i} on {TOPICS[i % 24 % 5]}" for i in range(20)),
    *(f"remark {i} on {TOPICS[i % 5]}" for i in range(30)),
    *(f"answer {i} on {TOPICS[i % 24 % 5]}" for i in range(10)),
    "question 9 about sea",
    "question 9 about sea",
]
"""Most positives, ten of them twice, and the text of a query."""

NEGATIVES = ["negative_1", "negative_2"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def miner_in(cache: Path, **settings: Any) -> NegativeMiner:
    given: dict[str, Any] = {
        "teacher": WordTeacher(),
        "corpus": CORPUS,
        "num_negatives": 2,
        "query_column": "query",
        "positive_column": "positive",
        "cache_dir": cache,
        "device": "cpu",
        "progress": False,
    }
    given |= settings
    return NegativeMiner(given.pop("teacher"), **given)


def mapped(rows: Any, miner: NegativeMiner, **options: Any) -> Any:
    remove = ["query", "positive"] if miner.config.format == "ids" else None
    if isinstance(rows, Dataset):
        options = {"load_from_cache_file": False, **options}
    return rows.map(miner, batched=True, remove_columns=remove, **options)


def listed(rows: Any) -> list[dict[str, Any]]:
    return list(rows.with_format(None) if isinstance(rows, Dataset) else rows)


# ---- map and mine ------------------------------------------------------------------------------------------------


@forks
def test_two_processes_mine_rows_on_the_fly_as_one_does(cache: Path) -> None:
    miner = miner_in(cache, on_exhausted="keep").fit(corpus=CORPUS)
    assert listed(mapped(ROWS, miner, num_proc=2, batch_size=4)) == listed(mapped(ROWS, miner))


@pytest.mark.parametrize(("format", "scores"), [*zip(OWN_FORMATS, [True, False] * 3, strict=False)])
def test_map_over_arrow_tables_equals_mine(cache: Path, format: str, scores: bool) -> None:
    miner = miner_in(cache, format=format, include_scores=scores).fit(ROWS)
    mined = miner.mine(ROWS)
    for batch_size in (4, 1000):
        result = mapped(ROWS.with_format("arrow"), miner, batch_size=batch_size)
        assert listed(result) == listed(mined)
        assert result.with_format(None).features == mined.features


def stream(features: datasets.Features | None = None) -> IterableDataset:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS

    return IterableDataset.from_generator(rows, features=features)


@pytest.mark.parametrize("format", OWN_FORMATS)
def test_a_stream_is_mapped_and_mined_as_its_rows_are(cache: Path, format: str) -> None:
    miner = miner_in(cache, format=format, include_scores=True).fit(ROWS)
    expected = listed(miner.mine(ROWS))
    assert listed(mapped(stream(), miner, batch_size=7)) == expected
    assert listed(mapped(stream(ROWS.features), miner, batch_size=7, features=miner.features(ROWS))) == expected
    for features in (None, ROWS.features):
        mined = miner.mine(stream(features))
        assert mined.column_names == miner.mine(ROWS).column_names
        assert listed(mined) == expected


def test_a_miner_is_fitted_on_a_stream(cache: Path) -> None:
    assert listed(miner_in(cache).mine(stream())) == listed(miner_in(cache).mine(ROWS))


def single_positive_rows() -> Dataset:
    """Rows of queries with one positive, which the corpus holds."""
    return ROWS.filter(lambda row: 6 <= row["id"] < 20, load_from_cache_file=False)


@pytest.mark.parametrize(
    ("method", "sampler"),
    [("perc_pos:0.95", "sampled:6"), ("band:2-12", "top"), ("naive", "sampled:6"), ("shifted:3", "top")],
)
def test_rows_mined_on_the_fly_equal_rows_that_were_fitted(cache: Path, method: str, sampler: str) -> None:
    rows = single_positive_rows()
    settings = {"method": method, "sampler": sampler, "include_scores": True, "on_exhausted": "keep"}
    expected = listed(miner_in(cache, **settings).mine(rows))
    later = miner_in(cache, **settings).fit(corpus=CORPUS)
    assert listed(later.mine(rows)) == expected
    assert listed(mapped(rows, later, batch_size=5)) == expected
    assert listed(mapped(IterableDataset.from_generator(lambda: iter(rows)), later, batch_size=5)) == expected


def test_rows_of_a_fit_and_new_rows_mix(cache: Path) -> None:
    rows = single_positive_rows()
    expected = listed(miner_in(cache, on_exhausted="keep").mine(rows))
    half = miner_in(cache, on_exhausted="keep").fit(rows.select(range(0, len(rows), 2)), corpus=CORPUS)
    assert listed(half.mine(rows)) == expected
    assert listed(mapped(rows, half, batch_size=3)) == expected


def test_a_positive_outside_the_corpus_is_scored_on_the_fly(cache: Path) -> None:
    row = {"query": "question 99 about sea", "positive": "a new answer on sea"}
    miner = miner_in(cache, include_scores=True, method="perc_pos:0.9").fit(corpus=CORPUS)
    (mined,) = miner.mine([row])
    scores = cosines([row["query"]], [row["positive"], *CORPUS])[0]
    assert mined["scores"][0] == pytest.approx(scores[0], abs=1e-6)
    eligible = {text: score for text, score in zip(CORPUS, scores[1:], strict=True) if score < 0.9 * scores[0]}
    best = sorted(eligible, key=lambda text: -eligible[text])[:2]
    assert [mined[name] for name in NEGATIVES] == best


def test_a_lexical_teacher_mines_on_the_fly_but_needs_the_positive_in_its_corpus(cache: Path) -> None:
    rows = single_positive_rows()
    settings: dict[str, Any] = {"teacher": RandomTeacher(1), "method": "naive"}
    expected = listed(miner_in(cache, **settings).mine(rows))
    later = miner_in(cache, **settings).fit(corpus=CORPUS)
    assert listed(later.mine(rows)) == expected
    with pytest.raises(InputError, match=r"random-1 only scores passages of its corpus.*'a new answer'"):
        later.mine([{"query": "new", "positive": "a new answer"}])


# ---- what is chosen ----------------------------------------------------------------------------------------------


def test_negatives_are_the_best_under_the_ceiling(cache: Path) -> None:
    """Against brute force: every row, with the ceiling by the lowest positive and by each."""
    passages = list(dict.fromkeys([*CORPUS, *ROWS["positive"]]))
    positives: dict[str, list[str]] = {}
    for row in ROWS:
        positives.setdefault(row["query"], []).append(row["positive"])
    scores = {
        query: dict(zip(passages, line, strict=True))
        for query, line in zip(positives, cosines(list(positives), passages), strict=True)
    }
    differing = 0
    for positive_score in ("min", "each"):
        miner = miner_in(cache, method=TopKPercPos(0.9), positive_score=positive_score, on_exhausted="keep")
        mined = miner.mine(ROWS)
        assert len(mined) == len(ROWS)
        for row in mined:
            query, own = row["query"], scores[row["query"]]
            level = min(own[text] for text in positives[query]) if positive_score == "min" else own[row["positive"]]
            eligible = [text for text in passages if text not in positives[query] and text != query]
            under = sorted((t for t in eligible if own[t] < level - 0.1 * abs(level)), key=lambda t: -own[t])
            assert [row[name] for name in NEGATIVES] == [*under, None, None][:2]
            differing += level != own[row["positive"]]
    assert differing > 0


def test_positives_and_same_text_passages_are_never_negatives(cache: Path) -> None:
    miner = miner_in(cache, method="naive", num_negatives=40, on_exhausted="keep")
    mined = miner.mine(ROWS)
    positives: dict[str, set[str]] = {}
    for row in ROWS:
        positives.setdefault(row["query"], set()).add(row["positive"])
    for row in mined:
        negatives = [row[f"negative_{place}"] for place in range(1, 41)]
        assert len(set(negatives)) == 40
        assert not set(negatives) & {row["query"], *positives[row["query"]]}


def test_without_a_corpus_the_positives_are_searched(cache: Path) -> None:
    mined = miner_in(cache, corpus=None, method="naive").mine(ROWS)
    assert {text for name in NEGATIVES for text in mined[name]} <= set(ROWS["positive"])


@pytest.mark.parametrize("sampler", ["top", "sampled:8", "top1_sampled:8"])
def test_the_order_of_the_rows_changes_nothing(tmp_path: Path, sampler: str) -> None:
    shuffled = ROWS.shuffle(seed=1)
    here = miner_in(tmp_path / "a", sampler=sampler, on_exhausted="keep").mine(ROWS)
    there = miner_in(tmp_path / "b", sampler=sampler, on_exhausted="keep").mine(shuffled)
    assert sorted(listed(there), key=lambda row: row["id"]) == listed(here)
    assert [row["id"] for row in there] == shuffled["id"]


def test_the_seed_decides_what_is_sampled(tmp_path: Path) -> None:
    def drawn(folder: str, seed: int) -> list[dict[str, Any]]:
        settings = {"sampler": Sampled(10), "method": "naive", "seed": seed}
        return listed(miner_in(tmp_path / folder, **settings).mine(ROWS))

    first = drawn("a", 7)
    assert first == drawn("b", 7)
    differing = sum(mine != other for mine, other in zip(first, drawn("a", 8), strict=True))
    assert differing > len(ROWS) / 2


# ---- rows that come out short, other columns, lists ----------------------------------------------------------------


def rows_with_a_short_one() -> tuple[Dataset, list[str]]:
    """Two rows, of which the second has one eligible passage under its positive."""
    query = "question 1 about ice"
    worse, better = sorted(CORPUS[30:50], key=lambda text: float(cosines([query], [text])[0, 0]))[:2]
    rows = Dataset.from_dict(
        {"query": ["question 0 about tea", query], "positive": ["answer 0 on tea", better], "id": [10, 11]}
    )
    corpus = [better, worse, *(t for t in CORPUS if cosines([query], [t])[0, 0] > cosines([query], [better])[0, 0])]
    return rows, corpus


@pytest.mark.parametrize(("format", "by_map"), [("n-tuple", False), *((name, True) for name in OWN_FORMATS)])
def test_a_short_row_is_dropped_kept_or_an_error(cache: Path, format: str, by_map: bool) -> None:
    rows, corpus = rows_with_a_short_one()
    worse = corpus[1]

    def run(on_exhausted: str) -> list[dict[str, Any]]:
        settings = {"corpus": corpus, "method": "perc_pos:1.0", "on_exhausted": on_exhausted}
        miner = miner_in(cache, format=format, **settings).fit(rows)
        assert (miner.summary.complete, miner.summary.exhausted) == (1, 1)
        return listed(mapped(rows, miner) if by_map else miner.mine(rows))

    dropped, kept = run("drop"), run("keep")
    assert {row["id"] for row in dropped} == {10}
    short = [row for row in kept if row["id"] == 11]
    assert [row for row in kept if row["id"] == 10] == dropped
    if format == "n-tuple":
        assert [(row["negative_1"], row["negative_2"]) for row in short] == [(worse, None)]
    elif format == "triplet":
        assert [row["negative"] for row in short] == [worse]
    elif format == "labeled-pair":
        assert [(row["positive"], row["label"]) for row in short] == [(rows[1]["positive"], 1), (worse, 0)]
    elif format == "labeled-list":
        assert [(row["positive"], row["labels"]) for row in short] == [([rows[1]["positive"], worse], [1, 0])]
    else:
        assert [len(row["document_ids"]) for row in short] == [2]
    with pytest.raises(
        ExhaustedError, match=r"1 of 2 queries have fewer than 2 eligible passages.*'question 1 about i"
    ):
        run("error")


@pytest.mark.parametrize("by_map", [False, True], ids=["mine", "map"])
def test_a_new_row_that_comes_out_short_is_an_error_too(cache: Path, by_map: bool) -> None:
    rows, corpus = rows_with_a_short_one()
    miner = miner_in(cache, method="perc_pos:1.0", on_exhausted="error").fit(corpus=corpus)
    with pytest.raises(ExhaustedError, match=r"1 row\(s\) cannot have 2 negatives: .*holds 1 eligible.*'question 1 ab"):
        mapped(rows, miner) if by_map else miner.mine(rows)


@pytest.mark.parametrize("format", OWN_FORMATS)
def test_map_may_change_the_number_of_rows(cache: Path, format: str) -> None:
    miner = miner_in(cache, format=format, method="naive").fit(ROWS)
    rows_a_row = {"triplet": 2, "labeled-pair": 3}.get(format, 1)
    expected = len(ROWS) * rows_a_row
    if format == "labeled-pair":  # six queries have two positives: a second labelled one in each of their two rows
        expected = 30 * 3
    assert len(mapped(ROWS, miner, batch_size=7)) == expected


@pytest.mark.parametrize("format", OWN_FORMATS)
def test_other_columns_stay_with_their_rows(cache: Path, format: str) -> None:
    mined = miner_in(cache, format=format).mine(ROWS)
    by_id = {row["id"]: row for row in ROWS}
    assert mined.features["meta"] == ROWS.features["meta"]
    for row in mined:
        assert row["meta"] == by_id[row["id"]]["meta"]
        if format != "ids":
            assert row["query"] == by_id[row["id"]]["query"]


def rows_with_lists() -> Dataset:
    grouped: dict[str, list[str]] = {}
    for row in ROWS:
        grouped.setdefault(row["query"], []).append(row["positive"])
    return Dataset.from_dict(
        {"query": list(grouped), "positive": list(grouped.values()), "id": list(range(len(grouped)))}
    )


@pytest.mark.parametrize(
    ("format", "positive_score"), [*((name, "min") for name in OWN_FORMATS), ("labeled-pair", "each"), ("ids", "each")]
)
def test_lists_of_positives_are_exploded_or_grouped(cache: Path, format: str, positive_score: str) -> None:
    rows = rows_with_lists()
    settings = {"format": format, "positive_score": positive_score, "method": "naive", "include_scores": True}
    miner = miner_in(cache, **settings).fit(rows)
    mined = miner.mine(rows)
    for batch_size in (1, 5, 1000):
        assert listed(mapped(rows, miner, batch_size=batch_size)) == listed(mined)
    assert listed(mapped(rows.with_format("arrow"), miner, batch_size=5)) == listed(mined)
    n_rows, n_pairs = len(rows), sum(len(texts) for texts in rows["positive"])
    groups = n_rows if positive_score == "min" else n_pairs
    expected = {
        "n-tuple": n_pairs,
        "triplet": n_pairs * 2,
        "labeled-pair": n_pairs + groups * 2,
        "labeled-list": n_pairs,  # scores in the place of labels: only the first passage is a positive
        "ids": n_pairs,
    }
    assert len(mined) == expected[format]
    if format in ("n-tuple", "triplet"):
        assert mined.features["positive"] == datasets.Value("string")
        exploded = [(row["id"], text) for row in rows for text in row["positive"]]
        assert list(dict.fromkeys((row["id"], row["positive"]) for row in mined)) == exploded
    if format == "labeled-list":
        positives = dict(zip(rows["query"], rows["positive"], strict=True))
        assert [(row["id"], row["positive"][0]) for row in mined] == [
            (row["id"], text) for row in rows for text in row["positive"]
        ]
        for row in mined:
            assert len(row["scores"]) == len(row["positive"]) == 3
            assert not set(row["positive"][1:]) & set(positives[row["query"]])


def test_rows_and_lists_of_positives_give_the_same_negatives(cache: Path) -> None:
    single = {(row["query"], row["positive"]): row for row in miner_in(cache, on_exhausted="keep").mine(ROWS)}
    lists = miner_in(cache, on_exhausted="keep").mine(rows_with_lists())
    assert len(lists) == len(single)
    for row in lists:
        assert [row[name] for name in NEGATIVES] == [single[row["query"], row["positive"]][name] for name in NEGATIVES]


def test_the_lowest_or_each_positive_score_sets_the_ceiling(cache: Path) -> None:
    query = "question 0 about tea"
    order = sorted(CORPUS, key=lambda text: -float(cosines([query], [text])[0, 0]))
    order = list(dict.fromkeys(order))
    rows = [{"query": query, "positive": [order[0], order[5]]}]
    settings = {"method": "perc_pos:1.0", "num_negatives": 2}
    (lowest_1, lowest_2) = miner_in(cache, positive_score="min", **settings).mine(rows)
    assert [lowest_1[name] for name in NEGATIVES] == [lowest_2[name] for name in NEGATIVES] == order[6:8]
    high, low = miner_in(cache, positive_score="each", **settings).mine(rows)
    assert (high["positive"], low["positive"]) == (order[0], order[5])
    assert [high[name] for name in NEGATIVES] == order[1:3]
    assert [low[name] for name in NEGATIVES] == order[6:8]


def test_scores_are_the_teachers(cache: Path) -> None:
    mined = miner_in(cache, include_scores=True).mine(ROWS)
    for row in mined:
        texts = [row["positive"], *(row[name] for name in NEGATIVES)]
        np.testing.assert_allclose(row["scores"], cosines([row["query"]], texts)[0], atol=1e-6)
        assert row["scores"][1:] == sorted(row["scores"][1:], reverse=True)


def test_grouped_scores_and_labels_stand_beside_their_texts(cache: Path) -> None:
    rows = rows_with_lists()
    for row in miner_in(cache, format="labeled-list", include_scores=True).mine(rows):
        np.testing.assert_allclose(row["scores"], cosines([row["query"]], row["positive"])[0], atol=1e-6)
    positives = dict(zip(rows["query"], rows["positive"], strict=True))
    for row in miner_in(cache, format="labeled-list").mine(rows):
        assert row["labels"] == [int(text in positives[row["query"]]) for text in row["positive"]]
    for row in miner_in(cache, format="labeled-pair", include_scores=True).mine(rows):
        assert row["score"] == pytest.approx(cosines([row["query"]], [row["positive"]])[0, 0], abs=1e-6)
    joined = miner_in(cache, format="ids")
    for row in joined.mine(rows):
        texts = [joined.corpus[place]["document"] for place in row["document_ids"]]
        query = joined.queries[row["query_id"]]["query"]
        assert [text in positives[query] for text in texts] == [True] + [False] * (len(texts) - 1)
        np.testing.assert_allclose(row["scores"], cosines([query], texts)[0], atol=1e-6)


def test_splits_of_a_dict_are_chosen_and_each_can_be_mapped(cache: Path) -> None:
    splits = DatasetDict({"train": ROWS.select(range(20)), "test": ROWS.select(range(20, 30))})
    miner = miner_in(cache, on_exhausted="keep")
    assert miner.mine(splits)["id"] == list(range(20))  # "train" goes without saying
    assert miner.mine(splits, split="test")["id"] == list(range(20, 30))
    with pytest.raises(InputError, match=r"split: 'dev' is not among \['train', 'test'\] in the DatasetDict"):
        miner.fit(splits, split="dev")
    both = splits.map(miner, batched=True)
    assert {name: split["id"] for name, split in both.items()} == {
        "train": list(range(20)),
        "test": list(range(20, 30)),
    }


def test_features_let_map_survive_a_batch_of_nulls(cache: Path) -> None:
    rows, corpus = rows_with_a_short_one()
    rows = rows.select([1, 0])
    miner = miner_in(cache, corpus=corpus, method="perc_pos:1.0", on_exhausted="keep").fit(rows)
    typed = mapped(rows, miner, batch_size=1, features=miner.features(rows))
    assert listed(typed) == listed(miner.mine(rows))
    assert typed[0]["negative_2"] is None
    assert isinstance(typed[1]["negative_2"], str)


def test_mining_no_rows_gives_no_rows(cache: Path) -> None:
    miner = miner_in(cache).fit(ROWS)
    nothing = miner.mine(ROWS.select([]))
    assert (len(nothing), nothing.features) == (0, miner.features(ROWS))


def test_ids_are_joined_by_sentence_transformers(cache: Path) -> None:
    joined = miner_in(cache, format="ids", include_scores=True, on_exhausted="keep")
    mined = joined.mine(ROWS)
    plain = miner_in(cache, format="labeled-list", include_scores=True, on_exhausted="keep").mine(ROWS)
    lookups = {"query_id": joined.queries, "document_ids": joined.corpus}
    resolved = mined.with_transform(resolve_ids(lookups, output_format="lists"))[:]
    assert resolved == {"query": plain["query"], "documents": plain["positive"], "scores": plain["scores"]}


# ---- caches ------------------------------------------------------------------------------------------------------


def test_another_method_encodes_and_searches_nothing_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = CountingTeacher(), CountingTeacher()
    miner_in(cache, teacher=first).fit(ROWS)
    passages = len({*CORPUS, *ROWS["positive"]})
    assert sorted(first.encoded) == [("passage", passages), ("query", 24)]

    def search_again(*_: Any, **__: Any) -> None:
        raise AssertionError("the pool is searched again")

    monkeypatch.setattr("hf_negmine.pool.deepening.search_queries", search_again)
    again = miner_in(cache, teacher=second, method="margin_pos:0.2", sampler="sampled:5", num_negatives=1).fit(ROWS)
    assert second.encoded == []
    assert again.summary.settings["method"] == "margin_pos:0.2"


def test_other_similarity_of_the_same_weights_is_another_pool(cache: Path) -> None:
    class Dots(WordTeacher):
        similarity: Similarity = "dot"

    cosine = miner_in(cache, include_scores=True, on_exhausted="keep").mine(ROWS)
    dots = miner_in(cache, teacher=Dots(), include_scores=True, on_exhausted="keep").mine(ROWS)
    vectors = [WordTeacher().encode([text], "query")[0] for text in (ROWS[0]["query"], ROWS[0]["positive"])]
    assert dots[0]["scores"][0] == pytest.approx(float(vectors[0] @ vectors[1]), rel=1e-5)
    assert cosine[0]["scores"][0] != dots[0]["scores"][0]


def test_the_pool_is_selected_from_again(cache: Path) -> None:
    miner = miner_in(cache, method="naive").fit(ROWS)
    other = miner_in(cache, method="perc_pos:0.9", on_exhausted="keep").mine(ROWS)
    selection = miner.pool.select("perc_pos:0.9", n=2)
    queries, passages = miner.queries["query"], miner.corpus["document"]
    texts = {
        query: [passages[place] for place in selection.passages[start:stop].tolist()]
        for query, start, stop in zip(queries, selection.offsets, selection.offsets[1:], strict=False)
    }
    for row in other:
        assert [row[name] for name in NEGATIVES] == [*texts[row["query"]], None, None][:2]


# ---- pickles and hashes ------------------------------------------------------------------------------------------


def test_a_fitted_miner_pickles_to_a_path_and_settings(cache: Path) -> None:
    miner = miner_in(cache).fit(ROWS)
    expected = listed(miner.mine(ROWS))
    miner.pool.select("naive")
    frozen = pickle.dumps(miner)
    assert len(frozen) < 10_000
    assert b"numpy" not in frozen
    assert b"remark 1" not in frozen
    thawed = pickle.loads(frozen)
    assert listed(mapped(ROWS, thawed)) == expected
    assert thawed.summary.settings == miner.summary.settings
    assert np.array_equal(thawed.pool.select("naive").passages, miner.pool.select("naive").passages)


def test_a_fixed_teachers_vectors_are_not_pickled(cache: Path) -> None:
    from hf_negmine import FixedTeacher

    queries, passages = list(dict.fromkeys(ROWS["query"])), list(dict.fromkeys([*CORPUS, *ROWS["positive"]]))
    encode = WordTeacher().encode
    teacher = FixedTeacher(queries, encode(queries, "query"), passages, encode(passages, "passage"))
    miner = miner_in(cache, teacher=teacher).fit(ROWS)
    assert len(pickle.dumps(miner)) < 10_000
    assert listed(mapped(ROWS, pickle.loads(pickle.dumps(miner)))) == listed(miner_in(cache).mine(ROWS))


def test_the_hash_is_quick_and_survives_use(cache: Path) -> None:
    miner = miner_in(cache).fit(ROWS)
    before = Hasher.hash(miner)
    started = time.perf_counter()
    for _ in range(10):
        Hasher.hash(miner)
    assert (time.perf_counter() - started) / 10 < 0.02
    mapped(ROWS, miner)
    miner.mine([{"query": "one more about sea", "positive": "answer 4 on sea"}])
    miner.pool.select("naive")
    assert Hasher.hash(miner) == before
    assert Hasher.hash(pickle.loads(pickle.dumps(miner))) == before


HASHING = """
import sys
from datasets.fingerprint import Hasher
from hf_negmine import NegativeMiner
rows = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(8)]
miner = NegativeMiner("random:3", method="naive", num_negatives=2, cache_dir=sys.argv[1], progress=False)
print(Hasher.hash(miner.fit(rows)))
"""


def test_the_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    def hash_in_a_process(hash_seed: str) -> str:
        environment = {"PYTHONHASHSEED": hash_seed, "HF_HUB_OFFLINE": "1", "PATH": "", "HF_HOME": str(tmp_path / "hf")}
        command = [sys.executable, "-c", HASHING, str(tmp_path / "cache")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    rows = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(8)]
    here = NegativeMiner("random:3", method="naive", num_negatives=2, cache_dir=tmp_path / "cache", progress=False)
    assert hash_in_a_process("1") == Hasher.hash(here.fit(rows))


def test_the_hash_changes_with_whatever_changes_the_result(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_of(rows: Dataset = ROWS, **settings: Any) -> str:
        return str(Hasher.hash(miner_in(cache, **settings).fit(rows)))

    hashes = {
        "plain": hash_of(),
        "method": hash_of(method="perc_pos:0.9"),
        "sampler": hash_of(sampler="sampled:5"),
        "seed": hash_of(seed=1),
        "number": hash_of(num_negatives=3),
        "corpus": hash_of(corpus=[*CORPUS, "one more on tea"]),
        "rows": hash_of(ROWS.select(range(20))),
        "weights": hash_of(teacher=WordTeacher("2")),
        "format": hash_of(format="triplet"),
        "scores": hash_of(include_scores=True),
        "ceiling": hash_of(positive_score="each"),
        "short rows": hash_of(on_exhausted="keep"),
    }
    versions = importlib.metadata.version
    monkeypatch.setattr("hf_negmine.miner.version", lambda name: "9.9" if name == "hf_negmine" else versions(name))
    hashes["version"] = hash_of()
    assert len(set(hashes.values())) == len(hashes)
    monkeypatch.undo()
    assert hash_of() == hashes["plain"]


# ---- summary -----------------------------------------------------------------------------------------------------


def test_the_summary_counts_what_the_output_holds(cache: Path) -> None:
    miner = miner_in(cache, method="perc_pos:0.9+min:0.3", include_scores=True)
    mined = miner.mine(ROWS)
    kept = miner_in(cache, method="perc_pos:0.9+min:0.3", include_scores=True, on_exhausted="keep").mine(ROWS)
    summary = miner.summary
    assert (summary.rows, summary.queries, summary.passages) == (30, 24, len({*CORPUS, *ROWS["positive"]}))
    assert summary.positives_per_query == pytest.approx(30 / 24)
    assert summary.rows_written == len(mined)

    by_query = {row["query"]: row["scores"][1:] for row in kept}
    pair_scores = [row["scores"][0] for row in kept]
    lowest = {query: min(row["scores"][0] for row in kept if row["query"] == query) for query in by_query}
    full = [query for query, scores in by_query.items() if len(scores) == 2]
    assert 0 < len(full) < 24
    assert (summary.complete, summary.exhausted) == (len(full), 24 - len(full))
    assert set(mined["query"]) == set(full)
    negative_scores = [score for scores in by_query.values() for score in scores]
    differences = [lowest[query] - score for query, scores in by_query.items() for score in scores]
    for statistics, values in (
        (summary.positive_scores, pair_scores),
        (summary.negative_scores, negative_scores),
        (summary.differences, differences),
    ):
        assert statistics.count == len(values)
        found = (statistics.mean, statistics.std, statistics.min, statistics.median, statistics.max)
        expected = (np.mean(values), np.std(values), np.min(values), np.median(values), np.max(values))
        assert found == pytest.approx(expected, abs=2e-6)
    assert summary.removed["being labeled positives"] == 30
    assert summary.removed["having the query's own text"] == 1


def test_a_fit_counts_its_own_rows_though_an_earlier_one_had_the_same_texts(cache: Path) -> None:
    repeated = datasets.concatenate_datasets([ROWS, ROWS.select(range(5))])
    for rows in (repeated, ROWS):
        assert miner_in(cache).fit(rows).fitted.summary.rows == len(rows)


def test_the_summary_prints_its_numbers(cache: Path) -> None:
    miner = miner_in(cache)
    mined = miner.mine(ROWS)
    text = str(miner.summary)
    assert "2 negatives per query by perc_pos:0.95 with top, teacher words" in text
    assert "30 rows: 24 queries with 1.25 positives each" in text
    assert f"{len(mined)} rows written (n-tuple)" in text


def test_the_repr_says_whether_it_is_fitted(cache: Path) -> None:
    miner = miner_in(cache)
    assert repr(miner) == "NegativeMiner('words', perc_pos:0.95, top, n=2, not fitted)"
    assert repr(miner.fit(ROWS)).endswith("n=2, fitted on 30 rows)")


class TestCopiesAndRefits:
    """What a copy of a miner knows, and what a fit that fails leaves behind."""

    CORPUS: ClassVar = [f"passage {i} about {'abcdefghijkl'[i]}" for i in range(12)]
    ROWS: ClassVar = [
        {"query": f"question {i} about {'abcdef'[i]}", "positive": f"passage {i} about {'abcdef'[i]}"} for i in range(6)
    ]

    def test_include_positives_holds_for_rows_that_come_later(self, tmp_path: Path) -> None:
        rows = datasets.Dataset.from_list(self.ROWS)
        found = []
        for fitted_on in (rows, None):
            miner = NegativeMiner(
                "bm25", method="naive", num_negatives=11, include_positives=True, cache_dir=tmp_path, progress=False,
                query_column="query", positive_column="positive",
            ).fit(fitted_on, corpus=self.CORPUS)  # fmt: skip
            found.append(rows.map(miner, batched=True).to_list())
        assert found[0] == found[1]
        assert all(row["positive"] in [row[f"negative_{i}"] for i in range(1, 12)] for row in found[0])

    def test_a_failed_fit_leaves_the_miner_as_it_was(self, tmp_path: Path) -> None:
        miner = NegativeMiner(
            "bm25", num_negatives=2, method="naive", on_exhausted="error", cache_dir=tmp_path, progress=False
        ).fit(self.ROWS, corpus=self.CORPUS)
        unseen = {"query": ["passage about h"], "positive": [self.CORPUS[2]]}
        before = miner(unseen)
        others = [f"text {i} about {'uvwxyz'[i]} and h" for i in range(3)]
        with pytest.raises(NegmineError):  # three passages cannot give two negatives and two positives
            miner.fit([{"query": "h", "positive": others[i]} for i in range(2)], corpus=others)
        assert miner(unseen) == before
        assert len(miner.corpus) == miner.pool.n_passages == len(self.CORPUS)

    def test_a_copy_keeps_its_corpus_or_says_that_it_does_not(self, tmp_path: Path) -> None:
        miner = NegativeMiner("bm25", method="naive", corpus=self.CORPUS, cache_dir=tmp_path, progress=False)
        assert len(copy.copy(miner).fit(self.ROWS).corpus) == len(self.CORPUS)
        again = pickle.loads(pickle.dumps(miner.fit(self.ROWS)))
        for without in (again, again.with_(seed=3)):
            with pytest.raises(InputError, match=r"corpus is not part of its copies"):
                without.fit(self.ROWS)
        assert len(miner.with_(seed=3).fit(self.ROWS).corpus) == len(self.CORPUS)
        assert len(again.with_(corpus=self.CORPUS).fit(self.ROWS).corpus) == len(self.CORPUS)
        assert len(again.fit(self.ROWS, corpus=self.CORPUS).corpus) == len(self.CORPUS)

    def test_wide_draws_and_rows_come_in_small_steps(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def mined(folder: str) -> list[dict[str, Any]]:
            miner = NegativeMiner(
                "bm25", method="band:1-10", sampler="sampled:8", num_negatives=5, pool_depth=3, progress=False,
                cache_dir=tmp_path / folder,
            )  # fmt: skip
            return miner.mine(self.ROWS, corpus=self.CORPUS).to_list()

        whole = mined("whole")
        monkeypatch.setattr("hf_negmine.select.choosing.CANDIDATES_A_STEP", 8)
        monkeypatch.setattr("hf_negmine.pool.deepening.PLACES_A_STEP", 10)
        monkeypatch.setattr("hf_negmine.transform.PASSAGES_A_BATCH", 6)
        assert mined("steps") == whole
