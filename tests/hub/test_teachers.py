"""Sets that several teachers, filters or an approximate teacher have mined: pushed, loaded, mined again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from typer.testing import CliRunner, Result

from hf_negmine import (
    ApproximateTeacher,
    Consistency,
    CrossSample,
    DenseTeacher,
    FunctionJudge,
    Fusion,
    IntraSample,
    Judge,
    NearDuplicates,
    ScoreFunction,
    Veto,
    Where,
    load_mined,
    push_dataset,
    reproduce,
)
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.hub.models import negatives_section
from hf_negmine.select.ensembles import ensemble_of_settings
from hf_negmine.select.filters import same_value
from hf_negmine.select.rules import filters_of_settings, settings_of_filters
from hf_negmine.teachers import APITeacher
from tests.hub.server import Hub
from tests.hub.world import CORPUS, NAME, QUERIES, make_miner, mine, read_card, rows

TEACHERS: dict[str, Any] = {
    "fusion": lambda: Fusion(["bm25", "random:1"], "sum", weights=[2.0, 1.0]),
    "nested fusion": lambda: "rrf(bm25, sum(random:1, random:2))",
    "cross-sample": lambda: CrossSample(["bm25", Fusion(["bm25", "random"])]),
    "intra-sample": lambda: IntraSample(["bm25", "random"]),
    "intra-sample-dedup": lambda: "intra-sample-dedup(random:1, bm25)",
}


def only_tea(queries: list[str], passages: list[str]) -> list[bool]:
    return ["tea" in query and "tea" in passage for query, passage in zip(queries, passages, strict=True)]


def card_of(hub: Hub) -> str:
    return read_card(hub.files("dataset", NAME)["README.md"])[1]


@pytest.mark.parametrize("kind", sorted(TEACHERS))
def test_several_teachers_come_out_again(kind: str, hub: Hub, tmp_path: Path) -> None:
    mined = mine(tmp_path / "cache", TEACHERS[kind](), method="perc_pos:0.9", on_exhausted="keep")
    push_dataset(mined, NAME, license="mit")
    shared = load_mined(NAME)
    assert shared.rows.to_list() == mined.to_list()
    assert len(shared.settings["stages"]) == 2
    found = reproduce(NAME, progress=False, cache_dir=tmp_path / "elsewhere")
    assert found.identical, found
    assert not found.teacher_differs
    assert "### Teachers\n" in card_of(hub)


def test_another_teacher_inside_is_noticed(hub: Hub, tmp_path: Path) -> None:
    push_dataset(mine(tmp_path / "cache", "sum(bm25, random:1)"), NAME, license="mit")
    found = reproduce(NAME, teacher="sum(bm25, random:2)", progress=False)
    assert not found.identical
    assert found.teacher_differs == ["query", "passage"]


def test_the_card_of_an_ensemble_claims_no_pool(hub: Hub, tmp_path: Path) -> None:
    mined = mine(tmp_path / "cache", "cross-sample(bm25, random:1)")
    with pytest.raises(InputError, match=r"with_pool: cross-sample.* has a pool per teacher"):
        push_dataset(mined, NAME, license="mit", with_pool=True)
    push_dataset(mined, NAME, license="mit", report=True)
    assert "negmine/default/train-report.html" in hub.files("dataset", NAME)
    card = card_of(hub)
    assert "candidate pool" not in card
    assert "each query drew one of the teachers bm25-english, random-1." in card
    assert "| bm25-english | 1.00 | 0." in card
    assert "the score of every positive by the teacher that its query drew" in card
    assert "'kind'" not in card, "no dictionary of Python in the table"
    assert load_mined(NAME).pool is None


@pytest.mark.parametrize("action", ["drop", "flag"])
def test_a_veto_and_consistency_come_out_again(action: Any, hub: Hub, tmp_path: Path) -> None:
    filters = [
        Veto("bm25", "perc_pos:0.9", abstain_at=0),
        NearDuplicates(0.6, by="minhash"),
        Consistency(9, action=action),
    ]
    mined = mine(tmp_path / "cache", "random:3", filters=filters)
    assert len(mined) > 0
    push_dataset(mined, NAME, license="mit", with_pool=True)
    found = reproduce(NAME, progress=False, cache_dir=tmp_path / "elsewhere")
    assert found.identical, found
    card = card_of(hub)
    assert "veto by bm25-english (perc\\_pos:0.9); it abstains where the positive scores 0 or less" in card
    assert ("left out" if action == "drop" else "flagged in the column `consistent`") in card
    assert "The candidate pool is in the teacher's order, before these filters." in card
    others = reproduce(NAME, filters=[], progress=False)
    assert (others.identical, others.filters_differ, others.teacher_differs) == (False, True, [])
    if action == "drop":
        assert others.rows_again > others.rows
    else:
        assert "the filters have changed since" in str(others)


def test_a_judge_is_refused_with_a_reason(hub: Hub, tmp_path: Path) -> None:
    judged = Judge(FunctionJudge(only_tea, name="tea"), budget=9, relabel=True)
    filters = [Veto("random:1", "abs:0.9"), judged]
    push_dataset(mine(tmp_path / "cache", "bm25", filters=filters), NAME, license="mit")
    assert "judge tea: asked about 9 of at most 9 pairs; a passage that answers its query is replaced" in card_of(hub)
    with pytest.raises(InputError, match=r"'judge tea' cannot be made .*a key would be sent.*filters=\[…\]: 'veto by"):
        reproduce(NAME, progress=False)
    found = reproduce(NAME, filters=filters, progress=False, cache_dir=tmp_path / "elsewhere")
    assert found.identical, found


def test_conditions_on_metadata_must_be_given(hub: Hub, tmp_path: Path) -> None:
    kinds = {
        "text": [*QUERIES, *CORPUS],
        "kind": ["tea" if "tea" in text else "coffee" for text in [*QUERIES, *CORPUS]],
    }
    table = pa.table(kinds)
    where = Where(same_value("kind"), queries=table, passages=table, query_column="text", passage_column="text")
    push_dataset(mine(tmp_path / "cache", "random", filters=[where]), NAME, license="mit")
    with pytest.raises(InputError, match="it is the user's own code or table"):
        reproduce(NAME, progress=False)
    assert reproduce(NAME, filters=[where], progress=False).identical


def test_a_key_is_not_sent_to_an_address_from_the_hub() -> None:
    settings = {"kind": "fusion", "how": "rrf", "stages": [{"kind": "bm25"}, APITeacher("m").settings]}
    with pytest.raises(InputError, match="one of kind 'api' cannot be made from its settings"):
        ensemble_of_settings(settings)
    (veto,) = settings_of_filters([Veto(APITeacher("m"))])
    with pytest.raises(InputError, match=r"'veto by m .*one of kind 'api' cannot be made"):
        filters_of_settings([veto])


def test_a_function_inside_must_be_given(hub: Hub, tmp_path: Path) -> None:
    teacher = ScoreFunction(
        lambda queries, passages: [len(text) for text in passages], candidates=9, version="1", label="longest"
    )
    push_dataset(mine(tmp_path / "cache", teacher), NAME, license="mit")
    assert "the 9 candidates of the first stage hold fewer eligible passages" in card_of(hub)
    with pytest.raises(InputError, match="one of kind 'custom' cannot be made from its settings; give it as teacher="):
        reproduce(NAME, progress=False)
    assert reproduce(NAME, teacher=teacher, progress=False).identical


def test_a_cross_encoder_and_an_index_with_a_local_copy(hub: Hub, models: Path, tmp_path: Path) -> None:
    cross, dense = models / "cross", models / "dense"
    push_dataset(mine(tmp_path / "cache", f"cross-encoder:{cross}"), NAME, license="mit")
    near = ApproximateTeacher(DenseTeacher(dense, query_prompt="q "), "HNSW8", candidates=20)
    push_dataset(mine(tmp_path / "cache", near), NAME, config_name="near")
    for given in (cross, f"cross-encoder:{cross}"):
        found = reproduce(NAME, teacher=given, progress=False, cache_dir=tmp_path / "elsewhere")
        assert found.identical, found
    for given in (dense, f"faiss:HNSW8:{dense}", near):
        found = reproduce(NAME, "near", teacher=given, progress=False, cache_dir=tmp_path / "elsewhere")
        assert found.identical, found
        assert not found.teacher_differs
    other = ApproximateTeacher(near.teacher, "HNSW8", candidates=21)
    assert reproduce(NAME, "near", teacher=other, progress=False).teacher_differs == ["query", "passage"]
    settings = load_mined(NAME, "near").settings["teacher_settings"]
    assert {**settings, "stages": None} == {"kind": "faiss", "index": "HNSW8", "candidates": 20, "stages": None}
    assert settings["stages"][0]["query_prompt"] == "q "
    card = card_of(hub)
    recall = load_mined(NAME, "near").summary.recall
    assert recall is not None
    assert f"- faiss:HNSW8:dense finds {100 * recall['faiss:HNSW8:dense']:.1f} % of the best passages; scores" in card
    assert "faiss:HNSW8:dense scores 20 candidates per query that its index proposes, by the vectors of this" in card
    assert "the 20 candidates of the first stage hold fewer eligible passages" in card


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "cross-sample"},
        {"kind": "intra-sample", "stages": [{"kind": "bm25"}, {"kind": "bm25"}], "dedup": "yes"},
        {"kind": "fusion", "stages": [{"kind": "bm25"}]},
        {"kind": "cross-encoder", "model": "m", "trust_remote_code": True, "stages": [{"kind": "bm25"}]},
        {"kind": "fusion", "stages": [{"kind": "bm25"}, {"kind": "random"}], "weights": ["a", 1]},
        {"kind": "fusion", "stages": "bm25"},
        {"kind": "faiss", "index": "Flat", "candidates": 9},
        {"kind": "faiss", "index": 5, "candidates": 9, "stages": [{"kind": "dense", "model": "m"}]},
        {"kind": "faiss", "index": "Flat", "candidates": 9, "stages": [{"kind": "bm25"}]},
        {"kind": "cross-sample", "stages": ["bm25", "random"]},
    ],
    ids=lambda broken: broken["kind"],
)
def test_broken_settings_of_a_teacher_are_an_input_error(broken: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ensemble_of_settings(broken)


@pytest.mark.parametrize(
    "broken",
    [
        "veto",
        ["veto"],
        [{"kind": "veto", "filter": "v"}],
        [{"kind": "veto", "filter": "v", "teacher_settings": "bm25", "method": "naive", "abstain_at": 0, "depth": 1}],
        [{"kind": "consistency", "filter": "c", "top_k": "3", "min_score": None, "action": "drop"}],
        [{"kind": "near-duplicates", "filter": "n", "threshold": [1], "of": "both", "by": "cosine"}],
        [{"filter": "nothing"}],
    ],
    ids=["text", "list of text", "no method", "teacher", "rank", "threshold", "no kind"],
)
def test_broken_settings_of_filters_are_an_input_error(broken: Any) -> None:
    with pytest.raises(InputError, match="filters: "):
        filters_of_settings(broken)


def test_filters_say_what_makes_them_again() -> None:
    filters = [Veto("bm25", "margin_pos:0.5"), NearDuplicates(by="minhash"), Consistency(min_score=0.25, action="flag")]
    made = filters_of_settings(settings_of_filters(filters))
    assert settings_of_filters(made) == settings_of_filters(filters)


def test_hostile_names_say_nothing_to_markdown(hub: Hub, tmp_path: Path) -> None:
    teacher = ScoreFunction(
        lambda queries, passages: np.arange(len(queries)), candidates=5, version="1", label="<b>x</b> | `y`"
    )
    filters = [Veto(teacher, "abs:100")]
    mined = mine(tmp_path / "cache", "random", filters=filters)
    push_dataset(mined, NAME, license="mit")
    card = card_of(hub).partition("<details>")[0]
    assert "<b>" not in card


def test_from_the_shell(hub: Hub, tmp_path: Path) -> None:
    rows().to_json(tmp_path / "rows.jsonl")
    Dataset.from_dict({"text": CORPUS}).to_json(tmp_path / "corpus.jsonl")

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(part) for part in arguments])
        assert result.exit_code == 0, result.output
        return result

    options = ("--corpus", tmp_path / "corpus.jsonl", "-m", "naive", "-n", "2", "-o", tmp_path / "mined")
    filters = ("--veto", "random:1@abs:0.9@0", "--near-duplicates", "minhash:0.6")
    run("mine", tmp_path / "rows.jsonl", "-t", "intra-sample(bm25, sum(bm25, random))", *options, *filters)
    pushed = run("push", tmp_path / "mined", NAME, "--license", "mit")
    assert "no longer holds" not in pushed.stderr
    again = run("reproduce", NAME, "--cache-dir", tmp_path / "elsewhere")
    assert "identical: all 12 rows came out again" in again.stdout
    by_hand = run("reproduce", NAME, "-t", "intra-sample(bm25, sum(bm25, random:0))", "--quiet")
    assert "identical" in by_hand.stdout


def test_a_card_of_a_model_says_who_mined(tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache", CrossSample(["bm25", "random"]), filters=[Veto("random:1", "abs:0.9")])
    section = negatives_section("user/model", miner.fit(rows()).summary)
    assert "each query drew one of the teachers bm25-english, random-0. Filters: veto by random-1" in section
