"""What users of Sentence Transformers' `mine_hard_negatives` rely on besides its rows: ours and theirs on one input."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives as theirs

from hf_negmine import NegmineError
from hf_negmine import mine_hard_negatives as ours
from tests.tiny_models import make_cross, make_sparse

FORMATS = ["triplet", "n-tuple", "labeled-pair", "labeled-list"]


def with_two_formats(cases: list[dict[str, Any]]) -> Any:
    """Each case with two of the four formats."""
    pairs = [(case, FORMATS[(place + more) % 4]) for place, case in enumerate(cases) for more in (0, 2)]
    return pytest.mark.parametrize(("arguments", "output_format"), pairs, ids=str)


# w1 has two positives, in rows that are apart; one row is repeated.
ROWS = datasets.Dataset.from_dict(
    {"question": ["w1 w2", "w3", "w1 w2", "w8", "w3"], "answer": ["w1", "w4 w5", "w2 w9", "w8 w7", "w4 w5"]}
)
CORPUS = ["w6", "w7 w8", "w9 w1", "w2 w3 w4", "w10", "w11 w12"]
MISSING = re.compile(r"Could not find enough negatives for (\d+) samples \((.*?)\)\.")


@pytest.fixture(scope="module")
def model(models: Path) -> SentenceTransformer:
    return SentenceTransformer(str(models / "dense"), device="cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _their_warnings() -> None:
    warnings.filterwarnings("ignore", r"std\(\): degrees of freedom", UserWarning)  # of their table, for one score


def contents(mined: datasets.Dataset) -> list[dict[str, Any]]:
    """Rows with scores to five digits."""

    def content(value: Any) -> Any:
        if isinstance(value, list):
            return [content(one) for one in value]
        return round(value, 5) if isinstance(value, float) else value

    return [{name: content(value) for name, value in row.items()} for row in mined.to_list()]


@with_two_formats(
    [
        {"num_negatives": 9},  # the anchor with two positives has 8 others, the rest 9
        {"num_negatives": 50},
        {"num_negatives": 50, "sampling_strategy": "random"},
        {"num_negatives": 4, "range_max": 40, "range_min": 7},
        {"corpus": None, "num_negatives": 4},
        {"corpus": []},
    ]
)
def test_more_negatives_than_there_are_give_the_same_short_rows(
    arguments: dict[str, Any], output_format: str, model: SentenceTransformer
) -> None:
    common = {"corpus": CORPUS, "output_format": output_format, "output_scores": True, "verbose": False, **arguments}
    # So that theirs looks at the whole corpus, too.
    expected = theirs(ROWS, model, **{"range_max": 60, **common})
    mined = ours(ROWS, model, **common)
    assert mined.column_names == expected.column_names
    assert mined.features == expected.features or not len(expected)  # theirs gives an empty column no type
    assert contents(mined) == contents(expected)


@pytest.mark.parametrize("output_format", ["triplet", "n-tuple", "labeled-list"])
def test_a_result_without_rows_has_the_types_of_one_with_rows(output_format: Any, model: SentenceTransformer) -> None:
    empty, full = (
        ours(ROWS, model, corpus=CORPUS, max_score=most, output_format=output_format, output_scores=True, verbose=False)
        for most in (-0.9, 1.1)
    )
    assert len(full) > len(empty) == 0
    assert empty.features == full.features


@pytest.mark.parametrize("n", [9, 10, 11])  # of ten passages
def test_a_ranking_of_the_whole_corpus(n: int, model: SentenceTransformer) -> None:
    common = {
        "corpus": CORPUS,
        "include_positives": True,
        "output_format": "n-tuple",
        "num_negatives": n,
        "verbose": False,
    }
    mined = ours(ROWS, model, **common)
    assert len(mined) == (0 if n > 10 else 4)
    assert mined.to_list() == theirs(ROWS, model, **common).to_list()


@with_two_formats(
    [
        {"max_score": -0.9, "range_max": 4},
        {"max_score": 0.8, "range_max": 9, "num_negatives": 6},
        {"absolute_margin": 0.0, "range_max": 12, "num_negatives": 5},
        {"relative_margin": 0.01, "range_max": 12, "range_min": 2, "num_negatives": 5},
        {"num_negatives": 12},
        {"num_negatives": 2},
    ]
)
def test_the_notice_of_missing_negatives_comes_with_the_same_number(
    arguments: dict[str, Any], output_format: str, model: SentenceTransformer, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROWS.select(range(4))  # theirs counts a repeated row as one that lacks its negatives
    common = {"corpus": CORPUS, "output_format": output_format, **arguments}
    expected = theirs(rows, model, **common)
    their_notice = MISSING.search(capsys.readouterr().out)
    mined = ours(rows, model, **common)
    output = capsys.readouterr().out
    our_notice = MISSING.search(output)
    if contents(mined) == contents(expected):
        assert (our_notice and our_notice.groups()) == (their_notice and their_notice.groups())
    assert (our_notice is None) == (len(mined) == most_rows(output_format, arguments.get("num_negatives", 3)))
    if our_notice is not None:
        advice = output[our_notice.end() :]
        assert "if you'd like to find more valid negatives." in advice
        given = [name for name in arguments if name not in ("num_negatives", "output_format")]
        assert all(name in advice for name in given or ["num_negatives", "corpus"])


def most_rows(output_format: str, n: int) -> int:
    """Rows for the four pairs of three anchors, where none lacks a negative."""
    return {"triplet": 4 * n, "labeled-pair": 4 + 3 * n}.get(output_format, 4)


def test_the_summary_counts_the_rows_that_are_returned(
    model: SentenceTransformer, capsys: pytest.CaptureFixture[str]
) -> None:
    for output_format in ("n-tuple", "labeled-list"):
        mined = ours(ROWS, model, corpus=CORPUS, output_format=output_format, num_negatives=50, max_score=0.5)
        assert f"{len(mined)} rows written" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_negatives": 0},
        {"num_negatives": -5},
        {"num_negatives": 10, "range_max": 3},
        {"num_negatives": 3, "range_min": 2, "range_max": 4, "sampling_strategy": "random"},
        {"range_min": -1},
        {"range_min": -5, "range_max": 8},
        {"range_min": 3, "range_max": 3},
        {"range_min": 5, "range_max": 3},
        {"faiss_batch_size": 0},
        {"output_format": "tuple"},
        {"query_prompt_name": "quest"},
        {"corpus_prompt_name": "text"},
    ],
    ids=str,
)
def test_wrong_arguments_raise_their_sentences(arguments: dict[str, Any], model: SentenceTransformer) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011 - its sentence is compared
        theirs(ROWS, model, corpus=CORPUS, verbose=False, **arguments)
    with pytest.raises(NegmineError) as caught:
        ours(ROWS, model, corpus=CORPUS, verbose=False, **arguments)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize(
    ("rows", "fact"),
    [
        (ROWS.select([]), "The dataset is empty"),
        (ROWS.select_columns(["question"]), "Dataset must contain at least two columns"),
        (datasets.DatasetDict(train=ROWS), "DatasetDict; pass one of its splits"),
        ([{"question": "w1", "answer": "w2"}], "got list"),
        (datasets.Dataset.from_dict({"a": ["w3", "w1", None], "b": ["w4", "w2", "w5"]}), "the first in row 2"),
        (datasets.Dataset.from_dict({"a": ["w3", "w1", "w2"], "b": ["w4", "", "w5"]}), "the first in row 1"),
        (datasets.Dataset.from_dict({"a": [1, 2], "b": ["w4", "w2"]}), "holds int64, expected text"),
    ],
    ids=["empty", "one column", "splits", "list", "null", "blank", "numbers"],
)
def test_wrong_rows_are_told_apart(rows: Any, fact: str, model: SentenceTransformer) -> None:
    with pytest.raises(NegmineError, match=re.escape(fact)):
        ours(rows, model, corpus=CORPUS, verbose=False)


class Asked:
    """Vectors of texts and their products, and not a method more than is asked for."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.encoded = seed, 0
        self.device = torch.device("cpu")
        self.model_card_data = SimpleNamespace(base_model="the same for all")

    def _vectors(self, texts: list[str]) -> np.ndarray[Any, Any]:
        self.encoded += len(texts)
        drawn = [np.random.default_rng([self.seed, *text.encode()]).normal(size=8) for text in texts]
        return np.stack([vector / np.linalg.norm(vector) for vector in drawn]).astype(np.float32)

    def encode_query(self, texts: list[str], **settings: Any) -> np.ndarray[Any, Any]:
        return self._vectors([(settings["prompt"] or "") + text for text in texts])

    def encode_document(self, texts: list[str], **settings: Any) -> np.ndarray[Any, Any]:
        return self._vectors(texts)

    def similarity(self, queries: Any, passages: Any) -> torch.Tensor:
        return torch.as_tensor(queries) @ torch.as_tensor(passages).T

    def similarity_pairwise(self, queries: Any, passages: Any) -> torch.Tensor:
        return (torch.as_tensor(queries) * torch.as_tensor(passages)).sum(dim=1)


class ByDistance(Asked):
    """Its similarity is no product of unit vectors."""

    def similarity(self, queries: Any, passages: Any) -> torch.Tensor:
        return -torch.cdist(torch.as_tensor(queries) * 3, torch.as_tensor(passages) * 2)

    def similarity_pairwise(self, queries: Any, passages: Any) -> torch.Tensor:
        return -(torch.as_tensor(queries) * 3 - torch.as_tensor(passages) * 2).norm(dim=1)


class OnlyEncode:
    """The least that can be asked: vectors, for queries and passages alike."""

    def encode(self, texts: list[str], **settings: Any) -> np.ndarray[Any, Any]:
        return Asked()._vectors(texts)

    def similarity(self, queries: Any, passages: Any) -> torch.Tensor:
        return Asked().similarity(queries, passages)


@pytest.mark.parametrize("asked", [Asked, ByDistance])
@with_two_formats([{}, {"query_prompt": "find: "}, {"relative_margin": 0.1, "num_negatives": 1, "range_max": 9}])
def test_any_object_that_encodes_and_compares_will_do(
    arguments: dict[str, Any], asked: type[Asked], output_format: str
) -> None:
    common = {"corpus": CORPUS, "output_format": output_format, "output_scores": True, "verbose": False, **arguments}
    mined = ours(ROWS, asked(), **common)
    assert mined.features == theirs(ROWS, asked(), **common).features
    assert contents(mined) == contents(theirs(ROWS, asked(), **common))


def test_an_object_with_nothing_but_encode_and_similarity_will_do() -> None:
    common = {"corpus": CORPUS, "output_scores": True, "verbose": False}
    assert contents(ours(ROWS, OnlyEncode(), **common)) == contents(ours(ROWS, Asked(), **common))


def test_nothing_of_an_object_without_weights_is_taken_for_another_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    common = {"corpus": CORPUS, "output_scores": True, "verbose": False, "cache_folder": str(tmp_path / "mine")}
    first, other = Asked(0), Asked(1)
    mined = ours(ROWS, first, **common)
    assert contents(mined) == contents(theirs(ROWS, first, **{**common, "cache_folder": None}))
    assert contents(ours(ROWS, other, **common)) == contents(theirs(ROWS, other, **{**common, "cache_folder": None}))
    # The very same object may have changed, too.
    first.seed = 1
    assert contents(ours(ROWS, first, **common)) == contents(ours(ROWS, other, **common))
    assert not (tmp_path / "mine").exists()
    assert not (tmp_path / "cache").exists()
    assert "nothing is kept" in caplog.text
    assert "Asked has no weights" in caplog.text
    # What it gave outlives the folder it was mined in.
    assert pickle.loads(pickle.dumps(mined)).to_list() == mined.to_list()
    assert mined.filter(lambda row: row["question"] == "w3").num_rows == 3


def test_any_object_that_predicts_will_do_as_a_cross_encoder(models: Path, model: SentenceTransformer) -> None:
    cross_encoder = make_cross(models)
    wrapped = SimpleNamespace(predict=lambda pairs, **settings: cross_encoder.predict(pairs, **settings))
    common = {"corpus": CORPUS, "output_scores": True, "max_score": 0.6, "verbose": False}
    assert contents(ours(ROWS, model, cross_encoder=wrapped, **common)) == contents(
        ours(ROWS, model, cross_encoder=cross_encoder, **common)
    )


def test_what_is_no_model_is_said(models: Path, model: SentenceTransformer) -> None:
    for wrong, name in ((make_sparse(models), "SparseEncoder"), ("all-MiniLM-L6-v2", "str"), (None, "NoneType")):
        with pytest.raises(NegmineError, match=f"model: expected a SentenceTransformer.*got {name}"):
            ours(ROWS, wrong, corpus=CORPUS, verbose=False)
    with pytest.raises(NegmineError, match=r"cross_encoder: expected a CrossEncoder.*got str"):
        ours(ROWS, model, cross_encoder="reranker", corpus=CORPUS, verbose=False)
    with pytest.raises(NegmineError, match="use_multi_process: Asked has no start_multi_process_pool"):
        ours(ROWS, Asked(), corpus=CORPUS, use_multi_process=True, verbose=False)


def test_a_limit_beside_include_positives_warns_as_theirs_does(
    model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    for mine in (theirs, ours):
        for arguments, warns in (({}, False), ({"max_score": 0.9}, True), ({"range_max": 5}, True)):
            caplog.clear()
            mine(
                ROWS, model, corpus=CORPUS, include_positives=True, output_format="n-tuple", verbose=False, **arguments
            )
            assert bool(caplog.text) == warns
            assert not warns or "include_positives=True" in caplog.text


def test_a_corpus_that_can_be_read_only_once(model: SentenceTransformer) -> None:
    once = ours(ROWS, model, corpus=(text for text in CORPUS), num_negatives=20, verbose=False)
    assert once.to_list() == ours(ROWS, model, corpus=CORPUS, num_negatives=20, verbose=False).to_list()
