"""Several teachers for one data set, each with its own ranking, scale and ceilings (NV-Retriever, 4.2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_negmine.base.errors import InputError, require, require_list
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Teacher
from hf_negmine.base.ragged import Ragged, offsets_of_counts
from hf_negmine.base.randomness import KeyArray, random_keys
from hf_negmine.base.schema import AnyArray, IdArray
from hf_negmine.select.choosing import padded
from hf_negmine.select.selection import Selection
from hf_negmine.teachers import ENSEMBLES, Options, parse_call, resolve_teacher, teacher_of_settings

TARGETS_A_STEP = 65_536
CHOOSING = 0x5EED
"""Mixed into the seed, so that the draw of a teacher is independent of the draws of its negatives."""


@dataclass(frozen=True)
class Ensemble(ABC):
    """Teachers that mine together.

    Attributes:
        teachers: two or more teachers, as a miner takes them one at a time.
    """

    teachers: Sequence[Any]

    def __post_init__(self) -> None:
        require_list(self.teachers, f"{type(self).__name__}: teachers", "['bm25', 'intfloat/e5-base-v2']")
        require(len(self.teachers) >= 2, f"{type(self).__name__}: two teachers or more, got {len(self.teachers)}")
        object.__setattr__(self, "teachers", tuple(resolve_teacher(teacher) for teacher in self.teachers))

    @property
    def stages(self) -> tuple[Any, ...]:
        """The teachers."""
        return tuple(self.teachers)

    @property
    def name(self) -> str:
        """The kind and the teachers: ``cross-sample(e5-base, bm25-english)``."""
        return f"{self.kind}({', '.join(teacher.name for teacher in self.teachers)})"

    @property
    @abstractmethod
    def kind(self) -> str:
        """The ensemble's name in the paper."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this ensemble, except for its teachers."""
        return {"kind": self.kind}

    def fingerprint(self, role: Role) -> str:
        """Digest of the settings; those of the teachers are stored beside it."""
        return digest_of(self.settings)

    def negatives_a_teacher(self, n: int) -> int:
        """How many of a query's n negatives each teacher chooses.

        Raises:
            InputError: the teachers cannot share ``n`` equally.
        """
        return n

    @abstractmethod
    def joined(
        self, selections: Sequence[Selection], reserves: Sequence[Selection], n: int, seed: int, query_keys: KeyArray
    ) -> Selection:
        """Join the teachers' selections into one.

        Args:
            selections: each teacher's, with `negatives_a_teacher` negatives per target.
            reserves: each teacher's n best, under the same method.
            n: negatives per target.
            seed: the seed of the draw.
            query_keys: for each target, the first half of its query's digest.
        """


@dataclass(frozen=True)
class CrossSample(Ensemble):
    """Each query draws one teacher at random, which gives all its negatives (section 4.2, "cross-sample")."""

    @property
    def kind(self) -> str:
        """Its name in the paper."""
        return "cross-sample"

    def drawn(self, seed: int, query_keys: KeyArray) -> IdArray:
        """The index of the teacher that each target draws."""
        return drawn_teachers(seed, query_keys, len(self.teachers))

    def joined(
        self, selections: Sequence[Selection], reserves: Sequence[Selection], n: int, seed: int, query_keys: KeyArray
    ) -> Selection:
        """See `Ensemble`."""
        by = self.drawn(seed, query_keys)
        targets = np.arange(len(by))
        every = Ragged.concatenated([selection.ragged for selection in selections])
        chosen = every.take(by * len(by) + targets)
        passages, scores = chosen.arrays
        positive_scores = np.stack([selection.positive_scores for selection in selections])
        ended = _list_ended(selections)
        return replace(
            selections[0],
            n=n,
            offsets=chosen.offsets,
            passages=passages,
            scores=scores,
            positive_scores=positive_scores[by, targets],
            chosen_by=np.repeat(by, chosen.counts),
            positive_scores_by=positive_scores,
            list_ended=None if ended is None else ended[by, targets],
        )


@dataclass(frozen=True)
class IntraSample(Ensemble):
    """Each query takes the best of every teacher (section 4.2, "intra-sample").

    With 8 negatives and 4 teachers, each gives two: first the best of every teacher, then the second best of each.

    Attributes:
        dedup: replace a passage that an earlier teacher has already given by the next new one on the list. Without it,
            a passage that two teachers agree on is listed twice and so weighs double, which is slightly better in the
            paper (table 2).
    """

    dedup: bool = False

    @property
    def kind(self) -> str:
        """Its name in the paper."""
        return "intra-sample-dedup" if self.dedup else "intra-sample"

    def negatives_a_teacher(self, n: int) -> int:
        """See `Ensemble`."""
        if n % len(self.teachers):
            raise InputError(
                f"num_negatives: {self.kind} takes the same number from each of its {len(self.teachers)} teachers, and "
                f"{n} is not a multiple of {len(self.teachers)}"
            )
        return n // len(self.teachers)

    def joined(
        self, selections: Sequence[Selection], reserves: Sequence[Selection], n: int, seed: int, query_keys: KeyArray
    ) -> Selection:
        """See `Ensemble`."""
        n_targets = len(query_keys)
        passages = np.full((n_targets, n), -1, dtype=np.int64)
        scores = np.zeros((n_targets, n), dtype=np.float32)
        for start in range(0, n_targets, TARGETS_A_STEP):
            some = slice(start, min(start + TARGETS_A_STEP, n_targets))
            lists = [
                _table((selection, reserve) if self.dedup else (selection,), some)
                for selection, reserve in zip(selections, reserves, strict=True)
            ]
            for place in range(n):
                ids, values = lists[place % len(selections)]
                rows, column = np.arange(len(ids)), np.full(len(ids), place // len(selections))
                if self.dedup:
                    taken = (ids[:, :, None] == passages[some, None, :place]).any(axis=2)
                    ids = np.where(taken, -1, ids)
                    column = (ids >= 0).argmax(axis=1)
                passages[some, place] = ids[rows, column]
                scores[some, place] = values[rows, column]
        there = passages >= 0
        positive_scores = np.stack([selection.positive_scores for selection in selections])
        ended = _list_ended(selections)
        return replace(
            selections[0],
            n=n,
            offsets=offsets_of_counts(there.sum(axis=1)),
            passages=passages[there].astype(np.int32),
            scores=scores[there],
            chosen_by=np.broadcast_to(np.arange(n) % len(selections), there.shape)[there],
            positive_scores_by=positive_scores,
            list_ended=None if ended is None else np.asarray(ended.any(axis=0)),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """See `Ensemble`."""
        return {"kind": "intra-sample", "dedup": self.dedup}


def drawn_teachers(seed: int, query_keys: KeyArray, n_teachers: int) -> IdArray:
    """The index of the teacher that each target draws under `CrossSample`."""
    keys = random_keys(seed ^ CHOOSING, query_keys, np.zeros((1, 1), dtype=np.uint64))[:, 0]
    return np.asarray(keys % np.uint64(n_teachers), dtype=np.int64)


def resolve_ensemble(teacher: Any, *, progress: bool = True, options: Options | None = None) -> Any:
    """Make an ensemble from its spec, such as ``"cross-sample(bm25, MODEL)"``; others go to `resolve_teacher`.

    Args:
        teacher: several teachers side by side, each under its own ceiling: ``cross-sample(bm25, MODEL)`` draws one of
            them for each query, ``intra-sample(bm25, MODEL)`` takes the best of every one,
            ``intra-sample-dedup(bm25, MODEL)`` takes each passage once. In Python also an `Ensemble`, or anything that
            `resolve_teacher` accepts.
        progress, options: see `resolve_teacher`.

    Raises:
        InputError: ``teacher`` is none of these.
    """
    if isinstance(teacher, Ensemble):
        return teacher
    found = parse_call(teacher, ENSEMBLES) if isinstance(teacher, str) else None
    if found is None:
        return resolve_teacher(teacher, progress=progress, options=options)
    kind, parts = found
    teachers = [resolve_teacher(part, progress=progress, options=options) for part in parts]
    return CrossSample(teachers) if kind == "cross-sample" else IntraSample(teachers, dedup=kind.endswith("-dedup"))


def ensemble_of_settings(settings: dict[str, Any] | None) -> Ensemble | Teacher:
    """Recreate an ensemble or a teacher from the settings in provenance (see `teacher_of_settings`).

    Raises:
        InputError: the settings cannot recreate all of its teachers.
    """
    given = settings if isinstance(settings, dict) else {}
    if given.get("kind") not in ("cross-sample", "intra-sample"):
        return teacher_of_settings(settings)
    stages, dedup = given.get("stages"), given.get("dedup", False)
    if not isinstance(stages, list) or not isinstance(dedup, bool):
        raise InputError(f"teacher: the settings {settings} are not known to this version")
    teachers = [teacher_of_settings(stage) for stage in stages]
    return CrossSample(teachers) if given["kind"] == "cross-sample" else IntraSample(teachers, dedup=dedup)


def agreement(selections: Sequence[Selection]) -> AnyArray:
    """Mean Jaccard similarity of the negatives that two teachers choose for a target (table 6).

    The shape is (teachers, teachers). Targets for which neither teacher has a negative do not count.
    """
    n_passages = 1 + max((int(selection.passages.max(initial=0)) for selection in selections), default=0)
    keys = []
    for selection in selections:
        targets = np.repeat(np.arange(len(selection.counts)), selection.counts)
        keys.append(np.unique(targets * n_passages + selection.passages))
    n_targets = len(selections[0].counts)
    sizes = [np.bincount(part // n_passages, minlength=n_targets) for part in keys]
    table = np.eye(len(selections))
    for one in range(len(keys)):
        for two in range(one):
            both = np.intersect1d(keys[one], keys[two], assume_unique=True)
            common = np.bincount(both // n_passages, minlength=n_targets)
            union = sizes[one] + sizes[two] - common
            similar = common[union > 0] / union[union > 0]
            table[one, two] = table[two, one] = float(similar.mean()) if len(similar) else 0.0
    return table


def _list_ended(selections: Sequence[Selection]) -> AnyArray | None:
    """`Selection.list_ended` of every teacher, shape (teachers, targets)."""
    if all(selection.list_ended is None for selection in selections):
        return None
    nowhere = np.zeros(len(selections[0].counts), dtype=bool)
    return np.stack([nowhere if one.list_ended is None else one.list_ended for one in selections])


def _table(parts: Sequence[Selection], some: slice) -> tuple[AnyArray, AnyArray]:
    """Passage ids (-1 for none) and scores of some targets, with the parts side by side."""
    ids, scores = [], []
    for selection in parts:
        place = selection.offsets[:-1][some], selection.counts[some], selection.n
        ids.append(padded(selection.passages, *place, -1))
        scores.append(padded(selection.scores, *place, 0))
    return np.concatenate(ids, axis=1), np.concatenate(scores, axis=1)
