"""Every kind of teacher through the whole miner: `map`, `mine`, new rows, second runs, crashes, settings, errors."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, IterableDataset

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError, TeacherError
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.protocols import Role, SparseVectors, Teacher, TokenVectors
from hf_negmine.base.schema import FloatArray
from hf_negmine.select.ensembles import CrossSample, IntraSample
from hf_negmine.teachers import (
    APITeacher,
    ApproximateTeacher,
    BM25Teacher,
    EncodeFunction,
    Fusion,
    RandomTeacher,
    ScoreFunction,
    identity_of,
    resolve_teacher,
    settings_of,
    teacher_of_settings,
)
from tests.forks import exit_of, forking, forks
from tests.thorough import sample

MADE: Counter[str] = Counter()
"""What teachers were asked to make, since it was cleared."""


@functools.cache
def numbers_of(text: str, count: int) -> Any:
    """Small whole numbers, so that sums are exact in any order."""
    return np.random.default_rng(text_digests(pa.array([text]))[0]).integers(-4, 5, count)


@functools.cache
def vector_of(text: str) -> Any:
    return 2 * numbers_of(text.split()[-1], 6) + numbers_of(text, 6)


def encode(texts: list[str]) -> list[Any]:
    MADE.update(f"vector of {text}" for text in texts)
    return [vector_of(text) for text in texts]


def score(queries: list[str], passages: list[str]) -> list[float]:
    """Some of the scores are negative, many are equal."""
    MADE.update(f"score of {query} | {passage}" for query, passage in zip(queries, passages, strict=True))
    return [
        float(vector_of(query) @ vector_of(passage)) / 8 + float(numbers_of(query + passage, 1)[0])
        for query, passage in zip(queries, passages, strict=True)
    ]


@dataclass(frozen=True)
class SparseWords:
    name: str = "sparse-words"

    def fingerprint(self, role: Role) -> str:
        return digest_of("sparse words", role)

    def encode_sparse(self, texts: Sequence[str], role: Role) -> SparseVectors:
        MADE.update(f"sparse vector of {text}" for text in texts)
        rows = [{*text.split(), text} for text in texts]
        terms = [sorted({int(text_digests(pa.array([word]))[0, 0] % 50) for word in row}) for row in rows]
        flat = np.array([term for row in terms for term in row])
        return SparseVectors(np.cumsum([0] + [len(row) for row in terms]), flat, 1 + flat % 3)


@dataclass(frozen=True)
class TokenWords:
    name: str = "token-words"
    first_stage: Any = None
    candidates: int = 25

    def fingerprint(self, role: Role) -> str:
        return digest_of("token words", role)

    def encode_tokens(self, texts: Sequence[str], role: Role) -> TokenVectors:
        MADE.update(f"tokens of {text}" for text in texts)
        rows = [[*text.split(), text] for text in texts]
        return TokenVectors(
            np.cumsum([0] + [len(row) for row in rows]),
            np.stack([vector_of(word) for row in rows for word in row]).astype(np.float32),
        )


def dense() -> EncodeFunction:
    return EncodeFunction(encode, similarity="dot", version="1", label="dense")


def pairs(**settings: Any) -> ScoreFunction:
    return ScoreFunction(score, **{"candidates": 30, "version": "1", "label": "pairs", **settings})


def over(index: str, teacher: Any = None, **settings: Any) -> ApproximateTeacher:
    return ApproximateTeacher(dense() if teacher is None else teacher, index, **settings)


KINDS: dict[str, Callable[[], Any]] = {
    "vectors": dense,
    "cosines": lambda: EncodeFunction(encode, version="1"),
    "pairs": pairs,
    "sparse": SparseWords,
    "tokens": TokenWords,
    "tokens over bm25": lambda: TokenWords(first_stage="bm25"),
    "rrf": lambda: Fusion([dense(), SparseWords(), "bm25"]),
    "sum": lambda: Fusion([dense(), SparseWords(), "bm25"], "sum", weights=[1, 2, 1]),
    "pairs over a fusion": lambda: pairs(first_stage=Fusion([dense(), "bm25"])),
    "pairs over tokens over sparse": lambda: pairs(first_stage=TokenWords(first_stage=SparseWords())),
    "cross-sample": lambda: CrossSample([dense(), pairs(), "bm25"]),
    "intra-sample": lambda: IntraSample([dense(), TokenWords(), "bm25"]),
    "graph": lambda: over("HNSW8"),
    "clusters": lambda: over("IVF4,Flat", candidates=30),
    "pairs over clusters": lambda: pairs(first_stage=over("IVF4,Flat@nprobe=1", candidates=60)),
    "cross-sample of a graph": lambda: CrossSample([over("HNSW8"), SparseWords()]),
}
kinds = pytest.mark.parametrize("kind", KINDS)
some_kinds = pytest.mark.parametrize("kind", sample(KINDS, 2))

TOPICS = ("tea", "ice", "oak", "sun", "sea")
CORPUS = [f"remark {number} on {TOPICS[number % 5]}" for number in range(280)]
QUESTIONS = [f"question {number} about remark {number % 9} on {TOPICS[number % 5]}" for number in range(24)]


def positive_of(query: str) -> str:
    """The fifth best passage by the vectors."""
    return sorted(CORPUS, key=lambda text: -int(vector_of(query) @ vector_of(text)))[4]


ROWS = Dataset.from_dict({"id": list(range(24)), "query": QUESTIONS, "positive": list(map(positive_of, QUESTIONS))})
"""Every query has one positive, which the corpus holds."""


def miner_in(folder: Path, teacher: Any, **settings: Any) -> NegativeMiner:
    given: dict[str, Any] = {
        "corpus": CORPUS,
        "method": "perc_pos:0.95",
        "sampler": "sampled:6",
        "num_negatives": 3,
        "pool_depth": 4,
        "on_exhausted": "keep",
        "query_column": "query",
        "positive_column": "positive",
        "include_scores": not isinstance(teacher, IntraSample),
    }
    given |= settings
    return NegativeMiner(teacher, cache_dir=folder, device="cpu", progress=False, **given)


def miner_of(kind: str, folder: Path, **settings: Any) -> NegativeMiner:
    return miner_in(folder, KINDS[kind](), **settings)


def listed(rows: Any) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: int(row["id"]))


def mapped(rows: Any, miner: NegativeMiner, **options: Any) -> list[dict[str, Any]]:
    if isinstance(rows, Dataset):
        options["load_from_cache_file"] = False
    return list(rows.map(miner, batched=True, features=miner.features(ROWS), **options))


# ---- the same rows whatever the way --------------------------------------------------------------------------------


@kinds
def test_map_and_mine_and_any_order_give_the_same_rows(tmp_path: Path, kind: str) -> None:
    miner = miner_of(kind, tmp_path / "a")
    expected = list(miner.mine(ROWS))
    chosen = [row["negative_3"] for row in expected]
    assert sum(text is not None for text in chosen) > len(ROWS) / 2
    assert mapped(ROWS, miner, batch_size=7) == expected
    assert listed(miner_of(kind, tmp_path / "b").mine(ROWS.shuffle(seed=5))) == expected
    for row in expected:
        negatives = [row[f"negative_{number}"] for number in range(1, 4)]
        assert row["positive"] not in negatives
        if "scores" in row:
            positive = row["scores"][0]
            assert all(score < positive - 0.05 * abs(positive) + 1e-6 for score in row["scores"][1:])


@forks
@some_kinds
def test_rows_that_come_after_a_fit_on_the_corpus_are_mined_alike(tmp_path: Path, kind: str) -> None:
    expected = list(miner_of(kind, tmp_path / "a").mine(ROWS))
    later = miner_of(kind, tmp_path / "b").fit(corpus=CORPUS)
    assert list(later.mine(ROWS)) == expected
    assert mapped(IterableDataset.from_generator(lambda: iter(ROWS)), later, batch_size=7) == expected
    half = miner_of(kind, tmp_path / "b").fit(ROWS.select(range(0, 24, 2)))
    processes = 2 if kind in ("vectors", "cross-sample", "graph") else None
    assert mapped(ROWS, half, batch_size=5, num_proc=processes) == expected  # some are looked up, some mined on the fly


@some_kinds
def test_a_second_run_asks_no_teacher_again(tmp_path: Path, kind: str) -> None:
    MADE.clear()
    expected = list(miner_of(kind, tmp_path).mine(ROWS))
    assert not MADE or max(MADE.values()) <= 1 + ("cosines" in kind)  # texts that are a query and a passage
    if "bm25" not in kind:
        assert MADE
    MADE.clear()
    shutil.rmtree(tmp_path / "pools")
    shutil.rmtree(tmp_path / "fits")
    assert list(miner_of(kind, tmp_path).mine(ROWS)) == expected
    miner_of(kind, tmp_path, method="margin_pos:0.5", sampler="top").fit(ROWS)
    assert not MADE


@some_kinds
def test_a_pickled_miner_reopens_its_pools(tmp_path: Path, kind: str) -> None:
    miner = miner_of(kind, tmp_path)
    expected = list(miner.mine(ROWS))
    again = pickle.loads(pickle.dumps(miner))
    assert mapped(ROWS, again, batch_size=11) == expected
    one, other = (each.pool.select("band:1-20", n=9) for each in (miner, again))  # deeper than the pool
    assert (one.counts == 9).all()
    assert one.passages.tolist() == other.passages.tolist()
    assert one.scores.tolist() == other.scores.tolist()
    assert again.summary.settings == miner.summary.settings


def test_a_pair_that_two_queries_share_is_scored_once(tmp_path: Path) -> None:
    """Positives are among the pairs, and pairs of several steps are put back in their places."""
    MADE.clear()
    miner_in(tmp_path, pairs()).fit(ROWS)
    assert len(MADE) > 24 * 30 - 1
    assert len(MADE) <= 24 * 31
    assert set(MADE.values()) == {1}
    MADE.clear()
    miner_in(tmp_path, pairs(candidates=40)).fit(ROWS)
    assert 0 < len(MADE) <= 24 * 10
    assert set(MADE.values()) == {1}


def test_scores_of_a_query_side_that_changed_are_not_reused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Prompted:
        prompt: str
        name: str = "prompted"
        first_stage: Any = "bm25"
        candidates: int = 10

        def fingerprint(self, role: Role) -> str:
            return digest_of("prompted", self.prompt if role == "query" else "")

        def score(self, queries: Sequence[str], passages: Sequence[str]) -> FloatArray:
            return np.array(score([self.prompt + query for query in queries], list(passages)))

    def mined(prompt: str, folder: str) -> list[Any]:
        return list(miner_in(tmp_path / folder, Prompted(prompt), method="naive").mine(ROWS))

    assert mined("one: ", "a") != mined("two: ", "a")
    assert mined("two: ", "a") == mined("two: ", "b")


# ---- killed ----------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """What lasts, but for times and the names of the files of runs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "fit.json" and path.suffix != ".pairs"
    }


def mine_in_a_fork(folder: Path, log: Path, dies_at: int | None) -> int:
    """Mine, note every pair that is scored, and perhaps die while a step is scored; the exit code."""
    steps = 0

    def noted(queries: list[str], passages: list[str]) -> list[float]:
        nonlocal steps
        with log.open("a") as file:
            file.writelines(f"{query} | {passage}\n" for query, passage in zip(queries, passages, strict=True))
        if steps == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return score(queries, passages)

    miner = miner_in(folder, ScoreFunction(noted, candidates=30, version="1", label="pairs"))
    return exit_of(lambda: miner.mine(ROWS))


@forking
@pytest.mark.parametrize("dies_at", [0, 1, 7])
def test_killed_while_pairs_are_scored_it_goes_on_with_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    monkeypatch.setattr("hf_negmine.search.pairwise.PAIRS_A_STEP", 64)
    assert mine_in_a_fork(tmp_path / "whole", tmp_path / "whole.txt", None) == 0
    assert mine_in_a_fork(tmp_path / "cache", tmp_path / "log.txt", dies_at) == -signal.SIGKILL
    killed = (tmp_path / "log.txt").read_text().splitlines()
    assert len(killed) == 64 * (dies_at + 1)
    assert mine_in_a_fork(tmp_path / "cache", tmp_path / "log.txt", None) == 0
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")
    scored = Counter((tmp_path / "log.txt").read_text().splitlines())
    assert scored.keys() == set((tmp_path / "whole.txt").read_text().splitlines())
    assert {pair for pair, times in scored.items() if times > 1} == set(killed[-64:])
    assert max(scored.values()) == 2


# ---- what the settings say -----------------------------------------------------------------------------------------


def pool_keys(folder: Path, teacher: Any, **settings: Any) -> tuple[str, ...]:
    return miner_in(folder, teacher, **settings).fit(ROWS).fitted.pool_keys


def test_whatever_changes_candidates_or_scores_makes_another_pool(tmp_path: Path) -> None:
    makers: dict[str, Callable[[], tuple[str, ...]]] = {
        "pairs": lambda: pool_keys(tmp_path, pairs()),
        "more candidates": lambda: pool_keys(tmp_path, pairs(candidates=31)),
        "another version": lambda: pool_keys(tmp_path, pairs(version="2")),
        "another first stage": lambda: pool_keys(tmp_path, pairs(first_stage=SparseWords())),
        "other settings of the first stage": lambda: pool_keys(tmp_path, pairs(first_stage=BM25Teacher(k1=1.2))),
        "another stage of the first stage": lambda: pool_keys(tmp_path, pairs(first_stage=TokenWords())),
        "and another": lambda: pool_keys(tmp_path, pairs(first_stage=TokenWords(first_stage="bm25"))),
        "fewer of the first stage": lambda: pool_keys(tmp_path, pairs(first_stage=TokenWords(candidates=20))),
        "rrf": lambda: pool_keys(tmp_path, Fusion([dense(), "bm25"])),
        "sum": lambda: pool_keys(tmp_path, Fusion([dense(), "bm25"], "sum")),
        "weights": lambda: pool_keys(tmp_path, Fusion([dense(), "bm25"], weights=[1, 2])),
        "rank constant": lambda: pool_keys(tmp_path, Fusion([dense(), "bm25"], rank_constant=10)),
        "order": lambda: pool_keys(tmp_path, Fusion(["bm25", dense()])),
        "dense": lambda: pool_keys(tmp_path, dense()),
        "graph": lambda: pool_keys(tmp_path, over("HNSW8")),
        "search of the graph": lambda: pool_keys(tmp_path, over("HNSW8@efSearch=32")),
        "more of the graph": lambda: pool_keys(tmp_path, over("HNSW8", candidates=257)),
        "clusters": lambda: pool_keys(tmp_path, over("IVF4,Flat")),
        "clusters of cosines": lambda: pool_keys(tmp_path, over("IVF4,Flat", EncodeFunction(encode, version="1"))),
    }
    keys = {name: make() for name, make in makers.items()}
    assert len(set(keys.values())) == len(keys)
    assert all(keys[name] == makers[name]() for name in ("pairs", "and another", "weights", "graph"))


def test_the_summary_says_what_stands_on_what(tmp_path: Path) -> None:
    teacher = pairs(first_stage=Fusion([dense(), "bm25"], weights=[3, 1]), candidates=20)
    settings = json.loads(json.dumps(miner_in(tmp_path, teacher).fit(ROWS).summary.settings))
    assert (settings["teacher"], settings["candidates"]) == ("pairs", 20)
    (fusion,) = settings["stages"]
    assert fusion["teacher"] == "rrf(dense, bm25-english)"
    assert [stage["teacher"] for stage in fusion["stages"]] == ["dense", "bm25-english"]
    assert fusion["stages"][0]["similarity"] == "dot"
    fingerprints = {"query": teacher.fingerprint("query"), "passage": teacher.fingerprint("passage")}
    assert settings["teacher_fingerprints"] == fingerprints
    assert settings == {**settings, **json.loads(json.dumps(identity_of(resolve_teacher(teacher))))}

    assert miner_in(tmp_path, teacher).fit(ROWS).summary.recall is None

    approximate = miner_in(tmp_path, pairs(first_stage=over("IVF4,Flat@nprobe=1", candidates=60))).fit(ROWS)
    (stage,) = approximate.summary.settings["stages"]
    assert (stage["teacher"], stage["candidates"]) == ("faiss:IVF4,Flat@nprobe=1:dense", 60)
    assert stage["stages"][0]["teacher"] == "dense"
    assert approximate.summary.recall is not None
    assert 0 < approximate.summary.recall["faiss:IVF4,Flat@nprobe=1:dense"] <= 1
    assert "faiss:IVF4,Flat@nprobe=1:dense finds" in str(approximate.summary)


TEACHERS_OF_SETTINGS: dict[str, Callable[[], Teacher]] = {
    "bm25": lambda: BM25Teacher("german", k1=1.2, b=0.5, variant="bm25+"),
    "random": lambda: RandomTeacher(-3),
    "rrf": lambda: Fusion(["bm25", "random:3"], rank_constant=7),
    "sum": lambda: Fusion(["bm25", "random:3", "random:4"], "sum", weights=[0.1, 7, 1 / 3]),
    "nested": lambda: Fusion([Fusion(["bm25", "random"], weights=[0.9, 0.05]), "random:1"], weights=[1e-3, 99]),
}


@pytest.mark.parametrize("make", TEACHERS_OF_SETTINGS.values(), ids=TEACHERS_OF_SETTINGS)
def test_settings_make_the_same_teacher_again(make: Callable[[], Teacher]) -> None:
    teacher = make()
    again = teacher_of_settings(json.loads(json.dumps(settings_of(teacher))))
    assert identity_of(again) == identity_of(teacher)
    assert settings_of(again) == settings_of(teacher)
    assert type(again) is type(teacher)
    if isinstance(teacher, Fusion):
        tables = [np.random.default_rng(seed).normal(size=(3, 9)).astype(np.float32) for seed in range(3)]
        tables = tables[: len(teacher.stages)]
        np.testing.assert_array_equal(again.fuse(tables), teacher.fuse(tables))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (None, "one of kind 'custom' cannot be made"),
        ({"kind": "api", "model": "m", "base_url": "http://elsewhere"}, "one of kind 'api' cannot be made"),
        ({"kind": "fixed"}, "one of kind 'fixed' cannot be made"),
        ({"kind": "bm25", "language": "english", "more": 1}, "not known to this version.*more"),
        ({"kind": "random", "sead": 1}, "not known to this version.*sead"),
        (
            {"kind": "fusion", "how": "rrf", "stages": [{"kind": "random"}] * 2, "trust_remote_code": True},
            "not known to",
        ),
        ({"kind": "fusion", "stages": [{"kind": "random"}, None]}, "one of kind 'custom'"),
        ({"kind": "fusion", "stages": [{"kind": "random"}, {"kind": "api"}]}, "one of kind 'api'"),
        ({"kind": "fusion"}, "two teachers or more, got 0"),
        ({"kind": "fusion", "stages": [{"kind": "random"}], "teachers": ["bm25"]}, "not known to this version"),
        ({"kind": "cross-encoder", "model": "m"}, "not known to this version"),
        ({"kind": "cross-encoder", "model": "m", "trust_remote_code": True, "stages": [{"kind": "bm25"}]}, "trust_rem"),
        ({"kind": "sparse", "model": "m", "device": "cpu"}, "unknown: .'device'."),
        ({"kind": "late-interaction", "model": "m", "name": "n"}, "unknown: .'name'."),
        ({"kind": "dense"}, "not known to this version"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str((value or {}).get("kind")),
)
def test_settings_that_make_no_teacher_are_refused(settings: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        teacher_of_settings(settings)


def test_teachers_of_ones_own_have_no_settings() -> None:
    assert settings_of(pairs()) is None
    settings = settings_of(Fusion([dense(), "bm25"]))
    assert settings is not None
    assert settings["stages"][0] is None
    with pytest.raises(InputError, match="one of kind 'custom'"):
        teacher_of_settings(settings)
    with pytest.raises(InputError, match="one of kind 'api'"):
        teacher_of_settings(settings_of(APITeacher("m", base_url="http://127.0.0.1:1")))


# ---- errors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reranker:
    """A pair teacher of one's own, which checks nothing."""

    first_stage: Any = "bm25"
    candidates: Any = 10
    answer: Callable[[int], Any] = np.zeros
    name: ClassVar[str] = "mine"

    def fingerprint(self, role: Role) -> str:
        return "mine"

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> Any:
        return self.answer(len(queries))


@pytest.mark.parametrize(
    "make", [pairs, TokenWords, Reranker, lambda: over("Flat")], ids=["pairs", "tokens", "one's own", "index"]
)
def test_a_fusion_needs_the_score_of_every_passage(make: Callable[[], Any]) -> None:
    message = "it needs the score of every passage, and .* only scores candidates; a fusion takes teachers that search"
    with pytest.raises(InputError, match=message):
        Fusion(["bm25", make()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teachers": ["bm25"]}, "Fusion: two teachers or more, got 1"),
        ({"teachers": "bm25"}, r"Fusion: teachers: expected a list such as \['bm25', .*, got 'bm25'"),
        ({"teachers": None}, "Fusion: teachers: expected a list such as"),
        ({"weights": 3}, "2 teachers need as many positive weights, got 3"),
        ({"weights": ["a", 1]}, r"2 teachers need as many positive weights, got \['a', 1\]"),
        ({"how": "mean"}, "Fusion: how: 'mean' is not among"),
        ({"weights": [1]}, r"2 teachers need as many positive weights, got \[1\]"),
        ({"weights": [1, 0]}, r"positive weights, got \[1, 0\]"),
        ({"weights": [1, float("nan")]}, "positive weights"),
        ({"rank_constant": -1}, "rank_constant: a whole number, at least 0, got -1"),
        ({"rank_constant": 1.5}, "rank_constant: a whole number, at least 0, got 1.5"),
    ],
    ids=["one", "text", "none", "number", "words", "how", "few weights", "zero", "nan", "negative", "half"],
)
def test_a_fusion_says_what_it_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Fusion(**{"teachers": ["bm25", "random"], **arguments})


@pytest.mark.parametrize(
    "make",
    [
        lambda: "bm25",
        SparseWords,
        TokenWords,
        lambda: pairs(first_stage="bm25"),
        lambda: Fusion([dense(), "bm25"]),
        lambda: over("Flat"),
        lambda: CrossSample(["bm25", "random"]),
    ],
    ids=["bm25", "sparse", "tokens", "pairs over bm25", "fusion", "index", "ensemble"],
)
def test_an_index_is_for_dense_teachers(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=r"has no vector per passage to index|is not a model"):
        over("HNSW8", make())


@pytest.mark.parametrize("make", [pairs, Reranker, TokenWords], ids=["pairs", "one's own", "tokens"])
@pytest.mark.parametrize(
    ("first_stage", "message"),
    [
        (5, "first_stage of .*: teacher 5 is not a model"),
        ("", "first_stage of .*: teacher: it is empty"),
        (BM25Teacher, "first_stage of .*: teacher <class .* is not a model"),
        ("bm25:klingon", "first_stage of .*: BM25: language 'klingon'"),
        (CrossSample(["bm25", "random"]), "first_stage of .*: teacher CrossSample.* is not a model"),
    ],
    ids=["number", "empty", "class", "language", "ensemble"],
)
def test_a_first_stage_that_is_none_is_an_error(tmp_path: Path, make: Any, first_stage: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        miner_in(tmp_path, make(first_stage=first_stage))


def test_a_pair_teacher_needs_a_first_stage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="first_stage of mine: teacher None is not a model"):
        miner_in(tmp_path, Reranker(first_stage=None))


@pytest.mark.parametrize("candidates", [0, -1, 2.5, None])
def test_candidates_are_at_least_one(tmp_path: Path, candidates: Any) -> None:
    message = f"candidates of .*: a whole number, at least 1, got {candidates}"
    for make in (Reranker, TokenWords):
        with pytest.raises(InputError, match=message):
            miner_in(tmp_path, make(candidates=candidates))
    with pytest.raises(InputError, match=f"candidates: a whole number, at least 1, got {candidates}"):
        pairs(candidates=candidates)


@pytest.mark.parametrize("method", ["encode", "index", "encode_sparse", "encode_tokens", "score", "fuse"])
def test_a_teacher_that_lacks_something_is_told_what_is_needed(tmp_path: Path, method: str) -> None:
    """One that has nothing besides a name, and one that has a method and no fingerprint."""

    class Bare:
        name = "bare"

    setattr(Bare, method, lambda self, *arguments: None)
    with pytest.raises(InputError, match="lacks what a teacher needs: name, fingerprint") as caught:
        miner_in(tmp_path, Bare())
    assert f"{method}(" in str(caught.value)
    with pytest.raises(InputError, match="lacks what a teacher needs"):
        CrossSample(["bm25", Bare()])
    with pytest.raises(InputError, match="lacks what a teacher needs"):
        Fusion(["bm25", Bare()])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: np.zeros(n + 1), r"'mine' gave an array of float64 with shape \(\d+,\) for \d+ pairs, expected"),
        (lambda n: np.zeros((n, 1)), r"with shape \(\d+, 1\) for"),
        (lambda n: 1.0, r"with shape \(\) for"),
        (lambda n: None, r"an array of object with shape \(\)"),
        (lambda n: ["high"] * n, r"an array of <U4"),
        (lambda n: np.full(n, np.nan), "'mine' gave the score nan to the query 'question .*' with the passage 'remark"),
        (lambda n: np.full(n, -np.inf), "gave the score -inf to the query"),
        (lambda n: np.full(n, 1e300), "gave the score inf to the query"),
    ],
    ids=["one too many", "a table", "a number", "nothing", "words", "nan", "infinity", "beyond float32"],
)
def test_scores_that_are_none_are_refused(tmp_path: Path, answer: Callable[[int], Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        miner_in(tmp_path, Reranker(answer=answer)).fit(ROWS)
    later = miner_in(tmp_path, Reranker(answer=answer)).fit(corpus=CORPUS)
    with pytest.raises(TeacherError, match=message):
        later.mine(ROWS)
