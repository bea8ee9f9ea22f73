"""Late interaction: the score of a pair from the vectors of its tokens (ColBERT, arXiv 2004.12832, section 3.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from hf_negmine.base.protocols import TokenVectors
from hf_negmine.base.schema import AnyArray, FloatArray, IdArray, PassageArray
from hf_negmine.teachers.stored import StoredTokens
from hf_negmine.teachers.vectors import unit_length

TOKENS_A_STEP = 65_536
"""Passage tokens held at a time; a longer passage is held by itself."""


class MaxSim:
    """Scores pairs by the sum, over the query's tokens, of the best match among the passage's tokens.

    Args:
        queries, passages: vectors of their tokens.
        device: where products are computed.
    """

    def __init__(self, queries: StoredTokens, passages: StoredTokens, device: str = "cpu") -> None:
        self.queries, self.passages, self._device = queries, passages, torch.device(device)

    def scores(self, queries: IdArray, passages: PassageArray) -> FloatArray:
        """The score of each (query id, passage id) pair, float32, shape (pairs,).

        Products are summed in float64 and rounded once. A matrix product may use another order of summation for another
        number of passages; the sums then differ by about 1e-16, which rounding to float32 nearly always removes.
        """
        scores = np.empty(len(queries), dtype=np.float32)
        order = np.argsort(queries, kind="stable")
        bounds = np.flatnonzero(np.diff(queries[order], prepend=-1, append=np.iinfo(np.int64).max))
        for first, last in itertools.pairwise(bounds):
            some = order[first:last]
            query = self.queries.gather(queries[some[:1]]).vectors.astype(np.float64)
            scores[some] = self._of_one(query, passages[some])
        return scores

    def _of_one(self, query: AnyArray, passages: PassageArray) -> FloatArray:
        scores: list[AnyArray] = []
        for some in _steps(self.passages, passages):
            tokens = self.passages.gather(passages[some])
            # Passages differ in their number of tokens; without padding, padding cannot be the best match.
            if self._device.type == "cpu":  # numpy takes half of torch's time there
                similarities = tokens.vectors.astype(np.float64) @ query.T
                scores.append(np.maximum.reduceat(similarities, tokens.offsets[:-1], axis=0).sum(axis=1))
            else:
                scores.append(self._on_device(query, tokens))
        return np.concatenate(scores).astype(np.float32)

    def _on_device(self, query: AnyArray, tokens: TokenVectors) -> AnyArray:
        counts = np.diff(tokens.offsets)
        query_tokens, vectors = (torch.from_numpy(part).to(self._device).double() for part in (query, tokens.vectors))
        passage = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(self._device)
        similarities = vectors @ query_tokens.T
        best = torch.full((len(counts), len(query)), -torch.inf, dtype=torch.float64, device=self._device)
        best.scatter_reduce_(0, passage[:, None].expand_as(similarities), similarities, "amax")
        return np.asarray(best.sum(dim=1).cpu().numpy())


class MeanVectors:
    """The mean of each text's token vectors, of length 1; a `search.corpus.VectorSource`."""

    def __init__(self, tokens: StoredTokens) -> None:
        self._tokens = tokens
        self.shape = (len(tokens), tokens.width)

    def slice(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop."""
        return self.gather(np.arange(start, min(stop, self.shape[0])))

    def gather(self, ids: AnyArray) -> FloatArray:
        """Rows with these ids."""
        means = np.empty((len(ids), self.shape[1]), dtype=np.float32)
        for some in _steps(self._tokens, ids):
            tokens = self._tokens.gather(ids[some])
            sums = np.add.reduceat(tokens.vectors.astype(np.float64), tokens.offsets[:-1], axis=0)
            means[some] = sums / np.diff(tokens.offsets)[:, None]
        return unit_length(means)


def _steps(tokens: StoredTokens, ids: AnyArray) -> Iterator[slice]:
    """Consecutive slices of ``ids`` whose tokens are held together."""
    ends = np.cumsum(tokens.counts(ids))
    start = 0
    while start < len(ids):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + TOKENS_A_STEP, side="right")))
        yield slice(start, stop)
        start = stop
