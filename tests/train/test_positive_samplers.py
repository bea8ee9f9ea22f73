"""Samplers that see the positive's score, mixtures and percentile ceilings, as users of a miner meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from hf_negmine import CrossSample, Judge, MiningConfig, RandomTeacher, TopKPercentile, Veto
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.train import HardNegativeCollator, RemineCallback
from tests.train.helpers import CORPUS, POSITIVES, QUERIES, WordTeacher, make_miner, rows
from tests.unit.test_miner import forks

SETTINGS: dict[str, dict[str, Any]] = {
    "near the positive": {"method": "naive", "sampler": "simans:12@30@-0.2", "num_negatives": 3},
    "mixed": {"method": "perc_pos:0.95", "sampler": "mixed:1+2@20", "num_negatives": 3},
    "percentile": {"method": "percentile:30", "sampler": "top", "num_negatives": 3},
    "all": {"method": "percentile:60+shifted:1", "sampler": "simans:12@30", "num_negatives": 3},
}


def relevant(queries: Any, passages: Any) -> list[bool]:
    return [True] * len(queries)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_map_equals_mine_in_any_order_and_batch(tmp_path: Path, kind: str, positive_score: Any) -> None:
    twice = Dataset.from_dict({"query": [*QUERIES, *QUERIES[:4]], "positive": [*POSITIVES, *CORPUS[30:34]]})
    settings = {**SETTINGS[kind], "positive_score": positive_score, "include_scores": True, "on_exhausted": "keep"}
    miner = make_miner(tmp_path, **settings)
    mined = miner.mine(twice).to_list()
    for size in (1, 3, 100):
        assert twice.map(miner, batched=True, batch_size=size).to_list() == mined
    turned = twice.select(range(len(twice))[::-1])
    assert make_miner(tmp_path / "turned", **settings).mine(turned).to_list() == mined[::-1]


@forks
def test_processes_draw_alike(tmp_path: Path) -> None:
    miner = make_miner(tmp_path, **SETTINGS["all"]).fit(rows())
    assert rows().map(miner, batched=True, num_proc=2).to_list() == miner.mine(rows()).to_list()


def test_rows_that_come_later_have_the_percentile_of_the_fit(tmp_path: Path) -> None:
    fitted = make_miner(tmp_path, method="percentile:50", sampler="top", include_scores=True, num_negatives=3)
    fitted.fit(rows(0, 12))
    ceiling = np.percentile(fitted.pool.positives.scores.astype(np.float64), 50)
    later = rows(12, 16).map(fitted, batched=True, batch_size=1)
    under = make_miner(tmp_path, method=f"abs:{float(ceiling)!r}", sampler="top", include_scores=True, num_negatives=3)
    expected = rows(12, 16).map(under.fit(rows(0, 12)), batched=True)
    assert later.to_list() == expected.to_list()
    corpus_only = make_miner(tmp_path, method="percentile:50").fit()
    with pytest.raises(InputError, match=r"percentile:50 depends on the positives' scores at fit\(\).*corpus alone"):
        rows(12, 16).map(corpus_only, batched=True)


def test_each_teacher_of_an_ensemble_has_its_own_percentile(tmp_path: Path) -> None:
    both = [WordTeacher(), WordTeacher("narrow", width=3)]
    pool = make_miner(tmp_path, CrossSample(both)).fit(rows()).pool
    selection = pool.select("percentile:40", n=2)
    assert selection.chosen_by is not None
    for number, one in enumerate(both):
        alone = make_miner(tmp_path, one).fit(rows()).pool.select("percentile:40", n=2)
        assert selection.scores[selection.chosen_by == number].max() < np.percentile(alone.pair_scores, 40)
    with pytest.raises(InputError, match="percentile:40 is a threshold in each teacher's own scale"):
        make_miner(tmp_path, CrossSample(both), method="percentile:40", filters=[Judge(relevant)])
    with pytest.raises(InputError, match="Veto: method: expected a ceiling alone"):
        Veto(RandomTeacher(), TopKPercentile(40))


def test_settings_come_back_from_a_dictionary_and_a_shell(tmp_path: Path) -> None:
    config = make_miner(tmp_path, RandomTeacher(), **SETTINGS["all"]).config
    again = MiningConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert (again.method, again.sampler) == (config.method, config.sampler)
    source, mined = tmp_path / "rows.parquet", tmp_path / "mined"
    rows().to_parquet(source)
    command = ["mine", str(source), "-t", "random", "-m", "percentile:60", "-s", "mixed:1+2@9", "-n", "3", "-q"]
    result = CliRunner().invoke(app, [*command, "-o", str(mined), "--cache-dir", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    wrong = CliRunner().invoke(app, [*command, "-s", "mixed:2+2", "-o", str(mined), "--overwrite"])
    assert wrong.exit_code != 0
    assert "mixed:2+2@100 draws 4 negatives per query, not 3" in " ".join(wrong.stderr.replace("│", " ").split())


@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_a_collator_draws_near_the_positive_that_counts(frozen: Any, tmp_path: Path, positive_score: Any) -> None:
    twice = Dataset.from_dict({"query": [QUERIES[0]] * 2, "positive": [POSITIVES[0], CORPUS[20]]})
    settings = {"method": "naive", "sampler": "simans:30@1e6", "num_negatives": 1, "positive_score": positive_score}
    miner = make_miner(tmp_path, **settings).fit(twice)
    collator = HardNegativeCollator(frozen, miner, labels="scores")
    collator.set_epoch(0)
    batch = collator(list(twice))
    expected = miner.pool.select("naive", "top", n=30)
    scores = np.sort(expected.scores[: expected.counts[0]])
    own = miner.pool.positives.scores
    by_text = dict(zip(miner.corpus["document"], range(len(CORPUS)), strict=True))
    for row, text in enumerate(twice["positive"]):
        place = np.flatnonzero(miner.pool.positives.ids == by_text[text])[0]
        sought = own[place] if positive_score == "each" else own.min()
        nearest = scores[np.argmin(np.abs(scores - sought))]
        assert float(batch["label"][row, 1]) == pytest.approx(float(nearest), abs=1e-6)


def test_where_there_is_no_score_to_be_near_it_is_said(frozen: Any, tmp_path: Path) -> None:
    collator = HardNegativeCollator(frozen, num_negatives=1, sampler="simans:3")
    collator.set_epoch(0)
    with pytest.raises(InputError, match=r"simans:3@100 draws by the teacher's scores, and the row .* lacks them"):
        collator([{"query": QUERIES[0], "positive": POSITIVES[0], "negatives": CORPUS[20:24]}])
    mined = make_miner(tmp_path, num_negatives=3, format="labeled-list", include_scores=True).mine(rows())
    scored = HardNegativeCollator(frozen, num_negatives=1, sampler="simans:3@50")
    scored.set_epoch(0)
    assert len(scored(list(mined))["query_input_ids"]) == len(mined)
    with_bank = HardNegativeCollator(frozen, make_miner(tmp_path, sampler="simans:8").fit(rows()))
    with pytest.raises(InputError, match="simans:8@100 compares them with the teacher's score"):
        RemineCallback(with_bank, rule="student")
