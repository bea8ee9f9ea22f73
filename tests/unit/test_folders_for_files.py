"""A folder in the place of a file is one sentence, before any work, for every option of the shell that takes a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hf_negmine import Judgements, Sweep, SweptSetting
from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.commands.cli import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OPTIONS = [
    (command, option.opts[0])
    for command, made in COMMANDS.items()
    for option in made.params
    if option.metavar == "FILE"
]


def test_there_are_such_options() -> None:
    assert len(OPTIONS) >= 12


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_a_folder_is_refused(command: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder.jsonl").mkdir()
    for given in (f"{tmp_path}/folder.jsonl", "~/folder.jsonl"):
        result = CliRunner().invoke(app, [command, option, given])
        assert result.exit_code == 2
        assert "folder.jsonl is a folder, expected a file" in result.stderr, result.output


def test_nor_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\); give a file of JSON lines"):
        Judgements(tmp_path)
    with pytest.raises(StorageError, match="it is a folder; give the name of a file"), finish_or_nothing(tmp_path):
        pass
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"cannot write s3:/bucket/table\.csv: it is an address; give the name"):
        Sweep((SweptSetting("naive", "top", 0, 0.0, None, None, None, 0.0),), "a model", 4, 100, "naive top").save(
            "s3://bucket/table.csv"
        )
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="sweep: there is no file"):
        Sweep.read(tmp_path)
