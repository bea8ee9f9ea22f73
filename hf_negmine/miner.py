"""`NegativeMiner` joins the rooms: a transform for ``dataset.map``, and one call for everything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from hf_negmine import steps
from hf_negmine.base.defaults import SWEPT_METHODS, SWEPT_SAMPLERS, TOLERANCE
from hf_negmine.base.errors import FrozenError, InputError, NotFittedError
from hf_negmine.base.protocols import Role, Sampler, Searcher
from hf_negmine.base.schema import FloatArray
from hf_negmine.config import MiningConfig, taking
from hf_negmine.data.pairs import RowNegatives, RowPairs
from hf_negmine.data.sources import CorpusSource, Rows, RowSource, open_rows
from hf_negmine.data.writing import labeled_pairs, lookup_table, mined_features
from hf_negmine.fitted import Fitted
from hf_negmine.fresh import mine_fresh
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.report.summary import MiningSummary
from hf_negmine.report.sweep import Sweep
from hf_negmine.select.ensembles import Ensemble
from hf_negmine.select.judgements import Judgements
from hf_negmine.select.methods import Method
from hf_negmine.teachers import models_stay_the_same
from hf_negmine.transform import Transform

NO_JUDGE = 'mined_positives: no judge has read the negatives; give one, filters=[Judge("MODEL")]'


class NegativeMiner:
    """Mines hard negatives for rows of (query, positive).

    ``miner.fit(rows)`` encodes, searches and selects, all of it on disk and resumable; then ``rows.map(miner,
    batched=True)`` adds the negatives, or ``miner.mine(rows)`` does everything at once.

    The arguments are those of `MiningConfig`: a teacher, and by name ``method``, ``sampler``, ``num_negatives``,
    ``filters``, ``corpus``, ``format`` and the others. They cannot be changed later, since results are stored under
    them; `with_` makes another miner.

    Attributes:
        config: all settings.
    """

    config: MiningConfig

    @taking(MiningConfig)
    def __init__(self, *teacher: Any, **settings: Any) -> None:
        self._take(MiningConfig(*teacher, **settings))

    @classmethod
    def from_config(cls, config: MiningConfig) -> NegativeMiner:
        """Make a miner with these settings."""
        if not isinstance(config, MiningConfig):
            raise InputError(
                f"config: expected a MiningConfig, got {type(config).__name__}; MiningConfig.from_dict makes one from "
                "recorded settings"
            )
        miner = cls.__new__(cls)
        miner._take(config)
        return miner

    @classmethod
    def from_pool(cls, pool: CandidatePool, **settings: Any) -> NegativeMiner:
        """Make a miner of a pool from lists (`CandidatePool.from_lists`), fitted on the pool's rows.

        ``miner.mine(miner.labeled_rows)`` gives the rows with their negatives and a summary, to be pushed like others.

        Args:
            pool: the pool.
            settings: settings of `MiningConfig` except for the teacher, the corpus and the cache folder.

        Raises:
            InputError: the pool does not come from `CandidatePool.from_lists`.
        """
        if not isinstance(pool, CandidatePool) or pool.list_teacher is None or pool.folder is None:
            raise InputError(
                f"pool: expected a pool from CandidatePool.from_lists, got {pool!r:.80}; a miner with a teacher makes "
                "its own: NegativeMiner(teacher).fit(rows).pool"
            )
        return cls(pool.list_teacher, cache_dir=pool.folder.parent.parent, **settings).fit()

    def with_(self, **changes: Any) -> NegativeMiner:
        """Make another miner with some settings changed; it reuses what both have in common from the cache."""
        other = self.from_config(replace(self.config, **changes))
        other._has_corpus |= self._has_corpus and "corpus" not in changes
        return other

    def _take(self, config: MiningConfig) -> None:
        self.__dict__["config"] = config
        self._has_corpus = config.corpus is not None
        self._folder: Path | None = None
        self._pool: CandidatePool | EnsemblePool | None = None
        self._summary: MiningSummary | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            raise FrozenError(
                f"{name} = {value!r:.60}: a miner's settings are fixed, since its results are stored under them; make "
                f"another one, miner.with_({name}=…), which reuses what both have in common from the cache"
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
        """Encode, search and select for ``rows``; everything is stored on disk, and a killed run continues.

        Args:
            rows: a data set, a file, a BEIR folder or a Hub id. None fits on the corpus alone, for later rows.
            corpus: passages to search besides the positives; None takes the one given to the miner, or the positives.
            split: split of the rows, if they have several; None takes the only one, or ``train``.
            config_name: config of the rows, if they are a data set on the Hub that has several; None takes the only
                one.

        Raises:
            InputError: the rows or an argument cannot be used.
            TeacherError: the teacher returns something other than finite numbers of the right shape.
            StorageError: the cache folder is full, read-only, damaged or of another version.
            ExhaustedError: queries lack eligible passages, under ``on_exhausted="error"``.
        """
        if corpus is None and self.config.corpus is None and self._has_corpus:
            raise InputError("fit: the miner's corpus is not part of its copies; give it as corpus=")
        with models_stay_the_same():
            done = steps.fit(self._builder, rows, corpus, split=split, config_name=config_name)
        # Assigned only now, so that a fit that fails leaves the miner as it was.
        self._folder, self._summary, self._pool = done.folder, done.summary, done.pool
        for opened in ("fitted", "_transform"):
            self.__dict__.pop(opened, None)
        return self

    @property
    def pool(self) -> CandidatePool | EnsemblePool:
        """The candidate pool, to select from again: ``miner.pool.select("margin_pos:0.05", "sampled:10", n=4)``.

        It keeps the miner's filters and its consistency rule, and leaves out passages that a judge called relevant at
        `fit`, without asking the judge again.
        """
        if self._pool is None:
            if not len(self.fitted.texts.queries):
                raise InputError("pool: the miner is fitted on a corpus alone, so there are no queries to select for")
            self._transform.require_unchanged()
            self._pool = steps.pool_of(self._builder, self.fitted)
        return self._pool

    def sweep(
        self,
        methods: Sequence[Method | str] = SWEPT_METHODS,
        samplers: Sequence[Sampler | str | None] = SWEPT_SAMPLERS,
        *,
        judgements: Judgements | Any = None,
        tolerance: float = TOLERANCE,
    ) -> Sweep:
        """Select by every method with every sampler, and compare the negatives with those of the miner's own setting.

        All settings share one search, and keep the miner's filters; ``pool.sweep`` gives the negatives themselves.

        Args:
            methods: methods to try, or their specs; by default 13, without absolute ceilings, which depend on the
                teacher's scale.
            samplers: samplers to try each of them with, or their specs.
            judgements: judged (query, passage) pairs, on which the share of false negatives is measured: `Judgements`,
                or a file of JSON lines with ``query``, ``document`` and ``relevant``.
            tolerance: the share of false negatives that the recommended setting may have, from 0 to 1.

        Raises:
            NotFittedError: before `fit`.
            InputError: a method or a sampler is not understood, or no judgement is about the miner's texts.
        """
        return steps.sweep(self.config, self.pool, self.fitted.texts, methods, samplers, judgements, tolerance)

    @property
    def summary(self) -> MiningSummary:
        """A printable summary of what was mined, and how."""
        return self._summary or self.fitted.summary

    @property
    def queries(self) -> datasets.Dataset:
        """Lookup table of the queries (query_id, query), for format ``ids``."""
        return lookup_table("query_id", "query", self.fitted.texts.queries)

    @property
    def corpus(self) -> datasets.Dataset:
        """Lookup table of the passages (document_id, document), for format ``ids``."""
        return lookup_table("document_id", "document", self.fitted.texts.corpus)

    def vectors(self, texts: Sequence[str], role: Role = "passage") -> FloatArray:
        """The teacher's stored vectors of texts that the miner was fitted on; nothing is encoded again.

        Args:
            texts: passages of the corpus or positives, or with role ``query`` queries.
            role: ``"query"`` or ``"passage"``.

        Returns:
            float32, shape (len(texts), width); of length 1 if the teacher compares cosines.

        Raises:
            NotFittedError: before `fit`.
            InputError: the teacher has no vectors or has changed since `fit`, or a text is not among the fitted ones.
        """
        self._transform.require_unchanged()
        return self._builder.vectors(self.fitted.texts, texts, role)

    # ---- mining ------------------------------------------------------------------------------------------------

    @property
    def labeled_rows(self) -> datasets.Dataset:
        """Every labeled (query, positive) pair that the miner is fitted on, once, as rows with texts."""
        fitted = self.fitted
        return labeled_pairs(fitted.texts, fitted.query_column, fitted.positive_column)

    @property
    def mined_positives(self) -> datasets.Dataset:
        """The passages that the judge called relevant at `fit`: positives that nobody has labeled.

        One row per pair, with the columns ``query``, ``positive`` and ``score``, the teacher's. Only passages that
        would otherwise have been negatives are judged, so a method that lets more through (``naive``) finds more.

        Raises:
            NotFittedError: before `fit`.
            InputError: the miner has no judge.
        """
        if (found := self.fitted.mined_positives) is None:
            raise InputError(NO_JUDGE)
        return found

    def __call__(self, batch: Mapping[str, Any] | pa.Table) -> dict[str, Any] | pa.Table:
        """Rows with their negatives, for ``rows.map(miner, batched=True)``.

        ``rows.map(miner)`` works too where one row becomes one row: in the formats ``n-tuple``, ``labeled-list``,
        ``ids`` and those of other tools, if no row has to be dropped.

        Args:
            batch: columns of equal length, as ``map(batched=True)`` passes them, an Arrow table, a data frame, or a
                single row.

        Returns:
            All columns of the batch (rows may be fewer or more) without negatives that it came with, and the new ones;
            format ``ids`` leaves out the two text columns. An Arrow table for tables, frames and what ``map``
            passes. For a dictionary, which streams, data sets formatted for NumPy or PyTorch, and single rows are
            passed as, a dictionary: there give ``map(features=miner.features(rows))``, and with format ``ids``, or with
            rows or formats of other tools, the names of the replaced columns as ``map(remove_columns=…)``.

        Raises:
            NotFittedError: before `fit`.
            InputError: the batch lacks the columns that the miner was fitted on, or a single row does not become one.
        """
        return self._transform(batch)

    def mine(
        self,
        rows: RowSource,
        *,
        corpus: CorpusSource | None = None,
        split: str | None = None,
        config_name: str | None = None,
    ) -> datasets.Dataset:
        """``rows`` with their negatives, fitting first if the miner is not fitted yet; `summary` says how it went.

        The result is a memory-mapped Arrow file in the cache folder; if that is read-only, in a temporary folder until
        the process ends. For the arguments see `fit`.
        """
        config = self.config
        if self._folder is None:
            self.fit(rows, corpus=corpus, split=split, config_name=config_name)
        elif corpus is not None:
            raise InputError("mine: the miner is already fitted; give another corpus to fit()")
        columns = config.query_column, config.positive_column
        opened = open_rows(rows, split=split, config_name=config_name, named=columns).rows
        started = time.perf_counter()
        mined = self._transform.write(opened)
        seconds = {**self.summary.seconds, "write": round(time.perf_counter() - started, 3)}
        self._summary = replace(self.summary, rows_written=len(mined), seconds=seconds)
        return mined

    def features(self, rows: Rows) -> datasets.Features:
        """Features of the result, for ``rows.map(miner, batched=True, features=miner.features(rows))``."""
        if rows.features is None:
            return mined_features(datasets.Features(), self._transform.layout)
        return self._transform.features(rows.features)

    def mine_fresh(self, pairs: RowPairs, **changes: Any) -> RowNegatives:
        """Mine negatives for rows that were not part of `fit`; see `fresh.mine_fresh`.

        Raises:
            InputError: the teacher has changed since `fit`; or the miner has a judge.
        """
        with models_stay_the_same():
            self._transform.require_unchanged()
            return mine_fresh(self._builder, self.fitted.texts, pairs, **changes)

    # ---- what is fitted ----------------------------------------------------------------------------------------

    @cached_property
    def fitted(self) -> Fitted:
        """The result of `fit` on disk, opened.

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
        """The teacher's searcher over the fitted texts.

        Raises:
            InputError: the teacher is an ensemble, which has several searchers, or has changed since `fit`.
        """
        teacher = self.config.teacher
        if isinstance(teacher, Ensemble):
            raise InputError(f"{teacher.name} has a searcher per teacher, but none of its own")
        with models_stay_the_same():
            self._transform.require_unchanged()
            return self._builder.searcher(teacher, self.fitted.texts)

    @cached_property
    def _builder(self) -> PoolBuilder:
        return PoolBuilder(self.config)

    @cached_property
    def _transform(self) -> Transform:
        return Transform(self._builder, self.fitted)

    def __getstate__(self) -> dict[str, Any]:
        """A path and settings, never arrays: ``map(num_proc=…)`` hashes the state and sends it to every process."""
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
