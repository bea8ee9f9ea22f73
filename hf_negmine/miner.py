"""`NegativeMiner`: the rooms joined, as a transform for ``dataset.map`` and as one call."""

from __future__ import annotations

import inspect
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import datasets
import numpy as np
import pyarrow as pa
from datasets.formatting.formatting import LazyBatch
from tqdm.auto import tqdm

from hf_negmine import steps
from hf_negmine.base.checksums import write_sealed
from hf_negmine.base.errors import FrozenError, InputError, NotFittedError, require
from hf_negmine.base.files import digest_of, is_read_only, lasting_temporary_folder
from hf_negmine.base.protocols import Searcher
from hf_negmine.config import MiningConfig
from hf_negmine.data.layouts import Layout, RowNegatives, write_rows
from hf_negmine.data.pairs import RowPairs
from hf_negmine.data.sources import (
    CorpusSource,
    Rows,
    RowSource,
    check_labels,
    label_columns,
    open_rows,
    table_batches,
    table_of,
    table_of_batch,
    take_rows,
)
from hf_negmine.data.writing import lookup_table, mined_features, with_columns, write_dataset
from hf_negmine.fitted import Fitted
from hf_negmine.fresh import mine_fresh
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.report.summary import MiningSummary
from hf_negmine.select.ensembles import Ensemble
from hf_negmine.select.judge import NotRelevant
from hf_negmine.select.rules import settings_of_filters

ROWS_A_BATCH = 8192
PASSAGES_A_BATCH = 65_536
SINGLE_ROWS = ("n-tuple", "labeled-list", "ids")
"""Formats that make one row of one row."""

P = ParamSpec("P")


def _taking(config: Callable[P, object]) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Give ``__init__`` the signature of what it makes, so that settings are listed once."""

    def typed(init: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature = inspect.signature(config)
        init.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
        return init

    return typed


class NegativeMiner:
    """Mines hard negatives for rows of (query, positive).

    ``miner.fit(rows)`` encodes, searches and selects, all of it on disk and resumable; then ``rows.map(miner,
    batched=True)`` adds the negatives, or ``miner.mine(rows)`` does everything at once.

    Its arguments are those of `MiningConfig`: a teacher, and by name ``method``, ``sampler``, ``num_negatives``,
    ``filters``, ``corpus``, ``format`` and the others. They cannot be assigned afterwards, since results are kept under
    them; `with_` makes another miner.

    Attributes:
        config: all settings.
    """

    config: MiningConfig

    @_taking(MiningConfig)
    def __init__(self, *teacher: Any, **settings: Any) -> None:
        self._take(MiningConfig(*teacher, **settings))

    @classmethod
    def from_config(cls, config: MiningConfig) -> NegativeMiner:
        """A miner with these settings."""
        miner = cls.__new__(cls)
        miner._take(config)
        return miner

    def with_(self, **changes: Any) -> NegativeMiner:
        """Another miner with some other settings; it takes from the cache what both have in common."""
        return self.from_config(replace(self.config, **changes))

    def _take(self, config: MiningConfig) -> None:
        self.__dict__["config"] = config
        self._has_corpus = config.corpus is not None
        self._folder: Path | None = None
        self._pool: CandidatePool | EnsemblePool | None = None
        self._summary: MiningSummary | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise FrozenError(
                f"{name} = {value!r:.60}: a miner's settings are fixed, since what it mines is kept under them; make "
                f"another one, miner.with_({name}=…), which takes from the cache what both have in common"
            )
        super().__setattr__(name, value)

    # ---- fitting -----------------------------------------------------------------------------------------------

    def fit(
        self,
        rows: RowSource | None = None,
        *,
        corpus: CorpusSource | None = None,
        split: str | None = None,
        config_name: str | None = None,
    ) -> NegativeMiner:
        """Encode, search and select for ``rows``; everything is kept on disk, and a killed run continues.

        Args:
            rows: a data set, a file, a BEIR folder, a Hub id. None fits on the corpus alone, for rows that come later.
            corpus: passages to search, besides the positives; None takes the one given to the miner, or the positives.
            split: of a DatasetDict, a Hub data set or a BEIR folder.
            config_name: of a Hub data set that has several.

        Raises:
            InputError: rows or arguments that cannot be used.
            TeacherError: a teacher that gives something else than finite numbers of the right shape.
            StorageError: a cache folder that is full, read-only, damaged or of another version.
            ExhaustedError: queries without enough eligible passages, under ``on_exhausted="error"``.
        """
        if corpus is None and self.config.corpus is None and self._has_corpus:
            raise InputError("fit: the miner's corpus is not part of its copies; give it as corpus=")
        done = steps.fit(self._builder, rows, corpus, split=split, config_name=config_name)
        # Only now: a fit that fails leaves the miner as it was.
        self._folder, self._summary, self._pool = done.folder, done.summary, done.pool
        self.__dict__.pop("fitted", None)
        return self

    @property
    def pool(self) -> CandidatePool | EnsemblePool:
        """The candidate pool, to select from again: ``miner.pool.select("margin_pos:0.05", "sampled:10", n=4)``.

        It keeps the miner's filters and its consistency rule, and leaves out what a judge called relevant at `fit`,
        without asking the judge again.
        """
        if self._pool is None:
            fitted, texts = self.fitted, self.fitted.texts
            if not len(texts.queries):
                raise InputError("pool: the miner is fitted on a corpus alone, so there are no queries to select for")
            self._require_unchanged()
            judge, relevant = str(self.config.judge), fitted.relevant
            left_out = None if relevant is None else NotRelevant.of(judge, relevant, len(texts.corpus))
            self._pool = self._builder.pool(texts, (fitted.query_column, fitted.positive_column), left_out)
        return self._pool

    @property
    def summary(self) -> MiningSummary:
        """What was mined and how; print it."""
        return self._summary or self.fitted.summary

    @property
    def queries(self) -> datasets.Dataset:
        """Lookup table of the queries (query_id, query), for format ``ids``."""
        return lookup_table("query_id", "query", self.fitted.texts.queries)

    @property
    def corpus(self) -> datasets.Dataset:
        """Lookup table of the passages (document_id, document), for format ``ids``."""
        return lookup_table("document_id", "document", self.fitted.texts.corpus)

    # ---- mining ------------------------------------------------------------------------------------------------

    def __call__(self, batch: Mapping[str, Any] | pa.Table) -> dict[str, Any] | pa.Table:
        """Rows with their negatives, for ``rows.map(miner, batched=True)``.

        ``rows.map(miner)`` does as well where a row becomes one row: in the formats ``n-tuple``, ``labeled-list`` and
        ``ids``, if no row has to be dropped.

        Args:
            batch: columns of equal length, as ``map(batched=True)`` hands them, an Arrow table, or a single row.

        Returns:
            All columns of the batch (rows may be fewer or more), and the new ones, except that format ``ids`` leaves
            the two text columns out. An Arrow table for one, and for what ``map`` hands over: a table keeps its types
            where no row is left, or a column holds nothing but nulls. A dictionary for a dictionary, as streams and
            data sets formatted for NumPy or PyTorch hand them: there give ``map(features=miner.features(rows))``, and
            with format ``ids`` the names of the text columns as ``map(remove_columns=…)``, too. The same for single
            rows.

        Raises:
            NotFittedError: before `fit`.
            InputError: a batch without the columns that the miner was fitted on, or a row that becomes none or several.
        """
        layout = self._layout
        available = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        layout.check_columns(available, argument="map")
        if isinstance(batch, LazyBatch):
            batch = table_of_batch(batch)
        if isinstance(batch, pa.Table):
            return with_columns(batch, write_rows(self._negatives(batch), self.fitted.texts.corpus, layout), layout)
        if isinstance(batch[layout.query_column], str):
            return self._row({name: [value] for name, value in batch.items()})
        return self._columns(batch)

    def _columns(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        layout = self._layout
        columns = layout.query_column, layout.positive_column
        names = [*columns, *label_columns(list(batch), *columns)]
        found = self._negatives(table_of({name: batch[name] for name in names}))
        written = write_rows(found, self.fitted.texts.corpus, layout)
        kept = {name: values for name, values in batch.items() if name not in layout.replaced_columns}
        result: dict[str, Any] = take_rows(kept, written.rows)
        return {**result, **{name: column.to_pylist() for name, column in written.columns.items()}}

    def _row(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        config, query = self.config, batch[self._layout.query_column][0]
        if config.format not in SINGLE_ROWS:
            raise InputError(f"format {config.format!r} makes several rows of one; call rows.map(miner, batched=True)")
        found = self._columns(batch)
        if (rows := len(next(iter(found.values())))) != 1:
            keep = " or mine with on_exhausted='keep'" if not rows and config.on_exhausted == "drop" else ""
            raise InputError(
                f"the row with the query {query[:80]!r} becomes {rows or 'no'} rows, and a single row can only become "
                f"one; call rows.map(miner, batched=True){keep}"
            )
        return {name: values[0] for name, values in found.items()}

    def mine(
        self,
        rows: RowSource,
        *,
        corpus: CorpusSource | None = None,
        split: str | None = None,
        config_name: str | None = None,
    ) -> datasets.Dataset:
        """``rows`` with their negatives, fitting first if the miner is not fitted yet; `summary` says how it went.

        The result lies in the cache folder as an Arrow file and is memory-mapped; if that cannot be written to, in a
        folder for temporary files until the process ends. For the arguments see `fit`.
        """
        config = self.config
        if self._folder is None:
            self.fit(rows, corpus=corpus, split=split, config_name=config_name)
        elif corpus is not None:
            raise InputError("mine: the miner is fitted already; give another corpus to fit()")
        columns = config.query_column, config.positive_column
        opened = open_rows(rows, split=split, config_name=config_name, named=columns).rows
        started = time.perf_counter()
        mined = self._write_dataset(opened)
        seconds = {**self.summary.seconds, "write": round(time.perf_counter() - started, 3)}
        self._summary = replace(self.summary, rows_written=len(mined), seconds=seconds)
        return mined

    def features(self, rows: Rows) -> datasets.Features:
        """Features of the result, for ``rows.map(miner, batched=True, features=miner.features(rows))``."""
        return mined_features(rows.features or datasets.Features(), self._layout)

    def _negatives(self, batch: pa.Table) -> RowNegatives:
        """The negatives of a batch, looked up, or mined now for rows that were not part of `fit`."""
        fitted = self.fitted
        pairs = fitted.pairs_of(batch)
        places, seen = fitted.finder.find(pairs)
        unseen_rows = np.unique(pairs.rows[~seen])
        if not len(unseen_rows):
            found = fitted.negatives(pairs, np.arange(len(pairs.rows)), places)
            more = fitted.relabelled_negatives(found)
            return found if more is None else found.joined(more)
        self._require_unchanged()
        check_labels(batch.take(pa.array(unseen_rows)), fitted.query_column, fitted.positive_column)
        fresh = self.mine_fresh(pairs.of_rows(unseen_rows))
        fresh = replace(fresh, queries=pairs.queries, query_ids=pairs.query_ids, rows=unseen_rows[fresh.rows])
        return fitted.negatives(pairs, np.flatnonzero(~np.isin(pairs.rows, unseen_rows)), places).joined(fresh)

    def mine_fresh(self, pairs: RowPairs, **changes: Any) -> RowNegatives:
        """Negatives of rows that were not part of `fit`; see `fresh.mine_fresh`."""
        return mine_fresh(self._builder, self.fitted.texts, pairs, **changes)

    def _write_dataset(self, rows: Rows) -> datasets.Dataset:
        layout, config = self._layout, self.config
        total = len(rows) if isinstance(rows, datasets.Dataset) else None
        batches = table_batches(rows, size=max(1, min(ROWS_A_BATCH, PASSAGES_A_BATCH // (config.num_negatives + 1))))
        first = next(batches, None)
        if first is not None:
            layout.check_columns(first.column_names, argument="mine")
        features = rows.features
        if features is None and first is not None:  # a stream need not know its features before it is read
            features = datasets.Features.from_arrow_schema(first.schema)

        def tables() -> Iterator[pa.Table]:
            with tqdm(total=total, desc="Writing", unit=" rows", disable=not config.progress, delay=1) as bar:
                for batch in itertools.chain([first] if first is not None else [], batches):
                    written = write_rows(self._negatives(batch), self.fitted.texts.corpus, layout)
                    yield with_columns(batch, written, layout)
                    bar.update(len(batch))

        fit = self.fitted.folder.name
        name = digest_of("mined", fit, getattr(rows, "_fingerprint", None) or str(time.time_ns()))
        folder = config.cache_dir / "mined"
        elsewhere = is_read_only(folder)
        path = (lasting_temporary_folder() if elsewhere else folder) / f"{name}.arrow"
        mined = write_dataset(path, tables(), mined_features(features or datasets.Features(), layout))
        # So that the rows alone tell how they were mined.
        note = {"fit": fit, **({"cache_dir": str(config.cache_dir.resolve())} if elsewhere else {})}
        write_sealed(path.with_suffix(".json"), note, [path])
        return mined

    # ---- what is fitted ----------------------------------------------------------------------------------------

    @cached_property
    def fitted(self) -> Fitted:
        """What `fit` left on disk, opened.

        Raises:
            NotFittedError: before `fit`.
        """
        if self._folder is None:
            raise NotFittedError("the miner is not fitted: call miner.fit(rows) first, or miner.mine(rows) for both")
        return Fitted.open(self._folder, self.config.cache_dir / "texts")

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has been called."""
        return self._folder is not None

    def open_searcher(self) -> Searcher:
        """The teacher's searcher over what the miner is fitted on.

        Raises:
            InputError: an ensemble, which has several.
        """
        teacher = self.config.teacher
        if isinstance(teacher, Ensemble):
            raise InputError(f"{teacher.name} has a searcher for each of its teachers, and none of its own")
        return self._builder.searcher(teacher, self.fitted.texts)

    @cached_property
    def _builder(self) -> PoolBuilder:
        return PoolBuilder(self.config)

    @property
    def _layout(self) -> Layout:
        return self.config.layout(self.fitted.query_column, self.fitted.positive_column)

    def _require_unchanged(self) -> None:
        """Raise `InputError` if the teacher, or that of a filter, is no longer what it was at `fit`."""
        self._builder.require_same(self.fitted.pool_keys, self.fitted.texts)
        now, then = settings_of_filters(self.config.filters), self.fitted.summary.settings.get("filters", [])
        require(
            json.dumps(now, sort_keys=True, default=str) == json.dumps(then, sort_keys=True, default=str),
            "a filter is no longer what it was at fit(): its teacher has changed since; call fit() again",
        )

    def __getstate__(self) -> dict[str, Any]:
        """A path and settings, never arrays: ``map(num_proc=…)`` sends it to every process, and hashes it."""
        config = self.config if self._folder is None else self.config.without_corpus()
        kept = {"config": config, "_has_corpus": self._has_corpus, "_folder": self._folder}
        return {**kept, "library_version": version("hf_negmine")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._take(state["config"])
        self._has_corpus, self._folder = state["_has_corpus"], state["_folder"]

    def __repr__(self) -> str:
        config = self.config
        fitted = "not fitted" if self._folder is None else f"fitted on {self.fitted.summary.rows:,} rows"
        settings = f"{config.teacher.name!r}, {config.method}, {config.sampler}, n={config.num_negatives}"
        return f"NegativeMiner({settings}, {fitted})"
