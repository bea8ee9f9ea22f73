"""Teachers: what they make of a text, what they are called by, and how short one of your own is."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_negmine.base.errors import InputError, TeacherError
from hf_negmine.base.protocols import Role, ScoringTeacher, Similarity, Teacher, VectorTeacher
from hf_negmine.base.schema import FloatArray
from hf_negmine.teachers import (
    BM25Teacher,
    DenseTeacher,
    EncodeFunction,
    FixedTeacher,
    RandomTeacher,
    ScoreFunction,
    resolve_teacher,
)
from hf_negmine.teachers.probes import PROBES
from tests.reference import make_pool, text_set

PASSAGES = [
    "The cat sat on the mat while it rained.",
    "Dogs are running in the rain.",
    "A dog ran after the running cat, and ran, and ran.",
    "Stock markets fell sharply on Monday.",
    "Rain.",
]


class LetterTeacher:
    """A vector teacher of one's own: the counts of some letters."""

    name = "letters"
    similarity: Similarity = "cosine"

    def fingerprint(self, role: Role) -> str:
        return "letters-1"

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        return np.array([[text.count(letter) + 0.1 for letter in "aeiou"] for text in texts], dtype=np.float32)


class OverlapTeacher:
    """A scoring teacher of one's own: the number of words in common."""

    name = "overlap"

    def fingerprint(self, role: Role) -> str:
        return "overlap-1"

    def index(self, passages: pa.LargeStringArray) -> OverlapScorer:
        return OverlapScorer([set(passage.as_py().lower().split()) for passage in passages])


class OverlapScorer:
    def __init__(self, words: list[set[str]]) -> None:
        self._words = words

    def scores(self, queries: Sequence[str]) -> FloatArray:
        asked = [set(query.lower().split()) for query in queries]
        return np.array([[len(query & words) for words in self._words] for query in asked], dtype=np.float32)


def test_a_vector_teacher_of_ones_own_mines(tmp_path: Path) -> None:
    teacher = LetterTeacher()
    assert isinstance(teacher, VectorTeacher)
    assert not isinstance(teacher, ScoringTeacher)
    assert resolve_teacher(teacher) is teacher
    pool = make_pool(tmp_path, teacher, text_set(tmp_path, ["aaa"], ["e"], ["e", "aa", "o", "aae"]), 2)
    assert pool.select("naive", n=3).passages.tolist() == [1, 3, 2]


def test_a_scoring_teacher_of_ones_own_mines(tmp_path: Path) -> None:
    teacher = OverlapTeacher()
    assert isinstance(teacher, ScoringTeacher)
    assert not isinstance(teacher, VectorTeacher)
    assert resolve_teacher(teacher) is teacher
    texts = text_set(tmp_path, ["the running cat"], [PASSAGES[0]], PASSAGES)
    selection = make_pool(tmp_path, teacher, texts, 1).select("margin_pos:0.5", n=3)
    assert selection.positive_scores.tolist() == [2.0]  # "the" and "cat"
    assert selection.passages.tolist() == [3, 4]  # 1 and 2 hold "the" and "running"
    assert selection.complete.tolist() == [False]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("bm25", BM25Teacher("english")),
        ("bm25:german", BM25Teacher("german")),
        ("random", RandomTeacher(0)),
        ("random:7", RandomTeacher(7)),
        ("random:-7", RandomTeacher(-7)),
    ],
)
def test_teachers_by_their_spec(spec: str, expected: Teacher) -> None:
    assert resolve_teacher(spec) == expected


def test_any_other_name_is_a_model_and_is_not_loaded_yet() -> None:
    teacher = resolve_teacher("nobody/no-such-model")
    assert isinstance(teacher, DenseTeacher)
    assert teacher.name == "nobody/no-such-model"
    with pytest.raises(InputError, match="teacher 'nobody/no-such-model' could not be loaded"):
        teacher.fingerprint("query")


def test_what_is_no_teacher_is_told_what_it_lacks() -> None:
    with pytest.raises(InputError, match=r"teacher 3 is not a model, and lacks .*fingerprint\(role\)"):
        resolve_teacher(3)  # type: ignore[arg-type]


# BM25


def index(teacher: BM25Teacher, passages: Sequence[str] = PASSAGES) -> Callable[[list[str]], FloatArray]:
    return teacher.index(pa.array(passages, pa.large_string())).scores


def test_bm25_stems_and_leaves_out_stop_words() -> None:
    scores = index(BM25Teacher())(["the dog runs", "raining", "the on and"])
    assert (scores[0] > 0).tolist() == [False, True, True, False, False]
    assert (scores[1] > 0).tolist() == [True, True, False, False, True]
    assert scores[1].argmax() == 4, "the shortest of three that say it once"
    assert (scores[2] == 0).all()


def test_bm25_shows_a_bar_unless_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hf_negmine.base.progress.DELAY", 0)
    monkeypatch.setattr("hf_negmine.base.progress.is_watched", lambda: True)
    index(BM25Teacher(progress=False))
    assert capfd.readouterr().err == ""
    index(BM25Teacher())
    assert f"/{len(PASSAGES)}" in capfd.readouterr().err
    assert BM25Teacher() == BM25Teacher(progress=False), "it is no setting of the scores"
    assert BM25Teacher().fingerprint("query") == BM25Teacher(progress=False).fingerprint("query")


def test_bm25_without_a_language_takes_words_as_they_are() -> None:
    teacher = BM25Teacher(None)
    assert (teacher.name, BM25Teacher().name) == ("bm25", "bm25-english")
    scores = index(teacher)(["the", "raining"])
    assert (scores[0] > 0).tolist() == [True, True, True, False, False]
    assert (scores[1] == 0).all()


def test_bm25_in_german() -> None:
    scores = index(BM25Teacher("german"), ["Die Häuser der Stadt", "Ein Haus am See", "Der Hund und die Katze"])(
        ["Haus", "die der und"]
    )
    assert (scores[0] > 0).tolist() == [True, True, False]
    assert (scores[1] == 0).all()


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
@pytest.mark.parametrize("query", ["", "   ", "!?", "zebra xylophone"])
def test_a_query_without_a_known_word_scores_zero(variant: str, query: str) -> None:
    scores = index(BM25Teacher(variant=variant))([query, "cat"])  # type: ignore[arg-type]
    assert (scores[0] == 0).all()
    assert scores[1].any()
    assert scores.dtype == np.float32
    assert scores.shape == (2, 5)


def test_a_bm25_row_does_not_depend_on_the_other_queries() -> None:
    score = index(BM25Teacher())
    queries = ["the dog runs", "rain", "", "monday cat"]
    together = score(queries)
    for row, query in enumerate(queries):
        np.testing.assert_array_equal(score([query])[0], together[row])


def test_bm25_refuses_a_corpus_without_words_and_an_unknown_language() -> None:
    with pytest.raises(TeacherError, match="BM25 found no word in 2 passages that is not a stop word"):
        index(BM25Teacher(), ["the", "and of"])
    with pytest.raises(InputError, match=r"language 'klingon' is not among .*'english'"):
        BM25Teacher("klingon")


def test_every_bm25_setting_changes_the_fingerprint() -> None:
    teachers = [
        BM25Teacher(),
        BM25Teacher("german"),
        BM25Teacher(None),
        BM25Teacher(k1=1.2),
        BM25Teacher(b=0.5),
        BM25Teacher(variant="atire"),
    ]
    assert len({teacher.fingerprint("query") for teacher in teachers}) == len(teachers)
    assert BM25Teacher().fingerprint("query") == BM25Teacher().fingerprint("query")


def test_a_bm25_teacher_that_was_used_can_be_pickled() -> None:
    teacher = BM25Teacher()
    before = index(teacher)(["running dogs"])
    copy = pickle.loads(pickle.dumps(teacher))
    assert copy == teacher
    np.testing.assert_array_equal(index(copy)(["running dogs"]), before)


# Fixed vectors


def fixed() -> FixedTeacher:
    return FixedTeacher(["q", "r"], np.eye(2), ["a", "b", "c"], np.arange(6.0).reshape(3, 2))


def test_fixed_vectors_are_found_by_text_in_any_order() -> None:
    assert fixed().encode(["c", "a", "c"], "passage").tolist() == [[4, 5], [0, 1], [4, 5]]
    assert fixed().encode(["r"], "query").tolist() == [[0, 1]]
    assert fixed().encode(["r"], "query").dtype == np.float32


def test_a_text_without_a_fixed_vector_is_named() -> None:
    with pytest.raises(TeacherError, match="no vector for 2 of 3 passage texts, the first is 'q'"):
        fixed().encode(["a", "q", "r"], "passage")


def test_fixed_vectors_must_fit_their_texts() -> None:
    with pytest.raises(InputError, match=r"2 query texts need vectors of shape \(2, width\), got \(3, 2\)"):
        FixedTeacher(["q", "r"], np.zeros((3, 2)), ["a"], np.zeros((1, 2)))
    with pytest.raises(InputError, match="'euclidean' is not among"):
        FixedTeacher(["q"], np.zeros((1, 2)), ["a"], np.zeros((1, 2)), similarity="euclidean")  # type: ignore[arg-type]


def test_fixed_fingerprints_change_with_vectors_texts_and_similarity() -> None:
    def made(passage: str = "a", value: float = 1.0, **named: str) -> str:
        return FixedTeacher(["q"], np.eye(1), [passage], np.array([[value]]), **named).fingerprint("passage")  # type: ignore[arg-type]

    assert len({made(), made("b"), made(value=2.0), made(similarity="dot")}) == 4
    assert made() == made(name="other")


def test_fixed_vectors_are_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["q"], "vector": [[1.0, 2.0]]}), tmp_path / "queries.parquet")
    with pytest.raises(
        InputError, match=r"passages\.parquet does not exist, expected Parquet with the columns text and vector"
    ):
        FixedTeacher.from_folder(tmp_path)
    pq.write_table(pa.table({"text": ["a", "b"], "vector": [[3.0, 4.0], [5.0, 6.0]]}), tmp_path / "passages.parquet")
    teacher = resolve_teacher(f"fixed:{tmp_path}")
    assert isinstance(teacher, FixedTeacher)
    assert teacher.name == f"fixed-{tmp_path.name}"
    assert teacher.encode(["b"], "passage").tolist() == [[5, 6]]


def test_a_pickled_fixed_teacher_says_that_its_vectors_stayed_behind() -> None:
    copy = pickle.loads(pickle.dumps(fixed()))
    with pytest.raises(TeacherError, match="stay in the process that made the teacher"):
        copy.encode(["a"], "passage")


# Random scores


def test_random_scores_are_uniform_and_depend_on_seed_and_texts_only() -> None:
    passages = [f"passage {i}" for i in range(2000)]
    queries = [f"query {i}" for i in range(20)]

    def score(seed: int, passages: list[str], queries: list[str]) -> FloatArray:
        return RandomTeacher(seed).index(pa.array(passages, pa.large_string())).scores(queries)

    scores = score(0, passages, queries)
    assert scores.shape == (20, 2000)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(np.histogram(scores, bins=10, range=(0, 1))[0] / scores.size, 0.1, atol=0.01)
    np.testing.assert_array_equal(score(0, passages[::-1], queries[3:4])[0], scores[3][::-1])
    assert abs(np.corrcoef(scores.reshape(-1), score(1, passages, queries).reshape(-1))[0, 1]) < 0.02
    assert RandomTeacher(1).fingerprint("query") != RandomTeacher(2).fingerprint("query")


def test_a_pickled_fixed_teacher_still_knows_its_stored_vectors() -> None:
    teacher = FixedTeacher(["q"], np.eye(1), ["p"], np.eye(1))
    copied = pickle.loads(pickle.dumps(teacher))
    assert copied.fingerprint("query") == teacher.fingerprint("query")
    assert copied.fingerprint("passage") == teacher.fingerprint("passage")


# Functions


def test_a_function_of_pairs_must_say_its_version() -> None:
    """Looked up in a table, every pair of a probe would score 0, whatever the table."""
    for version in (None, "", 2):
        with pytest.raises(InputError, match=r"ScoreFunction: version: .* such as version=\"1\".* no probe"):
            ScoreFunction(lambda queries, passages: [0.0] * len(queries), version=version)  # type: ignore[arg-type]
    one, other = (ScoreFunction(len, version=version).fingerprint("query") for version in "12")  # type: ignore[arg-type]
    assert one != other


def test_a_probe_that_says_nothing_asks_for_a_version() -> None:
    tables = ({"a": [1.0, 0.0]}, {"a": [0.0, 1.0]})
    looked_up = [lambda texts, table=table: [table.get(text, [0.0, 0.0]) for text in texts] for table in tables]
    for function in looked_up:
        with pytest.raises(InputError, match=r"EncodeFunction: function gives every probe text the same .*version="):
            EncodeFunction(function, label="function").fingerprint("query")
    one, other = (EncodeFunction(function, version=str(at)) for at, function in enumerate(looked_up))
    assert one.fingerprint("query") != other.fingerprint("query")


def lengths(texts: list[str]) -> list[list[int]]:
    ASKED.extend(texts)
    return [[len(text), 1] for text in texts]


ASKED: list[str] = []


def test_a_function_is_probed_whenever_it_is_asked_for() -> None:
    ASKED.clear()
    teacher = EncodeFunction(lengths)
    before = pickle.dumps(teacher)
    found = [teacher.fingerprint(role) for role in ("query", "passage", "query", "passage")]
    assert found[:2] == found[2:]
    assert len(ASKED) == 4 * len(PROBES)
    assert pickle.dumps(teacher) == before
    assert teacher == pickle.loads(before)
    assert hash(teacher) == hash(pickle.loads(before))
    assert pickle.loads(before).fingerprint("query") == found[0]


def test_a_function_whose_model_is_trained_is_another_one() -> None:
    weights = np.ones(3)
    teacher = EncodeFunction(lambda texts: np.array([[len(text), 1, 2] for text in texts]) * weights)
    first = teacher.fingerprint("query")
    weights[1] = 2
    assert teacher.fingerprint("query") != first
    weights[1] = 1
    assert teacher.fingerprint("query") == first
