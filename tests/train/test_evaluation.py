"""Which judgements a model is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_negmine.base.errors import InputError
from hf_negmine.train.evaluation import beir_evaluator
from tests.recipes.helpers import write_beir

TEXTS = ["a passage", "another one", "a third"]
QUERIES = ["trained on", "chosen by", "measured on"]


@pytest.mark.parametrize(
    ("splits", "wanted", "measured"),
    [
        (("train", "test"), None, "test"),
        (("train", "dev", "test"), None, "test"),
        (("dev",), None, "dev"),
        (("train", "dev", "test"), "dev", "dev"),
    ],
)
def test_a_model_is_measured_on_test_unless_told_otherwise(
    splits: tuple[str, ...], wanted: str | None, measured: str, tmp_path: Path
) -> None:
    write_beir(tmp_path / "set", TEXTS, QUERIES, {name: [(place, place)] for place, name in enumerate(splits)})
    evaluator = beir_evaluator(tmp_path / "set", split=wanted)
    assert evaluator.queries == [QUERIES[splits.index(measured)]]


def test_training_queries_are_never_taken_for_a_test(tmp_path: Path) -> None:
    write_beir(tmp_path / "set", TEXTS, QUERIES, {"train": [(0, 0)], "dev": [(1, 1)]})
    with pytest.raises(InputError, match=r"split: .*qrels has \['dev', 'train'\]; name one"):
        beir_evaluator(tmp_path / "set")
