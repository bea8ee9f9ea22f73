"""BM25 with a tokenizer of the user's, and what is said when it finds nothing."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from hf_negmine import BM25Teacher, CrossSample, NegativeMiner, ScoreFunction, Veto
from hf_negmine.base.errors import InputError, StorageError, TeacherError
from hf_negmine.commands.cli import app
from hf_negmine.teachers import bm25, settings_of, teacher_of_settings

QUERIES = ["what do otters eat", "how is bread baked", "why do strings break", "when are taxes due"]
ANSWERS = ["Otters eat fish.", "Bread is baked in an oven.", "Strings break when tight.", "Taxes are due in spring."]
FOREIGN = ["Fischotter fressen Fische.", "Der Teig kommt in den Ofen.", "Saiten reissen.", "Die Steuer im Lenz."]
CORPUS = ["Otters sleep in dens.", "Bread has a crust.", "Strings go out of tune.", "Taxes are filed online."]
MOST_ARE_ZERO = r"teacher 'bm25-english' scores 3 of 4 positives 0, .* 'bm25:german', or a tokenizer="


def by_dashes(text: str) -> list[str]:
    return text.split("-")


def by_spaces(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def rows_of(positives: list[str]) -> Dataset:
    return Dataset.from_dict({"query": QUERIES, "answer": positives})


def miner_of(teacher: Any, folder: Path, **settings: Any) -> NegativeMiner:
    given = {"corpus": CORPUS, "num_negatives": 1, "method": "naive", "cache_dir": folder, "progress": False}
    return NegativeMiner(teacher, **{**given, **settings})


# A tokenizer


def test_a_tokenizer_takes_the_place_of_the_splitting_only() -> None:
    teacher = BM25Teacher(tokenizer=by_dashes, version="1")
    assert teacher.name == "bm25-english-by_dashes"
    passages = pa.array(["Otters-the-fish", "a new-york-cab", "running"], pa.large_string())
    scores = teacher.index(passages).scores(["OTTER", "a new", "new", "the", "runs-cabs"])
    assert (scores > 0).tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, False],
        [False, False, False],
        [False, True, True],
    ]
    assert BM25Teacher(None, tokenizer=by_dashes, version="1").index(passages).scores(["the"])[0, 0] > 0


def test_a_tokenizer_needs_a_version_and_a_version_a_tokenizer() -> None:
    for version in (None, "", 2):
        with pytest.raises(InputError, match=r'BM25: version: a text such as version="1" .*no probe'):
            BM25Teacher(tokenizer=by_dashes, version=version)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="BM25: version: '1' is for a tokenizer, and none was given"):
        BM25Teacher(version="1")
    with pytest.raises(InputError, match=r"BM25: tokenizer: a function .* got 'jieba'"):
        BM25Teacher(tokenizer="jieba", version="1")  # type: ignore[arg-type]


def test_tokenizers_and_their_versions_are_told_apart() -> None:
    teachers = [
        BM25Teacher(),
        BM25Teacher(tokenizer=by_dashes, version="1"),
        BM25Teacher(tokenizer=by_dashes, version="2"),
        BM25Teacher(tokenizer=by_spaces, version="1"),  # type: ignore[arg-type]
    ]
    assert len({teacher.fingerprint("query") for teacher in teachers}) == 4


@pytest.mark.parametrize(
    ("tokenizer", "given"),
    [
        (lambda text: None, "None"),
        (str.lower, "'one text'"),
        (lambda text: [101, 102], r"\[101, 102\]"),
        (lambda text: {"input_ids": [1]}, r"\{'input_ids': \[1\]\}"),
        (lambda text: (word for word in text.split()), "<generator"),
        (len, "8"),
    ],
)
def test_a_tokenizer_that_gives_something_else_is_an_error(tokenizer: Callable[[str], Any], given: str) -> None:
    teacher = BM25Teacher(tokenizer=tokenizer, version="1")
    with pytest.raises(TeacherError, match=f"gave {given}.* for 'one text', expected a list of words, each a str"):
        teacher.index(pa.array(["one text"], pa.large_string()))


def test_a_tokenizer_is_pickled_and_mines_in_other_processes(tmp_path: Path) -> None:
    teacher = BM25Teacher(tokenizer=by_spaces, version="1")  # type: ignore[arg-type]
    before = pickle.dumps(teacher)
    passages = pa.array(ANSWERS, pa.large_string())
    scores = teacher.index(passages).scores(QUERIES)
    assert pickle.dumps(teacher) == before, "use leaves no trace in what map() hashes"
    copied = pickle.loads(before)
    assert copied == teacher
    np.testing.assert_array_equal(copied.index(passages).scores(QUERIES), scores)
    rows = rows_of(ANSWERS)
    miner = miner_of(teacher, tmp_path).fit(rows)
    assert rows.map(pickle.loads(pickle.dumps(miner)), batched=True)["negative_1"] == miner.mine(rows)["negative_1"]


def test_settings_cannot_make_a_tokenizer() -> None:
    settings = settings_of(BM25Teacher(tokenizer=by_dashes, version="1"))
    with pytest.raises(InputError, match="cannot be made from its settings; give it as teacher="):
        teacher_of_settings(settings)
    assert teacher_of_settings(settings_of(BM25Teacher("german"))) == BM25Teacher("german")
    with pytest.raises(InputError, match="BM25: tokenizer: a function"):
        teacher_of_settings({"kind": "bm25", "tokenizer": "os.system", "version": "1"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "okapi"}, "BM25: variant: 'okapi' is not among .*'lucene'"),
        ({"k1": -1}, "BM25: k1: a number of at least 0, got -1"),
        ({"k1": "1.5"}, "BM25: k1: a number of at least 0, got '1.5'"),
        ({"k1": float("nan")}, "BM25: k1: a number of at least 0, got nan"),
        ({"b": 1.5}, "BM25: b: a number of at least 0 and at most 1, got 1.5"),
    ],
)
def test_a_wrong_setting_is_an_error_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BM25Teacher(**settings)


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire", "bm25l", "bm25+"])
def test_extreme_settings_give_finite_scores(variant: Any) -> None:
    for k1, b in ((0, 0.0), (0.0, 1.0), (1e6, 1)):
        teacher = BM25Teacher(None, k1=k1, b=b, variant=variant)
        assert np.isfinite(teacher.index(pa.array([*ANSWERS, ""], pa.large_string())).scores(QUERIES)).all()


def test_a_full_folder_for_temporary_files_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bm25.np, "save", full)
    with pytest.raises(StorageError, match=r"BM25: no room .* 4 passages .*No space left.* set TMPDIR"):
        BM25Teacher().index(pa.array(ANSWERS, pa.large_string()))


# A warning


MOSTLY_FOREIGN = [ANSWERS[0], *FOREIGN[1:]]


def test_a_fit_says_that_most_positives_score_zero(tmp_path: Path) -> None:
    for _ in range(2):  # also when the pool is there already
        with pytest.warns(UserWarning, match=MOST_ARE_ZERO):
            miner_of("bm25", tmp_path).fit(rows_of(MOSTLY_FOREIGN))


def test_so_does_a_veto_and_a_teacher_of_an_ensemble(tmp_path: Path) -> None:
    rows = rows_of(MOSTLY_FOREIGN)
    with pytest.warns(UserWarning, match=MOST_ARE_ZERO):
        miner_of("random", tmp_path, filters=[Veto("bm25", abstain_at=0)]).fit(rows)
    with pytest.warns(UserWarning, match=MOST_ARE_ZERO):
        miner_of(CrossSample(["random", "bm25"]), tmp_path).fit(rows)


def test_and_any_other_teacher(tmp_path: Path) -> None:
    overlap = ScoreFunction(
        lambda queries, passages: [
            len(set(query.split()) & set(passage.lower().split()))
            for query, passage in zip(queries, passages, strict=True)
        ],
        first_stage="random",
        version="1",
        label="overlap",
    )
    with pytest.warns(UserWarning, match="teacher 'overlap' scores 3 of 4 positives 0"):
        miner_of(overlap, tmp_path).fit(rows_of(MOSTLY_FOREIGN))


def test_nothing_is_said_where_half_of_them_score_more_or_of_rows_that_come_later(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        miner_of("bm25", tmp_path).fit(rows_of([*ANSWERS[:2], *FOREIGN[2:]]))
        filters = [Veto("bm25", abstain_at=0)]
        miner = miner_of("random", tmp_path, filters=filters, corpus=[*CORPUS, *FOREIGN]).fit(rows_of(ANSWERS))
        later = {"query": ["what are dens"], "answer": [FOREIGN[0]]}
        assert len(miner(later)["negative_1"]) == 1


def test_the_shell_says_it_too(tmp_path: Path) -> None:
    rows_of(MOSTLY_FOREIGN).to_parquet(tmp_path / "rows.parquet")
    arguments = [
        "mine",
        str(tmp_path / "rows.parquet"),
        "-t",
        "bm25",
        "-m",
        "naive",
        "-n",
        "1",
        "-o",
        str(tmp_path / "o"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        run = CliRunner().invoke(app, [*arguments, "--cache-dir", str(tmp_path / "cache"), "--quiet"])
    assert run.exit_code == 0
    assert re.fullmatch(f"Warning: {MOST_ARE_ZERO}\\)\n", run.stderr)
