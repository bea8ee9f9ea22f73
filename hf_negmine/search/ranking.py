"""Sorting by (score falling, passage id rising) in one key, and rankings as CSR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hf_negmine.base.protocols import Ranking
from hf_negmine.base.ragged import flat_positions, offsets_of_counts
from hf_negmine.base.schema import IdArray, PassageArray

LOW_BITS = 0x7FFFFFFF
NOTHING = torch.iinfo(torch.int64).min
"""Key of an empty place; below the key of every finite score."""


def pack_keys(scores: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
    """One int64 per candidate that sorts, falling, by score and then by the lower passage id.

    A float32 read as an integer sorts like the number once its sign is folded in. -inf becomes `NOTHING`.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ordered = torch.where(bits >= 0, bits, bits ^ LOW_BITS).to(torch.int64)
    keys = ordered * 2**32 + (LOW_BITS - passages.to(torch.int64))
    return torch.where(scores == -torch.inf, NOTHING, keys)


def unpack_keys(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (float32) and passage ids (int32) of packed keys. Empty places come out as -inf and some id."""
    ordered = (keys >> 32).to(torch.int32)
    bits = torch.where(ordered >= 0, ordered, ordered ^ LOW_BITS)
    scores = torch.where(keys == NOTHING, -torch.inf, bits.view(torch.float32))
    return scores, (LOW_BITS - (keys & LOW_BITS)).to(torch.int32)


def ranking_of_keys(keys: torch.Tensor, depth: int, skip: int) -> Ranking:
    """A `Ranking` from keys, falling along a row, of shape (rows, depth + skip or more, or all there are)."""
    present = (keys != NOTHING).sum(dim=1)
    counts = (present.clamp(max=depth + skip) - skip).clamp(min=0).cpu().numpy()
    window = keys[:, skip : skip + depth]
    scores, passages = unpack_keys(window)
    valid = torch.arange(window.shape[1], device=keys.device) < torch.from_numpy(counts).to(keys.device)[:, None]
    return Ranking(
        offsets=offsets_of_counts(counts),
        passages=passages[valid].cpu().numpy(),
        scores=scores[valid].cpu().numpy(),
        exhausted=(present <= depth + skip).cpu().numpy(),
    )


def merged(one: Ranking, other: Ranking, depth: int) -> Ranking:
    """The best ``depth`` of two rankings of the same queries over different passages, each at least that deep.

    It is associative: however many are merged, in whatever order, the result is that of searching all their passages.
    """
    counts = np.diff(one.offsets) + np.diff(other.offsets)
    rows = np.concatenate([np.repeat(np.arange(len(counts)), np.diff(part.offsets)) for part in (one, other)])
    passages = np.concatenate([one.passages, other.passages])
    scores = np.concatenate([one.scores, other.scores])
    order = np.lexsort((passages, -scores, rows))
    places = np.arange(len(order)) - offsets_of_counts(counts)[rows[order]]
    kept = order[places < depth]
    return Ranking(
        offsets=offsets_of_counts(np.minimum(counts, depth)),
        passages=passages[kept],
        scores=scores[kept],
        exhausted=one.exhausted & other.exhausted & (counts <= depth),
    )


@dataclass(frozen=True)
class Exclusions:
    """Passages that are never candidates of a query, as CSR over query ids (`TextSet.excluded`)."""

    offsets: IdArray
    passages: PassageArray

    @classmethod
    def none(cls, n_queries: int) -> Exclusions:
        """No exclusions: every passage is a candidate."""
        return cls(np.zeros(n_queries + 1, dtype=np.int64), np.empty(0, dtype=np.int32))

    def of(self, queries: IdArray) -> tuple[IdArray, IdArray]:
        """Row (position in ``queries``) and passage id of every exclusion of these queries."""
        starts = self.offsets[queries]
        positions, rows = flat_positions(starts, self.offsets[queries + 1] - starts)
        return rows, self.passages[positions].astype(np.int64)
