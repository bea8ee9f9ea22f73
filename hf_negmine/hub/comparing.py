"""Rows that were pushed, compared with those that come out when they are mined again."""

from __future__ import annotations

import itertools
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.schema import DigestArray, IdArray
from hf_negmine.config import MiningConfig
from hf_negmine.data.sources import table_batches
from hf_negmine.data.texts import find_digests, sort_digests
from hf_negmine.data.writing import in_memory
from hf_negmine.hub.load import HubData
from hf_negmine.hub.provenance import row_digests


def columns_of_mining(data: HubData, config: MiningConfig, repo_id: str) -> list[str]:
    """The columns that mining again writes; `InputError` unless the pushed rows have all of them."""
    query, positive = data.provenance.columns
    layout = config.layout(query, positive)
    require(
        layout.tool is None,
        f"reproduce: the rows of {repo_id} are in format {config.format!r}, whose rows may hold several pairs; "
        "only the formats of Sentence Transformers and 'ids' are compared, pair by pair",
    )
    columns = [*([] if query in layout.replaced_columns else [query]), *layout.new_columns]
    if lacking := [name for name in columns if name not in data.rows.column_names]:
        raise InputError(
            f"reproduce: the rows of {repo_id} have the columns {data.rows.column_names} and lack {lacking[:4]}, which "
            f"format {config.format!r} writes, so there is nothing to compare; push the rows under the names that "
            "mine gave them"
        )
    return columns


def compared(data: HubData, mined: datasets.Dataset, repo_id: str) -> tuple[int, int, int]:
    """The numbers of pushed rows that did not come out again, of surplus copies, and of other rows that came out.

    A row comes out once for each (query, positive) pair, and was pushed once for each row that was given: as many
    copies are legitimate as rows were given beyond the pairs. A negative of format ``labeled-pair`` is shared by the
    positives that were given in one row, and may therefore occur less often than it came out.
    """
    settings, (_, positive) = data.settings, data.provenance.columns
    shared = settings["format"] == "labeled-pair"
    facts, rows = _facts(_with_types_of(data.rows.select_columns(mined.column_names), mined, repo_id), positive)
    facts_again, _ = _facts(mined, positive)
    _, ordered = sort_digests(np.unique(facts_again, axis=0))
    came = np.bincount(find_digests(ordered, facts_again), minlength=len(ordered))
    place = find_digests(ordered, facts)
    missing = len(np.unique(rows[place < 0]))
    there = np.bincount(place[place >= 0], minlength=len(ordered))
    of_a_pair = {"triplet": settings["num_negatives"], "labeled-pair": settings["num_negatives"] + 1}
    assert data.pairs is not None
    given_again = max(0, data.summary.rows - len(data.pairs)) * of_a_pair.get(settings["format"], 1)
    repeated = int(np.maximum(there - came, 0).sum())
    left_out = int(np.maximum((np.minimum(came, 1) if shared else came) - there, 0).sum())
    return missing, repeated if repeated > given_again else 0, left_out


def _with_types_of(pushed: datasets.Dataset, mined: datasets.Dataset, repo_id: str) -> datasets.Dataset:
    """The pushed rows with the types of mined rows, since a column may have been cast before the push."""
    table = pushed.with_format("arrow")[:]
    try:
        return in_memory(table.cast(mined.data.table.schema.remove_metadata()))
    except pa.ArrowException as error:
        raise InputError(
            f"reproduce: the rows of {repo_id} have the types {pushed.data.table.schema.types}, expected those of "
            f"mined rows, {mined.data.table.schema.types}; push the rows as mine gave them"
        ) from error


def _facts(rows: datasets.Dataset, positive: str) -> tuple[DigestArray, IdArray]:
    """The facts stated by rows, as digests, and the row of each."""
    is_labeled = "labels" in rows.column_names and positive in rows.column_names
    digests, counts = [np.empty((0, 2), dtype=np.uint64)], []
    for table in table_batches(rows):
        facts = [_facts_of_list(row, positive) if is_labeled else [row] for row in table.to_pylist()]
        counts += [len(some) for some in facts]
        digests.append(row_digests(itertools.chain.from_iterable(facts)))
    return np.concatenate(digests), np.repeat(np.arange(len(counts)), counts)


def _facts_of_list(row: dict[str, Any], positive: str) -> list[dict[str, Any]]:
    """A labeled list as one fact per positive; without a positive it states something, too.

    Mining again has one positive per row, but the first time may have had several.
    """
    marked = list(zip(row[positive] or [], row.pop("labels") or [], strict=False))
    negatives = [text for text, label in marked if not label]
    positives = [text for text, label in marked if label] or [None]
    return [{**row, positive: text, "negatives": negatives} for text in positives]
