"""Exact search for teachers that score every passage (BM25, sparse vectors, fusions): the best under a ceiling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from hf_negmine.base.errors import TeacherError
from hf_negmine.base.protocols import Ranking
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray
from hf_negmine.search.ranking import Exclusions, pack_keys, ranking_of_keys

SCORES_A_BLOCK = 2**22


class ScoreSearcher:
    """Searches a corpus in which every passage is scored.

    Args:
        scores: gives the scores of all passages for the given query ids, shape (len(queries), n_passages).
        queries: query texts.
        n_passages: passages in the corpus.
        exclusions: known positives and same-text passages, over the query ids.
        teacher: the teacher's name, for errors.
    """

    def __init__(
        self,
        scores: Callable[[IdArray], FloatArray],
        queries: pa.LargeStringArray,
        n_passages: int,
        exclusions: Exclusions,
        *,
        teacher: str,
    ) -> None:
        self.n_passages = n_passages
        self.block_size = int(np.clip(SCORES_A_BLOCK // max(n_passages, 1), 1, 1024))
        self._scores, self._queries, self._exclusions, self._teacher = scores, queries, exclusions, teacher

    def block(self, queries: IdArray) -> _ScoreBlock:
        """Score every passage for the given query ids; see `protocols.Searcher`."""
        scores = np.asarray(self._scores(queries), dtype=np.float32)
        expected = (len(queries), self.n_passages)
        if scores.shape != expected:
            raise TeacherError(f"teacher {self._teacher!r} gave scores of shape {scores.shape}, expected {expected}")
        if not np.isfinite(scores).all():
            row, passage = np.argwhere(~np.isfinite(scores))[0]
            raise TeacherError(
                f"teacher {self._teacher!r} gave the score {scores[row, passage]} to passage {passage} for the query "
                f"{self._queries[int(queries[row])].as_py()!r}, expected finite scores"
            )
        return _ScoreBlock(torch.from_numpy(scores), self._exclusions.of(queries))


@dataclass(frozen=True)
class _ScoreBlock:
    """Some queries of a `ScoreSearcher`; see `protocols.QueryBlock`."""

    scores: torch.Tensor
    excluded: tuple[IdArray, IdArray]

    def all_scores(self) -> FloatArray:
        """See `protocols.ScanningBlock`."""
        return np.asarray(self.scores.numpy())

    def pair_scores(self, rows: IdArray, passages: PassageArray) -> FloatArray:
        """See `protocols.QueryBlock`."""
        return self.scores[torch.from_numpy(rows), torch.from_numpy(passages.astype(np.int64))].numpy()

    def best(self, rows: IdArray, ceilings: FloatArray, depth: int, skip: int = 0) -> Ranking:
        """See `protocols.QueryBlock`."""
        eligible = self.scores.clone()
        eligible[torch.from_numpy(self.excluded[0]), torch.from_numpy(self.excluded[1])] = -torch.inf
        limits = torch.from_numpy(np.asarray(ceilings, dtype=np.float32))
        # One more than wanted, to tell whether anything is left below.
        wanted = min(depth + skip + 1, eligible.shape[1])
        keys = []
        step = max(1, len(eligible))  # in steps, as a query may have many ceilings
        for some, below in zip(torch.split(torch.from_numpy(rows), step), torch.split(limits, step), strict=True):
            scores = eligible[some]
            scores.masked_fill_(scores >= below[:, None], -torch.inf)
            columns = torch.arange(scores.shape[1]).expand_as(scores)
            keys.append(pack_keys(scores, columns).topk(wanted, dim=1).values)
        return ranking_of_keys(torch.cat(keys), depth, skip)
