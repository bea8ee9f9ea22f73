"""Pools from scored lists: the forms that users have, what a list may hold, and what is refused."""

from __future__ import annotations

import gzip
import pickle
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_negmine.base.errors import ColumnError, InputError, NegmineError, ShallowPoolError
from hf_negmine.data.texts import open_text_set
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.checks import check_pool
from hf_negmine.pool.list_files import TABLES
from hf_negmine.pool.list_sources import ParquetLists
from hf_negmine.pool.list_writing import write_qrels
from hf_negmine.pool.stored import read_pool
from hf_negmine.report.summary import MiningSummary
from hf_negmine.select.ensembles import CrossSample
from hf_negmine.select.filters import Consistency, NearDuplicates, Veto
from hf_negmine.teachers import FixedTeacher

QUERIES = {"q1": "what makes bread rise", "q2": "how do bees make honey", "q3": "why is the sky blue"}
DOCUMENTS = {
    "a": "Yeast makes bread rise.",
    "b": "Bees make honey.",
    "c": "The sky scatters light.",
    "d": "Flour and water.",
    "e": "A jar of honey.",
    "f": "A red evening sky.",
}
SCORES = {
    "q1": {"a": 0.9, "d": 0.7, "c": 0.6, "e": 0.5},
    "q2": {"e": 0.85, "b": 0.8, "d": 0.4},
    "q3": {"c": 0.7, "f": 0.69, "b": 0.3, "a": 0.2, "d": 0.1, "e": 0.0},
}
POSITIVES = {"q1": ["a"], "q2": ["b"], "q3": ["c"]}


@pytest.fixture
def pool_of(tmp_path: Path) -> Any:
    """Makes a pool of the lists above, or of others."""

    def make(**changes: Any) -> CandidatePool:
        given = {"queries": QUERIES, "documents": DOCUMENTS, "scores": SCORES, "positives": POSITIVES, **changes}
        return CandidatePool.from_lists(**{"cache_dir": tmp_path, "progress": False, "device": "cpu", **given})

    return make


def table(**changes: Any) -> dict[str, Any]:
    columns = {
        "query_id": list(SCORES),
        "document_ids": [list(one) for one in SCORES.values()],
        "scores": [list(one.values()) for one in SCORES.values()],
        "positive_ids": list(POSITIVES.values()),
    }
    return {**columns, **changes}


def chosen(pool: CandidatePool, method: str = "perc_pos:0.95", sampler: str = "top", n: int = 2) -> Any:
    selection = pool.select(method, sampler, n)
    return selection.texts(), selection.status.tolist()


def test_statuses_say_what_is_known(pool_of: Any) -> None:
    pool = pool_of()
    assert chosen(pool, "naive", n=2) == (
        [
            ["Flour and water.", "The sky scatters light."],
            ["A jar of honey.", "Flour and water."],
            ["A red evening sky.", "Bees make honey."],
        ],
        ["complete", "complete", "complete"],
    )
    texts, status = chosen(pool, "perc_pos:0.95", n=3)
    assert [len(one) for one in texts] == [3, 1, 3]
    assert status == ["complete", "list ended", "complete"]
    assert chosen(pool, "naive", n=5)[1] == ["list ended", "list ended", "complete"]  # the third holds the corpus
    assert chosen(pool, "perc_pos:0.1", n=3)[1] == ["list ended", "list ended", "exhausted"]
    assert chosen(pool, "perc_pos:0.95+min:0.45", n=3)[1] == [
        "exhausted" if False else "complete",
        "exhausted",
        "exhausted",
    ]
    # The sampler looks at more candidates than the list holds, so other negatives might have been drawn.
    assert chosen(pool, "naive", "sampled:4", n=2)[1] == ["list ended", "list ended", "complete"]


def test_a_summary_counts_the_statuses(pool_of: Any) -> None:
    pool = pool_of()
    selection = pool.select("perc_pos:0.1", None, 3)
    settings = {"method": "x", "sampler": "top", "teacher": "lists", "num_negatives": 3, "format": "n-tuple"}
    summary = MiningSummary.of(pool.texts, selection, 3, settings, {})
    assert (summary.complete, summary.exhausted, summary.list_ended) == (0, 1, 2)
    assert "complete 0, exhausted 1, list ended 2" in str(summary)
    assert MiningSummary.from_dict(summary.as_dict()) == summary


def test_rows_come_with_texts(pool_of: Any) -> None:
    rows = pool_of().select("perc_pos:0.95", None, 2).to_dataset(include_scores=True)
    assert rows.column_names == ["query", "positive", "negative_1", "negative_2", "scores"]
    assert len(rows) == 2  # the list of one query ended
    assert rows[0]["negative_1"] == "Flour and water."
    np.testing.assert_allclose(rows[0]["scores"], [0.9, 0.7, 0.6], rtol=1e-6)
    assert len(pool_of().select("perc_pos:0.95", None, 2).to_dataset(on_exhausted="keep")) == 3


def test_a_stored_pool_still_knows_that_its_lists_end(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of()
    again = CandidatePool.load(pool.folder)
    assert again.select("perc_pos:0.1", None, 3).status.tolist() == ["list ended", "list ended", "exhausted"]
    assert pool.folder.parent == tmp_path / "pools"
    assert open_text_set(tmp_path / "texts" / pool.about["texts"]).fingerprint == pool.texts.fingerprint


def forms() -> dict[str, dict[str, Any]]:
    lists = table()
    numbers = {name: place for place, name in enumerate([*QUERIES, *DOCUMENTS])}
    by_number = {numbers[query]: {numbers[one]: score for one, score in row.items()} for query, row in SCORES.items()}
    columns = {"query_id": list(QUERIES), "query": list(QUERIES.values())}
    documents = {"document_id": list(DOCUMENTS), "document": list(DOCUMENTS.values())}
    rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return {
        "data sets": {
            "queries": datasets.Dataset.from_dict(columns),
            "documents": datasets.Dataset.from_dict(documents),
            "scores": datasets.Dataset.from_dict(lists),
            "positives": None,
        },
        "columns": {"queries": columns, "documents": documents, "scores": lists, "positives": None},
        "arrow": {
            "queries": pa.table(columns),
            "documents": pa.table(documents),
            "scores": pa.table(lists),
            "positives": pa.table({"query_id": list(POSITIVES), "document_id": [one for (one,) in POSITIVES.values()]}),
        },
        "frames": {"queries": pd.DataFrame(columns), "documents": pd.DataFrame(documents), "scores": rows},
        "numbers": {
            "queries": {numbers[name]: text for name, text in QUERIES.items()},
            "documents": {numbers[name]: text for name, text in DOCUMENTS.items()},
            "scores": by_number,
            "positives": {numbers[query]: [numbers[one] for one in row] for query, row in POSITIVES.items()},
        },
        "numbers and texts": {
            "queries": {numbers[name]: text for name, text in QUERIES.items()},
            "documents": {str(numbers[name]): text for name, text in DOCUMENTS.items()},
            "scores": {str(query): row for query, row in by_number.items()},
            "positives": {numbers[query]: [str(numbers[one]) for one in row] for query, row in POSITIVES.items()},
        },
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_gives_the_same_pool(form: str, pool_of: Any) -> None:
    assert pool_of(**forms()[form]).folder == pool_of().folder


def test_files_are_read_too(pool_of: Any, tmp_path: Path) -> None:
    given = forms()["data sets"]
    for name in ("queries", "documents", "scores"):
        given[name].to_parquet(tmp_path / f"{name}.parquet")
        given[name] = tmp_path / f"{name}.parquet"
    assert pool_of(**given).folder == pool_of().folder


def test_passages_are_known_by_their_texts(pool_of: Any) -> None:
    documents = {**DOCUMENTS, "a2": DOCUMENTS["a"], "d2": DOCUMENTS["d"], "own": QUERIES["q1"]}
    scores = {**SCORES, "q1": {"a2": 0.95, "own": 0.93, "d2": 0.72, **SCORES["q1"]}}
    pool = pool_of(documents=documents, scores=scores)
    negatives, _ = chosen(pool, "naive", n=3)
    assert negatives[0] == ["Flour and water.", "The sky scatters light.", "A jar of honey."]
    selection = pool.select("naive", None, 1)
    assert selection.scores[0] == np.float32(0.72)  # the better score of two for one text
    assert selection.pair_scores[0] == np.float32(0.95)


def test_queries_with_the_same_text_share_their_lists(pool_of: Any) -> None:
    queries = {**QUERIES, "q4": QUERIES["q1"]}
    scores = {**SCORES, "q4": {"e": 0.5, "f": 0.45, "b": 0.4}}
    pool = pool_of(queries=queries, scores=scores, positives={**POSITIVES, "q4": ["d"]})
    assert pool.n_queries == 3
    negatives, _ = chosen(pool, "naive", n=4)
    assert negatives[0] == ["The sky scatters light.", "A jar of honey.", "A red evening sky.", "Bees make honey."]
    assert pool.positives.offsets.tolist() == [0, 2, 3, 4]


def test_queries_without_a_list_or_with_an_empty_one_end_at_once(pool_of: Any) -> None:
    given = {"queries": QUERIES, "positives": {query: {row[0]: 0.9} for query, row in POSITIVES.items()}}
    pool = pool_of(**given, scores={"q1": {}, "q3": SCORES["q3"]})
    assert chosen(pool, "naive", n=1) == (
        [[], [], ["A red evening sky."]],
        ["list ended", "list ended", "complete"],
    )
    stored = read_pool(pool.folder, sealed=False)
    check_pool(stored, pool.texts, include_positives=False, whole_corpus=True)
    missing = table(document_ids=[None, ["b"], ["c"]], scores=[None, [0.5], [0.6]])
    assert chosen(pool_of(**given, scores=missing), "naive", n=1)[1] == ["list ended"] * 3


def test_queries_without_a_positive_are_left_out(pool_of: Any) -> None:
    pool = pool_of(positives={"q2": ["b"]})
    assert pool.n_queries == 1
    assert pool.n_passages == len(DOCUMENTS)


def test_a_score_that_was_given_serves_where_the_list_has_none(pool_of: Any) -> None:
    lists = {**SCORES, "q1": {"d": 0.7, "c": 0.6}}
    scores = table(
        document_ids=[list(one) for one in lists.values()],
        scores=[list(one.values()) for one in lists.values()],
        positive_scores=[[0.8], [0.1], [None]],
    )
    pool = pool_of(scores=scores, positives=None)
    np.testing.assert_array_equal(pool.positives.scores, np.float32([0.8, 0.8, 0.7]))  # the second stands in its list


class TestWithTheTeacher:
    @pytest.fixture
    def teacher(self) -> FixedTeacher:
        rng = np.random.default_rng(0)
        return FixedTeacher(
            list(QUERIES.values()), rng.normal(size=(3, 4)), list(DOCUMENTS.values()), rng.normal(size=(6, 4))
        )

    def lists(self, teacher: FixedTeacher, length: int) -> dict[str, dict[str, float]]:
        one, two = teacher.encode(list(QUERIES.values()), "query"), teacher.encode(list(DOCUMENTS.values()), "passage")
        unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (one, two)]
        scores = unit[0] @ unit[1].T
        return {
            query: {list(DOCUMENTS)[place]: float(row[place]) for place in np.argsort(-row)[:length]}
            for query, row in zip(QUERIES, scores, strict=True)
        }

    def test_it_scores_what_is_missing_and_goes_on(self, teacher: FixedTeacher, pool_of: Any) -> None:
        pool = pool_of(scores=self.lists(teacher, 1), teacher=teacher)
        whole = pool_of(scores=self.lists(teacher, 6))
        np.testing.assert_allclose(pool.positives.scores, whole.positives.scores, atol=1e-6)
        for method in ("naive", "perc_pos:0.95", "shifted:2"):
            assert pool.select(method, None, 2).texts() == whole.select(method, None, 2).texts()
        assert pool.select("naive", None, 5).status.tolist() == ["complete"] * 3

    def test_what_a_list_lacks_above_its_end_stays_out(self, pool_of: Any) -> None:
        vectors = np.array([[1, 0], [0, 1], [0.5, 1], [0.75, 1], [0.25, 1], [0.75, 1]])
        teacher = FixedTeacher(
            list(QUERIES.values()), vectors[[0, 0, 0]], list(DOCUMENTS.values()), vectors, similarity="dot"
        )
        scores = {"q1": {"a": 1.0, "f": 0.75}}  # d scores as f does, and comes before it
        pool = pool_of(scores=scores, positives={"q1": ["a"]}, teacher=teacher)
        expected = ["A red evening sky.", "The sky scatters light.", "A jar of honey.", "Bees make honey."]
        assert pool.select("naive", None, 4).texts() == [expected]
        assert pool.select("shifted:1", None, 3).texts() == [expected[1:]]
        searcher = pool._open_searcher()
        found = searcher.block(np.zeros(1, np.int64)).best(np.zeros(1, np.int64), np.float32([np.inf]), 9)
        assert found.passages.tolist() == [5, 2, 4, 1]
        assert found.exhausted.all()

    def test_another_teacher_is_refused(self, teacher: FixedTeacher, pool_of: Any) -> None:
        with pytest.raises(
            InputError, match=r"fixed scores the candidates of the lists differently, for example .* has"
        ):
            pool_of(teacher=teacher)


def test_filters_work(pool_of: Any) -> None:
    pool = pool_of()
    assert pool.select("naive", None, 2, filters=[Veto("bm25")]).list_ended is not None
    kept = pool.select("naive", None, 1, filters=[NearDuplicates(0.9, by="minhash")])
    assert kept.complete.all()
    with pytest.raises(InputError, match=r"lists has no vector per passage .* give a dense teacher"):
        pool.select("naive", None, 1, filters=[NearDuplicates(0.9)])
    with pytest.raises(InputError, match=r"lists only scored its own lists, and .* or a filter asks it for scores"):
        pool.select("naive", None, 1, filters=[Veto(pool.list_teacher)])


def test_a_veto_that_needs_more_than_the_list_says_so(pool_of: Any) -> None:
    class Nothing:
        depth = None

        def keep(self, listed: Any) -> Any:
            return np.zeros(len(listed.passages), dtype=bool)

        def __str__(self) -> str:
            return "nothing"

    selection = pool_of().select("naive", None, 1, filters=[Nothing()])
    assert selection.status.tolist() == ["list ended", "list ended", "exhausted"]


def test_consistency_is_known_as_far_as_the_list_reaches(pool_of: Any) -> None:
    pool = pool_of()
    pool.consistency = Consistency(top_k=1)
    assert pool.consistent().tolist() == [True, False, True]
    other = pool_of(
        scores=table(
            positive_scores=[[0.9], [0.1], [0.7]], document_ids=[["d"], ["e"], ["f"]], scores=[[0.7], [0.85], [0.69]]
        ),
        positives=None,
    )
    other.consistency = Consistency(top_k=5)
    with pytest.raises(
        ShallowPoolError, match="1 of 3 positives score under the end of a list that holds fewer than 5"
    ):
        other.consistent()


def test_sweep(pool_of: Any) -> None:
    pool = pool_of()
    swept = pool.sweep(["naive", "perc_pos:0.1"], ["top", "sampled:3"], n=3)
    assert [selection.status.tolist() for selection in swept] == [
        pool.select(method, sampler, 3).status.tolist()
        for method in ("naive", "perc_pos:0.1")
        for sampler in ("top", "sampled:3")
    ]


ONE = {"positives": {"q1": ["a"]}, "scores": {"q1": {"a": 0.5}}}
WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"scores": {**SCORES, "q1": {"a": float("nan")}}},
        "1 of 10 scores in a batch are not finite .* first is nan for the document 'a' in the list of query 'q1'",
    ),
    ({"scores": {**SCORES, "q2": {"b": float("-inf")}}}, "not finite numbers, the first is -inf for the document 'b'"),
    ({"scores": {**SCORES, "q2": {"b": 1e300}}}, r"are not finite numbers, the first is 1e\+300"),
    (
        {"scores": {**SCORES, "q1": {"x": 0.5}}},
        "document ids: 1 of 10 ids in a batch are not among the 6 ids of documents, the first is 'x'",
    ),
    (
        {"scores": {**SCORES, "q9": {"a": 0.5}}},
        "query ids: 1 of 4 ids in a batch are not among the 3 ids of queries, the first is 'q9'",
    ),
    (
        {"positives": {**POSITIVES, "q1": ["z"]}},
        "positives: 1 of 3 ids in a batch are not among the 6 ids of documents, the first is 'z'",
    ),
    ({"positives": {"q7": ["a"]}}, "positives: 1 of 1 ids in a batch are not among the 3 ids of queries"),
    (
        {"scores": {**SCORES, "q1": {"d": 0.7}, "q2": {"d": 0.3}}},
        "2 of 3 have no score, the first is that of query 'what makes bread rise'; add them to the lists, give their "
        "scores .* or give the teacher=",
    ),
    (
        {"scores": table(scores=[[0.9], [0.8], [0.7]])},
        "3 row.s. of a batch have lists of different lengths, the first is that of query 'q1' with 4 ids and 1 scores",
    ),
    (
        {"scores": table(document_ids=[["a"], ["b"], ["c"]], scores=[["x"], ["y"], ["z"]])},
        "column 'scores' holds string, expected numbers",
    ),
    ({"scores": table(document_ids=["a", "b", "c"])}, "'document_ids' holds string, expected a list in every row"),
    ({"scores": {"query_id": ["q1"], "document_ids": [["a"]]}}, "scores: column 'scores' is not among"),
    (
        {"scores": {"query_id": ["q1"], "document_ids": [["a"]], "scores": [[0.1]]}, "positives": None},
        "positives: the lists have the columns .* and no positive_ids; give positives=",
    ),
    ({"positives": {"q1": {"a": 1}}}, "the teacher's scores as float, got 1, which looks like a relevance judgement"),
    ({"positives": {"q1": []}}, "positives: no query has one"),
    ({"positives": {"query_id": ["q1"], "label": [1]}}, "positives: "),
    ({**ONE, "queries": {"query_id": ["q1"] * 2, "query": ["x", "y"]}}, "the id 'q1' has two texts, in rows 0 and 1"),
    ({**ONE, "documents": {"id": ["a", "a"], "text": ["one", "two"]}}, "documents: the id 'a' has two texts"),
    (
        {**ONE, "documents": {"id": ["a"], "text": [" "]}},
        r"column 'text' has 1 empty text.* in row 0; .* with documents.filter\(lambda row: \(row\['text'\]",
    ),
    (
        {**ONE, "documents": {"id": ["a", "b"], "text": ["one", None]}},
        r"column 'text' has 1 empty text.* in row 1; .* with documents.filter\(lambda row: \(row\['text'\]",
    ),
    (
        {**ONE, "queries": {"q1": ""}},
        "column 'queries' has 1 empty text.* in row 0; .* with {name: text for name, text in queries.items",
    ),
    (
        {**ONE, "documents": {"a": " "}},
        "column 'documents' has 1 empty text.* with {name: text for name, text in documents.items",
    ),
    (
        {"documents": {"id": ["a"], "name": ["one"], "text": ["two"]}},
        "documents: expected a column of ids, .* got .'id', 'name', 'text'.",
    ),
    ({"documents": {"id": [None, "b"], "text": ["one", "two"]}}, "documents: 1 of 2 ids in a batch are missing"),
    ({"documents": {"id": [0.5], "text": ["one"]}}, "documents: the ids are double, expected texts or whole numbers"),
    ({"queries": {1: "one", "b": "two"}}, "queries, ids: Could not convert 'b' .*; expected values of one type"),
    ({"documents": {"a": "\ud800"}}, "documents: 'utf-8' codec can't encode .* and text that is valid UTF-8"),
    ({"scores": {1: {"a": 0.5}, "q2": {"b": 0.5}}}, "scores, query ids: Could not convert 'q2'"),
    ({"positives": {"q1": ["a"], 2: ["b"]}}, "positives, query ids: Expected bytes, got a 'int' object"),
    ({"positives": {"q1": ["a"], "q2": None}}, "positives: 1 of 2 ids in a batch are missing"),
    (
        {"positives": {"query_id": ["q1", "q2"], "document_id": ["a", "d"], "relevance": [2, 0]}},
        r"column 'relevance' is 0 for 1 of 2 rows, which marks them as not relevant, .* keep the others, for example",
    ),
    (
        {"positives": [{"query_id": "q1", "positive_ids": ["a", "d"], "labels": [1, 0]}]},
        "column 'labels' is 0 for 1 of 2 passages, which marks them as not relevant",
    ),
    ({"queries": "nowhere.parquet"}, "queries: nowhere.parquet does not exist"),
    ({"scores": datasets.Dataset.from_dict(table()).to_iterable_dataset()}, "scores: got a stream"),
    ({"scores": 5}, "scores: "),
]


class TestAMinerOfAPool:
    def test_mines_like_any_other(self, pool_of: Any) -> None:
        pool = pool_of()
        miner = NegativeMiner.from_pool(pool, method="perc_pos:0.95", num_negatives=2, include_scores=True)
        rows = miner.labeled_rows
        mined = miner.mine(rows)
        assert mined.to_list() == pool.select("perc_pos:0.95", None, 2).to_dataset(include_scores=True).to_list()
        assert rows.map(miner, batched=True).to_list() == mined.to_list()
        assert pickle.loads(pickle.dumps(miner)).mine(rows).to_list() == mined.to_list()
        assert miner.summary.list_ended == 1
        assert miner.pool.select("naive", None, 2).texts() == pool.select("naive", None, 2).texts()
        assert len(miner.with_(method="naive").fit().mine(rows)) == 3

    def test_consistency_and_ensembles(self, pool_of: Any) -> None:
        pool = pool_of()
        dropping = NegativeMiner.from_pool(pool, filters=[Consistency(top_k=1)], method="naive", num_negatives=1)
        assert len(dropping.mine(dropping.labeled_rows)) == 2
        other = pool_of(scores={query: dict.fromkeys(row, 0.5) for query, row in SCORES.items()})
        both = CrossSample([pool.list_teacher, other.list_teacher])
        miner = NegativeMiner(both, method="naive", num_negatives=3, cache_dir=pool.folder.parent.parent).fit()
        assert miner.summary.list_ended == 1

    def test_knows_only_the_rows_of_its_lists(self, pool_of: Any) -> None:
        miner = NegativeMiner.from_pool(pool_of(), method="naive", num_negatives=1)
        with pytest.raises(InputError, match="lists only scored its own lists, and some rows have a query or a pos"):
            miner.mine(datasets.Dataset.from_dict({"query": ["another"], "positive": ["one"]}))
        with pytest.raises(InputError, match="include_positives: the candidates are those of the lists of lists"):
            NegativeMiner.from_pool(pool_of(), include_positives=True)

    def test_is_not_made_of_other_pools(self, pool_of: Any) -> None:
        with pytest.raises(InputError, match=r"expected a pool from CandidatePool\.from_lists, got CandidatePool"):
            NegativeMiner.from_pool(CandidatePool.load(pool_of().folder))


def test_the_lists_themselves_may_say_which_are_positives(pool_of: Any) -> None:
    lists = table(positive_ids=[[one, "d"] for (one,) in POSITIVES.values()])
    lists["scores"] = [[0.0] * len(row) for row in lists["scores"]]  # no labels, though as many as positives
    lists["document_ids"][1], lists["scores"][1] = ["b", "d"], [0.0, 0.0]
    assert pool_of(scores=lists, positives=lists).folder == pool_of(scores=lists, positives=None).folder


def test_shards_of_lists_have_the_same_columns(pool_of: Any, tmp_path: Path) -> None:
    paths = tmp_path / "one.parquet", tmp_path / "two.parquet"
    for place, path in enumerate(paths):
        rows = pa.table(table(query_id=[["q1", "q2", "q3"], ["q3", "q1", "q2"]][place]))
        pq.write_table(rows.drop_columns(["scores"] if place else []), path)
    with pytest.raises(InputError, match=r"two\.parquet lacks the columns \['scores'\], which one\.parquet has"):
        pool_of(scores=ParquetLists(paths), positives=None)


def test_a_title_stands_before_its_text() -> None:
    titled = {"_id": ["a", "b"], "title": ["One", ""], "text": ["two", "three"]}
    pool = CandidatePool.from_lists(
        {"id": ["q"], "query": ["ask"]},
        titled,
        {"query_id": ["q"], "document_ids": [["a", "b"]], "scores": [[1.0, 0.5]], "positive_ids": [["a"]]},
    )
    (row,) = pool.select("naive", n=1).to_dataset()
    assert (row["positive"], row["negative_1"]) == ("One two", "three")


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_cannot_be_used_is_one_clear_error(changes: dict[str, Any], message: str, pool_of: Any) -> None:
    with pytest.raises((InputError, ColumnError), match=message) as caught:
        pool_of(**changes)
    assert len(str(caught.value).splitlines()) == 1
    assert not isinstance(caught.value, pa.ArrowException)


def test_nothing_is_left_behind_by_an_error(pool_of: Any, tmp_path: Path) -> None:
    with pytest.raises(NegmineError):
        pool_of(scores={**SCORES, "q1": {"a": float("nan")}})
    assert [path.name for path in (tmp_path / "pools").iterdir() if not re.match(r"\.", path.name)] == []
    assert list((tmp_path / "pools").iterdir()) == []


def test_positives_that_are_candidates_are_written_once(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"query": ["bread", "honey"], "positive": ["Yeast and bread.", "Bees and honey."]}
    )
    miner = NegativeMiner("random", include_positives=True, num_negatives=1, cache_dir=tmp_path, progress=False)
    miner.fit(rows).pool.to_lists(tmp_path / "lists")
    lists = pq.read_table(tmp_path / "lists" / "scores.parquet").to_pylist()
    assert [sorted(row["document_ids"]) for row in lists] == [[0, 1], [0, 1]]


def test_runs_and_judgements_are_read_by_their_names(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of()
    pool.to_run(tmp_path / "some.run", qrels=tmp_path / "qrels.txt", tag="some")
    again = pool_of(scores=str(tmp_path / "some.run"), positives=tmp_path / "qrels.txt")
    assert again.folder == pool.folder
    for name in ("some.run", "qrels.txt"):  # as some editors save them
        (tmp_path / name).write_text((tmp_path / name).read_text(), encoding="utf-8-sig", newline="\r\n")
    again = pool_of(scores=str(tmp_path / "some.run"), positives=tmp_path / "qrels.txt")
    assert again.folder == pool.folder
    pool.to_run(tmp_path / "some.run", qrels=tmp_path / "qrels.txt", tag="some")
    pool.to_run(tmp_path / "some.run.gz", qrels=tmp_path / "qrels.txt.gz")
    assert gzip.decompress((tmp_path / "qrels.txt.gz").read_bytes()) == (tmp_path / "qrels.txt").read_bytes()
    again = pool_of(scores=str(tmp_path / "some.run.gz"), positives=tmp_path / "qrels.txt.gz")
    assert again.folder == pool.folder
    with pytest.raises(InputError, match=r"qrels: .*same\.run is the file of the run, too"):
        pool.to_run(tmp_path / "same.run", qrels=f"{tmp_path}/same.run")
    with pytest.raises(InputError, match="tag: expected a word without spaces, got 'two words'"):
        pool.to_run(tmp_path / "other.run", tag="two words")
    with pytest.raises(InputError, match="to_lists: this pool came without its texts"):
        CandidatePool.load(pool.folder).to_lists(tmp_path / "lists")


# ---- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [False, True])
def test_ids_that_were_given_are_written(pool_of: Any, tmp_path: Path, numbers: bool) -> None:
    name_of = {name: 100 - place if numbers else name for place, name in enumerate([*QUERIES, *DOCUMENTS])}
    queries = {name_of[name]: text for name, text in QUERIES.items()}
    documents = {name_of[name]: text for name, text in DOCUMENTS.items()}
    scores = {name_of[query]: {name_of[one]: score for one, score in row.items()} for query, row in SCORES.items()}
    positives = {name_of[query]: [name_of[one] for one in row] for query, row in POSITIVES.items()}
    pool_of(queries=queries, documents=documents, scores=scores, positives=positives).to_lists(tmp_path / "lists")
    tables = {name: pq.read_table(tmp_path / "lists" / f"{name}.parquet").to_pylist() for name in TABLES}
    assert {row["query_id"]: row["query"] for row in tables["queries"]} == queries
    assert {row["document_id"]: row["document"] for row in tables["documents"]} == documents
    for row in tables["scores"]:
        found = dict(zip(row["document_ids"], row["scores"], strict=True))
        assert found == pytest.approx(scores[row["query_id"]])
        assert row["positive_ids"] == positives[row["query_id"]]


def test_a_searched_pool_is_written_under_the_ids_of_its_texts(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"query": [QUERIES[name] for name in POSITIVES], "positive": [DOCUMENTS[one] for (one,) in POSITIVES.values()]}
    )
    corpus = list(DOCUMENTS.values())
    pool = NegativeMiner("random", corpus=corpus, num_negatives=1, cache_dir=tmp_path, progress=False).fit(rows).pool
    twice = {"first": DOCUMENTS["a"], **DOCUMENTS}
    pool.to_run(tmp_path / "some.run", qrels=tmp_path / "qrels.txt", queries=QUERIES, documents=twice)
    lines = [line.split() for line in (tmp_path / "some.run").read_text().splitlines()]
    assert {line[0] for line in lines} == set(QUERIES)
    assert {line[2] for line in lines} == {"first", *DOCUMENTS} - {"a"}, "the first id of a text counts"
    judged = [line.split() for line in (tmp_path / "qrels.txt").read_text().splitlines()]
    assert sorted((line[0], line[2]) for line in judged) == [("q1", "first"), ("q2", "b"), ("q3", "c")]
    lacking = {name: text for name, text in DOCUMENTS.items() if name != "d"}
    with pytest.raises(InputError, match=r"documents: 1 of the pool's 6 texts are not among the 5 given ones.*Flour"):
        pool.to_lists(tmp_path / "lists", documents=lacking)


@pytest.mark.parametrize("wrong", ["two words", "", "a\u00a0b", "tab\tbed", "a\x0bb", "a\x1cb", "a\x85b"])
def test_an_id_that_cannot_stand_in_a_run_is_refused(pool_of: Any, tmp_path: Path, wrong: str) -> None:
    documents = {wrong if name == "f" else name: text for name, text in DOCUMENTS.items()}
    scores = {**SCORES, "q3": {"c": 0.7}}
    pool = pool_of(documents=documents, scores=scores)
    with pytest.raises(InputError, match="documents: 1 of 6 ids cannot be a field of a run") as caught:
        pool.to_run(tmp_path / "some.run")
    assert repr(wrong) in str(caught.value)
    assert not (tmp_path / "some.run").exists()
    with pytest.raises(InputError, match="documents: 1 of 6 ids cannot be a field of judgements"):
        write_qrels(tmp_path / "qrels.txt", pool.positives, pool.ids)
    pool.to_lists(tmp_path / "lists")
