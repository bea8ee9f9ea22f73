"""Rows whose passages are labelled: refused where a label says "not relevant", and mined where it does not."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset
from typer.testing import CliRunner

from hf_negmine import NegativeMiner, audit
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.data.sources import open_rows, pair_batches
from tests.remedies import suggested

QUERIES = [f"query {place // 2}" for place in range(8)]
PASSAGES = [f"passage {place}" for place in range(8)]
LISTS = [[f"passage {place}", f"other {place}"] for place in range(8)]
BOTH = [1, 0] * 4
BY_NAME: dict[str, Any] = {"query_column": "query", "positive_column": "passage"}


def labelled(name: str, values: list[Any], passages: list[Any] = PASSAGES) -> Dataset:
    return Dataset.from_dict({"query": QUERIES, "passage": passages, name: values})


def with_classes(names: list[str]) -> Dataset:
    rows = labelled("label", [place % len(names) for place in range(8)])
    return rows.cast_column("label", ClassLabel(names=names))


def miner_in(folder: Path, **settings: Any) -> NegativeMiner:
    given: dict[str, Any] = {"method": "naive", "num_negatives": 2, "progress": False, **BY_NAME, **settings}
    return NegativeMiner("random", cache_dir=folder, **given)


def read(rows: Any) -> int:
    return sum(len(queries) for queries, _ in pair_batches(open_rows(rows).rows, "query", "passage"))


def as_stream(rows: Dataset) -> datasets.IterableDataset:
    return rows.to_iterable_dataset()


@pytest.mark.parametrize("labelled_row", [0, 2])
def test_rows_of_a_stream_may_have_other_columns_than_the_first(labelled_row: int, tmp_path: Path) -> None:
    rows = [{"query": f"query {place}", "passage": f"passage {place}"} for place in range(3)]

    def stream(label: int, *more: dict[str, Any]) -> datasets.IterableDataset:
        given = [{**row, "label": label} if place == labelled_row else row for place, row in enumerate(rows)]
        return datasets.IterableDataset.from_generator(lambda: iter([*given, *more]))

    assert read(stream(1)) == 3
    with pytest.raises(InputError, match="column 'label' is 0 for 1 of 1 rows, which marks them as not relevant"):
        read(stream(0))
    with pytest.raises(InputError, match=r"column 'passage' has 1 empty text.* in row 3"):
        miner_in(tmp_path).fit(stream(1, {"query": "query 3"}))
    with pytest.raises(InputError, match=r"column 'corpus' has 1 empty text.* in row 3"):
        miner_in(tmp_path, corpus_column="passage").fit(rows, corpus=stream(1, {"query": "query 3"}))


REFUSED: dict[str, tuple[Dataset, str]] = {
    "whole numbers": (labelled("label", BOTH), "column 'label' is 0 for 4 of 8 rows"),
    "booleans": (labelled("relevant", [True, False] * 4), "column 'relevant' is False for 4 of 8 rows"),
    "floats that are labels": (labelled("label", [1.0, 0.0] * 4), "column 'label' is 0.0 for 4 of 8 rows"),
    "numbers as text": (labelled("label", ["1", "0"] * 4), "column 'label' is '0' for 4 of 8 rows"),
    "decimals": (labelled("label", [Decimal(1), Decimal(0)] * 4), "column 'label' is 0.0 for 4 of 8 rows"),
    "minus one": (labelled("labels", [1, -1] * 4), "column 'labels' is -1 for 4 of 8 rows"),
    "graded judgements": (labelled("score", [0, 1, 2, 3] * 2), "column 'score' is 0 for 2 of 8 rows"),
    "some null": (labelled("relevance", [None, 0, 1, 1] * 2), "column 'relevance' is 0 for 2 of 6 rows"),
    **{
        f"a column called {name}": (labelled(name, BOTH), f"column '{name}' is 0 for 4 of 8 rows")
        for name in ("is_selected", "qrel", "judgment", "is_correct", "has_answer", "target", "gold", "human_label")
    },
    "a word": (labelled("label", ["relevant", "nonrelevant"] * 4), "column 'label' is 'nonrelevant' for 4 of 8 rows"),
    "another spelling": (labelled("Is-Relevant", BOTH), "column 'Is-Relevant' is 0 for 4 of 8 rows"),
    "inference": (
        labelled("gold_label", ["entailment", "neutral", "contradiction", "entailment"] * 2),
        "column 'gold_label' is 'contradiction' or 'neutral' for 4 of 8 rows",
    ),
    "classes": (
        with_classes(["entailment", "neutral", "contradiction"]),
        "column 'label' is 'neutral' or 'contradiction' for 5 of 8 rows",
    ),
    "classes of a paraphrase": (with_classes(["not_equivalent", "equivalent"]), "is 'not_equivalent' for 4 of 8 rows"),
    "lists": (labelled("labels", [[1, 0]] * 8, LISTS), "column 'labels' is 0 for 8 of 16 passages"),
    "one label for a list": (labelled("label", BOTH, LISTS), "column 'label' is 0 for 4 of 8 rows"),
    "grades of a list": (labelled("scores", [[0.9, 0.2]] * 8, LISTS), "column 'scores' grades the passages"),
}


@pytest.mark.parametrize("as_kind", [lambda rows: rows, as_stream], ids=["rows", "stream"])
@pytest.mark.parametrize(("rows", "fact"), REFUSED.values(), ids=REFUSED)
def test_labels_of_passages_that_are_not_relevant_are_refused(
    rows: Dataset, fact: str, as_kind: Callable[[Dataset], Any]
) -> None:
    with pytest.raises(InputError) as caught:
        read(as_kind(rows))
    message = str(caught.value)
    assert fact in message
    assert "\n" not in message
    kept = suggested(message, rows=as_kind(rows))
    assert 0 < read(kept) <= len(rows)
    assert "remove_columns(" in message
    assert read(rows.remove_columns(next(name for name in rows.column_names if name not in ("query", "passage")))) == 8


TAKEN: dict[str, Dataset] = {
    "only positives": labelled("label", [1] * 8),
    "upvotes": labelled("score", [17, 3, 250, 1] * 2),
    "results of matches": labelled("score", ["3-2", "0-0"] * 4),
    "topics": with_classes(["world", "sports", "science"]),
    "tags of a text": labelled("labels", [[0, 1, 0]] * 8),
    "nothing": labelled("label", [None] * 8),
    "another name": labelled("year", [0] * 8),
}


@pytest.mark.parametrize("rows", TAKEN.values(), ids=TAKEN)
def test_columns_that_say_something_else_are_passed_over(rows: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    assert read(rows) == read(as_stream(rows)) == 8
    assert not caplog.records


@pytest.mark.parametrize("grades", [[0.1, 0.95, 0.0, 0.4] * 2, ["0.1", "0.95", "0", "0.4"] * 2], ids=["float", "text"])
def test_grades_are_not_labels_and_that_is_said(grades: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    rows = labelled("score", grades)
    with caplog.at_level(logging.WARNING):
        assert read(rows) == 8
    (record,) = caplog.records
    message = record.getMessage()
    assert "column 'score' holds grades from 0 to 0.95, which are not read: all of the 8 rows are mined" in message
    assert suggested(message, rows=rows)["score"] == [grades[1]] * 2


def in_lists(rows: Dataset) -> Dataset:
    """Rows with one label each, as rows with lists of passages and labels."""
    kind = datasets.List(rows.features["label"])
    lists = {"passage": [[text] for text in rows["passage"]], "label": [[label] for label in rows["label"]]}
    features = datasets.Features(
        {"query": rows.features["query"], "passage": datasets.List(rows.features["passage"]), "label": kind}
    )
    made = Dataset.from_dict({"query": rows["query"], **lists}, features=features)
    return made.rename_column("label", "labels")


@pytest.mark.parametrize("name", ["labeled-pair", "labeled-list"])
@pytest.mark.parametrize(
    ("rows", "fact"),
    [
        (labelled("label", [1.0, float("nan")] * 4), "4 label(s) that are not a number"),
        (labelled("label", [1, None] * 4), "4 missing label(s)"),
        (labelled("label", ["yes", "no"] * 4), "holds string that is no label"),
        (with_classes(["entailment", "neutral", "contradiction"]), "the class 'neutral' under 1"),
        (with_classes(["relevant", "irrelevant"]), "the class 'irrelevant' under 1"),
    ],
    ids=["NaN", "null", "words", "three classes", "the other way round"],
)
def test_labels_of_a_format_mean_what_they_say_or_are_refused(
    name: str, rows: Dataset, fact: str, tmp_path: Path
) -> None:
    rows = rows if name == "labeled-pair" else in_lists(rows)
    for look in (
        miner_in(tmp_path, rows_format=name).mine,
        lambda rows: audit(rows, miner_in(tmp_path, rows_format=name)),
    ):
        with pytest.raises(InputError, match=re.escape(fact)):
            look(rows)


# ---- every door --------------------------------------------------------------------------------------------------


def test_fit_and_mine_refuse_them(tmp_path: Path) -> None:
    rows = labelled("label", BOTH)
    for call in (miner_in(tmp_path).fit, miner_in(tmp_path).mine):
        with pytest.raises(InputError, match=r"^column 'label' is 0 for 4 of 8 rows"):
            call(rows)
    positives = rows.filter(lambda row: row["label"] == 1)
    mined = miner_in(tmp_path).mine(positives)
    assert mined["query"] == positives["query"]


@pytest.mark.parametrize("as_arrow", [False, True])
def test_rows_that_come_later_are_refused_by_map_and_mine(tmp_path: Path, as_arrow: bool) -> None:
    rows = labelled("label", BOTH)
    miner = miner_in(tmp_path).fit(rows.filter(lambda row: row["label"] == 1))
    with pytest.raises(InputError, match=r"^column 'label' is 0 for 4 of 4 rows"):
        miner.mine(rows)
    with pytest.raises(InputError, match=r"^column 'label' is 0 for "):
        (rows.with_format("arrow") if as_arrow else rows).map(miner, batched=True, batch_size=3)


def test_rows_of_the_fit_were_declared_positive_there(tmp_path: Path) -> None:
    rows = labelled("label", BOTH)
    miner = miner_in(tmp_path).fit(rows.remove_columns("label"))
    assert len(rows.map(miner, batched=True, batch_size=3)) == len(miner.mine(rows)) == 8


def test_our_own_labelled_formats_are_not_mined_as_they_are(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"query": QUERIES, "passage": PASSAGES})
    for format in ("labeled-pair", "labeled-list"):
        mined = miner_in(tmp_path, format=format).mine(rows)
        with pytest.raises(InputError, match=r"^column 'labels?' is 0 for "):
            miner_in(tmp_path).mine(mined)
    graded = miner_in(tmp_path, format="labeled-list", include_scores=True).mine(rows)
    with pytest.raises(InputError, match=r"^column 'scores' grades the passages in 'passage'"):
        miner_in(tmp_path).mine(graded)


def test_the_command_line_refuses_them(tmp_path: Path) -> None:
    labelled("label", BOTH).to_parquet(tmp_path / "rows.parquet")
    arguments = ["mine", str(tmp_path / "rows.parquet"), "-t", "random", "--query-column", "query"]
    arguments += ["--positive-column", "passage", "-o", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "column 'label' is 0 for 4 of 8 rows" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "data.parquet").exists()


def test_the_drop_in_refuses_them(tmp_path: Path, minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    from hf_negmine import mine_hard_negatives

    model = SentenceTransformer(minilm, device="cpu")
    rows = labelled("label", BOTH)
    with pytest.raises(ValueError, match=r"^column 'label' is 0 for 4 of 8 rows") as caught:
        mine_hard_negatives(rows, model, num_negatives=2, verbose=False, cache_folder=str(tmp_path))
    kept = suggested(str(caught.value), dataset=rows)
    assert len(mine_hard_negatives(kept, model, num_negatives=2, verbose=False, cache_folder=str(tmp_path))) == 8
