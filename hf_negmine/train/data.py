"""The data that ``hf-negmine train`` trains on: rows with their own negatives, or rows that are mined first."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.wording import rules_of
from hf_negmine.data.formats.lists import WEIGHTS
from hf_negmine.data.sources import choose_columns, open_rows, pair_batches
from hf_negmine.data.writing import in_memory
from hf_negmine.miner import NegativeMiner
from hf_negmine.report.summary import MiningSummary
from hf_negmine.train.reading import LookupTables, RowReader, feature_batches, one_length


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on, and where their negatives come from.

    Attributes:
        rows: rows in a format that `HardNegativeCollator` takes.
        collating: arguments of the collator.
        summary: how the negatives were mined; None if it was not recorded.
        left_out: number of rows that are not trained on because they have no negative.
        miner: the miner that provides the negatives; None for rows that hold their own.
    """

    rows: datasets.Dataset
    collating: dict[str, Any] = field(default_factory=dict)
    summary: MiningSummary | None = None
    left_out: int = 0
    miner: NegativeMiner | None = None

    @classmethod
    def to_be_mined(
        cls, rows: str | Path, miner: NegativeMiner, *, split: str | None = None, config_name: str | None = None
    ) -> TrainingData:
        """Plain rows of (query, positive), whose negatives are mined now and redrawn every epoch."""
        mined = miner.mine(rows, split=split, config_name=config_name)
        summary, columns = miner.summary, [miner.fitted.query_column, miner.fitted.positive_column]
        if not len(mined):
            settings = summary.settings
            raise InputError(
                f"no row is left to train on: of {summary.rows:,} rows none has {settings['num_negatives']} negatives "
                f"under {rules_of(settings)}; relax the method or ask for fewer"
            )
        left_out = summary.rows - len(mined)
        return cls(mined.select_columns(columns), {"fill": "random"}, summary, max(left_out, 0), miner)

    @classmethod
    def of_mined(
        cls,
        rows: datasets.Dataset,
        *,
        lookups: tuple[datasets.Dataset, datasets.Dataset] | None = None,
        summary: MiningSummary | None = None,
        only: str | Path | None = None,
        split: str | None = None,
        config_name: str | None = None,
        query_column: str | None = None,
        positive_column: str | None = None,
        num_negatives: int | None = None,
        sampler: Sampler | str | None = None,
    ) -> TrainingData:
        """Rows with their own negatives, in any mined format; pairs with a label become one list per query.

        Args:
            rows: the mined rows; those without any negative are left out.
            lookups: queries and corpus of format ``ids``.
            summary: how they were mined.
            only: rows of (query, positive) to train on; others are left out.
            split, config_name: those of ``only``.
            query_column, positive_column: those of ``rows``; may be left out for ``query`` and ``positive``, or if
                there is no other text.
            num_negatives: negatives per row; None takes all columns, or the summary's number.
            sampler: redraws them every epoch from those of the row; None takes the first.
        """
        columns = list(rows.column_names)
        if query_column is None and positive_column is None and {"query", "positive"} <= set(columns):
            query_column, positive_column = "query", "positive"
        tables = None if lookups is None else LookupTables(*lookups)
        reader = RowReader(columns, query_column=query_column, positive_column=positive_column, lookups=tables)
        rows = _rows_with_negatives(rows, reader)
        wanted = None if only is None else _pairs_of(only, split, config_name, query_column, positive_column)
        places, rooms, left_out = [], set(), 0
        for place, feature in enumerate(itertools.chain.from_iterable(feature_batches(rows))):
            row = reader.read(feature)
            row.drop_known_positives()
            if wanted is not None and not any((row.query, positive) in wanted for positive in row.positives):
                continue
            if row.negatives:
                places.append(place)
                rooms.add(row.room)
            else:
                left_out += 1
        if not places:
            among = "" if only is None else f" that are in {only}"
            raise InputError(f"none of the {len(rows):,} mined rows{among} has a negative to train with")
        if num_negatives is None and len(rooms) > 1 and summary is not None:
            num_negatives = int(summary.settings["num_negatives"])
        if num_negatives is None:
            num_negatives = one_length(rooms)
        collating: dict[str, Any] = {"num_negatives": num_negatives, "sampler": sampler}
        if reader.is_ids and lookups is not None:
            collating |= {"queries": lookups[0], "corpus": lookups[1]}
        else:
            collating |= {"query_column": reader.query_column, "positive_column": reader.positive_column}
        return cls(rows.select(places) if len(places) < len(rows) else rows, collating, summary, left_out)

    @property
    def num_negatives(self) -> int:
        """Negatives per row."""
        n: int = self.collating["num_negatives"] if self.miner is None else self.miner.config.num_negatives
        return n


def _rows_with_negatives(rows: datasets.Dataset, reader: RowReader) -> datasets.Dataset:
    """The columns to train on; pairs with a label are turned into lists.

    Raises:
        InputError: the rows have no negatives.
    """
    columns = list(rows.column_names)
    if reader.is_ids:
        return rows.select_columns([name for name in ("query_id", "document_ids", "scores") if name in columns])
    pair = [reader.query_column, reader.positive_column]
    if reader.negative_columns:
        about = [name for name in (*reader.score_columns, WEIGHTS) if name in columns]
        return rows.select_columns([*pair, *reader.negative_columns, *about])
    if reader.label_column is None:
        raise InputError(
            f"the rows have no negatives, their columns are {columns}; give --teacher, so that they are mined first, "
            "or --mined with the output of hf-negmine mine"
        )
    rows = rows.select_columns([*pair, reader.label_column])
    is_pairs = getattr(rows.features[reader.positive_column], "dtype", "") in ("string", "large_string")
    return _lists_of_pairs(rows, reader) if is_pairs else rows


def _lists_of_pairs(rows: datasets.Dataset, reader: RowReader) -> datasets.Dataset:
    """One row per query, with the lists of its passages and labels."""
    query, passage, label = reader.query_column, reader.positive_column, str(reader.label_column)
    what = f"the rows are pairs with a label ({list(rows.column_names)})"
    if label not in ("label", "labels"):
        raise InputError(
            f"{what} that is a score, which does not tell which passage is the positive; mine without "
            "--include-scores, or with another --format, such as n-tuple"
        )
    kind = getattr(rows.features[label], "dtype", "list")
    if not kind.startswith(("int", "uint", "float", "bool")):
        raise InputError(f"column {label!r} holds {kind}, expected a number per pair, over 0 for a positive")
    table = rows.with_format("arrow")[:]
    if not pc.any(pc.less_equal(table[label].cast("float64"), 0.0)).as_py():
        raise InputError(f"{what}, none of which is 0, so there are no negatives; mine with another --format")
    lists = table.group_by(query, use_threads=False).aggregate([(passage, "list"), (label, "list")])
    return in_memory(lists.rename_columns([query, passage, label]))


def _pairs_of(
    source: str | Path,
    split: str | None,
    config_name: str | None,
    query_column: str | None,
    positive_column: str | None,
) -> set[tuple[str, str]]:
    opened = open_rows(source, split=split, config_name=config_name, named=(query_column, positive_column))
    known_query, known_positive = opened.columns
    available = list(opened.rows.column_names or [])
    query, positive = (
        name if name in available else None for name in (query_column or known_query, positive_column or known_positive)
    )
    query, positive = choose_columns(opened.rows, query, positive)
    pairs: set[tuple[str, str]] = set()
    for queries, positives in pair_batches(opened.rows, query, positive, code=opened.code):
        for text, found in zip(queries.to_pylist(), positives.to_pylist(), strict=True):
            pairs.update((text, one) for one in ([found] if isinstance(found, str) else found or []))
    return pairs
