"""New survivors from a student in training.

Two rules. `mine_with_student` searches the whole corpus with the student (ANCE, arXiv 2007.00808, section 3), under
the method's ceiling on the student's own scores, and with the teacher's veto: a negative that the teacher, the miner's
filters or its judge would have refused stays refused. `Reserve.without_easy` keeps the teacher's ranking, and goes
further down in it where the student has learned to reject a negative (Conan-embedding, arXiv 2408.15710, section 3.2,
"dynamic hard negative mining").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from hf_negmine.base.defaults import POOL_DEPTH
from hf_negmine.base.protocols import Teacher
from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.pool import retrieve
from hf_negmine.search import open_searcher, pair_scores
from hf_negmine.select import Top
from hf_negmine.select.filters import BoundFilter
from hf_negmine.select.filters.veto import bound_veto
from hf_negmine.teachers.vector_store import VectorStore
from hf_negmine.train.bank import BankVersion, Notes
from hf_negmine.train.source import NegativeSource

DEEPEST = 16
"""How many times as deep as the bank the student's ranking is searched for passages that the teacher allows.

A mislabeled positive, for example, may have a ceiling below everything; searching further for it would be in vain."""
HARDER_THAN = 1.15
EASY_UNDER = 0.8
"""Conan's rule: a negative is easy once 1.15 times its score is under its first score, and it is under 0.8 itself."""


def mine_with_student(
    source: NegativeSource, student: Teacher, folder: Path, *, device: str | None, progress: bool
) -> BankVersion:
    """The survivors that the student finds, for each target as many as the source's sampler considers, if allowed.

    ``folder`` holds its vectors and pool, keyed by its weights; a killed run continues from there.
    """
    texts = source.texts
    store = VectorStore(folder, progress=progress)
    pool = retrieve(
        texts,
        lambda: open_searcher(student, texts, store, device=device),
        folder / "pools" / student.fingerprint("passage"),
        {"teacher": student.name, "texts": texts.fingerprint},
        depth=POOL_DEPTH,
        progress=progress,
    )
    k = min(source.sampler.depth(source.n), pool.n_passages - 1)
    filters = [*source.filters, *_teachers_veto(source, min(DEEPEST * k, pool.n_passages - 1))]
    return BankVersion.of(pool.select(source.method, Top(), k, positive_score=source.positive_score, filters=filters))


def _teachers_veto(source: NegativeSource, deepest: int) -> list[BoundFilter]:
    """The filter that the teacher scores a negative under the query's ceiling, if there are a teacher and ceilings."""
    _, positive_scores = source.positives.targets(source.positive_score)
    ceilings = source.method.settled(source.positives.deciding).ceilings(positive_scores)
    if source.open_searcher is None or np.isposinf(ceilings).all():
        return []
    searcher = source.open_searcher()
    return [
        bound_veto("teacher", deepest, lambda queries, passages: pair_scores(searcher, queries, passages), ceilings)
    ]


@dataclass(frozen=True)
class Reserve:
    """The bank as places in a deeper ranking by the teacher, with the student's first score of each negative.

    Attributes:
        ranked: survivors of every target, deeper than the bank.
        offsets: int64, shape (targets + 1,): the bank's entries.
        slots: int64, shape (entries,): places in ``ranked``, rising within a target.
        used: int64, shape (targets,): how many of the ranking have been in the bank so far.
        came_with: float32, shape (entries,): the student's score of each entry when it was added.
    """

    NOTES: ClassVar[tuple[str, ...]] = ("slots", "used", "came_with")

    ranked: BankVersion
    offsets: IdArray
    slots: IdArray
    used: IdArray
    came_with: FloatArray

    @classmethod
    def begin(cls, ranked: BankVersion, k: int) -> Reserve:
        """Start with the best k of each target; ``came_with`` is NaN."""
        counts = np.minimum(np.diff(ranked.offsets), k)
        slots, _ = flat_positions(ranked.offsets[:-1], counts)
        return cls(ranked, offsets_of_counts(counts), slots, counts, np.full(len(slots), np.nan, dtype=np.float32))

    @classmethod
    def of_notes(cls, ranked: BankVersion, offsets: IdArray, notes: Notes) -> Reserve:
        """The reserve of a bank that was stored with its notes."""
        return cls(ranked, offsets, **{name: notes[name] for name in cls.NOTES})

    @property
    def notes(self) -> Notes:
        """The arrays that are stored with the bank."""
        return {name: getattr(self, name) for name in self.NOTES}

    @property
    def target(self) -> IdArray:
        """The target of each entry."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def bank(self) -> BankVersion:
        """The negatives to draw from."""
        return BankVersion(self.offsets, self.ranked.passages[self.slots], self.ranked.scores[self.slots])

    def with_scores(self, scores: FloatArray) -> Reserve:
        """The same reserve, with scores filled in for the entries that were just added."""
        return replace(self, came_with=np.where(np.isnan(self.came_with), scores, self.came_with).astype(np.float32))

    def without_easy(self, now: FloatArray) -> Reserve:
        """Replace each negative that the student scores ``now`` as easy by the next one in the ranking.

        ``came_with`` of the added ones is NaN. A target whose ranking is used up keeps what it has.
        """
        target = self.target
        easy = (HARDER_THAN * now < self.came_with) & (np.abs(now) < EASY_UNDER)
        easy_before = np.concatenate([[0], np.cumsum(easy)])
        next_place = self.used[target] + easy_before[:-1] - easy_before[self.offsets[:-1]][target]
        replaced = easy & (next_place < np.diff(self.ranked.offsets)[target])
        slots = np.where(replaced, self.ranked.offsets[target] + next_place, self.slots)
        came_with = np.where(replaced, np.nan, self.came_with).astype(np.float32)
        order = np.lexsort((slots, target))
        used = self.used + np.bincount(target[replaced], minlength=len(self.used))
        return Reserve(self.ranked, self.offsets, slots[order], used, came_with[order])


def with_fallback(new: BankVersion, old: BankVersion) -> BankVersion:
    """The new version, in which a target with no negatives keeps its old ones."""
    both = Ragged.concatenated([Ragged(one.offsets, (one.passages, one.scores)) for one in (new, old)])
    targets = np.arange(len(new.offsets) - 1)
    kept = both.take(np.where(np.diff(new.offsets) == 0, targets + len(targets), targets))
    passages, scores = kept.arrays
    return BankVersion(kept.offsets, passages, scores)


def changed_entries(old: BankVersion, new: BankVersion, n_passages: int) -> int:
    """The number of entries of ``new`` that were not in ``old`` for the same target."""

    def keys(version: BankVersion) -> IdArray:
        target = np.repeat(np.arange(len(version.offsets) - 1), np.diff(version.offsets))
        return np.asarray(target * n_passages + version.passages)

    return int(np.count_nonzero(~np.isin(keys(new), keys(old))))
