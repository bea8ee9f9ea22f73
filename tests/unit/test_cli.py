"""The command `hf-negmine`: real runs on small files, what they write, print and return."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner, Result

from hf_negmine import NegativeMiner, __version__
from hf_negmine.commands.cli import app
from tests.reference import OWN_FORMATS

FRUITS = ["apple", "banana", "cherry", "damson", "elderberry", "fig", "grape", "hazelnut", "imbe", "jujube"]
ROWS = [
    {"query": f"how to eat {fruit}", "positive": f"{fruit} is eaten with a fork, say cooks no {place}"}
    for place, fruit in enumerate(FRUITS)
]
PASSAGES = [f"{fruit} grows on {kind}" for fruit in FRUITS for kind in ("trees", "bushes")]

Run = Callable[..., Result]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


def load(path: Path) -> datasets.Dataset:
    return datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(path.parent / "hf"))


@pytest.mark.parametrize("format", OWN_FORMATS)
def test_mine_writes_what_the_miner_mines(format: str, run: Run, rows_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined"
    options = ("-t", "random:3", "-m", "naive", "-s", "sampled:6", "-n", "3", "--seed", "5", "--scores")
    result = run("mine", rows_file, *options, "--format", format, "--output", output)
    assert result.exit_code == 0, result.output
    miner = NegativeMiner(
        "random:3", method="naive", sampler="sampled:6", num_negatives=3, seed=5, include_scores=True,
        format=format, progress=False,  # type: ignore[arg-type]
    )  # fmt: skip
    expected = miner.mine(rows_file)
    found = load(output / "data.parquet")
    assert found.features == expected.features
    assert found.to_dict() == expected.to_dict()
    lookups = {"queries.parquet", "corpus.parquet"} if format == "ids" else set()
    assert {path.name for path in output.iterdir()} - {"hf"} == {"data.parquet", "summary.json"} | lookups


@pytest.mark.parametrize(("format", "name"), [("flagembedding", "data.jsonl"), ("dpr", "data.json")])
def test_rows_for_another_tool_are_json_too(format: str, name: str, run: Run, rows_file: Path, tmp_path: Path) -> None:
    output, options = tmp_path / "mined", ("-t", "random:3", "-m", "naive", "-n", "2")
    result = run("mine", rows_file, *options, "--format", format, "--output", output)
    assert result.exit_code == 0, result.output
    assert f"{name} (the same rows as JSON)" in result.stdout
    text = (output / name).read_text(encoding="utf-8")
    found = json.loads(text) if format == "dpr" else [json.loads(line) for line in text.splitlines()]
    assert found == load(output / "data.parquet").to_list()
    again = run("mine", output / name, *options, "--output", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert run("mine", rows_file, *options, "--output", output).exit_code == 0
    assert not (output / name).exists()


def test_ids_join_with_the_lookup_tables(run: Run, rows_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined"
    assert run("mine", rows_file, "-t", "bm25", "-m", "naive", "-f", "ids", "-o", output).exit_code == 0
    queries = dict(zip(*load(output / "queries.parquet").to_dict().values(), strict=True))
    passages = dict(zip(*load(output / "corpus.parquet").to_dict().values(), strict=True))
    joined = {
        queries[row["query_id"]]: passages[row["document_ids"][0]] for row in load(output / "data.parquet").to_list()
    }
    assert joined == {row["query"]: row["positive"] for row in ROWS}


def test_the_summary_is_printed_and_kept(run: Run, rows_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined"
    result = run("mine", rows_file, "-t", "random", "-m", "naive", "-o", output)
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert summary["rows"] == summary["rows_written"] == len(ROWS)
    assert summary["settings"]["method"] == "naive"
    assert "4 negatives per query by naive with top, teacher random" in result.stdout
    assert f"Written: {output / 'data.parquet'} (10 rows" in result.stdout


def test_the_printed_line_of_python_loads_the_rows(run: Run, rows_file: Path, tmp_path: Path) -> None:
    result = run("mine", rows_file, "-t", "random", "-m", "naive", "-o", tmp_path / "mined", "--quiet")
    line = next(line for line in result.stdout.splitlines() if line.startswith("Load it: "))
    found: dict[str, datasets.Dataset] = {"datasets": datasets}
    exec(line.removeprefix("Load it: "), found)
    assert found["rows"].num_rows == len(ROWS)
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr == ""


def test_columns_corpus_and_beir_folders(run: Run, rows_file: Path, tmp_path: Path) -> None:
    columns = {
        "id": list(range(10)),
        "question": [row["query"] for row in ROWS],
        "answer": [row["positive"] for row in ROWS],
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    pq.write_table(pa.table({"title": ["x"] * 20, "body": PASSAGES}), tmp_path / "passages.parquet")
    result = run(
        "mine", tmp_path / "rows.parquet", "--query-column", "question", "--positive-column", "answer", "-t", "bm25",
        "--corpus", tmp_path / "passages.parquet", "--corpus-column", "body", "-m", "naive", "-n", "2",
        "--positive-score", "each", "--pool-depth", "3", "-o", tmp_path / "mined",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = load(tmp_path / "mined" / "data.parquet")
    assert rows.column_names == ["id", "question", "answer", "negative_1", "negative_2"]
    assert {row["negative_1"].split()[0] for row in rows} == set(FRUITS), "the passage on the same fruit"

    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": f"d{place}", "text": text}) for place, text in enumerate(PASSAGES)]
    (beir / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (beir / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "fig growth"}), encoding="utf-8")
    (beir / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\td10\t1\n", encoding="utf-8")
    result = run("mine", beir, "--split", "dev", "-t", "bm25", "-m", "naive", "-n", "1", "-o", tmp_path / "from-beir")
    assert result.exit_code == 0, result.output
    assert load(tmp_path / "from-beir" / "data.parquet")["negative_1"][:] == ["fig grows on bushes"]


def test_rows_without_enough_negatives_are_named(run: Run, rows_file: Path, tmp_path: Path) -> None:
    some = run("mine", rows_file, "-t", "random", "-n", "5", "-o", tmp_path / "some")
    assert some.exit_code == 0, some.output
    left = load(tmp_path / "some" / "data.parquet").num_rows
    assert 0 < left < 10
    assert f"fewer than 5 passages for {10 - left} of 10 queries; their rows were left out" in some.stdout
    impossible = ("mine", rows_file, "-t", "random", "-m", "perc_pos:0", "-n", "2")
    result = run(*impossible, "-o", tmp_path / "dropped")
    assert result.exit_code == 1
    assert "no row is left to write: none of 10 rows has the requested negatives" in result.stderr
    assert run(*impossible, "-o", tmp_path / "kept", "--on-exhausted", "keep").exit_code == 0
    assert load(tmp_path / "kept" / "data.parquet")["negative_1"][:] == [None] * 10
    result = run(*impossible, "-o", tmp_path / "error", "--on-exhausted", "error")
    assert result.exit_code == 1
    assert "10 of 10 queries have fewer than 2 eligible passages" in result.stderr


def test_filters_that_leave_too_few_negatives_are_named(run: Run, rows_file: Path, tmp_path: Path) -> None:
    rules = "naive and veto by random-0 (perc_pos:0)"
    strict = ("mine", rows_file, "-t", "random", "-m", "naive", "--veto", "random@perc_pos:0", "-n", "2")
    assert f"(2 under {rules})" in run(*strict, "-o", tmp_path / "dropped").stderr
    kept = run(*strict, "-o", tmp_path / "error", "--on-exhausted", "error").stderr
    assert f"fewer than 2 eligible passages under {rules}, for example 0" in kept
    some = run(
        "mine", rows_file, "-t", "random", "-m", "naive", "--veto", "random@perc_pos:0.5", "-o", tmp_path / "some"
    )
    assert "in the whole corpus naive and veto by random-0 (perc_pos:0.5) allow fewer than 4 passages" in some.stdout


# ---- the output folder ---------------------------------------------------------------------------------------------


def test_a_folder_with_other_files_is_refused(run: Run, rows_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "precious"
    output.mkdir()
    (output / "data.parquet").write_text("mine", encoding="utf-8")
    (output / "notes.txt").write_text("mine", encoding="utf-8")
    command = ("mine", rows_file, "-t", "random", "-m", "naive", "-o", output)
    result = run(*command)
    assert result.exit_code == 1
    assert "holds 'data.parquet' and no summary.json of this command" in result.stderr
    assert (output / "data.parquet").read_text(encoding="utf-8") == "mine"
    assert run(*command, "--overwrite").exit_code == 0
    assert load(output / "data.parquet").num_rows == 10
    assert (output / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_folder_of_an_earlier_run_is_written_again(run: Run, rows_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined"
    command = ("mine", rows_file, "-t", "random", "-m", "naive", "-o", output)
    assert run(*command, "-f", "ids").exit_code == 0
    assert (output / "corpus.parquet").exists()
    (output / ".unfinished-abc").mkdir()
    assert run(*command, "-n", "2").exit_code == 0
    assert {path.name for path in output.iterdir()} == {"data.parquet", "summary.json"}
    assert load(output / "data.parquet").column_names[-1] == "negative_2"


def test_what_is_read_is_not_written_over(run: Run, rows_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined"
    assert run("mine", rows_file, "-t", "random", "-m", "naive", "-o", output).exit_code == 0
    before = (output / "data.parquet").read_bytes()
    for rows, *options in ((output / "data.parquet",), (output,), (rows_file, "--corpus", output / "data.parquet")):
        result = run("mine", rows, *options, "-t", "random", "-m", "naive", "-o", output, "--overwrite")
        assert result.exit_code == 1
        name = "--corpus" if options else "ROWS"
        assert f"{name}: {(rows, *options)[-1]} may be replaced by what is written into {output}" in result.stderr
    assert (output / "data.parquet").read_bytes() == before


def test_a_failed_write_leaves_the_earlier_files(
    run: Run, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "mined"
    command = ("mine", rows_file, "-t", "random", "-m", "naive", "-o", output)
    assert run(*command).exit_code == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(self: datasets.Dataset, file: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.Dataset, "to_parquet", full)
    result = run(*command, "-n", "2")
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_an_output_that_is_a_file_is_one_sentence(run: Run, rows_file: Path) -> None:
    (taken := rows_file.with_name("taken")).touch()
    result = run("mine", rows_file, "-t", "random", "-o", taken)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot write")


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "percpos:0.95"), "method 'percpos:0.95' is not understood"),
        (("--method", "perc_pos:95"), "for 95 % give 0.95"),
        (("--sampler", "best"), "sampler 'best' is not understood"),
        (("--format", "tuple"), "'tuple'"),
        (("--num-negatives", "0"), "Invalid value for '--num-negatives'"),
        (("--colour", "red"), "No such option: --colour"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(
    options: tuple[str, ...], message: str, run: Run, rows_file: Path, tmp_path: Path
) -> None:
    result = run("mine", rows_file, "-t", "bm25", "-o", tmp_path / "mined", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", "").split())
    assert not (tmp_path / "mined").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("-t", "bm25", "--query-column", "querry"),
            "query_column: column 'querry' is not among ['query', 'positive']",
        ),
        (("-t", "bm25", "--query-prompt", "query: "), "--query-prompt: for Sentence Transformers models"),
        (("-t", "random", "--dtype", "float16"), "--dtype: for Sentence Transformers models"),
        (("-t", "bm25:klingon"), "leave it out for any other"),
        (("-t", "./no-such-model"), "teacher './no-such-model' could not be loaded"),
        (("-t", "bm25", "-s", "sampled:3"), "sampled:3 cannot draw 4 negatives from 3 candidates"),
        (("-t", "bm25", "-n", "10"), "10 negatives per query from a corpus of 10 passages"),
        (("-t", "bm25", "--corpus", "./nothing.jsonl"), "./nothing.jsonl does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    options: tuple[str, ...], message: str, run: Run, rows_file: Path, tmp_path: Path
) -> None:
    result = run("mine", rows_file, "-o", tmp_path / "mined", "--quiet", *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_bug_is_called_one(run: Run, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by\nzero")

    monkeypatch.setattr(NegativeMiner, "mine", fail)
    result = run("mine", rows_file, "-t", "bm25", "-o", tmp_path / "mined")
    assert result.exit_code == 1
    assert "this is a bug of hf_negmine (ZeroDivisionError: division by zero); run again with --debug" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "needs", "advice"),
    [
        ("mine", ("ROWS", "-t", "bm25", "-o", "OUT"), "give --device cpu, or a smaller --batch-size or --max-length"),
        ("train", ("ROWS", "-t", "bm25", "--model", "m", "-o", "OUT"), "give --device cpu, a smaller --batch-size or"),
        (
            "reproduce",
            ("tester/one",),
            "set CUDA_VISIBLE_DEVICES= to nothing, so that the command runs without the GPU",
        ),
        ("demo", ("-o", "OUT"), "give --device cpu"),
    ],
)
def test_a_full_gpu_is_met_with_options_of_the_command(
    command: str,
    needs: tuple[str, ...],
    advice: str,
    run: Run,
    rows_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No GPU is at hand to be filled: torch's own error is raised where each command begins its work."""

    def fail(**_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    module = {"reproduce": "share"}.get(command, command)
    monkeypatch.setattr(f"hf_negmine.commands.{module}.set_up_libraries", fail)
    names = {"ROWS": rows_file, "OUT": tmp_path / "out"}
    result = run(command, *(names.get(word, word) for word in needs))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: the GPU's memory is full, {advice}")
    assert result.stderr.endswith(": CUDA out of memory. Tried to allocate 2.00 GiB.\n")
    options = re.findall(r"--[a-z-]+", run(command, "--help").stdout)
    assert set(re.findall(r"--[a-z-]+", result.stderr)) <= set(options)


def test_a_warning_is_one_sentence(run: Run, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(*_: object, **__: object) -> None:
        warnings.warn("the rows are\nfew", stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr(NegativeMiner, "mine", warn)
    command = ("mine", rows_file, "-t", "bm25", "-o", tmp_path / "mined")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(*command).stderr == "Warning: the rows are few\n\nstopped; run again to continue\n"


def test_ctrl_c_says_how_to_go_on(run: Run, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(NegativeMiner, "mine", interrupt)
    result = run("mine", rows_file, "-t", "bm25", "-o", tmp_path / "mined")
    assert result.exit_code == 130
    assert result.stderr == "\nstopped; run again to continue\n"


def test_debug_shows_the_traceback_in_a_real_process(tmp_path: Path) -> None:
    command = ["mine", str(tmp_path / "absent.jsonl"), "-t", "bm25", "-o", str(tmp_path / "mined")]
    program = [sys.executable, "-c", "from hf_negmine.commands.cli import main; main()"]
    debugged = subprocess.run([*program, *command, "--debug"], capture_output=True, text=True)
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr
    assert debugged.stderr.endswith(f"Error: {tmp_path / 'absent.jsonl'} does not exist\n")


# ---- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], *([command, "--help"] for command in ("mine", "train", "push", "reproduce", "demo"))],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom hf_negmine.commands.cli import app\n"
        f"try: app({arguments!r})\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'datasets', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_names_every_method_and_sampler(run: Run) -> None:
    text = " ".join(run("mine", "--help").stdout.replace("│", " ").split())
    for spec in ("perc_pos:0.95", "margin_pos:0.05", "abs:0.7", "shifted:10", "band:30-100", "min:0.2", "naive", "top"):
        assert spec in text
    assert "sampled:10@0.05" in text


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"hf_negmine {__version__}\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "hf_negmine", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"hf_negmine {__version__}\n")
