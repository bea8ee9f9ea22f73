"""Scores of (query, passage) pairs: from a searcher, or from anything that reads both texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import TeacherError
from hf_negmine.base.files import text_digests
from hf_negmine.base.protocols import Searcher
from hf_negmine.base.ragged import offsets_of_counts
from hf_negmine.base.schema import AnyArray, DigestArray, FloatArray, IdArray, PassageArray
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.search.ranking import Exclusions
from hf_negmine.search.rerank import ScorePairs
from hf_negmine.teachers.pair_store import PairStore, pair_digests

PAIRS_A_STEP = 4096
"""Pairs that a teacher is given at a time; their scores are stored together."""
SCANNED_A_STEP = 2**16
QUERIES_A_STEP = 1024
SCORES_A_STEP = 2**18


@dataclass(frozen=True)
class Queries:
    """The queries of a search.

    Attributes:
        texts: the query texts; a query id is a position among them.
        exclusions: the passages that are not candidates.
        column: where the texts lie on disk, so that a teacher's output for them is stored; None for texts that are not
            part of a fit.
    """

    texts: pa.LargeStringArray
    exclusions: Exclusions
    column: TextColumn | None = None

    @classmethod
    def of(cls, texts: TextSet, *, exclude_positives: bool = True) -> Queries:
        """The queries of a text set; by default their positives and own texts are not candidates."""
        exclusions = Exclusions(*texts.excluded()) if exclude_positives else Exclusions.none(len(texts.queries))
        return cls(texts.queries.texts, exclusions, texts.queries)

    @cached_property
    def digests(self) -> DigestArray:
        """The digests of the texts, shape (queries, 2)."""
        return text_digests(self.texts) if self.column is None else self.column.digests


def score_text_pairs(
    score: Callable[[list[str], list[str]], FloatArray],
    name: str,
    queries: Queries,
    corpus: TextColumn,
    store: PairStore | None,
) -> ScorePairs:
    """A function that scores (query id, passage id) pairs by their texts, except those that a store already holds.

    Pairs are passed on across queries and by falling length, so that the pairs of a batch have similar lengths.
    """

    def score_pairs(ids: IdArray, passages: PassageArray) -> FloatArray:
        def ask(places: IdArray) -> Iterator[tuple[IdArray, FloatArray]]:
            lengths = _lengths(queries.texts, ids[places]) + _lengths(corpus.texts, passages[places])
            order = np.argsort(-lengths, kind="stable")
            for start in range(0, len(order), PAIRS_A_STEP):
                some = order[start : start + PAIRS_A_STEP]
                query_texts = queries.texts.take(pa.array(ids[places[some]])).to_pylist()
                passage_texts = corpus.take(passages[places[some]]).to_pylist()
                yield some, check_scores(score(query_texts, passage_texts), name, query_texts, passage_texts)

        if store is not None:
            return store.complete(pair_digests(queries.digests[ids], corpus.digests[passages]), ask)
        scores = np.empty(len(ids), dtype=np.float32)
        for some, values in ask(np.arange(len(ids))):
            scores[some] = values
        return scores

    return score_pairs


def pair_scores(searcher: Searcher, queries: IdArray, passages: PassageArray) -> FloatArray:
    """Scores of (query, passage) pairs from a searcher, shape (pairs,)."""
    scores = np.empty(len(queries), dtype=np.float32)
    distinct, place = np.unique(queries, return_inverse=True)
    by_query = np.argsort(place, kind="stable")
    bounds = offsets_of_counts(np.bincount(place, minlength=len(distinct)))
    step = min(searcher.block_size, QUERIES_A_STEP)
    for first in range(0, len(distinct), step):
        block = searcher.block(distinct[first : first + step])
        some = by_query[bounds[first] : bounds[min(first + step, len(distinct))]]
        for start in range(0, len(some), SCORES_A_STEP):
            part = some[start : start + SCORES_A_STEP]
            scores[part] = block.pair_scores(place[part] - first, passages[part])
    return scores


def stored_scores(searcher: Searcher, queries: Queries, corpus: TextColumn, store: PairStore) -> ScorePairs:
    """`pair_scores` of a searcher that scans its corpus for every query, except those that the store already holds."""

    def score_pairs(ids: IdArray, passages: PassageArray) -> FloatArray:
        def ask(places: IdArray) -> Iterator[tuple[IdArray, FloatArray]]:
            order = np.argsort(ids[places], kind="stable")  # the pairs of a query share its scan
            for start in range(0, len(order), SCANNED_A_STEP):
                some = order[start : start + SCANNED_A_STEP]
                yield some, pair_scores(searcher, ids[places[some]], passages[places[some]])

        return store.complete(pair_digests(queries.digests[ids], corpus.digests[passages]), ask)

    return score_pairs


def _lengths(texts: pa.LargeStringArray, ids: AnyArray) -> IdArray:
    """Bytes of the texts with these ids."""
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int64, count=len(texts) + 1 + texts.offset)[texts.offset :]
    return np.asarray(offsets[ids + 1] - offsets[ids])


def check_scores(scores: FloatArray, name: str, queries: list[str], passages: list[str]) -> FloatArray:
    """Scores as float32, or `TeacherError` unless there is one finite score per pair."""
    given = np.asarray(scores)
    if given.dtype.kind not in "fiub" or given.shape != (len(queries),):
        raise TeacherError(
            f"teacher {name!r} gave an array of {given.dtype} with shape {given.shape} for {len(queries)} pairs, "
            f"expected numbers with shape ({len(queries)},)"
        )
    with np.errstate(over="ignore"):  # a float64 beyond the range of float32 becomes infinite, and is refused below
        values = given.astype(np.float32)
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise TeacherError(
            f"teacher {name!r} gave the score {values[first]} to the query {queries[first][:80]!r} with the passage "
            f"{passages[first][:80]!r}, expected finite scores"
        )
    return values
