"""Candidates from a FAISS index, as the first stage of a dense teacher.

FAISS gets one query at a time: for a batch it uses matrix products, whose last digits depend on the size of the batch,
and with them which clusters are probed. This also means that FAISS starts no OpenMP threads beside those of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_negmine.base.protocols import Ranking, Searcher
from hf_negmine.base.ragged import Ragged, offsets_of_counts, offsets_of_rows
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.search.exact import VectorSearcher
from hf_negmine.search.faiss_library import faiss_threads
from hf_negmine.search.pairwise import pair_scores
from hf_negmine.search.rerank import BestOf, RerankingSearcher
from hf_negmine.search.workers import side_by_side

if TYPE_CHECKING:
    import faiss

QUERIES_A_STEP = 16
SAMPLE = 256
"""Queries on which recall is measured."""


@dataclass
class IndexProposals:
    """The passages that an index proposes for the queries of a searcher; a `rerank.FirstStage`.

    Attributes:
        exact: searches the same passages; its queries and exclusions are used.
        open_index: gives the index, when candidates are first requested: scores of pairs need none.
        candidates: how many passages the index proposes per query, besides those that are excluded.
    """

    exact: VectorSearcher
    open_index: Callable[[], faiss.Index]
    candidates: int

    def propose(self, queries: IdArray) -> Ragged:
        """See `rerank.FirstStage`. What is proposed for a query does not depend on the other queries."""
        index, vectors = self.open_index(), np.ascontiguousarray(self.exact.queries.gather(queries), dtype=np.float32)
        rows, passages = self.exact.exclusions.of(queries)
        starts = offsets_of_rows(rows, len(queries))

        def search(some: range) -> list[IdArray]:
            with faiss_threads(torch.get_num_threads()):  # one thread when several of these run side by side
                return [of_one(row) for row in some]

        def of_one(row: int) -> IdArray:
            out = passages[starts[row] : starts[row + 1]]
            _, (found,) = index.search(vectors[row : row + 1], min(self.candidates + len(out), index.ntotal))
            found = found[found >= 0]  # -1 stands for what was not found
            proposed: IdArray = found[~np.isin(found, out)][: self.candidates]
            return proposed

        steps = [
            range(start, min(start + QUERIES_A_STEP, len(queries))) for start in range(0, len(queries), QUERIES_A_STEP)
        ]
        proposed = [one for step in side_by_side(search, steps) for one in step]
        counts = np.array([len(one) for one in proposed], dtype=np.int64)
        return Ragged(offsets_of_counts(counts), (np.concatenate(proposed).astype(np.int32),))


def open_index(searcher: Searcher) -> None:
    """Build or open the index that proposes candidates, if there is one, rather than when they are first requested."""
    if (proposals := _proposals_of(searcher)) is not None:
        proposals.open_index()


def recall_of(searcher: Searcher, n_queries: int, depth: int, *, sample: int = SAMPLE, seed: int = 0) -> float | None:
    """The share of the exact best passages that an index proposes, between 0 and 1; None without an index.

    Of passages with equal scores, it does not matter which are proposed.

    Args:
        searcher: the search, whose first stage, or that of its first stage, is an index.
        n_queries: the number of its queries.
        depth: how many of the best passages are looked for, at most as many as are proposed.
        sample: how many queries are drawn.
        seed: the seed of the draw.
    """
    proposals = _proposals_of(searcher)
    if proposals is None:
        return None
    queries = np.sort(np.random.default_rng(seed).choice(n_queries, min(sample, n_queries), replace=False))
    no_ceiling = np.full(len(queries), np.inf, dtype=np.float32)
    best = proposals.exact.block(queries).best(np.arange(len(queries)), no_ceiling, min(depth, proposals.candidates))
    proposed = proposals.propose(queries)
    scores = pair_scores(proposals.exact, queries[proposed.rows], proposed.arrays[0])
    good = scores >= _lowest(best)[proposed.rows]
    there = np.diff(best.offsets)
    found = np.minimum(np.bincount(proposed.rows[good], minlength=len(queries)), there)
    return round(float(found.sum() / there.sum()), 4) if there.any() else 1.0


def _lowest(best: Ranking) -> FloatArray:
    """The lowest score of each row, inf where there is none."""
    lowest = np.full(len(best.offsets) - 1, np.inf, dtype=np.float32)
    some = np.diff(best.offsets) > 0
    lowest[some] = best.scores[best.offsets[1:][some] - 1]
    return lowest


def _proposals_of(searcher: Searcher) -> IndexProposals | None:
    """The index that proposes at the bottom of the first stages."""
    while isinstance(searcher, RerankingSearcher):
        first = searcher.first_stage
        if isinstance(first, IndexProposals):
            return first
        assert isinstance(first, BestOf)
        searcher = first.searcher
    return None
