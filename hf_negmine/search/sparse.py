"""Exact search over sparse vectors: an inverted index of flat arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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
    """

    terms: PassageArray
    offsets: IdArray
    passages: PassageArray
    weights: FloatArray
    n_passages: int

    @classmethod
    def of(cls, blocks: Iterable[SparseVectors]) -> InvertedIndex:
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
        )

    def scores(self, queries: SparseVectors) -> FloatArray:
        """Dot products with every passage, shape (queries, n_passages).

        Each is summed in float64 in term order, independently of other queries, and then rounded to float32.
        """
        first = np.searchsorted(self.terms, queries.terms)
        known = np.searchsorted(self.terms, queries.terms, side="right") > first
        rows = np.repeat(np.arange(len(queries.offsets) - 1), np.diff(queries.offsets))[known]
        terms, weights = first[known], np.asarray(queries.weights)[known].astype(np.float64)
        entries, places = flat_positions(self.offsets[terms], self.offsets[terms + 1] - self.offsets[terms])
        n_queries = len(queries.offsets) - 1
        sums = np.bincount(
            rows[places] * self.n_passages + self.passages[entries],
            weights=weights[places] * self.weights[entries],
            minlength=n_queries * self.n_passages,
        )
        with np.errstate(over="ignore"):  # the search refuses a score that is not finite
            return sums.reshape(n_queries, self.n_passages).astype(np.float32)


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
