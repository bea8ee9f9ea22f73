"""The scripts of examples/ are short, run offline, and print what they promise."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from tests.hub.client import forget, point_clients_at
from tests.hub.server import Hub
from tests.openai_server import OpenAIServer

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 40

Run = Callable[..., str]


@pytest.fixture
def run(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example in an empty folder, and gives what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))

    def example(name: str, *arguments: str) -> str:
        path = ROOT / "examples" / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return example


def mined_rows(printed: str) -> list[list[str]]:
    """Query and texts of every row that was printed."""
    return [re.sub(r"^ +[-+] ", "", row, flags=re.MULTILINE).splitlines() for row in re.split(r"\n(?=\S)", printed)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_is_short_and_says_what_it_shows(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert len(code.splitlines()) <= MOST_LINES
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(code)) or "")


def test_every_example_is_tested_and_shown_in_the_docs() -> None:
    shown = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    assert {path.stem for path in EXAMPLES} == set(re.findall(r"examples/(\w+)\.py", shown))
    assert {path.stem for path in EXAMPLES} == set(re.findall(r'run\(\s*"(\w+)"', tests))


def test_mine_keeps_unlabelled_answers_out(run: Run, tmp_path: Path) -> None:
    printed = run("mine")
    for negative in ("Flour, water and salt", "Bees dance", "At sunset"):
        assert f"  - {negative}" in printed
    for answer in ("bubbles of gas", "Honey is made by bees", "scatters short waves"):
        assert answer not in printed
    assert "3 candidates kept out by perc_pos:0.95" in printed
    assert len(datasets.Dataset.from_parquet(str(tmp_path / "mined.parquet"), cache_dir=str(tmp_path))) == 3


def test_audit_replaces_the_false_negative(run: Run) -> None:
    said = run("audit")
    assert "25.0 % of the negatives are doubtful: 1 of 4, in 1 of 2 rows" in said
    fridge = said.split("how does a fridge stay cold\n")[1].split("why is")[0]
    assert "Heat leaves the fridge" not in fridge
    assert fridge.count("  - ") == 2


def test_sweep_counts_false_negatives_of_each_method(run: Run) -> None:
    rows = {line.split()[0]: line.split()[1:] for line in run("sweep").splitlines()[1:]}
    false = {method: int(words[1]) for method, words in rows.items()}
    assert false["naive"] == 3
    assert false["perc_pos:0.95"] == false["margin_pos:0.05"] == 0
    assert float(rows["perc_pos:0.8"][0]) < float(rows["perc_pos:0.95"][0]) < float(rows["naive"][0])


def test_lists_says_where_a_list_ends(run: Run, tmp_path: Path) -> None:
    printed = run("lists")
    assert "what makes bread rise (complete)\n  - Flour, water" in printed
    assert "how do bees make honey (list ended)\n  - Bees dance" in printed
    assert "bubbles" not in printed
    assert "['query', 'positive', 'negative_1']" in printed
    assert {path.name for path in tmp_path.iterdir()} >= {"lists", "run.trec.gz", "qrels.txt"}


def test_teachers_veto_takes_out_what_the_other_teacher_knows(run: Run) -> None:
    parts = re.split(r"^(?=\S)", run("teachers"), flags=re.MULTILINE)[1:]
    negatives = {part.splitlines()[0]: part for part in parts}
    assert "Code E4017" in negatives["MiniLM alone"]
    assert "Code E4017" not in negatives["MiniLM with a veto by BM25"]
    assert all(part.count("    - ") == 4 for part in negatives.values())


def test_judge_makes_positives_of_unlabelled_answers(run: Run) -> None:
    printed = run("judge")
    assert "  + Heat leaves the fridge" in printed
    assert "  + The sky is blue because" in printed
    assert "  - Milk keeps" in printed
    assert "4 pairs were judged" in printed


def test_judge_may_be_a_chat_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer() as server:
        server.reply = lambda question: "Yes" if "Heat leaves the fridge" in question else "No"
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-a-test")
        printed = run("judge", "gpt-4.1-mini")
        assert {request.body["model"] for request in server.requests} == {"gpt-4.1-mini"}
    assert "  + Heat leaves the fridge" in printed
    assert "  - The sky is blue because" in printed


def test_filters_leave_languages_apart_and_near_duplicates_out(run: Run) -> None:
    english, german = mined_rows(run("filters").strip())
    assert english[0] == "how do bees make honey"
    assert sum("Bees dance" in text for text in english) == 1
    assert "A jar of honey keeps for years." in english
    assert all(text.startswith(("Bienen", "Ein Glas")) for text in german[1:])


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found")
def test_train_moves_positives_away_from_negatives(run: Run) -> None:
    found = re.search(r"margin (\S+) before, (\S+) after", run("train"))
    assert found is not None
    assert float(found[2]) > float(found[1])


def test_share_writes_to_a_folder_first(run: Run) -> None:
    assert "you/tiny-mined: " in (printed := run("share"))
    assert "nothing was sent" in printed


def test_share_comes_out_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub() as hub:
        point_clients_at(hub, tmp_path / "hf_home", monkeypatch)
        printed = run("share", "tester/tiny-mined")
        forget()
    assert not hub.strayed
    assert "identical: all 2 rows came out again" in printed
    assert "cc0-1.0" in hub.files("dataset", "tester/tiny-mined")["README.md"].decode()


def test_stream_gives_each_row_a_negative(run: Run) -> None:
    rows = mined_rows(run("stream").strip())
    assert [row[0] for row in rows] == ["what makes bread rise", "how do bees make honey", "why is the sky blue"]
    assert [row[2].split()[0] for row in rows] == ["Flour,", "Bees", "At"]


def test_drop_in_has_sentence_transformers_columns(run: Run) -> None:
    printed = run("drop_in")
    assert "['question', 'answer', 'negative_1', 'negative_2']" in printed
    assert "'negative_1': 'Flour, water and salt" in printed
