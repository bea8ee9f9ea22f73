"""Negatives for the rows of a batch, each from the first data set that knows the row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_negmine.base.errors import InputError, require
from hf_negmine.train.random_negatives import random_negatives
from hf_negmine.train.rows import TrainingRow
from hf_negmine.train.source import NegativeSource


@dataclass(frozen=True)
class RowSources:
    """The sources of a collator.

    Attributes:
        by_name: the source of each data set, by its name in a DatasetDict; a single source for all rows is named "".
        is_named: whether they were given by name, so that rows with a name use the source of that name.
    """

    by_name: dict[str, NegativeSource]
    is_named: bool

    def of(self, name: str | None) -> list[NegativeSource]:
        """The sources that may know rows of a data set; ``name`` is None if the trainer gives none."""
        if not self.is_named or name is None:
            return list(self.by_name.values())
        return [self.by_name[name]] if name in self.by_name else []

    def give(self, rows: list[TrainingRow], name: str | None, epoch: int, *, add_random: bool) -> None:
        """Give the rows of a batch their n negatives for an epoch, repeated if there are fewer.

        Raises:
            InputError: no source knows a row or can mine it, or sources differ in their number of negatives.
        """
        sources = self.of(name)
        found: dict[int, NegativeSource] = {}
        waiting = list(range(len(rows)))
        for source in sources:
            unknown = source.fill([rows[place] for place in waiting], epoch, mine=len(sources) == 1)
            left = [waiting[place] for place in unknown]
            found |= dict.fromkeys(set(waiting) - set(left), source)
            waiting = left
            if not waiting:
                break
        if waiting:
            first = rows[waiting[0]]
            remedy = "give the miner, which mines such rows on the fly, or mine these rows first"
            if len(sources) > 1 and name is None:
                remedy = (
                    "tell which data set each row belongs to, by prompts or a loss per data set (a dict); then its "
                    "miner mines such rows on the fly"
                )
            raise InputError(
                f"{len(waiting)} row(s) of a batch are not in the pool, the first has the query {first.query[:80]!r} "
                f"and the positive {first.positives[0][:80]!r}; {remedy}"
            )
        numbers = sorted({source.n for source in found.values()})
        require(
            len(numbers) == 1,
            f"num_negatives: the rows of one batch come from data sets with {numbers} negatives per row; give all the "
            "same, or use batches of one data set each",
        )
        n = numbers[0]
        for place, row in enumerate(rows):
            if add_random and len(row.negatives) < n:
                texts, scores = random_negatives(found[place], row, n - len(row.negatives), epoch)
                row.negatives, row.scores = [*row.negatives, *texts], [*row.scores, *scores]
            row.repeat_negatives(n)

    def lacking(self, rows: list[TrainingRow], name: str | None) -> list[bool]:
        """Whether the first source that knows a row has no negative for it; False if no source knows it."""
        lacks, known = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
        for source in self.of(name):
            its_known, its_lacks = source.lacks(rows)
            lacks |= its_lacks & ~known
            known |= its_known
        return [bool(lack) for lack in lacks]
