"""The quickstart: every kind of negatives trains, and a study goes on where it was interrupted."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from hf_negmine.base.errors import InputError
from recipes.common.config import load_recipe
from recipes.quickstart import study
from recipes.quickstart.recipe import Quickstart
from recipes.quickstart.study import one_positive_per_query, run
from tests.recipes.helpers import write_beir
from tests.train.helpers import CORPUS, POSITIVES, QUERIES

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart" / "recipe.yaml"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A BEIR folder: 12 training queries with a second positive for one, 4 test queries, 40 passages."""
    train, test = [(i, i) for i in range(12)] + [(0, 39)], [(i, i) for i in range(12, 16)]
    write_beir(tmp_path / "words", CORPUS, QUERIES, {"train": train, "test": test})
    return tmp_path / "words"


def test_rows_have_one_positive(data: Path) -> None:
    rows, corpus = one_positive_per_query(data)
    assert rows.to_dict() == {"query": QUERIES[:12], "positive": POSITIVES[:12]}
    assert len(corpus) == 40


def test_a_study_of_every_kind_runs_and_goes_on(
    encoder: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    whole = load_recipe(RECIPE, Quickstart)
    tiny = dataclasses.replace(whole, teacher=encoder, layers=1, max_seq_length=32, batch_size=4, seeds=(0,))
    told: list[str] = []
    first = dataclasses.replace(tiny, negatives=tiny.negatives[:2])
    run(first, tmp_path / "out", data, told.append)
    report = run(tiny, tmp_path / "out", data, told.append)
    names = ["untrained", "naive/0", "perc_pos/0", "sampled/0", "refreshed/0", "plain_loss/0"]
    assert [line.partition(":")[0] for line in told] == names
    runs = json.loads((tmp_path / "out" / study.RESULTS).read_text(encoding="utf-8"))["runs"]
    assert report.startswith(f"NDCG@10 before training {runs['untrained']['ndcg']:.4f}; 12 rows")
    assert re.search(rf"\| naive \| {runs['naive/0']['ndcg']:.4f} \|", report)
    assert {name for name, one in runs.items() if one.get("refresh_seconds")} == {"refreshed/0"}
    assert runs["plain_loss/0"]["masked"] == 0
    assert (tmp_path / "out" / study.TABLE).read_text(encoding="utf-8").strip() == report

    for other, message in (
        (dataclasses.replace(tiny, epochs=1), "holds runs with other settings; give another folder"),
        (dataclasses.replace(tiny, negatives=(dataclasses.replace(tiny.negatives[0], method="shifted:1"),)), "naive"),
    ):
        with pytest.raises(InputError, match=message):
            run(other, tmp_path / "out", data, told.append)


def test_it_says_that_it_needs_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data: name a BEIR folder"):
        run(load_recipe(RECIPE, Quickstart), tmp_path / "out")
