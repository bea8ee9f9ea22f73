"""What is longer than a teacher reads is counted, and said in the summary, its JSON and the card."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Router, StaticEmbedding, Transformer

from hf_negmine import CrossSample, DenseTeacher, Fusion, NegativeMiner, push_dataset
from hf_negmine.report import truncation
from hf_negmine.report.summary import MiningSummary
from hf_negmine.report.truncation import Truncation, truncation_lines
from hf_negmine.teachers import CrossEncoderTeacher, LateInteractionTeacher, SparseEncoderTeacher
from hf_negmine.teachers.lengths import token_batches
from tests.train.helpers import load_model

LIMIT = 20


def words(count: int, first: int) -> str:
    """A text of so many tokens besides special ones, unlike the others."""
    return " ".join(f"w{(first + place) % 120}" for place in range(count))


# Two special tokens: passages of 19 and 39 words are longer than 20 tokens, queries never are.
PASSAGES = [words(count, first) for first, count in enumerate([5, 18, 19, 39, 3, 2, 18, 18])]
ROWS = [{"query": words(4, 50 + place), "positive": PASSAGES[place]} for place in range(4)]


def mined(teacher: Any, folder: Path, rows: list[dict[str, str]] = ROWS, **settings: Any) -> MiningSummary:
    miner = NegativeMiner(
        teacher,
        corpus=PASSAGES,
        method="naive",
        num_negatives=2,
        device="cpu",
        cache_dir=folder,
        progress=False,
        **settings,
    )
    return miner.fit(Dataset.from_list(rows)).summary


def shares(summary: MiningSummary) -> dict[tuple[str, str], tuple[int, float]]:
    return {(one.teacher, one.texts): (one.limit, one.share) for one in summary.truncation}


def test_the_shares_of_what_is_longer_are_exact_and_said_everywhere(models: Path, tmp_path: Path) -> None:
    summary = mined(DenseTeacher(models / "dense", max_length=LIMIT), tmp_path)
    assert shares(summary) == {
        ("dense", "queries"): (LIMIT, 0.0),
        ("dense", "positives"): (LIMIT, 0.5),
        ("dense", "passages"): (LIMIT, 0.25),
    }
    line = (
        "dense reads 20 tokens of a text: 0.0 % of the queries, 50.0 % of the positives and 25.0 % of the passages are "
        "longer and were cut"
    )
    assert line in str(summary).splitlines()
    again = MiningSummary.from_dict(json.loads(json.dumps(summary.as_dict())))
    assert again == summary
    older = {name: value for name, value in summary.as_dict().items() if name != "truncation"}
    assert MiningSummary.from_dict(older).truncation == ()


def test_the_card_of_a_pushed_data_set_says_it(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path))
    teacher = DenseTeacher(models / "dense", max_length=LIMIT, name="tiny")
    miner = NegativeMiner(teacher, method="naive", num_negatives=2, device="cpu", cache_dir=tmp_path, progress=False)
    pushed = push_dataset(miner.mine(Dataset.from_list(ROWS)), "user/cut", license="mit", dry_run=True)
    assert pushed.folder is not None
    card = (pushed.folder / "README.md").read_text(encoding="utf-8")
    line = (
        "- tiny reads 20 tokens of a text: 0.0 % of the queries, 50.0 % of the positives and 50.0 % of the passages are"
    )
    assert line in card


@pytest.mark.parametrize("kind", [DenseTeacher, SparseEncoderTeacher, LateInteractionTeacher])
def test_tokens_are_those_that_the_model_is_handed(kind: Any, models: Path) -> None:
    stored = {DenseTeacher: "dense", SparseEncoderTeacher: "sparse", LateInteractionTeacher: "tokens"}[kind]
    teacher = kind(models / stored, device="cpu", passage_prompt="w1 w2 w3 ")
    lengths, limit = teacher.count_tokens(PASSAGES, "passage")
    handed = teacher.model.preprocess(PASSAGES, prompt="w1 w2 w3 ", task="document")["attention_mask"].sum(1).numpy()
    np.testing.assert_array_equal(np.minimum(lengths, limit), handed)
    assert (limit == 24) == (stored == "tokens"), "late interaction has limits of its own"
    if stored == "tokens":
        assert (lengths > limit).any()
        assert teacher.count_tokens(["w1"], "query")[1] == 12


def test_the_models_own_prompt_counts(models: Path) -> None:
    model = load_model(models)
    bare, _ = DenseTeacher(model).count_tokens(["w9"], "query")
    model.prompts = {"query": "w1 w2 ", "passage": "w3 "}
    teacher = DenseTeacher(model)
    assert teacher.count_tokens(["w9"], "query")[0] == bare + 2
    assert teacher.count_tokens(["w9"], "passage")[0] == bare + 1


def test_a_cross_encoder_and_its_first_stage_each_say_what_they_cut(models: Path, tmp_path: Path) -> None:
    first = DenseTeacher(models / "dense", max_length=LIMIT)
    summary = mined(CrossEncoderTeacher(models / "cross", first_stage=first, candidates=8, max_length=26), tmp_path)
    # Of a pair 3 tokens are special and 4 the query's: positives of 39 words are too long with it, those of 19 are not.
    assert shares(summary)["cross", "positives"] == (26, 0.25)
    assert ("cross", "negatives") in shares(summary)
    assert shares(summary)["dense", "passages"] == (LIMIT, 0.25)
    assert any(
        "cross reads 26 tokens of a query with its passage: 25.0 % of" in line for line in str(summary).split("\n")
    )


@pytest.mark.parametrize("join", [CrossSample, Fusion])
def test_teachers_that_mine_together_each_say_what_they_cut(join: Any, models: Path, tmp_path: Path) -> None:
    long, short = (DenseTeacher(models / "dense", max_length=n, name=f"cut{n}") for n in (40, LIMIT))
    found = shares(mined(join([long, short]), tmp_path))
    assert found["cut40", "passages"] == (40, 0.125)
    assert found["cut20", "passages"] == (LIMIT, 0.25)


@pytest.mark.filterwarnings("ignore:teacher .* scores .* positives 0:UserWarning")
def test_who_reads_all_or_cannot_say_says_nothing(models: Path, tmp_path: Path) -> None:
    static = StaticEmbedding(load_model(models).tokenizer, embedding_dim=4)
    for teacher in ("bm25", "random", SentenceTransformer(modules=[static], device="cpu")):
        summary = mined(teacher, tmp_path)
        assert summary.truncation == ()
        assert "tokens" not in str(summary)


def test_a_router_is_asked_by_role(models: Path) -> None:
    static = StaticEmbedding(load_model(models).tokenizer, embedding_dim=32)
    cutting = [Transformer(str(models / "bert")), Pooling(32)]
    routed = SentenceTransformer(modules=[Router.for_query_document([static], cutting)], device="cpu")
    teacher = DenseTeacher(routed)
    assert teacher.count_tokens(["w1"], "query")[1] is None
    lengths, limit = teacher.count_tokens([words(19, 0)], "passage")
    assert (lengths.tolist(), limit) == ([21], cutting[0].max_seq_length)
    np.testing.assert_array_equal(teacher.encode(PASSAGES, "query"), routed.encode_query(PASSAGES))
    np.testing.assert_allclose(teacher.encode(PASSAGES, "passage"), routed.encode_document(PASSAGES), atol=1e-6)


def test_a_tokenizer_of_ones_own_is_not_asked_for_lengths(models: Path) -> None:
    model = load_model(models)
    own = model.tokenizer
    with patch.object(type(model[0]), "tokenizer", lambda texts: own(texts)):
        assert DenseTeacher(model).count_tokens(PASSAGES, "passage")[1] is None


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=60), budget=st.integers(1, 100))
def test_batches_of_tokens_hold_every_text_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    array = np.array(lengths)
    batches = token_batches(array, budget)
    places = np.concatenate(batches)
    assert sorted(places) == list(range(len(lengths)))
    assert (np.diff(array[places]) <= 0).all(), "the longest first"
    assert all(len(batch) == 1 or len(batch) * array[batch].max() <= budget for batch in batches)


def test_a_sample_does_not_depend_on_the_order_of_the_rows(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "SAMPLE", 3)
    texts = [words(1 + place % 40, place) for place in range(80)]
    rows = [{"query": words(3, place), "positive": text} for place, text in enumerate(texts)]
    shuffled = random.Random(4).sample(rows, len(rows))
    teacher = DenseTeacher(models / "dense", max_length=LIMIT)
    one, other = (mined(teacher, tmp_path / name, some) for name, some in (("one", rows), ("other", shuffled)))
    assert one.truncation == other.truncation
    assert all(part.sampled for part in one.truncation if part.texts != "queries")
    assert "about " in str(one)


def test_of_long_texts_the_beginning_is_enough_unless_its_words_are_long(models: Path) -> None:
    counted: list[int] = []
    teacher = DenseTeacher(models / "dense", max_length=LIMIT, device="cpu")

    def count(texts: list[str]) -> Any:
        counted.extend(map(len, texts))
        return teacher.count_tokens(texts, "passage")

    spaces = "w1" + " " * 1000 + words(30, 0)
    texts = [words(5000, 0), words(5, 0) + " " * 5000, spaces]
    assert truncation._longer(count, LIMIT, [texts]).tolist() == [True, False, True]
    assert len(texts[0]) not in counted, "all of a long text would take too long"
    assert len(spaces) in counted


def test_small_shares_do_not_read_as_none() -> None:
    (line,) = truncation_lines([Truncation("e5", "passages", 512, 0.0003, True)])
    assert line == "e5 reads 512 tokens of a text: about under 0.1 % of the passages are longer and were cut"
