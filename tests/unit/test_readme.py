"""The code of the README and the docs runs: all Python blocks one after another, and the shell commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from tests.hub.client import forget, point_clients_at
from tests.hub.server import Hub
from tests.openai_server import OpenAIServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHODS, TEACHERS, TRAINING, SHARING = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("methods", "teachers", "training", "sharing")
)

SOURCE = "sentence-transformers/natural-questions"
TOPICS = ["tea", "rain", "bread", "glass", "sleep", "salt", "wool", "paper", "iron", "honey", "sand", "rope"]


def blocks(language: str, text: str = README) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, flags=re.MULTILINE | re.DOTALL)
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
    code = [block for text in (README, METHODS, TRAINING, SHARING) for block in blocks("python", text)]
    assert len(code) == 2 + 2 + 2 + 3
    for model in ("intfloat/e5-base-v2", "intfloat/e5-base-unsupervised"):
        code = [block.replace(model, minilm) for block in code]
    code = [
        block.replace('reproduce("you/nq-mined"', f'reproduce("you/nq-mined", teacher="{minilm}"').replace(
            "you/", "tester/"
        )
        for block in code
    ]
    namespace: dict[str, Any] = {}
    with Hub() as hub:
        point_clients_at(hub, tmp_path / "hf_home", monkeypatch)
        for block in code:
            exec(compile(block, "README.md", "exec"), namespace)
        forget()
    assert not hub.strayed
    printed = capsys.readouterr().out
    assert f"identical: all {len(rows)} rows came out again" in printed
    assert all(f"\n{method} " in printed for method in ("naive", "perc_pos:0.95", "margin_pos:0.05", "abs:0.7"))
    assert namespace["shared"].rows.to_list() == namespace["mined"].to_list()
    assert "tester/nq-mined" in hub.files("model", "tester/nq-model")["README.md"].decode()

    mined = namespace["mined"]
    assert mined.column_names == ["query", "answer", *(f"negative_{i}" for i in range(1, 5))]
    assert mined["query"] == rows["query"]
    assert all(row["answer"] not in [row[f"negative_{i}"] for i in range(1, 5)] for row in mined)
    other = namespace["other"]
    assert other.column_names == mined.column_names
    assert set(other["query"]) <= set(rows["query"])


def test_shell_command_runs(
    rows: datasets.Dataset, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_negmine.commands.cli import app

    (command,) = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("hf-negmine")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    rows.to_parquet("rows.parquet")
    arguments = shlex.split(command.replace("intfloat/e5-base-v2", str(minilm)))[1:]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    mined = datasets.Dataset.from_parquet(str(tmp_path / "mined" / "data.parquet"), cache_dir=str(tmp_path / "hf"))
    assert len(mined) == len(rows)


@pytest.fixture(scope="module")
def stand_ins(models: Path, minilm: str) -> dict[str, str]:
    """For each model that docs/teachers.md names, another one of its kind."""
    return {
        "intfloat/e5-base-v2": minilm,
        "BAAI/bge-reranker-v2-m3": str(models / "cross"),
        "naver/splade-v3": str(models / "sparse"),
        "colbert-ir/colbertv2.0": str(models / "tokens"),
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OpenAIServer]:
    """What OpenAI's own server is to somebody with a key."""
    with OpenAIServer() as running:
        running.reply = lambda question: "Yes" if "history of bread" in question else "No"
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-a-test")
        monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield running


def corpus_of(rows: datasets.Dataset) -> datasets.Dataset:
    others = [f"{topic} is sold by the {unit}" for topic in TOPICS for unit in ("pound", "yard", "dozen")]
    return datasets.Dataset.from_dict({"text": [*rows["answer"], *others]})


def with_stand_ins(text: str, stand_ins: dict[str, str]) -> str:
    for name, other in stand_ins.items():
        text = text.replace(name, other)
    return text


def test_python_blocks_on_teachers_run(
    rows: datasets.Dataset, stand_ins: dict[str, str], server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {"rows": rows, "corpus": corpus_of(rows)}
    for block in blocks("python", TEACHERS):
        exec(compile(with_stand_ins(block, stand_ins), "teachers.md", "exec"), namespace)
    mined = ("mined", "from_a_server", "by_vectors", "fused", "crossed", "near", "judged")
    assert [name for name in mined if not len(namespace[name])] == []
    assert [len(some) for some in namespace["own"]] == [len(rows)] * 3
    assert len(namespace["judged"]) > len(rows), "what the judge calls relevant is written as a positive"
    assert 0 < len(namespace["filtered"]) <= len(rows)
    assert "agreement of the teachers" in capsys.readouterr().out
    assert {request.body["model"] for request in server.requests} == {"text-embedding-3-small", "gpt-4.1-mini"}


def test_shell_commands_on_teachers_run(
    rows: datasets.Dataset, stand_ins: dict[str, str], server: OpenAIServer, tmp_path: Path
) -> None:
    from hf_negmine.commands.cli import app

    rows.to_parquet("rows.parquet")
    corpus_of(rows).to_parquet("corpus.parquet")
    commands = [line for block in blocks("bash", TEACHERS) for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        arguments = [with_stand_ins(part, stand_ins) for part in shlex.split(command)[1:]]
        result = CliRunner().invoke(app, [*arguments, "--on-exhausted", "keep"])
        assert result.exit_code == 0, result.output
        assert (tmp_path / arguments[-1] / "data.parquet").exists()


def test_the_readmes_file_tree_is_the_repository() -> None:
    (tree,) = re.findall(r"^```\n(hf_negmine/\n.*?)^```$", README, re.MULTILINE | re.DOTALL)
    named, folder = [], ROOT
    for line in tree.splitlines():
        name = line.split()[0]
        path = (folder if line.startswith(" ") else ROOT) / name
        folder = folder if line.startswith(" ") else path
        assert path.exists(), name
        assert path.is_dir() == name.endswith("/"), name
        named.append(path)
    rooms = {path.parent for path in (ROOT / "hf_negmine").glob("*/__init__.py")}
    assert rooms - set(named) <= {ROOT / "hf_negmine" / "recipes"}


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    import hf_negmine

    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md")]
    shown = re.findall(r"^::: hf_negmine\.(\w+)$", "\n".join(pages), flags=re.MULTILINE)
    assert sorted(shown) == sorted(hf_negmine.__all__)


def test_files_that_the_readme_and_the_docs_name_exist() -> None:
    for file in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name in re.findall(r"\]\(((?!http|#)[^)#]+)[^)]*\)", file.read_text(encoding="utf-8")):
            assert (file.parent / name).exists(), f"{file.name}: {name}"
