"""Several teachers joined into one score, like an ensemble of retrieval runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from hf_negmine.base.errors import InputError, require, require_choice, require_list, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role
from hf_negmine.base.schema import FloatArray


class Fusion:
    """A teacher whose score combines those of others, query by query.

    ``"rrf"`` adds 1 / (60 + rank) over the teachers (reciprocal rank fusion, Cormack, Clarke and Büttcher 2009, with
    ranks from 1 over the whole corpus, positives included). It only knows ranks: a fused score does not tell how much
    better one passage is than the next, and 95 % of a positive at rank 1 is already rank 4. ``"sum"`` scales each
    teacher's scores for a query to 0 … 1 over the corpus and adds them with weights; distances between scores survive,
    so ceilings that depend on them keep their meaning.

    Args:
        teachers: two or more that score a whole corpus: dense, BM25, sparse (not cross-encoders, which can use a fusion
            as their first stage).
        how: ``"rrf"`` or ``"sum"``.
        weights: the weights of the teachers; equal if None. They are scaled to add up to 1.
        rank_constant: the 60 of reciprocal rank fusion.
    """

    def __init__(
        self,
        teachers: Sequence[Any],
        how: Literal["rrf", "sum"] = "rrf",
        *,
        weights: Sequence[float] | None = None,
        rank_constant: int = 60,
    ) -> None:
        require_choice(how, ("rrf", "sum"), argument="Fusion: how")
        require_list(teachers, "Fusion: teachers", "['bm25', 'intfloat/e5-base-v2']")
        require(len(teachers) >= 2, f"Fusion: two teachers or more, got {len(teachers)}")
        try:
            given = np.ones(len(teachers)) if weights is None else np.asarray(weights, dtype=np.float64)
        except (TypeError, ValueError):
            given = np.empty(0)
        if given.shape != (len(teachers),) or not np.isfinite(given).all() or (given <= 0).any():
            raise InputError(f"Fusion: {len(teachers)} teachers need as many positive weights, got {weights!r}")
        require_whole(rank_constant, "Fusion: rank_constant", at_least=0)
        from hf_negmine.teachers import resolve_teacher  # imported here because it imports this class

        self.stages = tuple(resolve_teacher(teacher) for teacher in teachers)
        require_every_score("Fusion", self.stages)
        self.how, self.rank_constant = how, rank_constant
        self.weights, self._given = given / given.sum(), [float(weight) for weight in given]

    @property
    def name(self) -> str:
        """The method and the teachers: ``rrf(e5-base, bm25-english)``."""
        return f"{self.how}({', '.join(stage.name for stage in self.stages)})"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this fusion, except for its teachers."""
        return {"kind": "fusion", "how": self.how, "weights": self._given, "rank_constant": self.rank_constant}

    def fingerprint(self, role: Role) -> str:
        """Digest of the settings; those of the teachers are kept beside it."""
        return digest_of("fusion", self.settings)

    def fuse(self, scores: Sequence[FloatArray]) -> FloatArray:
        """Combine the teachers' scores into one; see `protocols.FusionTeacher`."""
        joined = np.zeros(scores[0].shape, dtype=np.float64)
        for weight, part in zip(self.weights, scores, strict=True):
            if self.how == "rrf":
                joined += weight / (self.rank_constant + 1 + _ranks(part))
            else:
                joined += weight * _unit_range(part)
        return joined.astype(np.float32)


def require_every_score(fusion: str, teachers: Sequence[Any]) -> None:
    """Raise `InputError` for a teacher that does not score all passages of a corpus."""
    for teacher in teachers:
        # Looking for the attributes of `VectorTeacher` would load a model, up to Python 3.11.
        require(
            getattr(teacher, "candidates", None) is None,
            f"{fusion}: it needs the score of every passage, and {teacher.name} only scores candidates; a fusion takes "
            "teachers that search the whole corpus, and can be the first_stage of one that does not",
        )


def _ranks(scores: FloatArray) -> Any:
    """Rank of each column in its row, from 0; equal scores share the best of their ranks."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    places = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    new = np.ones(scores.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    shared = np.maximum.accumulate(np.where(new, places, 0), axis=1)
    ranks = np.empty_like(shared)
    np.put_along_axis(ranks, order, shared, axis=1)
    return ranks


def _unit_range(scores: FloatArray) -> Any:
    values = scores.astype(np.float64)
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    return (values - low) / np.where(high > low, high - low, 1.0)
