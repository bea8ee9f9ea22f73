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

from hf_negmine.base.checksums import write_sealed
from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import digest_of, is_read_only, lasting_temporary_folder
from hf_negmine.base.progress import bar
from hf_negmine.data.formats import names_of_formats
from hf_negmine.data.formats.lists import NegativeLists
from hf_negmine.data.formats.tools import TOOLS
from hf_negmine.data.layouts import Layout, write_rows
from hf_negmine.data.pairs import RowNegatives
from hf_negmine.data.sources import (
    Reading,
    Rows,
    check_labels,
    find_format,
    label_columns,
    table_batches,
    table_of,
    table_of_batch,
    take_rows,
)
from hf_negmine.data.sources.tables import as_dataset
from hf_negmine.data.writing import features_in_format, in_format, mined_features, with_columns, write_dataset
from hf_negmine.fitted import Fitted
from hf_negmine.fresh import mine_fresh
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.select.rules import settings_of_filters

ROWS_A_BATCH = 8192
PASSAGES_A_BATCH = 65_536
SINGLE_ROWS = ("n-tuple", "labeled-list", "ids", *TOOLS)
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
        if isinstance(batch, LazyBatch):
            batch = table_of_batch(batch)
        elif not isinstance(batch, Mapping | pa.Table):
            # A data set in the format of pandas or polars passes its frames.
            if (opened := as_dataset(batch, "map")) is None:
                raise InputError(f"map: expected a batch of rows, got {type(batch).__name__}")
            batch = opened[0].with_format("arrow")[:]
        if isinstance(batch, pa.Table):
            return self._table(batch, self._reading(batch.schema, "map"))
        if _is_row(batch, self.layout.query_column):
            return self._row({name: [value] for name, value in batch.items()})
        return self._columns(batch)

    def _reading(self, schema: pa.Schema, argument: str) -> Reading:
        """How rows with these columns are read as those that the miner was fitted on."""
        fitted = self.fitted.query_column, self.fitted.positive_column
        query, positive = (name if name in schema.names else None for name in fitted)
        reading = Reading(*fitted, find_format(schema, query, positive, self.builder.config.rows_format))
        self.layout.check_columns(reading.plain_columns(schema.names), argument=argument)
        return reading

    def _own_format(self, reading: Reading) -> NegativeLists | None:
        """The format of the rows, if it is also the one to write."""
        own = reading.format
        return own if isinstance(own, NegativeLists) and self.layout.tool and own.name == self.layout.format else None

    def _table(self, batch: pa.Table, reading: Reading) -> pa.Table:
        plain, layout = reading.plain(batch), self.layout
        written = write_rows(self._negatives(plain), self.fitted.texts.corpus, layout)
        own = self._own_format(reading)
        return with_columns(plain, written, layout) if own is None else in_format(batch, written, layout, own)

    def features(self, features: datasets.Features) -> datasets.Features:
        """The features of mined rows, derived from those of the rows."""
        reading = self._reading(features.arrow_schema, "features")
        own = self._own_format(reading)
        if own is not None:
            return features_in_format(features, self.layout, own)
        return mined_features(reading.features(features), self.layout)

    def _columns(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        layout = self.layout
        columns = layout.query_column, layout.positive_column
        names = dict.fromkeys([*(name for name in columns if name in batch), *names_of_formats(batch)])
        reading = self._reading(table_of({name: batch[name] for name in names}).schema, "map")
        if reading.format is not None or layout.tool is not None:
            found: dict[str, Any] = self._table(table_of(batch), reading).to_pydict()
            return found
        layout.check_columns(list(batch), argument="map")
        named = [*columns, *label_columns(list(batch), *columns)]
        negatives = self._negatives(table_of({name: batch[name] for name in named}))
        written = write_rows(negatives, self.fitted.texts.corpus, layout)
        kept = {name: values for name, values in batch.items() if name not in layout.replaced_columns}
        result: dict[str, Any] = take_rows(kept, written.rows)
        return {**result, **{name: column.to_pylist() for name, column in written.columns.items()}}

    def _row(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        config = self.builder.config
        if config.format not in SINGLE_ROWS:
            raise InputError(f"format {config.format!r} turns one row into several; call rows.map(miner, batched=True)")
        found = self._columns(batch)
        if (rows := len(next(iter(found.values())))) != 1:
            query = batch.get(self.layout.query_column, next(iter(batch.values())))[0]
            keep = " or mine with on_exhausted='keep'" if not rows and config.on_exhausted == "drop" else ""
            raise InputError(
                f"the row with the query {str(query)[:80]!r} becomes {rows or 'no'} rows, and a single row can only "
                f"become one; call rows.map(miner, batched=True){keep}"
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
        config = self.builder.config
        total = len(rows) if isinstance(rows, datasets.Dataset) else None
        batches = table_batches(rows, size=max(1, min(ROWS_A_BATCH, PASSAGES_A_BATCH // (config.num_negatives + 1))))
        first = next(batches, None)
        features = rows.features
        if features is None and first is not None:  # a stream may not know its features before it is read
            features = datasets.Features.from_arrow_schema(first.schema)
        reading = None if features is None else self._reading(features.arrow_schema, "mine")

        def tables() -> Iterator[pa.Table]:
            with bar("Writing", "rows", total, shown=config.progress) as written:
                for batch in itertools.chain([first] if first is not None else [], batches):
                    assert reading is not None
                    yield self._table(batch, reading)
                    written.update(len(batch))

        fit = self.fitted.folder.name
        name = digest_of("mined", fit, getattr(rows, "_fingerprint", None) or str(time.time_ns()))
        folder = config.cache_dir / "mined"
        elsewhere = is_read_only(folder)
        path = (lasting_temporary_folder() if elsewhere else folder) / f"{name}.arrow"
        kinds = mined_features(datasets.Features(), self.layout) if features is None else self.features(features)
        mined = write_dataset(path, tables(), kinds)
        # Records how the rows were mined, beside the rows.
        note = {"fit": fit, **({"cache_dir": str(config.cache_dir.resolve())} if elsewhere else {})}
        write_sealed(path.with_suffix(".json"), note, [path])
        return mined


def _is_row(batch: Mapping[str, Any], query_column: str) -> bool:
    """Whether this is one row: its query is a text, or messages, rather than a list of these."""
    names = [query_column, *(name for tool in TOOLS.values() for name in tool.queries)]
    query = next((batch[name] for name in names if name in batch), None)
    return isinstance(query, str) or (isinstance(query, list) and bool(query) and isinstance(query[0], Mapping))
