"""What `reproduce` compares: every column that mining writes, and how often each row is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from typer.testing import CliRunner

from hf_negmine import NegativeMiner, push_dataset
from hf_negmine.base.errors import InputError
from hf_negmine.commands.cli import app
from hf_negmine.hub.reproducing import Reproduction, mine_again
from tests.hub.server import Hub
from tests.hub.world import CORPUS, NAME, QUERIES, make_miner, multi_rows, opened, rows

FORMATS = ["n-tuple", "triplet", "labeled-pair", "labeled-list", "ids"]
LAYOUTS = [("n-tuple", True), ("triplet", False), ("labeled-pair", True), ("labeled-list", False), ("ids", True)]
Change = Callable[[Dataset], Dataset]


def mined_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change, *, given: Dataset | None = None, **settings: Any
) -> tuple[Reproduction, Dataset]:
    """What reproducing says of mined rows that were changed before the push, and these rows."""
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(folder / "negmine"))
    miner = make_miner(folder / "cache", "bm25", **settings)
    pushed = change(miner.mine(rows() if given is None else given))
    done = push_dataset(pushed, NAME, miner=miner, license="mit", dry_run=True)
    assert done.folder is not None
    return mine_again(opened(done.folder), NAME, cache_dir=folder / "other", progress=False), pushed


def some_queries_twice() -> Dataset:
    """Queries with two positives, in rows of their own."""
    return Dataset.from_dict({"query": QUERIES[:4] * 2, "positive": CORPUS[:8]})


def cast_scores(mined: Dataset) -> Dataset:
    """Every column of float32 in float64, every whole number in 32 bits, every text as a large string."""

    def wider(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(wider(kind.value_type))
        return {pa.float32(): pa.float64(), pa.int64(): pa.int32(), pa.string(): pa.large_string()}.get(kind, kind)

    schema = pa.schema([(field.name, wider(field.type)) for field in mined.features.arrow_schema])
    return mined.cast(datasets.Features.from_arrow_schema(schema))


def rearranged(mined: Dataset) -> Dataset:
    """The same rows in another order, with columns in another order and of other types."""
    return cast_scores(mined.select_columns(mined.column_names[::-1])).shuffle(seed=1)


@pytest.mark.parametrize(
    ("format", "scores", "given"),
    [
        *((*layout, given) for layout in LAYOUTS for given in (multi_rows, some_queries_twice)),
        *((format, not scores, rows) for format, scores in LAYOUTS),
    ],
)
def test_the_same_rows_are_identical_in_every_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, scores: bool, given: Callable[[], Dataset]
) -> None:
    found, pushed = mined_again(tmp_path, monkeypatch, rearranged, given=given(), format=format, include_scores=scores)
    assert found.identical, found
    assert str(found) == f"identical: all {len(pushed)} rows came out again"


@pytest.mark.parametrize(("format", "scores"), LAYOUTS)
def test_every_row_three_times_is_different(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, scores: bool
) -> None:
    found, pushed = mined_again(
        tmp_path, monkeypatch, lambda mined: concatenate_datasets([mined] * 3), format=format, include_scores=scores
    )
    assert (found.identical, found.missing, found.repeated) == (False, 0, 2 * len(pushed) // 3)
    assert str(found).startswith(f"different: {found.repeated} of {len(pushed)} rows are copies that did not come out")


@pytest.mark.parametrize(("format", "scores"), LAYOUTS)
def test_a_row_less_is_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, scores: bool) -> None:
    found, _ = mined_again(
        tmp_path, monkeypatch, lambda mined: mined.select(range(1, len(mined))), format=format, include_scores=scores
    )
    assert (found.identical, found.missing, found.repeated) == (False, 0, 0)
    assert "rows were left out before they were pushed" in str(found)


def test_rows_that_were_given_twice_are_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = concatenate_datasets([rows(), rows(0, 3)])
    for format in FORMATS:
        found, pushed = mined_again(tmp_path / format, monkeypatch, lambda mined: mined, given=given, format=format)
        assert found.identical, f"{format}: {found}"
        found, _ = mined_again(
            tmp_path / format, monkeypatch, lambda mined: concatenate_datasets([mined] * 2), given=given, format=format
        )
        assert not found.identical, format
        assert found.rows == 2 * len(pushed)


def junk(mined: Dataset) -> Dataset:
    columns = {f"negative_{place}": ["junk"] * len(mined) for place in (1, 2)}
    return Dataset.from_dict({"query": mined["query"][:], "positive": mined["positive"][:], **columns})


def test_other_negatives_are_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = mined_again(tmp_path, monkeypatch, junk)
    assert (found.identical, found.missing) == (False, 12)
    assert str(found).startswith("different: 12 of 12 rows did not come out again; the teacher is the same")


@pytest.mark.parametrize(
    "change",
    [
        lambda mined: mined.rename_columns({"negative_1": "first", "negative_2": "second"}),
        lambda mined: mined.remove_columns("negative_2"),
        lambda mined: mined.rename_column("query", "anchor"),
        lambda mined: mined.remove_columns("positive"),
        lambda mined: Dataset.from_dict({"foreign": [1, 2, 3]}),
    ],
    ids=["negatives renamed", "a negative less", "query renamed", "no positive", "a foreign table"],
)
def test_the_columns_that_mining_writes_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    with pytest.raises(InputError, match=r"have the columns \[.*\] and lack \[.*\], which format 'n-tuple' writes"):
        mined_again(tmp_path, monkeypatch, change)
    assert not (tmp_path / "other").exists(), "nothing is mined for that"


def test_what_was_not_compared_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = mined_again(tmp_path, monkeypatch, lambda mined: mined.add_column("id", list(range(12))))
    assert found.identical
    assert found.not_compared == ["id"]
    assert str(found) == "identical: all 12 rows came out again (not compared: 'id', which mining does not write)"


def test_of_lists_rows_are_counted_and_not_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_label(mined: Dataset) -> Dataset:
        return mined.map(lambda row: {"labels": [1] * len(row["labels"])} if row["query"] == QUERIES[0] else row)

    found, _ = mined_again(tmp_path, monkeypatch, other_label, given=multi_rows(), format="labeled-list")
    assert (found.rows, found.missing) == (6, 1)


def test_columns_of_another_kind_cannot_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def as_words(mined: Dataset) -> Dataset:
        return Dataset.from_dict({**mined.to_dict(), "label": ["good"] * len(mined)})

    with pytest.raises(InputError, match="expected those of mined rows"):
        mined_again(tmp_path, monkeypatch, as_words, format="labeled-pair")


def test_settings_that_no_corpus_has_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "negmine"))
    miner: NegativeMiner = make_miner(tmp_path / "cache", "bm25")
    folder = push_dataset(miner.mine(rows()), NAME, license="mit", dry_run=True).folder
    assert folder is not None
    data = opened(folder)
    for name, value in (("num_negatives", 10**9), ("num_negatives", 20), ("pool_depth", 10**18)):
        settings = {**data.settings, name: value}
        other = replace(data, provenance=replace(data.provenance, summary=replace(data.summary, settings=settings)))
        if name == "pool_depth":
            assert mine_again(other, NAME, cache_dir=tmp_path / "other", progress=False).identical
            continue
        with pytest.raises(OSError, match=f"says {value} negatives per query, from a corpus of 20 passages"):
            mine_again(other, NAME, cache_dir=tmp_path / "other", progress=False)


def test_the_shell_prints_the_verdict_and_exits_with_1(hub: Hub, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache", "bm25")
    mined = miner.mine(rows())
    push_dataset(concatenate_datasets([mined] * 3), NAME, miner=miner, license="mit")
    result = CliRunner().invoke(app, ["reproduce", NAME, "--quiet", "--cache-dir", str(tmp_path / "other")])
    assert (result.exit_code, result.stdout.count("\n")) == (1, 1)
    assert result.stdout.startswith("different: 24 of 36 rows are copies")
    push_dataset(mined.add_column("id", list(range(12))), NAME, miner=miner, config_name="more")
    more = ["reproduce", NAME, "--config", "more", "--cache-dir", str(tmp_path / "other")]
    for options, note in ([], " (not compared: 'id', which mining does not write)"), (["--quiet"], ""):
        result = CliRunner().invoke(app, [*more, *options])
        assert (result.exit_code, result.stdout) == (0, f"identical: all 12 rows came out again{note}\n")
    push_dataset(mined.rename_column("negative_1", "hard"), NAME, miner=miner)
    result = CliRunner().invoke(app, ["reproduce", NAME, "--quiet", "--cache-dir", str(tmp_path / "other")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "lack ['negative_1'], which format 'n-tuple' writes" in result.stderr


@pytest.mark.parametrize(
    ("format", "column"), [("ids", "document_ids"), ("labeled-pair", "label"), ("labeled-list", "labels")]
)
def test_numbers_that_lose_something_when_they_are_cast_are_no_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, column: str
) -> None:
    def shifted(mined: Dataset) -> Dataset:
        def more(value: Any) -> Any:
            return [one + 0.7 for one in value] if isinstance(value, list) else value + 0.7

        table = mined.with_format("arrow")[:]
        place = table.column_names.index(column)
        changed = pa.array([more(value) for value in table[column].to_pylist()])
        return Dataset(table.set_column(place, column, changed).replace_schema_metadata())

    with pytest.raises(InputError, match=r"have the types .* expected those of mined rows"):
        mined_again(tmp_path, monkeypatch, shifted, format=format)
