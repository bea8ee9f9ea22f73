"""Rules that every candidate pool obeys, checked by array operations for pools that come from others.

A pool that breaks one of these rules would give wrong negatives without an error: a labeled positive, a NaN score, the
same passage twice, or a ranking with an unnoticed gap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_negmine.base.errors import StorageError, require
from hf_negmine.base.schema import BoolArray, IdArray
from hf_negmine.base.wording import counted
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.stored import LISTS, StoredPool
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

QUERIES_A_STEP = 8192
TYPES = {
    "passages": np.int32,
    "scores": np.float32,
    "offsets": np.int64,
    "starts": np.int64,
    "stops": np.int64,
    "ceilings": np.float32,
    "first_ranks": np.int64,
    "exhausted": np.bool_,
}


def require_enough_passages(n: int, n_passages: int, argument: str, *, include_positives: bool) -> None:
    """Raise `InputError` if no query could have ``n`` negatives, because the corpus is too small."""
    most = n_passages if include_positives else n_passages - 1
    why = "" if include_positives else ", since a query's positive cannot be its negative"
    require(
        n <= most,
        f"{argument}: {counted(n, 'negative')} per query from a corpus of {counted(n_passages, 'passage')}, but at "
        f"most {most} can be had{why}; {'ask for fewer, or ' if most > 0 else ''}give a larger corpus",
    )


def check_pool(pool: StoredPool, texts: TextSet, *, include_positives: bool, whole_corpus: bool) -> None:
    """Check a pool against its texts.

    Args:
        pool: the pool as it was read; nothing in it is trusted.
        texts: queries, corpus and positives.
        include_positives: whether positives and the query's own text may be candidates.
        whole_corpus: whether the teacher ranks every passage exactly, so that a ranking ends with the corpus. With
            candidates from a first stage or an index it does not.

    Raises:
        StorageError: the pool belongs to other texts, or breaks a rule.
    """
    _check_texts(pool, texts)
    _check_positives(pool.positives, texts)
    lists, n_queries = pool.lists, len(texts.queries)
    _require(all(_is(getattr(lists, name), kind) for name, kind in TYPES.items()), "a column has the wrong type")
    _check_layout(lists, n_queries)
    if include_positives:
        excluded = np.zeros(n_queries + 1, dtype=np.int64), np.empty(0, dtype=np.int32)
    else:
        excluded = texts.excluded()
    for start in range(0, n_queries, QUERIES_A_STEP):
        stop = min(start + QUERIES_A_STEP, n_queries)
        bounds = excluded[0][start : stop + 1]
        block = _Block(_of_queries(lists, start, stop), len(texts.corpus))
        block.check(
            bounds - bounds[0],
            excluded[1][bounds[0] : bounds[-1]],
            whole_corpus=whole_corpus,
            may_be_empty=pool.about.get("source") == LISTS,
        )


def _require(holds: Any, reason: str) -> None:
    if not holds:
        raise StorageError(f"the pool is damaged: {reason}; get it again from its author, or mine again")


def _is(array: np.ndarray[Any, Any], kind: Any) -> bool:
    return array.dtype == kind and array.ndim == 1


def _check_texts(pool: StoredPool, texts: TextSet) -> None:
    same = pool.about.get("texts") == texts.fingerprint
    for keys, digests in ((pool.query_keys, texts.queries.digests), (pool.passage_keys, texts.corpus.digests)):
        same = same and _is(keys, np.uint64) and np.array_equal(keys, digests[:, 0])
    if not same:
        raise StorageError("the pool belongs to other texts than those that came with it")


def _check_positives(positives: Positives, texts: TextSet) -> None:
    same = np.array_equal(positives.offsets, texts.positive_offsets) and np.array_equal(
        positives.ids, texts.positive_ids
    )
    _require(same, "its positives are not those of the pairs")
    _require(
        _is(positives.ids, np.int32) and _is(positives.scores, np.float32) and np.isfinite(positives.scores).all(),
        "the score of a positive is not a finite number",
    )


def _check_layout(lists: CandidateLists, n_queries: int) -> None:
    """Every query has a segment, and every entry belongs to one segment."""
    _require(
        len(lists.offsets) == n_queries + 1
        and lists.offsets[0] == 0
        and lists.offsets[-1] == len(lists.starts)
        and (np.diff(lists.offsets) > 0).all(),
        "it does not list every query in order",
    )
    covered = (
        (lists.starts[1:] == lists.stops[:-1]).all()
        and (lists.starts <= lists.stops).all()
        and lists.starts[:1].sum() == 0
        and lists.stops[-1:].sum() == len(lists.passages)
    )
    _require(covered, "its segments overlap, or name candidates that do not exist")


def _of_queries(lists: CandidateLists, first: int, last: int) -> CandidateLists:
    """The lists of consecutive queries, numbered from 0; only offsets are copied."""
    segments = slice(lists.offsets[first], lists.offsets[last])
    starts, stops = lists.starts[segments], lists.stops[segments]
    entries = slice(starts[0], stops[-1])
    return CandidateLists(
        lists.passages[entries],
        lists.scores[entries],
        lists.offsets[first : last + 1] - lists.offsets[first],
        starts - starts[0],
        stops - starts[0],
        lists.ceilings[segments],
        lists.first_ranks[segments],
        lists.exhausted[segments],
    )


class _Block:
    """The lists of some queries, with arrays that several rules use."""

    def __init__(self, lists: CandidateLists, n_passages: int) -> None:
        self.lists, self.n_passages = lists, n_passages
        self.sizes: IdArray = lists.stops - lists.starts
        self.queries = np.repeat(np.arange(lists.n_queries), np.diff(lists.offsets))  # of each segment
        self.segments = np.repeat(np.arange(len(self.sizes)), self.sizes)  # of each entry

    def check(
        self, excluded_offsets: IdArray, excluded: np.ndarray[Any, Any], *, whole_corpus: bool, may_be_empty: bool
    ) -> None:
        """Raise `StorageError` where a rule is broken; a list from elsewhere ``may_be_empty`` though passages exist."""
        lists = self.lists
        _require(
            (lists.passages >= 0).all() and (lists.passages < self.n_passages).all(),
            "it names candidates that do not exist",
        )
        _require(np.isfinite(lists.scores).all(), "the score of a candidate is not a finite number")
        self._check_order()
        self._check_twice()
        keys = self.queries[self.segments] * self.n_passages + lists.passages
        not_eligible = np.repeat(np.arange(lists.n_queries), np.diff(excluded_offsets)) * self.n_passages + excluded
        _require(
            not np.isin(keys, not_eligible).any(), "a candidate is a positive of its query, or has the query's own text"
        )
        self._check_ranks()
        eligible = self.n_passages - np.diff(excluded_offsets)[self.queries]
        self._check_ends(eligible, whole_corpus, may_be_empty)

    def _check_order(self) -> None:
        """Candidates are ordered by falling score and rising id, each under the ceiling of its segment."""
        scores, passages, segments = self.lists.scores, self.lists.passages, self.segments
        falling, ties = scores[1:] < scores[:-1], scores[1:] == scores[:-1]
        together = segments[1:] == segments[:-1]
        ordered = falling | (ties & (~together | (passages[1:] > passages[:-1])))
        same_query = self.queries[segments[1:]] == self.queries[segments[:-1]]
        _require((ordered | ~same_query).all(), "the scores of a query's candidates are not in falling order")
        ceilings = self.lists.ceilings
        # A segment from a search by rank has the score of its first entry as its ceiling.
        under = (scores < ceilings[segments]) | (
            (scores == ceilings[segments]) & (self.lists.first_ranks[segments] > 0)
        )
        _require(under.all(), "a candidate scores at or over the ceiling of its segment")
        after = self._same_query_as_before()
        _require(
            not np.isnan(ceilings).any() and (ceilings[1:] <= ceilings[:-1])[after].all(),
            "the segments of a query are not in order of falling ceiling",
        )

    def _check_twice(self) -> None:
        """No candidate is listed twice, unless two segments meet within a run of equal scores."""
        keys = self.queries[self.segments] * self.n_passages + self.lists.passages
        order = np.argsort(keys, kind="stable")
        again = keys[order][1:] == keys[order][:-1]
        one, two = order[:-1][again], order[1:][again]
        tied = self.lists.scores[one] == self.lists.scores[two]
        _require((tied & (self.segments[one] != self.segments[two])).all(), "a query lists a candidate twice")

    def _check_ranks(self) -> None:
        ranks, firsts = self.lists.first_ranks, self.lists.offsets[:-1]
        begins = (ranks[firsts] == 0) & np.isposinf(self.lists.ceilings[firsts])
        _require(begins.all(), "a query's candidates do not begin at the top of its ranking")
        _require((ranks >= -1).all(), "a segment has a rank below 0")
        known = np.flatnonzero(ranks >= 0)
        one, two = known[:-1], known[1:]
        gap = np.where(two == one + 1, 1, 0)  # without a gap, they would be a single segment
        rising = ranks[two] - ranks[one] >= self.sizes[one] + gap
        _require((rising | (self.queries[one] != self.queries[two])).all(), "the ranks of a query's segments overlap")

    def _check_ends(self, eligible: IdArray, whole_corpus: bool, may_be_empty: bool) -> None:
        """Rankings end where nothing ``eligible`` is left (a count for each segment's query), and nowhere else."""
        exhausted, ranks, filled = self.lists.exhausted, self.lists.first_ranks, self.sizes > 0
        unknown = ~exhausted & ~filled & (ranks == 0) & may_be_empty
        below = self._same_query_as_before()
        ended = exhausted[:-1] & below & filled[1:]
        _require(
            not ended.any() and (exhausted | filled | unknown).all(),
            "a ranking continues after its end, or ends without a mark",
        )
        known = ranks >= 0
        # Compared by differences: a rank from a foreign file may be so large that a sum would overflow.
        left = eligible - self.sizes - np.minimum(ranks, eligible + 1)
        right = np.where(exhausted, left == 0 if whole_corpus else left >= 0, left > 0)
        nothing = left <= 0 if whole_corpus else np.ones(len(left), dtype=bool)
        _require(
            np.where(filled, right, nothing | unknown)[known].all(),
            f"a ranking ends where it cannot in a corpus of {self.n_passages:,} passages",
        )

    def _same_query_as_before(self) -> BoolArray:
        """Whether each segment but the first follows one of the same query."""
        return np.asarray(self.queries[1:] == self.queries[:-1])
