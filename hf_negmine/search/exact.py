"""Exact search over vectors: a fast first pass proposes, a canonical score decides.

The canonical score (`scoring`) depends only on the two vectors: not on the block size, the batch or the number of
threads. Computing it for every pair would be slow. The first pass uses a matrix product in bfloat16 (or float32) and
keeps a list somewhat longer than needed. Rounding moves no score by more than a bound that follows from the
Cauchy-Schwarz inequality (`Precision.error`), so every passage outside the list has a canonical score of at most the
list's last entry plus the bound. Listed passages that score above that are certainly the best. Rows for which this
certifies too few go through float32, and what even that cannot separate (ties) is fully scored canonically. The
result is exact whichever way it was reached.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.errors import TeacherError
from hf_negmine.base.protocols import Ranking
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray
from hf_negmine.search.corpus import PASSAGES_A_BLOCK, Corpus, VectorSource
from hf_negmine.search.precision import Precision, precisions_of
from hf_negmine.search.product import Product, ScoreBuffer
from hf_negmine.search.ranking import NOTHING, Exclusions, pack_keys, ranking_of_keys, unpack_keys
from hf_negmine.search.scoring import list_scores, pair_scores
from hf_negmine.search.workers import side_by_side

QUERIES_A_BLOCK = 4096
"""Queries that are searched together: the rows that a first pass leaves in doubt are collected over all of them."""
ROWS_A_STEP = 1024
MOST_WORKERS = 4
"""Up to this many threads each search for their own rows; more would have too few rows each for a fast product."""
PAIRS_A_STEP = 2**20

Result = TypeVar("Result")


class VectorSearcher:
    """Searches one corpus of vectors with one set of query vectors.

    Args:
        queries: query vectors; unit length if the similarity is the cosine.
        passages: passage vectors of the same width.
        exclusions: known positives and same-text passages, over the query ids.
        device: ``"cpu"``, ``"cuda"``, …
        first_pass: number format of the matrix product. It changes the speed, never the result.
        passages_a_block: columns of one score block; a block holds at most `ROWS_A_STEP` times as many scores.

    Attributes:
        block_size: number of queries that are best searched together.
        rows_a_step: how many of these are compared with the corpus in one go.
    """

    def __init__(
        self,
        queries: VectorSource,
        passages: VectorSource,
        exclusions: Exclusions,
        *,
        device: str = "cpu",
        first_pass: FirstPass = "auto",
        passages_a_block: int = PASSAGES_A_BLOCK,
    ) -> None:
        if queries.shape[1] != passages.shape[1]:
            raise TeacherError(f"queries have {queries.shape[1]} dimensions, passages {passages.shape[1]}")
        self.queries = queries
        self.exclusions = exclusions
        self.device = torch.device(device)
        self.precisions = precisions_of(first_pass, self.device)
        self.corpus = Corpus(passages, self.device, passages_a_block)
        self.rows_a_step = ROWS_A_STEP * self.corpus.fewer_reads
        self.block_size = max(QUERIES_A_BLOCK, self.rows_a_step)
        self.buffer = ScoreBuffer()

    @property
    def n_passages(self) -> int:
        """Number of passages in the corpus."""
        return self.corpus.count

    def with_queries(self, queries: VectorSource, exclusions: Exclusions) -> VectorSearcher:
        """A searcher of the same corpus, loaded once, for other queries."""
        other = copy.copy(self)
        other.queries, other.exclusions = queries, exclusions
        return other

    def block(self, queries: IdArray) -> _VectorBlock:
        """Load the given query ids; see `protocols.Searcher`."""
        vectors = torch.from_numpy(self.queries.gather(queries)).to(self.device)
        return _VectorBlock(self, queries, vectors)


@dataclass(frozen=True)
class _VectorBlock:
    """Some queries of a `VectorSearcher`; see `protocols.QueryBlock`."""

    searcher: VectorSearcher
    queries: IdArray
    vectors: torch.Tensor

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """The canonical score of each (row, passage) pair; see `protocols.QueryBlock`."""
        device = self.vectors.device
        scores = pair_scores(
            self.vectors,
            torch.from_numpy(rows).to(device),
            torch.tensor(passages, device=device),
            self.searcher.corpus.gather,
        )
        return scores.cpu().numpy()

    def all_scores(self) -> FloatArray:
        """The score of every passage; see `protocols.ScanningBlock`."""
        queries = self.vectors.double()
        scores = torch.empty(len(queries), self.searcher.n_passages)
        for block in self.searcher.corpus.blocks(torch.float32):
            stop = block.start + len(block.vectors)
            scores[:, block.start : stop] = (queries @ block.vectors.double().T).float().cpu()
        return scores.numpy()

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """The exact best passages under each ceiling; see `protocols.QueryBlock`."""
        device = self.vectors.device
        wanted = min(depth + skip, self.searcher.n_passages)
        limits = torch.from_numpy(np.asarray(ceilings, dtype=np.float32)).to(device)
        keys = torch.full((len(rows), wanted), NOTHING, dtype=torch.int64, device=device)
        more = torch.zeros(len(rows), dtype=torch.bool, device=device)
        pending = torch.arange(len(rows), device=device)
        # A list somewhat longer than wanted certifies nearly every row at the first attempt. Right under a ceiling,
        # many places go to passages that rounding cannot tell from it.
        slack = max(wanted // 4, 128 if bool((limits < torch.inf).any()) else 16)
        length = min(wanted + slack, self.searcher.n_passages)
        keep_above = torch.empty(len(rows), device=device)
        local = torch.from_numpy(rows).to(device)
        for precision in self.searcher.precisions:
            if not len(pending):  # no row needs the corpus any more
                break

            def attempt_at(some: torch.Tensor, precision: Precision = precision) -> _Attempt:
                return self._attempt(local[some], limits[some], wanted, length, precision)

            in_doubt = []
            for some, attempt in self._in_pieces(attempt_at, pending):
                done = attempt.certified
                keys[some[done]] = attempt.keys[done][:, :wanted]
                more[some[done]] = attempt.more[done]
                keep_above[some] = attempt.keep_above
                in_doubt.append(some[~done])
            pending = torch.cat(in_doubt)
        if len(pending):
            for some in torch.split(pending, self.searcher.rows_a_step):
                keys[some], more[some] = self._score_all_above(local[some], limits[some], keep_above[some], wanted)
        ranking = ranking_of_keys(keys, depth, skip)
        return Ranking(ranking.offsets, ranking.passages, ranking.scores, ~more.cpu().numpy())

    def _in_pieces(
        self, work: Callable[[torch.Tensor], Result], rows: torch.Tensor
    ) -> list[tuple[torch.Tensor, Result]]:
        """Split the rows into pieces that are processed together, and apply ``work`` to each."""
        searcher, threads = self.searcher, torch.get_num_threads()
        if searcher.device.type == "cpu" and searcher.corpus.resident and threads <= MOST_WORKERS:
            pieces = torch.split(rows, -(-searcher.rows_a_step // threads))
            return list(zip(pieces, side_by_side(work, pieces), strict=True))
        return [(piece, work(piece)) for piece in torch.split(rows, searcher.rows_a_step)]

    def _attempt(
        self, rows: torch.Tensor, limits: torch.Tensor, wanted: int, length: int, precision: Precision
    ) -> _Attempt:
        """One first pass over the corpus, the canonical scores of its list, and the rows that this settles."""
        proposals = self._product(rows, limits, precision).best(length)
        approximate, listed, spread = proposals.scores, proposals.passages, proposals.spread
        reach = _in_reach(approximate, limits, spread, wanted)
        scores = list_scores(self.vectors[rows], listed, reach, self.searcher.corpus.gather)
        ineligible = (approximate == -torch.inf) | (scores >= limits[:, None])
        keys = pack_keys(scores.masked_fill(ineligible, -torch.inf), listed).sort(dim=1, descending=True).values
        last = approximate[:, -1]
        full = (last > -torch.inf) & (length < self.searcher.n_passages)
        unseen = torch.where(full, last + spread[:, -1], -torch.inf)
        kth_key = keys[:, wanted - 1]
        kth = torch.where(kth_key == NOTHING, -torch.inf, unpack_keys(kth_key)[0])
        has_more = (keys[:, wanted:] != NOTHING).any(dim=1)
        return _Attempt(
            keys=keys,
            certified=((kth > unseen) & has_more) | ~full,
            more=has_more,
            keep_above=torch.where(
                kth > -torch.inf, kth - proposals.error - precision.rounds_output * kth.abs(), -torch.inf
            ),
        )

    def _product(self, rows: torch.Tensor, limits: torch.Tensor, precision: Precision) -> Product:
        searcher, queries = self.searcher, self.queries[rows.cpu().numpy()]
        excluded = searcher.exclusions.of(queries)
        return Product(searcher.corpus, precision, self.vectors[rows], limits, excluded, searcher.buffer)

    def _score_all_above(
        self, rows: torch.Tensor, limits: torch.Tensor, threshold: torch.Tensor, wanted: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys of the ``wanted`` best if no list can separate them: all that may reach ``threshold`` are scored."""
        precision = self.searcher.precisions[-1]
        keys = torch.full((len(rows), wanted), NOTHING, dtype=torch.int64, device=rows.device)
        more = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for start, block_scores, _ in self._product(rows, limits, precision).blocks():
            reachable = block_scores >= threshold[:, None]
            more |= ((block_scores > -torch.inf) & ~reachable).any(dim=1)
            reachable &= block_scores > -torch.inf
            step = max(1, PAIRS_A_STEP // block_scores.shape[1])
            for first in range(0, len(rows), step):
                some = slice(first, first + step)
                row, column = reachable[some].nonzero(as_tuple=True)
                scores = torch.full_like(block_scores[some], -torch.inf, dtype=torch.float32)
                exact = pair_scores(self.vectors, rows[some][row], column + start, self.searcher.corpus.gather)
                scores[row, column] = exact.masked_fill(exact >= limits[some][row], -torch.inf)
                columns = torch.arange(start, start + block_scores.shape[1], device=rows.device).expand_as(scores)
                together = (
                    torch.cat([keys[some], pack_keys(scores, columns)], dim=1).sort(dim=1, descending=True).values
                )
                keys[some] = together[:, :wanted]
                more[some] |= (together[:, wanted:] != NOTHING).any(dim=1)
        return keys, more


def _in_reach(approximate: torch.Tensor, limits: torch.Tensor, error: torch.Tensor, wanted: int) -> torch.Tensor:
    """How many entries of each list may be among its ``wanted`` best eligible ones, plus one; shape (rows,).

    Once ``wanted`` + 1 entries are surely under the limit, anything surely below the last of them is out of reach.
    """
    surely_under = (approximate + error < limits[:, None]) & (approximate > -torch.inf)
    enough = surely_under.cumsum(dim=1) > wanted
    place = enough.int().argmax(dim=1, keepdim=True)
    least = (approximate - error).gather(1, place)
    reach = (approximate + error >= least).sum(dim=1)
    return torch.where(enough.any(dim=1), reach, approximate.shape[1])


@dataclass(frozen=True)
class _Attempt:
    keys: torch.Tensor
    certified: torch.Tensor
    more: torch.Tensor
    keep_above: torch.Tensor
