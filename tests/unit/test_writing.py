"""Data sets in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from hf_negmine.data.writing import in_memory, lookup_table
from tests.reference import text_set

TABLE = pa.table({"query": ["a", "b", "c"], "score": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (pa.table({"query": ["a", "b", "c"], "score": [1.0, 2.0, 3.0]}), True),
        (pa.table({"query": ["a", "b", "d"], "score": [1.0, 2.0, 3.0]}), False),
        (pa.table({"query": ["a", "b", "c"], "score": [1.0, 2.0, 4.0]}), False),
        (pa.table({"text": ["a", "b", "c"], "score": [1.0, 2.0, 3.0]}), False),
        (TABLE.slice(1), False),
        (pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(0, 1), TABLE.slice(2)]), False),
    ],
)
def test_a_fingerprint_is_of_the_content(other: pa.Table, same: bool) -> None:
    assert (in_memory(TABLE)._fingerprint == in_memory(other)._fingerprint) is same
    assert in_memory(other)[:] == other.to_pydict()


def test_no_data_set_in_memory_is_pickled_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> str:
        raise AssertionError("datasets was left to make the fingerprint")

    monkeypatch.setattr(datasets.arrow_dataset, "generate_fingerprint", refuse)
    texts = text_set(tmp_path, ["q"], ["b"], ["a", "b"])
    corpus, queries = (lookup_table("id", "text", column) for column in (texts.corpus, texts.queries))
    assert corpus[:] == {"id": [0, 1], "text": ["a", "b"]}
    assert corpus._fingerprint != queries._fingerprint != lookup_table("id", "query", texts.queries)._fingerprint
    assert in_memory(TABLE).num_rows == 3
