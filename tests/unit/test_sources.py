"""What users have, opened: every kind of rows, corpora and BEIR folders."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError, NegmineError
from hf_negmine.data.sources import OpenedRows, choose_columns, open_corpus, open_rows, pair_batches

ROWS = [
    {"query": "who?", "positive": "Ada Lovelace\twas a mathematician"},
    {"query": "où ?", "positive": 'a "quoted" café, in Paris'},
]
SPOKEN = [{"query": row["query"], "positive": row["positive"].replace("\t", " ")} for row in ROWS]


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are converted under the cache of `datasets`; each test has its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def texts_of(opened: OpenedRows) -> list[dict[str, Any]]:
    return [
        {"query": query, "positive": positive}
        for queries, positives in pair_batches(opened.rows, "query", "positive")
        for query, positive in zip(queries.to_pylist(), positives.to_pylist(), strict=True)
    ]


def corpus_of(source: Any, **options: Any) -> list[str]:
    return [text for batch in open_corpus(source, **options) for text in batch.to_pylist()]


# ---- rows --------------------------------------------------------------------------------------------------------


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def write_jsonl(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def write_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    Dataset.from_list(rows).to_csv(folder / "rows.csv")
    return folder / "rows.csv"


def write_tsv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    Dataset.from_list(rows).to_csv(folder / "rows.tsv", sep="\t")
    return folder / "rows.tsv"


def save_to_disk(folder: Path, rows: list[dict[str, Any]]) -> Path:
    Dataset.from_list(rows).save_to_disk(folder / "saved")
    return folder / "saved"


def stream(rows: list[dict[str, Any]]) -> IterableDataset:
    return IterableDataset.from_generator(lambda: iter(rows))


KINDS: dict[str, Callable[[Path], Any]] = {
    "dataset": lambda folder: Dataset.from_list(ROWS),
    "stream": lambda folder: stream(ROWS),
    "list": lambda folder: ROWS,
    "tuple": lambda folder: tuple(ROWS),
    "table": lambda folder: pa.Table.from_pylist(ROWS),
    "dict of one split": lambda folder: DatasetDict(anything=Dataset.from_list(ROWS)),
    "dict with train": lambda folder: DatasetDict(test=Dataset.from_list(ROWS[:1]), train=Dataset.from_list(ROWS)),
    "dict of streams": lambda folder: IterableDatasetDict(test=stream(ROWS[:1]), train=stream(ROWS)),
    "parquet": lambda folder: write_parquet(folder, ROWS),
    "jsonl": lambda folder: write_jsonl(folder, ROWS),
    "csv": lambda folder: write_csv(folder, ROWS),
    "tsv": lambda folder: write_tsv(folder, ROWS),
    "path as text": lambda folder: str(write_parquet(folder, ROWS)),
    "saved": lambda folder: save_to_disk(folder, ROWS),
}


# datasets before 5.2 leaves the file that it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_of_rows_reads_the_same(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    assert texts_of(open_rows(make(tmp_path))) == ROWS


def test_a_saved_dict_of_splits_is_chosen_from(tmp_path: Path) -> None:
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1])).save_to_disk(tmp_path / "saved")
    assert texts_of(open_rows(tmp_path / "saved", split="test")) == ROWS[:1]


@pytest.mark.parametrize("kind", ["list", "table", "data set", "stream", "file", "saved data set"])
def test_a_split_of_rows_that_have_none_is_an_error(tmp_path: Path, kind: str) -> None:
    rows = Dataset.from_list(ROWS)
    rows.to_json(tmp_path / "rows.jsonl")
    rows.save_to_disk(str(tmp_path / "saved"))
    table = rows.with_format("arrow")[:]
    given: dict[str, tuple[Any, str]] = {
        "list": (ROWS, "the list"), "table": (table, "the Table"), "data set": (rows, "the Dataset"),
        "stream": (rows.to_iterable_dataset(), "the IterableDataset"),
        "file": (tmp_path / "rows.jsonl", str(tmp_path / "rows.jsonl")),
        "saved data set": (tmp_path / "saved", str(tmp_path / "saved")),
    }  # fmt: skip
    source, where = given[kind]
    with pytest.raises(InputError, match=rf"^split: 'dev', but {re.escape(where)} has no splits; leave it out$"):
        open_rows(source, split="dev")
    assert open_rows(source).rows is not None


def test_a_split_that_is_not_there_or_not_clear_is_an_error() -> None:
    splits = DatasetDict(dev=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS))
    with pytest.raises(InputError, match=r"^split: 'train' is not among \['dev', 'test'\] in the DatasetDict$"):
        open_rows(splits, split="train")
    with pytest.raises(InputError, match=r"^split: the DatasetDict has \['dev', 'test'\]; name one$"):
        open_rows(splits)


@pytest.mark.parametrize("source", [["a", "b"], [1, 2], [ROWS[0], "b"], {"query": ["a"]}, 7, b"rows"], ids=repr)
def test_what_is_no_rows_is_an_error(source: Any) -> None:
    with pytest.raises(InputError, match=r"^rows: expected .*, got "):
        open_rows(source)


def test_rows_of_mixed_types_are_an_error() -> None:
    with pytest.raises(InputError, match=r"^rows: .*expected the same type in every row"):
        open_rows([{"query": "a", "positive": "b"}, {"query": 2, "positive": "d"}])


def test_paths_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^.*missing\.parquet does not exist$"):
        open_rows(tmp_path / "missing.parquet")
    with pytest.raises(InputError, match=r"^missing\.csv does not exist$"):
        open_rows("missing.csv")
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(InputError, match=r"rows\.xlsx: the ending '\.xlsx' is not among \['\.csv', '\.json', .*'\]$"):
        open_rows(tmp_path / "rows.xlsx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no data files: none ends in \['\.csv', .*\]; .*BEIR.*$"):
        open_rows(tmp_path / "empty")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match=r"rows\.parquet could not be read as parquet: ") as caught:
        open_rows(tmp_path / "rows.parquet")
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_loaded_offline_is_one_clear_sentence() -> None:
    with pytest.raises(InputError) as caught:
        open_rows("somebody/no-such-data")
    message = str(caught.value)
    assert message.startswith(
        "'somebody/no-such-data' is not a file or folder here, and could not be loaded from the Hub: "
    )
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 300


def test_the_columns_are_found_or_asked_for() -> None:
    two, three = Dataset.from_list(ROWS), Dataset.from_list([{**row, "id": 1} for row in ROWS])
    assert choose_columns(two, None, None) == ("query", "positive")
    assert choose_columns(two, "positive", None) == ("positive", "query")
    assert choose_columns(stream(ROWS), None, None) == ("query", "positive")
    assert choose_columns(three, "query", "id") == ("query", "id")
    for rows, named in ((three, (None, None)), (three, ("query", None))):
        with pytest.raises(InputError, match=r"name them, the data set has the columns \['query', 'positive', 'id'\]"):
            choose_columns(rows, *named)
    with pytest.raises(InputError, match=r"^query_column: column 'querry' is not among \['query', 'positive'\]$"):
        choose_columns(two, "querry", "positive")
    with pytest.raises(InputError, match=r"^query_column and positive_column are both 'query'$"):
        choose_columns(two, "query", "query")


# ---- corpora -----------------------------------------------------------------------------------------------------

PASSAGES = ["one", "two", "trois"]

CORPORA: dict[str, Callable[[Path], Any]] = {
    "list": lambda folder: PASSAGES,
    "tuple": lambda folder: tuple(PASSAGES),
    "array": lambda folder: pa.array(PASSAGES),
    "chunked array": lambda folder: pa.chunked_array([PASSAGES[:2], PASSAGES[2:]]),
    "column": lambda folder: Dataset.from_dict({"text": PASSAGES})["text"],
    "dataset": lambda folder: Dataset.from_dict({"passage": PASSAGES, "id": [1, 2, 3]}),
    "dataset with title": lambda folder: Dataset.from_dict({"title": ["a", "b", "c"], "text": PASSAGES}),
    "dict of one split": lambda folder: DatasetDict(corpus=Dataset.from_dict({"text": PASSAGES})),
    "file": lambda folder: write_parquet(folder, [{"text": text} for text in PASSAGES]),
    "beir": lambda folder: write_beir(folder, corpus=[{"_id": text, "text": text} for text in PASSAGES]),
}


@pytest.mark.parametrize("make", CORPORA.values(), ids=CORPORA)
def test_every_kind_of_corpus_reads_the_same(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    assert corpus_of(make(tmp_path)) == PASSAGES


def test_the_corpus_column_is_taken_or_asked_for() -> None:
    corpus = Dataset.from_dict({"left": PASSAGES, "right": PASSAGES[::-1]})
    assert corpus_of(corpus, column="right") == PASSAGES[::-1]
    with pytest.raises(InputError, match=r"^corpus_column: name the column .*, the corpus has \['left', 'right'\]$"):
        corpus_of(corpus)
    with pytest.raises(InputError, match=r"^corpus_column: column 'middle' is not among \['left', 'right'\]$"):
        corpus_of(corpus, column="middle")


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (["a", None], r"^corpus: passage 1 is None, expected text$"),
        ([1, 2], r"^corpus: passage 0 is 1, expected text$"),
        ({"a": "text"}, r"^corpus: expected .*, got "),
        (7, r"^corpus: expected .*, got "),
        ("x" * 5000, r"^'x+.*' is not a file or folder here"),
    ],
    ids=["none", "number", "dict", "int", "long text"],
)
def test_what_is_no_corpus_is_an_error(corpus: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        corpus_of(corpus)


def test_several_splits_are_no_corpus() -> None:
    splits = DatasetDict(one=Dataset.from_dict({"text": PASSAGES}), two=Dataset.from_dict({"text": PASSAGES}))
    with pytest.raises(InputError, match=r"\['one', 'two'\]"):
        corpus_of(splits)


def test_a_stream_is_a_corpus() -> None:
    assert corpus_of(stream([{"text": text} for text in PASSAGES])) == PASSAGES


# ---- BEIR --------------------------------------------------------------------------------------------------------

BEIR_CORPUS = [
    {"_id": "d1", "title": "Ada", "text": "wrote a program"},
    {"_id": "d2", "title": "", "text": "untitled"},
    {"_id": "d3", "title": "Grace", "text": "wrote a compiler"},
    {"_id": "d4", "title": "Never", "text": "judged"},
]
BEIR_QUERIES = [{"_id": "q1", "text": "who wrote?"}, {"_id": "q2", "text": "what has no title?"}]
QRELS = [("q1", "d1", 1), ("q1", "d3", 2), ("q2", "d2", 1), ("q2", "d4", 0)]
BEIR_ROWS = [
    {"query": "who wrote?", "positive": "Ada wrote a program", "query-id": "q1", "corpus-id": "d1"},
    {"query": "who wrote?", "positive": "Grace wrote a compiler", "query-id": "q1", "corpus-id": "d3"},
    {"query": "what has no title?", "positive": "untitled", "query-id": "q2", "corpus-id": "d2"},
]

Qrels = list[tuple[str, str, int]]


def write_beir(
    folder: Path,
    *,
    corpus: list[dict[str, Any]] = BEIR_CORPUS,
    queries: list[dict[str, Any]] = BEIR_QUERIES,
    qrels: dict[str, Qrels] | None = None,
) -> Path:
    """JSONL and TSV, as BEIR publishes it."""
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True)
    write_jsonl(beir, corpus, "corpus.jsonl")
    write_jsonl(beir, queries, "queries.jsonl")
    for split, judged in (qrels or {"train": QRELS}).items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, line)) for line in judged)]
        (beir / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return beir


def write_beir_parquet(
    folder: Path,
    *,
    corpus: list[dict[str, Any]] = BEIR_CORPUS,
    queries: list[dict[str, Any]] = BEIR_QUERIES,
    qrels: dict[str, Qrels] | None = None,
) -> Path:
    """Parquet files, with one of judgements for all splits."""
    beir = folder / "beir"
    beir.mkdir()
    for name, texts in (("corpus", corpus), ("queries", queries)):
        pq.write_table(
            pa.Table.from_pylist([{"id": row["_id"], **row} for row in texts]).drop_columns(["_id"]),
            beir / f"{name}.parquet",
        )
    judged = [
        {"query_id": query, "corpus_id": passage, "score": score, "split": split}
        for split, lines in (qrels or {"train": QRELS}).items()
        for query, passage, score in lines
    ]
    pq.write_table(pa.Table.from_pylist(judged), beir / "qrels.parquet")
    return beir


both_ways = pytest.mark.parametrize("write", [write_beir, write_beir_parquet], ids=["jsonl", "parquet"])


@both_ways
def test_a_beir_folder_gives_rows_and_a_corpus(tmp_path: Path, write: Callable[..., Path]) -> None:
    opened = open_rows(write(tmp_path))
    assert list(opened.rows) == BEIR_ROWS
    assert opened.corpus is not None
    expected = ["Ada wrote a program", "untitled", "Grace wrote a compiler", "Never judged"]
    assert opened.corpus.to_pylist() == expected


@both_ways
def test_a_beir_folder_is_mined_against_its_whole_corpus(tmp_path: Path, write: Callable[..., Path]) -> None:
    settings: dict[str, Any] = {"query_column": "query", "positive_column": "positive", "progress": False}
    miner = NegativeMiner("random", method="naive", num_negatives=2, cache_dir=tmp_path / "cache", **settings)
    mined = miner.mine(str(write(tmp_path)))
    assert [(row["query-id"], row["corpus-id"]) for row in mined] == [("q1", "d1"), ("q1", "d3"), ("q2", "d2")]
    for row in mined.select([0, 1]):  # all four passages but its two positives
        assert {row["negative_1"], row["negative_2"]} == {"untitled", "Never judged"}


@both_ways
def test_the_split_of_judgements_is_chosen(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(tmp_path, qrels={"dev": QRELS[2:], "test": QRELS[:2]})
    assert list(open_rows(folder, split="dev").rows) == BEIR_ROWS[2:]
    assert list(open_rows(folder, split="test").rows) == BEIR_ROWS[:2]
    with pytest.raises(InputError, match=r"^split: 'train' is not among \['dev', 'test'\] in .*qrels"):
        open_rows(folder, split="train")
    with pytest.raises(InputError, match=r"^split: .*qrels.* has \['dev', 'test'\]; name one$"):
        open_rows(folder)


@both_ways
@pytest.mark.parametrize("part", ["corpus", "queries"])
def test_an_id_that_stands_for_two_texts_is_an_error(tmp_path: Path, write: Callable[..., Path], part: str) -> None:
    texts = {"corpus": BEIR_CORPUS, "queries": BEIR_QUERIES}[part]
    other = {**texts[0], "text": "something else"}
    with pytest.raises(InputError, match=rf"{part}\.(jsonl|parquet): the id '{other['_id']}' has two texts, '.*'"):
        open_rows(write(tmp_path, **{part: [*texts, other]}))


@both_ways
def test_the_same_line_twice_is_no_error(tmp_path: Path, write: Callable[..., Path]) -> None:
    folder = write(tmp_path, corpus=[*BEIR_CORPUS, BEIR_CORPUS[0]], queries=[*BEIR_QUERIES, BEIR_QUERIES[0]])
    assert list(open_rows(folder).rows) == BEIR_ROWS


@both_ways
@pytest.mark.parametrize("part", ["corpus", "queries"])
def test_a_judged_id_without_a_text_is_named(tmp_path: Path, write: Callable[..., Path], part: str) -> None:
    line = ("q1", "d9", 1) if part == "corpus" else ("q9", "d1", 1)
    missing = "d9" if part == "corpus" else "q9"
    with pytest.raises(InputError, match=rf"{part} lacks 1 judged id\(s\), the first is '{missing}'$"):
        open_rows(write(tmp_path, qrels={"train": [*QRELS, line]}))


@both_ways
def test_judgements_without_a_positive_are_an_error(tmp_path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"has no judgement with a score over 0$"):
        open_rows(write(tmp_path, qrels={"train": [("q1", "d1", 0)]}))


def test_whole_numbers_are_ids_too(tmp_path: Path) -> None:
    corpus = [{"_id": number, "text": f"text {number}"} for number in (1, 2, 3)]
    folder = write_beir(
        tmp_path, corpus=corpus, queries=[{"_id": 7, "text": "seven?"}], qrels={"train": [("7", "2", 1)]}
    )
    (row,) = open_rows(folder).rows
    assert (row["query"], row["positive"]) == ("seven?", "text 2")


def broken_folders() -> Iterator[Any]:
    def without(name: str) -> Callable[[Path], None]:
        def spoil(beir: Path) -> None:
            for file in (beir / name).iterdir():
                file.unlink()
            (beir / name).rmdir()

        return spoil

    def rewrite(name: str, content: str) -> Callable[[Path], None]:
        def spoil(beir: Path) -> None:
            (beir / name).write_text(content)

        return spoil

    header = "query-id\tcorpus-id\tscore\n"
    yield pytest.param(
        without("qrels"), r"lacks qrels \(a folder with one TSV file per split, or qrels\.parquet\)$", id="none"
    )
    yield pytest.param(
        rewrite("qrels/train.tsv", "query-id\tcorpus-id\nq1\td1\n"), "expected three tab-separated columns", id="two"
    )
    yield pytest.param(
        rewrite("qrels/train.tsv", "q\tc\ts\nq1\td1\t1\n"),
        r"have the columns \['q', 'c', 's'\], expected query-id, corpus-id and score$",
        id="names",
    )
    yield pytest.param(
        rewrite("qrels/train.tsv", header + "q1\td1\tyes\n"), r"qrels .*score.*'yes'.*expected a number", id="score"
    )
    yield pytest.param(
        rewrite("qrels/train.tsv", header + "q1\td1\t1\nq1\td2\tnan\n"), "1 of 2 judgements have no score", id="NaN"
    )
    yield pytest.param(
        rewrite("corpus.jsonl", '{"_id": "d1", "body": "x"}\n'),
        r"corpus\.jsonl has the columns \['_id', 'body'\], expected _id \(or id\) and text$",
        id="text column",
    )
    yield pytest.param(
        rewrite("corpus.jsonl", '{"_id": "d1", "text": "2020-01-01"}\n'),
        r"corpus\.jsonl: column 'text' holds timestamp\[s\], expected text or whole numbers; .*as Parquet$",
        id="dates",
    )
    yield pytest.param(
        rewrite("corpus.jsonl", '{"_id": 12345678901234567890, "text": "a"}\n'),
        r"corpus\.jsonl: column '_id' holds double, expected text or whole numbers; ",
        id="long ids",
    )


@pytest.mark.parametrize(("spoil", "message"), list(broken_folders()))
def test_a_broken_beir_folder_is_an_error_that_says_what_is_expected(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = write_beir(tmp_path)
    spoil(folder)
    with pytest.raises(NegmineError, match=message) as caught:
        open_rows(folder)
    assert "\n" not in str(caught.value)
