"""`rows.map(miner, batched=True)` gives what `miner.mine(rows)` gives, columns and types included, whatever is left."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, IterableDataset, Value

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from tests.reference import OWN_FORMATS

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

WORDS = ["sun", "sea", "tea", "ice", "fog", "oak", "elm", "ash", "fig", "rye"]
CORPUS = [f"passage {i} about {word}" for i, word in enumerate(WORDS)]
ROWS = Dataset.from_dict(
    {
        "id": np.arange(8, dtype=np.int32),
        "query": [f"what of {text.split()[-1]}" for text in CORPUS[:8]],
        "positive": CORPUS[:8],
        "kind": [0, 1] * 4,
    }
).cast_column("kind", ClassLabel(names=["short", "long"]))
SETTINGS: dict[str, dict[str, Any]] = {
    "some rows are dropped": {"method": "perc_pos:0.95", "num_negatives": 8},
    "all rows are dropped": {"method": "abs:-5", "num_negatives": 3},
    "short rows are kept": {"method": "perc_pos:0.95", "num_negatives": 8, "on_exhausted": "keep"},
    "rows without negatives are kept": {"method": "abs:-5", "num_negatives": 3, "on_exhausted": "keep"},
}


class LengthsTeacher:
    """Scores by hand: query i allows the first i passages, so that row 0 has no negative and the last ones all."""

    name = "by hand"
    similarity = "dot"

    def fingerprint(self, role: str) -> str:
        return "by hand"

    def encode(self, texts: Any, role: str) -> Any:
        if role == "query":
            places = [next(i for i, text in enumerate(CORPUS) if text.endswith(t.split()[-1])) for t in texts]
            own, others = np.eye(10, dtype=np.float32)[places], np.tril(np.ones((10, 10), np.float32), -1)[places]
            return (2 * own + 1.95 * (1 - own - others) + others).astype(np.float32)
        return np.eye(10, dtype=np.float32)[[CORPUS.index(text) for text in texts]]


def fitted(folder: Path, **settings: Any) -> NegativeMiner:
    given = {"query_column": "query", "positive_column": "positive", "cache_dir": folder, "progress": False}
    return NegativeMiner(LengthsTeacher(), corpus=CORPUS, device="cpu", **given, **settings).fit(ROWS)


@pytest.mark.parametrize(
    ("what", "format"),
    [*((what, "n-tuple") for what in SETTINGS), *itertools.product(list(SETTINGS)[::3], OWN_FORMATS[1:])],
)
def test_columns_types_and_rows_are_the_same(tmp_path: Path, what: str, format: Any) -> None:
    miner = fitted(tmp_path, format=format, include_scores=True, **SETTINGS[what])
    mined = miner.mine(ROWS)
    assert (len(mined) < len(ROWS)) == ("dropped" in what or (what.startswith("rows") and format == "triplet"))
    assert mined.features["id"] == Value("int32")
    in_two = [(2, 2)] if format == "n-tuple" and "dropped" in what else []  # slow, and no matter of the format
    for batch_size, processes in ((1, None), (3, None), (1000, None), *in_two):
        result = ROWS.map(miner, batched=True, batch_size=batch_size, num_proc=processes, load_from_cache_file=False)
        assert result.features == mined.features
        assert result.column_names == mined.column_names
        assert result[:] == mined[:]


def test_a_column_that_begins_with_nulls_keeps_its_type(tmp_path: Path) -> None:
    """`datasets` takes the types of a result from its first batch, and refuses text after nulls."""
    miner = fitted(tmp_path, **SETTINGS["short rows are kept"])
    mined = ROWS.map(miner, batched=True, batch_size=1, load_from_cache_file=False)
    assert mined[0]["negative_8"] is None
    assert mined.features["negative_8"] == Value("string")


def test_what_a_function_around_the_miner_has_set_is_mined(tmp_path: Path) -> None:
    miner = fitted(tmp_path, method="naive", num_negatives=2)
    shouting = ROWS.map(lambda row: {"query": row["query"].upper()}, load_from_cache_file=False)

    def quietly(batch: Any) -> Any:
        batch["query"] = [text.lower() for text in batch["query"]]
        assert batch["kind"][0] in (0, 1)  # read, not set
        return miner(batch)

    assert shouting.map(quietly, batched=True, load_from_cache_file=False)[:] == miner.mine(ROWS)[:]


@pytest.mark.parametrize("what", SETTINGS)
def test_a_stream_has_the_columns_it_was_given_as_features(tmp_path: Path, what: str) -> None:
    """A stream has no types of its own once it is mapped: `IterableDataset.map` asks for them."""
    miner = fitted(tmp_path, **SETTINGS[what])
    mined = miner.mine(ROWS)
    stream = IterableDataset.from_generator(lambda: iter(ROWS), features=ROWS.features)
    for batch_size in (1, 3, 1000):
        mapped = stream.map(miner, batched=True, batch_size=batch_size, features=miner.features(stream))
        assert mapped.features == mined.features
        assert list(mapped) == list(mined)


@pytest.mark.parametrize("format", ["numpy", "torch", "pandas", "polars"])
def test_data_sets_of_another_format_have_the_columns_they_were_given_as_features(tmp_path: Path, format: str) -> None:
    pytest.importorskip(format)
    for what in ("some rows are dropped", "all rows are dropped"):
        miner = fitted(tmp_path / what, **SETTINGS[what])
        mined = miner.mine(ROWS)
        given = ROWS.with_format(format)
        result = given.map(miner, batched=True, features=miner.features(ROWS), load_from_cache_file=False)
        result = result.with_format(None)
        assert isinstance(result, datasets.Dataset)
        assert result.features == mined.features
        assert result[:] == mined[:]


def test_a_dictionary_is_answered_with_a_dictionary(tmp_path: Path) -> None:
    miner = fitted(tmp_path, **SETTINGS["some rows are dropped"])
    answer = miner(ROWS[:])
    assert isinstance(answer, dict)
    assert answer == miner.mine(ROWS).to_dict()


# ---- single rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["n-tuple", "labeled-list", "ids"])
@pytest.mark.parametrize("scores", [False, True], ids=["plain", "scores"])
def test_a_map_of_single_rows_gives_the_same(tmp_path: Path, format: Any, scores: bool) -> None:
    settings = {"method": "perc_pos:0.95", "num_negatives": 3, "on_exhausted": "keep", "include_scores": scores}
    miner = fitted(tmp_path, format=format, **settings)
    remove = ["query", "positive"] if format == "ids" else None
    for rows in (ROWS, ROWS.to_iterable_dataset()):
        assert list(rows.map(miner, remove_columns=remove)) == list(miner.mine(ROWS))


@pytest.mark.parametrize("format", ["pandas", "polars"])
def test_a_map_of_frames_of_one_row_gives_the_same(tmp_path: Path, format: str) -> None:
    pytest.importorskip(format)
    miner = fitted(tmp_path, method="perc_pos:0.95", num_negatives=3, on_exhausted="keep")
    result = ROWS.with_format(format).map(miner, load_from_cache_file=False)
    assert result.with_format(None)[:] == miner.mine(ROWS)[:]


@pytest.mark.parametrize(
    ("settings", "rows", "message"),
    [
        ({"format": "triplet"}, ROWS, r"format 'triplet' turns one row into several; call .*batched=True"),
        ({"format": "labeled-pair"}, ROWS, r"format 'labeled-pair' turns one row into several"),
        ({"on_exhausted": "drop"}, ROWS, r"'what of sun' becomes no rows.*or mine with on_exhausted='keep'"),
        (
            {},
            Dataset.from_dict({"query": ["what of rye"], "positive": [CORPUS[:2]]}),
            r"'what of rye' becomes 2 rows, and a single row can only become one",
        ),
    ],
)
def test_a_single_row_that_does_not_become_one_row_says_so(
    tmp_path: Path, settings: dict[str, Any], rows: Dataset, message: str
) -> None:
    given = {"method": "perc_pos:0.95", "num_negatives": 3, "on_exhausted": "keep"}
    miner = fitted(tmp_path, **{**given, **settings})
    with pytest.raises(InputError, match=message):
        rows.map(miner)


# ---- selections end in rows --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scores", "positive_score"), [(False, "each"), (True, "min")])
@pytest.mark.parametrize("format", OWN_FORMATS)
def test_a_selection_gives_the_rows_of_its_own_miner(
    tmp_path: Path, format: Any, scores: bool, positive_score: Any
) -> None:
    settings = {"on_exhausted": "keep", "format": format, "include_scores": scores, "positive_score": positive_score}
    miner = fitted(tmp_path, method="perc_pos:0.95", num_negatives=3, **settings)
    selection = miner.pool.select("abs:1.5", "top", n=2)
    rows = selection.to_dataset(format, include_scores=scores, on_exhausted="keep")
    other = miner.with_(method="abs:1.5", num_negatives=2).mine(ROWS.select_columns(["query", "positive"]))
    assert rows.features == other.features
    # Rows of a fit are in the order of their texts' first appearance, passages in that of the corpus.
    assert sorted(map(str, rows)) == sorted(map(str, other))
    assert all(len(texts) == count for texts, count in zip(selection.texts(), selection.counts, strict=True))


def test_a_selection_names_columns_as_the_rows_do(tmp_path: Path) -> None:
    rows = ROWS.select_columns(["query", "positive"]).rename_columns({"query": "anchor", "positive": "answer"})
    miner = NegativeMiner(LengthsTeacher(), corpus=CORPUS, cache_dir=tmp_path, progress=False).fit(rows)
    again = pickle.loads(pickle.dumps(miner))
    for one in (miner, again):
        found = one.pool.select("naive", n=2)
        assert found.to_dataset().column_names == ["anchor", "answer", "negative_1", "negative_2"]
        assert [set(row) for row in found.texts()] == [
            {row["negative_1"], row["negative_2"]} for row in found.to_dataset()
        ]


def test_a_pool_without_texts_says_so(tmp_path: Path) -> None:
    pool = fitted(tmp_path, num_negatives=1, on_exhausted="keep").pool
    pool.texts = None  # type: ignore[union-attr]
    selection = pool.select("naive", n=1)
    for ask in (selection.to_dataset, selection.texts):
        with pytest.raises(InputError, match="this pool came without its texts"):
            ask()
