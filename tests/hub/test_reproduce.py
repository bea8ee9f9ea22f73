"""Mining what was pushed again, and what is said of the difference."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer

from hf_negmine import DenseTeacher, FixedTeacher, ScoreFunction, push_dataset, push_model, reproduce
from hf_negmine.base.errors import InputError
from tests.hub.server import Hub
from tests.hub.world import CORPUS, NAME, QUERIES, make_miner, mine, rows
from tests.train import helpers as words


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "perc_pos:0.8", "include_scores": True},
        {"method": "perc_pos:0.8", "positive_score": "each", "on_exhausted": "keep", "format": "labeled-list"},
        {"method": "margin_pos:0.2", "on_exhausted": "keep", "include_scores": True, "format": "labeled-list"},
        {"sampler": "top1_sampled:6@0.5", "seed": 11, "num_negatives": 4, "pool_depth": 5},
        {"include_positives": True, "format": "ids"},
    ],
)
def test_other_settings(hub: Hub, tmp_path: Path, settings: dict[str, Any]) -> None:
    push_dataset(mine(tmp_path / "cache", "random:3", **settings), NAME, license="mit")
    found = reproduce(NAME, progress=False, cache_dir=tmp_path / "elsewhere")
    assert found.identical, found


def test_rows_of_a_tool_say_what_they_lack(hub: Hub, tmp_path: Path) -> None:
    push_dataset(mine(tmp_path / "cache", format="flagembedding"), NAME, license="mit")
    with pytest.raises(InputError, match="are in format 'flagembedding', whose rows may hold several pairs"):
        reproduce(NAME, progress=False)


def test_rows_that_come_twice_and_columns_of_their_own(hub: Hub, tmp_path: Path) -> None:
    given = Dataset.from_dict(
        {"q": [QUERIES[0], QUERIES[1], QUERIES[0]], "p": [CORPUS[0], CORPUS[1], CORPUS[0]], "id": [1, 2, 3]}
    )
    miner = make_miner(tmp_path / "cache", query_column="q", positive_column="p")
    push_dataset(miner.mine(given), NAME, config_name="own", split="test", license="mit")
    found = reproduce(NAME, "own", split="test", progress=False)
    assert found.identical, found
    assert (found.rows, found.rows_again) == (3, 2)


def test_changed_rows_and_rows_left_out(hub: Hub, tmp_path: Path) -> None:
    mined = mine(tmp_path / "cache")
    push_dataset(mined.select(range(5)), NAME, license="mit")
    found = reproduce(NAME, progress=False)
    assert (found.identical, found.missing, found.rows, found.rows_again) == (False, 0, 5, 12)
    assert "left out before they were pushed" in str(found)
    miner = make_miner(tmp_path / "cache").fit(rows())
    changed = mined.map(lambda row: {"negative_1": "another"} if row["query"] == QUERIES[0] else row)
    push_dataset(changed, NAME, miner=miner)
    found = reproduce(NAME, progress=False)
    assert (found.identical, found.missing, found.teacher_differs) == (False, 1, [])
    assert str(found).startswith("different: 1 of 12 rows did not come out again; the teacher is the same")


def test_rows_that_somebody_has_changed_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    mined = mine(tmp_path / "cache")
    push_dataset(mined, NAME, license="mit")
    for change, sentence in (
        (mined.select(range(7)), "plus others; rows were left out after they were pushed"),
        (concatenate_datasets([mined, mined]), "rows were repeated after they were pushed"),
        (mined.map(lambda row: {"negative_1": "another"}), "the rows were changed after they were pushed"),
    ):
        change.to_parquet(tmp_path / "changed.parquet")
        content = (tmp_path / "changed.parquet").read_bytes()
        hub.commit("dataset", NAME, {"data/default/train-00000-of-00001.parquet": content})
        assert str(reproduce(NAME, progress=False)).endswith(sentence)


def test_another_teacher(hub: Hub, tmp_path: Path) -> None:
    push_dataset(mine(tmp_path / "cache"), NAME, license="mit")
    found = reproduce(NAME, teacher="random:1", progress=False)
    assert not found.identical
    assert "the teacher has changed since (as query and passage encoder)" in str(found)


def test_a_teacher_that_settings_cannot_make(hub: Hub, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    teacher = FixedTeacher(QUERIES, vectors[:12], CORPUS, vectors[12:])
    push_dataset(mine(tmp_path / "cache", teacher), NAME, license="mit")
    with pytest.raises(InputError, match="give it as teacher="):
        reproduce(NAME, progress=False)
    assert reproduce(NAME, teacher=teacher, progress=False).identical


def test_a_model_of_the_hub_is_the_one_of_then(hub: Hub, tmp_path: Path, model: SentenceTransformer) -> None:
    push_model(model, "tester/teacher")
    miner = make_miner(tmp_path / "cache", "tester/teacher", corpus=words.CORPUS)
    push_dataset(miner.mine(words.rows()), NAME, license="mit")
    settings = json.loads(hub.files("dataset", NAME)["negmine/default/train.json"])["summary"]["settings"]
    assert settings["teacher"] == "tester/teacher"
    assert settings["teacher_settings"]["revision"] == hub.commits("model", "tester/teacher")[0].oid
    with torch.no_grad():
        model[0].model.embeddings.word_embeddings.weight.normal_(generator=torch.Generator().manual_seed(1))
    push_model(model, "tester/teacher")
    found = reproduce(NAME, progress=False, cache_dir=tmp_path / "elsewhere")
    assert found.identical, found
    assert not found.teacher_differs
    found = reproduce(NAME, teacher="tester/teacher", progress=False, cache_dir=tmp_path / "elsewhere")
    assert (found.identical, found.teacher_differs) == (False, ["query", "passage"])


def test_a_loaded_model_is_opened_as_its_user_had_set_it(hub: Hub, tmp_path: Path, model: SentenceTransformer) -> None:
    push_model(model, "tester/teacher")
    loaded = SentenceTransformer("tester/teacher", device="cpu")
    loaded.max_seq_length, loaded.similarity_fn_name, loaded.truncate_dim = 4, "dot", 6  # type: ignore[assignment]
    found = {}
    for name, teacher in (("tester/plain", "tester/teacher"), (NAME, loaded)):
        miner = make_miner(tmp_path / "cache", teacher, corpus=words.CORPUS)
        found[name] = miner.mine(words.rows())
        push_dataset(found[name], name, license="mit")
    assert found[NAME].to_dict() != found["tester/plain"].to_dict(), "what was set changes the negatives"
    for name in found:
        again = reproduce(name, progress=False, cache_dir=tmp_path / "elsewhere")
        assert again.identical, again
        assert not again.teacher_differs


def test_another_similarity_and_other_candidates_make_another_teacher(
    hub: Hub, tmp_path: Path, model: SentenceTransformer
) -> None:
    cosine, dot = (DenseTeacher(model, similarity=similarity) for similarity in ("cosine", "dot"))
    miner = make_miner(tmp_path / "cache", cosine, corpus=words.CORPUS)
    push_dataset(miner.mine(words.rows()), NAME, license="mit")
    found = reproduce(NAME, teacher=dot, progress=False)
    assert not found.identical
    assert "the teacher has changed since (as query and passage encoder)" in str(found)
    assert reproduce(NAME, teacher=cosine, progress=False).identical

    many, few = (ScoreFunction(longest, first_stage="bm25", candidates=n, version="1") for n in (12, 4))
    push_dataset(mine(tmp_path / "cache", many), "tester/two", license="mit")
    found = reproduce("tester/two", teacher=few, progress=False)
    assert (found.identical, found.teacher_differs) == (False, ["query", "passage"])


def longest(queries: Sequence[str], passages: Sequence[str]) -> list[float]:
    return [float(len(passage) * 10 + zlib.crc32(passage.encode()) % 10) for passage in passages]
