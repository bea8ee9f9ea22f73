"""Adds negatives to rows from a fit on disk: to a batch, a single row, or a whole data set."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.formatting.formatting import LazyBatch
from tqdm.auto import tqdm

from hf_negmine.base.checksums import write_sealed
from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import digest_of, is_read_only, lasting_temporary_folder
from hf_negmine.data.layouts import Layout, RowNegatives, write_rows
from hf_negmine.data.sources import (
    Rows,
    check_labels,
    label_columns,
    table_batches,
    table_of,
    table_of_batch,
    take_rows,
)
from hf_negmine.data.writing import mined_features, with_columns, write_dataset
from hf_negmine.fitted import Fitted
from hf_negmine.fresh import mine_fresh
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.select.rules import settings_of_filters

ROWS_A_BATCH = 8192
PASSAGES_A_BATCH = 65_536
SINGLE_ROWS = ("n-tuple", "labeled-list", "ids")
"""Formats that turn one row into one row."""


@dataclass(frozen=True)
class Transform:
    """Adds negatives to rows.

    Attributes:
        builder: makes the pools for rows that were not part of the fit.
        fitted: the negatives of the rows that were.
    """

    builder: PoolBuilder
    fitted: Fitted

    @cached_property
    def layout(self) -> Layout:
        """The layout of written rows."""
        return self.builder.config.layout(self.fitted.query_column, self.fitted.positive_column)

    def __call__(self, batch: Mapping[str, Any] | pa.Table) -> dict[str, Any] | pa.Table:
        """See `NegativeMiner.__call__`."""
        layout = self.layout
        available = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        layout.check_columns(available, argument="map")
        if isinstance(batch, LazyBatch):
            batch = table_of_batch(batch)
        if isinstance(batch, pa.Table):
            return self._table(batch)
        if isinstance(batch[layout.query_column], str):
            return self._row({name: [value] for name, value in batch.items()})
        return self._columns(batch)

    def _table(self, batch: pa.Table) -> pa.Table:
        written = write_rows(self._negatives(batch), self.fitted.texts.corpus, self.layout)
        return with_columns(batch, written, self.layout)

    def _columns(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        layout = self.layout
        columns = layout.query_column, layout.positive_column
        names = [*columns, *label_columns(list(batch), *columns)]
        found = self._negatives(table_of({name: batch[name] for name in names}))
        written = write_rows(found, self.fitted.texts.corpus, layout)
        kept = {name: values for name, values in batch.items() if name not in layout.replaced_columns}
        result: dict[str, Any] = take_rows(kept, written.rows)
        return {**result, **{name: column.to_pylist() for name, column in written.columns.items()}}

    def _row(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        config, query = self.builder.config, batch[self.layout.query_column][0]
        if config.format not in SINGLE_ROWS:
            raise InputError(f"format {config.format!r} turns one row into several; call rows.map(miner, batched=True)")
        found = self._columns(batch)
        if (rows := len(next(iter(found.values())))) != 1:
            keep = " or mine with on_exhausted='keep'" if not rows and config.on_exhausted == "drop" else ""
            raise InputError(
                f"the row with the query {query[:80]!r} becomes {rows or 'no'} rows, and a single row can only become "
                f"one; call rows.map(miner, batched=True){keep}"
            )
        return {name: values[0] for name, values in found.items()}

    def _negatives(self, batch: pa.Table) -> RowNegatives:
        """The negatives of a batch: looked up, or mined now for rows that were not part of `fit`."""
        fitted = self.fitted
        pairs = fitted.pairs_of(batch)
        places, seen = fitted.finder.find(pairs)
        unseen_rows = np.unique(pairs.rows[~seen])
        if not len(unseen_rows):
            found = fitted.negatives(pairs, np.arange(len(pairs.rows)), places)
            more = fitted.relabelled_negatives(found)
            return found if more is None else found.joined(more)
        self.require_unchanged()
        check_labels(batch.take(pa.array(unseen_rows)), fitted.query_column, fitted.positive_column)
        fresh = mine_fresh(self.builder, fitted.texts, pairs.of_rows(unseen_rows))
        fresh = replace(fresh, queries=pairs.queries, query_ids=pairs.query_ids, rows=unseen_rows[fresh.rows])
        return fitted.negatives(pairs, np.flatnonzero(~np.isin(pairs.rows, unseen_rows)), places).joined(fresh)

    def require_unchanged(self) -> None:
        """Raise `InputError` if the teacher or a filter's teacher is no longer what it was at `fit`."""
        self.builder.require_same(self.fitted.pool_keys, self.fitted.texts)
        now, then = settings_of_filters(self.builder.config.filters), self.fitted.summary.settings.get("filters", [])
        require(
            json.dumps(now, sort_keys=True, default=str) == json.dumps(then, sort_keys=True, default=str),
            "a filter is no longer what it was at fit(): its teacher has changed since; call fit() again",
        )

    def write(self, rows: Rows) -> datasets.Dataset:
        """The rows with their negatives, as an Arrow file in the cache; see `NegativeMiner.mine`."""
        layout, config = self.layout, self.builder.config
        total = len(rows) if isinstance(rows, datasets.Dataset) else None
        batches = table_batches(rows, size=max(1, min(ROWS_A_BATCH, PASSAGES_A_BATCH // (config.num_negatives + 1))))
        first = next(batches, None)
        if first is not None:
            layout.check_columns(first.column_names, argument="mine")
        features = rows.features
        if features is None and first is not None:  # a stream may not know its features before it is read
            features = datasets.Features.from_arrow_schema(first.schema)

        def tables() -> Iterator[pa.Table]:
            with tqdm(total=total, desc="Writing", unit=" rows", disable=not config.progress, delay=1) as bar:
                for batch in itertools.chain([first] if first is not None else [], batches):
                    yield self._table(batch)
                    bar.update(len(batch))

        fit = self.fitted.folder.name
        name = digest_of("mined", fit, getattr(rows, "_fingerprint", None) or str(time.time_ns()))
        folder = config.cache_dir / "mined"
        elsewhere = is_read_only(folder)
        path = (lasting_temporary_folder() if elsewhere else folder) / f"{name}.arrow"
        mined = write_dataset(path, tables(), mined_features(features or datasets.Features(), layout))
        # Records how the rows were mined, beside the rows.
        note = {"fit": fit, **({"cache_dir": str(config.cache_dir.resolve())} if elsewhere else {})}
        write_sealed(path.with_suffix(".json"), note, [path])
        return mined
