"""The collator reads rows of other tools as the miner does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.data.formats import format_of
from hf_negmine.data.formats.cells import passage_texts
from hf_negmine.data.formats.tools import TOOLS
from hf_negmine.train import HardNegativeCollator
from hf_negmine.train.reading import RowReader, feature_batches
from tests.properties.test_formats import ROWS, as_rows, table_in
from tests.train.helpers import load_model
from tests.unit.test_formats_of_tools import rows_of


@pytest.mark.parametrize("name", TOOLS)
@given(ROWS)
def test_a_row_is_read_as_in_a_table(name: str, rows: list[tuple[str, list[str], list[str]]]) -> None:
    table = table_in(name, rows)
    reader = RowReader(table.column_names)
    found = [reader.read(row) for row in table.to_pylist()]
    read = [(row.query, row.positives, row.negatives) for row in found]
    expected = as_rows(format_of(table.schema).read(table))
    assert read == expected
    assert [row.weights for row in found] == table["weights"].to_pylist()
    if name == "flagembedding":  # scores count if the positive has one, too
        assert all(math.isnan(score) for row in found for score in row.scores)
        scored = table.append_column("pos_scores", [[[0.5] * len(row.positives) for row in found]])
        assert [score for row in scored.to_pylist() for score in RowReader(scored.column_names).read(row).scores] == [
            score for scores in table["neg_scores"].to_pylist() for score in scores
        ]


@given(st.text(), st.text().filter(str.strip))
def test_titles_and_messages_are_joined_as_in_a_table(title: str, text: str) -> None:
    for cell in (
        {"title": title, "text": text},
        [{"role": "system", "content": title}, {"role": "user", "content": text}],
    ):
        rows = Dataset.from_list([{"query": "q", "positive_passages": [cell]}])
        try:
            read = format_of(rows.features.arrow_schema, "tevatron").read(rows.with_format("arrow")[:])
        except InputError:  # a character that is not valid UTF-8
            continue
        assert passage_texts([cell], "positive_passages") == read.positives.to_pylist()


@pytest.mark.parametrize("name", [name for name in TOOLS if name != "swift"])
def test_a_batch_is_made_of_rows_of_a_tool(name: str, models: Path) -> None:
    collator = HardNegativeCollator(load_model(models), num_negatives=1)
    collator.set_epoch(0)
    features = next(iter(feature_batches(Dataset.from_list(rows_of(name)))))
    batch = collator(features)
    assert {key.split("_input_ids")[0] for key in batch if key.endswith("_input_ids")} >= {"query", "positive"}
    assert batch["query_input_ids"].shape[0] == len(features)
    collator._check(Dataset.from_list(rows_of(name)), progress=False)


@pytest.mark.parametrize("name", ["tevatron", "dpr", "swift"])
def test_rows_without_negatives_take_those_of_a_miner(name: str, models: Path, tmp_path: Path) -> None:
    own = TOOLS[name].negatives
    rows = Dataset.from_list([{key: value for key, value in row.items() if key not in own} for row in rows_of(name)])
    miner = NegativeMiner("bm25", method="naive", num_negatives=1, cache_dir=tmp_path, progress=False).fit(rows)
    collator = HardNegativeCollator(load_model(models), negatives=miner)
    collator.set_epoch(0)
    batch = collator(next(iter(feature_batches(rows))))
    assert batch["negative_1_input_ids"].shape[0] == len(rows)


def test_named_columns_win_and_wrong_cells_are_refused() -> None:
    reader = RowReader(["query", "pos", "neg", "other"], query_column="other", positive_column="pos")
    assert (reader.tool, reader.query_column) == (None, "other")
    reader = RowReader(["query", "positive_passages", "negative_passages"])
    row = {"query": "q", "positive_passages": [{"text": "p"}], "negative_passages": [{"body": "n"}]}
    with pytest.raises(InputError, match=r"'negative_passages' holds {'body': 'n'}, expected text, passages"):
        reader.read(row)
    with pytest.raises(InputError, match="'positive_passages' holds no positive for 'q'"):
        reader.read({**row, "positive_passages": []})
