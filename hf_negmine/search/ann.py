"""Approximate search with FAISS, for corpora that an exact search is too slow for.

The index only proposes. Its proposals are scored canonically (`scoring`), so scores, ceilings, ties and exclusions are
those of the exact search; the only possible difference is that a candidate is missed.

A pool queries the search more than once: for a query's best passages first, for more of them later, or for passages
under a ceiling. Its segments fit together only if all answers are windows of one and the same ranking. An index asked
for more does not simply append to its earlier answer (a graph is searched more widely, a code is rescored further
down), so the ranking is fixed here: FAISS is only ever asked for a few lengths, the *rungs*, that do not depend on the
question. The first rung gives the ranking down to the score of its last proposal, the next one continues below that
score, and below the last rung the exact search does. So no answer is ever short, and a low ceiling is answered exactly.

FAISS gets one query at a time: for a batch it uses matrix products, whose last digits depend on the size of the batch,
and with them which clusters are probed. This also means that FAISS starts no OpenMP threads beside those of torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.protocols import QueryBlock, Ranking
from hf_negmine.base.ragged import Ragged, flat_positions
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray
from hf_negmine.search.ann_index import VECTORS_A_STEP
from hf_negmine.search.corpus import VectorSource
from hf_negmine.search.exact import VectorSearcher
from hf_negmine.search.faiss_library import faiss_threads, load_faiss
from hf_negmine.search.ranking import NOTHING, Exclusions, pack_keys, ranking_of_keys
from hf_negmine.search.scoring import list_scores
from hf_negmine.search.workers import side_by_side

if TYPE_CHECKING:
    import faiss

FIRST_RUNG = 64
RUNGS = 3
"""Each rung is four times as long as the previous one, up to a quarter of the corpus."""
OVERSAMPLING = 4
"""For an index of codes, how many proposals are requested for each one that is trusted."""
PLACES_A_STEP = 2**19


class FaissSearcher:
    """Searches with an index, and exactly where the index does not reach.

    Args:
        exact: searches the same passages; its queries and exclusions are used.
        index: from `build_index`, or a function that returns it, called when candidates are first requested: scores of
            pairs need no index.
        first_rung: proposals per query that are trusted at first. All searches of one pool use the same number.
    """

    def __init__(
        self, exact: VectorSearcher, index: faiss.Index | Callable[[], faiss.Index], *, first_rung: int = FIRST_RUNG
    ) -> None:
        require(first_rung >= 1, f"first_rung: at least 1 proposal per query, got {first_rung}")
        self.exact = exact
        self.block_size = exact.block_size
        self._proposals = cache(lambda: _Proposals.of(exact, index() if callable(index) else index, first_rung))
        if not callable(index):
            self._proposals()

    @property
    def index(self) -> faiss.Index:
        """The index that proposes."""
        return self._proposals().index

    @property
    def n_passages(self) -> int:
        """Number of passages in the corpus."""
        return self.exact.n_passages

    def with_queries(self, queries: VectorSource, exclusions: Exclusions) -> FaissSearcher:
        """A searcher of the same corpus and index for other queries."""
        other = copy.copy(self)
        other.exact = self.exact.with_queries(queries, exclusions)
        return other

    def block(self, queries: IdArray) -> QueryBlock:
        """Load the given query ids; see `protocols.Searcher`."""
        return _FaissBlock(self, queries, self.exact.block(queries))


@dataclass(frozen=True)
class _Proposals:
    """An index and how it is queried; see `FaissSearcher`.

    Attributes:
        index: an index that is ready for searching.
        oversampling: how many proposals are requested for each one that is trusted.
        rungs: the numbers of proposals that are requested, one after the other.
        longest: the length of the longest passage vector, for an index that misses nothing except through rounding.
    """

    index: faiss.Index
    oversampling: int
    rungs: list[int]
    longest: float | None

    @classmethod
    def of(cls, exact: VectorSearcher, index: faiss.Index, first_rung: int) -> _Proposals:
        """The way to query ``index`` about the passages of ``exact``."""
        library = load_faiss()
        if index.ntotal != exact.n_passages:
            raise InputError(f"the index holds {index.ntotal:,} vectors, the corpus {exact.n_passages:,}")
        whole = (
            library.IndexFlat,
            library.IndexIVFFlat,
            library.IndexHNSWFlat,
            library.IndexNSGFlat,
            library.IndexRefineFlat,
        )
        oversampling = 1 if isinstance(index, whole) else OVERSAMPLING
        lengths = [first_rung * 4**place * oversampling for place in range(RUNGS)]
        # A flat index misses nothing except through rounding, which can be allowed for.
        longest = _longest(exact) if isinstance(index, library.IndexFlat) else None
        return cls(index, oversampling, [length for length in lengths if length <= exact.n_passages // 4], longest)


@dataclass(frozen=True)
class _FaissBlock:
    """Some queries of a `FaissSearcher`; see `protocols.QueryBlock`."""

    searcher: FaissSearcher
    queries: IdArray
    exact: Any

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """The canonical score of each (row, passage) pair; see `protocols.QueryBlock`."""
        scores: FloatArray = self.exact.pair_scores(rows, passages)
        return scores

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """The best passages under each ceiling, except those that the index misses; see `protocols.QueryBlock`.

        ``exhausted`` is certain, and a row marked so misses nothing.
        """
        wanted = min(depth + skip, self.searcher.n_passages)
        step = max(1, PLACES_A_STEP // (wanted + 1))
        limits = np.asarray(ceilings, dtype=np.float32)
        parts = [
            self._best(rows[start : start + step], limits[start : start + step], wanted, depth, skip)
            for start in range(0, len(rows), step)
        ]
        if not parts:
            empty: Ranking = self.exact.best(rows, limits, depth, skip)
            return empty
        return _concatenated(parts)

    def _best(self, rows: IdArray, ceilings: FloatArray, wanted: int, depth: int, skip: int) -> Ranking:
        keys = torch.full((len(rows), wanted + 1), NOTHING, dtype=torch.int64)
        limits = torch.from_numpy(ceilings.copy())
        pending = torch.arange(len(rows))
        left = [pending[:0]]
        for rung in self.searcher._proposals().rungs:
            unfinished = [pending[:0]]
            for some in torch.split(pending, max(1, PLACES_A_STEP // rung)):
                found, reached, filled = self._rung(rows[some.numpy()], limits[some], rung)
                together = torch.cat([keys[some], found], dim=1).sort(dim=1, descending=True).values
                keys[some] = together[:, : wanted + 1]
                above = torch.nextafter(reached, torch.tensor(torch.inf))
                limits[some] = torch.minimum(limits[some], above)
                open_ = keys[some, -1] == NOTHING
                left.append(some[open_ & ~filled])
                unfinished.append(some[open_ & filled])
            pending = torch.cat(unfinished)
        left.append(pending)
        ranking = ranking_of_keys(keys, depth, skip)
        rest = torch.cat(left).sort().values
        return ranking if not len(rest) else self._finished(ranking, keys, rest, rows, ceilings, limits, depth, skip)

    def _finished(
        self,
        ranking: Ranking,
        keys: torch.Tensor,
        rest: torch.Tensor,
        rows: IdArray,
        ceilings: FloatArray,
        limits: torch.Tensor,
        depth: int,
        skip: int,
    ) -> Ranking:
        """The ranking with the rows ``rest`` continued by the exact search, below what the rungs have covered."""
        wanted = keys.shape[1] - 1
        below: Ranking = self.exact.best(rows[rest.numpy()], limits[rest].numpy(), wanted)
        counts = np.diff(below.offsets)
        places, row = flat_positions(np.zeros(len(counts), dtype=np.int64), counts)
        tail = torch.full((len(rest), wanted), NOTHING, dtype=torch.int64)
        tail[torch.from_numpy(row), torch.from_numpy(places)] = pack_keys(
            torch.from_numpy(below.scores), torch.from_numpy(below.passages)
        )
        together = torch.cat([keys[rest], tail], dim=1).sort(dim=1, descending=True).values
        enough = (together[:, wanted] != NOTHING).numpy()
        exhausted = below.exhausted & ~enough
        continued = ranking_of_keys(together, depth, skip)
        ranking = _replaced(ranking, rest.numpy(), _with_exhausted(continued, exhausted))
        # In a row that is exhausted, a passage missed by the index would be missed for good.
        missing = rest.numpy()[exhausted & (limits[rest].numpy() < ceilings[rest.numpy()])]
        if not len(missing):
            return ranking
        return _replaced(ranking, missing, self.exact.best(rows[missing], ceilings[missing], depth, skip))

    def _rung(
        self, rows: IdArray, limits: torch.Tensor, length: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The index's proposals: keys under the limits, the score down to which it is trusted, and whether it was full.

        The last two depend only on the query and the length.
        """
        searcher, proposals = self.searcher, self.searcher._proposals()
        vectors = self.exact.vectors[torch.from_numpy(rows).to(self.exact.vectors.device)]
        approximate, listed = _search(proposals.index, vectors.cpu().numpy(), length)
        present = listed >= 0
        listed = np.where(present, listed, 0)
        ids = torch.from_numpy(listed).to(vectors.device)
        lengths = torch.from_numpy(length - present[:, ::-1].argmax(axis=1)).to(vectors.device)
        scores = list_scores(vectors, ids, lengths, searcher.exact.corpus.gather).cpu()
        scores[torch.from_numpy(~present)] = -torch.inf
        filled = torch.from_numpy(present.all(axis=1))
        # The end of a list of codes is not trusted, nor is that of a list that the probed clusters could not fill.
        found = torch.from_numpy(present.sum(axis=1))
        trusted = torch.where(filled, length // proposals.oversampling, found // OVERSAMPLING)
        ordered = scores.sort(dim=1, descending=True).values
        reached = ordered.gather(1, (trusted - 1).clamp(min=0)[:, None])[:, 0]
        reached[trusted == 0] = torch.inf
        if proposals.longest is not None:
            lengths_of_queries = torch.linalg.vector_norm(vectors.cpu().double(), dim=1)
            error = 2 * (vectors.shape[1] + 1) * 2.0**-24 * lengths_of_queries * proposals.longest * 1.001 + 1e-30
            unseen = torch.from_numpy(approximate[:, -1]).double() + error
            reached = torch.maximum(reached, torch.nextafter(unseen.float(), torch.tensor(torch.inf)))
        excluded_rows, excluded = searcher.exact.exclusions.of(self.queries[rows])
        out = np.isin(np.arange(len(rows))[:, None] * 2**32 + listed, excluded_rows * 2**32 + excluded)
        ineligible = torch.from_numpy(out | ~present) | (scores <= reached[:, None]) | (scores >= limits[:, None])
        return pack_keys(scores.masked_fill(ineligible, -torch.inf), torch.from_numpy(listed)), reached, filled


def measured_recall(ann: FaissSearcher, n_queries: int, depth: int, sample: int = 256, seed: int = 0) -> float:
    """The share of the exact best ``depth`` passages that an approximate search finds, between 0 and 1.

    Args:
        ann: the search.
        n_queries: the number of its queries.
        depth: passages per query, without a ceiling.
        sample: how many queries are drawn.
        seed: the seed of the draw.
    """
    require(n_queries >= 1 and depth >= 1 and sample >= 1, "measured_recall: at least 1 query, depth and sample")
    queries = np.sort(np.random.default_rng(seed).choice(n_queries, min(sample, n_queries), replace=False))
    hits = total = 0
    for start in range(0, len(queries), ann.block_size):
        some = queries[start : start + ann.block_size]
        rows, no_ceiling = np.arange(len(some)), np.full(len(some), np.inf, dtype=np.float32)
        found = ann.block(some).best(rows, no_ceiling, depth)
        true = ann.exact.block(some).best(rows, no_ceiling, depth)
        hits += int(np.isin(_row_keys(true), _row_keys(found)).sum())
        total += len(true.passages)
    return hits / total if total else 1.0


def _row_keys(ranking: Ranking) -> IdArray:
    rows = np.repeat(np.arange(len(ranking.exhausted)), np.diff(ranking.offsets))
    keys: IdArray = rows * 2**32 + ranking.passages
    return keys


def _longest(exact: VectorSearcher) -> float:
    """The length of the longest passage vector."""
    source = exact.corpus.source
    longest = 0.0
    for start in range(0, exact.n_passages, VECTORS_A_STEP):
        vectors = source.slice(start, min(start + VECTORS_A_STEP, exact.n_passages))
        longest = max(longest, float(np.linalg.norm(vectors.astype(np.float64), axis=1).max()))
    return longest


def _search(index: Any, vectors: FloatArray, length: int) -> tuple[FloatArray, IdArray]:
    """Scores and ids of ``length`` proposals for each vector, -1 where there are fewer, one vector at a time."""
    scores = np.empty((len(vectors), length), dtype=np.float32)
    ids = np.empty((len(vectors), length), dtype=np.int64)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)

    def search(some: range) -> None:
        with faiss_threads(torch.get_num_threads()):  # one thread when several of these run side by side
            for row in some:
                here = slice(row, row + 1)
                index.search(vectors[here], length, D=scores[here], I=ids[here])

    side_by_side(search, [range(start, min(start + 16, len(vectors))) for start in range(0, len(vectors), 16)])
    return scores, ids


def _with_exhausted(ranking: Ranking, exhausted: np.ndarray[Any, np.dtype[np.bool_]]) -> Ranking:
    return Ranking(ranking.offsets, ranking.passages, ranking.scores, exhausted)


def _concatenated(parts: list[Ranking]) -> Ranking:
    every = Ragged.concatenated([Ragged(part.offsets, (part.passages, part.scores)) for part in parts])
    passages, scores = every.arrays
    return Ranking(every.offsets, passages, scores, np.concatenate([part.exhausted for part in parts]))


def _replaced(ranking: Ranking, rows: IdArray, other: Ranking) -> Ranking:
    """The ranking with its ``rows`` (rising) taken from ``other``."""
    both = _concatenated([ranking, other])
    source = np.arange(len(ranking.exhausted))
    source[rows] = len(source) + np.arange(len(rows))
    chosen = Ragged(both.offsets, (both.passages, both.scores)).take(source)
    passages, scores = chosen.arrays
    return Ranking(chosen.offsets, passages, scores, both.exhausted[source])
