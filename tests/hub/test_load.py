"""What `load_mined` gives back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hf_negmine import load_mined, push_dataset
from hf_negmine.base.errors import InputError, ShallowPoolError, StorageError
from hf_negmine.hub.network import HubError
from hf_negmine.hub.provenance import Provenance
from tests.hub.server import Hub
from tests.hub.world import CORPUS, NAME, QUERIES, make_miner, mine, rows

PATH = "negmine/default/train.json"


def test_rows_settings_lookups_and_pool(hub: Hub, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache", "bm25", method="perc_pos:0.9", on_exhausted="keep")
    mined = miner.mine(rows())
    push_dataset(mined, NAME, license="mit", with_pool=True, source_datasets=["a/b"])
    data = load_mined(NAME, cache_dir=tmp_path / "elsewhere")
    assert data.rows.to_list() == mined.to_list()
    assert data.settings == json.loads(json.dumps(miner.summary.settings))
    assert data.summary.as_dict() == json.loads(json.dumps({**miner.summary.as_dict(), "seconds": {}}))
    assert data.provenance.source_datasets == ["a/b"]
    assert data.queries is not None
    assert data.corpus is not None
    assert (data.queries["query"][:], data.corpus["document"][:]) == (QUERIES, CORPUS)
    assert data.pool is not None
    for method in ("perc_pos:0.9", "margin_pos:0.01"):
        ours, theirs = (
            miner.pool.select(method, "sampled:5", n=2, seed=3),
            data.pool.select(method, "sampled:5", 2, seed=3),
        )
        np.testing.assert_array_equal(ours.passages, theirs.passages)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert data.pool.folder is not None
    assert data.pool.folder.is_relative_to(tmp_path / "elsewhere")
    assert load_mined(NAME, cache_dir=tmp_path / "elsewhere").pool is not None


def test_the_pool_stays_away_unless_it_is_asked_for(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")
    assert load_mined(NAME).pool is None


def test_a_shallow_pool_says_so(hub: Hub, tmp_path: Path) -> None:
    push_dataset(mine(tmp_path / "cache", pool_depth=3), NAME, license="mit", with_pool=True)
    pool = load_mined(NAME).pool
    assert pool is not None
    with pytest.raises(ShallowPoolError):
        pool.select("naive", n=10)


def test_configs_splits_and_revisions(hub: Hub, tmp_path: Path, mined: Dataset) -> None:
    first = push_dataset(mined, NAME, license="mit")
    push_dataset(mine(tmp_path / "cache", num_negatives=1), NAME)
    push_dataset(mined, NAME, config_name="tea", split="test", revision="v2")
    assert load_mined(NAME).rows.num_columns == 3
    assert load_mined(NAME, revision=first.commit).rows.to_list() == mined.to_list()
    assert load_mined(NAME, "tea", split="test", revision="v2").rows.to_list() == mined.to_list()
    for arguments in ({"config_name": "tea"}, {"split": "test"}):
        with pytest.raises(HubError, match="has not pushed"):
            load_mined(NAME, **arguments)
    with pytest.raises(HubError, match="no such revision"):
        load_mined(NAME, revision="v3")


def test_a_push_in_between_does_not_mix_two_versions(
    hub: Hub, tmp_path: Path, mined: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_dataset(mined, NAME, license="mit")
    read = Provenance.from_json.__func__  # type: ignore[attr-defined]

    def push_then_read(*args: Any, **settings: Any) -> Any:
        hub.commit("dataset", NAME, {"data/default/train-00000-of-00001.parquet": b"another version"})
        return read(Provenance, *args, **settings)

    monkeypatch.setattr(Provenance, "from_json", push_then_read)
    assert load_mined(NAME).rows.to_list() == mined.to_list()


def test_somebody_elses_repository(hub: Hub) -> None:
    hub.create("dataset", NAME, {"data.csv": b"a,b\n"})
    with pytest.raises(HubError, match="hf_negmine has not pushed"):
        load_mined(NAME)
    with pytest.raises(HubError, match="no such repository"):
        load_mined("tester/none")
    with pytest.raises(InputError, match="user/name"):
        load_mined("../none")


def change(hub: Hub, path: str, how: Callable[[Any], Any]) -> None:
    content = json.loads(hub.files("dataset", NAME)[path])
    hub.commit("dataset", NAME, {path: json.dumps(how(content)).encode()})


def test_what_an_older_version_wrote_still_loads(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")

    def older(content: dict[str, Any]) -> dict[str, Any]:
        for name in ("source_datasets", "examples"):
            del content[name]
        for name in ("histograms", "rows_written", "seconds"):
            del content["summary"][name]
        return content

    change(hub, PATH, older)
    data = load_mined(NAME)
    assert data.rows.to_list() == mined.to_list()
    assert data.summary.histograms is None
    push_dataset(mined, NAME, config_name="other")
    assert "| count | 12 | 24 | 24 |" in hub.files("dataset", NAME)["README.md"].decode()


def test_what_a_later_version_wrote_is_refused(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")
    before = hub.files("dataset", NAME)
    change(hub, PATH, lambda content: {**content, "provenance_version": 2, "new": 1})
    with pytest.raises(StorageError, match=r"version 2, .* upgrade hf_negmine"):
        load_mined(NAME)
    with pytest.raises(StorageError, match="upgrade hf_negmine"):
        push_dataset(mined, NAME, config_name="other")
    assert len(hub.files("dataset", NAME)) == len(before)


@pytest.mark.parametrize(
    "how",
    [
        lambda content: [],
        lambda content: {},
        lambda content: {**content, "provenance_version": "1"},
        lambda content: {**content, "summary": None},
        lambda content: {**content, "unheard_of": 1},
        lambda content: {**content, "files": {"data": "README.md"}},
        lambda content: {**content, "files": {"data": {"a": 3}}},
        lambda content: {**content, "files": {}},
        lambda content: {**content, "files": []},
        lambda content: {**content, "config_name": "../up"},
    ],
)
def test_provenance_that_is_none(hub: Hub, mined: Dataset, how: Callable[[Any], Any]) -> None:
    text = json.dumps(how({**json.loads(PROVENANCE), "provenance_version": 1}))
    with pytest.raises(StorageError, match="here is not provenance"):
        Provenance.from_json(text, where="here")


STATISTICS = {"count": 0}
SUMMARY = {
    "settings": {},
    "rows": 1,
    "queries": 1,
    "passages": 3,
    "positives_per_query": 1.0,
    "complete": 1,
    "exhausted": 0,
    "removed": {},
    "positive_scores": STATISTICS,
    "negative_scores": STATISTICS,
    "differences": STATISTICS,
}
PROVENANCE = json.dumps(
    {
        "config_name": "default",
        "split": "train",
        "summary": SUMMARY,
        "columns": ["query", "positive"],
        "rows": 1,
        "rows_digest": "0",
        "versions": {},
        "files": {"data": ["data/a.parquet"]},
        "provenance_version": 1,
    }
)


def test_provenance_of_the_first_version() -> None:
    found = Provenance.from_json(PROVENANCE, where="here")
    assert (found.source_datasets, found.summary.histograms, found.columns) == ([], None, ("query", "positive"))
    assert Provenance.from_json(found.to_json(), where="here") == found


def test_a_file_that_is_missing_or_damaged(hub: Hub, mined: Dataset) -> None:
    push_dataset(mined, NAME, license="mit")
    path = "data/default/train-00000-of-00001.parquet"
    hub.commit("dataset", NAME, {path: b"PAR1 no more"})
    with pytest.raises(StorageError, match=f"{path} is not a Parquet file"):
        load_mined(NAME)
    hub.commit("dataset", NAME, {path: None})
    with pytest.raises(HubError, match=f"names {path}, which it does not have"):
        load_mined(NAME)
