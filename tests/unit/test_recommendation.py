"""What a sweep says about false negatives: measured against brute force, estimated against a known truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from hf_negmine import InputError, Judgements, NegativeMiner, RandomTeacher, Sweep, SweptSetting
from hf_negmine.commands.cli import app
from hf_negmine.report.false_negatives import Z, wilson
from tests.unit.test_sweep import METHODS, OTHERS, ROWS, miner

N = 3


def judged(pairs: Any, relevant: Any) -> list[dict[str, Any]]:
    return [{"query": one, "document": two, "relevant": relevant(one, two)} for one, two in pairs]


@given(st.integers(1, 5000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_holds_the_shares_that_the_count_does_not_refute(drawn: tuple[int, int]) -> None:
    count, of = drawn
    low, high = wilson(count, of)
    assert 0 <= low <= count / of <= high <= 1
    for bound in (low, high):  # at a bound the count is just Z standard deviations away, unless it is 0 or 1
        if 0 < bound < 1:
            away = abs(count / of - bound)
            assert away == pytest.approx(Z * np.sqrt(bound * (1 - bound) / of), abs=1e-9)


def odd(query: str, passage: str) -> bool:
    return (int(query.split()[-1]) + int(passage.split()[-1])) % 7 == 0


@pytest.mark.parametrize("positive_score", ["min", "each"])
@pytest.mark.parametrize("complete", [False, True])
def test_measured_shares_are_those_of_a_count_by_hand(complete: bool, positive_score: Any, tmp_path: Path) -> None:
    fitted = miner(tmp_path, positive_score=positive_score).fit(ROWS)
    pairs = [(query, passage) for query in ROWS["query"][:25] for passage in OTHERS]
    rows = [one for one in judged(pairs, odd) if one["relevant"] or not complete]
    table = fitted.sweep(METHODS, ["top"], judgements=Judgements(rows, complete=complete))
    for setting, selection in zip(table.settings, fitted.pool.sweep(METHODS, ["top"], N, seed=7), strict=True):
        verdicts = [
            passage.startswith("passage") and odd(query, passage)
            for query, passages in zip(fitted.fitted.texts.queries.texts.to_pylist(), selection.texts(), strict=True)
            for passage in passages
            if query in ROWS["query"][:25] and (complete or passage.startswith("passage"))
        ]
        assert setting.judged == len(verdicts)
        if verdicts:
            assert setting.measured == pytest.approx(np.mean(verdicts), abs=1e-6)
            assert (setting.low, setting.high) == pytest.approx(wilson(sum(verdicts), len(verdicts)), abs=1e-6)


def test_an_estimate_from_a_biased_sample_is_near_the_truth(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"query": [f"q {n}" for n in range(300)], "positive": [f"p {n}" for n in range(300)]})
    fitted = NegativeMiner(
        RandomTeacher(3), corpus=[f"t {n}" for n in range(300)], num_negatives=4, cache_dir=tmp_path, progress=False
    ).fit(rows)
    rng = np.random.default_rng(0)
    naive, low = fitted.pool.sweep(["naive", "shifted:100"], ["top"], 4)
    spread, truth, sample = float(naive.pair_scores.std()), [], []
    for selection in (naive, low):
        scores = selection.scores.astype(np.float64)
        relevant = rng.random(len(scores)) < 1 / (1 + np.exp(-(scores - 0.85) / spread))
        truth.append(relevant.mean())
        queries = np.repeat(np.array(rows["query"])[np.arange(300)], selection.counts)
        order = fitted.fitted.texts.queries.texts.to_pylist()
        queries = np.repeat(np.array(order), selection.counts)
        texts = [text for some in selection.texts() for text in some]
        chosen = np.flatnonzero(rng.random(len(scores)) < np.where(scores > np.median(scores), 0.5, 0.05))
        sample += [{"query": str(queries[at]), "document": texts[at], "relevant": bool(relevant[at])} for at in chosen]
    table = fitted.sweep(["naive", "shifted:100"], ["top"], judgements=sample)
    for setting, share in zip(table.settings, truth, strict=True):
        assert setting.estimated == pytest.approx(share, abs=0.06)
        assert setting.judged < setting.negatives / 2


def setting(name: str, score: float, share: float, *, complete: float = 1.0, judged: int = 500) -> SweptSetting:
    high = min(1.0, share + 0.01)
    return SweptSetting(
        name, "top", 400, complete, score, score, 0.0, 0.5, judged, share, max(0.0, share - 0.01), high, share, True
    )


def test_the_hardest_setting_within_the_tolerance_is_recommended_and_why() -> None:
    settings = (setting("naive", 0.9, 0.4), setting("perc_pos:0.9", 0.7, 0.08), setting("perc_pos:0.7", 0.5, 0.02))
    table = Sweep(settings, "a model", 4, 100, "perc_pos:0.95 top")
    assert table.recommendation.startswith(
        "Take perc_pos:0.9 top: its negatives are the hardest of the settings with at most 10 % false ones (8.0 %); "
        "naive top, the hardest, has 40.0 %. If only 5 % may be false, take perc_pos:0.7 top. `hf-negmine sweep --try`"
    )
    strict = Sweep(settings, "a model", 4, 100, "perc_pos:0.95 top", tolerance=0.01)
    assert "no setting has at most 1 % false negatives, and it has the fewest (2.0 %)" in strict.recommendation
    assert "Take perc_pos:0.7 top" in strict.recommendation
    edge = Sweep((setting("perc_pos:0.9", 0.7, 0.095),), "a model", 4, 100, "naive top")
    assert "measured on 500 negatives of it, the share is at most 10.5 %" in edge.recommendation
    known = Sweep((replace(edge.settings[0], negatives=500),), "a model", 4, 100, "naive top")
    assert "More judgements" not in known.recommendation  # all 500 of its negatives are judged
    short = Sweep((setting("abs:0.5", 0.8, 0.01, complete=0.5), *settings), "a model", 4, 100, "naive top")
    assert short.recommended == settings[1]  # half of the rows would have no negatives
    beaten = replace(setting("shifted:10", 0.6, 0.09), front=False)  # by a setting that leaves rows without negatives
    left = Sweep(
        (settings[0], beaten, setting("perc_pos:0.9", 0.7, 0.08, complete=0.5)), "a model", 4, 100, "naive top"
    )
    assert left.recommended == beaten
    assert "Settings that leave over 5 % of the queries short were not considered." in left.recommendation


def test_without_judgements_nothing_is_claimed(tmp_path: Path) -> None:
    table = miner(tmp_path).fit(ROWS).sweep(METHODS, ["top"])
    assert table.recommended is None
    assert table.recommendation.startswith("Keep perc_pos:0.95 top: nothing here tells how many negatives are false")
    few = miner(tmp_path).fit(ROWS).sweep(METHODS, ["top"], judgements=judged([("question 1", "passage 1")], odd))
    assert few.recommended is None
    assert all(one.estimated is None and one.front is None for one in few.settings)


@pytest.mark.parametrize(
    ("verdict", "lacking"),
    [(lambda *_: True, "not relevant"), (lambda *_: False, "relevant"), (lambda place, _: place < 3, "relevant")],
)
def test_which_judgements_are_too_few_is_told(verdict: Any, lacking: str, tmp_path: Path) -> None:
    fitted = miner(tmp_path).fit(ROWS)
    texts = [text for row in fitted.pool.select("naive", n=3).texts() for text in row]  # type: ignore[union-attr]
    pairs = [(query, texts[3 * place]) for place, query in enumerate(ROWS["query"])]
    lines = [
        {"query": query, "document": passage, "relevant": verdict(place, passage)}
        for place, (query, passage) in enumerate(pairs)
    ]
    table = fitted.sweep(METHODS, ["top"], judgements=lines)
    assert table.recommended is None
    assert table.recommendation.startswith(
        "Keep perc_pos:0.95 top: to estimate how many negatives are false takes at least 10 that were judged relevant "
        f"and 10 that were judged not relevant, and of those judged {lacking} there are fewer; judge more negatives"
    )


def test_the_front_is_what_no_other_setting_beats(tmp_path: Path) -> None:
    pairs = [(query, passage) for query in ROWS["query"] for passage in [*OTHERS, *ROWS["answer"]]]
    table = miner(tmp_path).fit(ROWS).sweep(METHODS, judgements=judged(pairs, odd))
    real = [one for one in table.settings if one.negatives]
    for one in real:
        assert one.mean_score is not None
        assert one.estimated is not None
        beaten = [
            other
            for other in real
            if (other.mean_score or 0) >= one.mean_score
            and (other.estimated or 0) <= one.estimated
            and (other.mean_score, other.estimated) != (one.mean_score, one.estimated)
        ]
        assert one.front == (not beaten)
    assert sum(bool(one.front) for one in real) < len(real)


def test_a_tolerance_is_a_share(tmp_path: Path) -> None:
    fitted = miner(tmp_path).fit(ROWS)
    for wrong in (-0.1, 1.5, "a", None):
        with pytest.raises(InputError, match="tolerance"):
            fitted.sweep(tolerance=wrong)  # type: ignore[arg-type]


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    texts = [*ROWS["answer"], *OTHERS]
    corpus = [{"_id": f"d{place}", "text": text} for place, text in enumerate(texts)]
    queries = [{"_id": f"q{place}", "text": text} for place, text in enumerate(ROWS["query"])]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = "".join(f"q{place}\td{place}\t1\n" for place in range(40))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    hidden = [f"q{q} 0 d{40 + d} 1\n" for q in range(40) for d in range(60) if (q + d) % 7 == 0]
    (tmp_path / "hidden.qrels").write_text("".join(hidden) + "q0 0 d1 0\nq99 0 d1 1\n")
    return folder


def run(folder: Path, *options: str | Path) -> Any:
    given = ["sweep", folder, "-t", "random:1", "-n", N, "-m", "naive", "-m", "perc_pos:0.6", "-s", "top"]
    return CliRunner().invoke(app, [str(one) for one in (*given, "--cache-dir", folder.parent / "cache", *options)])


def test_the_command_measures_by_qrels_and_prints_one_object(beir: Path, tmp_path: Path) -> None:
    result = run(beir, "--qrels", tmp_path / "hidden.qrels", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert [one["judged"] for one in content["settings"]] == [40 * N, content["settings"][1]["negatives"]]
    fitted = NegativeMiner(RandomTeacher(1), num_negatives=N, cache_dir=tmp_path / "own", progress=False).fit(str(beir))
    pairs = [(query, text) for query in ROWS["query"] for text in OTHERS if odd(query, text)]
    own = fitted.sweep(["naive", "perc_pos:0.6"], ["top"], judgements=Judgements(judged(pairs, odd), complete=True))
    assert content == json.loads(json.dumps(own.as_dict()))
    plain = run(beir, "--qrels", tmp_path / "hidden.qrels")
    assert str(own) in plain.stdout


def test_qrels_and_judgements_that_do_not_fit_are_one_sentence(beir: Path, tmp_path: Path) -> None:
    (tmp_path / "none.qrels").write_text("q99 0 d1 1\n")
    result = run(beir, "--qrels", tmp_path / "none.qrels")
    assert "judges no query and passage of" in result.stderr
    both = run(beir, "--qrels", tmp_path / "hidden.qrels", "--judgements", tmp_path / "hidden.qrels")
    assert "--qrels and --judgements: give one of them" in both.stderr
    ROWS.to_json(tmp_path / "rows.jsonl")
    assert "is not a BEIR folder" in run(tmp_path / "rows.jsonl", "--qrels", tmp_path / "hidden.qrels").stderr
