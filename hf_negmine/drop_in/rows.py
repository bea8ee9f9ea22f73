"""Rows in the form of Sentence Transformers' function: grouped by anchor before mining, in its types afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.choices import Format
from hf_negmine.base.errors import ColumnError, require
from hf_negmine.data.checks import check_texts
from hf_negmine.data.sources import CorpusSource, open_corpus, pair_batches
from hf_negmine.data.writing import in_memory

ROWS_A_PIECE = 65_536
"""Few enough that their texts, as one chunk of a string column, stay under its limit of 2 GiB."""


@dataclass(frozen=True)
class Grouped:
    """Rows in the order of each anchor's first appearance, each (anchor, positive) pair once.

    Attributes:
        rows: one row per pair, or one per anchor with the list of its positives.
        anchors, pairs: the number of each.
        most_positives: the greatest number of positives of an anchor.
        positives: the unique positives.
    """

    rows: datasets.Dataset
    anchors: int
    pairs: int
    most_positives: int
    positives: pa.Array

    def most_rows(self, output_format: Format, n: int) -> int:
        """The number of rows in the result if every anchor has ``n`` negatives."""
        if output_format == "triplet":
            return self.pairs * n
        return self.pairs + self.anchors * n if output_format == "labeled-pair" else self.pairs


def choose_columns(dataset: datasets.Dataset, anchor: str | None, positive: str | None) -> tuple[str, str]:
    """The named columns; without names, the first and the second one."""
    require(
        isinstance(dataset, datasets.Dataset),
        f"dataset: expected a datasets.Dataset, got {type(dataset).__name__}"
        + ("; pass one of its splits" if isinstance(dataset, dict) else ""),
    )
    require(len(dataset) > 0, "The dataset is empty. Please provide a non-empty dataset.")
    available = dataset.column_names
    for argument, name in (("anchor_column_name", anchor), ("positive_column_name", positive)):
        if name is not None and name not in available:
            raise ColumnError(name, available, argument=argument)
    require(
        len(available) >= 2,
        f"Dataset must contain at least two columns to select the positive column automatically. It has {available}.",
    )
    anchor = anchor if anchor is not None else available[0]
    positive = positive if positive is not None else available[1]
    require(anchor != positive, f"anchor_column_name and positive_column_name are both {anchor!r}")
    return anchor, positive


def group_rows(dataset: datasets.Dataset, anchor: str, positive: str, *, as_lists: bool) -> Grouped:
    """Group the rows of each anchor; ``as_lists`` makes them one row."""
    for _ in pair_batches(dataset, anchor, positive, code="dataset"):
        pass  # refuses rows whose labels say that a passage is not relevant
    table = dataset.with_format("arrow").select_columns([anchor, positive])[:]
    anchors, positives = (_text_column(table, name) for name in (anchor, positive))
    anchor_codes, positive_codes = (
        np.asarray(column.dictionary_encode().indices).astype(np.int64) for column in (anchors, positives)
    )
    _, first = np.unique(np.stack([anchor_codes, positive_codes]), axis=1, return_index=True)
    order = first[np.lexsort((first, anchor_codes[first]))]
    codes = anchor_codes[order]
    counts = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(counts)]) if as_lists else np.arange(len(order) + 1)
    pieces = []
    for begin in range(0, len(starts) - 1, ROWS_A_PIECE):
        bounds = starts[begin : begin + ROWS_A_PIECE + 1]
        chosen = order[bounds[0] : bounds[-1]]
        texts = positives.take(pa.array(chosen)).cast(pa.string())
        if as_lists:
            texts = pa.ListArray.from_arrays(pa.array(bounds - bounds[0], pa.int32()), texts)
        queries = anchors.take(pa.array(order[bounds[:-1]])).cast(pa.string())
        pieces.append(pa.table({anchor: queries, positive: texts}))
    rows = in_memory(pa.concat_tables(pieces))
    return Grouped(rows, len(counts), len(order), int(counts.max()), positives.unique())


def _text_column(table: pa.Table, name: str) -> pa.Array:
    parts, row = [], 0
    for chunk in table[name].chunks:
        parts.append(check_texts(chunk, np.arange(row, row + len(chunk)), column=name, code="dataset"))
        row += len(chunk)
    return pa.concat_arrays(parts)


def most_negatives(n: int, positives: pa.Array, corpus: CorpusSource | None, *, include_positives: bool) -> int:
    """``n``, or as many as a smaller corpus holds besides one positive.

    A corpus of a single passage holds nothing to mine; the miner reports that.
    """
    if n < len(positives):
        return n
    passages = set(positives.to_pylist())
    for texts in open_corpus(corpus) if corpus is not None else ():
        passages.update(texts.to_pylist())
        if n < len(passages):
            return n
    most = len(passages) - (not include_positives)
    return min(n, most) if most else n


def in_their_types(mined: datasets.Dataset, anchor: str, positive: str, output_format: Format) -> datasets.Dataset:
    """Scores as float64, columns in their order, and no labeled list without a negative."""
    if output_format == "labeled-list":
        lengths = pc.list_value_length(mined.with_format("arrow")[positive])
        mined = mined.select(np.flatnonzero(np.asarray(lengths) > 1))
    names = [anchor, positive, *(name for name in mined.column_names if name not in (anchor, positive))]
    features = mined.features.copy()
    for name in ("score", "scores"):
        if name in features:
            float64 = datasets.Value("float64")
            features[name] = float64 if name == "score" else datasets.List(float64)
    mined = mined.select_columns(names)
    if not len(mined):  # which `cast` returns as they are
        return _without_rows(datasets.Features({name: features[name] for name in names}))
    return mined.cast(features) if features != mined.features else mined


def no_tuples(mined: datasets.Dataset, n: int) -> datasets.Dataset:
    """The empty ``n-tuple`` result for ``n`` negatives, if the corpus allows fewer and no row can have as many."""
    text = datasets.Value("string")
    last = {name: kind for name, kind in mined.features.items() if name == "scores"}
    first = dict.fromkeys((*mined.column_names[:2], *(f"negative_{place}" for place in range(1, n + 1))), text)
    return _without_rows(datasets.Features({**first, **last}))


def _without_rows(features: datasets.Features) -> datasets.Dataset:
    return datasets.Dataset.from_dict({name: [] for name in features}, features=features)


def notice_of_missing(found: int, wanted: int, arguments: list[str]) -> str:
    """Sentence Transformers' notice about the rows that lack negatives; empty if none does.

    ``arguments`` are the names of those that keep more negatives from being found.
    """
    missing = wanted - found
    if missing <= 0:
        return ""
    considered = " and ".join(filter(None, [", ".join(arguments[:-1]), arguments[-1]]))
    return (
        f"Could not find enough negatives for {missing} samples ({missing / wanted:.2%}). Consider adjusting the "
        f"{considered} parameter{'s' if len(arguments) > 1 else ''} if you'd like to find more valid negatives."
    )
