"""Which passages of a batch are not negatives of a query: known positives, equal texts, and those over its ceiling.

Texts are identified by keys, the first 64 bits of their digests, so that a batch carries them as one small tensor and
ranks can exchange them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hf_negmine.base.randomness import KeyArray
from hf_negmine.base.schema import BoolArray, IdArray
from hf_negmine.train.source import NegativeSource


@dataclass(frozen=True)
class BatchKeys:
    """The texts of a batch.

    Attributes:
        keys: uint64, shape (rows of all ranks, 2 + n): query, positive and negatives of each row.
        own: int64, shape (rows,): the rows that the loss is computed for.
    """

    keys: KeyArray
    own: IdArray

    @property
    def queries(self) -> KeyArray:
        """The query of each own row, shape (rows,)."""
        return np.asarray(self.keys[self.own, 0])

    @property
    def positives(self) -> KeyArray:
        """The positive of each own row, shape (rows,)."""
        return np.asarray(self.keys[self.own, 1])

    @property
    def passages(self) -> KeyArray:
        """All passages, column by column: the positives of all rows, then their first negatives, and so on."""
        return np.asarray(self.keys[:, 1:].T.reshape(-1))

    @property
    def is_own(self) -> BoolArray:
        """Which passages belong to each own row, shape (rows, passages)."""
        row_of_passage = np.tile(np.arange(len(self.keys)), self.keys.shape[1] - 1)
        return np.asarray(row_of_passage[None] == self.own[:, None])


def false_negatives(batch: BatchKeys, sources: Iterable[NegativeSource], *, in_batch_negatives: bool) -> BoolArray:
    """Passages of the batch that must not count as negatives of a query, shape (rows, passages).

    A row's own positive is never among them. A passage that is in the batch twice counts once.
    """
    passages = batch.passages
    masked: BoolArray = (passages[None] == batch.positives[:, None]) | (passages[None] == batch.queries[:, None])
    all_queries, all_positives = batch.keys[:, 0], batch.keys[:, 1]
    for row, other in zip(*np.nonzero(batch.queries[:, None] == all_queries[None]), strict=True):
        masked[row] |= passages == all_positives[other]
    for source in sources:
        masked |= over_ceiling_or_positive(source, batch)
    is_own = batch.is_own
    if not in_batch_negatives:
        masked |= ~is_own
    masked |= _seen_before(passages, masked)
    masked[np.arange(len(batch.own)), batch.own] = False
    return masked


def over_ceiling_or_positive(source: NegativeSource, batch: BatchKeys) -> BoolArray:
    """Passages that the source knows as positives of a query, or whose teacher score reaches the query's ceiling."""
    masked = np.zeros((len(batch.own), len(batch.passages)), dtype=bool)
    texts = source.texts
    query_ids = texts.queries.find_keys(batch.queries)
    passage_ids = texts.corpus.find_keys(batch.passages)
    rows, columns = np.flatnonzero(query_ids >= 0), np.flatnonzero(passage_ids >= 0)
    if source.pool is None or not len(rows) or not len(columns):
        return masked
    here = np.ix_(rows, columns)
    pairs = np.repeat(query_ids[rows], len(columns)), np.tile(passage_ids[columns], len(rows))
    masked[here] |= source.finder.contains(*pairs).reshape(len(rows), len(columns))
    if source.compares_vectors:
        scores = source.teacher_scores(query_ids[rows], passage_ids[columns])
        positive_ids = texts.corpus.find_keys(batch.positives[rows])
        places = source.finder.places(query_ids[rows], np.maximum(positive_ids, 0))
        known = source.finder.contains(query_ids[rows], positive_ids)
        ceilings = source.ceilings(query_ids[rows], source.positives.scores[places])
        masked[here] |= known[:, None] & (scores >= ceilings[:, None])
    return masked


def _seen_before(passages: KeyArray, masked: BoolArray) -> BoolArray:
    """Passages that are in the batch earlier and are not masked there, shape (rows, passages)."""
    repeated = np.zeros_like(masked)
    places: dict[int, list[int]] = {}
    for place, key in enumerate(passages.tolist()):
        places.setdefault(key, []).append(place)
    for same in places.values():
        for number in range(1, len(same)):
            repeated[:, same[number]] = (~masked[:, same[:number]]).any(axis=1)
    return repeated
