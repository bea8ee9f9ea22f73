"""`mine_hard_negatives` beside Sentence Transformers' own: the same rows wherever theirs does not come out short."""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util import mine_hard_negatives as theirs

from hf_negmine import NegmineError
from hf_negmine import mine_hard_negatives as ours
from hf_negmine.data.sources import open_rows
from hf_negmine.drop_in import rows as drop_in_rows
from tests.tiny_models import make_cross

FORMATS = ["triplet", "n-tuple", "labeled-pair", "labeled-list"]
CHARACTERS = 160


@pytest.fixture(scope="module")
def model(minilm: Path) -> SentenceTransformer:
    return SentenceTransformer(str(minilm), device="cpu")


@pytest.fixture(scope="module")
def rows(data_dir: Path) -> datasets.Dataset:
    """scifact rows, cut short; some queries have several positives, in rows that are apart."""
    table = open_rows(data_dir / "scifact", split="train").rows.select(range(90)).with_format("arrow")[:]
    positives = [text[:CHARACTERS] for text in table["positive"].to_pylist()]
    pairs = list(zip(table["query"].to_pylist(), positives, strict=True))
    random.Random(0).shuffle(pairs)
    return datasets.Dataset.from_dict({"anchor": [q for q, _ in pairs], "positive": [p for _, p in pairs]})


@pytest.fixture(scope="module")
def corpus(data_dir: Path) -> list[str]:
    opened = open_rows(data_dir / "scifact", split="train").corpus
    assert opened is not None
    return [text[:CHARACTERS] for text in opened.slice(0, 250).to_pylist()]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, str]:
    return {ours: str(tmp_path_factory.mktemp("ours")), theirs: str(tmp_path_factory.mktemp("theirs"))}


def nearly(mined: datasets.Dataset) -> list[dict[str, Any]]:
    """Rows with scores as equal as can be asked: theirs are float32 products, ours float64 dot products."""
    scores = ("score", "scores")
    return [
        {name: pytest.approx(value, abs=2e-6) if name in scores else value for name, value in row.items()}
        for row in mined.to_list()
    ]


def short_anchors(mined: datasets.Dataset, rows: datasets.Dataset, n: int) -> set[str]:
    """Anchors for which theirs found fewer than n negatives: the truncation that ours does away with."""
    positives = {anchor: set() for anchor in rows["anchor"]}
    for row in rows:
        positives[row["anchor"]].add(row["positive"])
    found: dict[str, set[str]] = {anchor: set() for anchor in positives}
    for row in mined.to_list():
        texts = [value for name, value in row.items() if name.startswith("negative")]
        texts += row["positive"] if isinstance(row["positive"], list) else [row["positive"]]
        found[row["anchor"]] |= set(texts) - positives[row["anchor"]]
    return {anchor for anchor, texts in found.items() if len(texts) < n}


@pytest.mark.parametrize("output_format", ["n-tuple", "labeled-pair"])  # a row a pair, and a row an anchor
def test_rows_that_go_through_in_pieces_come_out_the_same(
    output_format: str,
    model: SentenceTransformer,
    rows: datasets.Dataset,
    corpus: list[str],
    caches: dict[Any, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mined() -> datasets.Dataset:
        return ours(rows, model, corpus=corpus, output_format=output_format, cache_folder=caches[ours], verbose=False)  # type: ignore[arg-type]

    whole = mined()
    monkeypatch.setattr(drop_in_rows, "ROWS_A_PIECE", 7)
    in_pieces = mined()
    assert in_pieces.features == whole.features
    assert in_pieces.to_list() == whole.to_list()


def test_signature_takes_every_argument_of_theirs() -> None:
    their_parameters = inspect.signature(theirs).parameters
    our_parameters = inspect.signature(ours).parameters
    assert list(our_parameters)[: len(their_parameters)] == list(their_parameters)
    for name, parameter in their_parameters.items():
        assert our_parameters[name].default == parameter.default, name


ARGUMENTS: list[dict[str, Any]] = [
    {}, {"range_min": 5}, {"range_min": 3, "range_max": 20}, {"max_score": 0.5, "min_score": 0.05},
    {"relative_margin": 0.05}, {"absolute_margin": 0.1},
]  # fmt: skip
CASES = [
    (arguments, FORMATS[(place + 2 * scores) % 4], scores)
    for place, arguments in enumerate(ARGUMENTS)
    for scores in (False, True)
]
"""Every format with and without scores, under some of the arguments."""


@pytest.mark.parametrize(("arguments", "output_format", "output_scores"), CASES, ids=str)
def test_same_rows(
    arguments: dict[str, Any],
    output_format: str,
    output_scores: bool,
    rows: datasets.Dataset,
    corpus: list[str],
    model: SentenceTransformer,
    caches: dict[Any, str],
) -> None:
    # A wide window for theirs, so that it misses negatives of few queries.
    wide = {"range_max": 150, **arguments}
    common = {"corpus": corpus, "output_format": output_format, "output_scores": output_scores, "verbose": False}
    expected = theirs(rows, model, **common, **wide, cache_folder=caches[theirs])
    mined = ours(rows, model, **common, **arguments, cache_folder=caches[ours])
    assert mined.features == expected.features
    short = short_anchors(expected, rows, n=3)
    assert len(short) < 20
    assert [row for row in mined.to_list() if row["anchor"] not in short] == [
        row for row in nearly(expected) if row["anchor"] not in short
    ]
    assert not short_anchors(mined, rows, n=3), "ours finds negatives for every query"


def test_include_positives_gives_their_ranking(
    rows: datasets.Dataset, corpus: list[str], model: SentenceTransformer, caches: dict[Any, str]
) -> None:
    common = {"corpus": corpus, "include_positives": True, "num_negatives": 20, "verbose": False}
    expected = theirs(rows, model, **common, output_format="n-tuple", cache_folder=caches[theirs])
    mined = ours(
        rows, model, **common, output_format="triplet", cache_folder=caches[ours]
    )  # becomes n-tuple there, too
    assert mined.to_list() == expected.to_list()


def test_random_sampling_is_seeded_and_within_the_window(
    rows: datasets.Dataset, corpus: list[str], model: SentenceTransformer, caches: dict[Any, str]
) -> None:
    def draw(seed: int) -> list[dict[str, Any]]:
        return ours(
            rows, model, corpus=corpus, sampling_strategy="random", range_min=2, range_max=12, output_format="n-tuple",
            verbose=False, cache_folder=caches[ours], seed=seed,
        ).to_list()  # fmt: skip

    ranking = ours(
        rows, model, corpus=corpus, range_min=2, range_max=12, num_negatives=10, output_format="n-tuple", verbose=False,
        cache_folder=caches[ours],
    ).to_list()  # fmt: skip
    first, again, other = draw(0), draw(0), draw(1)
    assert first == again
    assert first != other
    for drawn, window in zip(first, ranking, strict=True):
        assert {drawn[f"negative_{i}"] for i in (1, 2, 3)} <= {window[f"negative_{i}"] for i in range(1, 11)}


def test_prompts_change_the_vectors_as_theirs_do(
    rows: datasets.Dataset, corpus: list[str], model: SentenceTransformer, caches: dict[Any, str]
) -> None:
    common = {"corpus": corpus, "output_format": "n-tuple", "query_prompt": "claim: ", "verbose": False}
    expected = theirs(rows, model, **common, cache_folder=caches[theirs])
    mined = ours(rows, model, **common, cache_folder=caches[ours])
    assert mined.to_list() == expected.to_list()
    plain = ours(rows, model, corpus=corpus, output_format="n-tuple", verbose=False, cache_folder=caches[ours])
    assert mined.to_list() != plain.to_list()


def test_cross_encoder_ranks_the_candidates(
    rows: datasets.Dataset,
    corpus: list[str],
    model: SentenceTransformer,
    minilm: Path,
    caches: dict[Any, str],
    tmp_path: Path,
) -> None:
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(str(minilm))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    cross_encoder = CrossEncoder(str(tmp_path), device="cpu", max_length=64)
    some = rows.select(range(25))
    mined = ours(
        some, model, corpus=corpus, cross_encoder=cross_encoder, range_max=30, output_format="n-tuple",
        output_scores=True, verbose=False, cache_folder=caches[ours],
    )  # fmt: skip
    assert len(mined) == len(some)
    candidates = ours(
        some, model, corpus=corpus, range_max=30, num_negatives=30, output_format="n-tuple", verbose=False,
        cache_folder=caches[ours],
    )  # fmt: skip
    for row, near in zip(mined, candidates, strict=True):
        texts = [near[f"negative_{i}"] for i in range(1, 31)]
        scores = cross_encoder.predict([(row["anchor"], text) for text in texts], show_progress_bar=False)
        best = sorted(zip(scores.tolist(), texts, strict=True), reverse=True)[:3]
        assert row["scores"][1:] == pytest.approx([score for score, _ in best], abs=1e-4)
    # The result of another cross-encoder is never taken from the cache.
    torch.manual_seed(1)
    other = CrossEncoder(str(tmp_path), device="cpu", max_length=64)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    changed = ours(
        some, model, corpus=corpus, cross_encoder=other, range_max=30, output_format="n-tuple", output_scores=True,
        verbose=False, cache_folder=caches[ours],
    )  # fmt: skip
    assert changed["scores"] != mined["scores"]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ({"anchor_column_name": "ancor"}, ["ancor", "anchor"]),
        ({"positive_column_name": "answer"}, ["answer", "positive"]),
        ({"num_negatives": 0}, ["num_negatives", "0"]),
        ({"sampling_strategy": "best"}, ["best", "top"]),
        ({"relative_margin": 95.0}, ["relative_margin", "95"]),
        ({"max_score": "high"}, ["max_score", "high"]),
        ({"num_negatives": 2.5}, ["num_negatives", "2.5"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_errors_with_both_facts(
    arguments: dict[str, Any], facts: list[str], rows: datasets.Dataset, model: SentenceTransformer
) -> None:
    with pytest.raises(NegmineError) as caught:
        ours(rows, model, verbose=False, **arguments)
    assert isinstance(caught.value, ValueError)
    for fact in facts:
        assert fact in str(caught.value)


def test_verbose_prints_the_summary(
    rows: datasets.Dataset,
    model: SentenceTransformer,
    corpus: list[str],
    caches: dict[Any, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours(rows, model, corpus=corpus, relative_margin=0.05, cache_folder=caches[ours])
    assert "3 negatives per query by perc_pos:0.95" in capsys.readouterr().out


def test_a_cross_encoder_that_gives_no_number_is_an_error(
    rows: datasets.Dataset, corpus: list[str], model: SentenceTransformer, caches: dict[Any, str], models: Path
) -> None:
    broken = make_cross(models)
    with torch.no_grad():
        for weights in broken.parameters():
            weights.fill_(float("nan"))
    with pytest.raises(NegmineError, match="not finite"):
        ours(rows, model, corpus=corpus, cross_encoder=broken, verbose=False, cache_folder=caches[ours])
