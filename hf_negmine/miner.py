"""`NegativeMiner`: the rooms joined, as a transform for ``dataset.map`` and as one call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm

from hf_negmine.csr import flat_positions, offsets_of_counts
from hf_negmine.errors import ColumnError, ExhaustedError, InputError, NotFittedError, StorageError, require
from hf_negmine.files import (
    default_cache_dir,
    digest_of,
    publish_folder,
    read_array,
    read_versioned_json,
    scratch_folder,
    storage_errors,
    text_digests,
    write_array,
    write_json,
)
from hf_negmine.fresh import FreshMiner, RowPairs
from hf_negmine.methods import Method, TopKPercPos, parse_method
from hf_negmine.mined import Format, Layout, MiningSummary, OnExhausted, RowNegatives, ScoreStatistics, Written, write_rows
from hf_negmine.pool import CandidatePool, retrieve
from hf_negmine.protocols import Sampler, Searcher, Teacher
from hf_negmine.schema import FORMAT_VERSION, FloatArray, IdArray, PassageArray
from hf_negmine.search import open_searcher
from hf_negmine.search.exact import FirstPass
from hf_negmine.select import PositiveScore, Selection, Top, parse_sampler
from hf_negmine.sources import (
    CorpusSource,
    Rows,
    RowSource,
    choose_columns,
    open_corpus,
    open_rows,
    pair_batches,
    table_batches,
    take_rows,
)
from hf_negmine.store import VectorStore, writable_folder
from hf_negmine.teachers import resolve_teacher
from hf_negmine.texts import TextSet, build_text_set, check_texts, flatten_positives, open_text_set

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ROWS_A_BATCH = 8192


@dataclass(frozen=True)
class _Fitted:
    """What `fit` left on disk, opened by memory map."""

    folder: Path
    texts: TextSet
    offsets: IdArray
    passages: PassageArray
    scores: FloatArray
    positive_scores: FloatArray
    query_column: str
    positive_column: str
    summary: MiningSummary

    @cached_property
    def pair_keys(self) -> IdArray:
        """One number a (query, positive) pair, rising; to find the pair of a row."""
        query = np.repeat(np.arange(len(self.texts.queries)), np.diff(self.texts.positive_offsets))
        return query * len(self.texts.corpus) + self.texts.positive_ids


class NegativeMiner:
    """Mines hard negatives for rows of (query, positive).

    ``miner.fit(rows)`` encodes, searches and selects, all of it on disk and resumable; then ``rows.map(miner,
    batched=True)`` adds the negatives, or ``miner.mine(rows)`` does everything at once.

    Args:
        teacher: a Sentence Transformers model id, folder or model, ``"bm25"``, ``"random"``, ``"fixed:FOLDER"``, or any
            object that keeps the `Teacher` protocol.
        method: which passages may be negatives (a `Method`, or its spec such as ``"perc_pos:0.95"``). The default is
            the paper's best (NV-Retriever, table 3).
        sampler: how the negatives are drawn from them (a `Sampler`, or its spec such as ``"sampled:10"``).
        num_negatives: negatives a query.
        corpus: passages to search, besides the positives: texts, a Dataset, a file. None: the positives alone.
        query_column, positive_column: columns of the rows; may be left out for a data set with just two.
        corpus_column: column of the passage texts in ``corpus``.
        format: layout of the result: ``n-tuple``, ``triplet``, ``labeled-pair``, ``labeled-list`` or ``ids``.
        include_scores: also write the teacher's scores.
        positive_score: for a query with several positives, whether its lowest positive score sets the ceiling
            (``"min"``) or each positive has its own (``"each"``).
        on_exhausted: what becomes of a row whose query has fewer than ``num_negatives`` eligible passages in the whole
            corpus: ``"drop"`` it, ``"keep"`` it with what there is, or ``"error"``.
        pool_depth: candidates a query that are kept for later selections.
        seed: of the sampler. The same seed gives the same negatives whatever the batch size or the row order.
        cache_dir: where vectors, pools and results are kept; None takes ``$HF_NEGMINE_CACHE`` or
            ``~/.cache/hf_negmine``.
        device: for encoding and search; None takes a GPU if there is one.
        first_pass: number format of the search's first pass; it changes the speed, never the result.
        progress: show progress bars.
    """

    def __init__(
        self,
        teacher: str | Path | Teacher | SentenceTransformer,
        *,
        method: Method | str | None = None,
        sampler: Sampler | str | None = None,
        num_negatives: int = 4,
        corpus: CorpusSource | None = None,
        query_column: str | None = None,
        positive_column: str | None = None,
        corpus_column: str | None = None,
        format: Format = "n-tuple",
        include_scores: bool = False,
        positive_score: PositiveScore = "min",
        on_exhausted: OnExhausted = "drop",
        pool_depth: int = 64,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        device: str | None = None,
        first_pass: FirstPass = "auto",
        progress: bool = True,
    ) -> None:
        require(num_negatives >= 1, f"num_negatives: at least 1, got {num_negatives}")
        require(pool_depth >= 1, f"pool_depth: at least 1, got {pool_depth}")
        self.teacher = resolve_teacher(teacher)
        self.method = parse_method(method) if isinstance(method, str) else method or TopKPercPos()
        self.sampler = parse_sampler(sampler) if isinstance(sampler, str) else sampler or Top()
        self.sampler.depth(num_negatives)
        self.num_negatives = num_negatives
        self.query_column, self.positive_column, self.corpus_column = query_column, positive_column, corpus_column
        self.format, self.include_scores, self.on_exhausted = format, include_scores, on_exhausted
        self.positive_score, self.pool_depth, self.seed = positive_score, pool_depth, seed
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
        self.device, self.first_pass, self.progress = device, first_pass, progress
        self._corpus = corpus
        self._folder: Path | None = None
        self._digest: str | None = None
        self._pool: CandidatePool | None = None
        self._searcher: Searcher | None = None
        self._summary: MiningSummary | None = None
        self._layout("query", "positive")  # checks format, on_exhausted

    # ---- fitting -----------------------------------------------------------------------------------------------

    def fit(
        self, rows: RowSource | None = None, *, corpus: CorpusSource | None = None, split: str | None = None
    ) -> NegativeMiner:
        """Encode, search and select for ``rows``; everything is kept on disk, and a killed run continues.

        Args:
            rows: a data set, a file, a BEIR folder, a Hub id. None fits on the corpus alone, for rows that come later.
            corpus: passages to search, besides the positives; None takes the one given to the miner, or the positives.
            split: of a DatasetDict, a Hub data set or a BEIR folder.

        Raises:
            InputError: rows or arguments that cannot be used.
            TeacherError: a teacher that gives something else than finite numbers of the right shape.
            StorageError: a cache folder that is full, read-only, damaged or of another version.
            ExhaustedError: queries without enough eligible passages, under ``on_exhausted="error"``.
        """
        started = time.perf_counter()
        writable_folder(self.cache_dir)
        opened = open_rows(rows, split=split) if rows is not None else None
        corpus = corpus if corpus is not None else self._corpus
        if corpus is None and opened is not None:
            corpus = opened.corpus
        if opened is None and corpus is None:
            raise InputError("fit: give rows, a corpus, or both")
        query, positive = self.query_column or "query", self.positive_column or "positive"
        counted = _Counted(())
        if opened is not None:
            query, positive = choose_columns(opened.rows, self.query_column, self.positive_column)
            self._check_new_columns(list(opened.rows.column_names or []), query, positive)
            counted = _Counted(pair_batches(opened.rows, query, positive))
        texts = build_text_set(
            self.cache_dir,
            counted,
            open_corpus(corpus, column=self.corpus_column) if corpus is not None else None,
            query_column=query,
            positive_column=positive,
        )
        read = time.perf_counter()
        teacher_prints = {role: self.teacher.fingerprint(role) for role in ("query", "passage")}  # type: ignore[arg-type]
        about = {
            "teacher": self.teacher.name,
            "teacher_fingerprints": teacher_prints,
            "texts": texts.fingerprint,
            "library_version": version("hf_negmine"),
        }
        self._searcher = self._pool = None
        key = digest_of("pool", FORMAT_VERSION, texts.fingerprint, teacher_prints, self.pool_depth)
        if len(texts.queries):
            self._pool = retrieve(
                texts,
                lambda: self._open_searcher(texts),
                self.cache_dir / "pools" / key,
                about,
                depth=self.pool_depth,
                progress=self.progress,
            )
        else:
            self._open_searcher(texts)
        searched = time.perf_counter()
        selection = self._select(texts)
        seconds = {"read": read - started, "encode and search": searched - read, "select": time.perf_counter() - searched}
        summary = self._summarise(texts, selection, counted.rows, about, seconds)
        self._save_fit(texts, selection, query, positive, summary, pool_key=key)
        return self

    @property
    def pool(self) -> CandidatePool:
        """The candidate pool, to select from again: ``miner.pool.select("margin_pos:0.05", "sampled:10", n=4)``."""
        if self._pool is None:
            texts = self._fitted.texts
            if not len(texts.queries):
                raise InputError("pool: the miner is fitted on a corpus alone, so there are no queries to select for")
            key = read_versioned_json(self._fitted.folder / "miner.json")["pool"]
            self._pool = CandidatePool.load(
                self.cache_dir / "pools" / key,
                open_searcher=lambda: self._open_searcher(texts),
                progress=self.progress,
            )
        return self._pool

    @property
    def summary(self) -> MiningSummary:
        """What was mined and how; print it."""
        return self._summary or self._fitted.summary

    @property
    def queries(self) -> datasets.Dataset:
        """Lookup table of the queries (query_id, query), for format ``ids``."""
        return _lookup("query_id", "query", self._fitted.texts.queries.texts)

    @property
    def corpus(self) -> datasets.Dataset:
        """Lookup table of the passages (document_id, document), for format ``ids``."""
        return _lookup("document_id", "document", self._fitted.texts.corpus.texts)

    # ---- mining ------------------------------------------------------------------------------------------------

    def __call__(self, batch: Mapping[str, Any] | pa.Table) -> dict[str, Any] | pa.Table:
        """A batch with its negatives, for ``rows.map(miner, batched=True)``.

        Args:
            batch: columns of equal length, as ``map(batched=True)`` hands them, or an Arrow table.

        Returns:
            All columns of the batch (rows may be fewer or more), and the new ones; the same kind as ``batch``. Format
            ``ids`` leaves the two text columns out: give their names to ``map(remove_columns=…)``, too.

        Raises:
            NotFittedError: before `fit`.
            InputError: a batch without the columns that the miner was fitted on, or a single row.
        """
        fitted = self._fitted
        if isinstance(batch, pa.Table):
            written = self._write(batch)
            return _with_columns(batch.take(pa.array(written.rows)), written, self._layout_of_fit)
        for name in (fitted.query_column, fitted.positive_column):
            if name not in batch:
                raise ColumnError(name, batch, argument="map")
        if isinstance(batch[fitted.query_column], str):
            raise InputError("the miner takes batches and was handed one row; call rows.map(miner, batched=True)")
        columns = {name: pa.array(batch[name]) for name in (fitted.query_column, fitted.positive_column)}
        written = self._write(pa.table(columns))
        replaced = self._layout_of_fit.replaced_columns
        result: dict[str, Any] = take_rows(
            {name: values for name, values in batch.items() if name not in replaced}, written.rows
        )
        return {**result, **{name: column.to_pylist() for name, column in written.columns.items()}}

    def mine(
        self, rows: RowSource, *, corpus: CorpusSource | None = None, split: str | None = None
    ) -> datasets.Dataset:
        """``rows`` with their negatives, fitting first if the miner is not fitted yet; `summary` says how it went.

        The result lies in the cache folder as an Arrow file and is memory-mapped. For the arguments see `fit`.
        """
        if self._folder is None:
            self.fit(rows, corpus=corpus, split=split)
        elif corpus is not None:
            raise InputError("mine: the miner is fitted already; give another corpus to fit()")
        opened = open_rows(rows, split=split).rows
        fitted = self._fitted
        available = list(opened.column_names or [])
        for name in (fitted.query_column, fitted.positive_column):
            if available and name not in available:
                raise ColumnError(name, available, argument="mine")
        started = time.perf_counter()
        mined = self._write_dataset(opened)
        seconds = {**fitted.summary.seconds, "write": round(time.perf_counter() - started, 3)}
        self._summary = replace(fitted.summary, rows_written=len(mined), seconds=seconds)
        return mined

    def features(self, rows: Rows) -> datasets.Features:
        """Features of the result, for ``rows.map(miner, batched=True, features=miner.features(rows))``."""
        layout = self._layout_of_fit
        features = datasets.Features(
            {name: kind for name, kind in (rows.features or {}).items() if name not in layout.replaced_columns}
        )
        for name, kind in layout.new_columns.items():
            features[name] = datasets.features.features.generate_from_arrow_type(kind)
        return features

    def _write(self, batch: pa.Table) -> Written:
        """Look up (or mine on the fly) the negatives of a batch and lay them out."""
        return write_rows(self._find_negatives(batch), self._fitted.texts.corpus, self._layout_of_fit)

    def _find_negatives(self, batch: pa.Table) -> RowNegatives:
        fitted = self._fitted
        numbers = np.arange(len(batch))
        queries = check_texts(_array(batch[fitted.query_column]), numbers, column=fitted.query_column)
        positives, lengths = flatten_positives(
            _array(batch[fitted.positive_column]), numbers, column=fitted.positive_column
        )
        rows = np.repeat(numbers, lengths)
        query_ids = fitted.texts.queries.find(text_digests(queries))
        positive_ids = fitted.texts.corpus.find(text_digests(positives))
        # A pair that fit() saw has a place among the sorted pair keys.
        keys = query_ids[rows] * len(fitted.texts.corpus) + positive_ids
        pairs = np.minimum(np.searchsorted(fitted.pair_keys, keys), max(len(fitted.pair_keys) - 1, 0))
        seen = (query_ids[rows] >= 0) & (positive_ids >= 0)
        if len(fitted.pair_keys):
            seen &= fitted.pair_keys[pairs] == keys
        unseen_rows = np.unique(rows[~seen])
        every = RowPairs(queries, query_ids, rows, positives, positive_ids)
        if not len(unseen_rows):
            return self._stored(every, np.arange(len(rows)), pairs)
        fresh = self._fresh.mine(every.of_rows(unseen_rows))
        fresh = replace(fresh, queries=queries, query_ids=query_ids, rows=unseen_rows[fresh.rows])
        return self._stored(every, np.flatnonzero(~np.isin(rows, unseen_rows)), pairs).joined(fresh)

    def _stored(self, every: RowPairs, some: IdArray, pairs_of_fit: IdArray) -> RowNegatives:
        """The negatives that `fit` chose for some of the pairs, of which it has seen each."""
        fitted, seen = self._fitted, pairs_of_fit[some]
        targets = seen if self.positive_score == "each" else every.query_ids[every.rows[some]]
        counts = np.diff(fitted.offsets)[targets]
        entries, _ = flat_positions(fitted.offsets[targets], counts)
        return RowNegatives(
            every.queries,
            every.query_ids,
            every.rows[some],
            every.positives.take(pa.array(some)),
            every.positive_ids[some],
            fitted.positive_scores[seen],
            offsets_of_counts(counts),
            fitted.passages[entries],
            fitted.scores[entries],
        )

    def _write_dataset(self, rows: Rows) -> datasets.Dataset:
        layout, features = self._layout_of_fit, self.features(rows)
        name = digest_of("mined", self._digest, getattr(rows, "_fingerprint", None) or str(time.time_ns()))
        total = len(rows) if isinstance(rows, datasets.Dataset) else None
        final = self.cache_dir / "mined" / f"{name}.arrow"
        with scratch_folder(final.parent) as scratch, storage_errors(final):
            with (
                tqdm(total=total, desc="Writing", unit=" rows", disable=not self.progress) as bar,
                ArrowWriter(path=str(scratch / "rows.arrow"), features=features) as writer,
            ):
                for batch in table_batches(rows, size=ROWS_A_BATCH):
                    written = self._write(batch)
                    table = _with_columns(batch.take(pa.array(written.rows)), written, layout)
                    writer.write_table(table.select(list(features)))
                    bar.update(len(batch))
                writer.finalize()
            (scratch / "rows.arrow").replace(final)
        return datasets.Dataset.from_file(str(final))

    # ---- what is fitted ----------------------------------------------------------------------------------------

    @property
    def _fitted(self) -> _Fitted:
        opened: _Fitted | None = self.__dict__.get("_opened")
        if opened is None:
            if self._folder is None:
                raise NotFittedError("the miner is not fitted: call miner.fit(rows) first, or miner.mine(rows) for both")
            opened = self.__dict__["_opened"] = self._open_fit(self._folder)
        return opened

    def _open_fit(self, folder: Path) -> _Fitted:
        content = read_versioned_json(folder / "miner.json")
        summary = dict(content["summary"])
        for name in ("positive_scores", "negative_scores", "differences"):
            summary[name] = ScoreStatistics(**summary[name])
        return _Fitted(
            folder=folder,
            texts=open_text_set(self.cache_dir / "texts" / content["texts"]),
            offsets=read_array(folder / "offsets.npy"),
            passages=read_array(folder / "passages.npy"),
            scores=read_array(folder / "scores.npy"),
            positive_scores=read_array(folder / "positive_scores.npy"),
            query_column=content["query_column"],
            positive_column=content["positive_column"],
            summary=MiningSummary(**summary),
        )

    def _save_fit(
        self, texts: TextSet, selection: Selection, query: str, positive: str, summary: MiningSummary, *, pool_key: str
    ) -> None:
        settings = {**summary.settings, "query_column": query, "positive_column": positive}
        self._digest = digest_of("miner", FORMAT_VERSION, texts.fingerprint, pool_key, settings)
        folder = self.cache_dir / "fits" / self._digest
        if not folder.exists():
            with scratch_folder(folder.parent) as scratch:
                write_array(scratch / "offsets.npy", selection.offsets)
                write_array(scratch / "passages.npy", selection.passages)
                write_array(scratch / "scores.npy", selection.scores)
                write_array(scratch / "positive_scores.npy", np.asarray(selection.pair_scores))
                write_json(
                    scratch / "miner.json",
                    {
                        "format_version": FORMAT_VERSION,
                        "texts": texts.fingerprint,
                        "pool": pool_key,
                        "query_column": query,
                        "positive_column": positive,
                        "summary": summary.as_dict(),
                    },
                )
                publish_folder(scratch, folder)
        self._folder, self._summary = folder, None
        self.__dict__.pop("_opened", None)
        self.__dict__.pop("_fresh", None)

    def _open_searcher(self, texts: TextSet) -> Searcher:
        if self._searcher is None:
            store = VectorStore(self.cache_dir, progress=self.progress)
            self._searcher = open_searcher(self.teacher, texts, store, device=self.device, first_pass=self.first_pass)
        return self._searcher

    @cached_property
    def _fresh(self) -> FreshMiner:
        texts = self._fitted.texts
        return FreshMiner(
            teacher=self.teacher,
            texts=texts,
            open_searcher=lambda: self._open_searcher(texts),
            method=self.method,
            sampler=self.sampler,
            n=self.num_negatives,
            seed=self.seed,
            positive_score=self.positive_score,
            depth=self.pool_depth,
        )

    def __getstate__(self) -> dict[str, Any]:
        """A path and settings, never arrays: ``map(num_proc=…)`` sends it to every process, and hashes it."""
        kept = {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_pool", "_searcher", "_corpus", "_opened", "_fresh", "_summary")
        }
        return {**kept, "library_version": version("hf_negmine"), "progress": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != "library_version"})
        self._pool = self._searcher = self._corpus = self._summary = None

    def __repr__(self) -> str:
        fitted = "not fitted" if self._folder is None else f"fitted on {self._fitted.summary.rows:,} rows"
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
        )

    @property
    def _layout_of_fit(self) -> Layout:
        return self._layout(self._fitted.query_column, self._fitted.positive_column)

    def _check_new_columns(self, available: list[str], query: str, positive: str) -> None:
        clash = [name for name in self._layout(query, positive).new_columns if name in available and name != positive]
        if clash:
            raise InputError(
                f"the data set already has the column(s) {clash} that format {self.format!r} writes; remove or rename them"
            )

    def _select(self, texts: TextSet) -> Selection:
        """The miner's own selection from its pool; of nothing, if it is fitted on a corpus alone."""
        if self._pool is None:
            nothing = np.empty(0, dtype=np.float32)
            return Selection(
                self.method,
                self.sampler,
                self.num_negatives,
                self.seed,
                self.positive_score,
                offsets=np.zeros(1, dtype=np.int64),
                passages=np.empty(0, dtype=np.int32),
                scores=nothing,
                positive_scores=nothing,
                pair_scores=nothing,
                removed={},
            )
        selection = self._pool.select(
            self.method, self.sampler, self.num_negatives, seed=self.seed, positive_score=self.positive_score
        )
        short = np.flatnonzero(~selection.complete)
        if self.on_exhausted == "error" and len(short):
            queries, _ = self._pool.positives.targets(self.positive_score)
            first = texts.queries.texts[int(queries[short[0]])].as_py()
            raise ExhaustedError(
                f"{len(short):,} of {len(selection.counts):,} queries have fewer than {self.num_negatives} eligible passages "
                f"under {self.method}, for example {selection.counts[short[0]]} for {first[:80]!r}; relax the method, lower "
                "num_negatives, or take on_exhausted='drop' or 'keep'"
            )
        return selection

    def _summarise(
        self, texts: TextSet, selection: Selection, rows: int, about: dict[str, Any], seconds: dict[str, float]
    ) -> MiningSummary:
        complete = int(selection.complete.sum())
        settings = {
            **about,
            "method": str(self.method),
            "sampler": str(self.sampler),
            "num_negatives": self.num_negatives,
            "positive_score": self.positive_score,
            "on_exhausted": self.on_exhausted,
            "format": self.format,
            "include_scores": self.include_scores,
            "pool_depth": self.pool_depth,
            "seed": self.seed,
        }
        own = int((texts.own_text >= 0).sum())
        removed = {
            "being labelled positives": len(texts.positive_ids),
            **({"having the query's own text": own} if own else {}),
            **selection.removed,
        }
        return MiningSummary(
            settings=settings,
            rows=rows,
            queries=len(texts.queries),
            passages=len(texts.corpus),
            positives_per_query=round(len(texts.positive_ids) / max(len(texts.queries), 1), 4),
            complete=complete,
            exhausted=len(selection.counts) - complete,
            removed=removed,
            positive_scores=ScoreStatistics.of(selection.pair_scores),
            negative_scores=ScoreStatistics.of(selection.scores),
            differences=ScoreStatistics.of(
                np.repeat(selection.positive_scores, selection.counts) - selection.scores
            ),
            seconds={name: round(value, 3) for name, value in seconds.items()},
        )


class _Counted:
    """Batches passed on, and how many rows went by."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        for queries, positives in self._batches:
            self.rows += len(queries)
            yield queries, positives


def _with_columns(table: pa.Table, written: Written, layout: Layout) -> pa.Table:
    for name in layout.replaced_columns:
        if name in table.column_names:
            table = table.drop_columns([name])
    for name, column in written.columns.items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table


def _lookup(id_name: str, text_name: str, texts: pa.LargeStringArray) -> datasets.Dataset:
    return datasets.Dataset(pa.table({id_name: np.arange(len(texts)), text_name: texts}))


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
