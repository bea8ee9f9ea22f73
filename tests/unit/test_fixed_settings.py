"""What a miner keeps is kept under the settings and the teacher that made it: neither can change under its results."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hf_negmine import (
    BM25Teacher,
    Consistency,
    CrossSample,
    EncodeFunction,
    FixedTeacher,
    Mixed,
    NearDuplicates,
    NegativeMiner,
    RandomTeacher,
    Sampled,
    TopKAbs,
    Veto,
)
from hf_negmine.base.errors import FrozenError, InputError
from hf_negmine.pool import CandidatePool
from tests.unit.test_miner import ROWS, WordTeacher

MANY = 10**9


def words(tmp_path: Path, **settings: Any) -> NegativeMiner:
    return NegativeMiner(
        WordTeacher(),
        query_column="query",
        positive_column="positive",
        **{"cache_dir": tmp_path, "progress": False, "num_negatives": 2, **settings},
    )


OTHER_SETTINGS = {
    "teacher": RandomTeacher(),
    "method": TopKAbs(0.5),
    "sampler": Sampled(10),
    "filters": (Veto("bm25"),),
    "corpus": ["a passage"],
    "num_negatives": 8,
    "query_column": "id",
    "positive_column": "query",
    "corpus_column": "text",
    "corpus_config_name": "corpus",
    "format": "triplet",
    "rows_format": "flagembedding",
    "include_scores": True,
    "positive_score": "each",
    "include_positives": True,
    "on_exhausted": "keep",
    "pool_depth": 5,
    "seed": 7,
    "cache_dir": Path("elsewhere"),
    "device": "cpu",
    "first_pass": "float32",
    "progress": False,
    "num_negative": 3,  # a slip of the pen is not lost either
}


@pytest.mark.parametrize("fitted", [False, True])
def test_no_setting_can_be_assigned(tmp_path: Path, fitted: bool) -> None:
    miner = words(tmp_path)
    if fitted:
        miner.fit(ROWS)
    before = {key: value for key, value in vars(miner).items() if not key.startswith("_")}
    for one in (miner, copy.copy(miner), pickle.loads(pickle.dumps(miner))):
        for name, value in OTHER_SETTINGS.items():
            with pytest.raises(FrozenError, match=rf"{name} = .*settings are fixed.*miner.with_\({name}=…\)"):
                setattr(one, name, value)
    assert {key: value for key, value in vars(miner).items() if not key.startswith("_")} == before


def test_every_argument_of_the_miner_is_tried_above() -> None:
    assert set(inspect.signature(NegativeMiner).parameters) == set(OTHER_SETTINGS) - {"num_negative"}


def test_a_refused_assignment_leaves_the_cache_to_honest_miners(tmp_path: Path) -> None:
    miner = words(tmp_path).fit(ROWS)
    for name, value in OTHER_SETTINGS.items():
        with pytest.raises(FrozenError):
            setattr(miner, name, value)
    miner.mine(ROWS)
    for settings in ({"pool_depth": 5}, {"num_negatives": 4}, {"method": "abs:0.5"}):
        shared, alone = words(tmp_path, **settings), words(tmp_path / "alone", **settings)
        assert shared.mine(ROWS)[:] == alone.mine(ROWS)[:]


class Trained(WordTeacher):
    """A teacher that is trained while a miner holds it."""

    def train(self) -> None:
        self.weights = "2"

    def encode(self, texts: Any, role: Any) -> Any:
        vectors = super().encode(texts, role)
        return vectors if self.weights == "1" else vectors[:, ::-1] * np.linspace(1, 3, vectors.shape[1])


@pytest.mark.parametrize("together", [False, True])
def test_a_pool_is_not_deepened_by_a_teacher_that_has_changed(tmp_path: Path, together: bool) -> None:
    teacher = Trained()
    miner = NegativeMiner(
        CrossSample([teacher, RandomTeacher()]) if together else teacher,
        query_column="query",
        positive_column="positive",
        pool_depth=3,
        num_negatives=2,
        cache_dir=tmp_path,
        progress=False,
    ).fit(ROWS)
    pool = miner.pool
    files = {path: path.read_bytes() for path in (tmp_path / "pools").rglob("*.arrow")}
    teacher.train()
    with pytest.raises(InputError, match=r"no longer what it was at fit\(\).*call fit\(\) again"):
        pool.select("naive", n=12)
    assert {path: path.read_bytes() for path in (tmp_path / "pools").rglob("*.arrow")} == files
    assert miner.fit(ROWS).pool.select("naive", n=12).counts.min() == 12


def test_rows_that_come_later_are_not_mined_by_a_teacher_that_has_changed(tmp_path: Path) -> None:
    teacher = Trained()
    miner = NegativeMiner(teacher, num_negatives=2, cache_dir=tmp_path, progress=False)
    seen = ROWS.select_columns(["query", "positive"])
    miner.fit(seen)
    later = Dataset.from_dict({"query": ["what about tea"], "positive": ["answer 0 on tea"]})
    assert len(miner.mine(later)) == 1
    teacher.train()
    assert miner.mine(seen).num_rows == 30  # nothing is scored for these
    with pytest.raises(InputError, match="no longer what it was at fit"):
        miner.mine(later)


def test_nothing_that_a_miner_answers_later_comes_of_a_teacher_that_has_changed(tmp_path: Path) -> None:
    teacher = Trained()
    seen = ROWS.select_columns(["query", "positive"])
    miner = NegativeMiner(teacher, num_negatives=2, cache_dir=tmp_path, progress=False).fit(seen)
    pairs = miner.fitted.pairs_of(seen.with_format("arrow")[:2])
    teacher.train()
    stored = sorted((tmp_path / "vectors").rglob("*"))
    for ask in (
        miner.open_searcher,
        lambda: miner.mine_fresh(pairs),
        lambda: miner.vectors([ROWS[0]["positive"]]),
    ):
        with pytest.raises(InputError, match="no longer what it was at fit"):
            ask()
    assert sorted((tmp_path / "vectors").rglob("*")) == stored


FILTERS = [Veto("bm25", abstain_at=0), NearDuplicates(0.95), Veto(RandomTeacher(3), "abs:0.4")]


@pytest.mark.parametrize("positive_score", ["min", "each"])
@pytest.mark.parametrize("together", [False, True])
def test_filters_given_to_a_selection_do_what_those_of_a_miner_do(
    tmp_path: Path, positive_score: Any, together: bool
) -> None:
    teacher: Any = CrossSample([WordTeacher(), RandomTeacher()]) if together else WordTeacher()
    # RandomTeacher has no vectors that could be compared.
    filters = [one for one in FILTERS if not (together and isinstance(one, NearDuplicates))]
    settings: dict[str, Any] = {
        "query_column": "query",
        "positive_column": "positive",
        "positive_score": positive_score,
    }
    settings |= {"method": "naive", "cache_dir": tmp_path, "progress": False}
    with_filters = NegativeMiner(teacher, filters=filters, **settings).fit(ROWS).pool.select("naive", n=3)
    plain = NegativeMiner(teacher, **settings).fit(ROWS).pool.select("naive", n=3)
    given = NegativeMiner(teacher, **settings).fit(ROWS).pool.select("naive", n=3, filters=filters)
    assert given.passages.tolist() == with_filters.passages.tolist() != plain.passages.tolist()
    assert given.removed == with_filters.removed


def test_a_filter_is_bound_to_the_targets_of_its_selection(tmp_path: Path) -> None:
    pool = words(tmp_path).fit(ROWS).pool
    each = words(tmp_path, positive_score="each").fit(ROWS).pool
    selected = pool.select("naive", n=3, filters=FILTERS, positive_score="each")
    assert selected.passages.tolist() == each.select("naive", n=3, filters=FILTERS).passages.tolist()


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (["bm25"], "filters of candidates such as .*, got 'bm25'"),
        (Veto("bm25"), r"a list such as .*, got Veto\("),
        ([Veto], "filters of candidates such as .*, got <class"),
        ([Consistency(top_k=3)], r"filters of candidates such as .*, got Consistency\("),
        ([lambda listed: True], "filters of candidates such as .*, got <function"),
        (None, "a list such as .*, got None"),
    ],
)
def test_what_does_not_filter_candidates_is_refused(tmp_path: Path, filters: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"filters: expected {said}"):
        words(tmp_path).fit(ROWS).pool.select("naive", filters=filters)


def test_a_pool_without_its_texts_says_that_a_filter_needs_them(tmp_path: Path) -> None:
    words(tmp_path).fit(ROWS)
    (folder,) = (tmp_path / "pools").iterdir()
    with pytest.raises(InputError, match=r"veto by bm25.*needs the texts.*pool of a miner"):
        CandidatePool.load(folder).select("naive", filters=[Veto("bm25")])


@pytest.mark.parametrize("form", ["n-tuple", "triplet", "labeled-pair", "labeled-list", "ids"])
@pytest.mark.parametrize("settings", [{"num_negatives": MANY}, {"num_negatives": 10**18}])
def test_more_negatives_than_passages_are_refused_before_anything_is_laid_out(
    tmp_path: Path, form: Any, settings: dict[str, int]
) -> None:
    with pytest.raises(InputError, match=r"num_negatives: 1(,000)+ negatives .* corpus of 30 passages"):
        words(tmp_path, format=form, **settings).mine(ROWS)


@pytest.mark.parametrize("settings", [{"pool_depth": MANY}, {"sampler": Sampled(MANY)}, {"pool_depth": 10**18}])
def test_depths_beyond_the_corpus_cost_no_more_than_the_corpus(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert len(words(tmp_path, **settings).mine(ROWS)) == 30


def test_selecting_more_than_there_is_is_refused(tmp_path: Path) -> None:
    pool = words(tmp_path).fit(ROWS).pool
    with pytest.raises(InputError, match=r"n: 1(,000)+ negatives .* corpus of 30 passages"):
        pool.select("naive", n=MANY)


@pytest.mark.parametrize(
    ("column", "n", "form"),
    [
        ("negative_1", 2, "n-tuple"),
        ("negative_12", 12, "n-tuple"),
        ("negative_9", 12, "n-tuple"),
        ("negative", 2, "triplet"),
        ("label", 2, "labeled-pair"),
    ],
)
def test_a_column_that_the_format_writes_is_refused(tmp_path: Path, column: str, n: int, form: Any) -> None:
    with pytest.raises(InputError, match=rf"already has the column\(s\) \['{column}'\]"):
        words(tmp_path, num_negatives=n, format=form).mine(ROWS.rename_column("id", column))


@pytest.mark.parametrize(
    ("column", "form", "kept"),
    [
        ("negative", "triplet", False),
        ("labels", "labeled-list", False),
        ("negative", "n-tuple", True),
        ("negatives", "triplet", True),
    ],
)
def test_positives_in_a_column_with_a_name_of_negatives_are_kept_or_refused(
    tmp_path: Path, column: str, form: Any, kept: bool
) -> None:
    rows = ROWS.rename_column("positive", column)
    miner = words(tmp_path, num_negatives=1, format=form).with_(positive_column=column)
    if kept:
        assert set(miner.mine(rows)[column]) == set(rows[column])
        return
    with pytest.raises(InputError, match=rf"already has the column\(s\) \['{column}'\]"):
        miner.mine(rows)


@pytest.mark.parametrize("column", ["negative_3", "negative_10", "negative_01", "negative_0", "negative_", "2"])
def test_a_column_that_the_format_does_not_write_is_kept(tmp_path: Path, column: str) -> None:
    assert column in words(tmp_path, num_negatives=2).mine(ROWS.rename_column("id", column)).column_names


def test_a_function_that_encodes_belongs_to_its_miner(tmp_path: Path) -> None:
    vectors = EncodeFunction(lambda texts: WordTeacher().encode(texts, "query"), version="1")
    miner = NegativeMiner(vectors, num_negatives=1, cache_dir=tmp_path, progress=False)
    with pytest.raises(FrozenError):
        miner.teacher = RandomTeacher()  # type: ignore[misc]


@pytest.mark.parametrize("role", ["query", "passage"])
def test_vectors_that_were_written_to_are_another_teachers(tmp_path: Path, role: str) -> None:
    texts = {"query": list(dict.fromkeys(ROWS["query"])), "passage": ROWS["positive"]}
    vectors = {name: WordTeacher().encode(some, "query") for name, some in texts.items()}
    teacher = FixedTeacher(texts["query"], vectors["query"], texts["passage"], vectors["passage"])

    def mined(cache: Path) -> Any:
        settings: dict[str, Any] = {"query_column": "query", "positive_column": "positive", "method": "naive"}
        miner = NegativeMiner(teacher, cache_dir=cache, include_scores=True, progress=False, **settings)
        return miner.mine(ROWS)[:]

    first = mined(tmp_path / "shared")
    vectors[role][:, 0] *= -1
    assert mined(tmp_path / "shared") == mined(tmp_path / "honest") != first
    for array in vectors.values():
        array.setflags(write=False)
    assert FixedTeacher(texts["query"], vectors["query"], texts["passage"], vectors["passage"]).fingerprint(
        "query"
    ) == teacher.fingerprint("query")


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_negatives": np.int64(2), "pool_depth": np.int32(9), "seed": np.uint8(3)}
    plain = {name: int(value) for name, value in settings.items()}
    for more in ({}, {"filters": [Consistency(top_k=np.int64(20)), Veto("bm25", abstain_at=0, depth=np.int64(9))]}):
        mined = words(tmp_path / "numpy", **settings, **more).mine(ROWS)
        assert mined[:] == words(tmp_path / "plain", **plain, **more).mine(ROWS)[:]


def test_numbers_of_numpy_are_numbers_to_teachers_and_samplers_too(tmp_path: Path) -> None:
    k, seed, b = np.int64(3), np.int64(5), np.float64(0.5)
    for numpy, plain in [
        ({"sampler": Sampled(k, np.float32(0.5))}, {"sampler": "sampled:3@0.5"}),
        ({"sampler": Mixed(np.int64(1), np.int64(1), k)}, {"sampler": Mixed(1, 1, 3)}),
        ({"teacher": RandomTeacher(seed)}, {"teacher": RandomTeacher(5)}),
        ({"teacher": BM25Teacher(b=b)}, {"teacher": BM25Teacher(b=0.5)}),
    ]:
        options: dict[str, Any] = {"teacher": WordTeacher(), "method": "naive", "num_negatives": 2, "progress": False}
        options |= {"query_column": "query", "positive_column": "positive"}
        mined = [
            NegativeMiner(**options | some, cache_dir=tmp_path / name).mine(ROWS)[:]
            for name, some in (("numpy", numpy), ("plain", plain))
        ]
        assert mined[0] == mined[1]


@pytest.mark.parametrize(
    "settings", [{"pool_depth": 10**30}, {"num_negatives": 10**30}, {"method": f"shifted:{10**30}"}]
)
def test_a_number_that_nothing_can_count_to_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"10{20,}"):
        words(tmp_path, **settings).mine(ROWS)


@pytest.mark.parametrize("kind", ["veto", "near duplicates"])
def test_new_rows_are_not_mined_under_a_filter_whose_teacher_has_changed(tmp_path: Path, kind: str) -> None:
    teacher = Trained()
    rule = Veto(teacher, "abs:0.9") if kind == "veto" else NearDuplicates(0.99, teacher=teacher)
    miner = NegativeMiner("bm25", method="naive", filters=[rule], num_negatives=2, cache_dir=tmp_path, progress=False)
    miner.fit(ROWS.select_columns(["query", "positive"]))
    later = Dataset.from_dict({"query": ["what about tea"], "positive": ["answer 0 on tea"]})
    assert len(miner.mine(later)) == 1
    teacher.train()
    with pytest.raises(InputError, match=r"a filter is no longer what it was at fit\(\).*call fit\(\) again"):
        miner.mine(later)


def test_a_copy_does_not_open_the_pool_of_a_teacher_that_has_changed(tmp_path: Path) -> None:
    again = pickle.loads(pickle.dumps(words(tmp_path).fit(ROWS)))
    assert again.pool.n_queries == 24
    other = pickle.loads(pickle.dumps(again))
    other.config.teacher.weights = "2"
    with pytest.raises(InputError, match="no longer what it was at fit"):
        _ = other.pool
