"""Random passages of the corpus as negatives, for rows of which the teacher's ranking gives too few."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hf_negmine.base.files import text_digests
from hf_negmine.base.randomness import random_keys, seed_of_epoch
from hf_negmine.base.schema import IdArray
from hf_negmine.data.pairs import RowPairs
from hf_negmine.select.filters import Listed, keep_all
from hf_negmine.train.rows import TrainingRow
from hf_negmine.train.source import NegativeSource

TRIES_A_FILL = 64
"""Random passages that are tried to fill one row."""


def random_negatives(
    source: NegativeSource, row: TrainingRow, missing: int, epoch: int
) -> tuple[list[str], list[float]]:
    """Up to ``missing`` random passages for a row: not a positive, not the query's text, no duplicates.

    For a query of the fit, the miner's filters and its judge must allow each of them. If the teacher compares
    vectors, they also score under the row's ceiling, unless that leaves the row without any negative at all.
    """
    pairs, corpus = source.pairs_of([row]), source.texts.corpus
    query, query_key = int(pairs.query_ids[0]), text_digests(pairs.queries)[:, 0]
    tries = np.arange(min(TRIES_A_FILL, len(corpus)), dtype=np.uint64)
    drawn = random_keys(seed_of_epoch(source.seed, epoch), query_key, tries[None])[0] % np.uint64(len(corpus))
    ids = np.array(list(dict.fromkeys(drawn.astype(np.int64).tolist())))
    excluded = corpus.find(text_digests(pa.array([row.query, *row.positives, *row.negatives], pa.large_string())))
    if query >= 0:
        first, last = source.texts.positive_offsets[query], source.texts.positive_offsets[query + 1]
        excluded = np.concatenate([excluded, source.texts.positive_ids[first:last]])
    ids = ids[~np.isin(ids, excluded)]
    scores, under = np.full(len(ids), np.nan, dtype=np.float32), np.ones(len(ids), dtype=bool)
    if query >= 0 and source.compares_vectors and not np.isnan(row.positive_score):
        scores = source.teacher_scores(np.array([query]), ids)[0]
        under = scores < source.ceilings(np.array([query]), np.array([row.positive_score], dtype=np.float32))[0]
    chosen = _allowed(source, pairs, ids[under], missing)
    if not len(chosen) and not row.negatives:
        chosen = _allowed(source, pairs, ids, missing)
    places = np.flatnonzero(np.isin(ids, chosen))
    return corpus.take(ids[places]).to_pylist(), scores[places].tolist()


def _allowed(source: NegativeSource, pairs: RowPairs, ids: IdArray, most: int) -> IdArray:
    """The first ``most`` of the passages that all filters allow for the only row of ``pairs``."""
    if pairs.query_ids[0] < 0 or not source.filters:
        return ids[:most]
    targets = pairs.query_ids
    if source.positive_score == "each":
        places, seen = source.finder.find(pairs)
        first, last = source.texts.positive_offsets[pairs.query_ids[0] :][:2]
        targets = places if seen.all() else np.arange(first, last)  # if the row itself is none, those of its query
    looked_at = most
    while True:
        kept = ids[:looked_at].astype(np.int32)
        for target in targets[:, None]:
            offsets, unknown = np.array([0, len(kept)]), np.full(len(kept), np.nan, dtype=np.float32)
            kept = keep_all(source.filters, Listed(target, pairs.query_ids, offsets, kept, unknown))[0].passages
        if len(kept) >= most or looked_at >= len(ids):
            return kept[:most].astype(np.int64)
        looked_at *= 2
