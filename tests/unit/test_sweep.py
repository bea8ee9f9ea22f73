"""A sweep's table: its numbers are those of mining each setting alone, through every door."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from typer.testing import CliRunner, Result

from hf_negmine import CrossSample, InputError, NegativeMiner, NotFittedError, RandomTeacher, Sweep, SweptSetting, Veto
from hf_negmine.commands.cli import app

N = 3
ROWS = Dataset.from_dict(
    {"query": [f"question {place}" for place in range(40)], "answer": [f"answer {place}" for place in range(40)]}
)
OTHERS = [f"passage {place}" for place in range(60)]
METHODS = ["naive", "perc_pos:0.6", "abs:0.03", "shifted:5"]
SAMPLERS = ["top", "sampled:7"]


def miner(folder: Path, **settings: Any) -> NegativeMiner:
    return NegativeMiner(
        RandomTeacher(1), corpus=OTHERS, num_negatives=N, seed=7, cache_dir=folder, progress=False, **settings
    )


def mined(miner: NegativeMiner) -> tuple[list[set[str]], list[float], list[float]]:
    """The negatives of each query, their scores, and the positive score beside each, as a user reads them from rows."""
    rows = miner.with_(format="labeled-list", include_scores=True, on_exhausted="keep").mine(ROWS)
    negatives = [set(row["answer"][1:]) for row in rows]
    scores = [score for row in rows for score in row["scores"][1:]]
    return negatives, scores, [row["scores"][0] for row in rows for _ in row["scores"][1:]]


@pytest.mark.parametrize("veto", [False, True])
def test_every_number_is_that_of_the_setting_mined_alone(veto: bool, tmp_path: Path) -> None:
    given = miner(tmp_path, method="perc_pos:0.9", filters=[Veto(RandomTeacher(2), "abs:0.8")] if veto else [])
    table = given.fit(ROWS).sweep(METHODS, SAMPLERS)
    assert (table.queries, table.num_negatives, table.reference) == (40, N, "perc_pos:0.9 top")
    own, _, _ = mined(given)
    for setting in table.settings:
        negatives, scores, positives = mined(given.with_(method=setting.method, sampler=setting.sampler))
        similar = [len(one & two) / len(one | two) for one, two in zip(negatives, own, strict=True) if one | two]
        assert setting.negatives == len(scores)
        numbers = {
            "complete": np.mean([len(one) == N for one in negatives]),
            "mean_score": np.mean(scores),
            "percentile_95": np.quantile(scores, 0.95),
            "over_positive": np.mean(np.array(scores) > np.array(positives)),
            "jaccard": np.mean(similar),
        }
        assert {name: getattr(setting, name) for name in numbers} == pytest.approx(numbers, abs=1e-6)
    assert [(one.method, one.sampler) for one in table.settings] == [(m, s) for m in METHODS for s in SAMPLERS]
    assert not all(one.complete == 1 for one in table.settings)  # abs:0.03 leaves queries without


def test_without_arguments_relative_ceilings_are_tried(tmp_path: Path) -> None:
    fitted = NegativeMiner(RandomTeacher(1), corpus=OTHERS, cache_dir=tmp_path, progress=False).fit(ROWS)
    table = fitted.sweep()
    assert len(table.settings) == 26
    (own,) = (one for one in table.settings if f"{one.method} {one.sampler}" == table.reference)
    assert own.jaccard == 1
    assert "perc_pos:0.95    top" in str(table)


def test_a_setting_without_negatives_has_no_scores(tmp_path: Path) -> None:
    table = miner(tmp_path).fit(ROWS).sweep(["abs:-1"], ["top"])
    assert table.settings == (SweptSetting("abs:-1", "top", 0, 0.0, None, None, None, 0.0),)
    assert str(table).count(" - ") == 3


def test_an_ensemble_is_swept(tmp_path: Path) -> None:
    both = CrossSample([RandomTeacher(1), RandomTeacher(2)])
    fitted = NegativeMiner(both, corpus=OTHERS, num_negatives=N, cache_dir=tmp_path, progress=False).fit(ROWS)
    table = fitted.sweep(["naive", "perc_pos:0.95"], ["top"])
    assert table.settings[1].jaccard == 1
    assert table.settings[1].over_positive == 0
    assert (table.settings[0].over_positive or 0) > 0


def test_what_cannot_be_swept_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        miner(tmp_path).sweep()
    fitted = miner(tmp_path).fit(ROWS)
    with pytest.raises(InputError, match=r"perc_pos:0\.9x"):
        fitted.sweep(["perc_pos:0.9x"])
    with pytest.raises(InputError, match="sampled:2 cannot draw 3 negatives"):
        fitted.sweep(["naive"], ["sampled:2"])
    with pytest.raises(InputError, match="methods: expected a list such as"):
        fitted.sweep("naive")
    with pytest.raises(InputError, match="samplers: give one or more"):
        fitted.sweep(["naive"], [])


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    ROWS.to_json(tmp_path / "rows.jsonl")
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in OTHERS))
    return tmp_path / "rows.jsonl"


def run(rows: Path, *options: str | Path) -> Result:
    given = [rows, "--corpus", rows.parent / "corpus.jsonl", "-t", "random:1", "-n", N, "--seed", 7, *options]
    arguments = ["sweep", *given, "--cache-dir", rows.parent / "cache", "-m", "naive", "-m", "perc_pos:0.6"]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "md"])
def test_the_command_prints_and_writes_what_the_miner_finds(suffix: str, rows_file: Path, tmp_path: Path) -> None:
    table = miner(tmp_path / "own").fit(ROWS).sweep(["naive", "perc_pos:0.6"], SAMPLERS)
    file = tmp_path / f"table.{suffix}"
    result = run(rows_file, "-s", "top", "-s", "sampled:7", "-o", file)
    assert result.exit_code == 0, result.output
    assert str(table) in result.stdout
    assert result.stdout.endswith(f"Written: {file}\n")
    if suffix == "md":
        cells = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in file.read_text().splitlines()]
        assert [row[:3] for row in cells[2:]][:2] == [["naive", "top", "100.0 %"], ["naive", "sampled:7", "100.0 %"]]
    elif suffix == "csv":
        with file.open() as lines:
            assert [row["mean_score"] for row in csv.DictReader(lines)] == [str(s.mean_score) for s in table.settings]
    else:
        kind = "json" if suffix == "jsonl" else suffix
        read = load_dataset(kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "hf"))
        assert read.to_list() == table.to_dataset().to_list()
    if suffix != "md":
        assert Sweep.read(file) == table


JUDGED = SweptSetting("naive", "top", 4, 1.0, 0.5, 0.75, 0.25, 0.125, 3, 0.333333, 0.061492, 0.792345, 0.4, True)
FEW = SweptSetting("abs:0.1", "top", 0, 0.0, None, None, None, 0.0)
OTHER = replace(JUDGED, method="perc_pos:0.9", front=False, estimated=0.2)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("settings", [(JUDGED, FEW, OTHER), (JUDGED, OTHER), (FEW,)])
@pytest.mark.parametrize("teacher", ["bm25", 'of "us", and\nthem', "1"])
def test_a_sweep_is_read_back(suffix: str, settings: tuple[SweptSetting, ...], teacher: str, tmp_path: Path) -> None:
    sweep = Sweep(settings, teacher, 4, 1000, "perc_pos:0.95 top", 0.25)
    file = tmp_path / f"sweep.{suffix}"
    sweep.save(file)
    assert Sweep.read(file) == sweep
    assert str(Sweep.read(str(file))) == str(sweep)


def test_what_is_no_sweep_is_one_sentence(tmp_path: Path) -> None:
    sweep = Sweep((JUDGED, FEW), "bm25", 4, 1000, "perc_pos:0.95 top")

    def refused(name: str, words: str, content: str | None = None) -> None:
        if content is not None:
            (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=words):
            Sweep.read(tmp_path / name)

    sweep.save(tmp_path / "table.md")
    refused("table.md", "for people to read; write it as .parquet, .csv or .jsonl, too")
    refused("missing.csv", "there is no file")
    refused(".", "there is no file")
    refused("notes.txt", "the ending '.txt' is not among", "my notes")
    refused("broken.parquet", "could not be read as parquet", "PAR1 and no more")
    refused("broken.jsonl", "could not be read as json", '{"method": ')
    refused("empty.jsonl", "is empty", "")
    refused("pairs.jsonl", "is not a sweep .* it lacks the columns sampler, negatives", '{"method": "naive"}\n')
    lines = [{**asdict(one), **ABOUT_IT} for one in (JUDGED, FEW)]
    text = [json.dumps({**line, "negatives": "many"}) for line in lines]
    refused("words.jsonl", "in row 1, negatives is 'many', expected int64", "\n".join(text))
    text = [json.dumps({**line, "queries": place}) for place, line in enumerate(lines)]
    refused("two.jsonl", "holds 2 sweeps, expected one; give a file for each", "\n".join(text))
    text = [json.dumps({**line, "complete": None}) for line in lines]
    refused("null.jsonl", "in row 1, complete is None, expected float64", "\n".join(text))


ABOUT_IT = {"teacher": "bm25", "num_negatives": 4, "queries": 1000, "reference": "naive top", "tolerance": 0.1}


def test_the_command_refuses_a_file_before_it_searches(rows_file: Path, tmp_path: Path) -> None:
    result = run(rows_file, "-o", tmp_path / "table.xlsx")
    assert result.exit_code == 1
    assert "a sweep is written as .parquet, .csv, .jsonl or .md" in result.stderr
    assert not (tmp_path / "cache").exists()
    quiet = run(rows_file, "-o", tmp_path / "table.md", "-q")
    assert quiet.stdout == f"Written: {tmp_path / 'table.md'}\n"


def test_a_table_is_printed_in_lines_of_equal_columns() -> None:
    settings = (
        SweptSetting("naive", "top", 4, 1.0, 0.5, 0.75, 0.25, 0.125),
        SweptSetting("perc_pos:0.95", "sampled:10", 0, 0.0, None, None, None, 0.0),
    )
    assert str(Sweep(settings, "a model", 4, 1, "naive top")).splitlines()[:-2] == [
        "4 negatives per query, 1 query, teacher a model",
        "",
        "method         sampler     complete  mean score  95th percentile  over positive  Jaccard",
        "naive          top          100.0 %      0.5000           0.7500         25.0 %     0.12",
        "perc_pos:0.95  sampled:10     0.0 %           -                -              -     0.00",
        "",
        "Jaccard: how similar the negatives are to those of naive top",
    ]
