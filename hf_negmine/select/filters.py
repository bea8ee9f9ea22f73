"""Filters: what else a candidate must be, besides under its ceiling, to become a negative.

A filter is told of the whole data set once, and then says of lists of candidates which may stay. Candidates are handed
to it from the top of a ranking until enough have stayed, so a filter never makes a row short while the corpus holds
more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import pyarrow as pa

from hf_negmine.errors import InputError, require, require_choice, require_whole
from hf_negmine.methods import Method, resolve_method
from hf_negmine.protocols import PairTeacher, Teacher
from hf_negmine.schema import BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.search import Indexes, Queries, TeacherIndex, pair_scores
from hf_negmine.select.selection import Positives, PositiveScore
from hf_negmine.teachers import identity_of, resolve_teacher
from hf_negmine.texts import TextColumn


@dataclass(frozen=True)
class Listed:
    """Candidates of some targets as CSR, the best first.

    Attributes:
        targets: int64 numbers of the targets, shape (targets,).
        queries: int64 query id of each target.
        offsets: int64, shape (targets + 1,).
        passages: int32 passage ids, shape (offsets[-1],).
        scores: float32, the mining teacher's, same shape.
    """

    targets: IdArray
    queries: IdArray
    offsets: IdArray
    passages: PassageArray
    scores: FloatArray

    @property
    def target_of(self) -> IdArray:
        """The place in ``targets`` of each candidate."""
        return np.repeat(np.arange(len(self.targets)), np.diff(self.offsets))

    def kept(self, keep: BoolArray) -> Listed:
        """Those candidates that stay."""
        offsets = np.concatenate([[0], np.cumsum(keep)])[self.offsets].astype(np.int64)
        return Listed(self.targets, self.queries, offsets, self.passages[keep], self.scores[keep])


@dataclass(frozen=True)
class Scene:
    """What a filter may look at.

    Attributes:
        queries: what is searched for.
        corpus: the passages.
        positive_offsets, positive_ids: the positives of every query as CSR; -1 for one that is not in the corpus.
        positive_texts: text of every (query, positive) pair, where some are not in the corpus; else None.
        positive_score: whether a target is a query (``min``) or a pair (``each``).
        teacher: the one that mines.
        indexes: opens teachers over the corpus.
    """

    queries: Queries
    corpus: TextColumn
    positive_offsets: IdArray
    positive_ids: IdArray
    positive_texts: pa.LargeStringArray | None
    positive_score: PositiveScore
    teacher: Teacher
    indexes: Indexes

    @property
    def query_of_pair(self) -> IdArray:
        """The query id of each (query, positive) pair."""
        return np.repeat(np.arange(len(self.positive_offsets) - 1), np.diff(self.positive_offsets))

    def texts_of_pairs(self, pairs: IdArray) -> list[str]:
        """The positive's text of some (query, positive) pairs."""
        if self.positive_texts is not None:
            return cast(list[str], self.positive_texts.take(pa.array(pairs)).to_pylist())
        return cast(list[str], self.corpus.take(self.positive_ids[pairs]).to_pylist())

    def positive_scores(self, index: TeacherIndex) -> FloatArray:
        """A teacher's score of every (query, positive) pair."""
        queries = self.query_of_pair
        scores = np.empty(len(queries), dtype=np.float32)
        inside, outside = np.flatnonzero(self.positive_ids >= 0), np.flatnonzero(self.positive_ids < 0)
        if len(inside):
            ids = self.positive_ids[inside].astype(np.int32)
            scores[inside] = pair_scores(index.searcher(self.queries), queries[inside], ids)
        if len(outside):
            texts = self.queries.texts.take(pa.array(queries[outside])).to_pylist()
            scores[outside] = index.text_scores(texts, self.texts_of_pairs(outside))
        return scores


class BoundFilter(Protocol):
    """A filter that knows the data set."""

    @property
    def depth(self) -> int | None:
        """How many candidates of a target, from the top, it looks at; those below never become negatives."""

    def keep(self, listed: Listed) -> BoolArray:
        """Which of the candidates may stay, shape (candidates,).

        What it says of a candidate may depend on those above it in the same list, and on nothing else of the call.
        """

    def __str__(self) -> str:
        """Its name in summaries."""


@runtime_checkable
class Filter(Protocol):
    """A rule for candidates besides the ceiling. Its ``str`` names it with its settings."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes what it keeps, with digests of what is large; goes into provenance."""

    def bind(self, scene: Scene) -> BoundFilter:
        """The same filter, which knows the data set."""


@dataclass(frozen=True)
class Veto:
    """A candidate must lie under its ceiling with another teacher, too.

    Attributes:
        teacher: anything that mines: ``"bm25"``, a model, a cross-encoder.
        method: its ceilings, in its own scale. A method with a rank window is none.
        abstain_at: a query whose positive it scores at or under this is left alone; None for none. A teacher that does
            not find the positive is no judge of what is too close to it: BM25 gives a positive without a word of the
            query 0, as it does most of the corpus, and would leave nothing (``abstain_at=0``).
        depth: how many candidates a query it looks at; None for as many as it takes, or as a cross-encoder's own
            ``candidates`` say.
    """

    teacher: Any
    method: Any = None
    abstain_at: float | None = None
    depth: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher", resolve_teacher(self.teacher))
        object.__setattr__(self, "method", resolve_method(self.method))
        method: Method = self.method
        if not method.rules or method.first_rank or method.last_rank is not None or method.floor > -np.inf:
            raise InputError(f"Veto: a veto is a ceiling such as perc_pos:0.95, and {method} is none or more than that")
        if self.depth is not None:
            require_whole(self.depth, "Veto: depth", at_least=1)
        elif isinstance(self.teacher, PairTeacher):
            object.__setattr__(self, "depth", self.teacher.candidates)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Filter`."""
        return {"filter": str(self), "abstain_at": self.abstain_at, "depth": self.depth, **identity_of(self.teacher)}

    def bind(self, scene: Scene) -> BoundFilter:
        """See `Filter`."""
        index = scene.indexes.open(self.teacher, scene.corpus)
        positives = Positives(scene.positive_offsets, scene.positive_ids.astype(np.int32), scene.positive_scores(index))
        _, positive_scores = positives.targets(scene.positive_score)
        ceilings = self.method.ceilings(positive_scores)
        if self.abstain_at is not None:
            ceilings[positive_scores <= self.abstain_at] = np.inf
        searcher = index.searcher(scene.queries)
        return _BoundVeto(
            str(self), self.depth, lambda queries, passages: pair_scores(searcher, queries, passages), ceilings
        )

    def __str__(self) -> str:
        return f"veto by {self.teacher.name} ({self.method})"


@dataclass(frozen=True)
class _BoundVeto:
    name: str
    depth: int | None
    score_pairs: Callable[[IdArray, PassageArray], FloatArray]
    ceilings: FloatArray

    def keep(self, listed: Listed) -> BoolArray:
        target = listed.target_of
        scores = self.score_pairs(listed.queries[target], listed.passages)
        return np.asarray(scores < self.ceilings[listed.targets[target]])

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Consistency:
    """A row counts only if the teacher finds its positive (CoRNStack, arXiv 2412.01007; Gecko, arXiv 2403.20327).

    Attributes:
        top_k: the positive must rank among so many, that is, fewer than ``top_k`` eligible passages may score higher.
        min_score: the positive must score at least this.
        action: ``"drop"`` the row, or ``"flag"`` it in a column ``consistent``.
    """

    top_k: int | None = None
    min_score: float | None = None
    action: Literal["drop", "flag"] = "drop"

    def __post_init__(self) -> None:
        require(
            self.top_k is not None or self.min_score is not None,
            "Consistency: give top_k (a rank), min_score, or both; both are None",
        )
        if self.top_k is not None:
            require_whole(self.top_k, "Consistency: top_k", at_least=1)
        require_choice(self.action, ("drop", "flag"), argument="Consistency: action")

    @property
    def settings(self) -> dict[str, Any]:
        """What goes into provenance."""
        return {"top_k": self.top_k, "min_score": self.min_score, "action": self.action}

    def __str__(self) -> str:
        parts = [f"top {self.top_k}"] if self.top_k is not None else []
        parts += [f"score of at least {self.min_score:g}"] if self.min_score is not None else []
        return f"consistency ({', '.join(parts)})"


def keep_all(filters: Sequence[BoundFilter], listed: Listed) -> tuple[Listed, dict[str, IdArray]]:
    """What all filters keep, and how many candidates of each target every filter took out.

    A filter is asked about what the ones before it have kept, so the cheap ones come first.
    """
    removed: dict[str, IdArray] = {}
    for one in filters:
        keep = np.asarray(one.keep(listed))
        taken = np.bincount(listed.target_of[~keep], minlength=len(listed.targets))
        removed[str(one)] = removed.get(str(one), 0) + taken
        listed = listed.kept(keep)
    return listed, removed
