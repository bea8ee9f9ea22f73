"""Repairs rows after an audit: doubtful negatives go, and others that the miner allows take their places."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as with_changes
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine import steps
from hf_negmine.base.ragged import Ragged, offsets_of_counts
from hf_negmine.base.schema import IdArray
from hf_negmine.base.wording import counted
from hf_negmine.data.writing import in_memory
from hf_negmine.pool.builder import PoolBuilder
from hf_negmine.select import Top
from hf_negmine.select.filters import Consistency

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
        some = np.flatnonzero(lost)
        new_rows, new_passages = _replacements(audit, some, lost[some])
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


def _replacements(audit: Audit, rows: IdArray, lost: IdArray) -> tuple[IdArray, IdArray]:
    """For each of these rows as many passages as it has lost, or as there are: row (rising) and passage of each."""
    found, texts, config = audit.found, audit.texts, audit.config
    # As many as the longest row: even if all that a row keeps are among them, there are enough others.
    most = max(1, min(int(np.diff(found.offsets).max()), len(texts.corpus) - 1))
    filters = [one for one in config.filters if not isinstance(one, Consistency)]
    config = with_changes(config, num_negatives=most, sampler=Top(), filters=filters, on_exhausted="keep")
    builder = PoolBuilder(config)
    selection, _ = steps.select(builder, builder.pool(texts, ("query", "positive")), texts)
    chosen = selection.ragged.take(audit.targets[rows])
    (passages, _), row = chosen.arrays, chosen.rows
    keys, present = rows[row] * len(texts.corpus) + passages, found.row_of * len(texts.corpus) + found.passages
    fresh = np.flatnonzero(~np.isin(keys, present))  # what it had and lost does not come back either
    row = row[fresh]
    first = np.searchsorted(row, np.arange(len(rows)))
    taken = np.arange(len(row)) - first[row] < lost[row]
    return rows[row[taken]], passages[fresh[taken]].astype(np.int64)
