"""Rows of other tools are mined as they are, and mined rows are written for other tools."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, IterableDataset

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.data.formats import FORMATS, format_of
from hf_negmine.data.formats.tools import TOOLS

FRUITS = ["apple", "banana", "cherry", "damson", "elder", "fig"]
QUERIES = [f"how to eat {fruit}" for fruit in FRUITS]
POSITIVES = [f"{fruit} is eaten with a fork" for fruit in FRUITS]
OLD = [f"{fruit} is an old negative" for fruit in FRUITS]


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def titled(number: str, text: str) -> dict[str, str]:
    title, text = text.split(" ", 1)
    return {"docid": number, "title": title, "text": text}


def rows_of(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for place, (query, positive, old) in enumerate(zip(QUERIES, POSITIVES, OLD, strict=True)):
        number = f"p{place}"
        rows.append(
            {
                "flagembedding": {
                    "query": query, "pos": [positive], "neg": [old, old], "prompt": "find", "pos_scores": [0.5],
                    "neg_scores": [0.1, 0.2], "pos_id": [number], "neg_id": ["a", "b"],
                },
                "tevatron": {
                    "query_id": f"q{place}", "query": query, "positive_passages": [titled(number, positive)],
                    "negative_passages": [titled("old", old)],
                },
                "dpr": {
                    "question": query, "answers": ["yes"],
                    "positive_ctxs": [{**titled(number, positive), "score": 9.5}],
                    "negative_ctxs": [titled("old", old)], "hard_negative_ctxs": [],
                },
                "swift": {"messages": chat(query), "positive_messages": [chat(positive)], "channel": "x"},
                "swift-flat": {"query": query, "response": positive, "rejected_response": [old], "channel": "x"},
                "automodel": {"question_id": f"q{place}", "question": query, "pos_doc": positive, "neg_doc": [old]},
            }[name]
        )  # fmt: skip
    return rows


def miner_in(folder: Path, **settings: Any) -> NegativeMiner:
    given = {"method": "naive", "num_negatives": 2, "cache_dir": folder, "progress": False, "device": "cpu"}
    return NegativeMiner("bm25", **{**given, **settings})


@pytest.fixture
def plain(tmp_path: Path) -> Dataset:
    """What plain rows of the same texts are mined to."""
    rows = Dataset.from_dict({"query": QUERIES, "positive": POSITIVES})
    return miner_in(tmp_path / "plain", include_scores=True).mine(rows)


@pytest.mark.parametrize("name", TOOLS)
def test_rows_of_a_tool_are_mined_like_plain_rows(name: str, tmp_path: Path, plain: Dataset) -> None:
    rows = Dataset.from_list(rows_of(name))
    miner = miner_in(tmp_path).fit(rows)
    mined = miner.mine(rows)
    assert miner.summary.passages == len(FRUITS)  # the old negatives are not among them
    query, positive = miner.fitted.query_column, miner.fitted.positive_column
    assert mined[query] == QUERIES
    assert mined[positive] == POSITIVES
    for column in ("negative_1", "negative_2"):
        assert mined[column] == plain[column]
    assert not {"neg", "neg_scores", "negative_passages", "negative_ctxs", "rejected_response"} & set(mined.features)
    if name == "tevatron":
        assert mined["query_id"] == [f"q{place}" for place in range(len(FRUITS))]


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("own", [False, True], ids=["from plain rows", "from its own rows"])
def test_rows_are_written_for_a_tool(name: str, own: bool, tmp_path: Path, plain: Dataset) -> None:
    rows = Dataset.from_list(rows_of(name)) if own else Dataset.from_dict({"query": QUERIES, "positive": POSITIVES})
    mined = miner_in(tmp_path, format=name).mine(rows)
    found = format_of(mined.features.arrow_schema)
    assert found.name == name
    read = found.read(mined.with_format("arrow")[:])
    assert read.queries.to_pylist() == QUERIES
    assert read.positives.to_pylist() == POSITIVES
    expected = [text for row in plain for text in (row["negative_1"], row["negative_2"])]
    assert read.negatives.to_pylist() == expected
    assert read.negative_offsets.tolist() == list(range(0, 13, 2))
    if own:  # everything else is as it was
        gone = {column for column in found.of_negatives if column in mined.column_names}
        assert mined.remove_columns(list(gone)).to_list() == [
            {key: value for key, value in row.items() if key not in gone} for row in rows.to_list()
        ]


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("own", [False, True], ids=["from plain rows", "from its own rows"])
@pytest.mark.parametrize("on_exhausted", ["drop", "keep"])
def test_map_gives_what_mine_gives(name: str, own: bool, on_exhausted: str, tmp_path: Path) -> None:
    rows = Dataset.from_list(rows_of(name)) if own else Dataset.from_dict({"query": QUERIES, "positive": POSITIVES})
    settings: dict[str, Any] = {"method": "perc_pos:0.2", "num_negatives": 3, "on_exhausted": on_exhausted}
    miner = miner_in(tmp_path, format=name, **settings).fit(rows)
    mined = miner.mine(rows)
    for batch_size in (1, 4, 1000):
        result = rows.map(miner, batched=True, batch_size=batch_size, load_from_cache_file=False)
        assert result.features == mined.features == miner.features(rows)
        assert result.to_list() == mined.to_list()
    stream = IterableDataset.from_generator(lambda: iter(rows.to_list()))
    assert miner.mine(stream).to_list() == mined.to_list()
    gone = [column for column in rows.column_names if column not in mined.column_names]
    mapped = stream.map(miner, batched=True, batch_size=4, features=miner.features(rows), remove_columns=gone)
    assert list(mapped) == mined.to_list()
    if on_exhausted == "keep":
        single = rows.map(miner, load_from_cache_file=False, features=miner.features(rows), remove_columns=gone)
        assert single.to_list() == mined.to_list()


def test_scores_have_a_place_in_flagembeddings_rows(tmp_path: Path, plain: Dataset) -> None:
    for rows in (Dataset.from_list(rows_of("flagembedding")), plain.select_columns(["query", "positive"])):
        mined = miner_in(tmp_path, format="flagembedding", include_scores=True).mine(rows)
        assert [[*row["pos_scores"], *row["neg_scores"]] for row in mined] == plain["scores"]
    with pytest.raises(InputError, match="'tevatron' have no place for scores"):
        miner_in(tmp_path, format="tevatron", include_scores=True)


def test_several_positives_share_a_row_or_have_one_each(tmp_path: Path) -> None:
    texts = ["an apple to eat", "a fig to eat", "the sea is south", "the north sea"]
    a, b, c, d = (titled(name, text) for name, text in zip("abcd", texts, strict=True))
    rows = Dataset.from_list(
        [
            {"query_id": "1", "query": "what to eat", "positive_passages": [a, b]},
            {"query_id": "2", "query": "where is the sea", "positive_passages": [c, d]},
        ]
    )
    shared = miner_in(tmp_path, format="tevatron", num_negatives=1).mine(rows)
    assert [[one["docid"] for one in row["positive_passages"]] for row in shared] == [["a", "b"], ["c", "d"]]
    each = miner_in(tmp_path, format="tevatron", num_negatives=1, positive_score="each").mine(rows)
    assert [[one["docid"] for one in row["positive_passages"]] for row in each] == [["a"], ["b"], ["c"], ["d"]]
    chats = miner_in(tmp_path, format="swift", num_negatives=1).mine(rows)
    assert [row["positive_messages"][0][0]["content"] for row in chats] == texts


@pytest.mark.parametrize("name", ["labeled-pair", "labeled-list"])
def test_rows_with_labels_are_mined_by_name(name: str, tmp_path: Path, plain: Dataset) -> None:
    pairs = list(zip(QUERIES, POSITIVES, OLD, strict=True))
    if name == "labeled-list":
        rows = [{"query": query, "passages": [old, positive], "labels": [0, 1]} for query, positive, old in pairs]
    else:
        rows = [
            {"query": query, "passages": text, "label": label}
            for query, positive, old in pairs
            for text, label in ((old, 0), (positive, 1))
        ]
    names = {"query_column": "query", "positive_column": "passages"}
    with pytest.raises(InputError, match="not relevant"):
        miner_in(tmp_path, **names).mine(rows)
    mined = miner_in(tmp_path, rows_format=name).mine(rows)
    assert mined["passages"] == POSITIVES
    assert mined["negative_1"] == plain["negative_1"]
    assert mined.column_names == ["query", "passages", "negative_1", "negative_2"]


def test_rows_with_negatives_are_mined_again(tmp_path: Path, plain: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    rows = Dataset.from_dict({"anchor": QUERIES, "positive": POSITIVES, "negative": OLD, "id": range(len(OLD))})
    mined = miner_in(tmp_path).mine(rows)
    assert "rename_column('negative', 'earlier_negative')" in caplog.text
    assert mined.column_names == ["anchor", "positive", "id", "negative_1", "negative_2"]
    assert mined["negative_1"] == plain["negative_1"]
    kept = rows.rename_column("negative", "earlier_negative")
    mined = miner_in(tmp_path, query_column="anchor", positive_column="positive").mine(kept)
    assert mined["earlier_negative"] == OLD


@pytest.mark.parametrize(
    ("rows", "settings", "facts"),
    [
        (rows_of("dpr"), {"rows_format": "tevatron"}, ["'tevatron'", "positive_passages", "positive_ctxs"]),
        (rows_of("tevatron"), {"rows_format": "nothing"}, ["rows_format", "'nothing'", "flagembedding"]),
        ([{**row, "neg_scores": [1.0]} for row in rows_of("flagembedding")], {"format": "flagembedding"},
         ["'neg_scores'", "1 value(s)", "row 0", "2 in 'neg'"]),
        ([{"query": "a", "positive_passages": []}, {"query": "b", "positive_passages": [titled("1", "x y")]}], {},
         ["'positive_passages'", "without a positive", "row 0"]),
        ([{"query": "a", "positive_passages": [{"docid": "1", "text": " "}]}], {},
         ["'positive_passages'", "1 empty passage", "'docid': '1'"]),
    ],
)  # fmt: skip
def test_wrong_rows_are_refused(rows: Any, settings: dict[str, Any], facts: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        miner_in(tmp_path, num_negatives=1, **settings).mine(rows)
    assert all(fact in str(caught.value) for fact in facts), str(caught.value)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ("query pos neg", "flagembedding"),
        ("query positive neg", "n-tuple"),
        ("question passage label", "labeled-pair"),
        ("anchor positive negative_2 negative_1 other", "n-tuple"),
        ("query response rejected_response", "swift-flat"),
        ("one two", None),
        ("query positive other", None),
        ("query positive negative label", "n-tuple or labeled-pair"),
        ("query pos neg pos_doc", "flagembedding or automodel"),
    ],
)
def test_a_format_is_recognized_or_the_error_names_the_columns(columns: str, name: str | None) -> None:
    kinds = {"label": pa.int64(), "neg": pa.list_(pa.string())}
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in columns.split()])
    if name in FORMATS:
        assert format_of(schema).name == name
        return
    with pytest.raises(InputError) as caught:
        format_of(schema)
    assert all(f"{column} (" in str(caught.value) for column in columns.split())
    assert (name or "flagembedding: query, pos, and neg") in str(caught.value)


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path))
    page = (Path(__file__).parents[2] / "docs" / "interchange.md").read_text(encoding="utf-8")
    section = page.split("## Row formats")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {"NegativeMiner": NegativeMiner}
    exec(block, found)
    last, _, said = block.strip().splitlines()[-1].partition("#")
    assert repr(eval(last, found)) == said.strip()
    table = section.split("Who reads")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == list(FORMATS)


# ---- files that hold ids ------------------------------------------------------------------------------------------


def llama_index(folder: Path, **changes: Any) -> Path:
    content = {
        "queries": {f"q{place}": text for place, text in enumerate(QUERIES)},
        "corpus": {f"n{place}": text for place, text in enumerate([*POSITIVES, *OLD])},
        "relevant_docs": {f"q{place}": [f"n{place}"] for place in range(len(QUERIES))},
        "mode": "text",
        **changes,
    }
    path = folder / "qa.json"
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")
    return path


def test_llama_indexs_pairs_are_mined_in_their_corpus(tmp_path: Path) -> None:
    miner = miner_in(tmp_path)
    mined = miner.mine(llama_index(tmp_path))
    assert miner.summary.passages == 2 * len(FRUITS)
    assert mined["query_id"] == [f"q{place}" for place in range(len(FRUITS))]
    assert mined["positive"] == POSITIVES
    with pytest.raises(InputError, match=r"corpus has None under the id 'n99', expected a text"):
        miner_in(tmp_path).mine(llama_index(tmp_path, relevant_docs={"q0": ["n99"]}))


@pytest.mark.parametrize("indent", [None, 2])
def test_automodels_rows_with_ids_are_mined_in_their_corpus(tmp_path: Path, indent: int | None) -> None:
    corpus = tmp_path / "wiki"
    corpus.mkdir()
    texts = [{"id": f"d{place}", "text": text} for place, text in enumerate([*POSITIVES, *OLD])]
    Dataset.from_list(texts).to_parquet(corpus / "train.parquet")
    (corpus / "merlin_metadata.json").write_text('{"class": "TextQADataset", "corpus_id": "wiki"}')
    rows = [
        {"question_id": f"q{place}", "question": query, "corpus_id": "wiki", "pos_doc": [{"id": f"d{place}"}],
         "neg_doc": [f"d{place + 6}"], **({"note": "last"} if query == QUERIES[-1] else {})}
        for place, query in enumerate(QUERIES)
    ]  # fmt: skip
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"corpus": [{"path": "wiki"}], "data": rows}, indent=indent))
    miner = miner_in(tmp_path)
    mined = miner.mine(path)
    assert miner.summary.passages == 2 * len(FRUITS)
    assert mined["positive"] == POSITIVES
    assert mined["positive_ids"] == [[f"d{place}"] for place in range(len(FRUITS))]
    assert mined["note"] == [None] * (len(FRUITS) - 1) + ["last"]
    path.write_text(json.dumps({"corpus": {"path": "elsewhere"}, "data": rows}))
    with pytest.raises(InputError, match=r"elsewhere lacks merlin_metadata.json"):
        miner_in(tmp_path).mine(path)


def test_automodels_files_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    texts = {"one": [("d1", "a text")], "two": [("d1", "a text"), ("d1", "another")]}
    for folder, passages in texts.items():
        (tmp_path / folder).mkdir()
        table = Dataset.from_list([{"id": name, "text": text} for name, text in passages])
        table.to_parquet(tmp_path / folder / "train.parquet")
        (tmp_path / folder / "merlin_metadata.json").write_text('{"corpus_id": "wiki"}')
    row = {"question": "a", "corpus_id": "wiki", "pos_doc": ["d1"]}
    path = tmp_path / "train.json"
    for corpora, data, fact in (
        (["one", "one"], [row], "two folders of passages are named 'wiki'"),
        (["two"], [row], "two: the id 'd1' has two texts, 'a text' and 'another'"),
        (["one"], {"a": 1}, "data is {'a': 1}, expected a list of objects"),
        (["one"], ["row"], "data is ['row'], expected a list of objects"),
    ):
        path.write_text(json.dumps({"corpus": [{"path": name} for name in corpora], "data": data}))
        with pytest.raises(InputError, match=re.escape(fact)):
            miner_in(tmp_path).mine(path)
    (tmp_path / "one" / "merlin_metadata.json").write_text("{}")
    path.write_text(json.dumps({"corpus": {"path": "one"}, "data": [row]}))
    with pytest.raises(InputError, match="does not name a corpus_id"):
        miner_in(tmp_path).mine(path)
