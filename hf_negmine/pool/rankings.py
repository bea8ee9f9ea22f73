"""The known part of every query's ranking, stored, and searched further down where a question needs more of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import NegmineError, ShallowPoolError, require
from hf_negmine.base.files import is_read_only, only_writer
from hf_negmine.base.paths import folder_of
from hf_negmine.base.protocols import Sampler, Searcher
from hf_negmine.base.ragged import flat_positions, offsets_of_counts
from hf_negmine.base.schema import BoolArray
from hf_negmine.pool.deepening import PLACES_A_STEP, deepen, missing
from hf_negmine.pool.stored import LISTS, StoredPool, read_pool, write_lists, write_pool
from hf_negmine.select.candidates import Answer, CandidateLists, Demand
from hf_negmine.select.choosing import Survivors, demand_of
from hf_negmine.select.filters import BoundFilter, Consistency, Listed, keep_all
from hf_negmine.select.methods import Method
from hf_negmine.select.selection import Positives

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Self

QUARTILES = (0.25, 0.5, 0.75)


class Rankings:
    """The rankings behind a `CandidatePool`, which describes the attributes."""

    positive_score: PositiveScore = "min"

    def __init__(
        self,
        lists: CandidateLists,
        positives: Positives,
        query_keys: np.ndarray[Any, np.dtype[np.uint64]],
        passage_keys: np.ndarray[Any, np.dtype[np.uint64]],
        about: dict[str, Any],
        *,
        folder: Path | None = None,
        open_searcher: Callable[[], Searcher] | None = None,
        filters: Sequence[BoundFilter] = (),
        consistency: Consistency | None = None,
        progress: bool = True,
    ) -> None:
        self.lists, self.positives = lists, positives
        self.filters, self.consistency = tuple(filters), consistency
        self.query_keys, self.passage_keys = query_keys, passage_keys
        self.about, self.folder = about, folder
        self._open_searcher, self._progress = open_searcher, progress
        self.lists_end = about.get("source") == LISTS and open_searcher is None

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return self.lists.n_queries

    @property
    def n_passages(self) -> int:
        """Number of passages in the corpus."""
        return len(self.passage_keys)

    @property
    def recall(self) -> dict[str, float]:
        """By approximate teacher, the share of the best passages that it finds; empty for an exact search."""
        return dict(self.about.get("recall", {}))

    def save(self, folder: Path | str) -> None:
        """Write the pool as Arrow files with its provenance; an earlier pool there is replaced file by file.

        Several processes may save and load at once: the lists of the last one stay.
        """
        folder = folder_of(folder, "folder")
        with only_writer(folder):
            if folder == self.folder:  # already stored there: only the lists can have changed
                write_lists(folder, self.lists, self.about)
            else:
                content = (self.lists, self.positives, self.query_keys, self.passage_keys, self.about)
                write_pool(folder, StoredPool(*content))
        self.folder = folder

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        open_searcher: Callable[[], Searcher] | None = None,
        progress: bool = True,
        sealed: bool = True,
    ) -> Self:
        """Open a stored pool by memory map.

        Args:
            folder: the pool's folder.
            progress: whether to show bars when it is deepened.
            open_searcher: makes the teacher's searcher when a selection needs more candidates; without it such a
                selection raises `ShallowPoolError`.
            sealed: whether to refuse files that have changed since they were written; see `read_pool`.

        Raises:
            StorageError: files are missing, damaged, of another version, or outside the folder.
        """
        folder = folder_of(folder, "folder")
        stored = read_pool(folder, sealed=sealed)
        return cls(
            stored.lists,
            stored.positives,
            stored.query_keys,
            stored.passage_keys,
            stored.about,
            folder=folder,
            open_searcher=open_searcher,
            progress=progress,
        )

    def plot(self) -> Figure:
        """How candidates' scores fall along the ranking, beside those of the positives; a notebook shows it.

        Raises:
            InputError: the pool holds no candidates, or matplotlib is not installed.
        """
        from hf_negmine.figures.plots import plot_ranks

        top = self.lists.offsets[:-1][np.diff(self.lists.offsets) > 0]
        starts, sizes = self.lists.starts[top], self.lists.stops[top] - self.lists.starts[top]
        require(len(sizes) > 0 and sizes.max() > 0, "plot: the pool holds no candidates")
        deep = int(np.median(sizes))  # ranks that most queries have
        quartiles = [
            np.quantile(self.lists.scores[starts[sizes > rank] + rank], QUARTILES) for rank in range(max(1, deep))
        ]
        positives = np.quantile(self.positives.scores, QUARTILES)
        return plot_ranks(np.stack(quartiles, axis=1), positives, title=f"{self.n_queries:,} queries")

    def consistent(self) -> BoolArray:
        """Whether each (query, positive) pair meets the pool's consistency rule, shape (pairs,)."""
        pairs, scores = self.positives.query_of_pair, np.asarray(self.positives.scores)
        holds = np.ones(len(pairs), dtype=bool)
        rule = self.consistency
        if rule is not None and rule.min_score is not None:
            holds &= scores >= rule.min_score
        if rule is not None and rule.top_k is not None:
            everything = np.full(self.n_queries, np.inf, dtype=np.float32)
            top = Demand(np.arange(self.n_queries), everything, -np.inf, 0, None, rule.top_k)
            answer = self._answer(top, str(rule))  # makes the top of every ranking known that far
            better = self.lists.count_at_or_over(pairs, np.nextafter(scores, np.float32(np.inf)))
            open_ = ~answer.certain[pairs] & (better == answer.counts[pairs])
            if open_.any():
                raise ShallowPoolError(
                    f"{rule}: {open_.sum():,} of {len(pairs):,} positives score under the end of a list that holds "
                    f"fewer than {rule.top_k} candidates, so their rank is unknown; give a smaller top_k, longer "
                    "lists, or the teacher that made them"
                )
            holds &= better < rule.top_k
        return holds

    def counted(self) -> BoolArray | None:
        """Which positives set a ceiling: only consistent ones, if rows with others are dropped; None for all."""
        drops = self.consistency is not None and self.consistency.action == "drop"
        return self.consistent() if drops else None

    def look_ahead(
        self, settings: Sequence[tuple[Method, Sampler]], n: int, positive_score: PositiveScore | None = None
    ) -> None:
        """Search for what selections of n negatives by all these settings will need, if the teacher is available."""
        if self._open_searcher is None:
            return
        positives = dataclasses.replace(self.positives, counted=self.counted())
        targets, every = positives.targets(positive_score or self.positive_score), positives.deciding
        demands = (demand_of(*targets, one.settled(every), other, n, self.n_passages) for one, other in settings)
        before = self.lists
        for demand in missing(self.lists, demands):
            self.lists = deepen(self.lists, self._open_searcher(), demand, ahead=1, progress=self._progress)
        self._keep(before)

    def _survivors(
        self, demand: Demand, purpose: str, filters: Sequence[BoundFilter]
    ) -> tuple[Survivors, dict[str, int]]:
        """The candidates that the method and all filters allow, the best ``demand.wanted`` of each target.

        Also how many candidates each filter removed. Rankings are read from the top, twice as far each time, until
        enough candidates have stayed or none are left.
        """
        if not filters:
            answer = self._answer(demand, purpose)
            return Survivors(self.lists.passages, self.lists.scores, answer.starts, answer.counts, answer.certain), {}
        removed: dict[str, int] = {}
        counts = np.zeros(len(demand.queries), dtype=np.int64)
        starts, length = counts.copy(), 0
        certain = np.ones(len(demand.queries), dtype=bool)
        parts: list[Listed] = []
        pending, looked_at = np.arange(len(demand.queries)), min(2 * demand.wanted, self.n_passages)
        while len(pending):
            answer = self._answer(dataclasses.replace(demand.of(pending), wanted=looked_at), purpose)
            settled = np.zeros(len(pending), dtype=bool)
            step = max(1, PLACES_A_STEP // looked_at)
            for start in range(0, len(pending), step):
                some = slice(start, start + step)
                targets = pending[some]
                entries, _ = flat_positions(answer.starts[some], answer.counts[some])
                listed = Listed(
                    targets,
                    demand.queries[targets],
                    offsets_of_counts(answer.counts[some]),
                    self.lists.passages[entries],
                    self.lists.scores[entries],
                )
                kept, taken, ended = keep_all(filters, listed)
                found = np.diff(kept.offsets)
                done = (found >= demand.wanted) | (answer.counts[some] < looked_at) | ended
                done |= looked_at >= self.n_passages
                settled[some] = done
                certain[targets] = answer.certain[some] | (found >= demand.wanted) | ended
                best = kept.best(np.flatnonzero(done), demand.wanted)
                counts[best.targets] = np.diff(best.offsets)
                starts[best.targets] = length + best.offsets[:-1]
                length += len(best.passages)
                parts.append(best)
                for name, count_of in taken.items():
                    removed[name] = removed.get(name, 0) + int(count_of[done].sum())
            pending, looked_at = pending[~settled], min(2 * looked_at, self.n_passages)
        passages = np.concatenate([part.passages for part in parts])
        scores = np.concatenate([part.scores for part in parts])
        return Survivors(passages, scores, starts, counts, certain), removed

    def _answer(self, demand: Demand, purpose: str) -> Answer:
        """The answer to ``demand``, after deepening the pool where it is too shallow, unless its lists simply end."""
        answer = self.lists.answer(demand)
        before = self.lists
        while not (answer.certain.all() or self.lists_end):
            shallow = np.flatnonzero(~answer.certain)
            if self._open_searcher is None:
                raise ShallowPoolError(
                    f"{len(np.unique(demand.queries[shallow])):,} of {self.n_queries:,} queries need more candidates "
                    f"for {purpose} than the pool holds ({len(self.lists.passages) / self.n_queries:.0f} per query), "
                    "and its teacher is not loaded; select through the miner that made it, or use a larger pool_depth"
                )
            known = self.lists.extent
            self.lists = deepen(self.lists, self._open_searcher(), demand.of(shallow), progress=self._progress)
            answer = self.lists.answer(demand)
            if self.lists.extent == known and len(shallow) == np.count_nonzero(~answer.certain):
                raise NegmineError(
                    f"searching deeper for {purpose} found nothing new for {len(shallow):,} target(s) and left the "
                    "question open; this is a bug of hf_negmine, please report it with the method and the sampler"
                )
        self._keep(before)
        return answer

    def _keep(self, before: CandidateLists) -> None:
        """Store the lists if they are others than ``before``."""
        if self.lists is not before and self.folder is not None and not is_read_only(self.folder):
            self.save(self.folder)
