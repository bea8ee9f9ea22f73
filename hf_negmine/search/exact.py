"""Exact search over vectors: a fast first pass proposes, a canonical score decides.

The canonical score (`scoring`) depends on nothing but the two vectors: not on the block size, the batch or the number
of threads. Computing it for every pair would be slow. The first pass takes a matrix product in bfloat16 (or float32)
and keeps a list somewhat longer than needed. Rounding moved no score by more than a bound that follows from the
Cauchy-Schwarz inequality (`_Precision.error`), so every passage outside the list has a canonical score of at most the
list's last entry plus the bound. Listed passages that score above that are certainly the best. Rows for which this
certifies too few go through float32, and what even that cannot separate (ties) is scored canonically as a whole. The
result is exact whichever way it was reached.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch

from hf_negmine.devices import has_fast_bfloat16
from hf_negmine.errors import TeacherError
from hf_negmine.protocols import Ranking
from hf_negmine.schema import FloatArray, IdArray, PassageArray
from hf_negmine.search.nearest import nearest_below_zero, origins_over, with_ones, with_origins
from hf_negmine.search.ranking import NOTHING, Exclusions, pack_keys, ranking_of_keys, unpack_keys
from hf_negmine.search.scoring import list_scores, pair_scores

FirstPass: TypeAlias = Literal["auto", "bfloat16", "float32"]

PASSAGES_A_BLOCK = 32_768
QUERIES_A_BLOCK = 4096
"""Queries that are searched together: rows that a first pass leaves in doubt are collected over all of them."""
ROWS_A_STEP = 1024
RESIDENT_BYTES = 256 * 2**20
"""Corpora up to this size are held in memory (on a GPU: in its memory, up to a quarter of it)."""
PAIRS_A_STEP = 2**20


class VectorSource(Protocol):
    """Vectors on disk or in memory, float32, one row a text."""

    @property
    def shape(self) -> tuple[int, int]:
        """(texts, width)."""

    def slice(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop."""

    def gather(self, ids: np.ndarray[Any, Any]) -> FloatArray:
        """Rows with these ids, in this order."""


_Proposals: TypeAlias = tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Of a passage block: its first passage id, approximate scores, their columns, error bounds and origins."""


@dataclass(frozen=True)
class _Precision:
    """The number format of a first pass, and how far it can move a score."""

    dtype: torch.dtype
    rounds_inputs: float
    rounds_output: float

    def error(self, queries: torch.Tensor, low: torch.Tensor, block: _PassageBlock) -> torch.Tensor:
        """Upper bound of |first-pass score before its last rounding - exact score| for each query, shape (rows,).

        q'p' - qp = (q' - q)p' + q(p' - p), and the float32 accumulation of d terms adds at most 2d * 2^-24 of the
        norms' product (twice the textbook bound, for accumulators that round less carefully).
        """
        norm = torch.linalg.vector_norm(queries, dim=1)
        residual = torch.linalg.vector_norm(low.float() - queries, dim=1) + self.rounds_inputs * norm
        accumulation = 2 * queries.shape[1] * 2.0**-24 * (norm + residual) * block.max_norm
        passage_residual = block.max_residual + self.rounds_inputs * block.max_norm
        bound: torch.Tensor = residual * block.max_norm + norm * passage_residual + accumulation
        return bound * 1.001 + 1e-30


def _precisions(first_pass: FirstPass, device: torch.device) -> list[_Precision]:
    # CUDA may compute float32 products in TF32 (10 bits of mantissa), if the user's settings allow it.
    float32 = _Precision(torch.float32, rounds_inputs=2.0**-11 if device.type == "cuda" else 0.0, rounds_output=0.0)
    bfloat16 = _Precision(torch.bfloat16, rounds_inputs=0.0, rounds_output=2.0**-8)
    if first_pass == "auto":
        first_pass = "bfloat16" if device.type == "cuda" or has_fast_bfloat16() else "float32"
    return [bfloat16, float32] if first_pass == "bfloat16" else [float32]


@dataclass(frozen=True)
class _PassageBlock:
    start: int
    vectors: torch.Tensor
    with_ones: torch.Tensor | None
    """The same vectors with the dimensions of `nearest`, which they are a view of; in bfloat16 only."""
    max_norm: float
    max_residual: float


class VectorSearcher:
    """Searches one corpus of vectors with one set of query vectors.

    Args:
        queries: query vectors; unit length if the similarity is the cosine.
        passages: passage vectors of the same width.
        exclusions: known positives and same-text passages, over the query ids.
        device: ``"cpu"``, ``"cuda"``, …
        first_pass: number format of the matrix product. It changes the speed, never the result.
        passages_a_block: columns of one score block; a block holds at most `ROWS_A_STEP` times as many scores.
    """

    block_size = QUERIES_A_BLOCK

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
        self.precisions = _precisions(first_pass, self.device)
        self._corpus = _Corpus(passages, self.device, passages_a_block)
        self._score_buffer: dict[torch.dtype, torch.Tensor] = {}

    @property
    def n_passages(self) -> int:
        """Number of passages in the corpus."""
        return self._corpus.count

    def with_queries(self, queries: VectorSource, exclusions: Exclusions) -> VectorSearcher:
        """A searcher of the same corpus, loaded once, for other queries."""
        other = copy.copy(self)
        other.queries, other.exclusions = queries, exclusions
        return other

    def block(self, queries: IdArray) -> _VectorBlock:
        """Load the given query ids; see `protocols.Searcher`."""
        vectors = torch.from_numpy(self.queries.gather(queries)).to(self.device)
        return _VectorBlock(self, queries, vectors)

    def score_buffer(self, dtype: torch.dtype, rows: int, columns: int) -> torch.Tensor:
        """Memory for one block of scores, kept between blocks because fresh pages cost as much as the product."""
        buffer = self._score_buffer.get(dtype)
        if buffer is None or buffer.numel() < rows * columns:
            buffer = self._score_buffer[dtype] = torch.empty(rows * columns, dtype=dtype, device=self.device)
        return buffer[: rows * columns].view(rows, columns)


class _Corpus:
    """The passages in blocks of a first pass's number format, held in memory when they are few."""

    def __init__(self, source: VectorSource, device: torch.device, passages_a_block: int) -> None:
        self.source = source
        self.count = source.shape[0]
        self._device = device
        self._size = passages_a_block
        allowed = RESIDENT_BYTES
        if device.type == "cuda":
            allowed = max(allowed, torch.cuda.mem_get_info(device)[1] // 4)
        self._resident = self.count * source.shape[1] * 4 <= allowed
        self._vectors = torch.from_numpy(source.slice(0, self.count)).to(device) if self._resident else None
        self._blocks: dict[tuple[torch.dtype, int], _PassageBlock] = {}

    def gather(self, ids: torch.Tensor) -> torch.Tensor:
        """float32 vectors of the passages ``ids`` (1-dimensional)."""
        if self._vectors is not None:
            return self._vectors.index_select(0, ids)
        return torch.from_numpy(self.source.gather(ids.cpu().numpy())).to(self._device)

    def blocks(self, dtype: torch.dtype) -> Iterator[_PassageBlock]:
        """All passages, block by block."""
        for start in range(0, self.count, self._size):
            block = self._blocks.get((dtype, start))
            if block is None:
                block = self._load(dtype, start)
                if self._resident:
                    self._blocks[dtype, start] = block
            yield block

    def _load(self, dtype: torch.dtype, start: int) -> _PassageBlock:
        stop = min(start + self._size, self.count)
        if self._vectors is not None:
            vectors = self._vectors[start:stop]
        else:
            vectors = torch.from_numpy(self.source.slice(start, stop)).to(self._device)
        low = vectors.to(dtype)
        norm = float(torch.linalg.vector_norm(low.float(), dim=1).max())
        residual = (
            0.0 if dtype == torch.float32 else float(torch.linalg.vector_norm(low.float() - vectors, dim=1).max())
        )
        extended = None
        if dtype == torch.bfloat16:
            extended = with_ones(low)
            low = extended[:, : low.shape[1]]
        return _PassageBlock(start, low, extended, norm + residual, residual)


@dataclass(frozen=True)
class _VectorBlock:
    """Some queries of a `VectorSearcher`; see `protocols.QueryBlock`."""

    searcher: VectorSearcher
    queries: IdArray
    vectors: torch.Tensor

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """Canonical score of each (row, passage) pair; see `protocols.QueryBlock`."""
        device = self.vectors.device
        scores = pair_scores(
            self.vectors,
            torch.from_numpy(rows).to(device),
            torch.tensor(passages, device=device),
            self.searcher._corpus.gather,
        )
        return scores.cpu().numpy()

    def all_scores(self) -> FloatArray:
        """The score of every passage; see `protocols.ScanningBlock`."""
        queries = self.vectors.double()
        scores = torch.empty(len(queries), self.searcher.n_passages)
        for block in self.searcher._corpus.blocks(torch.float32):
            stop = block.start + len(block.vectors)
            scores[:, block.start : stop] = (queries @ block.vectors.double().T).float().cpu()
        return scores.numpy()

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """Exactly the best passages under each ceiling; see `protocols.QueryBlock`."""
        device = self.vectors.device
        wanted = min(depth + skip, self.searcher.n_passages)
        limits = torch.from_numpy(np.asarray(ceilings, dtype=np.float32)).to(device)
        keys = torch.full((len(rows), wanted), NOTHING, dtype=torch.int64, device=device)
        more = torch.zeros(len(rows), dtype=torch.bool, device=device)
        pending = torch.arange(len(rows), device=device)
        # A list somewhat longer than wanted certifies nearly every row at the first attempt. Right under a ceiling many
        # places go to passages that rounding cannot tell from it.
        slack = max(wanted // 4, 128 if bool((limits < torch.inf).any()) else 16)
        length = min(wanted + slack, self.searcher.n_passages)
        keep_above = torch.empty(len(rows), device=device)
        local = torch.from_numpy(rows).to(device)
        for precision in self.searcher.precisions:
            in_doubt = [pending[:0]]
            for some in torch.split(pending, ROWS_A_STEP):
                attempt = self._attempt(local[some], limits[some], wanted, length, precision)
                done = attempt.certified
                keys[some[done]] = attempt.keys[done][:, :wanted]
                more[some[done]] = attempt.more[done]
                keep_above[some] = attempt.keep_above
                in_doubt.append(some[~done])
            pending = torch.cat(in_doubt)
        for some in torch.split(pending, ROWS_A_STEP):
            keys[some], more[some] = self._score_all_above(local[some], limits[some], keep_above[some], wanted)
        ranking = ranking_of_keys(keys, depth, skip)
        return Ranking(ranking.offsets, ranking.passages, ranking.scores, ~more.cpu().numpy())

    def _attempt(
        self, rows: torch.Tensor, limits: torch.Tensor, wanted: int, length: int, precision: _Precision
    ) -> _Attempt:
        """One first pass over the corpus, the canonical scores of what it lists, and which rows that settles."""
        approximate, listed, error, origins = self._first_pass(rows, limits, length, precision)
        spread = error[:, None] + precision.rounds_output * (approximate - origins[:, None]).abs()
        reach = _in_reach(approximate, limits, spread, wanted)
        scores = list_scores(self.vectors[rows], listed, reach, self.searcher._corpus.gather)
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
            keep_above=torch.where(kth > -torch.inf, kth - error - precision.rounds_output * kth.abs(), -torch.inf),
        )

    def _first_pass(
        self, rows: torch.Tensor, limits: torch.Tensor, length: int, precision: _Precision
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The ``length`` best approximate scores a row (falling, -inf padded), their passages, errors and origins.

        The product is off by at most the error. Rounding what comes out of it moves a score by at most
        `_Precision.rounds_output` times its distance to the origin, besides. Both have the shape (rows,).
        """
        approximate = torch.empty((len(rows), 0), device=rows.device)
        listed = torch.empty((len(rows), 0), dtype=torch.int64, device=rows.device)
        worst_error = torch.zeros(len(rows), device=rows.device)
        under_ceilings = precision.dtype == torch.bfloat16 and bool((limits < torch.inf).any())
        highest_origins = torch.full_like(worst_error, -torch.inf if under_ceilings else 0.0)
        find = self._nearest_of_blocks if under_ceilings else self._best_of_blocks
        for start, values, columns, error, origins in find(rows, limits, length, precision):
            approximate = torch.cat([approximate, values], dim=1)
            listed = torch.cat([listed, columns + start], dim=1)
            if start > 0:
                merged = approximate.topk(min(length, approximate.shape[1]), dim=1)
                approximate, listed = merged.values, listed.gather(1, merged.indices)
            worst_error = torch.maximum(worst_error, error)
            highest_origins = torch.maximum(highest_origins, origins)
        return approximate, listed, worst_error, highest_origins

    def _best_of_blocks(
        self, rows: torch.Tensor, limits: torch.Tensor, length: int, precision: _Precision
    ) -> Iterator[_Proposals]:
        """The best of each passage block, ineligible ones masked."""
        for start, scores, error in self._score_blocks(rows, limits, precision):
            top = scores.topk(min(length, scores.shape[1]), dim=1)
            yield start, top.values.float(), top.indices, error, torch.zeros_like(error)

    def _nearest_of_blocks(
        self, rows: torch.Tensor, limits: torch.Tensor, length: int, precision: _Precision
    ) -> Iterator[_Proposals]:
        """The best of each passage block under the limits, by `nearest`."""
        vectors = self.vectors[rows]
        low = vectors.to(precision.dtype)
        norm = torch.linalg.vector_norm(low.float(), dim=1)
        excluded = self.searcher.exclusions.of(self.queries[rows.cpu().numpy()])
        for block in self.searcher._corpus.blocks(precision.dtype):
            assert block.with_ones is not None
            error = precision.error(vectors, low, block)
            origins, error = origins_over(limits, error, 1.01 * norm * block.max_norm, low.shape[1])
            scores = self._product(with_origins(low, origins), block.with_ones)
            _fill_excluded(scores, excluded, block, torch.inf)
            values, columns = nearest_below_zero(scores, min(length, scores.shape[1]))
            yield block.start, values + origins[:, None], columns, error, origins

    def _score_blocks(
        self, rows: torch.Tensor, limits: torch.Tensor, precision: _Precision
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(first passage id, scores with ineligible ones at -inf, error bound a row) of each passage block."""
        vectors = self.vectors[rows]
        low = vectors.to(precision.dtype)
        excluded = self.searcher.exclusions.of(self.queries[rows.cpu().numpy()])
        has_limits = bool((limits < torch.inf).any())
        for block in self.searcher._corpus.blocks(precision.dtype):
            scores = self._product(low, block.vectors)
            error = precision.error(vectors, low, block)
            if has_limits:
                # Certainly at or over the ceiling, whatever the rounding (of this comparison's number format, too).
                surely_over = limits + error
                surely_over = surely_over + 2 * precision.rounds_output * surely_over.abs()
                scores.masked_fill_(scores > surely_over.to(precision.dtype)[:, None], -torch.inf)
            _fill_excluded(scores, excluded, block, -torch.inf)
            yield block.start, scores, error

    def _product(self, queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        """All dot products, in the searcher's buffer."""
        scores = self.searcher.score_buffer(queries.dtype, len(queries), len(passages))
        with _exact_accumulation(queries.device):
            torch.mm(queries, passages.T, out=scores)
        return scores

    def _score_all_above(
        self, rows: torch.Tensor, limits: torch.Tensor, threshold: torch.Tensor, wanted: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys of the ``wanted`` best when no list can tell them apart: all that may reach ``threshold`` are scored."""
        precision = self.searcher.precisions[-1]
        keys = torch.full((len(rows), wanted), NOTHING, dtype=torch.int64, device=rows.device)
        more = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        for start, block_scores, _ in self._score_blocks(rows, limits, precision):
            reachable = block_scores >= threshold[:, None]
            more |= ((block_scores > -torch.inf) & ~reachable).any(dim=1)
            reachable &= block_scores > -torch.inf
            step = max(1, PAIRS_A_STEP // block_scores.shape[1])
            for first in range(0, len(rows), step):
                some = slice(first, first + step)
                row, column = reachable[some].nonzero(as_tuple=True)
                scores = torch.full_like(block_scores[some], -torch.inf, dtype=torch.float32)
                exact = pair_scores(self.vectors, rows[some][row], column + start, self.searcher._corpus.gather)
                scores[row, column] = exact.masked_fill(exact >= limits[some][row], -torch.inf)
                columns = torch.arange(start, start + block_scores.shape[1], device=rows.device).expand_as(scores)
                together = (
                    torch.cat([keys[some], pack_keys(scores, columns)], dim=1).sort(dim=1, descending=True).values
                )
                keys[some] = together[:, :wanted]
                more[some] |= (together[:, wanted:] != NOTHING).any(dim=1)
        return keys, more


def _fill_excluded(scores: torch.Tensor, excluded: tuple[IdArray, IdArray], block: _PassageBlock, value: float) -> None:
    """Put ``value`` in the place of the scores of excluded (row, passage) pairs."""
    rows, passages = excluded
    here = (passages >= block.start) & (passages < block.start + len(block.vectors))
    device = scores.device
    scores[torch.from_numpy(rows[here]).to(device), torch.from_numpy(passages[here] - block.start).to(device)] = value


def _in_reach(approximate: torch.Tensor, limits: torch.Tensor, error: torch.Tensor, wanted: int) -> torch.Tensor:
    """How many of each list may be among its ``wanted`` best eligible ones, and one more; shape (rows,).

    Once ``wanted`` + 1 of them are surely under the limit, whatever is surely below the last of these is not.
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


@contextmanager
def _exact_accumulation(device: torch.device) -> Iterator[None]:
    """Forbid CUDA to add up partial sums in bfloat16, which `_Precision.error` does not allow for."""
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_bf16_reduced_precision_reduction = before
