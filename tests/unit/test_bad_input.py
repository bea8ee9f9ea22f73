"""What cannot be done is refused: by the right exception, in a sentence that says what was given and expected."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, IterableDataset
from datasets.arrow_writer import ArrowWriter

from hf_negmine import DenseTeacher, FixedTeacher, Judge, NegativeMiner, RankBand, Sampled, Top, TopKPercPos
from hf_negmine.base.checksums import publish_sealed
from hf_negmine.base.errors import (
    ColumnError,
    ExhaustedError,
    InputError,
    NegmineError,
    NotFittedError,
    StorageError,
    TeacherError,
)
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.protocols import Role
from hf_negmine.base.schema import FORMAT_VERSION, FloatArray
from hf_negmine.teachers import vector_store as store

ROWS = [{"query": f"query {i}", "positive": f"positive {i}"} for i in range(12)]
QUERIES, POSITIVES = [row["query"] for row in ROWS], [row["positive"] for row in ROWS]
VECTORS = np.random.default_rng(0).normal(size=(12, 4))


class HashTeacher:
    """A vector a text, drawn from its digest."""

    name = "hash"
    similarity: Any = "dot"

    def fingerprint(self, role: Role) -> str:
        return digest_of("hash", role)

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        seeds = text_digests(pa.array(texts))
        return np.stack([np.random.default_rng(seed).normal(size=6) for seed in seeds]).astype(np.float32)


class Euclidean(HashTeacher):
    similarity = "euclidean"


def miner_in(folder: Path, teacher: Any = None, **settings: Any) -> NegativeMiner:
    given: dict[str, Any] = {"method": "naive", "num_negatives": 2, "device": "cpu", "progress": False, **settings}
    return NegativeMiner(teacher or HashTeacher(), cache_dir=given.pop("cache_dir", folder), **given)


def fixed(**changed: Any) -> FixedTeacher:
    given: dict[str, Any] = {
        "query_texts": QUERIES,
        "query_vectors": VECTORS,
        "passage_texts": POSITIVES,
        "passage_vectors": VECTORS,
        **changed,
    }
    return FixedTeacher(**given)


def with_value(value: float) -> np.ndarray[Any, Any]:
    vectors: np.ndarray[Any, Any] = VECTORS.copy()
    vectors[3, 1] = value
    return vectors


@dataclass
class Case:
    """Something that cannot be done: a call with a folder, its exception, and what its message holds."""

    call: Callable[[Path], Any]
    facts: list[str]
    error: type[NegmineError] = InputError
    name: str = ""


def fit(rows: Any = ROWS, *, teacher: Any = None, corpus: Any = None, **settings: Any) -> Callable[[Path], Any]:
    return lambda folder: miner_in(folder, teacher, **settings).fit(rows, corpus=corpus)


def make(**settings: Any) -> Callable[[Path], Any]:
    return lambda folder: miner_in(folder, **settings)


def then_map(rows: list[dict[str, Any]], arrow: bool = False, **options: Any) -> Callable[[Path], Any]:
    def call(folder: Path) -> Any:
        given = Dataset.from_list(rows)
        return (given.with_format("arrow") if arrow else given).map(miner_in(folder).fit(ROWS), **options)

    return call


def silent(queries: Sequence[str], passages: Sequence[str]) -> Any:
    return None


BY_NAME: dict[str, Any] = {"query_column": "query", "positive_column": "positive"}

CASES = {
    # columns and rows
    "missing column": Case(
        fit(**{**BY_NAME, "query_column": "querry"}), ["query_column", "'querry'", "['query', 'positive']"], ColumnError
    ),
    "the same column twice": Case(fit(query_column="query", positive_column="query"), ["both 'query'"]),
    "which columns": Case(fit([{**ROWS[0], "id": 1}]), ["name them", "['query', 'positive', 'id']"]),
    "column that is written": Case(
        fit([{**ROWS[0], "negative_1": 1}], **BY_NAME),
        ["already has", "['negative_1']", "format 'n-tuple'", "remove"],
    ),
    "no rows": Case(fit([]), ["the data set is empty", "expected a query and a positive"]),
    "no rows of known columns": Case(
        fit(Dataset.from_list(ROWS).select([])), ["the data set is empty", "'query'", "'positive'"]
    ),
    "no rows in a stream": Case(
        fit(IterableDataset.from_generator(lambda: iter([]))), ["the data set is empty", "expected a query"]
    ),
    "nothing at all": Case(lambda folder: miner_in(folder).fit(), ["give rows, a corpus, or both"]),
    "rows of texts": Case(fit(["a", "b"]), ["rows", "'a' in place 0", "list of dictionaries"]),
    "rows of two types": Case(
        fit([ROWS[0], {"query": 5, "positive": "x"}]), ["rows", "'int' object", "expected the same type"]
    ),
    "stream of two types": Case(
        fit(IterableDataset.from_generator(lambda: iter([ROWS[0], {"query": 5, "positive": "x"}]))),
        ["column 'query'", "'int' object", "expected values of one type"],
    ),
    "no Unicode": Case(fit([{"query": "\ud800", "positive": "x"}]), ["surrogates not allowed", "valid UTF-8"]),
    # texts
    "empty text": Case(
        fit([*ROWS, {"query": "", "positive": "x"}]), ["column 'query'", "1 empty text", "row 12", "rows.filter"]
    ),
    "blank text": Case(
        fit([{"query": "x", "positive": " \t\n\u3000"}, *ROWS]), ["column 'positive'", "1 empty text", "row 0"]
    ),
    "no text": Case(fit([*ROWS, {"query": "x", "positive": None}]), ["column 'positive'", "1 empty text", "row 12"]),
    "number as a query": Case(fit([{"query": 1, "positive": "x"}]), ["column 'query'", "int64", "expected text"]),
    "bytes as a positive": Case(fit([{"query": "x", "positive": b"x"}]), ["'positive'", "binary", "expected text"]),
    "numbers as positives": Case(fit([{"query": "x", "positive": [1]}]), ["'positive'", "int64", "expected text"]),
    "list of queries": Case(fit([{"query": ["x"], "positive": "y"}]), ["'query'", "list<", "expected text"]),
    "no positive": Case(
        fit([{"query": "x", "positive": ["y"]}, {"query": "z", "positive": []}]),
        ["column 'positive'", "1 row(s) without a positive", "row 1", "at least one"],
    ),
    "positives that are null": Case(
        fit([{"query": "x", "positive": ["y"]}, {"query": "z", "positive": None}]), ["without a positive", "row 1"]
    ),
    "a blank positive among others": Case(
        fit([{"query": "x", "positive": ["y"]}, {"query": "z", "positive": ["ok", " "]}]), ["'positive'", "row 1"]
    ),
    "blank passage": Case(fit(corpus=["a", "b", " "]), ["column 'corpus'", "1 empty text", "row 2"]),
    "passage that is a number": Case(fit(corpus=["a", 5]), ["corpus: passage 1 is 5", "expected text"]),
    "corpus column": Case(
        fit(corpus=Dataset.from_dict({"left": ["a"]}), corpus_column="right"),
        ["corpus_column", "'right'", "['left']"],
        ColumnError,
    ),
    # numbers
    "n of 0": Case(make(num_negatives=0), ["num_negatives", "at least 1", "got 0"]),
    "negative n": Case(make(num_negatives=-3), ["num_negatives", "at least 1", "got -3"]),
    "n of 2.5": Case(make(num_negatives=2.5), ["num_negatives", "whole number", "got 2.5"]),
    "n as text": Case(make(num_negatives="4"), ["num_negatives", "whole number", "got '4'"]),
    "n over the corpus": Case(fit(num_negatives=50), ["num_negatives", "50 negatives", "12 passages"]),
    "n over the corpus alone": Case(
        fit(None, corpus=["a", "b"], num_negatives=2), ["num_negatives", "2 negatives", "2 passages"]
    ),
    "n over the sampler's k": Case(make(num_negatives=4, sampler="sampled:3"), ["sampled:3", "4 negatives", "k >= 4"]),
    "pool depth": Case(make(pool_depth=0), ["pool_depth", "at least 1", "got 0"]),
    "seed as text": Case(make(seed="one"), ["seed", "whole number", "got 'one'"]),
    "seed of 1.5": Case(make(seed=1.5), ["seed", "whole number", "got 1.5"]),
    # methods and samplers
    "percentage of 95": Case(make(method="perc_pos:95"), ["between 0 and 2", "got 95", "give 0.95"]),
    "negative percentage": Case(lambda folder: TopKPercPos(-0.1), ["between 0 and 2", "got -0.1"]),
    "threshold that is no number": Case(make(method="abs:nan"), ["TopKAbs: threshold", "finite number", "nan"]),
    "band backwards": Case(make(method="band:5-3"), ["RankBand", "first < last", "got 5 and 3"]),
    "band over the corpus": Case(lambda folder: RankBand(0.5, 1.5), ["0 <= first < last <= 1", "0.5 and 1.5"]),
    "bands apart": Case(
        lambda folder: RankBand(0, 5) & RankBand(7, 9), ["band:0-5 and band:7-9", "no rank is inside both"]
    ),
    "ranks and percentiles": Case(make(method="band:0-5+band:1%-2%"), ["band:0-5", "band:1%-2%", "percentiles"]),
    "unknown method": Case(make(method="percpos:0.95"), ["'percpos:0.95'", "perc_pos:0.95"]),
    "no method": Case(make(method=""), ["method ''", "perc_pos:0.95"]),
    "number as a method": Case(make(method=0.95), ["method: expected", "TopKPercPos(0.95)", "got 0.95"]),
    "zero as a method": Case(make(method=0), ["method: expected", "got 0"]),
    "method that is not called": Case(make(method=TopKPercPos), ["method: expected", "TopKPercPos(0.95)", "function"]),
    "unknown sampler": Case(make(sampler="best"), ["'best'", "sampled:10"]),
    "sampler that is not called": Case(make(sampler=Top), ["sampler: expected", "Sampled(10)", "Top'>"]),
    "temperature": Case(lambda folder: Sampled(5, 0.0), ["temperature is positive", "got 0.0"]),
    # other arguments
    "format": Case(make(format="tuple"), ["format", "'tuple'", "'n-tuple', 'triplet'"]),
    "on_exhausted": Case(make(on_exhausted="fill"), ["on_exhausted", "'fill'", "['drop', 'keep', 'error']"]),
    "positive score": Case(make(positive_score="max"), ["positive_score", "'max'", "['min', 'each']"]),
    "first pass": Case(make(first_pass="int8"), ["first_pass", "'int8'", "'bfloat16'"]),
    "device": Case(make(device="tpu9000"), ["device", "'tpu9000'", "'cuda'"]),
    "split": Case(lambda folder: miner_in(folder).fit({"a": 1}), ["rows: expected", "got dict"]),
    # teachers
    "no teacher": Case(
        lambda folder: NegativeMiner(42, cache_dir=folder),  # type: ignore[arg-type]
        ["teacher 42", "fingerprint(role)"],
    ),
    "similarity": Case(lambda folder: fixed(similarity="euclidean"), ["'euclidean'", "['cosine', 'dot']"]),
    "similarity of a teacher": Case(
        fit(teacher=Euclidean()), ["similarity of teacher 'hash'", "'euclidean'", "['cosine', 'dot']"]
    ),
    "vectors for some texts": Case(
        lambda folder: fixed(query_vectors=VECTORS[:3]), ["12 query texts", "(12, width)", "got (3, 4)"]
    ),
    "NaN in a vector": Case(
        lambda folder: miner_in(folder, fixed(passage_vectors=with_value(np.nan))).fit(ROWS),
        ["teacher 'fixed'", "NaN or infinite", "1 of 12 texts", "'positive 3'"],
        TeacherError,
    ),
    "infinite vector": Case(
        lambda folder: miner_in(folder, fixed(query_vectors=with_value(np.inf))).fit(ROWS),
        ["teacher 'fixed'", "NaN or infinite", "'query 3'"],
        TeacherError,
    ),
    "vectors of two widths": Case(
        lambda folder: miner_in(folder, fixed(query_vectors=VECTORS[:, :3])).fit(ROWS),
        ["query vectors are 3 wide", "passage vectors 4"],
    ),
    "text without a vector": Case(
        lambda folder: miner_in(folder, fixed(query_texts=QUERIES[:9], query_vectors=VECTORS[:9])).fit(ROWS),
        ["fixed has no vector for 3 of 12 query texts", "'query 9'"],
        TeacherError,
    ),
    # settings
    "scores in words": Case(make(include_scores="no"), ["include_scores: True or False, got 'no'"]),
    "positives by number": Case(make(include_positives=1), ["include_positives: True or False, got 1"]),
    "progress in words": Case(make(progress="no"), ["progress: True or False, got 'no'"]),
    "query column without a name": Case(make(query_column=""), ["query_column: expected a name, got ''"]),
    "positive column without a name": Case(make(positive_column=""), ["positive_column: expected a name, got ''"]),
    "corpus column without a name": Case(make(corpus_column=""), ["corpus_column: expected a name, got ''"]),
    "config without a name": Case(make(corpus_config_name=""), ["corpus_config_name: expected a name, got ''"]),
    "a text as filters": Case(make(filters="bm25"), ["a list such as [Veto('bm25')]", "got 'bm25'"]),
    "teacher without a name": Case(lambda folder: DenseTeacher(" "), ["model: it is empty", "id or folder"]),
    "a dictionary as configuration": Case(
        lambda folder: NegativeMiner.from_config({"method": "naive"}),  # type: ignore[arg-type]
        ["config: expected a MiningConfig, got dict", "MiningConfig.from_dict"],
    ),
    "config of a corpus": Case(
        fit(corpus=["a"], corpus_config_name="x"),
        ["corpus_config_name: 'x', but the list of the corpus has no configs"],
    ),
    "a judge that says nothing": Case(
        fit(filters=[Judge(silent)]), ["silent returned None for ", "expected a list of True or False"], TeacherError
    ),
    # too few passages
    "as many negatives as passages": Case(
        fit(num_negatives=12),
        ["12 negatives per query from a corpus of 12 passages, but at most 11", "ask for fewer, or give a larger"],
    ),
    "one passage": Case(
        fit(ROWS[:1], num_negatives=1),
        ["1 negative per query from a corpus of 1 passage, but at most 0 can be had", "negative; give a larger"],
    ),
    "more negatives than passages, with positives": Case(
        fit(num_negatives=13, include_positives=True), ["at most 12 can be had; ask for fewer"]
    ),
    "exhausted": Case(
        fit(method="abs:-1000", on_exhausted="error"),
        ["12 of 12 queries", "fewer than 2 eligible passages", "abs:-1000", "'query 0'", "'drop' or 'keep'"],
        ExhaustedError,
    ),
    # use in the wrong order, or in the wrong way
    "map before fit": Case(
        lambda folder: Dataset.from_list(ROWS).map(miner_in(folder), batched=True),
        ["not fitted", "miner.fit(rows)"],
        NotFittedError,
    ),
    "pool before fit": Case(lambda folder: miner_in(folder).pool, ["not fitted"], NotFittedError),
    "pool of a corpus alone": Case(lambda folder: miner_in(folder).fit(corpus=POSITIVES).pool, ["corpus alone"]),
    "map one row at a time into triplets": Case(
        lambda folder: Dataset.from_list(ROWS).map(miner_in(folder, format="triplet").fit(ROWS)),
        ["'triplet'", "one row into several", "batched=True"],
    ),
    "map other columns": Case(
        then_map([{"question": "x", "positive": "y"}], batched=True),
        ["map: column 'query'", "['question', 'positive']"],
        ColumnError,
    ),
    "map other columns of Arrow tables": Case(
        then_map([{"question": "x", "positive": "y"}], arrow=True, batched=True),
        ["map: column 'query'", "['question', 'positive']"],
        ColumnError,
    ),
    "map over a column that is written": Case(
        then_map([{**ROWS[0], "negative_1": 1}], batched=True), ["already has", "['negative_1']"]
    ),
    "map a blank text": Case(then_map([{"query": " ", "positive": "x"}], batched=True), ["'query'", "empty text"]),
    "mine other columns": Case(
        lambda folder: miner_in(folder).fit(ROWS).mine([{"question": "x", "positive": "y"}]),
        ["mine: column 'query'", "['question', 'positive']"],
        ColumnError,
    ),
    "mine over a column that is written": Case(
        lambda folder: miner_in(folder).fit(ROWS).mine([{**ROWS[0], "negative_2": 1}]),
        ["already has", "['negative_2']"],
    ),
    "mine with another corpus": Case(
        lambda folder: miner_in(folder).fit(ROWS).mine(ROWS, corpus=["x"]),
        ["already fitted", "another corpus to fit()"],
    ),
    "ids of new rows": Case(
        lambda folder: miner_in(folder, format="ids").fit(ROWS).mine([{"query": "new", "positive": "new too"}]),
        ["format 'ids'", "were part of fit()", "fit on these"],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_refused_with_both_facts_in_one_sentence(tmp_path: Path, case: Case) -> None:
    with pytest.raises(NegmineError) as caught:
        case.call(tmp_path)
    assert type(caught.value) is case.error
    check_sentence(str(caught.value), case.facts)


def check_sentence(message: str, facts: list[str]) -> None:
    for fact in facts:
        assert fact in message
    assert "\n" not in message
    assert not message.endswith(".")
    assert "Traceback" not in message
    assert len(message) < 400


def test_all_nulls_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^column 'query' has 1 empty text"):
        miner_in(tmp_path).fit([{"query": None, "positive": None}])


def test_whatever_goes_wrong_with_a_stream_is_not_blamed_on_the_cache_folder(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield from ROWS
        raise ConnectionError("the network is down")

    broken = IterableDataset.from_generator(rows)
    miner = miner_in(tmp_path)
    with pytest.raises(ConnectionError, match=r"^the network is down$"):
        miner.fit(broken)
    with pytest.raises(ConnectionError, match=r"^the network is down$"):
        miner.fit(ROWS).mine(broken)
    assert leftovers(tmp_path) == []


def test_flags_of_numpy_are_flags(tmp_path: Path) -> None:
    config = miner_in(tmp_path, include_scores=np.bool_(True)).config
    assert config.include_scores is True


@pytest.mark.parametrize(("given", "expected"), [("query", "positive"), ("positive", "query")])
def test_one_named_column_leaves_the_other(tmp_path: Path, given: str, expected: str) -> None:
    miner = miner_in(tmp_path, positive_column=given).fit(ROWS)
    assert miner.queries["query"][0] == ROWS[0][expected]


def test_wrong_arguments_are_found_before_anything_is_encoded(tmp_path: Path) -> None:
    class Refusing(HashTeacher):
        def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
            raise AssertionError("encoded in vain")

    with pytest.raises(InputError, match="num_negatives: 50 negatives"):
        miner_in(tmp_path, Refusing(), num_negatives=50).fit(ROWS)


# ---- the cache folder --------------------------------------------------------------------------------------------


def leftovers(folder: Path) -> list[Path]:
    return sorted(folder.rglob(".unfinished-*"))


def mined_texts(folder: Path) -> list[dict[str, Any]]:
    return list(miner_in(folder).mine(ROWS))


@pytest.fixture
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return mined_texts(tmp_path_factory.mktemp("untroubled"))


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        miner_in(tmp_path / "file" / below).fit(ROWS)
    check_sentence(str(caught.value), [str(tmp_path / "file" / below), "cannot write", "give a folder that can be"])


VERSIONED = ["texts/*/texts.json", "vectors/*/store.json", "pools/*/pool.json", "fits/*/fit.json"]


@pytest.mark.parametrize("pattern", VERSIONED)
def test_a_cache_of_another_version_is_refused(tmp_path: Path, pattern: str) -> None:
    mined_texts(tmp_path)
    for path in tmp_path.glob(pattern):
        path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": FORMAT_VERSION + 1}))
    if pattern.startswith("vectors"):  # the vectors are asked for when there is no pool
        shutil.rmtree(tmp_path / "pools")
    with pytest.raises(StorageError) as caught:
        mined_texts(tmp_path)
    facts = [f"cache format {FORMAT_VERSION + 1}", f"reads {FORMAT_VERSION}", "another cache_dir", str(tmp_path)]
    check_sentence(str(caught.value), facts)


@contextmanager
def full_disk_after(monkeypatch: pytest.MonkeyPatch, part: str) -> Iterator[list[str]]:
    """Files under a folder named like ``part`` cannot be synced to disk, as if it were full."""
    fsync, refused = os.fsync, []

    def guarded(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if part in path:
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", guarded)
        yield refused


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd")

FULL_AT = {
    "texts": "/texts/",
    "vectors": "/vectors/",
    "pool parts": "/parts/",
    "pool": "/pools/",
    "fit": "/fits/",
    "mined file": "/mined",
}


@needs_proc
@pytest.mark.parametrize("part", FULL_AT.values(), ids=FULL_AT)
def test_a_disk_that_fills_leaves_nothing_half_written_and_the_next_run_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[dict[str, Any]], part: str
) -> None:
    with full_disk_after(monkeypatch, part) as refused, pytest.raises(StorageError) as caught:
        mined_texts(tmp_path)
    assert refused
    check_sentence(str(caught.value), ["cannot write", str(tmp_path), "the disk is full", "run again"])
    assert leftovers(tmp_path) == []
    assert list(tmp_path.glob("mined/*.arrow")) == []
    assert mined_texts(tmp_path) == expected


@needs_proc
def test_shards_that_were_finished_are_kept_when_the_disk_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(store, "TEXTS_A_SHARD", 5)
    encoded: list[int] = []

    class Counting(HashTeacher):
        def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
            encoded.append(len(texts))
            return super().encode(texts, role)

    def full_at_the_third(folder: Path, path: Path, *rest: Any) -> None:
        if len(list(path.parent.glob("shard-*"))) == 2:
            raise StorageError("no space left")
        publish_sealed(folder, path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("hf_negmine.teachers.vector_store.publish_sealed", full_at_the_third)
        with pytest.raises(StorageError, match="no space left"):
            miner_in(tmp_path, Counting()).fit(ROWS)
    assert encoded == [5, 5, 2]
    encoded.clear()
    assert miner_in(tmp_path, Counting()).mine(ROWS).to_list() == expected
    assert encoded == [2, 5, 5, 2]


def test_a_disk_that_fills_while_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[dict[str, Any]]
) -> None:
    write_table = ArrowWriter.write_table

    def full(writer: ArrowWriter, *arguments: Any, **named: Any) -> None:
        write_table(writer, *arguments, **named)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(ArrowWriter, "write_table", full)
        with pytest.raises(StorageError) as caught:
            mined_texts(tmp_path)
    check_sentence(str(caught.value), ["cannot write", "mined", "the disk is full", "run again"])
    assert os.listdir(tmp_path / "mined") == []
    assert mined_texts(tmp_path) == expected


@pytest.mark.parametrize("bad", ["query", "positive", "corpus"])
def test_text_that_is_not_utf8_is_named(tmp_path: Path, bad: str) -> None:
    raw = pa.array([b"tea \xff", b"ice"])
    broken = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    good = pa.array(["one", "two"])
    columns = {name: broken if name == bad else good for name in ("query", "positive")}
    corpus = broken if bad == "corpus" else None
    miner = NegativeMiner("bm25", num_negatives=1, cache_dir=tmp_path, progress=False, corpus=corpus)
    with pytest.raises(InputError, match=f"column '{bad}' has text that is not valid UTF-8 among rows 0 to 1"):
        miner.mine(pa.table(columns))
