"""Rows that hold lists of negatives: all of them reach the loss, or one sentence says what to give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.train import HardNegativeCollator
from hf_negmine.train.reading import RowReader
from tests.train.helpers import (
    CORPUS,
    POSITIVES,
    QUERIES,
    Remembering,
    arguments,
    columns_of,
    make_miner,
    rows,
    rows_of,
)
from tests.train.test_trainer import make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

OTHERS = CORPUS[16:]


def negatives(place: int, n: int) -> list[str]:
    return [OTHERS[(place + step) % len(OTHERS)] for step in (0, 5, 11, 17, 21)[:n]]


def data(
    column: str, lists: list[Any], pair: tuple[str, str] = ("anchor", "positive"), **more: Any
) -> datasets.Dataset:
    return datasets.Dataset.from_dict({pair[0]: QUERIES, pair[1]: POSITIVES, column: lists, **more})


def trained(model: Any, folder: Path, rows: Any, collator: HardNegativeCollator | None = None, **options: Any) -> Any:
    """Negatives of each query that the loss saw in an epoch."""
    loss = Remembering(model)
    args = arguments(folder, num_train_epochs=1, **options)
    make_trainer(model, collator or HardNegativeCollator(model), rows, loss, args).train()
    return {query: list(rest) for query, (_, *rest) in loss.drawn().items()}


THREE = [negatives(place, 3) for place in range(16)]
EXPECTED = dict(zip(QUERIES, THREE, strict=True))


@pytest.mark.parametrize(
    "column",
    ["negative", "negatives", "neg", "negs", "hard_negatives", "hard_negative", "hard_neg", "negative_1", "neg_1"],
)
def test_lists_of_one_length_are_as_many_columns(model: SentenceTransformer, tmp_path: Path, column: str) -> None:
    assert trained(model, tmp_path, data(column, THREE)) == EXPECTED


@pytest.mark.parametrize("pair", [("query", "pos"), ("question", "answer")])
def test_rows_of_flag_embedding_train(model: SentenceTransformer, tmp_path: Path, pair: tuple[str, str]) -> None:
    given = data("neg", THREE, pair).map(lambda row: {pair[1]: [row[pair[1]]]}, load_from_cache_file=False)
    assert trained(model, tmp_path, given) == EXPECTED
    given = given.add_column("pos_scores", [[0.9]] * 16).add_column("neg_scores", [[0.1, 0.2, 0.3]] * 16)
    given = given.add_column("prompt", ["find"] * 16)
    named = HardNegativeCollator(model, query_column=pair[0], positive_column=pair[1])
    assert trained(model, tmp_path, given, named) == EXPECTED


@pytest.mark.parametrize("columns", [("negative_1", "negative_2"), ("negative1", "negative2"), ("neg_1", "neg_2")])
def test_numbered_columns_of_lists_are_joined(
    model: SentenceTransformer, tmp_path: Path, columns: tuple[str, str]
) -> None:
    given = data(columns[0], [some[:2] for some in THREE], **{columns[1]: [some[2] for some in THREE]})
    assert trained(model, tmp_path, given) == EXPECTED


def test_lists_of_formatted_rows_and_of_workers(model: SentenceTransformer, tmp_path: Path) -> None:
    given = data("negative", THREE).with_format("torch")
    assert trained(model, tmp_path, given, dataloader_num_workers=2) == EXPECTED


def test_lists_in_a_stream(model: SentenceTransformer, tmp_path: Path) -> None:
    assert trained(model, tmp_path, data("negative", THREE).to_iterable_dataset(), max_steps=4) == EXPECTED


def test_lists_in_two_data_sets(model: SentenceTransformer, tmp_path: Path) -> None:
    one = data("neg", THREE).select(range(8))
    two = data("negatives", [negatives(place, 5) for place in range(16)]).select(range(8, 16))
    found = trained(model, tmp_path, datasets.DatasetDict(one=one, two=two))
    assert {query: len(some) for query, some in found.items()} == {
        **dict.fromkeys(QUERIES[:8], 3), **dict.fromkeys(QUERIES[8:], 5)
    }  # fmt: skip


RAGGED: dict[str, tuple[list[Any], str]] = {
    "ragged": ([negatives(place, 1 + place % 3) for place in range(16)], "from 1 to 3"),
    "nulls in lists": ([[None, *some[1:]] if place == 9 else some for place, some in enumerate(THREE)], "from 2 to 3"),
}


@pytest.mark.parametrize("what", RAGGED)
def test_lists_of_several_lengths_ask_for_a_number_before_the_first_step(
    model: SentenceTransformer, tmp_path: Path, what: str
) -> None:
    lists, said = RAGGED[what]
    with pytest.raises(InputError, match=f"num_negatives: how many negatives per row.* {said}"):
        trained(model, tmp_path, data("negative", lists))
    found = trained(model, tmp_path, data("negative", lists), HardNegativeCollator(model, num_negatives=3))
    assert {query: set(some) for query, some in found.items()} == {
        query: set(some) - {None} for query, some in zip(QUERIES, lists, strict=True)
    }
    assert {len(some) for some in found.values()} == {3}


@pytest.mark.parametrize("nothing", [[], None, [None], [""], [POSITIVES[4]], [QUERIES[4]]], ids=str)
def test_rows_without_a_negative_are_said_before_the_first_step(
    model: SentenceTransformer, tmp_path: Path, nothing: Any
) -> None:
    lists = [nothing if place == 4 else some for place, some in enumerate(THREE)]
    given = data("negative", lists)
    message = f"1 of 16 rows have no negative to train on, the first has the query '{QUERIES[4]}'"
    with pytest.raises(InputError, match=message):
        trained(model, tmp_path, given)
    kept = HardNegativeCollator(model).with_negatives(given)
    assert trained(model, tmp_path, kept) == {query: EXPECTED[query] for query in QUERIES if query != QUERIES[4]}


def test_a_loop_of_ones_own_is_told_at_the_batch(frozen: SentenceTransformer) -> None:
    collator = HardNegativeCollator(frozen)
    collator.set_epoch(0)
    loader = DataLoader(data("negative", THREE), batch_size=4, collate_fn=collator)  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for batch in loader:
        found |= rows_of(columns_of(batch, frozen))
    assert {query: list(texts[1:]) for query, texts in found.items()} == EXPECTED
    with pytest.raises(InputError, match=r"num_negatives: how many negatives per row.* from 2 to 3"):
        collator(list(data("negative", [some[:2] for some in THREE])))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "positive": "p", "neg": 3}, "column 'neg' holds 3, expected a text or a list of texts"),
        ({"query": "q", "positive": "p", "neg": [{"text": "n"}]}, "column 'neg' holds .*expected a text or a list"),
        ({"query": "q", "positive": "p", "neg": [["n"]]}, "column 'neg' holds .*expected a text or a list of texts"),
        ({"query": None, "positive": "p", "neg": ["n"]}, "column 'query' holds None, expected the text of a query"),
        ({"query": "q", "positive": None, "neg": ["n"]}, "column 'positive' holds no positive for 'q'"),
        ({"query": "q", "positive": [], "neg": ["n"]}, "column 'positive' holds no positive for 'q'"),
        ({"query": "q", "positive": ["p", "n"], "labels": None}, "a row has labels None for 'q', expected a number"),
        (
            {"query": "q", "positive": ["p", "n"], "labels": ["1", "0"]},
            "a row has labels .* for 'q', expected a number",
        ),
        ({"query": "q", "positive": "p", "neg": ["n"], "negatives": ["m"]}, r"several names, \['neg', 'negatives'\]"),
        ({"query": "q", "positive": "p", "wrong": ["n"]}, r"besides negatives and labels"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(frozen: SentenceTransformer, row: dict[str, Any], message: str) -> None:
    collator = HardNegativeCollator(frozen)
    collator.set_epoch(0)
    with pytest.raises(InputError, match=message):
        collator([row])


def test_negatives_under_a_name_of_ones_own_are_named(frozen: SentenceTransformer) -> None:
    collator = HardNegativeCollator(frozen, query_column="query", positive_column="positive")
    collator.set_epoch(0)
    with pytest.raises(InputError, match=r"one of the columns \['wrong'\] holds them, rename it 'negatives'"):
        collator([{"query": "q", "positive": "p", "wrong": ["n"]}])


def test_lists_beside_a_miner_are_an_error(frozen: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(frozen, make_miner(tmp_path).fit(rows()))
    collator.set_epoch(0)
    with pytest.raises(InputError, match=r"rows hold negatives, and negatives= was given as well.*\['neg'\]"):
        collator([{"query": QUERIES[0], "positive": POSITIVES[0], "neg": ["n"]}])


def test_arrays_are_lists() -> None:
    row = RowReader(["q", "p", "neg"]).read({"q": "q", "p": np.array(["p"]), "neg": np.array(["a", "b"])})
    assert (row.positives, row.negatives, row.room) == (["p"], ["a", "b"], 2)


@pytest.mark.parametrize("scores", [0.5, None, ["a", "b"], [0.9, None], [0.9]], ids=str)
def test_what_is_no_list_of_scores_is_no_score(frozen: SentenceTransformer, scores: Any) -> None:
    row = {"query": "q", "positive": "p", "negative": "n", "scores": scores}
    assert np.isnan(RowReader(list(row)).read(row).scores).all()
    collator = HardNegativeCollator(frozen, labels="scores")
    collator.set_epoch(0)
    with pytest.raises(InputError, match="labels='scores' needs a finite score of the teacher"):
        collator([row])


def test_labelled_lists_of_tensors_train(model: SentenceTransformer, tmp_path: Path) -> None:
    passages = [[positive, *some] for positive, some in zip(POSITIVES, THREE, strict=True)]
    given = datasets.Dataset.from_dict({"query": QUERIES, "docs": passages, "labels": [[1, 0, 0, 0]] * 16})
    assert trained(model, tmp_path, given.with_format("torch")) == EXPECTED


@pytest.mark.parametrize("n", [None, 3])
def test_the_command_trains_on_lists(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int | None
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    lists = THREE if n is None else RAGGED["ragged"][0]
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"query": q, "pos": [p], "neg": neg}) + "\n"
            for q, p, neg in zip(QUERIES, POSITIVES, lists, strict=True)
        ),
        encoding="utf-8",
    )
    command = [
        "train",
        str(tmp_path / "rows.jsonl"),
        "--model",
        str(models / "bert"),
        "-o",
        str(tmp_path / "out"),
        "-q",
    ]
    result = CliRunner().invoke(app, [*command, *([] if n is None else ["-n", str(n)]), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "- **Rows:** 16, 3 negatives each" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    if n is not None:
        result = CliRunner().invoke(app, [*command[:-3], "-o", str(tmp_path / "none"), "--device", "cpu"])
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: num_negatives: how many negatives per row? ")
        assert len(result.stderr.splitlines()) == 1
