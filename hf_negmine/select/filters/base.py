"""The protocol of filters, what they may look at, and how several are applied together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import pyarrow as pa

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Teacher
from hf_negmine.base.ragged import Ragged
from hf_negmine.base.schema import BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.search import Indexes, Queries, ScorePairs, TeacherIndex


@dataclass(frozen=True)
class Listed:
    """Candidates of some targets as CSR, best first.

    Attributes:
        targets: int64, the numbers of the targets, shape (targets,).
        queries: int64, the query id of each target.
        offsets: int64, shape (targets + 1,).
        passages: int32 passage ids, shape (offsets[-1],).
        scores: float32, by the mining teacher, same shape.
    """

    targets: IdArray
    queries: IdArray
    offsets: IdArray
    passages: PassageArray
    scores: FloatArray

    @property
    def target_of(self) -> IdArray:
        """The index of each candidate's target in ``targets``."""
        return self._ragged.rows

    @property
    def _ragged(self) -> Ragged:
        return Ragged(self.offsets, (self.passages, self.scores))

    def kept(self, keep: BoolArray) -> Listed:
        """Only the candidates to ``keep``."""
        kept = self._ragged.kept(keep)
        return Listed(self.targets, self.queries, kept.offsets, *kept.arrays)

    def best(self, places: IdArray, most: int) -> Listed:
        """Some of the targets, by their indices, with the best ``most`` candidates of each."""
        best = self._ragged.take(places, most)
        return Listed(self.targets[places], self.queries[places], best.offsets, *best.arrays)


@dataclass(frozen=True)
class Scene:
    """Everything that a filter may look at.

    Attributes:
        queries: the queries of the search.
        corpus: the passages.
        positive_offsets, positive_ids: the positives of every query as CSR; -1 for one that is not in the corpus.
        positive_texts: the text of every (query, positive) pair if some are not in the corpus; else None.
        positive_score: whether a target is a query (``min``) or a pair (``each``).
        teacher: the mining teacher.
        indexes: opens teachers over the corpus.
        counted: which of the positives set a ceiling, as in `Positives`; None for all.
        whole: whether these are all queries of a fit, rather than some of them or those of later rows. A filter that
            knows none of their texts then says so.
        known_offsets, known_ids: for rows with their own positives, the positives of every query that `fit` knows, as
            CSR; they set no ceiling.
    """

    queries: Queries
    corpus: TextColumn
    positive_offsets: IdArray
    positive_ids: IdArray
    positive_texts: pa.LargeStringArray | None
    positive_score: PositiveScore
    teacher: Teacher
    indexes: Indexes
    counted: BoolArray | None = None
    whole: bool = True
    known_offsets: IdArray | None = None
    known_ids: IdArray | None = None

    @classmethod
    def of(
        cls,
        texts: TextSet,
        teacher: Teacher,
        indexes: Indexes,
        positive_score: PositiveScore = "min",
        counted: BoolArray | None = None,
    ) -> Scene:
        """The scene of a text set, whose positives are all in its corpus."""
        offsets, ids = texts.positive_offsets, texts.positive_ids.astype(np.int64)
        return cls(Queries.of(texts), texts.corpus, offsets, ids, None, positive_score, teacher, indexes, counted)

    @property
    def query_of_pair(self) -> IdArray:
        """The query id of each (query, positive) pair."""
        return np.repeat(np.arange(len(self.positive_offsets) - 1), np.diff(self.positive_offsets))

    def texts_of_pairs(self, pairs: IdArray) -> list[str]:
        """The positives' texts of some (query, positive) pairs."""
        if self.positive_texts is not None:
            return cast(list[str], self.positive_texts.take(pa.array(pairs)).to_pylist())
        return cast(list[str], self.corpus.take(self.positive_ids[pairs]).to_pylist())

    def positive_scores(self, index: TeacherIndex, score_pairs: ScorePairs) -> FloatArray:
        """A teacher's score of every (query, positive) pair; ``score_pairs`` is its scorer."""
        queries = self.query_of_pair
        scores = np.empty(len(queries), dtype=np.float32)
        inside, outside = np.flatnonzero(self.positive_ids >= 0), np.flatnonzero(self.positive_ids < 0)
        if len(inside):
            ids = self.positive_ids[inside].astype(np.int32)
            scores[inside] = score_pairs(queries[inside], ids)
        if len(outside):
            texts = self.queries.texts.take(pa.array(queries[outside])).to_pylist()
            scores[outside] = index.text_scores(texts, self.texts_of_pairs(outside))
        return scores


@runtime_checkable
class BoundFilter(Protocol):
    """A filter that is bound to a data set."""

    @property
    def depth(self) -> int | None:
        """How many of a target's candidates it looks at, from the top of those that earlier filters have kept.

        Candidates below that never become negatives.
        """

    def keep(self, listed: Listed) -> BoolArray:
        """Which of the candidates may stay, shape (candidates,).

        The decision about a candidate may depend on those above it in the same list, but on nothing else in the call.
        """

    def __str__(self) -> str:
        """The filter's name in summaries."""


@dataclass(frozen=True)
class Bound:
    """A `BoundFilter` by its parts: ``keep`` and ``depth`` as there, and its name in summaries."""

    name: str
    keep: Callable[[Listed], BoolArray]
    depth: int | None = None

    def __str__(self) -> str:
        return self.name


@runtime_checkable
class Filter(Protocol):
    """A rule for candidates besides the ceiling. Its ``str`` names it with its settings."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes what the filter keeps, with digests of large values; goes into provenance."""

    def bind(self, scene: Scene) -> BoundFilter:
        """The same filter, bound to the data set."""


def kept_by(one: BoundFilter, listed: Listed) -> BoolArray:
    """Which candidates a filter keeps.

    Raises:
        InputError: it does not return a bool per candidate.
    """
    keep = np.asarray(one.keep(listed))
    if keep.dtype != bool or keep.shape != listed.passages.shape:
        raise InputError(
            f"filter {one} returned an array of {keep.dtype} with shape {keep.shape} for {len(listed.passages)} "
            "candidates, expected one bool per candidate"
        )
    return keep


def keep_all(filters: Sequence[BoundFilter], listed: Listed) -> tuple[Listed, dict[str, IdArray], BoolArray]:
    """What all filters keep, how many candidates of each target each filter dropped, and which targets are finished.

    A filter only sees what the filters before it have kept, so cheap ones come first. A filter's depth counts the
    candidates that reach it; a target for which a filter has reached its depth can get no more candidates.
    """
    removed: dict[str, IdArray] = {}
    ended = np.zeros(len(listed.targets), dtype=bool)
    for one in filters:
        if one.depth is not None:
            ended |= np.diff(listed.offsets) >= one.depth
            listed = listed.best(np.arange(len(listed.targets)), one.depth)
        keep = kept_by(one, listed)
        taken = np.bincount(listed.target_of[~keep], minlength=len(listed.targets))
        removed[str(one)] = removed.get(str(one), 0) + taken
        listed = listed.kept(keep)
    return listed, removed, ended
