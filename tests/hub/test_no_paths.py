"""No path of this machine is pushed, whether or not something still lies there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from hf_negmine import (
    CrossSample,
    EncodeFunction,
    FunctionJudge,
    Judge,
    NearDuplicates,
    ScoreFunction,
    Veto,
    push_dataset,
    push_model,
)
from hf_negmine.base.errors import InputError
from hf_negmine.base.naming import is_plain_name, is_public_name, public_content, public_name, public_text
from hf_negmine.teachers import CrossEncoderTeacher, DenseTeacher, LateInteractionTeacher
from tests.hub.world import NAME, make_miner, rows

SECRET = "kept-to-ourselves"
PATHS = [
    f"/home/{SECRET}/m",
    f"~/{SECRET}/m",
    f"~{SECRET}/m",
    f"./{SECRET}/m",
    f"../{SECRET}/m",
    f"C:\\Users\\{SECRET}\\m",
    f"c:/{SECRET}/m",
    f"\\\\{SECRET}\\share\\m",
    f"file:///{SECRET}/m",
    f"{SECRET}/checkpoints/m",
    f"/home/{SECRET}/with spaces/m",
    f"{SECRET}/a b/m",
    f"/{SECRET}/m/",
]


@pytest.mark.parametrize("path", PATHS)
def test_of_a_path_the_last_part_is_told(path: str) -> None:
    assert public_name(path) == "m"
    assert not is_public_name(path)
    assert not is_plain_name(path)
    settings: dict[str, Any] = {"model": path, "query_prompt": path}
    if path != f"{SECRET}/a b/m":  # in a sentence that could be anything
        settings |= {"stages": [{"teacher": path}], path: 1}
    found = public_content(settings, kept=["query_prompt"])
    assert SECRET not in json.dumps({**found, "query_prompt": ""})
    assert found["query_prompt"] == path


@pytest.mark.parametrize("path", [path for path in PATHS if " " not in path])
@pytest.mark.parametrize(
    "sentence", ["rrf(bm25-english, {})", "veto by {} (perc_pos:0.9)", "cannot read '{}': x", "w={}"]
)
def test_a_path_in_a_sentence(sentence: str, path: str) -> None:
    assert public_text(sentence.format(path)) == sentence.format("m")


@pytest.mark.parametrize(
    "text",
    ["user/name", "name", "rrf(bm25-english, user/name)", "veto by user/name (perc_pos:0.9)", "IVF1024,Flat@nprobe=32",
     "https://example.org/v1/embeddings", "<b>x</b> | `y`", "my model (v2)", "1/2", ""],
)  # fmt: skip
def test_what_is_not_a_path_stays(text: str) -> None:
    assert public_text(text) == text


def all_tea(queries: list[str], passages: list[str]) -> list[bool]:
    return [False] * len(queries)


def lengths(queries: list[str], passages: list[str]) -> list[int]:
    return [len(passage) for passage in passages]


def letters(texts: list[str]) -> list[list[float]]:
    return [[len(text), text.count("e") + 1.0] for text in texts]


def scoring(path: str) -> ScoreFunction:
    return ScoreFunction(lengths, candidates=9, version="1", label=path)


TEACHERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "dense": lambda folder: {"teacher": str(folder / "dense")},
    "loaded": lambda folder: {"teacher": SentenceTransformer(str(folder / "dense"), device="cpu")},
    "named": lambda folder: {"teacher": DenseTeacher(folder / "dense", name=str(folder / "dense"))},
    "cross-encoder": lambda folder: {
        "teacher": CrossEncoderTeacher(folder / "cross", first_stage=folder / "dense", candidates=9)
    },
    "sparse": lambda folder: {"teacher": f"sparse:{folder / 'sparse'}"},
    "late-interaction": lambda folder: {"teacher": LateInteractionTeacher(folder / "tokens", first_stage=None)},
    "fusion": lambda folder: {"teacher": f"rrf(bm25, {folder / 'dense'})"},
    "ensemble": lambda folder: {"teacher": CrossSample(["bm25", folder / "dense"])},
    "function": lambda folder: {"teacher": scoring(f"{folder}/m")},
    "vectors": lambda folder: {"teacher": EncodeFunction(letters, label=f"file://{folder}/m")},
    "filters": lambda folder: {
        "teacher": "random:1",
        "filters": [
            Veto(folder / "dense", "abs:2"),
            NearDuplicates(1.0, teacher=folder / "dense"),
            Judge(FunctionJudge(all_tea, name=f"{folder}/judge")),
        ],
    },
}


def assert_told_nothing(folder: Path, secret: Path) -> None:
    """Neither the path, nor a part of it that is not its last."""
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for part in (str(secret), SECRET):
                assert part.encode() not in content, f"{path.relative_to(folder)} holds {part}"


@pytest.mark.parametrize("kind", TEACHERS)
def test_no_teacher_tells_the_folder_of_its_model(
    kind: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "negmine"))
    folder = tmp_path / SECRET / "rotated"
    shutil.copytree(models, folder)
    miner = make_miner(tmp_path / "cache", on_exhausted="keep", **TEACHERS[kind](folder))
    mined = miner.mine(rows())
    shutil.rmtree(folder)
    done = push_dataset(mined, NAME, license="mit", dry_run=True, with_pool=kind != "ensemble")
    assert done.folder is not None
    assert_told_nothing(done.folder, folder)


def test_a_model_does_not_tell_the_folder_of_its_base(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "negmine"))
    folder = tmp_path / SECRET / "base"
    shutil.copytree(models / "dense", folder)
    model = SentenceTransformer(str(folder), device="cpu")
    miner = make_miner(tmp_path / "cache", model)
    mined = miner.mine(rows())
    shutil.rmtree(folder.parent)
    model.model_card_data.base_model = str(folder)
    done = push_model(model, NAME, mined=mined, base=str(folder), dry_run=True)
    assert done.folder is not None
    assert_told_nothing(done.folder, folder)


@pytest.mark.parametrize("wrong", ["../x", "/tmp/x", "~/x", "a/b/c", "C:\\x", "a b", "", 5, None])
def test_data_sets_are_named_by_their_ids(
    wrong: Any, mined: Dataset, model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="source_datasets: expected a list of ids"):
        push_dataset(mined, NAME, license="mit", source_datasets=[wrong], dry_run=True)
    with pytest.raises(InputError, match="data_ids: expected a list of ids"):
        push_model(model, NAME, data_ids=[wrong], dry_run=True)
    if wrong is not None:
        with pytest.raises(InputError, match="expected a list of ids"):
            push_model(model, NAME, data_id=wrong, dry_run=True)
    with pytest.raises(InputError, match="source_datasets: expected a list of ids"):
        push_dataset(mined, NAME, license="mit", source_datasets="user/name", dry_run=True)
