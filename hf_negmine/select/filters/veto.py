"""A second teacher's say in which candidates may be negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_negmine.base.errors import InputError, require_finite, require_whole
from hf_negmine.base.protocols import PairTeacher
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.select.filters.base import Bound, BoundFilter, Listed, Scene
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.select.selection import Positives
from hf_negmine.teachers import identity_of, resolve_teacher


@dataclass(frozen=True)
class Veto:
    """A candidate must be under its ceiling by another teacher's scores, too.

    Attributes:
        teacher: the other teacher, of any kind: ``"bm25"``, a model, a cross-encoder.
        method: that teacher's ceilings, in its own scale. A method with a rank window, a floor or a
            percentile is refused.
        abstain_at: the teacher has no say in a query whose positive it scores at or under this; None for no such limit.
            A teacher that does not find the positive cannot judge what is too close to it: BM25 scores a positive
            without a word of the query 0, like most of the corpus, and would leave nothing (``abstain_at=0``).
        depth: how many candidates per query it looks at; None for no limit, or for a cross-encoder's own
            ``candidates``.
    """

    teacher: Any
    method: Any = None
    abstain_at: float | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher", resolve_teacher(self.teacher))
        object.__setattr__(self, "method", resolve_method(self.method))
        method: Method = self.method
        more = method.first_rank or method.last_rank is not None or method.floor > -np.inf or method.sees_all_positives
        if not method.rules or more:
            raise InputError(f"Veto: method: expected a ceiling alone, such as perc_pos:0.95, got {method}")
        if self.abstain_at is not None:
            require_finite(self.abstain_at, "Veto: abstain_at")
            object.__setattr__(self, "abstain_at", float(self.abstain_at))
        if self.depth is not None:
            require_whole(self.depth, "Veto: depth", at_least=1)
            object.__setattr__(self, "depth", int(self.depth))
        elif isinstance(self.teacher, PairTeacher):
            object.__setattr__(self, "depth", self.teacher.candidates)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Filter`."""
        return {"filter": str(self), "abstain_at": self.abstain_at, "depth": self.depth, **identity_of(self.teacher)}

    def bind(self, scene: Scene) -> BoundFilter:
        """See `Filter`."""
        index = scene.indexes.open(self.teacher, scene.corpus)
        score_pairs = scene.indexes.scorer(self.teacher, scene.corpus, scene.queries)
        positives = Positives(
            scene.positive_offsets,
            scene.positive_ids.astype(np.int32),
            scene.positive_scores(index, score_pairs),
            scene.counted,
        )
        if scene.whole:
            positives.warn_of_zeros(self.teacher.name)
        _, positive_scores = positives.targets(scene.positive_score)
        ceilings = self.method.ceilings(positive_scores)
        if self.abstain_at is not None:
            ceilings[positive_scores <= self.abstain_at] = np.inf
        return bound_veto(str(self), self.depth, score_pairs, ceilings)

    def __str__(self) -> str:
        return f"veto by {self.teacher.name} ({self.method})"


def bound_veto(
    name: str, depth: int | None, score_pairs: Callable[[IdArray, PassageArray], FloatArray], ceilings: FloatArray
) -> BoundFilter:
    """Keeps candidates that score under the ceiling of their target, by ``score_pairs`` of query and passage ids.

    Its scores have another scale than those of the ranking. ``ceilings`` is float32, shape (targets,).
    """

    def keep(listed: Listed) -> BoolArray:
        target = listed.target_of
        scores = score_pairs(listed.queries[target], listed.passages)
        return np.asarray(scores < ceilings[listed.targets[target]])

    return Bound(name, keep, depth)
