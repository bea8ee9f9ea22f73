"""Audits negatives: scores them, and holds each against the miner's ceiling, its filters and its judge."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.auditing.result import SAME_AS_POSITIVE, SAME_AS_QUERY, TWICE, Audit, Found, RowsWithNegatives
from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import text_digests
from hf_negmine.base.ragged import Ragged, offsets_of_counts
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray
from hf_negmine.config import MiningConfig
from hf_negmine.data.collecting import build_text_set
from hf_negmine.data.formats import format_of
from hf_negmine.data.formats.cells import have_titles
from hf_negmine.data.pairs import PairFinder
from hf_negmine.data.sources import (
    CorpusSource,
    OpenedRows,
    RowSource,
    check_classes,
    is_beir,
    open_corpus,
    open_judged_beir,
    open_rows,
)
from hf_negmine.data.texts import TextSet
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.search import pair_scores
from hf_negmine.select import Positives
from hf_negmine.select.ensembles import Ensemble
from hf_negmine.select.filters import BoundFilter, Listed, Scene, kept_by
from hf_negmine.select.judge import verdicts_of, verdicts_on
from hf_negmine.teachers import models_stay_the_same

ROWS_A_STEP = 8192


def audit(
    rows: RowSource,
    miner: NegativeMiner | Any,
    *,
    corpus: CorpusSource | None = None,
    split: str | None = None,
    config_name: str | None = None,
) -> Audit:
    """Look at the negatives that rows have already: which of them would a miner not take, and why?

    A negative is doubtful if it scores at or over the miner's ceiling (or under its floor), has the text of a positive
    of its query or of the query itself, stands in its row twice, is dropped by one of the miner's filters, or is
    relevant to the miner's judge. Ranks are not looked at, so a shift or a band of the method plays no part; nor does a
    `Consistency` rule, which is about positives.

    Args:
        rows: rows with a query, positives and negatives, in any format that `data.formats` knows: those of Sentence
            Transformers, FlagEmbedding and others. They are read twice, so they cannot be a stream. In a BEIR folder
            the passages judged 0 or less are the negatives.
        miner: the miner whose teacher, method, filters and judge are taken, and the rows' format and columns, if it
            has them; or only a teacher, or its name, for a miner's defaults.
        corpus: passages to take better negatives from in `Audit.repair`, besides those in the rows; None takes the
            miner's, or the one that comes with the rows.
        split, config_name: of the rows, as in `NegativeMiner.fit`.

    Raises:
        InputError: the rows cannot be read or have no negatives, or the teacher is an ensemble.
        TeacherError: the teacher returns something other than finite numbers of the right shape.
    """
    config = (miner if isinstance(miner, NegativeMiner) else NegativeMiner(miner)).config
    if isinstance(config.teacher, Ensemble):
        raise InputError(
            f"audit: {config.teacher.name} is an ensemble, whose teachers score each in its own scale; audit with one "
            "of them"
        )
    found = _opened(rows, split, config_name)
    opened, corpus = found.rows, next((one for one in (corpus, config.corpus, found.corpus) if one is not None), None)
    if not isinstance(opened, datasets.Dataset):
        raise InputError(
            "audit: the rows are a stream, but they are read twice; make a Dataset of them, for example with "
            "datasets.Dataset.from_list(list(rows))"
        )
    columns = {"query_column": config.query_column, "positive_column": config.positive_column}
    row_format = format_of(opened.features.arrow_schema, config.rows_format, **columns)
    check_classes(opened.features, row_format)
    source = RowsWithNegatives(opened, row_format)
    texts = _text_set(config, source, corpus)
    located = _find(source, texts)
    if not len(located.passages):
        raise InputError(f"audit: the rows have no negatives in their columns {opened.column_names}; mine some first")
    with models_stay_the_same():
        return _Auditor(replace(config, corpus=None), texts, source, located).audit()


def _opened(rows: RowSource, split: str | None, config_name: str | None) -> OpenedRows:
    """The rows; those of a BEIR folder with the passages judged not relevant as their negatives."""
    folder = Path(rows).expanduser() if isinstance(rows, str | os.PathLike) else None
    if folder is None or not is_beir(folder):
        return open_rows(rows, split=split, config_name=config_name)
    require(config_name is None, f"config_name: {config_name!r}, but {rows} is a folder; leave it out")
    return open_judged_beir(folder, split=split)


def _text_set(config: MiningConfig, source: RowsWithNegatives, corpus: CorpusSource | None) -> TextSet:
    """The texts of the rows; the corpus is the given one, and all negatives."""
    schema = source.rows.features.arrow_schema
    titled = have_titles(schema.field(source.format.positive).type)
    given = () if corpus is None else open_corpus(corpus, column=config.corpus_column, titled=titled)
    pairs = (
        (each.queries, pa.LargeListArray.from_arrays(each.positive_offsets, each.positives)) for each in source.texts()
    )
    negatives = (each.negatives for each in source.texts())
    return build_text_set(
        config.cache_dir,
        pairs,
        chain(given, negatives),
        query_column="query",
        positive_column="positive",
    )


def _find(source: RowsWithNegatives, texts: TextSet) -> Found:
    """The ids of the rows' queries, positives and negatives."""
    finder = PairFinder(texts)
    queries, pairs, pair_counts, passages, counts = ([np.empty(0, dtype=np.int64)] for _ in range(5))
    for each in source.texts():
        query = texts.queries.find(text_digests(each.queries))
        positives = texts.corpus.find(text_digests(each.positives))
        lengths = np.diff(each.positive_offsets)
        queries.append(query)
        pairs.append(finder.places(np.repeat(query, lengths), positives))
        pair_counts.append(lengths)
        passages.append(texts.corpus.find(text_digests(each.negatives)))
        counts.append(np.diff(each.negative_offsets))
    return Found(
        queries=np.concatenate(queries),
        pairs=Ragged(offsets_of_counts(np.concatenate(pair_counts)), (np.concatenate(pairs),)),
        offsets=offsets_of_counts(np.concatenate(counts)),
        passages=np.concatenate(passages),
    )


class _Auditor:
    """One audit: what it needs of the miner's settings, and the negatives that it looks at."""

    def __init__(self, config: MiningConfig, texts: TextSet, source: RowsWithNegatives, found: Found) -> None:
        self._config, self._texts, self._source, self._found = config, texts, source, found
        self._builder = PoolBuilder(config)
        self._queries = found.queries[found.row_of]
        keys = self._queries * len(texts.corpus) + found.passages
        self._keys, self._place = np.unique(keys, return_inverse=True)

    def audit(self) -> Audit:
        """Score the negatives and find what speaks against them."""
        found, config, texts = self._found, self._config, self._texts
        searcher = self._builder.searcher(config.teacher, texts)
        scene = Scene.of(texts, config.teacher, self._builder.indexes, config.positive_score)
        labeled = scene.query_of_pair, texts.positive_ids
        positives = Positives(texts.positive_offsets, texts.positive_ids, pair_scores(searcher, *labeled))
        queries, passages = np.divmod(self._keys, len(texts.corpus))
        scores = pair_scores(searcher, queries, passages.astype(np.int32))[self._place]
        targets, references = self._targets(positives)
        positives.warn_of_zeros(config.teacher.name)
        reasons = self._reasons_of_texts()
        settled = np.logical_or.reduce(list(reasons.values()))
        ceilings = config.method.settled(positives.deciding).ceilings(references)
        reasons[f"ceiling of {config.method}"] = scores >= ceilings[found.row_of]
        if np.isfinite(config.method.floor):
            reasons[f"floor of {config.method}"] = scores < config.method.floor
        for one in config.candidate_filters:
            dropped = self._dropped_by(one.bind(scene), targets, scores, settled)
            reasons[str(one)] = np.logical_or(dropped, reasons.get(str(one), False))  # two may have the same name
        judged = None
        if config.judge is not None:
            relevant, judged = self._judged(scores, settled)
            reasons[str(config.judge)] = relevant
        return Audit(config, texts, self._source, found, targets, references, ceilings, scores, reasons, judged)

    def _targets(self, positives: Positives) -> tuple[IdArray, FloatArray]:
        """Each row's target and the positive score that sets its ceiling: the lowest of its query, or of the row."""
        found = self._found
        if self._config.positive_score == "min":
            return found.queries, positives.targets("min")[1][found.queries]
        (pairs,) = found.pairs.arrays
        order = np.lexsort((positives.scores[pairs], found.pairs.rows))
        first = order[found.pairs.offsets[:-1]]
        return pairs[first], positives.scores[pairs[first]]

    def _reasons_of_texts(self) -> dict[str, BoolArray]:
        """What is wrong with a negative by its text alone."""
        found = self._found
        order = np.lexsort((np.arange(len(found.passages)), found.passages, found.row_of))
        again = np.zeros(len(order), dtype=bool)
        same_row, same_passage = found.row_of[order], found.passages[order]
        again[order[1:]] = (same_row[1:] == same_row[:-1]) & (same_passage[1:] == same_passage[:-1])
        return {
            SAME_AS_POSITIVE: PairFinder(self._texts).contains(self._queries, found.passages),
            SAME_AS_QUERY: self._texts.own_text[self._queries] == found.passages,
            TWICE: again,
        }

    def _dropped_by(self, one: BoundFilter, targets: IdArray, scores: FloatArray, settled: BoolArray) -> BoolArray:
        """Which negatives a filter would drop, of those whose texts say nothing against them."""
        found = self._found
        dropped = np.zeros(len(scores), dtype=bool)
        for start in range(0, len(found.queries), ROWS_A_STEP):
            stop = min(start + ROWS_A_STEP, len(found.queries))
            entries = np.arange(found.offsets[start], found.offsets[stop])
            entries = entries[~settled[entries]]
            rows = found.row_of[entries]
            entries = entries[np.lexsort((found.passages[entries], -scores[entries], rows))]
            counts = np.bincount(rows - start, minlength=stop - start)
            passages = found.passages[entries].astype(np.int32)
            some = slice(start, stop)
            listed = Listed(targets[some], found.queries[some], offsets_of_counts(counts), passages, scores[entries])
            dropped[entries] = ~kept_by(one, listed)
        return dropped

    def _judged(self, scores: FloatArray, settled: BoolArray) -> tuple[BoolArray, int]:
        """Which negatives the judge calls relevant, and how many pairs it was asked about: the highest scores first."""
        judge = self._config.judge
        assert judge is not None
        score_of = np.full(len(self._keys), -np.inf, dtype=np.float32)
        score_of[self._place[~settled]] = scores[~settled]
        asked = np.flatnonzero(np.isfinite(score_of))
        asked = asked[np.lexsort((asked, -score_of[asked]))][: judge.budget]
        queries, passages = np.divmod(self._keys[asked], len(self._texts.corpus))
        kept = [verdicts_of(each, self._builder.indexes.store) for each in judge.judges]
        relevant = np.zeros(len(self._keys), dtype=bool)
        relevant[asked] = verdicts_on(judge.judges, kept, self._texts, queries, passages)
        return relevant[self._place], len(asked)
