"""Passages with titles: a corpus is read as the rows are, and new negatives get back their ids and titles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from hf_negmine import InputError, NegativeMiner, audit, with_ids
from hf_negmine.data.formats import format_of

TOPICS = ["bread", "honey", "wool", "iron"]


# ---- corpora whose passages have titles ------------------------------------------------------------------------------

TITLED = [
    {"docid": f"d{place}", "title": topic.title(), "text": f"{topic} is a thing."} for place, topic in enumerate(TOPICS)
]
CORPORA: dict[str, Any] = {
    "a list": lambda folder: TITLED,
    "a data set": lambda folder: Dataset.from_list(TITLED),
    "a stream": lambda folder: Dataset.from_list(TITLED).to_iterable_dataset(),
    "splits": lambda folder: DatasetDict({"train": Dataset.from_list(TITLED)}),
    "a frame": lambda folder: pd.DataFrame(TITLED),
    "a file": lambda folder: write_lines(folder / "corpus.jsonl"),
    "a folder": lambda folder: write_lines(folder / "shards" / "1.jsonl").parent,
}


def write_lines(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in TITLED))
    return path


def titled_rows(name: str) -> Dataset:
    query, positive, negative = {
        "tevatron": ("query", "positive_passages", "negative_passages"),
        "dpr": ("question", "positive_ctxs", "hard_negative_ctxs"),
    }[name]
    rows = [
        {query: f"what is {topic}", positive: [TITLED[place]], negative: [TITLED[place - 1]]}
        for place, topic in enumerate(TOPICS)
    ]
    return Dataset.from_list(rows)


@pytest.mark.parametrize("kind", CORPORA)
@pytest.mark.parametrize("name", ["tevatron", "dpr"])
def test_a_title_stands_before_the_text_in_the_corpus_as_in_the_rows(name: str, kind: str, tmp_path: Path) -> None:
    corpus = CORPORA[kind](tmp_path)
    miner = NegativeMiner(
        "bm25", method="naive", num_negatives=len(TOPICS) - 1, corpus=corpus, cache_dir=tmp_path / "c", progress=False
    ).fit(titled_rows(name))
    whole = [f"{row['title']} {row['text']}" for row in TITLED]
    assert sorted(miner.fitted.texts.corpus.texts.to_pylist()) == sorted(whole), "a positive is one of them"
    for place, row in enumerate(miner.mine(titled_rows(name))):
        negatives = [row[column] for column in row if column.startswith("negative_") and column[9:].isdecimal()]
        assert sorted(negatives) == sorted(whole[:place] + whole[place + 1 :])


def test_an_audit_reads_the_corpus_likewise(tmp_path: Path) -> None:
    rows = titled_rows("tevatron").map(lambda row: {"negative_passages": row["positive_passages"]})
    done = audit(rows, NegativeMiner("bm25", method="naive", corpus=TITLED, cache_dir=tmp_path, progress=False))
    assert done.share == 1.0
    whole = {f"{row['title']} {row['text']}" for row in TITLED}
    repaired = done.repair().rows
    for row in repaired:
        (one,), (positive,) = row["negative_passages"], row["positive_passages"]
        assert one["text"] in whole - {f"{positive['title']} {positive['text']}"}


def test_texts_without_titles_in_the_rows_have_none_in_the_corpus(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"query": f"what is {row['title']}", "positive": row["text"]} for row in TITLED])
    miner = NegativeMiner("bm25", num_negatives=1, corpus=TITLED, cache_dir=tmp_path, progress=False).fit(rows)
    assert sorted(miner.fitted.texts.corpus.texts.to_pylist()) == sorted(row["text"] for row in TITLED)


# ---- ids and titles that new negatives get back ----------------------------------------------------------------------


def mined_in(name: str, folder: Path, **options: Any) -> Dataset:
    settings = {"method": "naive", "num_negatives": 2, "format": name, "corpus": TITLED, **options}
    return NegativeMiner("bm25", cache_dir=folder / "cache", progress=False, **settings).mine(titled_rows(name))


@pytest.mark.parametrize(("name", "column"), [("tevatron", "negative_passages"), ("dpr", "hard_negative_ctxs")])
def test_new_negatives_get_the_records_of_the_corpus(name: str, column: str, tmp_path: Path) -> None:
    mined = mined_in(name, tmp_path)
    done = with_ids(mined, TITLED)
    assert done.features == mined.features
    for row, before in zip(done, mined, strict=True):
        assert len(row[column]) == 2
        for record in row[column]:
            assert record in TITLED
        assert {key: value for key, value in row.items() if key != column} == {
            key: value for key, value in before.items() if key != column
        }
    one, two = (format_of(rows.features.arrow_schema, name).read(rows.data.table) for rows in (mined, done))
    assert two.negatives.to_pylist() == one.negatives.to_pylist(), "they are the same passages"


def test_dpr_calls_them_passage_ids(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"query": f"what is {row['title']}", "positive": row["text"]} for row in TITLED])
    miner = NegativeMiner("bm25", method="naive", num_negatives=1, format="dpr", cache_dir=tmp_path, progress=False)
    mined = miner.mine(rows)
    done = with_ids(mined, [{**row, "docid": int(row["docid"][1:])} for row in TITLED])
    for place, row in enumerate(done):
        (positive,), (negative,) = row["positive_ctxs"], row["hard_negative_ctxs"]
        assert positive["passage_id"] == str(place)
        assert TITLED[int(negative["passage_id"])]["text"] == negative["text"]
        assert negative["title"] == "", "the title was not read, so it does not belong to the passage"


def test_ids_beside_texts_are_filled_in(tmp_path: Path) -> None:
    rows = [
        {"query": f"what is {row['title']}", "pos": [row["text"]], "neg": [], "pos_id": [row["docid"]], "neg_id": []}
        for row in TITLED
    ]
    mined = NegativeMiner(
        "bm25", method="naive", num_negatives=2, format="flagembedding", corpus=TITLED[:3], cache_dir=tmp_path,
        progress=False,
    ).mine(Dataset.from_list(rows))  # fmt: skip
    old = Dataset.from_list([{**row, "neg_id": [None] * len(row["neg"])} for row in mined]).cast_column(
        "neg_id", mined.features["pos_id"]
    )
    known = {row["text"]: row["docid"] for row in TITLED[:3]}
    for row in with_ids(old, TITLED[:3]):
        assert row["neg_id"] == [known.get(text) for text in row["neg"]]
        assert row["pos_id"] == [next(one["docid"] for one in TITLED if one["text"] == text) for text in row["pos"]]


def test_ids_that_do_not_fit_are_an_error() -> None:
    rows = [{"query": "a", "pos": ["x"], "neg": [TITLED[0]["text"], "y"], "neg_id": [1, None]}]
    with pytest.raises(
        InputError, match=r"with_ids: the ids of the corpus do not fit into ids of int64 .*to text first"
    ):
        with_ids(Dataset.from_list(rows), TITLED)
    with pytest.raises(InputError, match=r"with_ids: column 'neg_id' has 1 id\(s\) in row 0 for 2 in 'neg', expected"):
        with_ids(Dataset.from_list([{**rows[0], "neg_id": ["d1"]}]), TITLED)
    none = Dataset.from_list([{**rows[0], "neg_id": ["a"]}] * 2).map(lambda row: {"neg_id": []})
    assert with_ids(none, TITLED)["neg_id"] == [[TITLED[0]["docid"], None]] * 2


def test_a_folder_of_beir_names_them_and_an_unknown_passage_stays(tmp_path: Path) -> None:
    beir = tmp_path / "beir"
    beir.mkdir()
    lines = [json.dumps({"_id": f"b{place}", **row}) for place, row in enumerate(TITLED[:2])]
    (beir / "corpus.jsonl").write_text("\n".join(line.replace("docid", "url") for line in lines) + "\n")
    for row in with_ids(mined_in("tevatron", tmp_path), beir):
        for record in row["negative_passages"]:
            known = {f"b{place}": {**one, "docid": f"b{place}"} for place, one in enumerate(TITLED[:2])}
            whole = [f"{one['title']} {one['text']}" for one in TITLED[2:]]
            assert record == known.get(record["docid"]) or (record["docid"] is None and record["text"] in whole)


def test_a_corpus_that_names_nothing_is_refused(tmp_path: Path) -> None:
    mined = mined_in("tevatron", tmp_path)
    with pytest.raises(InputError, match=r"with_ids: the corpus has the columns \['text'\], expected an id"):
        with_ids(mined, [{"text": "one"}])
    with pytest.raises(InputError, match="with_ids: the corpus is a stream, but it is searched; load it"):
        with_ids(mined, Dataset.from_list(TITLED).to_iterable_dataset())
