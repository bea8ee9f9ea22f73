"""A row with its negatives, as the dictionary that becomes a loss's columns."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import text_digests
from hf_negmine.data.formats.lists import WEIGHTS
from hf_negmine.train.reading import Feature, RowReader
from hf_negmine.train.rows import TrainingRow

Layout: TypeAlias = Literal["n-tuple", "labeled-list"]
Labels: TypeAlias = Literal["none", "scores", "keys"]


def laid_out(row: TrainingRow, name: str | None, layout: Layout, labels: Labels) -> dict[str, Any]:
    """A row under the names of a batch's columns.

    Args:
        row: a row with its negatives.
        name: the name of its data set, if the trainer gives one.
        layout: ``"n-tuple"`` (query, positive, negative_1 …), or ``"labeled-list"`` (query, documents, labels).
        labels: none, the teacher's scores, or 64-bit keys of the texts, followed by the bits of the weights, if any.

    Raises:
        InputError: the teacher's scores are wanted, and the row has none; or the row has weights, which are not read.
    """
    if row.weights is not None and labels != "keys":
        raise InputError(
            f"column {WEIGHTS!r} holds a weight per negative, which only PositiveAwareMNRL and its cached form read; "
            "train with one of them, or remove the column"
        )
    laid: dict[str, Any] = {} if name is None else {"dataset_name": name}
    laid["query"], documents = row.query, [row.positives[0], *row.negatives]
    if layout == "labeled-list":
        relevance = _scores(row) if labels == "scores" else [1.0] + [0.0] * len(row.negatives)
        return {**laid, "documents": documents, "labels": relevance}
    laid["positive"] = row.positives[0]
    laid |= {f"negative_{place}": text for place, text in enumerate(row.negatives, start=1)}
    if labels == "scores":
        laid["label"] = _scores(row)
    elif labels == "keys":
        texts = pa.array([row.query, *documents], pa.large_string())
        weights = np.array([] if row.weights is None else row.weights, dtype=np.float64)
        laid["label"] = [*text_digests(texts)[:, 0].view(np.int64).tolist(), *weights.view(np.int64).tolist()]
    return laid


def labeled_pair(feature: Feature, reader: RowReader) -> dict[str, Any]:
    """A pair with a label, which is trained on unchanged."""
    assert reader.label_column is not None
    named = {"dataset_name": feature["dataset_name"]} if "dataset_name" in feature else {}
    return {
        **named,
        "query": feature[reader.query_column],
        "positive": feature[reader.positive_column],
        "label": feature[reader.label_column],
    }


def _scores(row: TrainingRow) -> list[float]:
    scores = [row.positive_score, *row.scores]
    if not np.isfinite(scores).all():
        raise InputError(
            "labels='scores' needs a finite score of the teacher for the positive and one for each negative, and the "
            f"row with the query {row.query[:80]!r} lacks them, or has another number of scores than passages; mine "
            "with include_scores=True, or give the miner"
        )
    return scores
