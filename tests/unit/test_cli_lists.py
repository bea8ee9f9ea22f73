"""``hf-negmine mine --candidates-from``: folders of three tables, the Hub, and TREC runs."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from click.testing import Result
from typer.testing import CliRunner

from hf_negmine.commands.cli import app
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool import CandidatePool
from tests.unit.test_lists import DOCUMENTS, POSITIVES, QUERIES, SCORES, table

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def load(path: Path) -> list[dict[str, Any]]:
    return datasets.Dataset.from_parquet(str(path / "data.parquet"), cache_dir=str(path / "hf")).to_list()  # type: ignore[union-attr]


@pytest.fixture
def expected(tmp_path: Path) -> list[dict[str, Any]]:
    pool = CandidatePool.from_lists(QUERIES, DOCUMENTS, SCORES, POSITIVES, cache_dir=tmp_path / "other", progress=False)
    return pool.select("perc_pos:0.95", None, 2).to_dataset().to_list()


def folder_of_tables(folder: Path, *, shards: bool = False) -> Path:
    tables = {
        "queries": {"query_id": list(QUERIES), "query": list(QUERIES.values())},
        "documents": {"document_id": list(DOCUMENTS), "document": list(DOCUMENTS.values())},
        "scores": table(),
    }
    for name, columns in tables.items():
        rows = datasets.Dataset.from_dict(columns)
        if shards:
            (folder / name).mkdir(parents=True)
            for place in range(2):
                rows.shard(2, place).to_parquet(folder / name / f"train-{place:05d}-of-00002.parquet")
        else:
            folder.mkdir(exist_ok=True)
            rows.to_parquet(folder / f"{name}.parquet")
    return folder


def run_lines() -> str:
    return "".join(
        f"{query} Q0 {document} {rank} {score} bm25\n"
        for query, entries in SCORES.items()
        for rank, (document, score) in enumerate(entries.items(), 1)
    )


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("queries", QUERIES), ("corpus", DOCUMENTS)):
        lines = (json.dumps({"_id": one, "text": text}) + "\n" for one, text in texts.items())
        (folder / f"{name}.jsonl").write_text("".join(lines))
    judged = [f"{query}\t{row[0]}\t1\n" for query, row in POSITIVES.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged))
    return folder


@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_of_three_tables(shards: bool, run: Run, tmp_path: Path, expected: Any) -> None:
    folder = folder_of_tables(tmp_path / "lists", shards=shards)
    done = run("mine", "--candidates-from", folder, "-m", "perc_pos:0.95", "-n", 2, "-o", tmp_path / "mined")
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "mined") == expected
    assert "teacher lists\n" in done.stdout
    assert "complete 2, exhausted 0, list ended 1; 2 rows written" in done.stdout
    assert "Note: the list ended for 1 of 3 queries" in done.stdout


@pytest.mark.parametrize("ending", ["trec", "trec.gz"])
def test_a_run_over_a_beir_folder(ending: str, run: Run, tmp_path: Path, beir: Path, expected: Any) -> None:
    path, lines = tmp_path / f"bm25.{ending}", run_lines().encode()
    path.write_bytes(gzip.compress(lines) if ending.endswith("gz") else lines)
    options = ("-m", "perc_pos:0.95", "-n", 2)
    done = run("mine", beir, "--candidates-from", path, *options, "-o", tmp_path / "mined", "-q")
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "mined") == expected
    qrels = tmp_path / "qrels.txt"
    qrels.write_text("q1 0 a 1\n\nq2 0 b 2\nq3 0 c 1\nq3 0 d 0\n")
    files = [tmp_path / f"{name}.parquet" for name in ("queries", "documents")]
    for file, texts in zip(files, (QUERIES, DOCUMENTS), strict=True):
        datasets.Dataset.from_dict({"id": list(texts), "text": list(texts.values())}).to_parquet(file)
    other = tmp_path / "again"
    done = run(
        "mine", files[0], "--corpus", files[1], "--candidates-from", path, "--qrels", qrels, *options, "-o", other
    )
    assert done.exit_code == 0, done.output
    assert load(other) == expected


def test_with_the_teacher_the_rows_are_those_of_its_own_search(run: Run, tmp_path: Path) -> None:
    topics = ["bread", "honey", "salt", "glass", "wool", "iron"]
    rows = datasets.Dataset.from_dict(
        {"query": [f"where is {one} from" for one in topics], "positive": [f"{one} is from a mill" for one in topics]}
    )
    corpus = [
        f"{one} is {how} in the {place}" for one in topics for how in ("made", "sold") for place in ("sun", "rain")
    ]
    options: dict[str, Any] = {"method": "perc_pos:0.9", "num_negatives": 3, "progress": False}
    own = NegativeMiner("bm25", corpus=corpus, pool_depth=3, cache_dir=tmp_path / "own", **options)
    expected = own.mine(rows).to_list()
    fresh = NegativeMiner(
        "bm25", corpus=corpus, pool_depth=2, method="naive", num_negatives=1, cache_dir=tmp_path / "own"
    )
    fresh.fit(rows).pool.to_lists(tmp_path / "lists")
    arguments = ("mine", "--candidates-from", tmp_path / "lists", "-m", "perc_pos:0.9", "-n", 3)
    done = run(*arguments, "-t", "bm25", "-o", tmp_path / "mined")
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "mined") == expected
    assert "list ended" not in done.stdout
    pushed = run("push", tmp_path / "mined", "user/lists", "--license", "mit", "--dry-run")
    assert pushed.exit_code == 0, pushed.output
    card = next((tmp_path / "cache").rglob("README.md")).read_text()
    assert "The lists of bm25-english are continued by this one, where they end:" in card
    short = run(*arguments, "-o", tmp_path / "short")
    assert "no row is left to write" in short.stderr


def test_filters_a_judge_and_a_push_follow(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.openai_server import OpenAIServer

    folder = folder_of_tables(tmp_path / "lists")
    with OpenAIServer() as server:
        server.reply = lambda question: "Yes" if "Flour" in question else "No"
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-a-test")
        done = run(
            "mine", "--candidates-from", folder, "-m", "naive", "-n", 1, "--veto", "random@abs:2",
            "--near-duplicates", "minhash:0.9", "--judge", "gpt", "-o", tmp_path / "mined",
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "pairs judged" in done.stdout
    assert load(tmp_path / "mined")[0]["negative_1"] == "The sky scatters light."
    pushed = run("push", tmp_path / "mined", "user/lists", "--license", "mit", "--with-pool", "--dry-run")
    assert pushed.exit_code == 0, pushed.output
    card = next((tmp_path / "cache").rglob("README.md")).read_text()
    assert "| teacher | `lists` |" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ROWS: give the rows to mine for, or --candidates-from"),
        (["rows.jsonl"], "--teacher: give what scores passages, or --candidates-from"),
        (["rows.jsonl", "-t", "bm25", "--qrels", "x"], "--qrels: for --candidates-from, which is not given"),
        (["--candidates-from", "run.trec"], "there is no file run.trec"),
        (["--candidates-from", "good.trec"], "good.trec: a run has only ids; give the BEIR folder"),
        (["texts.jsonl", "--candidates-from", "good.trec"], "give --corpus, the file of passages with their ids"),
        (["beir", "--candidates-from", "short.trec"], "short.trec: line 2 has 5 fields, expected 6: query id, Q0"),
        (["beir", "--candidates-from", "words.trec"], "words.trec: line 1 has 'high', expected a number"),
        (["beir", "--candidates-from", "broken.trec.gz"], "broken.trec.gz could not be read"),
        (["beir", "--candidates-from", "flipped.trec.gz"], "flipped.trec.gz could not be read"),
        (["beir", "--candidates-from", "under.trec"], "under.trec: line 1 has '1_0', expected a number"),
        (["beir", "--candidates-from", "latin.trec"], "latin.trec is not UTF-8"),
        (
            ["beir", "--candidates-from", "good.trec", "--qrels", "nan.txt"],
            "nan.txt: line 1 has 'nan', expected a number",
        ),
        (["beir", "--candidates-from", "good.trec", "--qrels", "none.txt"], "qrels: there is no file none.txt"),
        (["beir", "--candidates-from", "lists"], "lists has its own queries and documents; leave out the rows"),
        (["beir", "--candidates-from", "./nowhere"], "./nowhere does not exist"),
        (["beir", "--candidates-from", "rows.txt"], "rows.txt is a file; a run is named .trec"),
        (["--candidates-from", "lists", "-t", "bm25"], "scores the candidates of the lists differently"),
        (["--candidates-from", "lists", "--executor", "local:2"], "executor: candidates from elsewhere"),
        (["--candidates-from", "lists", "--config", "x"], "--config: the lists are not rows on the Hub"),
        (["--candidates-from", "beir"], "beir lacks documents.parquet"),
        (["--candidates-from", "lists", "--near-duplicates", "0.9"], "it compares vectors, but lists has none"),
    ],
)
def test_what_is_missing_is_one_sentence(
    arguments: list[str], message: str, run: Run, tmp_path: Path, beir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_tables(tmp_path / "lists")
    (tmp_path / "good.trec").write_text(run_lines())
    (tmp_path / "short.trec").write_text("q1 Q0 a 1 0.9 x\nq1 Q0 b 2 0.8\n")
    (tmp_path / "words.trec").write_text("q1 Q0 a 1 high x\n")
    (tmp_path / "broken.trec.gz").write_bytes(gzip.compress(run_lines().encode())[:-20])
    flipped = bytearray(gzip.compress(b"q1 Q0 a 1 0.9 x\n" * 200, mtime=0))
    flipped[10] = 0x07  # no kind of block
    (tmp_path / "flipped.trec.gz").write_bytes(flipped)
    (tmp_path / "under.trec").write_text("q1 Q0 a 1 1_0 x\n")
    (tmp_path / "latin.trec").write_bytes("q1 Q0 ü 1 0.9 x\n".encode("latin-1"))
    (tmp_path / "texts.jsonl").write_text('{"id": "q1", "text": "one"}\n')
    (tmp_path / "rows.txt").write_text(run_lines())
    (tmp_path / "nan.txt").write_text("q1 0 a nan\n")
    done = run("mine", *arguments, "-o", tmp_path / "mined")
    assert done.exit_code == 1, done.output
    assert message in " ".join(done.stderr.split())


def test_the_page_on_lists_runs(run: Run, tmp_path: Path, beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "interchange.md").read_text(encoding="utf-8")
    (section,) = (part for part in re.split(r"^## ", page, flags=re.MULTILINE) if part.startswith("Scored lists"))
    monkeypatch.chdir(tmp_path)
    folder_of_tables(tmp_path / "lists")
    beir.rename(tmp_path / "scifact")
    (tmp_path / "scifact" / "qrels" / "test.tsv").rename(tmp_path / "scifact" / "qrels" / "train.tsv")
    (tmp_path / "bm25.trec.gz").write_bytes(gzip.compress(run_lines().encode()))
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {
        "queries": QUERIES, "documents": DOCUMENTS, "scores": SCORES, "positives": POSITIVES,
    }  # fmt: skip
    exec(compile(code, "interchange.md", "exec"), namespace)
    assert len(namespace["rows"]) == len(namespace["mined"]) == 1
    (shell,) = re.findall(r"^```bash\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for command in shell.splitlines():
        done = run(*shlex.split(command)[1:], "-n", 2)
        assert done.exit_code == 0, done.output
    assert load(tmp_path / "mined") == load(tmp_path / "from-run")
