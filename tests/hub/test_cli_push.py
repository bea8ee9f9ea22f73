"""`hf-negmine push` and `hf-negmine reproduce`: what mine has written, sent to the stand-in Hub and mined again."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from hf_negmine import load_mined, push_dataset
from hf_negmine.commands.cli import app
from hf_negmine.commands.running import EXIT_FAILED
from hf_negmine.commands.share import EXIT_DIFFERENT
from hf_negmine.miner import NegativeMiner
from tests.hub.client import TOKEN, run_client
from tests.hub.server import Hub

NAME = "tester/fruits"
FRUITS = ["apple", "banana", "cherry", "damson", "elderberry", "fig", "grape", "hazelnut"]
ROWS = [
    {"number": place, "question": f"how to eat {fruit}", "answer": f"{fruit} is eaten with a fork, cook {place} says"}
    for place, fruit in enumerate(FRUITS)
]
MINE = ("-m", "naive", "-n", "2", "--query-column", "question", "--positive-column", "answer", "--quiet")
LICENSE = ("--license", "mit")

Run = Callable[..., Result]


@pytest.fixture
def run(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert TOKEN not in result.output, "a token was printed"
        return result

    return invoke


@pytest.fixture
def mine(run: Run, tmp_path: Path) -> Callable[..., Path]:
    """Mines the fruits into a folder."""

    def into(*options: str, teacher: str = "random:3", name: str = "mined") -> Path:
        rows = tmp_path / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        result = run("mine", rows, "-t", teacher, *MINE, *options, "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
        return tmp_path / name

    return into


def read(folder: Path) -> datasets.Dataset:
    return datasets.load_dataset("parquet", data_files=str(folder / "data.parquet"), split="train")


def forget_cache(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache")


# ---- push ----------------------------------------------------------------------------------------------------------


def test_what_is_pushed_is_what_was_mined(run: Run, mine: Callable[..., Path], hub: Hub) -> None:
    folder = mine("--scores")
    result = run("push", folder, NAME, *LICENSE, "--language", "en", "--language", "de")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert f"{NAME}: " in result.stdout
    assert "pushed to https://huggingface.co/datasets/tester/fruits" in result.stdout

    (line,) = [line for line in result.stdout.splitlines() if line.startswith("Load it: ")]
    found: dict[str, datasets.Dataset] = {"datasets": datasets}
    exec(line.removeprefix("Load it: "), found)
    assert found["rows"].to_list() == read(folder).to_list()

    pushed = load_mined(NAME)
    assert pushed.provenance.columns == ("question", "answer")
    assert pushed.queries is not None
    assert pushed.queries["query"][:] == [row["question"] for row in ROWS]
    assert pushed.summary.rows_written == len(ROWS)
    assert pushed.pool is None
    card = hub.files("dataset", NAME)["README.md"].decode()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert (metadata["license"], metadata["language"]) == ("mit", ["en", "de"])
    assert len(hub.commits("dataset", NAME)) == 2, "the repository's own first one, and the push"


def test_the_front_of_a_sweep_goes_along(run: Run, mine: Callable[..., Path], hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder, table, judged = mine(), tmp_path / "sweep.parquet", tmp_path / "judged.jsonl"
    verdicts = [
        {"query": one["question"], "document": other["answer"], "relevant": (one["number"] + other["number"]) % 3 == 0}
        for one in ROWS
        for other in ROWS
    ]
    judged.write_text("".join(json.dumps(one) + "\n" for one in verdicts), encoding="utf-8")
    columns = ("--query-column", "question", "--positive-column", "answer")
    swept = run("sweep", tmp_path / "rows.jsonl", "-t", "random:3", *columns, "--judgements", judged, "-o", table)
    assert swept.exit_code == 0, swept.output
    pushed = run("push", folder, NAME, *LICENSE, "--sweep", table, "--report")
    assert pushed.exit_code == 0, pushed.output
    assert hub.files("dataset", NAME)["negmine/default/train-sweep.png"].startswith(b"\x89PNG")
    page = hub.files("dataset", NAME)["negmine/default/train-report.html"].decode()
    packed = page.split('type="application/gzip">')[1].split("<")[0]
    content = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert "Take " in content["sweep"]["told"]
    before = len(hub.commits("dataset", NAME))
    refused = run("push", folder, NAME, *LICENSE, "--sweep", judged)
    assert refused.exit_code == EXIT_FAILED
    assert "is not a sweep" in refused.stderr
    assert len(hub.commits("dataset", NAME)) == before


def test_a_folder_is_pushed_as_its_rows_are_from_python(
    run: Run, mine: Callable[..., Path], hub: Hub, tmp_path: Path
) -> None:
    assert run("push", mine(), NAME, *LICENSE, "--with-pool").exit_code == 0
    miner = NegativeMiner(
        "random:3", method="naive", num_negatives=2, query_column="question", positive_column="answer", progress=False
    )
    mined = miner.mine(tmp_path / "rows.jsonl")
    push_dataset(mined, "tester/python", miner=miner, license="mit", with_pool=True)
    ours, theirs = (hub.files("dataset", name) for name in (NAME, "tester/python"))
    assert list(ours) == list(theirs)
    for path in ours:
        assert ours[path].replace(b"tester/fruits", b"tester/python").replace(b"# fruits", b"# python") == theirs[path]


def test_a_second_push_adds_a_config_and_replaces_its_own(run: Run, mine: Callable[..., Path], hub: Hub) -> None:
    assert run("push", mine(), NAME, *LICENSE, "--with-pool").exit_code == 0
    second = mine("--seed", "9", "-s", "sampled:4", name="second")
    without_licence = ("push", second, NAME)  # the card has one
    assert run(*without_licence, "--config", "drawn", "--split", "validation").exit_code == 0
    assert load_mined(NAME, "drawn", split="validation").settings["sampler"] == "sampled:4"
    first = load_mined(NAME)
    assert first.settings["sampler"] == "top"
    assert first.pool is not None
    assert first.pool.select("naive", n=2).offsets[-1] == 2 * len(ROWS)

    assert run(*without_licence).exit_code == 0
    again = load_mined(NAME)
    assert again.settings["sampler"] == "sampled:4"
    assert again.rows.to_list() == load_mined(NAME, "drawn", split="validation").rows.to_list()
    assert not [path for path in hub.files("dataset", NAME) if "pool" in path], "the pool of what was replaced"


def test_ids_go_with_their_lookup_tables(
    run: Run, mine: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mine("-f", "ids")
    assert run("push", folder, NAME, *LICENSE).exit_code == 0
    forget_cache(tmp_path)
    result = run("push", folder, "tester/without", *LICENSE)
    assert result.exit_code == 0, result.output
    assert "only rows, queries, corpus and summary are pushed" in result.stderr
    whole, without = load_mined(NAME), load_mined("tester/without")
    assert whole.pairs is not None
    assert without.pairs is None
    for pushed in (whole, without):
        assert pushed.queries is not None
        assert pushed.corpus is not None
        row = pushed.rows[5]
        assert pushed.queries[row["query_id"]]["query"] == ROWS[5]["question"]
        assert pushed.corpus[row["document_ids"][0]]["document"] == ROWS[5]["answer"]


@pytest.mark.parametrize("lost", ["", "texts", "fits"])
def test_without_its_cache_rows_and_summary_go_alone(
    lost: str, run: Run, mine: Callable[..., Path], hub: Hub, tmp_path: Path
) -> None:
    folder = mine()
    shutil.rmtree(tmp_path / "cache" / lost)
    result = run("push", folder, NAME, *LICENSE, "--quiet")
    assert result.exit_code == 0, result.output
    assert len(result.stderr.splitlines()) == 1
    assert "no longer holds what these rows were mined from; only rows and summary are pushed" in result.stderr
    assert not [path for path in hub.files("dataset", NAME) if path.startswith("lookups/")]
    pushed = load_mined(NAME)
    assert pushed.rows.to_list() == read(folder).to_list()
    assert pushed.provenance.columns == ("question", "answer")
    assert pushed.corpus is None

    again = run("reproduce", NAME)
    assert again.exit_code == 1
    assert "was pushed without its queries, corpus, pairs, so there is nothing to mine again" in again.stderr
    assert run("push", folder, NAME, "--with-pool").stderr.endswith("is no longer in the cache; mine again\n")


def test_another_cache_folder_is_looked_into(run: Run, mine: Callable[..., Path], tmp_path: Path) -> None:
    folder = mine("--cache-dir", str(tmp_path / "elsewhere"))
    assert "are pushed, and" in run("push", folder, NAME, *LICENSE).stderr
    assert run("push", folder, NAME, "--cache-dir", tmp_path / "elsewhere").stderr == ""
    assert load_mined(NAME).pairs is not None


def test_a_dry_run_sends_nothing(run: Run, mine: Callable[..., Path], hub: Hub, tmp_path: Path) -> None:
    folder = mine()
    result = run("push", folder, NAME, *LICENSE, "--dry-run")
    assert result.exit_code == 0, result.output
    assert hub.requests == []
    written = Path(re.search(r"files written to (.*), nothing was sent", result.stdout).group(1))  # type: ignore[union-attr]
    assert written.is_relative_to(tmp_path / "cache")
    assert (written / "README.md").read_text(encoding="utf-8").startswith("---\nlicense: mit\n")
    assert "Load it" not in result.stdout

    assert run("push", folder, NAME, *LICENSE).exit_code == 0
    sent = hub.files("dataset", NAME)
    assert {path.relative_to(written).as_posix(): path.read_bytes() for path in written.rglob("*.*")} == sent


def test_branches_and_private_repositories(run: Run, mine: Callable[..., Path], hub: Hub) -> None:
    result = run("push", mine(), NAME, *LICENSE, "--private", "--revision", "trial")
    assert result.exit_code == 0, result.output
    assert hub.repository("dataset", NAME).private
    assert 'split="train", revision="trial")' in result.stdout
    assert load_mined(NAME, revision="trial").rows.num_rows == len(ROWS)
    assert run("reproduce", NAME, "--revision", "trial", "--quiet").exit_code == 0
    assert "hf_negmine has not pushed config 'default'" in run("reproduce", NAME).stderr


def test_the_licence_of_the_source_is_inherited(run: Run, mine: Callable[..., Path], hub: Hub) -> None:
    hub.create("dataset", "other/source")
    hub.commit("dataset", "other/source", {"README.md": b"---\nlicense: cc-by-4.0\n---\n"})
    result = run("push", mine(), NAME, "--source-dataset", "other/source")
    assert result.exit_code == 0, result.output
    metadata = yaml.safe_load(hub.files("dataset", NAME)["README.md"].decode().split("---\n")[1])
    assert (metadata["license"], metadata["source_datasets"]) == ("cc-by-4.0", ["other/source"])


# ---- what cannot be pushed -----------------------------------------------------------------------------------------


def failure(result: Result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_a_folder_that_mine_did_not_write_is_refused(run: Run, hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "summary.json").write_text("{}", encoding="utf-8")
    for folder in (tmp_path / "notes", tmp_path / "absent"):
        message = failure(run("push", folder, NAME, *LICENSE))
        assert f"{folder} is not a folder that hf-negmine mine has written" in message
    assert hub.requests == []


def test_what_is_missing_or_wrong_is_one_sentence(run: Run, mine: Callable[..., Path], hub: Hub) -> None:
    folder = mine()
    assert "under which license may the data be used?" in failure(run("push", folder, NAME))
    assert "expected 'user/name', got 'fruits'" in failure(run("push", folder, "fruits", *LICENSE))
    assert "config_name: 'a/b' cannot name" in failure(run("push", folder, NAME, *LICENSE, "--config", "a/b"))
    assert "write access" in failure(run("push", folder, "other/fruits", *LICENSE))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    del summary["settings"]["columns"]
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert "does not record which columns were mined" in failure(run("push", folder, NAME, *LICENSE))
    assert hub.state.repositories == {}


def test_without_a_token_nothing_is_sent(
    run: Run, mine: Callable[..., Path], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mine()
    for variable in (None, ""):
        if variable is None:
            monkeypatch.delenv("HF_TOKEN")
        else:
            monkeypatch.setenv("HF_TOKEN", variable)
        assert "log in with `hf auth login`" in failure(run("push", folder, NAME, *LICENSE))
    assert not [request for request in hub.requests if request.authorization]
    assert "hf_reader" not in failure(run("push", folder, NAME, *LICENSE, "--token", "hf_reader"))
    assert hub.state.repositories == {}
    assert run("push", folder, NAME, *LICENSE, "--token", TOKEN).exit_code == 0


@pytest.mark.parametrize("where", ["option", "variable"])
@pytest.mark.parametrize("token", ["hf_" + "Qx7" * 10, "hf_Qx7Qx7\nQx7", "secret-é-Qx7", " hf_Qx7Qx7 \n"])
def test_a_token_is_never_printed(
    token: str, where: str, run: Run, mine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mine()
    given: tuple[str, ...] = ("--token", token)
    if where == "variable":
        monkeypatch.setenv("HF_TOKEN", token)
        given = ()
    for command in (("push", folder, NAME, *LICENSE), ("push", "--help"), ("reproduce", NAME), ("reproduce", "--help")):
        for more in ((), ("--debug",)):
            result = run(*command, *given, *more)
            assert "Qx7" not in result.output
            assert "a bug of hf_negmine" not in result.output
            assert result.exit_code == (0 if "--help" in command else 1)


def test_a_token_in_the_words_of_others_is_hidden(
    run: Run, mine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_in = "hf_" + "aB3" * 11
    folder = mine()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"headers: Bearer {TOKEN}, Bearer {logged_in}; of hf_negmine")

    monkeypatch.setattr("hf_negmine.hub.push.push_dataset", fail)
    result = run("push", folder, NAME, *LICENSE, "--debug")
    assert result.exit_code == EXIT_FAILED
    assert "headers: Bearer hf_…, Bearer hf_…; of hf_negmine" in result.stderr
    assert "Traceback" in result.stderr
    assert logged_in not in result.output


# ---- reproduce -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["n-tuple", "triplet", "labeled-pair", "labeled-list", "ids"])
def test_the_same_rows_come_out_again(format: str, run: Run, mine: Callable[..., Path], tmp_path: Path) -> None:
    folder = mine("-f", format, "-s", "sampled:5", "--seed", "4", "--scores", teacher="bm25")
    assert run("push", folder, NAME, *LICENSE).exit_code == 0
    forget_cache(tmp_path)
    result = run("reproduce", NAME, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"identical: all {read(folder).num_rows} rows came out again\n"
    assert result.stderr == ""


def test_another_teacher_gives_others(run: Run, mine: Callable[..., Path]) -> None:
    assert run("push", mine(), NAME, *LICENSE, "--config", "drawn", "--split", "dev").exit_code == 0
    result = run("reproduce", NAME, "--config", "drawn", "--split", "dev", "--teacher", "random:4", "--quiet")
    assert result.exit_code == EXIT_DIFFERENT == 1
    assert re.match(r"different: [1-8] of 8 rows did not come out again; the teacher has changed since", result.stdout)


def test_a_copy_of_a_model_is_the_same_teacher(
    run: Run, mine: Callable[..., Path], minilm: str, tmp_path: Path
) -> None:
    folder = mine("--query-prompt", "query: ", "--dtype", "float32", teacher=minilm)
    assert run("push", folder, NAME, *LICENSE).exit_code == 0
    copy = shutil.copytree(minilm, tmp_path / "copy")
    result = run("reproduce", NAME, "--teacher", copy, "--quiet")
    assert result.exit_code == 0, result.output


def test_vectors_of_the_users_own_are_given_again(run: Run, mine: Callable[..., Path], tmp_path: Path) -> None:
    texts = [row[name] for row in ROWS for name in ("question", "answer")]
    vectors = np.random.default_rng(0).normal(size=(len(texts), 4)).tolist()
    (tmp_path / "vectors").mkdir()
    for name in ("queries", "passages"):
        pq.write_table(pa.table({"text": texts, "vector": vectors}), tmp_path / "vectors" / f"{name}.parquet")
    assert run("push", mine(teacher=f"fixed:{tmp_path / 'vectors'}"), NAME, *LICENSE).exit_code == 0
    assert "cannot be made from its settings" in failure(run("reproduce", NAME, "--quiet"))
    assert run("reproduce", NAME, "--quiet", "-t", f"fixed:{tmp_path / 'vectors'}").exit_code == 0


def test_settings_from_the_hub_run_no_code(run: Run, mine: Callable[..., Path], hub: Hub) -> None:
    assert run("push", mine(), NAME, *LICENSE).exit_code == 0
    path = "negmine/default/train.json"
    content = json.loads(hub.files("dataset", NAME)[path])
    content["summary"]["settings"]["teacher_settings"] = {
        "kind": "dense", "model": "other/model", "trust_remote_code": True
    }  # fmt: skip
    hub.commit("dataset", NAME, {path: json.dumps(content).encode()})
    before = len(hub.requests)
    message = failure(run("reproduce", NAME, "--quiet"))
    assert "are not known to this version (unknown: ['trust_remote_code'])" in message
    assert not [request for request in hub.requests[before:] if "other/model" in request.path]


def test_what_is_not_there_is_one_sentence(run: Run) -> None:
    assert "there is no such repository" in failure(run("reproduce", "tester/nothing", "--quiet"))
    assert "expected 'user/name', got 'nothing'" in failure(run("reproduce", "nothing", "--quiet"))


def test_the_exit_code_of_a_process_tells_them_apart(run: Run, mine: Callable[..., Path], hub: Hub) -> None:
    assert run("push", mine(), NAME, *LICENSE).exit_code == 0
    arguments = ["hf-negmine", "reproduce", NAME, "--quiet", "--teacher", "random:4"]
    done = run_client(f"import sys; sys.argv = {arguments}; from hf_negmine.commands.cli import main; main()", hub)
    assert done.returncode == 1
    assert done.stdout.startswith("different: ")
    assert done.stderr == ""
