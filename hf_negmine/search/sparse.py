"""Exact search over sparse vectors: an inverted index of flat arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from hf_negmine.base.protocols import SparseVectors
from hf_negmine.base.ragged import flat_positions, offsets_of_counts
from hf_negmine.base.schema import FloatArray, IdArray, PassageArray


@dataclass(frozen=True)
class InvertedIndex:
    """The passages of every term.

    Attributes:
        terms: int32, rising: the terms that occur in any passage.
        offsets: int64, shape (terms + 1,).
        passages: int32, rising within a term.
        weights: float32, same shape.
        n_passages: passages in the corpus.
        device: where products are computed.
    """

    terms: PassageArray
    offsets: IdArray
    passages: PassageArray
    weights: FloatArray
    n_passages: int
    device: str = "cpu"

    @classmethod
    def of(cls, blocks: Iterable[SparseVectors], device: str = "cpu") -> InvertedIndex:
        """Index the vectors of successive passages. Takes 8 bytes of memory per entry, at first three times that."""
        terms, passages, weights, n_passages = [], [], [], 0
        for block in blocks:
            counts = np.diff(block.offsets)
            passages.append(np.repeat(np.arange(n_passages, n_passages + len(counts), dtype=np.int32), counts))
            terms.append(np.asarray(block.terms))
            weights.append(np.asarray(block.weights))
            n_passages += len(counts)
        all_terms = np.concatenate(terms)
        order = np.argsort(all_terms, kind="stable")
        distinct, counts = np.unique(all_terms, return_counts=True)
        return cls(
            distinct,
            offsets_of_counts(counts),
            np.concatenate(passages)[order],
            np.concatenate(weights)[order],
            n_passages,
            device,
        )

    def scores(self, queries: SparseVectors) -> FloatArray:
        """Dot products with every passage, shape (queries, n_passages).

        Each is summed in float64 in term order, independently of other queries, and then rounded to float32. (A GPU
        sums in any order; the sums then differ by about 1e-16, which rounding to float32 nearly always removes.)
        """
        first = np.searchsorted(self.terms, queries.terms)
        known = np.searchsorted(self.terms, queries.terms, side="right") > first
        rows = np.repeat(np.arange(len(queries.offsets) - 1), np.diff(queries.offsets))[known]
        terms, weights = first[known], np.asarray(queries.weights)[known].astype(np.float64)
        entries, places = flat_positions(self.offsets[terms], self.offsets[terms + 1] - self.offsets[terms])
        shape = len(queries.offsets) - 1, self.n_passages
        if self._on_device is None:
            at = rows[places] * self.n_passages + self.passages[entries]
            sums = np.bincount(at, weights[places] * self.weights[entries], minlength=shape[0] * shape[1])
            with np.errstate(over="ignore"):  # the search refuses a score that is not finite
                return sums.reshape(shape).astype(np.float32)
        passages, own = self._on_device
        device = passages.device
        one, other = (torch.from_numpy(part).to(device) for part in (entries, places))
        row, weight = (torch.from_numpy(part).to(device) for part in (rows * self.n_passages, weights))
        found = torch.zeros(shape[0] * shape[1], dtype=torch.float64, device=device)
        found.index_add_(0, row[other] + passages[one], weight[other] * own[one])
        return np.asarray(found.view(shape).float().cpu().numpy())

    @cached_property
    def _on_device(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Passages and weights where products are computed, if that is not the processor."""
        if torch.device(self.device).type == "cpu":
            return None
        return torch.from_numpy(self.passages).to(self.device), torch.from_numpy(self.weights).to(self.device)


def paired_scores(queries: SparseVectors, passages: SparseVectors) -> FloatArray:
    """The dot product of each query with the passage in the same row, summed as in `InvertedIndex.scores`."""
    ours, theirs = _entry_keys(queries), _entry_keys(passages)
    at = np.minimum(np.searchsorted(theirs, ours), max(len(theirs) - 1, 0))
    common = theirs[at] == ours if len(theirs) else np.zeros(len(ours), dtype=bool)
    products = np.asarray(queries.weights, dtype=np.float64)[common] * passages.weights[at[common]]
    with np.errstate(over="ignore"):
        return np.bincount(ours[common] >> 32, products, minlength=len(queries.offsets) - 1).astype(np.float32)


def _entry_keys(vectors: SparseVectors) -> IdArray:
    """One number per entry, made from its row and its term, rising."""
    rows = np.repeat(np.arange(len(vectors.offsets) - 1), np.diff(vectors.offsets))
    return np.asarray(rows * 2**32 + vectors.terms)
