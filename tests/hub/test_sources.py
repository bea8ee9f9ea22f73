"""Data sets on the Hub as BEIR and MTEB lay them out, and revisions."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from hf_negmine import NegativeMiner, load_mined, push_dataset, reproduce
from hf_negmine.base.errors import InputError
from hf_negmine.data.formats.tools import TOOLS
from hf_negmine.data.sources import open_corpus, open_rows
from tests.hub.server import Hub

CORPUS = Dataset.from_dict(
    {"_id": ["d1", "d2", "d3"], "title": ["Otters", "", "Tea"], "text": ["eat fish.", "Bread is baked.", "is drunk."]}
)
QUERIES = Dataset.from_dict({"_id": ["q1", "q2"], "text": ["what do otters eat", "what is tea"]})
JUDGED = Dataset.from_dict({"query-id": ["q1", "q2", "q2"], "corpus-id": ["d1", "d3", "d2"], "score": [1, 2, 0]})
ROWS = [
    {"query": "what do otters eat", "positive": "Otters eat fish.", "query-id": "q1", "corpus-id": "d1"},
    {"query": "what is tea", "positive": "Tea is drunk.", "query-id": "q2", "corpus-id": "d3"},
]
TEXTS = ["Otters eat fish.", "Bread is baked.", "Tea is drunk."]


def push(layout: str) -> str:
    name = "tester/animals"
    CORPUS.push_to_hub(name, "corpus", split="corpus")
    QUERIES.push_to_hub(name, "queries", split="queries")
    if layout == "default":
        DatasetDict({"train": JUDGED, "test": JUDGED.select([0])}).push_to_hub(name)
    elif layout == "qrels":
        JUDGED.push_to_hub(name, "qrels", split="train")
    else:
        JUDGED.push_to_hub(f"{name}-qrels", split="train")
    return name


@pytest.mark.parametrize("layout", ["default", "qrels", "beside"])
def test_configs_of_texts_and_judgements_are_joined(layout: str, hub: Hub, tmp_path: Path) -> None:
    name = push(layout)
    opened = open_rows(name)
    assert opened.rows.to_list() == ROWS
    assert opened.corpus is not None
    assert opened.corpus.to_pylist() == TEXTS
    assert [text for batch in open_corpus(name) for text in batch.to_pylist()] == TEXTS
    miner = NegativeMiner("random", method="naive", num_negatives=1, cache_dir=tmp_path / "cache", progress=False)
    assert miner.mine(f"hf://datasets/{name}").select_columns(list(ROWS[0])).to_list() == ROWS
    assert miner.summary.passages == 3


def test_the_split_and_the_config_can_be_named(hub: Hub) -> None:
    name = push("default")
    assert open_rows(name, split="test").rows.to_list() == ROWS[:1]
    assert open_rows(name, config_name="queries").rows.column_names == ["_id", "text"]
    with pytest.raises(InputError, match="nothing"):
        open_rows(name, split="nothing")


def test_judgements_without_texts_say_what_is_missing(hub: Hub) -> None:
    JUDGED.push_to_hub("tester/judged", split="train")
    with pytest.raises(InputError, match=r"has the configs \['default'\]; 'corpus' is not among"):
        open_rows("tester/judged")
    CORPUS.push_to_hub("tester/parts", "corpus", split="corpus")
    QUERIES.push_to_hub("tester/parts", "queries", split="queries")
    with pytest.raises(InputError, match=r"'tester/parts-qrels' .* could not be loaded from the Hub"):
        open_rows("tester/parts")


def test_a_revision_stands_after_an_at_sign(hub: Hub) -> None:
    first = Dataset.from_list(ROWS[:1]).push_to_hub("tester/rows").oid
    Dataset.from_list(ROWS).push_to_hub("tester/rows")
    assert len(open_rows("tester/rows").rows) == 2
    for source in (f"tester/rows@{first}", f"hf://datasets/tester/rows@{first}"):
        opened = open_rows(source)
        assert opened.rows.to_list() == ROWS[:1]
        assert f"revision={first!r}" in opened.code
    with pytest.raises(InputError, match="tester/rows@nothing"):
        open_rows("tester/rows@nothing")


@pytest.mark.parametrize("format", TOOLS)
def test_rows_for_a_tool_are_pushed_and_loaded_but_not_reproduced(format: str, hub: Hub, tmp_path: Path) -> None:
    rows = Dataset.from_list(ROWS).select_columns(["query", "positive"])
    miner = NegativeMiner(
        "random",
        corpus=TEXTS,
        method="naive",
        num_negatives=1,
        format=format,
        cache_dir=tmp_path,
        progress=False,  # type: ignore[arg-type]
    )
    mined = miner.mine(rows)
    push_dataset(mined, "tester/mined", miner=miner, license="mit")
    found = load_mined("tester/mined")
    assert found.rows.to_list() == mined.to_list()
    with pytest.raises(InputError, match="only the formats of Sentence"):
        reproduce("tester/mined", cache_dir=tmp_path / "again", progress=False)
