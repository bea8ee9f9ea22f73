"""Which passages of a batch are not negatives of a query: known positives, equal texts, and those over its ceiling.

Texts are identified by keys, the first 64 bits of their digests, so that a batch carries them as one small tensor and
ranks can exchange them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
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
    return _left_out(batch, relevant_passages(batch, sources), in_batch_negatives=in_batch_negatives)


def false_negatives_by_direction(
    batch: BatchKeys, sources: Iterable[NegativeSource], directions: Collection[str]
) -> dict[str, BoolArray]:
    """What must not count as a negative in each of a loss's directions (see `PositiveAwareMNRL`).

    A query is left out wherever its positive would be. Shapes are (rows, passages) for ``query_to_doc`` and
    ``doc_to_doc``, and (rows, rows of all ranks) for ``query_to_query`` and ``doc_to_query``.
    """
    everyone = BatchKeys(batch.keys, np.arange(len(batch.keys)))
    relevant_to_all = relevant_passages(everyone, sources)
    relevant, positives = relevant_to_all[batch.own], len(batch.keys)
    masked = {"query_to_doc": _left_out(batch, relevant, in_batch_negatives=True)}
    if "query_to_query" in directions:
        same = batch.queries[:, None] == everyone.queries[None]
        masked["query_to_query"] = relevant[:, :positives] | same
    if "doc_to_query" in directions:
        masked["doc_to_query"] = relevant_to_all[:, batch.own].T.copy()
    if "doc_to_doc" in directions:
        masked["doc_to_doc"] = relevant | batch.is_own
    for name, left_out in masked.items():
        if name != "query_to_doc":
            keys = batch.passages if name == "doc_to_doc" else everyone.queries
            left_out |= _repeated(keys, left_out, np.zeros_like(left_out))
    if "doc_to_query" in directions:  # the own pair, as in the first direction
        masked["doc_to_query"][np.arange(len(batch.own)), batch.own] = False
    return masked


def relevant_passages(batch: BatchKeys, sources: Iterable[NegativeSource]) -> BoolArray:
    """Passages with the text of a query or of one of its positives, known as its positives, or over its ceiling."""
    passages = batch.passages
    found: BoolArray = (passages[None] == batch.positives[:, None]) | (passages[None] == batch.queries[:, None])
    all_queries, all_positives = batch.keys[:, 0], batch.keys[:, 1]
    for row, other in zip(*np.nonzero(batch.queries[:, None] == all_queries[None]), strict=True):
        found[row] |= passages == all_positives[other]
    for source in sources:
        found |= over_ceiling_or_positive(source, batch)
    return found


def _left_out(batch: BatchKeys, relevant: BoolArray, *, in_batch_negatives: bool) -> BoolArray:
    own = batch.is_own
    masked = relevant if in_batch_negatives else relevant | ~own
    masked = masked | _repeated(batch.passages, masked, own)
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


def _repeated(keys: KeyArray, masked: BoolArray, own: BoolArray) -> BoolArray:
    """All but one of the texts that are in the batch several times and not masked, shape (rows, texts).

    The one that counts is the row's own, which may have a weight, or else the first.
    """
    repeated = np.zeros_like(masked)
    places: dict[int, list[int]] = {}
    for place, key in enumerate(keys.tolist()):
        places.setdefault(key, []).append(place)
    for same in places.values():
        if len(same) > 1:
            free = ~masked[:, same]
            counts = (free.astype(np.int8) + (free & own[:, same])).argmax(axis=1)
            repeated[:, same] = free & (np.arange(len(same)) != counts[:, None])
    return repeated
