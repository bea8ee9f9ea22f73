"""Filters, conditions on rows and judges as users of the miner meet them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from datasets import Dataset, IterableDataset
from datasets.fingerprint import Hasher

from hf_negmine import BM25Teacher, NegativeMiner, RandomTeacher, audit
from hf_negmine.base.errors import ColumnError, InputError, TeacherError
from hf_negmine.base.files import digest_of
from hf_negmine.search import Indexes, Queries
from hf_negmine.select.ensembles import CrossSample, IntraSample
from hf_negmine.select.filters import (
    BoundFilter,
    Consistency,
    Filter,
    Listed,
    NearDuplicates,
    Scene,
    Veto,
    Where,
    keep_all,
    other_value,
    same_value,
)
from hf_negmine.select.judge import Judge
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.teachers import ScoreFunction
from hf_negmine.teachers.vector_store import VectorStore
from tests.reference import OWN_FORMATS, text_set
from tests.unit.test_miner import (
    CORPUS,
    NEGATIVES,
    ROWS,
    CountingTeacher,
    WordTeacher,
    cosines,
    forks,
    listed,
    mapped,
    miner_in,
    single_positive_rows,
)

PASSAGES = list(dict.fromkeys([*CORPUS, *ROWS["positive"]]))
QUERIES = list(dict.fromkeys(ROWS["query"]))
POSITIVES = {query: [row["positive"] for row in ROWS if row["query"] == query] for query in QUERIES}
SCORES = {query: dict(zip(PASSAGES, cosines([query], PASSAGES)[0], strict=True)) for query in QUERIES}
HALVES = {
    "queries": {"query": QUERIES, "half": [number % 2 for number in range(len(QUERIES))]},
    "passages": {"text": PASSAGES, "half": [number % 2 for number in range(len(PASSAGES))]},
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def eligible(query: str) -> list[str]:
    """Passages that may be negatives, the best first."""
    left = [text for text in PASSAGES if text not in POSITIVES[query] and text != query]
    return sorted(left, key=lambda text: (-SCORES[query][text], PASSAGES.index(text)))


def digits(queries: list[str], passages: list[str]) -> list[float]:
    """A score of pairs that has little to do with the vectors."""
    return [int(digest_of(query, passage)[:6], 16) / 2**24 for query, passage in zip(queries, passages, strict=True)]


def overlap(queries: Sequence[str], passages: Sequence[str]) -> list[bool]:
    """A judge: every third passage is relevant to everything."""
    return [int(passage.split()[1]) % 3 == 0 for passage in passages]


FILTERS: dict[str, Any] = {
    "veto": lambda: [Veto(RandomTeacher(3), "perc_pos:1.2")],
    "veto by pairs": lambda: [
        Veto(ScoreFunction(digits, RandomTeacher(1), version="1", label="digits"), "perc_pos:1.1")
    ],
    "cosine": lambda: [NearDuplicates(0.8)],
    "minhash": lambda: [NearDuplicates(0.25, by="minhash")],
    "where": lambda: [Where(same_value("half"), **HALVES)],
    "consistency": lambda: [Consistency(top_k=3)],
    "flag": lambda: [Consistency(min_score=0.6, action="flag")],
    "judge": lambda: [Judge(overlap)],
    "relabel": lambda: [Judge(overlap, budget=20, relabel=True)],
    "all": lambda: [
        Where(other_value("half"), **HALVES),
        NearDuplicates(0.9),
        Veto(RandomTeacher(3), "perc_pos:2"),
        Consistency(top_k=8),
        Judge(overlap, budget=30, relabel=True),
    ],
}


# ---- map, mine, rows on the fly ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILTERS)
def test_map_equals_mine_with_every_filter(cache: Path, kind: str) -> None:
    miner = miner_in(cache, filters=FILTERS[kind](), on_exhausted="keep", include_scores=True).fit(ROWS)
    expected = listed(miner.mine(ROWS))
    plain = listed(miner_in(cache, on_exhausted="keep", include_scores=True).mine(ROWS))
    assert expected != plain  # it does something here
    for batch_size in (1, 7):
        assert listed(mapped(ROWS, miner, batch_size=batch_size)) == expected
    thawed = pickle.loads(pickle.dumps(miner))
    assert listed(mapped(ROWS, thawed)) == expected
    assert Hasher.hash(thawed) == Hasher.hash(miner)


@forks
def test_two_processes_filter_rows_on_the_fly_as_one_does(cache: Path) -> None:
    filters = [
        Where(
            same_value("half"),
            queries=Dataset.from_dict(HALVES["queries"]),
            passages=Dataset.from_dict(HALVES["passages"]),
        ),
        NearDuplicates(0.8),
        NearDuplicates(0.5, by="minhash"),
    ]
    miner = miner_in(cache, filters=filters, on_exhausted="keep").fit(corpus=CORPUS)
    assert listed(mapped(ROWS, miner, num_proc=2, batch_size=4)) == listed(mapped(ROWS, miner))


@pytest.mark.parametrize("kind", [kind for kind in FILTERS if kind not in ("judge", "relabel", "all")])
def test_rows_on_the_fly_are_filtered_as_those_of_a_fit(cache: Path, kind: str) -> None:
    rows = single_positive_rows()
    settings = {"filters": FILTERS[kind](), "include_scores": True, "on_exhausted": "keep", "method": "perc_pos:1.2"}
    expected = listed(miner_in(cache, **settings).mine(rows))
    assert expected != listed(miner_in(cache, **{**settings, "filters": ()}).mine(rows))
    later = miner_in(cache, **settings).fit(corpus=CORPUS)
    assert listed(later.mine(rows)) == expected
    assert listed(mapped(rows, later, batch_size=5)) == expected


def test_a_judge_sees_no_row_on_the_fly(cache: Path) -> None:
    later = miner_in(cache, filters=[Judge(overlap)]).fit(ROWS)
    with pytest.raises(InputError, match=r"judge overlap is only asked at fit\(\)"):
        later.mine([{"query": "one more about sea", "positive": "answer 4 on sea"}])


# ---- vetoes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "positive_score"),
    [("perc_pos:0.95", "min"), ("perc_pos:0.95", "each"), ("margin_pos:0.1", "each"), ("abs:0.4", "min")],
)
def test_a_veto_by_the_mining_teacher_itself_changes_nothing(cache: Path, method: str, positive_score: str) -> None:
    settings = {"method": method, "positive_score": positive_score, "on_exhausted": "keep"}
    plain = miner_in(cache, **settings)
    twice = miner_in(cache, **settings, filters=[Veto(WordTeacher(), method)])
    assert listed(twice.mine(ROWS)) == listed(plain.mine(ROWS))
    assert twice.summary.removed[f"veto by words ({method})"] == 0


def test_a_veto_abstains_where_its_teacher_does_not_find_the_positive(cache: Path) -> None:
    rows = Dataset.from_dict({"query": ["what is oolong", "tea in china"], "positive": ["a dark brew", "tea of china"]})
    corpus = ["a dark brew", "tea of china", "tea and tea", "oolong too", "green stones", "red stones"]
    scores = BM25Teacher().index(pa.array(corpus, pa.large_string())).scores(rows["query"])
    assert scores[0, 0] == 0 < scores[1, 1]
    settings: dict[str, Any] = {"corpus": corpus, "num_negatives": 4, "method": "naive", "on_exhausted": "keep"}

    def mined(**abstain: Any) -> list[list[str]]:
        filters = [Veto("bm25", "perc_pos:0.5", **abstain)]
        rows_mined = miner_in(cache, **settings, filters=filters).mine(rows)
        return [[text for text in list(row.values())[2:] if text] for row in rows_mined]

    assert mined()[0] == []  # nothing scores under 0
    assert len(mined(abstain_at=0)[0]) == 4
    assert mined(abstain_at=0)[1] == mined()[1]
    assert "tea and tea" not in mined()[1]


@pytest.mark.parametrize(("depth", "looks_at"), [(None, 5), (3, 3)])
def test_a_veto_by_pairs_looks_at_so_many_candidates_and_no_further(
    cache: Path, depth: int | None, looks_at: int
) -> None:
    asked: set[tuple[str, str]] = set()

    def score(queries: list[str], passages: list[str]) -> list[float]:
        asked.update(zip(queries, passages, strict=True))
        return digits(queries, passages)

    teacher = ScoreFunction(score, RandomTeacher(1), candidates=5, version="1")
    filters = [Veto(teacher, "abs:0.5", depth=depth)]
    mined = miner_in(cache, filters=filters, method="naive", num_negatives=4, on_exhausted="keep").mine(ROWS)
    short = 0
    for row in mined:
        top = eligible(row["query"])[:looks_at]
        expected = [text for text in top if digits([row["query"]], [text])[0] < 0.5][:4]
        assert [row[f"negative_{place}"] for place in range(1, 5) if row[f"negative_{place}"]] == expected
        short += len(expected) < 4
    assert short > 0
    allowed = {(query, text) for query in QUERIES for text in [*eligible(query)[:looks_at], *POSITIVES[query]]}
    assert asked <= allowed


def test_a_candidate_at_the_ceiling_of_a_veto_goes(cache: Path) -> None:
    level = ScoreFunction(lambda queries, passages: [0.5] * len(queries), RandomTeacher(1), version="1", label="level")
    for method, complete in (("abs:0.5", 0), ("abs:0.6", len(QUERIES))):
        miner = miner_in(cache, method="naive", filters=[Veto(level, method)]).fit(ROWS)
        assert miner.summary.complete == complete


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "naive"}, "expected a ceiling alone, such as perc_pos:0.95, got naive"),
        ({"method": "perc_pos:0.9+shifted:3"}, "expected a ceiling alone.*shifted:3"),
        ({"depth": 0}, "Veto: depth: a whole number, at least 1, got 0"),
        ({"abstain_at": float("nan")}, "Veto: abstain_at: a finite number, got nan"),
    ],
)
def test_a_veto_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Veto("random", **settings)


# ---- near duplicates ---------------------------------------------------------------------------------------------


class AxisTeacher:
    """A text of numbers is their vector; lengths differ, which a dot product sees."""

    name = "axes"
    similarity = "dot"

    def fingerprint(self, role: Any) -> str:
        return digest_of("axes", role)

    def encode(self, texts: Sequence[str], role: Any) -> Any:
        return np.array([[float(number) for number in text.split()] for text in texts], dtype=np.float32)


def test_cosines_of_a_dot_teacher_are_of_unit_vectors(cache: Path) -> None:
    corpus = ["5 0 0", "4 0.1 0", "0 0 4", "3 3 0", "0.1 0.1 0", "2 0 2"]
    rows = [{"query": "1 0.9 0.8", "positive": "0 0 8"}]
    settings: dict[str, Any] = {"teacher": AxisTeacher(), "corpus": corpus, "method": "naive", "num_negatives": 3}

    def mined(**options: Any) -> list[str]:
        filters = [NearDuplicates(0.99, **options)]
        row = miner_in(cache, **settings, filters=filters, on_exhausted="keep").mine(rows)[0]
        return [row[f"negative_{place}"] for place in (1, 2, 3)]

    assert mined() == ["3 3 0", "5 0 0", "2 0 2"]
    assert mined(of="positives") == ["3 3 0", "5 0 0", "4 0.1 0"]
    assert mined(of="negatives") == ["3 3 0", "5 0 0", "2 0 2"]
    # The positive of a row on the fly need not be in the corpus.
    for of in ("both", "positives"):
        later = miner_in(cache, **settings, filters=[NearDuplicates(0.99, of=of)]).fit(corpus=corpus)
        row = listed(later.mine([{"query": "1 0.9 0.8", "positive": "0 0 8"}]))[0]
        assert [row[f"negative_{place}"] for place in (1, 2, 3)] == mined(of=of)


def test_what_is_near_a_candidate_that_has_gone_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    angles = np.deg2rad([10, 25, 40, 55, 70])  # each is near to the next, and to no other
    corpus = [f"{np.cos(angle):.6f} {np.sin(angle):.6f} 0" for angle in angles]
    settings: dict[str, Any] = {"teacher": AxisTeacher(), "corpus": corpus, "method": "naive", "num_negatives": 3}
    for places in (64, 1, 2):
        monkeypatch.setattr("hf_negmine.select.filters.duplicates.PLACES", places)
        miner = miner_in(cache / str(places), **settings, filters=[NearDuplicates(np.cos(np.deg2rad(20)))])
        (row,) = miner.mine([{"query": "1 0 0", "positive": "0 0 9"}])
        assert [row[f"negative_{place}"] for place in (1, 2, 3)] == corpus[::2]


def test_each_positive_outside_the_corpus_is_compared_with_its_own_candidates(cache: Path) -> None:
    corpus = ["5 0 0", "0 5 0", "0 0 5"]
    settings: dict[str, Any] = {"teacher": AxisTeacher(), "corpus": corpus, "method": "naive", "num_negatives": 2}
    rows = [
        {"query": "3 2 1", "positive": "9 0 0"},
        {"query": "3 2 1", "positive": "5 0 0"},
        {"query": "3 1 2", "positive": "0 0 9"},
        {"query": "2 3 1", "positive": "0 9 0"},
    ]
    mined = miner_in(cache, **settings, filters=[NearDuplicates()]).fit(corpus=corpus).mine(rows)
    assert [(row["negative_1"], row["negative_2"]) for row in mined] == [
        ("0 5 0", "0 0 5"),
        ("0 5 0", "0 0 5"),
        ("5 0 0", "0 5 0"),
        ("5 0 0", "0 0 5"),
    ]


@pytest.mark.parametrize("include_positives", [True, False])
def test_a_row_on_the_fly_is_compared_with_the_positives_that_fit_knows_of_its_query(
    cache: Path, include_positives: bool
) -> None:
    corpus = ["9 0 0", "5 0.1 0", "0 5 0", "0 0 5", "0 0.1 9"]
    settings: dict[str, Any] = {"teacher": AxisTeacher(), "method": "naive", "on_exhausted": "keep"}
    filters = [NearDuplicates(of="positives")]
    miner = miner_in(cache, **settings, filters=filters, include_positives=include_positives)
    miner.fit([{"query": "3 2 1", "positive": "9 0 0"}, {"query": "1 2 3", "positive": "0 0.1 9"}], corpus=corpus)
    rows = [{"query": query, "positive": "0 9 0"} for query in ("2 2 3", "3 2 1", "1 2 3", "2 2 3")]
    found = [{row[f"negative_{place}"] for place in (1, 2)} for row in listed(miner.mine(rows))]
    assert found[1:3] == [{"0 0 5", "0 0.1 9"}, {"9 0 0", "5 0.1 0"}]
    assert found[0] == found[3] == {"9 0 0", "0 0.1 9"}  # of a query that fit has not seen


def test_copies_of_a_positive_outside_the_corpus_go_by_words_too(cache: Path) -> None:
    copy = "An Answer 4 -- on sea, and with some more words"
    row = {"query": "question 9 about sea", "positive": "an answer 4 on sea and with some more words"}
    settings = {"corpus": [*CORPUS, copy], "method": "naive", "num_negatives": 30}
    for filters, found in (([], True), ([NearDuplicates(0.95, by="minhash")], False)):
        (mined,) = miner_in(cache, **settings, filters=filters).fit(corpus=[*CORPUS, copy]).mine([row])
        assert (copy in mined.values()) == found


def test_all_positives_of_a_query_count_whichever_sets_the_ceiling(cache: Path) -> None:
    rows = Dataset.from_dict({"query": ["1 1 1", "1 1 1"], "positive": ["9 0 0", "0 9 0"]})
    corpus = ["8 0 0", "0 8 0", "0 0 8", "0 7 7", "7 0 7"]
    settings: dict[str, Any] = {"teacher": AxisTeacher(), "corpus": corpus, "method": "naive", "num_negatives": 3}
    for positive_score in ("min", "each"):
        miner = miner_in(cache, **settings, filters=[NearDuplicates(0.99)], positive_score=positive_score)
        for row in miner.mine(rows):
            assert {row["negative_1"], row["negative_2"], row["negative_3"]} == {"0 0 8", "0 7 7", "7 0 7"}


def test_vectors_and_signatures_are_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_negmine.select.filters import minhash

    made: list[str] = []
    shingles = minhash._shingles
    monkeypatch.setattr(minhash, "_shingles", lambda text: made.append(text) or shingles(text))
    teacher = CountingTeacher()
    filters = [NearDuplicates(0.9), NearDuplicates(0.9, by="minhash")]
    miner = miner_in(cache, teacher=teacher, filters=filters).fit(corpus=CORPUS)
    before = sum(count for role, count in teacher.encoded if role == "passage")
    opened: list[str] = []
    vectors = VectorStore.vectors
    monkeypatch.setattr(VectorStore, "vectors", lambda self, *given: opened.append(given[2]) or vectors(self, *given))
    mapped(single_positive_rows(), miner, batch_size=2)
    assert sum(count for role, count in teacher.encoded if role == "passage") == before == len(set(CORPUS))
    assert len(opened) <= 2  # of seven batches
    assert len(made) == len(set(made)) > 10
    monkeypatch.setattr(minhash, "SIGNATURES_KEPT", 5)
    bounded = NearDuplicates(0.9, by="minhash")
    miner_in(cache, filters=[bounded]).fit(ROWS)
    assert len(bounded._kept["signatures"]._kept) == 5
    assert len(pickle.dumps(bounded)) < 500
    assert Hasher.hash(bounded) == Hasher.hash(NearDuplicates(0.9, by="minhash"))


def test_near_duplicates_need_vectors_or_words(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"teacher": RandomTeacher(1), "method": "naive"}
    with pytest.raises(InputError, match=r"random-1 has no vector per passage.*teacher=, or by='minhash'"):
        miner_in(cache, **settings, filters=[NearDuplicates(0.9)]).fit(ROWS)
    by_words = miner_in(cache, **settings, filters=[NearDuplicates(0.8, teacher=WordTeacher())])
    assert "being near duplicates of positives or negatives (cosine by words 0.8)" in by_words.fit(ROWS).summary.removed
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(InputError, match=r'pip install "hf_negmine\[filters\]"'):
        NearDuplicates(0.9, by="minhash")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.2}, "threshold over 0 and at most 1, got 1.2"),
        ({"threshold": "0.9"}, "threshold: a finite number, got '0.9'"),
        ({"of": "all"}, "NearDuplicates: of: 'all' is not among"),
        ({"by": "words"}, "NearDuplicates: by: 'words' is not among"),
        ({"teacher": "bm25"}, "teacher bm25-english has no vector per passage, expected a dense one"),
        ({"by": "minhash", "teacher": WordTeacher()}, "by='minhash' compares words, but teacher= makes vectors"),
    ],
)
def test_near_duplicates_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NearDuplicates(**settings)


# ---- conditions --------------------------------------------------------------------------------------------------


def test_a_condition_is_asked_about_aligned_rows(cache: Path) -> None:
    half = {
        side: dict(zip(columns[next(iter(columns))], columns["half"], strict=True)) for side, columns in HALVES.items()
    }
    mined = miner_in(cache, method="naive", filters=[Where(same_value("half"), **HALVES)]).mine(ROWS)
    for row in mined:
        best = [text for text in eligible(row["query"]) if half["passages"][text] == half["queries"][row["query"]]]
        assert [row[name] for name in NEGATIVES] == best[:2]


TABLES: dict[str, Any] = {
    "dictionary": lambda columns: columns,
    "table": pa.table,
    "chunked": lambda columns: pa.concat_tables([pa.table(columns).slice(at, 7) for at in range(0, 70, 7)]),
    "large text": lambda columns: pa.table(columns).cast(
        pa.schema([(next(iter(columns)), "large_string"), ("half", "int64")])
    ),
    "encoded": lambda columns: pa.table(
        {name: pa.array(values).dictionary_encode() for name, values in columns.items()}
    ),
    "data set": Dataset.from_dict,
    "selection": lambda columns: Dataset.from_dict(columns).select(range(len(columns["half"]))[::-1]),
    "formatted": lambda columns: Dataset.from_dict(columns).with_format("numpy", columns=["half"]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_metadata_comes_as_any_table(cache: Path, kind: str) -> None:
    expected = listed(miner_in(cache, filters=[Where(same_value("half"), **HALVES)]).mine(ROWS))
    tables = {side: TABLES[kind](columns) for side, columns in HALVES.items()}
    condition = Where(same_value("half"), **tables)
    assert listed(miner_in(cache, filters=[condition]).mine(ROWS)) == expected
    thawed = pickle.loads(pickle.dumps(condition))
    assert thawed.settings == condition.settings


def kept_by(folder: Path, predicate: Any, queries: Any, passages: Any, **options: Any) -> list[bool]:
    """What a condition keeps of passages a to d for the query q."""
    texts = text_set(folder, ["q"], ["a"], ["a", "b", "c", "d"])
    scene = Scene(
        Queries.of(texts),
        texts.corpus,
        texts.positive_offsets,
        texts.positive_ids.astype(np.int64),
        None,
        "min",
        WordTeacher(),
        Indexes(VectorStore(folder, progress=False), "cpu"),
    )
    bound = Where(predicate, queries=queries, passages=passages, **options).bind(scene)
    zero = np.zeros(1, dtype=np.int64)
    candidates = Listed(zero, zero, np.array([0, 4]), np.arange(4, dtype=np.int32), np.zeros(4, dtype=np.float32))
    return [bool(kept) for kept in bound.keep(candidates)]


def test_what_is_not_known_is_neither_same_nor_other(cache: Path) -> None:
    queries = {"query": ["q", None, "q"], "page": [7, 8, 8]}
    passages = {"text": ["b", "a", "a", "c"], "page": [8, 7, 8, None]}
    assert kept_by(cache, same_value("page"), queries, passages) == [True, False, False, False]
    assert kept_by(cache, other_value("page"), queries, passages) == [False, True, True, True]
    unknown = {"query": ["q"], "page": [None]}
    assert kept_by(cache, same_value("page"), unknown, passages) == [False] * 4
    assert kept_by(cache, other_value("page"), unknown, passages) == [True] * 4
    with pytest.raises(InputError, match="Where: queries: none of the 1 queries is a text in column 'query'"):
        kept_by(cache, other_value("page"), {"query": ["someone else"], "page": [7]}, passages)
    with pytest.raises(InputError, match="Where: passages: none of the 4 passages is a text in column 'text'"):
        kept_by(cache, other_value("page"), queries, {"text": ["title b", None], "page": [7, 8]})
    renamed = {"body": passages["text"], "leaf": passages["page"]}
    assert kept_by(cache, same_value("page", "leaf"), queries, renamed, passage_column="body") == [
        True,
        False,
        False,
        False,
    ]
    assert str(Where(same_value("page", "leaf"), queries=queries, passages=renamed, passage_column="body")) == (
        "where same page and leaf"
    )


def newer(queries: pa.Table, passages: pa.Table) -> Any:
    return pc.greater(passages["year"], queries["year"])


@pytest.mark.parametrize(
    "form", [lambda found: found, lambda found: found.to_pylist(), lambda found: found.combine_chunks()]
)
def test_null_counts_as_false(cache: Path, form: Any) -> None:
    def predicate(queries: pa.Table, passages: pa.Table) -> Any:
        return form(newer(queries, passages))

    years = {"text": ["a", "b", "c"], "year": [2001, 1999, None]}
    assert kept_by(cache, predicate, {"query": ["q"], "year": [2000]}, years) == [True, False, False, False]
    assert kept_by(cache, predicate, {"query": ["q"], "year": pa.array([None], pa.int64())}, years) == [False] * 4


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            np.ones(3, dtype=bool),
            r"an array of bool with shape \(3,\) for 4 candidates, expected one bool per candidate",
        ),
        (np.ones(4), r"an array of float64 with shape \(4,\) for 4 candidates"),
        (True, r"an array of bool with shape \(\) for 4"),
        (None, "NoneType for 4"),
        ([True, None], "2 values of bool for 4"),
        (pa.array([1, 0, 1, 0]), "4 values of int64 for 4"),
        (["yes"] * 4, "an array of <U3"),
    ],
)
def test_a_wrong_answer_of_a_predicate_is_an_error(cache: Path, found: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"the predicate of 'where constant' returned {message}"):
        kept_by(cache, lambda queries, passages: found, {"query": ["q"]}, {"text": ["a"]}, name="constant")


def test_conditions_and_tables_that_cannot_be_used_are_refused(cache: Path) -> None:
    tables: dict[str, Any] = {"queries": {"query": ["q"], "page": [1]}, "passages": {"text": ["a"], "page": ["1"]}}
    with pytest.raises(InputError, match=r"stored under the predicate's name.*'<lambda>'; give it one with name="):
        Where(lambda queries, passages: None, **tables)
    with pytest.raises(InputError, match="a function of two tables, got 'language'"):
        Where("language", **tables)  # type: ignore[arg-type]
    with pytest.raises(ColumnError, match=r"Where: passages: column 'text' is not among \['body'\]"):
        Where(newer, **{**tables, "passages": {"body": ["a"]}})
    with pytest.raises(InputError, match="Where: queries: column 'query' holds int64, expected text"):
        Where(newer, **{**tables, "queries": {"query": [1]}})
    with pytest.raises(InputError, match="Where: queries: these columns do not make a table"):
        Where(newer, **{**tables, "queries": {"query": ["a"], "page": [1, 2]}})
    stream = IterableDataset.from_generator(lambda: iter([{"query": "q"}]))
    for wrong in (["q"], stream):
        with pytest.raises(
            InputError, match=f"a data set, an Arrow table or a dictionary of columns, got {type(wrong).__name__}"
        ):
            Where(newer, **{**tables, "queries": wrong})
    with pytest.raises(InputError, match="same page cannot compare int64 of the queries with string of the passages"):
        kept_by(cache, same_value("page"), **tables)
    with pytest.raises(ColumnError, match=r"Where: same site: queries: column 'site' is not among \['query', 'page'\]"):
        kept_by(cache, same_value("site"), **tables)


def test_results_are_kept_under_name_and_metadata(cache: Path) -> None:
    def settings(
        predicate: Any = newer, name: str | None = None, year: int = 1, page: int = 2, version: str = "1"
    ) -> str:
        tables: dict[str, Any] = {
            "queries": {"query": ["q"], "year": [year]},
            "passages": {"text": ["q"], "page": [page]},
        }
        return digest_of(Where(predicate, name=name, version=version, **tables).settings)

    assert settings() == settings()
    assert len({settings(), settings(name="n"), settings(year=2), settings(page=3), settings(same_value("year"))}) == 5
    assert settings(version="2") != settings()
    assert settings(same_value("year"), version="2") != settings(same_value("year"))


REDEFINED = """
def newer(queries, passages):
    return [{0} for year in passages["year"].to_pylist() if year not in {{"no year", "none", "unknown"}}]
"""


SETTINGS_OF_NEWER = """
from hf_negmine.base.files import digest_of
from hf_negmine.select.filters import Where
print(digest_of(Where(newer, queries={"query": ["q"]}, passages={"text": ["q"]}).settings))
"""


def test_a_predicate_that_was_redefined_under_its_name_is_noticed() -> None:
    def settings(body: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        exec(REDEFINED.format(body), found)
        return Where(found["newer"], queries={"query": ["q"]}, passages={"text": ["q"]}).settings

    changed = ["year > 2000", "year > 2001", "year < 2000", "min(year) > 2000", "max(year) > 2000"]
    assert len({digest_of(settings(body)) for body in changed}) == len(changed)
    assert settings(changed[0]) == settings(changed[0])
    code = REDEFINED.format("year") + SETTINGS_OF_NEWER
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # sets have another order there
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout == f"{digest_of(settings('year'))}\n"


def test_a_condition_on_a_data_set_on_disk_travels_as_its_path(tmp_path: Path) -> None:
    columns = {"text": [f"passage {number}" for number in range(10_000)], "page": list(range(10_000))}
    Dataset.from_dict(columns).save_to_disk(tmp_path / "passages")
    kept = Dataset.load_from_disk(tmp_path / "passages")
    condition = Where(same_value("page"), queries=kept, passages=kept, query_column="text")
    settings = condition.settings
    frozen = pickle.dumps(condition)
    assert len(frozen) < 10_000
    assert pickle.loads(frozen).settings == settings


# ---- consistency -------------------------------------------------------------------------------------------------

LISTS = Dataset.from_dict({"query": ["1 0 0", "0 1 0"], "positive": [["9 0 1", "0 9 1"], ["0 5 5"]]})
"""The second positive of the first query scores 0, where that of others scores 7 and 2."""
AXES = ["7 0 1", "2 0 1", "1 0 1", "0 3 1", "0 2 1"]


def axes_miner(cache: Path, **settings: Any) -> NegativeMiner:
    given = {"teacher": AxisTeacher(), "corpus": AXES, "method": "perc_pos:0.9", "num_negatives": 1, **settings}
    return miner_in(cache, **given)


@pytest.mark.parametrize(("format", "by_map"), [("n-tuple", False), *((name, True) for name in OWN_FORMATS)])
def test_inconsistent_pairs_are_dropped_or_flagged_in_every_format(cache: Path, format: str, by_map: bool) -> None:
    def mined(action: Any) -> list[dict[str, Any]]:
        miner = axes_miner(cache, format=format, filters=[Consistency(top_k=2, action=action)], on_exhausted="keep")
        miner.fit(LISTS)
        assert miner.summary.inconsistent == 1
        return (
            listed(mapped(LISTS, miner, batch_size=1, features=miner.features(LISTS)))
            if by_map
            else listed(miner.mine(LISTS))
        )

    dropped, flagged, plain = (
        mined("drop"),
        mined("flag"),
        listed(axes_miner(cache, format=format, on_exhausted="keep").mine(LISTS)),
    )
    assert all("consistent" not in row for row in dropped)
    # A flag changes nothing but its column.
    assert [{name: value for name, value in row.items() if name != "consistent"} for row in flagged] == plain
    flags = [row["consistent"] for row in flagged]
    if format == "n-tuple":
        assert [(row["positive"], row["negative_1"]) for row in dropped] == [("9 0 1", "7 0 1"), ("0 5 5", "0 3 1")]
        assert [(row["positive"], row["negative_1"]) for row in plain] == [
            ("9 0 1", None),
            ("0 9 1", None),
            ("0 5 5", "0 3 1"),
        ]
        assert flags == [True, False, True]
    elif format == "triplet":
        assert [(row["positive"], row["negative"]) for row in dropped] == [("9 0 1", "7 0 1"), ("0 5 5", "0 3 1")]
        assert flags == [True]
    elif format == "labeled-pair":
        assert [(row["positive"], row["label"]) for row in dropped] == [
            ("9 0 1", 1),
            ("7 0 1", 0),
            ("0 5 5", 1),
            ("0 3 1", 0),
        ]
        assert [(row["positive"], row["consistent"]) for row in flagged] == [
            ("9 0 1", True),
            ("0 9 1", False),
            ("0 5 5", True),
            ("0 3 1", True),
        ]
    elif format == "labeled-list":
        assert [row["positive"] for row in dropped] == [["9 0 1", "7 0 1"], ["0 5 5", "0 3 1"]]
        assert [row["positive"] for row in flagged] == [["9 0 1", "0 9 1"], ["0 5 5", "0 3 1"]]
        assert flags == [False, True]  # not all positives of the first row are found
    else:
        assert [len(row["document_ids"]) for row in dropped] == [2, 2]
        assert flags == [True, False, True]


def test_a_passage_is_flagged_where_it_stands(cache: Path) -> None:
    filters = [Consistency(top_k=2, action="flag")]
    mined = axes_miner(cache, format="labeled-pair", method="naive", filters=filters).mine(LISTS.select([1, 0]))
    assert list(zip(mined["positive"], mined["consistent"], strict=True)) == [
        ("0 5 5", True),
        ("0 9 1", True),
        ("9 0 1", True),
        ("0 9 1", False),
        ("7 0 1", True),
    ]


def test_a_dropped_positive_is_still_no_negative(cache: Path) -> None:
    filters = [Consistency(min_score=1.0)]
    (first, _) = axes_miner(cache, method="naive", num_negatives=6, filters=filters).mine(LISTS)
    assert first["positive"] == "9 0 1"
    assert {first[f"negative_{place}"] for place in range(1, 7)} == {*AXES, "0 5 5"}


def test_rows_of_a_fit_and_rows_on_the_fly_are_flagged_side_by_side(cache: Path) -> None:
    settings: dict[str, Any] = {"filters": [Consistency(top_k=2, action="flag")], "on_exhausted": "keep"}
    rows = Dataset.from_dict({"query": ["1 0 0", "0 1 0"], "positive": ["0 9 1", "0 5 5"]})
    half = axes_miner(cache, **settings).fit(rows.select([0]), corpus=[*AXES, "0 5 5"])
    assert (
        half.mine(rows)["consistent"]
        == mapped(rows, half, batch_size=1, features=half.features(rows))["consistent"]
        == [False, True]
    )


def test_rows_on_the_fly_are_held_to_the_same_consistency(cache: Path) -> None:
    corpus = [*AXES, "9 0 1", "0 9 1", "0 5 5"]
    for action in ("drop", "flag"):
        settings = {"corpus": corpus, "filters": [Consistency(top_k=2, action=action)], "on_exhausted": "keep"}
        later = axes_miner(cache, **settings).fit(corpus=corpus)
        assert listed(later.mine(LISTS)) == listed(axes_miner(cache, **settings).mine(LISTS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give top_k .*got neither"),
        ({"top_k": 0}, "top_k: a whole number, at least 1, got 0"),
        ({"min_score": "high"}, "min_score: a finite number, got 'high'"),
        ({"top_k": 1, "action": "keep"}, "action: 'keep' is not among"),
    ],
)
def test_a_consistency_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"Consistency: {message}"):
        Consistency(**settings)


def test_settings_may_be_numbers_of_numpy(cache: Path) -> None:
    filters = [
        Consistency(min_score=np.float32(0.5)),
        Veto("random", "abs:0.9", abstain_at=np.float32(0.5)),
        NearDuplicates(np.float64(0.9)),
    ]
    assert miner_in(cache, filters=filters, on_exhausted="keep").fit(ROWS).is_fitted


# ---- judges ------------------------------------------------------------------------------------------------------


class Bench:
    """A judge that keeps the minutes, and is struck after so many verdicts."""

    name = "bench"

    def __init__(self, most: int = 10**9) -> None:
        self.most = most
        self.heard: list[tuple[str, str]] = []

    def fingerprint(self) -> str:
        return "bench"

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Iterator[tuple[int, bool]]:
        for place, (query, passage) in enumerate(zip(queries, passages, strict=True)):
            if len(self.heard) >= self.most:
                raise KeyboardInterrupt
            self.heard.append((query, passage))
            yield place, overlap([query], [passage])[0]


def test_the_budget_goes_to_the_highest_scores_and_is_never_exceeded(cache: Path) -> None:
    bench = Bench()
    miner = miner_in(cache, filters=[Judge(bench, budget=16)], on_exhausted="keep").fit(ROWS)
    assert miner.summary.judged == len(bench.heard) == 16
    scores = [SCORES[query][passage] for query, passage in bench.heard]
    assert [score for at in range(0, 16, 2) for score in sorted(scores[at : at + 2], reverse=True)] == scores
    plain = miner_in(cache, on_exhausted="keep").mine(ROWS)
    chosen = {(row["query"], row[name]) for row in plain for name in NEGATIVES if row[name]}
    assert set(bench.heard[:2]) == set(sorted(chosen, key=lambda pair: -SCORES[pair[0]][pair[1]])[:2])


@pytest.mark.parametrize("budget", [None, 16])
def test_a_second_run_asks_nothing_and_gives_the_same(cache: Path, budget: int | None) -> None:
    first = miner_in(cache, filters=[Judge(Bench(), budget)], on_exhausted="keep", seed=1)
    expected = listed(first.mine(ROWS))
    struck = Bench(most=0)
    again = miner_in(cache, filters=[Judge(struck, budget)], on_exhausted="keep", seed=2)  # another fit
    assert listed(again.mine(ROWS)) == expected
    assert struck.heard == []
    assert again.summary.judged == first.summary.judged
    assert again.summary.removed == first.summary.removed


@pytest.mark.parametrize("verdicts", [1, 9, 40])
def test_a_struck_judge_is_asked_no_pair_twice(tmp_path: Path, verdicts: int) -> None:
    whole = Bench()
    expected = listed(miner_in(tmp_path / "a", filters=[Judge(whole)], on_exhausted="keep").mine(ROWS))
    assert len(whole.heard) > 40
    struck, rested = Bench(most=verdicts), Bench()
    with pytest.raises(KeyboardInterrupt):
        miner_in(tmp_path / "b", filters=[Judge(struck)], on_exhausted="keep").fit(ROWS)
    assert listed(miner_in(tmp_path / "b", filters=[Judge(rested)], on_exhausted="keep").mine(ROWS)) == expected
    assert len(struck.heard) == verdicts
    assert sorted([*struck.heard, *rested.heard]) == sorted(whole.heard)


@pytest.mark.parametrize(
    ("format", "positive_score"), [*((name, "min") for name in OWN_FORMATS), ("n-tuple", "each"), ("ids", "each")]
)
def test_what_is_relabelled_becomes_a_positive_once_a_query(cache: Path, format: str, positive_score: str) -> None:
    bench = Bench()
    settings = {"format": format, "positive_score": positive_score, "on_exhausted": "keep"}
    miner = miner_in(cache, **settings, filters=[Judge(bench, relabel=True)]).fit(ROWS)
    mined = listed(miner.mine(ROWS))
    for batch_size in (1, 7):
        assert listed(mapped(ROWS, miner, batch_size=batch_size)) == mined
    relevant = {(query, passage) for query, passage in bench.heard if overlap([query], [passage])[0]}
    assert relevant
    positives, negatives = pairs_in(mined, miner)
    labelled = [(row["query"], row["positive"]) for row in ROWS]
    if format == "triplet":  # which repeats a positive for each of its negatives, and leaves out one that keeps none
        assert set(labelled) < set(positives) <= {*labelled, *relevant}
    else:
        assert sorted(positives) == sorted([*labelled, *relevant])
    assert not set(negatives) & {*labelled, *relevant}


def pairs_in(mined: list[dict[str, Any]], miner: NegativeMiner) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(query, passage) of all positives and of all negatives of mined rows."""
    positives, negatives = [], []
    for row in mined:
        if miner.config.format == "ids":
            query = miner.queries[row["query_id"]]["query"]
            texts = [miner.corpus[place]["document"] for place in row["document_ids"]]
            positives.append((query, texts[0]))
            negatives += [(query, text) for text in texts[1:]]
        elif miner.config.format == "labeled-pair":
            (positives if row["label"] else negatives).append((row["query"], row["positive"]))
        elif miner.config.format == "labeled-list":
            for text, label in zip(row["positive"], row["labels"], strict=True):
                (positives if label else negatives).append((row["query"], text))
        else:
            positives.append((row["query"], row["positive"]))
            negatives += [(row["query"], row[name]) for name in ("negative", *NEGATIVES) if row.get(name)]
    return positives, negatives


@pytest.mark.parametrize("relabel", [False, True])
def test_a_judge_who_finds_everything_relevant_comes_to_an_end(cache: Path, relabel: bool) -> None:
    judge = FunctionJudge(lambda queries, passages: [True] * len(queries), name="yes")
    miner = miner_in(cache, method="naive", filters=[Judge(judge, relabel=relabel)], on_exhausted="keep").fit(ROWS)
    assert miner.summary.complete == 0
    assert miner.summary.judged == sum(len(eligible(query)) for query in QUERIES)
    positives, negatives = pairs_in(listed(miner.mine(ROWS)), miner)
    assert negatives == []
    assert len(positives) == len(ROWS) + relabel * miner.summary.judged


@pytest.mark.parametrize("ensemble", [CrossSample, IntraSample])
@pytest.mark.parametrize("budget", [None, 24])
def test_an_ensemble_is_judged(cache: Path, ensemble: Any, budget: int | None) -> None:
    def miner_of(judge: Bench) -> NegativeMiner:
        filters = [NearDuplicates(0.95, teacher=WordTeacher()), Judge(judge, budget)]
        teachers = ensemble([WordTeacher(), RandomTeacher(5)])
        return miner_in(cache, teacher=teachers, method="perc_pos:1.0", filters=filters, on_exhausted="keep")

    bench, again = Bench(), Bench(most=0)
    mined = listed(miner_of(bench).mine(ROWS))
    _, negatives = pairs_in(mined, miner_of(again))
    assert len(set(bench.heard)) == len(bench.heard)
    heard = {pair: overlap([pair[0]], [pair[1]])[0] for pair in bench.heard}
    assert any(heard.values())
    assert not any(heard.get(pair, False) for pair in negatives)
    assert budget is not None or set(negatives) <= set(heard)
    assert budget is None or len(heard) <= budget
    assert listed(miner_of(again).mine(ROWS)) == mined


def test_a_judge_who_answers_too_little_is_an_error(cache: Path) -> None:
    class Lazy(Bench):
        def fingerprint(self) -> str:
            return "lazy"

        def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Iterator[tuple[int, bool]]:
            yield 0, False

    with pytest.raises(TeacherError, match=r"judge 'bench' gave 1 verdicts on \d+ pairs"):
        miner_in(cache, filters=[Judge(Lazy())]).fit(ROWS)


@pytest.mark.parametrize(
    ("say", "told"),
    [
        (lambda count: [(place % 5, True) for place in range(count)], r"\(0, True\)"),  # as if each batch began at 0
        (lambda count: [(place + 1, True) for place in range(count)], r"\(\d+, True\)"),
        (lambda count: [(-1, True)], r"\(-1, True\)"),
        (lambda count: [(0, "no")], r"\(0, 'no'\)"),
        (lambda count: [(0, 0.7)], r"\(0, 0.7\)"),
        (lambda count: [(0, None)], r"\(0, None\)"),
        (lambda count: [True] * count, "True"),
        (lambda count: None, r"0 verdicts on \d+ pairs"),
    ],
)
def test_what_is_no_verdict_about_a_pair_is_an_error(say: Callable[[int], Any], told: str, cache: Path) -> None:
    class Odd(Bench):
        def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Any:
            return say(len(queries))

    with pytest.raises(TeacherError, match=f"judge 'bench' gave {told}"):
        miner_in(cache, filters=[Judge(Odd())]).fit(ROWS)


# ---- what filters= takes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([Judge(overlap), Judge(overlap, budget=1)], "at most one Judge, got 2"),
        ([Consistency(top_k=1), Consistency(top_k=2)], "at most one Consistency, got 2"),
        ([Veto], "expected filters such as Veto.*got <class .*Veto"),
        ([NearDuplicates], "expected filters such as Veto.*got <class .*NearDuplicates"),
        ([Consistency], "expected filters such as Veto.*got <class .*Consistency"),
        ([Judge], "expected filters such as Veto.*got <class .*Judge"),
        (["bm25"], "expected filters such as Veto.*got 'bm25'"),
    ],
)
def test_filters_that_are_none_or_too_many_are_refused(cache: Path, filters: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"filters: {message}"):
        miner_in(cache, filters=filters)


@pytest.mark.parametrize("budget", [-1, 1.5])
def test_a_budget_is_a_whole_number(budget: Any) -> None:
    with pytest.raises(InputError, match=f"Judge: budget: a whole number, at least 0, got {budget}"):
        Judge(overlap, budget)
    with pytest.raises(InputError, match="Judge: relabel: True or False, got 'yes'"):
        Judge(overlap, relabel="yes")  # type: ignore[arg-type]


def test_a_filter_of_ones_own_must_answer_for_every_candidate(cache: Path) -> None:
    class Mine:
        settings: dict[str, Any] = {}  # noqa: RUF012
        depth = None

        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def bind(self, scene: Scene) -> BoundFilter:
            return self

        def keep(self, listed: Listed) -> Any:
            return self.answer(len(listed.passages))

        def __str__(self) -> str:
            return "mine"

    assert isinstance(Mine(None), Filter)
    for answer, got in ((lambda n: np.ones(n), "float64"), (lambda n: np.ones(n + 1, dtype=bool), "bool with shape")):
        message = f"filter mine returned an array of {got}.*expected one bool per candidate"
        miner = miner_in(cache, filters=[Mine(answer)])
        with pytest.raises(InputError, match=message):
            miner.fit(ROWS)
        with pytest.raises(InputError, match=message):
            audit(ROWS.add_column("negative", CORPUS[: len(ROWS)]), miner)
    assert miner_in(cache, filters=[Mine(lambda n: np.zeros(n, dtype=bool))]).fit(ROWS).summary.complete == 0
    nothing = np.empty(0, dtype=np.int64)
    empty = Listed(nothing, nothing, np.zeros(1, dtype=np.int64), nothing.astype(np.int32), nothing.astype(np.float32))
    kept, removed, _ = keep_all([Mine(lambda n: np.ones(n, dtype=bool))], empty)
    assert len(kept.passages) == 0
    assert list(removed) == ["mine"]


def test_filters_that_are_no_list_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"filters: expected a list .*, got Veto\("):
        NegativeMiner("bm25", filters=Veto("random", "perc_pos:0.95"), cache_dir=tmp_path)  # type: ignore[arg-type]


def test_a_positive_that_sets_no_ceiling_sets_none_of_a_veto(tmp_path: Path) -> None:
    """A teacher that vetoes itself under its own method has nothing to add, whatever the consistency rule drops."""
    rng = np.random.default_rng(1)
    queries = [" ".join(f"w{word}" for word in rng.integers(0, 40, 6)) for _ in range(30)]
    rows = [
        {"query": query, "positive": f"p{row} " + " ".join(f"w{word}" for word in rng.integers(0, 40, 8))}
        for row, query in enumerate(np.repeat(queries, 3).tolist())
    ]
    rules = [Veto("bm25", "perc_pos:0.95"), Consistency(10)]
    miner = NegativeMiner(
        "bm25", method="perc_pos:0.95", num_negatives=2, filters=rules, on_exhausted="keep", cache_dir=tmp_path
    ).fit(rows)
    assert 0 < (miner.summary.inconsistent or 0) < 90
    assert miner.summary.removed[str(rules[0])] == 0


def test_columns_of_which_nothing_is_known_are_compared(tmp_path: Path) -> None:
    unknown = pa.table({"text": ["a"], "language": pa.nulls(1)})
    assert same_value("language")(unknown, unknown).to_pylist() == [False]
    assert other_value("language")(unknown, unknown).to_pylist() == [True]
