"""Files as users have them: without a header, with stray quotes, compressed, at an address; and configs of the Hub."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError, NegmineError
from hf_negmine.commands.cli import app
from hf_negmine.commands.output import open_mined
from hf_negmine.data.sources import open_corpus, open_rows
from hf_negmine.train.data import TrainingData
from tests.remedies import suggested

PAIRS = [("what do solar panels do?", "They convert sunlight."), ("who was Ada?", "A mathematician."), ("NA", "None")]
PASSAGES = [positive for _, positive in PAIRS]
ROWS = [{"query": query, "answer": positive} for query, positive in PAIRS]


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are converted under the cache of `datasets`; each test has its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", tmp_path / "datasets-cache" / "downloads")
    monkeypatch.setattr("datasets.config.EXTRACTED_DATASETS_PATH", tmp_path / "datasets-cache" / "extracted")


def write(path: Path, content: str, encoding: str = "utf-8") -> str:
    path.write_bytes(content.encode(encoding))
    return str(path)


def lines(rows: list[tuple[str, ...]], separator: str = "\t", end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in rows)


def rows_of(path: Any, **options: Any) -> list[dict[str, Any]]:
    return list(open_rows(path, **options).rows)


def corpus_of(path: Any, **options: Any) -> list[str]:
    return [text for batch in open_corpus(path, **options) for text in batch.to_pylist()]


def miner_in(folder: Path, **settings: Any) -> NegativeMiner:
    return NegativeMiner("random", method="naive", num_negatives=2, cache_dir=folder, progress=False, **settings)


# ---- the first line ----------------------------------------------------------------------------------------------


def test_pairs_without_a_header_are_refused_and_the_remedy_reads_all_of_them(tmp_path: Path) -> None:
    for name, separator in (("rows.tsv", "\t"), ("rows.csv", ",")):
        path = write(tmp_path / name, lines(PAIRS, separator))
        with pytest.raises(InputError, match=r"the first line, \['what do solar panels do\?', .*may be data") as caught:
            open_rows(path)
        message = str(caught.value)
        assert path in message
        assert "query_column and positive_column" in message
        assert "put a line with names on top" in message
        read = suggested(message)
        assert read.column_names == ["query", "positive"]
        assert read["query"][:2] == [query for query, _ in PAIRS[:2]]
        assert len(read) == 3


HEADERS: dict[str, tuple[str, bool]] = {
    "known names": ("query\tanswer\nx y\tz\n", True),
    "one known name": ("left\tpassage_text\na\tb\n", True),
    "names in words": ("Question Text\tCorrect Answer\na b\tc d\n", False),
    "an index without a name": ("\tquestion\tanswer\n0\ta b\tc\n", True),
    "unlike the other lines": ("left\tright\na b\tc d\ne f\tg h\ni j\tk l\n", True),
    "numbers below": ("left\tyear\na\t1\nb\t2\nc\t3\n", True),
    "a pair of words": ("paris\tfrance\nrome\titaly\nberlin\tgermany\noslo\tnorway\n", False),
    "too few lines to tell": ("paris\tfrance\nnew york\tunited states\n", False),
    "a sentence": ("query\tThis is a passage, and no name.\na\tb\n", False),
    "numbers": ("17\t23\n1\t2\n", False),
    "a number among names": ("query\t23\n1\t2\n", False),
    "one line": ("who was Ada?\ta mathematician\n", False),
}


@pytest.mark.parametrize(("content", "is_header"), HEADERS.values(), ids=HEADERS)
def test_a_first_line_is_a_header_only_where_that_is_sure(tmp_path: Path, content: str, is_header: bool) -> None:
    path = write(tmp_path / "rows.tsv", content)
    if is_header:
        assert len(rows_of(path)) == content.count("\n") - 1
        return
    with pytest.raises(InputError, match=r"the first line, .* may be data rather than column names"):
        open_rows(path)


def test_naming_a_column_says_that_the_first_line_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.tsv", "paris\tfrance\nrome\titaly\noslo\tnorway\nbern\tswitzerland\n")
    assert len(rows_of(path, named=("paris", None))) == 3
    assert len(miner_in(tmp_path, query_column="paris", positive_column="france").mine(path)) == 3
    corpus = write(tmp_path / "corpus.csv", "paris\nrome\n")
    assert corpus_of(corpus, column="paris") == ["rome"]


CORPORA: dict[str, tuple[str, str, list[str]]] = {
    "lines of text": ("corpus.txt", "one\n\ntwo three\r\n  \nfour", ["one", "two three", "four"]),
    "numbers and texts": ("collection.tsv", lines([(str(i), text) for i, text in enumerate(PASSAGES)]), PASSAGES),
    "numbers after a mark": ("collection.tsv", "\ufeff0\tone passage\r\n1\ttwo\r\n", ["one passage", "two"]),
    "one number": ("collection.tsv", "0\tthe only passage\n", ["the only passage"]),
    "one column of texts": ("corpus.tsv", "This is a passage.\nand another\n", ["This is a passage.", "and another"]),
    "a header": ("corpus.csv", "id,text\n1,one\n2,two\n", ["one", "two"]),
    "literal quotes": (
        "collection.tsv",
        '0\t"Hello there\n1\tsay "what"\n2\t"all of it"\n3\tthe "x\n',
        ['"Hello there', 'say "what"', '"all of it"', 'the "x'],
    ),
    "quotes around texts": ("corpus.tsv", 'id\ttext\n1\t"a\tb ""c"""\n2\t"two\nlines"\n', ['a\tb "c"', "two\nlines"]),
    "texts that read like nothing": ("corpus.csv", "id,text\n1,NA\n2,null\n3,None\n", ["NA", "null", "None"]),
    "a name that is a pattern": ("corpus[1]*.csv", "id,text\n1,one\n2,two\n", ["one", "two"]),
    "a long text": ("corpus.csv", f'id,text\n1,"{"x, " * 100_000}"\n2,two\n', ["x, " * 100_000, "two"]),
}


@pytest.mark.parametrize(("name", "content", "expected"), CORPORA.values(), ids=CORPORA)
def test_no_passage_of_a_corpus_file_is_lost(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    assert corpus_of(write(tmp_path / name, content)) == expected


@pytest.mark.parametrize(
    ("content", "remedy"), [("D1\tfirst passage\nD2\tsecond one\n", 2), ("paris\nrome\n", 2)], ids=["names", "words"]
)
def test_a_corpus_whose_first_line_may_be_data_is_refused(tmp_path: Path, content: str, remedy: int) -> None:
    path = write(tmp_path / "corpus.tsv", content)
    with pytest.raises(InputError, match=r"may be data rather than column names; .*\(corpus_column\)") as caught:
        open_corpus(path)
    read = suggested(str(caught.value))
    assert len(corpus_of(read, column=read.column_names[-1])) == remedy


def test_judgements_may_have_a_mark_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps({"_id": f"d{i}", "text": text}) + "\n" for i, text in enumerate(PASSAGES)))
    write(tmp_path / "queries.jsonl", json.dumps({"_id": "q1", "text": "who?"}) + "\n")
    qrels = tmp_path / "qrels" / "train.tsv"
    write(qrels, "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n\r\n")
    assert [row["positive"] for row in rows_of(tmp_path)] == ["A mathematician."]
    for content, fact in (
        ("q1\td1\t1\n", r"have the columns \['q1', 'd1', '1'\], expected query-id"),
        ("q1 0 d1 1\n", r"expected three tab-separated columns in every line .* got \['q1 0 d1 1'\]"),
        ("", r"got an empty file"),
    ):
        write(qrels, content)
        with pytest.raises(InputError, match=fact):
            open_rows(tmp_path)
    write(qrels, "query-id\tcorpus-id\tscore\nq\xe9\td1\t1\n", "latin-1")
    with pytest.raises(InputError, match=r"train\.tsv is not UTF-8"):
        open_rows(tmp_path)
    (tmp_path / "qrels.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"qrels\.parquet could not be read as parquet"):
        open_rows(tmp_path)


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty CSV": ("rows.csv", b"", r"rows\.csv is empty$"),
    "empty JSONL": ("rows.jsonl", b"", r"rows\.jsonl is empty$"),
    "blank lines": ("rows.csv", b"\n\n", r"rows\.csv is empty$"),
    "a header alone": ("rows.csv", b"query,answer\n", r"rows\.csv has a line with names but no rows$"),
    "a name twice": ("rows.csv", b"query,text,text\na,b,c\n", r"names \['text'\] twice; rename one$"),
    "a field more": ("rows.csv", b"query,answer\na,b\nc,d,e\n", r"line 3 has 3 field\(s\) and the first one 2"),
    "a field less": ("rows.tsv", b"query\tanswer\na\tb\nc\n", r"line 3 has 1 field\(s\) and the first one 2"),
    "a field more everywhere": ("rows.csv", b"query,answer\na,b,c\nd,e,f\n", r"line 2 has 3 field\(s\)"),
    "a quote that is open": ("rows.csv", b'query,answer\na,"b\nc,d\n', r"after line \d, unexpected end of data"),
    "quotes that swallow": ("rows.csv", b'query,answer\na,"b\nc,d"e\n', r"after line 1, ',' expected after '\"'"),
    "UTF-16": ("rows.csv", "query,answer\na,b\n".encode("utf-16"), r"rows\.csv is not UTF-8"),
    "Latin 1": ("rows.tsv", "query\tanswer\né\tb\n".encode("latin-1"), r"rows\.tsv is not UTF-8 .* at byte 13"),
    "no gzip": ("rows.jsonl.gz", b"not compressed", r"rows\.jsonl\.gz could not be read as json: Not a gzipped file"),
    "half a gzip": (
        "rows.jsonl.gz",
        gzip.compress(bytes(range(256)) * 9)[:90],
        r"could not be read as json: Compressed file ended",
    ),
    "no JSON": ("rows.jsonl", b"query: a\n", r"rows\.jsonl could not be read as json: "),
    "lines as rows": ("rows.txt", b"a\nb\n", r"the ending '\.txt' is not among .*; lines of text can be a corpus"),
    "archives": ("rows.zip", b"PK", r"the ending '\.zip' is not among "),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_rows(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_rows_with_too_few_fields_far_down_are_not_read_as_blank(tmp_path: Path) -> None:
    content = "query\tanswer\n" + "a\tb\n" * 200 + "c\n"
    with pytest.raises(NegmineError, match=r"row 200|line 202"):
        miner_in(tmp_path).fit(write(tmp_path / "rows.tsv", content))


# ---- compressed, elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "opened"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv"])
def test_compressed_files_are_read(tmp_path: Path, name: str, ending: str, opened: Callable[..., Any]) -> None:
    separator = {"rows.csv": ",", "rows.tsv": "\t"}.get(name)
    content = "".join(json.dumps(row) + "\n" for row in ROWS)
    if separator is not None:
        content = lines([("query", "answer"), *PAIRS], separator)
    with opened(tmp_path / (name + ending), "wt") as file:
        file.write(content)
    assert rows_of(tmp_path / (name + ending)) == ROWS
    assert corpus_of(str(tmp_path / (name + ending)), column="answer") == PASSAGES


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv"])
def test_zstandard_is_read_where_it_is_installed(tmp_path: Path, name: str) -> None:
    zstandard = pytest.importorskip("zstandard")
    separator = {"rows.csv": ",", "rows.tsv": "\t"}.get(name)
    content = "".join(json.dumps(row) + "\n" for row in ROWS)
    if separator is not None:
        content = lines([("query", "answer"), *PAIRS], separator)
    path = tmp_path / f"{name}.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(content.encode()))
    assert rows_of(path) == ROWS
    assert corpus_of(str(path), column="answer") == PASSAGES
    assert NegativeMiner("random", num_negatives=1, cache_dir=tmp_path / "cache", progress=False).mine(path).num_rows


@pytest.mark.parametrize(("ending", "magic"), [(".zst", b"\x28\xb5\x2f\xfd"), (".lz4", b"\x04\x22\x4d\x18")])
def test_a_compression_that_needs_a_package_says_so(tmp_path: Path, ending: str, magic: bytes) -> None:
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(magic + bytes(20))
    with pytest.raises(InputError, match=rf"rows\.jsonl\{ending} (could not be read as json: |is empty)"):
        open_rows(path)


def test_a_file_address_is_a_path(tmp_path: Path) -> None:
    path = write(tmp_path / "the rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    assert rows_of("file://" + path) == rows_of("file://" + path.replace(" ", "%20")) == ROWS


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/rows.jsonl",
        "https://example.org/rows.csv.gz?download=true",
        "s3://bucket/rows.parquet",
        "gs://bucket/rows.parquet",
        "hf://datasets/someone/something/rows.parquet",
        "abc://what/rows.csv",
    ],
)
@pytest.mark.parametrize("open_it", [open_rows, open_corpus])
def test_an_address_that_cannot_be_opened_is_not_said_to_be_missing(address: str, open_it: Callable[..., Any]) -> None:
    with pytest.raises(InputError) as caught:
        open_it(address)
    message = str(caught.value)
    assert message.startswith(f"{address} could not be read as ")
    assert message.endswith("; or download the file and give its path")
    assert "does not exist" not in message
    assert "\n" not in message


@pytest.mark.parametrize("address", ["hf://datasets/someone/things", "https://huggingface.co/datasets/someone/things"])
def test_the_address_of_a_data_set_is_its_id(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = loading(monkeypatch, lambda *arguments, **named: Dataset.from_list(ROWS))
    assert rows_of(address) == ROWS
    assert asked == [(("someone/things", None), {"split": None})]


def test_an_address_that_the_libraries_open_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import fsspec

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/rows.tsv.gz", gzip.compress(lines([("query", "answer"), *PAIRS]).encode()))
    memory.pipe("/bucket/collection.tsv", lines([(str(i), text) for i, text in enumerate(PASSAGES)]).encode())
    assert rows_of("memory://bucket/rows.tsv.gz") == ROWS
    assert corpus_of("memory://bucket/collection.tsv") == PASSAGES


@pytest.mark.parametrize("path", ["a\0b", "a\0b.csv", "", "  ", b"rows.csv"], ids=repr)
def test_what_can_be_no_path_is_refused(path: Any) -> None:
    for open_it in (open_rows, open_corpus):
        with pytest.raises(InputError, match="expected ") as caught:
            open_it(path)
        assert "\0" not in str(caught.value)


def test_the_command_line_resolves_a_tilde_after_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = ["mine", "~/rows.jsonl", "-t", "random", "-m", "naive", "-n", "2", "-q", "--output=~/out"]
    result = CliRunner().invoke(app, [*arguments, "--cache-dir=~/cache"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "data.parquet").is_file()
    assert (tmp_path / "cache" / "fits").is_dir()


# ---- configs -----------------------------------------------------------------------------------------------------


def loading(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> list[Any]:
    """What `datasets.load_dataset` is asked for, with ``load`` in its place for names of the Hub."""
    asked: list[Any] = []
    real = datasets.load_dataset

    def loaded(*arguments: Any, **named: Any) -> Any:
        if "/" not in arguments[0]:
            return real(*arguments, **named)
        asked.append((arguments, named))
        return load(*arguments, **named)

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    return asked


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A data set of several configs, loaded from a folder by `datasets` itself."""
    folder = tmp_path / "several"
    folder.mkdir()
    Dataset.from_list(ROWS).to_parquet(folder / "pair.parquet")
    Dataset.from_dict({"text": PASSAGES}).to_parquet(folder / "passages.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in ("pair", "passages"))
    write(folder / "README.md", f"---\nconfigs:\n{configs}---\n")
    real = datasets.load_dataset
    return loading(monkeypatch, lambda name, *arguments, **named: real(str(folder), *arguments, **named))


def test_configs_are_offered_as_a_whole(several: list[Any]) -> None:
    with pytest.raises(
        InputError, match=r"^config_name: someone/things on the Hub has the configs \['pair', 'passages'\]; name one$"
    ):
        open_rows("someone/things")
    with pytest.raises(InputError, match=r"the configs \['pair', 'passages'\]; 'triplet' is not among them$"):
        open_rows("someone/things", config_name="triplet")
    with pytest.raises(InputError, match=r"has the configs \['pair', 'passages'\]; name one$"):
        open_corpus("someone/things")


def test_a_config_is_named_for_rows_and_for_the_corpus(several: list[Any], tmp_path: Path) -> None:
    miner = miner_in(tmp_path / "cache", corpus="someone/things", corpus_config_name="passages")
    mined = miner.mine("someone/things", config_name="pair")
    assert len(mined) == 3
    assert miner.corpus["document"] == PASSAGES
    assert len(miner_in(tmp_path / "cache").fit("someone/things", config_name="pair", split="train").queries) == 3
    assert len(open_mined("someone/things", config_name="pair").rows) == 3
    trained = TrainingData.to_be_mined("someone/things", miner_in(tmp_path / "cache"), config_name="pair")
    assert len(trained.rows) == 3


def test_the_command_line_names_configs(several: list[Any], tmp_path: Path) -> None:
    arguments = ["mine", "someone/things", "-t", "random", "-m", "naive", "-n", "2", "-q", "-o", str(tmp_path / "out")]
    arguments += ["--cache-dir", str(tmp_path / "cache")]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 1
    assert "['pair', 'passages']; name one" in " ".join(refused.output.split())
    given = [*arguments, "--config", "pair", "--corpus", "someone/things", "--corpus-config", "passages"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output


def test_long_lists_of_configs_are_cut_at_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"config-{number}" for number in range(200)]

    def load(*arguments: Any, **named: Any) -> Any:
        raise ValueError(f"Config name is missing.\nPlease pick one among the available configs: {names}\nExample")

    loading(monkeypatch, load)
    with pytest.raises(InputError, match=r"'config-29'\] and 170 more; name one$"):
        open_rows("someone/things")


@pytest.mark.parametrize("source", [ROWS, Dataset.from_list(ROWS), "file"], ids=["list", "data set", "file"])
def test_a_config_of_what_has_none_is_an_error(tmp_path: Path, source: Any) -> None:
    if source == "file":
        source = write(tmp_path / "rows.jsonl", json.dumps(ROWS[0]))
    for open_it, name in ((open_rows, "config_name"), (open_corpus, "corpus_config_name")):
        with pytest.raises(InputError, match=rf"^{name}: 'pair', but .* has no configs; leave it out$"):
            open_it(source, config_name="pair")


# ---- repeated pairs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["n-tuple", "triplet", "labeled-pair", "labeled-list", "ids"])
def test_rows_that_repeat_a_pair_come_out_as_often_and_that_is_said(tmp_path: Path, format: Any) -> None:
    rows = Dataset.from_list(ROWS * 3)
    miner = miner_in(tmp_path, format=format)
    mined = miner.mine(rows)
    once = miner_in(tmp_path, format=format).mine(ROWS)
    assert len(mined) == 3 * len(once)
    drops = ["query", "answer"] if format == "ids" else None
    assert rows.map(miner, batched=True, batch_size=2, remove_columns=drops).to_list() == mined.to_list()
    said = "6 rows with the query and positive of another row, written as often"
    assert said in str(miner.summary)
    assert not re.search("repeat", str(miner_in(tmp_path).fit(ROWS).summary))


def test_a_byte_order_mark_is_no_part_of_the_first_passage(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("tea is hot\nice is cold\n", encoding="utf-8-sig")
    passages = [text for batch in open_corpus(str(tmp_path / "corpus.txt")) for text in batch.to_pylist()]
    assert passages == ["tea is hot", "ice is cold"]


# ---- texts that look like numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", "\t"])
def test_texts_that_look_like_numbers_stay_as_they_are(
    separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_negmine.data.sources.files.ROWS_A_PART", 4)
    rows = [("query", "positive", "id", "grade"), *((f"q{place}", f"p{place}", "007", "2") for place in range(10_000))]
    numbers = [("1.10", "0050", "010", "3")] * 3  # a part of the file by themselves
    ending = ".csv" if separator == "," else ".tsv"
    path = write(tmp_path / f"rows{ending}", lines([*rows, *numbers], separator))
    found = open_rows(path).rows
    assert found[-1:] == {"query": ["1.10"], "positive": ["0050"], "id": ["010"], "grade": [3]}
    assert found[:1] == {"query": ["q0"], "positive": ["p0"], "id": ["007"], "grade": [2]}
    folder = tmp_path / "several"
    folder.mkdir()
    write(folder / f"a{ending}", lines(rows[:5], separator))
    write(folder / f"b{ending}", lines([rows[0], *numbers], separator))
    assert rows_of(str(folder))[-1] == {"query": "1.10", "positive": "0050", "id": "010", "grade": 3}


@pytest.mark.parametrize("late", ["007", "+7", "-0", "-07"])
@pytest.mark.parametrize("in_another_file", [False, True])
def test_a_number_that_would_be_written_otherwise_is_a_text_wherever_it_stands(
    late: str, in_another_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_negmine.data.sources.files.ROWS_A_PART", 4)
    names = ("query", "positive", "id", "grade")
    rows = [(f"q{place}", f"p{place}", str(place), "-2") for place in range(9)]
    last = ("q9", "p9", late, "3")
    if in_another_file:
        write(tmp_path / "a.csv", lines([names, *rows], ","))
        write(tmp_path / "b.csv", lines([names, last], ","))
    else:
        write(tmp_path / "a.csv", lines([names, *rows, last], ","))
    found = rows_of(str(tmp_path))
    assert [row["id"] for row in found] == [*map(str, range(9)), late]
    assert [row["grade"] for row in found] == [-2] * 9 + [3]  # written as they are printed, so numbers
