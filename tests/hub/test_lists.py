"""Scored lists on the Hub: mined from there, and pushed with their pool."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from sentence_transformers.util import resolve_ids
from typer.testing import CliRunner

from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.hub import load_mined, reproduce
from tests.hub.server import Hub
from tests.unit.test_lists import DOCUMENTS, QUERIES, SCORES, table


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def mined(hub: Hub, tmp_path: Path) -> Path:
    """Rows mined from lists on the Hub."""
    tables = {
        "queries": {"query_id": list(QUERIES), "query": list(QUERIES.values())},
        "documents": {"document_id": list(DOCUMENTS), "document": list(DOCUMENTS.values())},
        "scores": table(),
    }
    for name, columns in tables.items():
        datasets.Dataset.from_dict(columns).push_to_hub("tester/scored", name)
    options = ("-m", "perc_pos:0.95", "-n", "2", "-o", tmp_path / "mined")
    assert "teacher tester/scored" in run("mine", "--candidates-from", "tester/scored", *options)
    return tmp_path / "mined"


def test_a_pushed_pool_of_lists_comes_back(mined: Path, hub: Hub, tmp_path: Path) -> None:
    run("push", mined, "tester/lists", "--license", "mit", "--with-pool")
    shared = load_mined("tester/lists", cache_dir=tmp_path / "elsewhere")
    assert shared.pool is not None
    assert shared.pool.select("perc_pos:0.95", None, 2).status.tolist() == ["complete", "list ended", "complete"]
    assert shared.summary.list_ended == 1
    assert "For 1 the list ended: nobody looked further." in hub.files("dataset", "tester/lists")["README.md"].decode()


def test_what_was_mined_from_lists_is_mined_again_from_the_pushed_pool(mined: Path, hub: Hub, tmp_path: Path) -> None:
    run("push", mined, "tester/bare", "--license", "mit")
    with pytest.raises(InputError, match="whose pool was not pushed with them; push again with_pool=True"):
        reproduce("tester/bare", progress=False)
    run("push", mined, "tester/lists", "--license", "mit", "--with-pool")
    found = reproduce("tester/lists", cache_dir=tmp_path / "elsewhere", progress=False)
    assert found.identical, found
    assert found.rows == found.rows_again > 0
    assert found.teacher_differs == []
    changed = datasets.load_dataset("tester/lists", split="train").map(lambda row: {"negative_1": row["negative_2"]})
    changed.push_to_hub("tester/lists", "default", split="train", data_dir="data/default")
    other = reproduce("tester/lists", cache_dir=tmp_path / "elsewhere", progress=False)
    assert (other.identical, other.missing) == (False, other.rows)


def test_a_split_of_the_lists(hub: Hub, tmp_path: Path) -> None:
    tables = {
        "queries": {"query_id": list(QUERIES), "query": list(QUERIES.values())},
        "documents": {"document_id": list(DOCUMENTS), "document": list(DOCUMENTS.values())},
        "scores": table(),
    }
    for name, columns in tables.items():
        for split in ("one", "two"):
            datasets.Dataset.from_dict(columns).push_to_hub("tester/split", name, split=split)
    arguments = ["mine", "--candidates-from", "tester/split", "-n", "1", "-o", str(tmp_path / "mined")]
    refused = CliRunner().invoke(app, arguments)
    assert "split: tester/split on the Hub has ['one', 'two']; name one" in refused.stderr
    assert "3 rows" in run(*arguments, "--split", "two")


def test_a_pushed_pool_is_scored_lists_for_others(mined: Path, hub: Hub, tmp_path: Path) -> None:
    run("push", mined, "tester/lists", "--license", "mit", "--with-pool")
    queries, documents, scores = (
        datasets.load_dataset("tester/lists", name, split="train") for name in ("queries", "documents", "scores")
    )
    scores.set_transform(resolve_ids({"query_id": queries, "document_ids": documents}, output_format="lists"))
    assert [row["documents"] for row in scores] == [[DOCUMENTS[one] for one in row] for row in SCORES.values()]
    options = ("-m", "perc_pos:0.95", "-n", "2", "-o")
    run("mine", "--candidates-from", "tester/lists", *options, tmp_path / "again")
    one, two = (
        datasets.Dataset.from_parquet(str(path / "data.parquet"), cache_dir=str(tmp_path / "hf"))
        for path in (mined, tmp_path / "again")
    )
    assert one.to_list() == two.to_list()


def test_each_config_has_lists_of_its_own(mined: Path, hub: Hub) -> None:
    for config in ("default", "other"):
        run("push", mined, "tester/lists", "--config", config, "--license", "mit", "--with-pool")
    run("push", mined, "tester/lists", "--config", "other", "--license", "mit")  # without its pool
    names = datasets.get_dataset_config_names("tester/lists")
    assert {"queries", "documents", "scores", "default-queries", "other-queries"} <= set(names)
    assert not {"other-documents", "other-scores"} & set(names)
    files = hub.files("dataset", "tester/lists")
    assert not [path for path in files if "/other/" in path and "scores-" in path]
