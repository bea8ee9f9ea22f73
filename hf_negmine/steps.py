"""The steps of a miner: read rows, select negatives, ask a judge, write the result; then select again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_negmine.base.checksums import require_writable
from hf_negmine.base.errors import ExhaustedError, InputError, require, require_finite
from hf_negmine.base.files import is_read_only
from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.schema import BoolArray
from hf_negmine.base.wording import rules_of
from hf_negmine.config import MiningConfig
from hf_negmine.data.collecting import build_text_set
from hf_negmine.data.sources import CorpusSource, Reading, RowSource, open_corpus, open_rows, pair_batches
from hf_negmine.data.texts import TextSet, open_text_set
from hf_negmine.fitted import Fitted, first_targets, fit_name, write_fit
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.pool.checks import require_enough_passages
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.report.false_negatives import Labels
from hf_negmine.report.summary import MiningSummary
from hf_negmine.report.sweep import Sweep
from hf_negmine.report.truncation import find_truncations
from hf_negmine.search import pair_scores
from hf_negmine.select import Selection
from hf_negmine.select.ensembles import Ensemble
from hf_negmine.select.filters import BoundFilter
from hf_negmine.select.judge import Verdicts, judged_selection, negatives_under, not_relevant
from hf_negmine.select.judgements import Judgements
from hf_negmine.select.methods import Method
from hf_negmine.teachers import ListTeacher
from hf_negmine.teachers.vector_store import writable_folder


@dataclass(frozen=True)
class Given:
    """The input of a fit, after reading.

    Attributes:
        texts: queries, corpus and positives.
        columns: names of the query and the positive column.
        rows: the number of rows.
    """

    texts: TextSet
    columns: tuple[str, str]
    rows: int


@dataclass(frozen=True)
class Fit:
    """A finished fit.

    Attributes:
        folder: where it is stored (see `Fitted`); its name is the digest of all settings.
        summary: the summary of the mining.
        pool: the pool it selected from; None if it lacks a judge's later verdicts, or there are no queries.
    """

    folder: Path
    summary: MiningSummary
    pool: CandidatePool | EnsemblePool | None


def fit(
    builder: PoolBuilder,
    rows: RowSource | None,
    corpus: CorpusSource | None,
    *,
    split: str | None,
    config_name: str | None,
) -> Fit:
    """Read, encode, search, select, and write the result; see `NegativeMiner.fit`."""
    config, started = builder.config, time.perf_counter()
    if not (config.cache_dir.is_dir() and is_read_only(config.cache_dir)):  # it may hold all that is needed
        writable_folder(config.cache_dir)
    given = read(config, rows, corpus, split=split, config_name=config_name)
    texts = given.texts
    require_enough_passages(
        config.num_negatives, len(texts.corpus), "num_negatives", include_positives=config.include_positives
    )
    seconds = {"read": time.perf_counter() - started}
    settings = {
        **builder.about(config.teacher, texts),
        "columns": list(given.columns),
        **config.to_dict(),
    }
    folder = config.cache_dir / "fits" / fit_name(settings, given.rows)
    if not folder.exists():
        require_writable(folder)
    pool = None
    if len(texts.queries):
        pool = builder.pool(texts, given.columns)
    else:
        builder.open_corpus(texts)
    seconds["encode and search"] = time.perf_counter() - started - sum(seconds.values())
    selection, verdicts = select(builder, pool, texts)
    relevant = _relevant(builder, texts, verdicts)
    consistent = pool.consistent() if config.consistency is not None and isinstance(pool, CandidatePool) else None
    seconds["select"] = time.perf_counter() - started - sum(seconds.values())
    summary = MiningSummary.of(
        texts,
        selection,
        given.rows,
        settings,
        seconds,
        consistent=consistent,
        judged=None if verdicts is None else verdicts.asked,
        recall=None if pool is None else pool.recall or None,
        truncation=find_truncations(config.teacher, texts, selection),
    )
    write_fit(
        folder,
        texts,
        selection,
        given.columns,
        summary,
        builder.pool_names(texts),
        consistent=consistent,
        relevant=None if relevant is None else (relevant.queries, relevant.passages, relevant.scores),
        relabelled_keeps=_relabelled_keeps(builder, texts, selection, relevant),
    )
    return Fit(folder, summary, pool if verdicts is None else None)


def read(
    config: MiningConfig,
    rows: RowSource | None,
    corpus: CorpusSource | None,
    *,
    split: str | None = None,
    config_name: str | None = None,
) -> Given:
    """Read rows and corpus into a text set; that of scored lists is there since these were read."""
    if listed := [one for one in config.members if isinstance(one, ListTeacher)]:
        return _texts_of_lists(config, listed[0], corpus)
    corpus = corpus if corpus is not None else config.corpus
    query, positive = config.query_column or "query", config.positive_column or "positive"
    pairs, code, named, titled = _Counted(()), "rows", (query, positive), False
    if rows is not None:
        opened = open_rows(
            rows, split=split, config_name=config_name, named=(config.query_column, config.positive_column)
        )
        code = opened.code
        corpus = corpus if corpus is not None else opened.corpus
        known_query, known_positive = opened.columns
        reading = Reading.of(
            opened.rows,
            config.query_column or known_query,
            config.positive_column or known_positive,
            config.rows_format,
        )
        query, positive = reading.query, reading.positive
        named, titled = reading.given, reading.titled
        config.layout(query, positive).check_new_columns(reading.plain_columns(opened.rows.column_names or []))
        reading.tell(opened.rows.column_names or [])
        pairs = _Counted(
            pair_batches(opened.rows, query, positive, code=code, row_format=reading.format),
            len(opened.rows) if hasattr(opened.rows, "__len__") else None,
            progress=config.progress,
        )
    elif corpus is None:
        raise InputError("fit: give rows, a corpus, or both")
    passages = None
    if corpus is not None:
        passages = open_corpus(
            corpus, column=config.corpus_column, config_name=config.corpus_config_name, titled=titled
        )
    texts = build_text_set(
        config.cache_dir,
        pairs,
        passages,
        query_column=named[0],
        positive_column=named[1],
        code=code,
        corpus_remedy=passages.without_blanks if passages is not None else "",
    )
    return Given(texts, (query, positive), pairs.rows)


def _texts_of_lists(config: MiningConfig, teacher: ListTeacher, corpus: CorpusSource | None) -> Given:
    for given, argument in ((corpus is not None, "corpus"), (config.include_positives, "include_positives")):
        require(not given, f"{argument}: the candidates are those of the lists of {teacher.name}; leave it out")
    texts = open_text_set(config.cache_dir / "texts" / teacher.texts)
    columns = config.query_column or "query", config.positive_column or "positive"
    return Given(texts, columns, len(texts.positive_ids))


def select(
    builder: PoolBuilder, pool: CandidatePool | EnsemblePool | None, texts: TextSet
) -> tuple[Selection, Verdicts | None]:
    """The configuration's own selection from a pool (empty if there are no queries), and a judge's verdicts on it.

    Raises:
        ExhaustedError: queries lack eligible passages, under ``on_exhausted="error"``.
    """
    config = builder.config
    n, seed, positive_score = config.num_negatives, config.seed, config.positive_score
    if pool is None:
        return Selection.of_nothing(config.method, config.sampler, n, seed, positive_score), None

    def selection_with(filters: Sequence[BoundFilter] = ()) -> Selection:
        return pool.select(config.method, config.sampler, n, seed=seed, positive_score=positive_score, filters=filters)

    queries, _ = pool.positives.targets(positive_score)
    if config.judge is None:
        selection, verdicts = selection_with(), None
    else:
        store = builder.indexes.store
        selection, verdicts = judged_selection(selection_with, queries, config.judge, texts, store)
    short = np.flatnonzero(~selection.complete)
    if config.on_exhausted == "error" and len(short):
        first = texts.queries.texts[int(queries[short[0]])].as_py()
        raise ExhaustedError(
            f"{len(short):,} of {len(selection.counts):,} queries have fewer than {n} eligible passages under "
            f"{rules_of(config.to_dict())}, for example {selection.counts[short[0]]} for {first[:80]!r}; relax the "
            "method, lower num_negatives, or use on_exhausted='drop' or 'keep'"
        )
    return selection, verdicts


def _relevant(builder: PoolBuilder, texts: TextSet, verdicts: Verdicts | None) -> Verdicts | None:
    """A judge's verdicts with the passages that judgements make positives, by query."""
    config = builder.config
    if not (config.judgements and config.relabels and len(texts.queries)):
        return verdicts
    located = (one.located(texts.queries.digests, texts.corpus, told=False) for one in config.judgements)
    keys = np.concatenate([queries[yes] * len(texts.corpus) + passages[yes] for queries, passages, yes in located])
    known = np.repeat(np.arange(len(texts.queries)), np.diff(texts.positive_offsets)) * len(texts.corpus)
    own = np.flatnonzero(texts.own_text >= 0)
    known = np.concatenate([known + texts.positive_ids, own * len(texts.corpus) + texts.own_text[own]])
    if verdicts is not None:
        known = np.append(known, verdicts.queries * len(texts.corpus) + verdicts.passages)
    queries, passages = np.divmod(np.setdiff1d(keys, known), len(texts.corpus))
    scores = pair_scores(builder.searcher(config.members[0], texts), queries, passages.astype(np.int32))
    if verdicts is None:
        return Verdicts(0, queries, passages, scores)
    queries = np.append(verdicts.queries, queries)
    order = np.argsort(queries, kind="stable")
    passages, scores = np.append(verdicts.passages, passages), np.append(verdicts.scores, scores)
    return Verdicts(verdicts.asked, queries[order], passages[order], scores[order])


def _relabelled_keeps(
    builder: PoolBuilder, texts: TextSet, selection: Selection, verdicts: Verdicts | None
) -> BoolArray | None:
    """See `Fitted.relabelled_keeps`."""
    config = builder.config
    if verdicts is None or not config.relabels:
        return None
    scores = verdicts.scores[None]
    if isinstance(config.teacher, Ensemble):  # each with its own ceiling
        pairs = verdicts.queries, verdicts.passages.astype(np.int32)
        scores = np.stack([pair_scores(builder.searcher(teacher, texts), *pairs) for teacher in config.members])
    return negatives_under(selection, first_targets(texts, verdicts.queries, config.positive_score), scores)


def pool_of(builder: PoolBuilder, fitted: Fitted) -> CandidatePool | EnsemblePool:
    """The pool of a fit, without the passages that its judge called relevant; see `NegativeMiner.pool`."""
    judge, left_out = builder.config.judge, None
    if judge is not None and fitted.relevant is not None:
        left_out = not_relevant(str(judge), *fitted.relevant[:2], len(fitted.texts.corpus))
    return builder.pool(fitted.texts, (fitted.query_column, fitted.positive_column), left_out)


def sweep(
    config: MiningConfig,
    pool: CandidatePool | EnsemblePool,
    texts: TextSet,
    methods: Sequence[Method | str],
    samplers: Sequence[Sampler | str | None],
    judgements: Judgements | Any,
    tolerance: float,
) -> Sweep:
    """Settings side by side; see `NegativeMiner.sweep`."""
    require_finite(tolerance, "tolerance")
    require(0 <= tolerance <= 1, f"tolerance: a share from 0 to 1, got {tolerance!r}")
    settings: dict[str, Any] = {"n": config.num_negatives, "seed": config.seed}
    selections = pool.sweep(methods, samplers, **settings)
    reference = pool.select(config.method, config.sampler, **settings)  # last: the sweep has searched for it, too
    labels = None
    if judgements is not None:
        given = judgements if isinstance(judgements, Judgements) else Judgements(judgements)
        labels = Labels.of(given, texts)
    return Sweep.of(
        selections,
        reference,
        teacher=config.teacher.name,
        target_queries=pool.positives.targets(config.positive_score)[0],
        queries=pool.n_queries,
        labels=labels,
        tolerance=float(tolerance),
    )


class _Counted:
    """Passes batches on while showing a bar, and counts their rows."""

    def __init__(
        self, batches: Iterable[tuple[pa.Array, pa.Array]], total: int | None = None, *, progress: bool = False
    ) -> None:
        self._batches, self._total, self._progress = batches, total, progress
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[pa.Array, pa.Array]]:
        with bar("Reading", "rows", self._total, shown=self._progress) as read:
            for queries, positives in self._batches:
                self.rows += len(queries)
                yield queries, positives
                read.update(len(queries))
