"""What lies on the Hub or is handed to a push and cannot be used: one sentence, and nothing read or sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from typer.testing import CliRunner

from hf_negmine import load_mined, push_dataset
from hf_negmine.base.errors import InputError, NegmineError, StorageError
from hf_negmine.base.files import write_table
from hf_negmine.base.schema import CANDIDATES_SCHEMA
from hf_negmine.commands.cli import app
from hf_negmine.hub import data_files
from hf_negmine.hub.card_metadata import decoded_card, split_card
from hf_negmine.hub.provenance import read_provenance
from tests.hub.server import Hub
from tests.hub.world import NAME, make_miner, mine, rows

PATH = "negmine/default/train.json"
POOL = "negmine/default/train-pool/"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a push, of a teacher in a fusion and with every kind of filter that settings can make."""
    home = tmp_path_factory.mktemp("pushed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_NEGMINE_CACHE", str(home / "negmine"))
        patch.setattr(data_files, "_figure", lambda summary: None)
        mined = mine(home / "cache", "sum(bm25, random:1)", include_scores=True)
        folder = push_dataset(mined, NAME, license="mit", with_pool=True, dry_run=True).folder
    assert folder is not None
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(content: bytes, message: str = "") -> None:
    with pytest.raises(StorageError, match=message) as caught:
        read_provenance(content, PATH, where="here")
    assert str(caught.value).startswith("here")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b"{}", b"", b"5", b'{"provenance_version": 1e400}',
     b'{"provenance_version": true}', b'{"provenance_version": ' + b"9" * 5000 + b"}"],
    ids=range(9),
)  # fmt: skip
def test_provenance_that_is_no_json_of_ours(content: bytes) -> None:
    refused(content, "here is not provenance|upgrade hf_negmine")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", "x"),
        ("seed", float("inf")),
        ("seed", 1.5),
        ("pool_depth", 1e30),
        ("pool_depth", 10**30),
        ("pool_depth", 0),
        ("num_negatives", "4"),
        ("num_negatives", True),
        ("num_negatives", -1),
        ("method", None),
        ("sampler", ["top"]),
        ("format", "tuple"),
        ("positive_score", "max"),
        ("include_scores", 1),
        ("columns", ["query"]),
        ("columns", ["query", "query"]),
        ("columns", "query"),
        ("teacher", 3),
        ("teacher_fingerprints", {}),
        ("teacher_settings", "bm25"),
        ("teacher_settings", {"kind": ["dense"]}),
        ("teacher_settings", {"kind": "dense", "model": "../m"}),
        ("teacher_settings", {"kind": "dense", "model": "/etc"}),
        ("teacher_settings", {"kind": "dense", "model": "m", "query_prompt": {"query": "q"}}),
        ("teacher_settings", {"kind": "dense", "model": "m", "max_length": "long"}),
        ("teacher_settings", {"kind": "bm25", "k1": "x"}),
        ("teacher_settings", {"kind": "random", "seed": 0.5}),
        ("teacher_settings", {"kind": "fusion", "stages": [{"kind": "bm25", "b": [1]}]}),
        ("teacher_settings", {"kind": "cross-sample"}),
        ("stages", [{"teacher": "x"}]),
        ("filters", "veto"),
        ("filters", [{"kind": "judge", "filter": "j"}]),
        ("filters", [{"kind": "veto", "filter": "v", "method": 1, "abstain_at": None, "depth": None}]),
    ],
)
def test_a_setting_of_a_wrong_type_is_named(pushed: Path, name: str, value: Any) -> None:
    content = json.loads((pushed / PATH).read_bytes())
    settings = content["summary"]["settings"]
    if name == "teacher_settings":
        del settings["stages"]
    settings[name] = value
    refused(json.dumps(content).encode(), "settings" if value == {"kind": "cross-sample"} else f"settings.{name}")


def test_every_setting_that_is_missing_is_named(pushed: Path) -> None:
    content = json.loads((pushed / PATH).read_bytes())
    for name in content["summary"]["settings"]:
        left = {key: value for key, value in content["summary"]["settings"].items() if key != name}
        changed = json.dumps({**content, "summary": {**content["summary"], "settings": left}}).encode()
        if name in ("similarity", "stages"):  # which not every teacher has
            read_provenance(changed, PATH, where="here")
        else:
            refused(changed, f"lacks the settings {name}")


def test_provenance_of_another_part_is_refused(pushed: Path) -> None:
    content = json.loads((pushed / PATH).read_bytes())
    refused(json.dumps({**content, "split": "test"}).encode(), "split 'test', but its name says otherwise")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("tags: {a: b}", "has tags: .*, expected texts"),
        ("tags: [[a]]", "has tags"),
        ("language: [1]", "has language"),
        ("source_datasets: {a: [b]}", "has source_datasets"),
        ("configs: [1, 2]", "has configs: .*, expected mappings"),
        ("configs: text", "has configs"),
        ("configs: [{config_name: [a]}]", "has configs"),
        ("a: &a [x]\nb: *a", r"write out what \*a stands for"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", r"write out what \*a stands for"),
        ("a: " + "[" * 2000, "cannot be read"),
        ("a: " + "[" * 500 + "]" * 500, "cannot be read"),
        ("date: 2024-99-99", "cannot be read"),
        ('a: "\\ud800"', "cannot be read"),
        ("a: !!timestamp x", "cannot be read"),
        ("a: !!python/object/apply:os.getcwd []", "cannot be read"),
    ],
)
def test_a_card_that_cannot_be_merged(header: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^the existing card .*{message}.*correct it first$") as caught:
        split_card(f"---\n{header}\n---\nmine")
    assert len(str(caught.value)) < 500


def test_a_card_in_another_encoding() -> None:
    with pytest.raises(InputError, match="the existing card is not UTF-8"):
        decoded_card("---\npretty_name: café\n---\n".encode("latin-1"))
    assert split_card(decoded_card(b"\xef\xbb\xbf---\r\na: 1\r\n---\r\nmine")) == ({"a": 1}, ("mine", ""))


def test_a_push_onto_a_bad_card_changes_nothing(hub: Hub, pushed: Path, mined: Dataset) -> None:
    card = b"---\ntags: {a: b}\n---\nmine"
    hub.create("dataset", NAME, {**files_of(pushed), "README.md": card})
    with pytest.raises(InputError, match="has tags"):
        push_dataset(mined, NAME, config_name="other", license="mit")
    assert hub.files("dataset", NAME)["README.md"] == card


@pytest.mark.parametrize(
    ("rows_of", "message"),
    [
        (lambda mined: DatasetDict(train=mined, test=mined), r"the splits \['train', 'test'\].*split="),
        (lambda mined: mined.to_iterable_dataset(), "IterableDataset.*Dataset.from_list"),
        (lambda mined: mined.select([]), "no row to push"),
        (lambda mined: None, "expected the Dataset that mine returned, got NoneType"),
        (lambda mined: mined.to_list(), "got list"),
        (lambda mined: mined.to_pandas(), "got DataFrame"),
    ],
)
def test_what_is_not_the_rows_of_a_split(mined: Dataset, rows_of: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        push_dataset(rows_of(mined), NAME, license="mit", dry_run=True)
    assert isinstance(mined, Dataset)
    assert not isinstance(mined, IterableDataset)


def test_a_dataset_dict_is_pushed_as_the_sentence_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "negmine"))
    miner = make_miner(tmp_path / "cache", "bm25")
    mined = miner.mine(rows()).train_test_split(0.25, seed=0)
    with pytest.raises(InputError, match="miner=miner"):
        push_dataset(mined, NAME, miner=miner, license="mit", dry_run=True)
    for split, part in mined.items():
        done = push_dataset(part, NAME, split=split, miner=miner, license="mit", dry_run=True)
        assert f"negmine/default/{split}.json" in done.files


def test_languages_are_a_list(mined: Dataset) -> None:
    with pytest.raises(InputError, match=r"languages: expected a list of codes such as \['en'\], got 'en'"):
        push_dataset(mined, NAME, license="mit", languages="en", dry_run=True)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"teacher_fingerprints": {}}},
        {"rows": "many"},
        {"removed": [1]},
        {"positive_scores": None},
        {"histograms": {"positives": 1}},
        {"agreement": {"teachers": ["a"], "jaccard": [[1, 2]]}},
        {"unheard_of": 1},
    ],
)
def test_a_summary_of_a_wrong_shape_from_the_shell(tmp_path: Path, pushed: Path, change: dict[str, Any]) -> None:
    summary = json.loads((pushed / PATH).read_bytes())["summary"]
    (tmp_path / "data.parquet").write_bytes((pushed / "data/default/train-00000-of-00001.parquet").read_bytes())
    (tmp_path / "summary.json").write_text(json.dumps({**summary, **change}))
    result = CliRunner().invoke(app, ["push", str(tmp_path), NAME, "--license", "mit", "--dry-run"])
    assert result.exit_code == 1
    assert "bug of hf_negmine" not in result.stderr
    assert "summary" in result.stderr


# ---- tables and pools


def with_metadata(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(data)).replace_schema_metadata({"huggingface": '{"info": {"features": 5}}'})
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def not_utf8(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(data))
    texts = pa.array([b"caf\xe9"] * len(table), pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, table.column_names[1], texts), sink)
    return bytes(sink.getvalue())


def other_column(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(data)).rename_columns(["id", "words"]), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("path", "how", "message"),
    [
        ("data/default/train-00000-of-00001.parquet", with_metadata, "is not a Parquet file, or a damaged one"),
        ("data/default/train-00000-of-00001.parquet", lambda data: data[:-40], "is not a Parquet file, or"),
        ("lookups/default/train/corpus-00000-of-00001.parquet", other_column, "lookup table corpus has the columns"),
        ("lookups/default/train/queries-00000-of-00001.parquet", not_utf8, "is not a Parquet file, or a damaged one"),
        (POOL + "query_keys.npy", lambda data: data[:-8], "cannot read"),
        (POOL + "query_keys.npy", lambda data: data.replace(b"(12,)", b"(9**9"), "pool|cannot read"),
        (POOL + "query_keys.npy", lambda data: data.replace(b"(12,), ", b"(" + b"9" * 4 + b",)"), "cannot read"),
        (POOL + "positives.arrow", lambda data: data[: len(data) // 2], "cannot read"),
    ],
)
def test_files_that_are_damaged(
    hub: Hub, tmp_path: Path, pushed: Path, path: str, how: Callable[[bytes], bytes], message: str
) -> None:
    files = files_of(pushed)
    assert how(files[path]) != files[path]
    hub.create("dataset", NAME, {**files, path: how(files[path])})
    with pytest.raises(NegmineError, match=message):
        load_mined(NAME, cache_dir=tmp_path / "other")


def test_a_pool_that_was_swapped_is_checked_although_an_honest_one_is_in_the_cache(
    hub: Hub, tmp_path: Path, pushed: Path
) -> None:
    files = files_of(pushed)
    hub.create("dataset", NAME, files)
    honest = load_mined(NAME, cache_dir=tmp_path / "other").pool
    assert honest is not None
    (name,) = (path for path in files if path.startswith(POOL + "candidates-"))
    positives = np.array(honest.positives.ids)
    table = pa.table(
        [
            np.where(np.arange(len(honest.lists.passages)) == 0, positives[0], honest.lists.passages),
            honest.lists.scores,
        ],
        schema=CANDIDATES_SCHEMA,
    )
    write_table(tmp_path / "candidates.arrow", table)
    hub.commit("dataset", NAME, {name: (tmp_path / "candidates.arrow").read_bytes()})
    with pytest.raises(StorageError, match=r"a candidate is a positive|a candidate twice|not in falling order"):
        load_mined(NAME, cache_dir=tmp_path / "other")
    assert len(list((tmp_path / "other" / "pools").iterdir())) == 1, "what was refused is not kept"


def test_a_pool_of_another_teacher_and_other_scores_of_the_pairs(hub: Hub, tmp_path: Path, pushed: Path) -> None:
    files = files_of(pushed)
    about = json.loads(files[POOL + "pool.json"])
    other = json.dumps({**about, "teacher": "another"}).encode()
    hub.create("dataset", NAME, {**files, POOL + "pool.json": other})
    with pytest.raises(StorageError, match="another teacher than the settings say: its teacher"):
        load_mined(NAME, cache_dir=tmp_path / "other")
    path = "lookups/default/train/pairs-00000-of-00001.parquet"
    pairs = pq.read_table(pa.BufferReader(files[path]))
    sink = pa.BufferOutputStream()
    pq.write_table(pairs.set_column(2, "score", pa.array(np.zeros(len(pairs), np.float32))), sink)
    hub.commit("dataset", NAME, {path: bytes(sink.getvalue()), POOL + "pool.json": files[POOL + "pool.json"]})
    with pytest.raises(StorageError, match="the scores of its positives are not those of the pairs"):
        load_mined(NAME, cache_dir=tmp_path / "other")
