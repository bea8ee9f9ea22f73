"""Rows and corpora in several files, at addresses, and in streams."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, IterableDataset, IterableDatasetDict, load_dataset

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.data.sources import open_corpus, open_rows

ROWS = [{"query": f"query {place}", "positive": f"passage {place}"} for place in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with rows in three Parquet files, one of them deeper, and in two gzipped ones of JSON lines."""
    home = tmp_path / "data"
    (home / "parquet" / "more").mkdir(parents=True)
    for place, name in enumerate(["parquet/0.parquet", "parquet/1.parquet", "parquet/more/2.parquet"]):
        pq.write_table(pa.Table.from_pylist(ROWS[2 * place : 2 * place + 2]), home / name)
    (home / "parquet" / ".hidden.parquet").write_bytes(b"not parquet")
    (home / "parquet" / "README.md").write_text("about the data")
    (home / "lines").mkdir()
    for place in range(2):
        with gzip.open(home / "lines" / f"{place}.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in ROWS[3 * place : 3 * place + 3]))
    return home


@pytest.mark.parametrize("source", ["parquet", "parquet/**/*.parquet", "lines", "lines/*.jsonl.gz", "lines/[01]*"])
def test_shards_are_one_set_of_rows_and_one_corpus(source: str, folder: Path) -> None:
    assert open_rows(str(folder / source)).rows.to_list() == ROWS
    texts = [text for batch in open_corpus(str(folder / source), column="positive") for text in batch.to_pylist()]
    assert texts == [row["positive"] for row in ROWS]


def test_a_summary_beside_the_rows_is_not_taken_for_them(folder: Path) -> None:
    (folder / "parquet" / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"give a pattern, such as .*/parquet/\*\.parquet$"):
        open_rows(str(folder / "parquet"))


def test_a_file_may_be_named_like_a_pattern(folder: Path) -> None:
    odd = folder / "rows[1].parquet"
    pq.write_table(pa.Table.from_pylist(ROWS[:1]), odd)
    assert open_rows(odd).rows.to_list() == ROWS[:1]


def test_a_text_with_a_question_mark_is_no_pattern() -> None:
    with pytest.raises(InputError, match=r"one text, 'what do otters eat\?', .* give a list of texts"):
        open_corpus("what do otters eat?")


def test_lines_of_several_text_files_are_a_corpus(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"\ufeff{name} one\n\n{name} two\n", encoding="utf-8")
    found = [text for batch in open_corpus(tmp_path / "*.txt") for text in batch.to_pylist()]
    assert found == ["a one", "a two", "b one", "b two"]


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        ("parquet/*.csv", ["matches no file"]),
        ("empty", ["holds no data files", ".parquet"]),
        (".", ["end in .csv and .jsonl and .parquet", "give a pattern"]),
        ("*/*", ["other columns or endings"]),
        ("mixed/*.parquet", ["could not be read as parquet"]),
        ("headers/*.csv", ["0.csv and ", "1.csv have other columns"]),
    ],
)
def test_files_that_do_not_belong_together_are_refused(source: str, facts: list[str], folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "mixed").mkdir()
    (folder / "headers").mkdir()
    pq.write_table(pa.table({"query": ["a"], "positive": ["b"]}), folder / "mixed" / "0.parquet")
    pq.write_table(pa.table({"question": ["a"], "answer": ["b"]}), folder / "mixed" / "1.parquet")
    (folder / "headers" / "0.csv").write_text("query,positive\na,b\nc,d\n")
    (folder / "headers" / "1.csv").write_text("question,answer\na,b\nc,d\n")
    (folder / "parquet" / "README.md").unlink()
    with pytest.raises(InputError) as caught:
        open_rows(str(folder / source))
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


def test_addresses_are_opened_by_what_understands_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    memory = fsspec.filesystem("memory")
    for place in range(2):
        memory.pipe(f"/shards/{place}.parquet", (folder / "parquet" / f"{place}.parquet").read_bytes())
    try:
        assert open_rows("memory://shards/1.parquet").rows.to_list() == ROWS[2:4]
        assert open_rows("memory://shards/*.parquet").rows.to_list() == ROWS[:4]
        with pytest.raises(InputError, match=r"memory://shards/\*.csv matches no file"):
            open_rows("memory://shards/*.csv")
    finally:
        memory.rm("/shards", recursive=True)
    with pytest.raises(InputError, match="web address cannot be a pattern; give the files one by one"):
        open_rows("https://example.org/*.parquet")
    with pytest.raises(InputError, match=r"nowhere://a/\*.parquet could not be listed: Protocol not known: nowhere"):
        open_rows("nowhere://a/*.parquet")


def streams(folder: Path) -> Iterator[Any]:
    def texts() -> Iterator[dict[str, Any]]:
        yield from ({"id": place, "text": f"passage {place}"} for place in range(6))

    yield IterableDataset.from_generator(texts)
    yield IterableDatasetDict({"train": IterableDataset.from_generator(texts)})
    Dataset.from_generator(texts).to_parquet(folder / "corpus.parquet")
    yield load_dataset("parquet", data_files=str(folder / "corpus.parquet"), split="train", streaming=True)


def test_a_stream_can_be_the_corpus(tmp_path: Path) -> None:
    rows, settings = ROWS[:2], {"method": "naive", "num_negatives": 3, "progress": False, "device": "cpu"}
    expected = NegativeMiner("random", corpus=[f"passage {i}" for i in range(6)], cache_dir=tmp_path, **settings).mine(
        rows
    )
    for place, stream in enumerate(streams(tmp_path)):
        miner = NegativeMiner("random", corpus=stream, cache_dir=tmp_path / str(place), **settings)
        assert miner.mine(rows).to_list() == expected.to_list()
    none = IterableDataset.from_generator(lambda: iter([{"number": 1}]))
    with pytest.raises(InputError, match=r"name the column of passage texts, the corpus has \['number'\]"):
        open_corpus(none)
