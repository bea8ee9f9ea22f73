"""`hf-negmine mine` with teachers of every kind, filters and a judge: real runs on small files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner, Result

from hf_negmine import (
    ApproximateTeacher,
    BM25Teacher,
    ChatJudge,
    Consistency,
    CrossEncoderTeacher,
    CrossSample,
    DenseTeacher,
    Fusion,
    IntraSample,
    Judge,
    LateInteractionTeacher,
    NearDuplicates,
    NegativeMiner,
    RandomTeacher,
    Veto,
)
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.select.filters.specs import parse_near_duplicates, parse_veto
from tests.openai_server import OpenAIServer
from tests.tiny_models import write_tiny_models
from tests.train import helpers as words

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models of every kind."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_models(folder)
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Rows and corpus."""
    folder = tmp_path_factory.mktemp("files")
    words.rows().to_json(folder / "rows.jsonl")
    datasets.Dataset.from_dict({"text": words.CORPUS}).to_json(folder / "corpus.jsonl")
    return folder / "rows.jsonl", folder / "corpus.jsonl"


@pytest.fixture
def mine(tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    def invoke(*options: str | Path, method: str = "naive") -> Result:
        command = ["mine", files[0], "--corpus", files[1], "-m", method, "-n", "2", "-o", tmp_path / "mined", *options]
        return CliRunner().invoke(app, [str(part) for part in [*command, "--device", "cpu"]])

    return invoke


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


def written(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "mined" / "data.parquet"
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "hf"))
    return loaded.to_list()  # type: ignore[no-any-return]


def settings(tmp_path: Path) -> dict[str, Any]:
    content = json.loads((tmp_path / "mined" / "summary.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = content["settings"]
    return found


def expected(teacher: Any, tmp_path: Path, **more: Any) -> list[dict[str, Any]]:
    """What Python mines."""
    given = {"method": "naive", "num_negatives": 2, "corpus": words.CORPUS, "device": "cpu", "progress": False, **more}
    mined = NegativeMiner(teacher, cache_dir=tmp_path / "python", **given).mine(words.rows())
    return mined.to_list()  # type: ignore[no-any-return]


# ---- teachers ----------------------------------------------------------------------------------------------------

SPECS: dict[str, Callable[[Path], Any]] = {
    "rrf(bm25, random:1)": lambda tiny: Fusion(["bm25", "random:1"]),
    "sum(rrf(bm25, random), random:2)": lambda tiny: Fusion([Fusion(["bm25", "random"]), "random:2"], "sum"),
    "cross-sample(bm25, random:1)": lambda tiny: CrossSample(["bm25", "random:1"]),
    "intra-sample(bm25, sum(bm25, random))": lambda tiny: IntraSample(["bm25", Fusion(["bm25", "random"], "sum")]),
    "intra-sample-dedup(bm25, random)": lambda tiny: IntraSample(["bm25", "random"], dedup=True),
    "cross-encoder:TINY/cross": lambda tiny: CrossEncoderTeacher(tiny / "cross"),
    "sparse:TINY/sparse": lambda tiny: f"sparse:{tiny / 'sparse'}",
    "late-interaction:TINY/tokens": lambda tiny: LateInteractionTeacher(tiny / "tokens"),
    "faiss:HNSW8:TINY/dense": lambda tiny: ApproximateTeacher(tiny / "dense", "HNSW8"),
    "cross-sample(faiss:IVF4,Flat@nprobe=1:TINY/dense, bm25)": lambda tiny: CrossSample(
        [ApproximateTeacher(tiny / "dense", "IVF4,Flat@nprobe=1"), "bm25"]
    ),
    "sum(bm25, TINY/dense)": lambda tiny: Fusion(["bm25", tiny / "dense"], "sum"),
}


@pytest.mark.parametrize("spec", sorted(SPECS))
def test_every_teacher_mines_as_in_python(spec: str, mine: Run, tiny: Path, tmp_path: Path) -> None:
    result = mine("-t", spec.replace("TINY", str(tiny)))
    assert result.exit_code == 0, result.output
    assert written(tmp_path) == expected(SPECS[spec](tiny), tmp_path)


@pytest.mark.parametrize("spec", ["sum(bm25, ~/dense)", "faiss:Flat:~/dense"])
def test_a_model_may_be_named_from_the_home_folder(
    spec: str, mine: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny))
    result = mine("-t", spec)
    assert result.exit_code == 0, result.output
    assert str(tiny) not in json.dumps(settings(tmp_path))


def test_what_an_ensemble_agrees_on_is_printed(mine: Run) -> None:
    result = mine("-t", "intra-sample(bm25, random)")
    assert result.exit_code == 0, result.output
    assert "teacher intra-sample(bm25-english, random-0)" in result.stdout
    assert "agreement of the teachers" in result.stdout


def test_a_first_stage_and_its_candidates(mine: Run, tiny: Path, tmp_path: Path) -> None:
    spec = f"cross-encoder:{tiny / 'cross'}"
    result = mine("-t", spec, "--first-stage", "rrf(bm25, random)", "--candidates", "7", "--max-length", "16")
    assert result.exit_code == 0, result.output
    teacher = CrossEncoderTeacher(
        tiny / "cross", first_stage=Fusion(["bm25", "random"]), candidates=7, max_length=16, device="cpu"
    )
    assert written(tmp_path) == expected(teacher, tmp_path)
    found = settings(tmp_path)
    assert found["teacher_settings"]["candidates"] == found["candidates"] == 7
    assert found["teacher_settings"]["stages"][0]["how"] == "rrf"
    # A prompt is for the model that takes one, which here is the first stage.
    assert mine("-t", spec, "--first-stage", tiny / "dense", "--query-prompt", "q w1 ", "--quiet").exit_code == 0
    assert settings(tmp_path)["teacher_settings"]["stages"][0]["query_prompt"] == "q w1 "


def test_embeddings_of_a_server(mine: Run, server: OpenAIServer, tmp_path: Path) -> None:
    result = mine("-t", "sum(bm25, api:tiny)", "--api-url", server.url, "--query-prompt", "query: ")
    assert result.exit_code == 0, result.output
    stage = settings(tmp_path)["teacher_settings"]["stages"][1]
    assert (stage["kind"], stage["base_url"], stage["query_prompt"]) == ("api", server.url, "query: ")
    assert any(text.startswith("query: ") for text in server.paid)


def test_candidates_of_an_index(mine: Run, tiny: Path, tmp_path: Path) -> None:
    index = f"faiss:HNSW8@efSearch=64:{tiny / 'dense'}"
    result = mine("-t", index, "--candidates", "9", "--query-prompt", "q w1 ", "--veto", f"{index}@perc_pos:2@0")
    assert result.exit_code == 0, result.output
    found = settings(tmp_path)["teacher_settings"]
    assert (found["index"], found["candidates"]) == ("HNSW8@efSearch=64", 9)
    assert found["stages"][0]["query_prompt"] == "q w1 "
    assert "faiss:HNSW8@efSearch=64:dense finds " in result.stdout
    # A first stage has candidates of its own.
    teacher = f"cross-encoder:{tiny / 'cross'}"
    assert mine("-t", teacher, "--first-stage", index, "--candidates", "9", "--quiet").exit_code == 0
    found = settings(tmp_path)["teacher_settings"]
    assert (found["candidates"], found["stages"][0]["candidates"]) == (9, 256)


# ---- filters -----------------------------------------------------------------------------------------------------


def test_vetoes_and_consistency(mine: Run, tmp_path: Path) -> None:
    vetoes = ("--veto", "bm25@perc_pos:0.95@0", "--veto", "random:5@naive+abs:0.9")
    result = mine("-t", "random:3", *vetoes, "--consistency", "20", "--on-exhausted", "keep")
    assert result.exit_code == 0, result.output
    filters = [Veto("bm25", "perc_pos:0.95", 0.0), Veto(RandomTeacher(5), "abs:0.9"), Consistency(20)]
    assert written(tmp_path) == expected("random:3", tmp_path, filters=filters, on_exhausted="keep")
    assert 0 < len(written(tmp_path)) < len(words.rows())
    names = [one["filter"] for one in settings(tmp_path)["filters"]]
    assert names == ["veto by bm25-english (perc_pos:0.95)", "veto by random-5 (abs:0.9)", "consistency (top 20)"]
    assert "candidates kept out by veto by bm25-english (perc_pos:0.95)" in result.stdout


def test_inconsistent_rows_are_flagged(mine: Run, tmp_path: Path) -> None:
    assert mine("-t", "random:3", "--consistency", "20", "--consistency-action", "flag").exit_code == 0
    rows = written(tmp_path)
    assert len(rows) == len(words.rows())
    assert {row["consistent"] for row in rows} == {True, False}


@pytest.mark.parametrize("spec", ["0.9", "minhash:0.5"])
def test_near_duplicates(spec: str, mine: Run, tiny: Path, tmp_path: Path) -> None:
    result = mine("-t", tiny / "dense", "--near-duplicates", spec)
    assert result.exit_code == 0, result.output
    by, threshold = parse_near_duplicates(spec)
    filters = [NearDuplicates(threshold, by=by)]
    assert written(tmp_path) == expected(tiny / "dense", tmp_path, filters=filters)


def test_a_judge_replaces_and_relabels(
    mine: Run, server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply = lambda question: "Yes" if hash_of(question) % 3 == 0 else "No"
    options = ("--judge", "tiny", "--judge-url", server.url, "--judge-budget", "40", "--relabel")
    result = mine("-t", "bm25", *options)
    assert result.exit_code == 0, result.output
    assert "40 pairs judged" in result.stdout
    assert len(server.requests) == 40
    judge = Judge(ChatJudge("tiny", base_url=server.url), budget=40, relabel=True)
    found = written(tmp_path)
    assert found == expected("bm25", tmp_path, filters=[judge])
    assert len(found) > len(words.rows())
    (kept,) = settings(tmp_path)["filters"]
    assert (kept["kind"], kept["judge"], kept["budget"], kept["relabel"]) == ("judge", "tiny", 40, True)


def hash_of(question: str) -> int:
    return sum(question.encode())


def test_a_model_is_loaded_as_the_options_say(mine: Run, tiny: Path, tmp_path: Path) -> None:
    result = mine("-t", tiny / "dense", "--truncate-dim", "4", "--batch-size", "3", "--trust-remote-code")
    assert result.exit_code == 0, result.output
    assert settings(tmp_path)["teacher_settings"]["truncate_dim"] == 4
    assert written(tmp_path) == expected(DenseTeacher(tiny / "dense", truncate_dim=4), tmp_path)


def test_the_activation_of_a_cross_encoder(mine: Run, tiny: Path, tmp_path: Path) -> None:
    result = mine("-t", f"cross-encoder:{tiny / 'cross'}", "--activation", "sigmoid", "--scores")
    assert result.exit_code == 0, result.output
    teacher = CrossEncoderTeacher(tiny / "cross", activation="sigmoid")
    assert written(tmp_path) == expected(teacher, tmp_path, include_scores=True)
    assert all(0 < score < 1 for row in written(tmp_path) for score in row["scores"])


# ---- what cannot be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-t", "rrf(bm25)"), "joins 1 teacher(s) in 1 place(s), expected two or more"),
        (("-t", "rrf(bm25, random"), "opens 1 parentheses and closes 0"),
        (
            ("-t", "rrf(bm25, cross-sample(bm25, random))"),
            "is an ensemble, with a ranking and a scale for each",
        ),
        (("-t", "cross-encoder:"), "names no model, expected for example 'cross-encoder:MODEL'"),
        (("-t", "intra-sample(bm25, random, random:1)"), "2 is not a multiple of 3"),
        (
            ("-t", "bm25", "--candidates", "9"),
            "--candidates: for cross-encoder:, late-interaction: or faiss: teachers, but the",
        ),
        (("-t", "bm25", "--batch-size", "4"), "--batch-size: for Sentence Transformers models, but the teacher 'bm25'"),
        (("-t", "sparse:m", "--truncate-dim", "4"), "--truncate-dim: for dense models, but the teacher 'sparse:m'"),
        (("-t", "m", "--activation", "sigmoid"), "--activation: for cross-encoder: teachers, but the teacher 'm' is"),
        (("-t", "sum(m, sparse:m)", "--revision", "v1"), "--revision: a revision belongs to one model, but"),
        (("-t", "bm25", "--first-stage", "random"), "--first-stage: for cross-encoder: or late-interaction: teachers"),
        (("-t", "bm25", "--api-url", "http://localhost:1"), "--api-url: for api: teachers, but the teacher 'bm25' is"),
        (("-t", "sum(api:a, api:b)", "--query-prompt", "q: "), "--query-prompt: a prompt belongs to one model, but"),
        (("-t", "api:a"), "environment variable OPENAI_API_KEY holds no key for https://api.openai.com/v1"),
        (("-t", "faiss:Flat:bm25"), "ApproximateTeacher: bm25-english has no vector per passage to index"),
        (("-t", "faiss:Flat"), "teacher 'faiss:Flat' names no model, expected for example 'faiss:IVF1024,Flat:MODEL'"),
        (("-t", "faiss:@nprobe=3:m"), "index: a FAISS factory such as 'IVF1024,Flat'"),
        (("-t", "sum(faiss:IVF4,Flat:m, bm25)"), "and faiss:IVF4,Flat:m only scores candidates"),
        (("-t", "bm25", "--judge-budget", "3", "--relabel"), "--judge-budget, --relabel: for --judge, which is not"),
        (("-t", "bm25", "--consistency-action", "flag"), "--consistency-action: for --consistency, which is not given"),
        (
            ("-t", "bm25", "--near-duplicates", "0.9"),
            "it compares vectors, but bm25-english has none; give minhash",
        ),
        (
            ("-t", "bm25", "--veto", "random@shifted:3"),
            "expected a ceiling alone, such as perc_pos:0.95, got shifted:3",
        ),
        (("-t", "cross-sample(bm25, random)", "--consistency", "3"), "an ensemble has several"),
        (("-t", "bm25", "--judge", "gpt", "--judge-url", "localhost"), "base_url: http://… or https://…"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_done_is_one_sentence(options: tuple[str, ...], message: str, mine: Run) -> None:
    result = mine(*options, "--quiet")
    assert result.exit_code == 1, result.output
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--veto", "bm25@percpos:1"), "method 'percpos:1' is not understood"),
        (("--veto", "@perc_pos:0.9"), "is not a TEACHER, TEACHER@METHOD or TEACHER@METHOD@SCORE"),
        (("--near-duplicates", "95"), "'95' is not a similarity over 0 and at most 1"),
        (("--near-duplicates", "words:0.9"), "'words:0.9' is not a similarity"),
        (("--consistency", "0"), "Invalid value for '--consistency'"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_spec_is_a_usage_error(options: tuple[str, ...], message: str, mine: Run) -> None:
    result = mine("-t", "bm25", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", "").split())


def test_parts_of_a_veto() -> None:
    assert parse_veto("bm25") == ("bm25", None, None)
    assert parse_veto("bm25@perc_pos:0.9") == ("bm25", "perc_pos:0.9", None)
    assert parse_veto("sum(bm25, a/b)@margin_pos:0.1@-1.5") == ("sum(bm25, a/b)", "margin_pos:0.1", -1.5)
    assert parse_veto("models/e5@v2@naive+abs:0.5@0") == ("models/e5@v2", "naive+abs:0.5", 0.0)
    assert parse_veto("faiss:HNSW8@efSearch=64:a/b") == ("faiss:HNSW8@efSearch=64:a/b", None, None)
    assert parse_veto("faiss:HNSW8@efSearch=64:m@v2@abs:1@0") == ("faiss:HNSW8@efSearch=64:m@v2", "abs:1", 0)
    with pytest.raises(InputError, match="is not a TEACHER"):
        parse_veto("bm25@")


def test_a_veto_without_a_method_has_the_papers_best() -> None:
    assert str(Veto(BM25Teacher()).method) == "perc_pos:0.95"


def test_help_teaches_the_specs(mine: Run) -> None:
    text = " ".join(CliRunner().invoke(app, ["mine", "--help"]).stdout.replace("│", " ").split())
    specs = ("cross-encoder:MODEL", "late-interaction:MODEL", "faiss:IVF1024,Flat:MODEL", "rrf(bm25, MODEL)")
    for spec in (*specs, "bm25@perc_pos:0.95@0"):
        assert spec in text
    for option in ("--first-stage", "--near-duplicates", "--judge-budget", "--relabel", "--api-url"):
        assert option in text
