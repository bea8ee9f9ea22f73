"""The README's code runs: all Python blocks one after another, and the shell command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from tests.hub.client import forget, point_clients_at
from tests.hub.server import Hub

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

SOURCE = "sentence-transformers/natural-questions"
TOPICS = ["tea", "rain", "bread", "glass", "sleep", "salt", "wool", "paper", "iron", "honey", "sand", "rope"]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, flags=re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix(indent) for line in code.splitlines()) for indent, code in found]


@pytest.fixture
def rows() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "query": [f"where does {topic} come from" for topic in TOPICS],
            "answer": [f"A short history of {topic}, and where {topic} comes from." for topic in TOPICS],
        }
    )


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found")
def test_python_blocks_run(
    rows: datasets.Dataset,
    minilm: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What needs the Hub: the data set, the model, whose place another real model takes, and a place to share at.
    real = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, **options: rows if name == SOURCE else real(name, **options)
    )
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # the trainer writes to "output"
    code = [block.replace("intfloat/e5-base-v2", minilm).replace("you/", "tester/") for block in blocks("python")]
    code = [
        block.replace('reproduce("tester/nq-mined"', f'reproduce("tester/nq-mined", teacher="{minilm}"')
        for block in code
    ]
    assert len(code) == 6
    namespace: dict[str, Any] = {}
    with Hub() as hub:
        point_clients_at(hub, tmp_path / "hf_home", monkeypatch)
        for block in code:
            exec(compile(block, "README.md", "exec"), namespace)
        forget()
    assert not hub.strayed
    assert f"identical: all {len(rows)} rows came out again" in capsys.readouterr().out
    assert namespace["shared"].rows.to_list() == namespace["mined"].to_list()
    assert "tester/nq-mined" in hub.files("model", "tester/nq-model")["README.md"].decode()

    mined = namespace["mined"]
    assert mined.column_names == ["query", "answer", *(f"negative_{i}" for i in range(1, 5))]
    assert mined["query"] == rows["query"]
    assert all(row["answer"] not in [row[f"negative_{i}"] for i in range(1, 5)] for row in mined)
    assert len(namespace["selection"].offsets) == len(rows) + 1

    from hf_negmine import NegativeMiner

    own = NegativeMiner(namespace["CharacterTeacher"](), method="naive", num_negatives=2, cache_dir=tmp_path)
    assert own.mine(rows).num_rows == len(rows)
    assert "characters" in str(own.summary)


def test_shell_command_runs(
    rows: datasets.Dataset, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_negmine.cli import app

    (command,) = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("hf-negmine")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    rows.to_parquet("rows.parquet")
    arguments = shlex.split(command.replace("intfloat/e5-base-v2", str(minilm)))[1:]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    mined = datasets.Dataset.from_parquet(str(tmp_path / "mined" / "data.parquet"), cache_dir=str(tmp_path / "hf"))
    assert len(mined) == len(rows)


def test_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\]\(((?!http|#)[^)]+)\)", README):
        assert (ROOT / name).exists(), name
