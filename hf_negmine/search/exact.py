"""Exact search over vectors: a fast first pass proposes, a canonical score decides.

The canonical score (`scoring`) depends only on the two vectors: not on the block size, the batch or the number of
threads. Computing it for every pair would be slow. The first pass is a matrix product in bfloat16 or float32. Rounding
moves no score by more than a bound that follows from the Cauchy-Schwarz inequality (`Precision.error`), so all passages
that may be among the best are known from it (`contenders`), and only those are scored canonically. The result is exact
whichever way it was reached.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.errors import TeacherError
from hf_negmine.base.protocols import Ranking
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray
from hf_negmine.search.contenders import Contenders, ScoreBuffer
from hf_negmine.search.corpus import Corpus, VectorSource
from hf_negmine.search.precision import Precision, precision_of
from hf_negmine.search.ranking import Exclusions, ranking_of_keys
from hf_negmine.search.scoring import list_scores, pair_scores
from hf_negmine.search.workers import side_by_side

ROWS_A_GROUP = 1024
"""Queries whose best passages are found together, on a CPU by one thread; on a GPU four times as many."""
QUERIES_A_BLOCK, QUERIES_A_BLOCK_ON_A_GPU = 8192, 65_536
"""A corpus that is too large for memory is read once for each block of queries, and reading is what a GPU waits for."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class VectorSearcher:
    """Searches one corpus of vectors with one set of query vectors.

    Args:
        queries: query vectors; unit length if the similarity is the cosine.
        passages: passage vectors of the same width.
        exclusions: known positives and same-text passages, over the query ids.
        device: ``"cpu"``, ``"cuda"``, …
        first_pass: number format of the matrix product. It changes the speed, never the result.
        passages_a_block: columns of one block of scores; None takes what is fast on the device.

    Attributes:
        block_size: number of queries that are best searched together.
        rows_a_group: how many of these one thread compares with the corpus.
    """

    def __init__(
        self,
        queries: VectorSource,
        passages: VectorSource,
        exclusions: Exclusions,
        *,
        device: str = "cpu",
        first_pass: FirstPass = "auto",
        passages_a_block: int | None = None,
    ) -> None:
        if queries.shape[1] != passages.shape[1]:
            raise TeacherError(f"queries have {queries.shape[1]} dimensions, passages {passages.shape[1]}")
        self.queries = queries
        self.exclusions = exclusions
        self.device = torch.device(device)
        self.first_pass, self.precision = first_pass, precision_of(first_pass, self.device)
        self.corpus = Corpus(passages, self.device, passages_a_block)
        on_cpu = self.device.type == "cpu"
        self.rows_a_group = ROWS_A_GROUP if on_cpu else 4 * ROWS_A_GROUP
        of_threads = max(QUERIES_A_BLOCK, self.rows_a_group * torch.get_num_threads())
        self.block_size = of_threads if on_cpu else QUERIES_A_BLOCK_ON_A_GPU
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

    def each(self, work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
        """Do ``work`` for all pieces, such as groups of queries: on a CPU in a thread each."""
        return side_by_side(work, pieces) if self.device.type == "cpu" else [work(piece) for piece in pieces]

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
            stop = block.start + block.count
            scores[:, block.start : stop] = (queries @ block.vectors[: block.count].double().T).float().cpu()
        return scores.numpy()

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """The exact best passages under each ceiling; see `protocols.QueryBlock`."""
        device, searcher = self.vectors.device, self.searcher
        # One more than asked for, to tell whether anything is left below.
        wanted = min(depth + skip + 1, searcher.n_passages)
        limits = torch.from_numpy(np.asarray(ceilings, dtype=np.float32)).to(device)
        local = torch.from_numpy(rows).to(device)
        size = searcher.rows_a_group
        pieces = list(zip(torch.split(local, size), torch.split(limits, size), strict=True))
        precision = self._precision(rows)
        corpus, dtype = searcher.corpus, precision.dtype

        def group(piece: tuple[torch.Tensor, torch.Tensor]) -> Contenders:
            return self._contenders(*piece, wanted, precision)

        with threadpool_limits(limits=1, user_api="blas"):  # numpy's products stay in the thread that asks for them
            if corpus.resident:  # one thread takes a group from its first product to its last
                keys = searcher.each(lambda piece: group(piece).best(corpus.blocks(dtype)), pieces)
            else:
                groups = searcher.each(group, pieces)
                for block in corpus.blocks(dtype):
                    searcher.each(functools.partial(Contenders.look_at, block=block), groups)
                keys = searcher.each(Contenders.best, groups)
        return ranking_of_keys(torch.cat(keys), depth, skip)

    def _precision(self, rows: IdArray) -> Precision:
        """The number format of the first pass.

        Unless the user names one, float32 on a CPU for queries with several ceilings, which a sweep has: each leaves
        passages in doubt as far as the error of the product reaches, and all of them are scored again. With bfloat16 a
        sweep of SQuAD took 191 s, and not 42 (`benchmarks/README.md`).
        """
        searcher = self.searcher
        chooses = searcher.first_pass == "auto" and searcher.device.type == "cpu"
        several = len(rows) > len(np.unique(rows))
        return precision_of("float32", searcher.device) if chooses and several else searcher.precision

    def _contenders(self, rows: torch.Tensor, limits: torch.Tensor, wanted: int, precision: Precision) -> Contenders:
        searcher = self.searcher
        queries, query_of = torch.unique_consecutive(rows, return_inverse=True)
        excluded = searcher.exclusions.of(self.queries[queries.cpu().numpy()])

        def score(some: torch.Tensor, passages: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            return list_scores(self.vectors[rows[some]], passages, counts, searcher.corpus.gather)

        return Contenders(self.vectors[queries], query_of, limits, wanted, excluded, precision, score, searcher.buffer)
