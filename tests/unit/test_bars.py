"""Bars: none counts the work of another, one at a time, and none where nobody looks."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hf_negmine import ApproximateTeacher, NegativeMiner
from hf_negmine.base import progress
from hf_negmine.commands.cli import app
from hf_negmine.pool import retrieving
from tests.train.helpers import CORPUS, WordTeacher, rows


class Recorded(WordTeacher):
    """Notes when it encodes."""

    def __init__(self, events: list[str]) -> None:
        super().__init__()
        object.__setattr__(self, "events", events)

    def encode(self, texts: Any, role: Any) -> Any:
        self.events.append(f"encodes {role}")  # type: ignore[attr-defined]
        return super().encode(texts, role)


@pytest.mark.parametrize("index", [None, "IVF2,Flat"])
def test_the_bar_of_the_search_begins_when_everything_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str | None
) -> None:
    events: list[str] = []
    real = retrieving.bar

    def bar(*args: Any, **kwargs: Any) -> Any:
        events.append(args[0])
        return real(*args, **kwargs)

    monkeypatch.setattr(retrieving, "bar", bar)
    teacher = Recorded(events) if index is None else ApproximateTeacher(Recorded(events), index)
    NegativeMiner(teacher, corpus=CORPUS, cache_dir=tmp_path, device="cpu", progress=False).fit(rows())
    assert events.index("Searching") > max(i for i, event in enumerate(events) if event.startswith("encodes"))
    assert {"encodes query", "encodes passage"} <= set(events)


def test_what_an_earlier_run_has_searched_is_not_counted_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieving, "QUERIES_A_PART", 4)
    bars: list[tuple[str, int, int]] = []
    real = retrieving.bar

    def bar(*args: Any, **kwargs: Any) -> Any:
        bars.append((args[0], args[2], kwargs["done"]))
        return real(*args, **kwargs)

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrieving, "bar", bar)
    settings: dict[str, Any] = {"corpus": CORPUS, "cache_dir": tmp_path, "device": "cpu", "progress": False}
    with monkeypatch.context() as patched:
        patched.setattr(retrieving, "write_pool", stop)
        with pytest.raises(KeyboardInterrupt):
            NegativeMiner(WordTeacher(), **settings).fit(rows())
    part = sorted(next(tmp_path.glob("pools/*/parts")).glob("0*.npy"))
    assert len(part) == 4
    part[-1].unlink()
    NegativeMiner(WordTeacher(), **settings).fit(rows())
    searches = [(total, done) for what, total, done in bars if what == "Searching"]
    assert searches == [(16, 0), (16, 12)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(monkeypatch: pytest.MonkeyPatch, made: io.StringIO) -> io.StringIO:
    """Puts a screen in the place of stderr; in a test, since pytest puts its own there when one begins."""
    monkeypatch.setattr(progress, "_OPEN", [])
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_only_the_outer_bar_is_shown_and_the_next_one_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch, Terminal())
    with progress.bar("Outer", "queries", 2, delay=0) as outer:
        for _ in range(2):
            with progress.bar("Inner", "texts", 5, delay=0) as inner:
                inner.update(5)
            outer.update(1)
            for _ in progress.bar("Inner", "rows", 2, over=[1, 2], delay=0):
                break
    for _ in progress.bar("Early", "rows", 2, over=[1, 2], delay=0):
        break
    list(progress.bar("Next", "rows", over=[1, 2, 3], delay=0))
    shown = terminal.getvalue()
    assert "Outer: 100%" in shown
    assert "2/2" in shown
    assert " queries/s" in shown
    assert "Inner" not in shown
    assert "Next: 100%" in shown
    assert progress._OPEN == []


def test_a_bar_that_breaks_off_or_is_not_wanted_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch, Terminal())

    def broken() -> None:
        with progress.bar("Broken", "rows", 2):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    unwanted = progress.bar("Unwanted", "rows", 2, shown=False, delay=0)
    with progress.bar("Wanted", "rows", 2, delay=0) as wanted:
        wanted.update(2)
    unwanted.close()
    assert "Wanted: 100%" in terminal.getvalue()
    assert "Unwanted" not in terminal.getvalue()


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    file = screen(monkeypatch, io.StringIO())
    with progress.bar("Outer", "queries", 2, delay=0) as outer:
        outer.update(2)
    assert file.getvalue() == ""


@pytest.mark.parametrize("command", ["mine", "audit", "sweep"])
def test_scripts_get_one_object_and_nothing_else(command: str, tmp_path: Path) -> None:
    given = [{"query": f"q {place}", "positive": f"p {place}", "negative": f"n {place}"} for place in range(30)]
    rows_file = tmp_path / "rows.jsonl"
    rows_file.write_text("".join(json.dumps(row) + "\n" for row in given))
    output = {"mine": ["-o", tmp_path / "out"], "audit": ["-o", tmp_path / "out.parquet"], "sweep": []}[command]
    arguments = [command, rows_file, "-t", "random:1", "--cache-dir", tmp_path / "cache", "--json", *output]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    expected = {"mine": ("queries", 30), "audit": ("negatives", 30), "sweep": ("reference", "perc_pos:0.95 top")}
    name, value = expected[command]
    assert content[name] == value
    if output:
        assert output[1].exists()
