"""`NegativeMiner`: the rooms joined, as a transform for ``dataset.map`` and as one call."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.formatting.formatting import LazyBatch
from tqdm.auto import tqdm

from hf_negmine.base.checksums import require_writable, write_sealed
from hf_negmine.base.defaults import POOL_DEPTH
from hf_negmine.base.errors import (
    ColumnError,
    ExhaustedError,
    FrozenError,
    InputError,
    NotFittedError,
    require,
    require_choice,
    require_whole,
)
from hf_negmine.base.files import default_cache_dir, digest_of, is_read_only, lasting_temporary_folder
from hf_negmine.base.paths import folder_of
from hf_negmine.base.protocols import Sampler, Searcher, Teacher
from hf_negmine.base.schema import BoolArray
from hf_negmine.data.layouts import Format, Layout, OnExhausted, RowNegatives, Written, write_rows
from hf_negmine.data.sources import (
    CorpusSource,
    Rows,
    RowSource,
    check_labels,
    choose_columns,
    label_columns,
    open_corpus,
    open_rows,
    pair_batches,
    table_batches,
    table_of,
    table_of_batch,
    take_rows,
)
from hf_negmine.data.texts import TextSet, build_text_set
from hf_negmine.data.writing import lookup_table, mined_features, with_columns, write_dataset
from hf_negmine.fitted import Fitted, first_targets, fit_name, write_fit
from hf_negmine.fresh import FreshMiner
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.builder import Retrieval
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.report.summary import MiningSummary
from hf_negmine.report.truncation import find_truncations
from hf_negmine.search import pair_scores
from hf_negmine.search.precision import FirstPass
from hf_negmine.select import PositiveScore, Selection, resolve_sampler
from hf_negmine.select.ensembles import Ensemble, IntraSample, resolve_ensemble
from hf_negmine.select.filters import BoundFilter, Consistency, Filter, Veto
from hf_negmine.select.judging import Judged, NotRelevant, Verdicts, judged_selection, negatives_under
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.select.rules import settings_of_filters, sort_filters
from hf_negmine.teachers import place, settings_of
from hf_negmine.teachers.vector_store import writable_folder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ROWS_A_BATCH = 8192
PASSAGES_A_BATCH = 65_536


class NegativeMiner:
    """Mines hard negatives for rows of (query, positive).

    ``miner.fit(rows)`` encodes, searches and selects, all of it on disk and resumable; then ``rows.map(miner,
    batched=True)`` adds the negatives, or ``miner.mine(rows)`` does everything at once.

    Args:
        teacher: a Sentence Transformers model id, folder or model, ``"bm25"``, or any other spec of `resolve_teacher`,
            such as ``"cross-encoder:MODEL"`` or ``"rrf(bm25, MODEL)"``; any object that keeps the `Teacher` protocol;
            an ensemble of them (`CrossSample`, `IntraSample`, or ``"cross-sample(bm25, MODEL)"``).
        method: which passages may be negatives (a `Method`, or its spec such as ``"perc_pos:0.95"``). The default is
            the paper's best (NV-Retriever, table 3).
        sampler: how the negatives are drawn from them (a `Sampler`, or its spec such as ``"sampled:10"``).
        num_negatives: negatives a query.
        filters: what a negative must be besides under its ceiling: a `Veto`, `NearDuplicates`, `Where`; a `Consistency`
            that rows must keep; a `Judged` that has the last word. Cheap ones first.
        corpus: passages to search, besides the positives: texts, a Dataset, a file. None: the positives alone.
        query_column, positive_column: columns of the rows; may be left out for a data set with just two.
        corpus_column: column of the passage texts in ``corpus``.
        corpus_config_name: config of a ``corpus`` on the Hub that has several.
        format: layout of the result: ``n-tuple``, ``triplet``, ``labeled-pair``, ``labeled-list`` or ``ids``.
        include_scores: also write the teacher's scores.
        positive_score: for a query with several positives, whether its lowest positive score sets the ceiling
            (``"min"``) or each positive has its own (``"each"``).
        include_positives: leave positives (and a passage with the query's own text) among the candidates; for full
            rankings that rerankers are evaluated on, not for training.
        on_exhausted: what becomes of a row whose query has fewer than ``num_negatives`` eligible passages in the whole
            corpus: ``"drop"`` it, ``"keep"`` it with what there is, or ``"error"``.
        pool_depth: candidates a query that are kept for later selections.
        seed: of the sampler. The same seed gives the same negatives whatever the batch size or the row order.
        cache_dir: where vectors, pools and results are kept; None takes ``$HF_NEGMINE_CACHE`` or
            ``~/.cache/hf_negmine``.
        device: for encoding and search; None takes a GPU if there is one. Models that are given by name, those of
            first stages, vetoes and ensembles too, are loaded there; a model that is loaded already stays where it is,
            and ``device`` then is for the search.
        first_pass: number format of the search's first pass; it changes the speed, never the result.
        engine: ``"exact"``, or a FAISS factory such as ``"IVF1024,Flat"`` for dense teachers over a corpus that is too
            large for it. Scores stay exact and rows full; the summary says how many of the best candidates it finds.
        progress: show progress bars.

    A miner's settings cannot be assigned once it is made, since what it mines is kept under them: make another miner,
    which shares all that the two have in common.
    """

    _is_made = False

    def __init__(
        self,
        teacher: str | Path | Teacher | SentenceTransformer,
        *,
        method: Method | str | None = None,
        sampler: Sampler | str | None = None,
        num_negatives: int = 4,
        filters: Sequence[Filter | Consistency | Judged] = (),
        corpus: CorpusSource | None = None,
        query_column: str | None = None,
        positive_column: str | None = None,
        corpus_column: str | None = None,
        corpus_config_name: str | None = None,
        format: Format = "n-tuple",
        include_scores: bool = False,
        positive_score: PositiveScore = "min",
        include_positives: bool = False,
        on_exhausted: OnExhausted = "drop",
        pool_depth: int = POOL_DEPTH,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        device: str | None = None,
        first_pass: FirstPass = "auto",
        engine: str = "exact",
        progress: bool = True,
    ) -> None:
        require_whole(num_negatives, "num_negatives", at_least=1)
        require_whole(pool_depth, "pool_depth", at_least=1)
        require_whole(seed, "seed")
        require_choice(positive_score, ("min", "each"), argument="positive_score")
        require_choice(first_pass, ("auto", "float32", "bfloat16"), argument="first_pass")
        self.teacher: Teacher = resolve_ensemble(teacher, progress=progress)
        self.method = resolve_method(method)
        self.sampler = resolve_sampler(sampler)
        ensemble = self.teacher if isinstance(self.teacher, Ensemble) else None
        self.sampler.depth(num_negatives if ensemble is None else ensemble.negatives_a_teacher(num_negatives))
        self.filters, self.consistency, self.judged = sort_filters(filters)
        for each in (self.teacher, *(rule.teacher for rule in self.filters if isinstance(rule, Veto))):
            place(each, device)
        if ensemble is not None and self.consistency is not None:
            raise InputError("filters: a Consistency is about one teacher's ranking, and an ensemble has several")
        if isinstance(ensemble, IntraSample) and include_scores:
            raise InputError(
                "include_scores: the negatives of an intra-sample are scored by several teachers, each in its own scale"
            )
        self.num_negatives = int(num_negatives)
        self.query_column, self.positive_column, self.corpus_column = query_column, positive_column, corpus_column
        self.corpus_config_name = corpus_config_name
        self.format, self.include_scores, self.on_exhausted = format, include_scores, on_exhausted
        # A whole number of numpy's could not be written as JSON.
        self.positive_score, self.pool_depth, self.seed = positive_score, int(pool_depth), int(seed)
        self.cache_dir = folder_of(cache_dir, "cache_dir") if cache_dir is not None else default_cache_dir()
        self.include_positives = include_positives
        self.device, self.first_pass, self.progress = device, first_pass, progress
        self.engine = engine
        self._corpus, self._has_corpus = corpus, corpus is not None
        self._folder: Path | None = None
        self._digest: str | None = None
        self._pool: CandidatePool | EnsemblePool | None = None
        self._summary: MiningSummary | None = None
        self._layout("query", "positive")  # checks format, on_exhausted
        self.engine = self._retrieval.engine  # checks it
        self._is_made = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_made and not name.startswith("_"):
            raise FrozenError(
                f"{name} = {value!r:.60}: a miner's settings are fixed, since what it mines is kept under them; make "
                f"another one, NegativeMiner(…, {name}=…), which takes from the cache what both have in common"
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
        started = time.perf_counter()
        if not (self.cache_dir.is_dir() and is_read_only(self.cache_dir)):  # it may hold everything
            writable_folder(self.cache_dir)
        texts, columns, n_rows = self._read_texts(rows, corpus, split, config_name)
        require(
            self.num_negatives < len(texts.corpus) + self.include_positives,
            f"num_negatives: {self.num_negatives} negatives a query from a corpus of {len(texts.corpus)} passages",
        )
        read = time.perf_counter()
        settings = self._settings(texts, columns)
        digest = fit_name(settings)
        folder = self.cache_dir / "fits" / digest
        if not folder.exists():
            require_writable(folder)
        pool = None
        if len(texts.queries):
            pool = self._retrieval.pool(texts)
        else:
            self._retrieval.open_corpus(texts)
        searched = time.perf_counter()
        selection, verdicts = self._select(pool, texts)
        consistent = pool.consistent() if self.consistency is not None and isinstance(pool, CandidatePool) else None
        seconds = {
            "read": read - started,
            "encode and search": searched - read,
            "select": time.perf_counter() - searched,
        }
        summary = MiningSummary.of(
            texts,
            selection,
            n_rows,
            settings,
            seconds,
            consistent=consistent,
            judged=None if verdicts is None else verdicts.asked,
            recall=pool.recall if pool is not None and self.engine != "exact" else None,
            truncation=find_truncations(self.teacher, texts, selection),
        )
        write_fit(
            folder,
            texts,
            selection,
            columns,
            summary,
            self._retrieval.pool_names(texts),
            consistent=consistent,
            relevant=None if verdicts is None else (verdicts.queries, verdicts.passages, verdicts.scores),
            relabelled_keeps=self._relabelled_keeps(texts, selection, verdicts),
        )
        # Only now: a fit that fails leaves the miner as it was.
        # The pool of a judged fit is opened anew, with what he called relevant left out.
        self._folder, self._digest, self._summary = folder, digest, summary
        self._pool = pool if verdicts is None else None
        self.__dict__.pop("fitted", None)
        self.__dict__.pop("fresh", None)
        return self

    def _read_texts(
        self, rows: RowSource | None, corpus: CorpusSource | None, split: str | None, config_name: str | None
    ) -> tuple[TextSet, tuple[str, str], int]:
        """The text set of rows and corpus, the names of the columns, and the number of rows."""
        if corpus is None and self._corpus is None and self._has_corpus:
            raise InputError("fit: the miner's corpus is not part of its copies; give it as corpus=")
        corpus = corpus if corpus is not None else self._corpus
        query, positive = self.query_column or "query", self.positive_column or "positive"
        counted, code = _Counted(()), "rows"
        if rows is not None:
            opened = open_rows(
                rows, split=split, config_name=config_name, named=(self.query_column, self.positive_column)
            )
            code = opened.code
            corpus = corpus if corpus is not None else opened.corpus
            known_query, known_positive = opened.columns
            query, positive = choose_columns(
                opened.rows, self.query_column or known_query, self.positive_column or known_positive
            )
            self._check_new_columns(list(opened.rows.column_names or []), query, positive)
            counted = _Counted(pair_batches(opened.rows, query, positive, code=code), progress=self.progress)
        elif corpus is None:
            raise InputError("fit: give rows, a corpus, or both")
        passages = None
        if corpus is not None:
            passages = open_corpus(corpus, column=self.corpus_column, config_name=self.corpus_config_name)
        texts = build_text_set(
            self.cache_dir,
            counted,
            passages,
            query_column=query,
            positive_column=positive,
            code=code,
            corpus_remedy=passages.without_blanks if passages is not None else "",
        )
        return texts, (query, positive), counted.rows

    def _settings(self, texts: TextSet, columns: tuple[str, str]) -> dict[str, Any]:
        rules = self._rules
        return {
            **self._retrieval.about(self.teacher, texts),
            "columns": list(columns),
            "teacher_settings": settings_of(self.teacher),
            "method": str(self.method),
            "sampler": str(self.sampler),
            "num_negatives": self.num_negatives,
            **({"filters": settings_of_filters(rules)} if rules else {}),
            "positive_score": self.positive_score,
            "include_positives": self.include_positives,
            "on_exhausted": self.on_exhausted,
            "format": self.format,
            "include_scores": self.include_scores,
            "pool_depth": self.pool_depth,
            "seed": self.seed,
        }

    @property
    def _rules(self) -> list[Filter | Consistency | Judged]:
        return [*self.filters, *(one for one in (self.consistency, self.judged) if one is not None)]

    @property
    def pool(self) -> CandidatePool | EnsemblePool:
        """The candidate pool, to select from again: ``miner.pool.select("margin_pos:0.05", "sampled:10", n=4)``.

        It keeps the miner's filters and its consistency rule, and leaves out what a judge called relevant at `fit`; it
        does not ask him again.
        """
        if self._pool is None:
            texts = self.fitted.texts
            if not len(texts.queries):
                raise InputError("pool: the miner is fitted on a corpus alone, so there are no queries to select for")
            self._require_unchanged()
            relevant = self.fitted.relevant
            judge = None if relevant is None else NotRelevant.of(str(self.judged), relevant, len(texts.corpus))
            self._pool = self._retrieval.pool(texts, judge)
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
        """A batch with its negatives, for ``rows.map(miner, batched=True)``.

        Args:
            batch: columns of equal length, as ``map(batched=True)`` hands them, or an Arrow table.

        Returns:
            All columns of the batch (rows may be fewer or more), and the new ones, except that format ``ids`` leaves
            the two text columns out. An Arrow table for one, and for what ``map`` hands over: a table keeps its types
            where no row is left, or a column holds nothing but nulls. A dictionary for a dictionary, as streams and
            data sets formatted for NumPy or PyTorch hand them: there give ``map(features=miner.features(rows))``, and
            with format ``ids`` the names of the text columns as ``map(remove_columns=…)``, too.

        Raises:
            NotFittedError: before `fit`.
            InputError: a batch without the columns that the miner was fitted on, or a single row.
        """
        fitted = self.fitted
        available = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        self._check_columns_of_fit(available, argument="map")
        if isinstance(batch, LazyBatch):
            batch = table_of_batch(batch)
        if isinstance(batch, pa.Table):
            return with_columns(batch, self._write(batch), self._layout_of_fit)
        if isinstance(batch[fitted.query_column], str):
            raise InputError("the miner takes batches and was handed one row; call rows.map(miner, batched=True)")
        columns = fitted.query_column, fitted.positive_column
        names = [*columns, *label_columns(available, *columns)]
        written = self._write(table_of({name: batch[name] for name in names}))
        replaced = self._layout_of_fit.replaced_columns
        result: dict[str, Any] = take_rows(
            {name: values for name, values in batch.items() if name not in replaced}, written.rows
        )
        return {**result, **{name: column.to_pylist() for name, column in written.columns.items()}}

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
        if self._folder is None:
            self.fit(rows, corpus=corpus, split=split, config_name=config_name)
        elif corpus is not None:
            raise InputError("mine: the miner is fitted already; give another corpus to fit()")
        columns = self.query_column, self.positive_column
        opened = open_rows(rows, split=split, config_name=config_name, named=columns).rows
        started = time.perf_counter()
        mined = self._write_dataset(opened)
        seconds = {**self.summary.seconds, "write": round(time.perf_counter() - started, 3)}
        self._summary = replace(self.summary, rows_written=len(mined), seconds=seconds)
        return mined

    def features(self, rows: Rows) -> datasets.Features:
        """Features of the result, for ``rows.map(miner, batched=True, features=miner.features(rows))``."""
        return mined_features(rows.features or datasets.Features(), self._layout_of_fit)

    def _write(self, batch: pa.Table) -> Written:
        """Look up (or mine on the fly) the negatives of a batch and lay them out."""
        return write_rows(self._find_negatives(batch), self.fitted.texts.corpus, self._layout_of_fit)

    def _find_negatives(self, batch: pa.Table) -> RowNegatives:
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
        fresh = self.fresh.mine(pairs.of_rows(unseen_rows))
        fresh = replace(fresh, queries=pairs.queries, query_ids=pairs.query_ids, rows=unseen_rows[fresh.rows])
        return fitted.negatives(pairs, np.flatnonzero(~np.isin(pairs.rows, unseen_rows)), places).joined(fresh)

    def _require_unchanged(self) -> None:
        """Raise `InputError` if the teacher, or that of a filter, is no longer what it was at `fit`."""
        self._retrieval.require_same(self.fitted.pool_keys, self.fitted.texts)
        now, then = settings_of_filters(self._rules), self.fitted.summary.settings.get("filters", [])
        if json.dumps(now, sort_keys=True, default=str) != json.dumps(then, sort_keys=True, default=str):
            raise InputError(
                "a filter is no longer what it was at fit(): its teacher has changed since; call fit() again"
            )

    def _write_dataset(self, rows: Rows) -> datasets.Dataset:
        layout = self._layout_of_fit
        total = len(rows) if isinstance(rows, datasets.Dataset) else None
        batches = table_batches(rows, size=max(1, min(ROWS_A_BATCH, PASSAGES_A_BATCH // (self.num_negatives + 1))))
        first = next(batches, None)
        if first is not None:
            self._check_columns_of_fit(first.column_names, argument="mine")
        features = rows.features
        if features is None and first is not None:  # a stream need not know its features before it is read
            features = datasets.Features.from_arrow_schema(first.schema)

        def tables() -> Iterator[pa.Table]:
            with tqdm(total=total, desc="Writing", unit=" rows", disable=not self.progress, delay=1) as bar:
                for batch in itertools.chain([first] if first is not None else [], batches):
                    yield with_columns(batch, self._write(batch), layout)
                    bar.update(len(batch))

        name = digest_of("mined", self._digest, getattr(rows, "_fingerprint", None) or str(time.time_ns()))
        folder = self.cache_dir / "mined"
        elsewhere = is_read_only(folder)
        path = (lasting_temporary_folder() if elsewhere else folder) / f"{name}.arrow"
        mined = write_dataset(path, tables(), mined_features(features or datasets.Features(), layout))
        # So that the rows alone tell how they were mined.
        note = {"fit": self._digest, **({"cache_dir": str(self.cache_dir.resolve())} if elsewhere else {})}
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
        return Fitted.open(self._folder, self.cache_dir / "texts")

    @property
    def is_fitted(self) -> bool:
        """Whether `fit` has been called."""
        return self._folder is not None

    def open_searcher(self) -> Searcher:
        """The teacher's searcher over what the miner is fitted on.

        Raises:
            InputError: an ensemble, which has several.
        """
        if isinstance(self.teacher, Ensemble):
            raise InputError(f"{self.teacher.name} has a searcher for each of its teachers, and none of its own")
        return self._retrieval.searcher(self.teacher, self.fitted.texts)

    @cached_property
    def _retrieval(self) -> Retrieval:
        """Makes and opens the pools."""
        return Retrieval(
            teacher=self.teacher,
            cache_dir=self.cache_dir,
            depth=self.pool_depth,
            positive_score=self.positive_score,
            filters=self.filters,
            consistency=self.consistency,
            exclude_positives=not self.include_positives,
            device=self.device,
            first_pass=self.first_pass,
            engine=self.engine,
            progress=self.progress,
        )

    @cached_property
    def fresh(self) -> FreshMiner:
        """Mines rows that were not there at `fit`, against the fitted corpus.

        Raises:
            InputError: a miner with a judge, which sees the rows of a fit only.
        """
        if self.judged is not None:
            raise InputError(
                f"{self.judged} has its say at fit(), and a row was not there then; fit on all rows, or leave the "
                "judge out of filters="
            )
        return FreshMiner(
            teacher=self.teacher,
            texts=self.fitted.texts,
            indexes=self._retrieval.indexes,
            method=self.method,
            sampler=self.sampler,
            n=self.num_negatives,
            seed=self.seed,
            positive_score=self.positive_score,
            depth=self.pool_depth,
            filters=self.filters,
            consistency=self.consistency,
            exclude_positives=not self.include_positives,
        )

    def __getstate__(self) -> dict[str, Any]:
        """A path and settings, never arrays: ``map(num_proc=…)`` sends it to every process, and hashes it."""
        left_out = {"_pool", "_retrieval", "fitted", "fresh", "_summary", *(("_corpus",) if self._folder else ())}
        kept = {name: value for name, value in self.__dict__.items() if name not in left_out}
        return {**kept, "library_version": version("hf_negmine")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._pool = self._corpus = self._summary = None
        self.__dict__.update({name: value for name, value in state.items() if name != "library_version"})

    def __repr__(self) -> str:
        fitted = "not fitted" if self._folder is None else f"fitted on {self.fitted.summary.rows:,} rows"
        return f"NegativeMiner({self.teacher.name!r}, {self.method}, {self.sampler}, n={self.num_negatives}, {fitted})"

    # ---- checks ------------------------------------------------------------------------------------------------

    def _layout(self, query: str, positive: str) -> Layout:
        return Layout(
            format=self.format,
            query_column=query,
            positive_column=positive,
            n=self.num_negatives,
            scores=self.include_scores,
            on_exhausted=self.on_exhausted,
            share_negatives=self.positive_score == "min",
            inconsistent=None if self.consistency is None else self.consistency.action,
        )

    @property
    def _layout_of_fit(self) -> Layout:
        return self._layout(self.fitted.query_column, self.fitted.positive_column)

    def _check_columns_of_fit(self, available: list[str], *, argument: str) -> None:
        query, positive = self.fitted.query_column, self.fitted.positive_column
        for name in (query, positive):
            if name not in available:
                raise ColumnError(name, available, argument=argument)
        self._check_new_columns(available, query, positive)

    def _check_new_columns(self, available: list[str], query: str, positive: str) -> None:
        layout = self._layout(query, positive)
        clash = [name for name in available if name != positive and layout.writes(name)]
        if clash:
            raise InputError(
                f"the data set already has the column(s) {clash}, which format {self.format!r} writes; remove them "
                "or rename them"
            )

    def _select(self, pool: CandidatePool | EnsemblePool | None, texts: TextSet) -> tuple[Selection, Verdicts | None]:
        """The miner's own selection from a pool, and what a judge said of it; of nothing, if there are no queries."""
        if pool is None:
            return Selection.of_nothing(
                self.method, self.sampler, self.num_negatives, self.seed, self.positive_score
            ), None

        def select(filters: Sequence[BoundFilter] = ()) -> Selection:
            return pool.select(
                self.method,
                self.sampler,
                self.num_negatives,
                seed=self.seed,
                positive_score=self.positive_score,
                filters=filters,
            )

        queries, _ = pool.positives.targets(self.positive_score)
        if self.judged is None:
            selection, verdicts = select(), None
        else:
            selection, verdicts = judged_selection(select, queries, self.judged, texts, self._retrieval.indexes.store)
        short = np.flatnonzero(~selection.complete)
        if self.on_exhausted == "error" and len(short):
            first = texts.queries.texts[int(queries[short[0]])].as_py()
            raise ExhaustedError(
                f"{len(short):,} of {len(selection.counts):,} queries have fewer than {self.num_negatives} eligible "
                f"passages under {self.method}, for example {selection.counts[short[0]]} for {first[:80]!r}; relax the "
                "method, lower num_negatives, or take on_exhausted='drop' or 'keep'"
            )
        return selection, verdicts

    def _relabelled_keeps(self, texts: TextSet, selection: Selection, verdicts: Verdicts | None) -> BoolArray | None:
        """See `Fitted.relabelled_keeps`."""
        if verdicts is None or self.judged is None or not self.judged.relabel:
            return None
        scores = verdicts.scores[None]
        if isinstance(self.teacher, Ensemble):  # a ceiling each
            searchers = [self._retrieval.searcher(teacher, texts) for teacher in self.teacher.stages]
            pairs = verdicts.queries, verdicts.passages.astype(np.int32)
            scores = np.stack([pair_scores(searcher, *pairs) for searcher in searchers])
        return negatives_under(selection, first_targets(texts, verdicts.queries, self.positive_score), scores)


class _Counted:
    """Batches passed on with a bar, and how many rows went by."""

    def __init__(self, batches: Any, *, progress: bool = False) -> None:
        self._batches, self._progress = batches, progress
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        with tqdm(desc="Reading", unit=" rows", disable=not self._progress, delay=1) as bar:
            for queries, positives in self._batches:
                self.rows += len(queries)
                yield queries, positives
                bar.update(len(queries))
