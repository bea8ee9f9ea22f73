"""Repairs rows after an audit: doubtful negatives go, and others that the miner allows take their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts
from hf_negmine.base.schema import IdArray
from hf_negmine.base.wording import counted
from hf_negmine.data.writing import in_memory
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.select import Selection, Top
from hf_negmine.select.filters import BoundFilter, Consistency
from hf_negmine.select.judge import judged_selection

if TYPE_CHECKING:
    from hf_negmine.auditing.result import Audit


@dataclass(frozen=True)
class Repaired:
    """Repaired rows, and what was done to them.

    Attributes:
        rows: all rows in their own format, with all their other columns.
        changes: for each row that was changed, its number (``row``; in labeled pairs a query counts as a row), how many
            negatives it ``kept``, how many were ``replaced`` by others, and how many ``dropped`` without one.
        count: number of rows, counted so.
    """

    rows: datasets.Dataset
    changes: datasets.Dataset
    count: int

    def __str__(self) -> str:
        columns = self.changes.with_format("numpy")
        kept, replaced, dropped = (np.asarray(columns[name][:]) for name in ("kept", "replaced", "dropped"))
        left = int(np.count_nonzero(kept + replaced == 0))
        changed = f"{counted(len(self.changes), 'row')} of {self.count:,} changed"
        done = f"{counted(int(replaced.sum()), 'negative')} replaced, {dropped.sum():,} dropped"
        return f"{changed}: {done}" + (f"; {counted(left, 'row')} left without a negative" if left else "")


def repair(audit: Audit, *, replace: bool) -> Repaired:
    """See `Audit.repair`."""
    found, doubtful = audit.found, audit.doubtful
    n_rows = len(found.queries)
    stay = np.flatnonzero(~doubtful)
    rows = found.row_of[stay]
    entries = [(rows, stay, found.passages[stay], stay)]
    lost = np.bincount(found.row_of[doubtful], minlength=n_rows)
    filled = np.zeros(n_rows, dtype=np.int64)
    if replace and doubtful.any():
        new_rows, new_passages = _replacements(audit, lost)
        filled = np.bincount(new_rows, minlength=n_rows)
        # They come after the others of their row, best first.
        order = len(doubtful) + np.arange(len(new_rows))
        entries.append((new_rows, order, new_passages, np.full(len(new_rows), -1)))
    row, place, passage, earlier = (np.concatenate(column) for column in zip(*entries, strict=True))
    order = np.lexsort((place, row))
    negatives = Ragged(offsets_of_counts(np.bincount(row, minlength=n_rows)), (passage[order], earlier[order]))
    changed = np.flatnonzero(lost)
    kept = np.bincount(rows, minlength=n_rows)
    changes = {"row": changed, "kept": kept[changed], "replaced": filled[changed], "dropped": (lost - filled)[changed]}
    repaired = audit.source.with_negatives(negatives, audit.texts.corpus, found.offsets)
    return Repaired(in_memory(repaired), in_memory(pa.table(changes)), n_rows)


def _replacements(audit: Audit, lost: IdArray) -> tuple[IdArray, IdArray]:
    """For each row as many passages as it has lost, or as there are: the row and the passage of each.

    Rows with the same query and positive, such as triplets, are one group: no passage goes to two of them, and none
    that one of them has or had.
    """
    found, texts, config, n_passages = audit.found, audit.texts, audit.config, len(audit.texts.corpus)
    pairs = np.stack([audit.targets, found.pairs.arrays[0][found.pairs.offsets[:-1]]])
    _, first_row, group = np.unique(pairs, axis=1, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    slots = np.repeat(np.arange(len(lost)), lost)
    slots = slots[np.argsort(group[slots], kind="stable")]
    some, wanted = np.unique(group[slots], return_counts=True)
    present = group[found.row_of] * n_passages + found.passages
    # Even if all that a group has are among the best, there are enough others.
    most = max(1, min(int((np.bincount(group[found.row_of])[some] + wanted).max()), n_passages - 1))
    filters = [one for one in config.filters if not isinstance(one, Consistency)]
    config = with_changes(config, num_negatives=most, sampler=Top(), filters=filters, on_exhausted="keep")
    builder = PoolBuilder(config)
    pool = builder.pool(texts, ("query", "positive"))

    def select(more: Sequence[BoundFilter] = ()) -> Selection:
        best = pool.select(config.method, Top(), most, positive_score=config.positive_score, filters=more)
        listed = best.ragged.take(audit.targets[first_row[some]])
        fresh = listed.kept(~np.isin(some[listed.rows] * n_passages + listed.arrays[0], present))
        place = np.arange(len(fresh.rows)) - fresh.offsets[fresh.rows]
        taken = fresh.kept(place < wanted[fresh.rows])
        return with_changes(best, offsets=taken.offsets, passages=taken.arrays[0], scores=taken.arrays[1])

    if config.judge is None:
        chosen = select()
    else:
        queries = found.queries[first_row[some]]
        chosen, _ = judged_selection(select, queries, config.judge, texts, builder.indexes.store)
    places, _ = flat_positions(offsets_of_counts(wanted)[:-1], chosen.counts)
    return slots[places], chosen.passages.astype(np.int64)
