"""The candidate pool: each query's best candidates with their scores, retrieved once, selected from many times.

Retrieval writes a part for every `QUERIES_A_PART` queries, whole or not at all, so a killed run goes on where it
stopped. A selection that needs to look further than the pool reaches deepens it for just those queries.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from hf_negmine.candidates import Answer, CandidateLists, Demand
from hf_negmine.csr import flat_positions, offsets_of_counts
from hf_negmine.errors import (
    InputError,
    NegmineError,
    ShallowPoolError,
    StorageError,
    require,
    require_choice,
    require_whole,
)
from hf_negmine.files import (
    digest_of,
    only_writer,
    read_array,
    read_arrays,
    read_table,
    read_versioned_json,
    write_array,
    write_arrays,
    write_json,
    write_table,
)
from hf_negmine.methods import Method, resolve_method
from hf_negmine.protocols import Sampler, Searcher
from hf_negmine.schema import (
    CANDIDATES_SCHEMA,
    FORMAT_VERSION,
    POSITIVES_SCHEMA,
    SEGMENTS_SCHEMA,
    BoolArray,
    FloatArray,
    IdArray,
)
from hf_negmine.searching import PLACES_A_STEP, deepen, search_in_blocks
from hf_negmine.select.filters import BoundFilter, Consistency, Listed, keep_all
from hf_negmine.select.samplers import resolve_sampler
from hf_negmine.select.selection import (
    Positives,
    PositiveScore,
    Selection,
    Survivors,
    choose,
    count_removed,
    demand_of,
)
from hf_negmine.texts import TextSet

LISTS_NAME = re.compile("[0-9a-f]{12}")
QUERIES_A_PART = 8192
ARRAYS_OF_LISTS = tuple(field.name for field in dataclasses.fields(CandidateLists))


class CandidatePool:
    """Scored candidates of every query of one data set under one teacher.

    Attributes:
        lists: segments of each query's ranking (see `candidates`).
        positives: the labelled passages and their scores.
        query_keys: uint64, shape (n_queries,), first halves of the query digests.
        passage_keys: uint64, shape (n_passages,).
        about: where the pool comes from: teacher, texts, depth, versions.
        folder: where it is stored, None if it is not.
        filters: what candidates must be besides under their ceilings; they belong to the miner, and are not stored.
        consistency: what positives must be to set a ceiling; the same.
        positive_score: what `select` takes if nothing else is said, and what the filters are made for.
    """

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
        """By teacher, the share of the best candidates that an approximate engine finds; empty for an exact search."""
        share = self.about.get("recall")
        return {} if share is None else {str(self.about["teacher"]): share}

    def __repr__(self) -> str:
        return (
            f"CandidatePool({self.n_queries:,} queries, {self.n_passages:,} passages, {len(self.lists.passages):,} "
            f"candidates, teacher {self.about.get('teacher')!r})"
        )

    def select(
        self,
        method: Method | str,
        sampler: Sampler | str | None = None,
        n: int = 4,
        *,
        seed: int = 0,
        positive_score: PositiveScore | None = None,
        filters: Sequence[BoundFilter] = (),
    ) -> Selection:
        """Choose n negatives for every query, exactly.

        Args:
            method: which candidates may be negatives, as a `Method` or its spec, such as ``"perc_pos:0.95"``.
            sampler: how n of them are drawn; the n best if None.
            n: negatives a query.
            seed: of the draws.
            positive_score: for a query with several positives, whether the lowest positive score sets its ceiling
                (``"min"``) or each pair has its own (``"each"``). None takes the miner's choice; a pool with filters
                knows no other.
            filters: what candidates must be, besides what the pool's own filters say.

        Raises:
            ShallowPoolError: the pool does not reach far enough for some query, and no teacher is at hand.
            InputError: an argument that makes no sense.
        """
        method, sampler = resolve_method(method), resolve_sampler(sampler)
        require_whole(n, "n", at_least=1)
        require(n < self.n_passages, f"n: {n} negatives a query from a corpus of {self.n_passages} passages")
        positive_score = self.positive_score if positive_score is None else positive_score
        require_choice(positive_score, ("min", "each"), argument="positive_score")
        if self.filters and positive_score != self.positive_score:
            raise InputError(
                f"positive_score: {positive_score!r}, and the pool's filters are made for {self.positive_score!r}"
            )
        positives = dataclasses.replace(self.positives, counted=self.counted())
        queries, positive_scores = positives.targets(positive_score)
        demand = demand_of(queries, positive_scores, method, sampler, n, self.n_passages)
        removed: dict[str, int] = {}
        survivors = self._survivors(demand, f"{method} with {sampler}", removed, (*self.filters, *filters))
        offsets, passages, scores = choose(
            survivors, demand.wanted, sampler, n, seed, self.query_keys[queries], self.passage_keys
        )
        return Selection(
            method=method,
            sampler=sampler,
            n=n,
            seed=seed,
            positive_score=positive_score,
            offsets=offsets,
            passages=passages,
            scores=scores,
            positive_scores=positive_scores,
            pair_scores=np.asarray(self.positives.scores),
            removed={**count_removed(self.lists, demand, method, positive_scores), **removed},
        )

    def consistent(self) -> BoolArray:
        """Whether each (query, positive) pair keeps the pool's consistency rule, shape (pairs,)."""
        pairs, scores = self.positives.query_of_pair, np.asarray(self.positives.scores)
        holds = np.ones(len(pairs), dtype=bool)
        rule = self.consistency
        if rule is not None and rule.min_score is not None:
            holds &= scores >= rule.min_score
        if rule is not None and rule.top_k is not None:
            everything = np.full(self.n_queries, np.inf, dtype=np.float32)
            top = Demand(np.arange(self.n_queries), everything, -np.inf, 0, None, rule.top_k)
            self._answer(top, str(rule))  # so that the top of every ranking is known that far
            holds &= self.lists.count_at_or_over(pairs, np.nextafter(scores, np.float32(np.inf))) < rule.top_k
        return holds

    def counted(self) -> BoolArray | None:
        """Which positives set a ceiling: the consistent ones, if rows with others are dropped; None for all."""
        drops = self.consistency is not None and self.consistency.action == "drop"
        return self.consistent() if drops else None

    def _survivors(
        self, demand: Demand, purpose: str, removed: dict[str, int], filters: Sequence[BoundFilter]
    ) -> Survivors:
        """The candidates that the method and all filters allow, the best ``demand.wanted`` of each target.

        Rankings are looked at from the top, twice as far each time, until so many have stayed or there are no more.
        """
        if not filters:
            answer = self._answer(demand, purpose)
            return Survivors(self.lists.passages, self.lists.scores, answer.starts, answer.counts)
        counts = np.zeros(len(demand.queries), dtype=np.int64)
        starts, length = counts.copy(), 0
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
                best = kept.best(np.flatnonzero(done), demand.wanted)
                counts[best.targets] = np.diff(best.offsets)
                starts[best.targets] = length + best.offsets[:-1]
                length += len(best.passages)
                parts.append(best)
                for name, count_of in taken.items():
                    removed[name] = removed.get(name, 0) + int(count_of[done].sum())
            pending, looked_at = pending[~settled], min(2 * looked_at, self.n_passages)
        return Survivors(
            np.concatenate([part.passages for part in parts]),
            np.concatenate([part.scores for part in parts]),
            starts,
            counts,
        )

    def _answer(self, demand: Demand, purpose: str) -> Answer:
        """The answer to ``demand``, after deepening the pool where it does not reach far enough."""
        answer = self.lists.answer(demand)
        before = self.lists
        while not answer.certain.all():
            shallow = np.flatnonzero(~answer.certain)
            if self._open_searcher is None:
                raise ShallowPoolError(
                    f"{len(np.unique(demand.queries[shallow])):,} of {self.n_queries:,} queries need more candidates "
                    f"for {purpose} than the pool holds ({len(self.lists.passages) / self.n_queries:.0f} a query), and "
                    "its teacher is not loaded; select through the miner that made it, or take a larger pool_depth"
                )
            known = self.lists.extent
            self.lists = deepen(self.lists, self._open_searcher(), demand.of(shallow), progress=self._progress)
            answer = self.lists.answer(demand)
            if self.lists.extent == known and len(shallow) == np.count_nonzero(~answer.certain):
                raise NegmineError(
                    f"looking deeper for {purpose} found nothing new for {len(shallow):,} target(s) and left the "
                    "question open; this is a bug of hf_negmine, please report it with the method and the sampler"
                )
        if self.lists is not before and self.folder is not None:
            self.save(self.folder)
        return answer

    def save(self, folder: Path | str) -> None:
        """Write the pool as Arrow files with its provenance; an earlier pool there is replaced file by file.

        Several processes may save and load at once: the last one's lists stay.
        """
        with only_writer(Path(folder)):
            self._write(Path(folder))

    def _write(self, folder: Path) -> None:
        lists, positives = self.lists, self.positives
        candidates = pa.table([lists.passages, lists.scores], schema=CANDIDATES_SCHEMA)
        segments = pa.table(
            [
                np.repeat(np.arange(self.n_queries), np.diff(lists.offsets)),
                lists.starts,
                lists.stops,
                lists.ceilings,
                lists.first_ranks,
                lists.exhausted,
            ],
            schema=SEGMENTS_SCHEMA,
        )
        # Both belong together: they get a common name, and pool.json, written last, says which pair counts.
        name = digest_of(*dataclasses.astuple(lists))[:12]
        write_table(folder / f"candidates-{name}.arrow", candidates)
        write_table(folder / f"segments-{name}.arrow", segments)
        if folder != self.folder:  # where it is stored already, only the lists can have changed
            write_table(
                folder / "positives.arrow",
                pa.table([positives.query_of_pair, positives.ids, positives.scores], schema=POSITIVES_SCHEMA),
            )
            write_array(folder / "query_keys.npy", np.asarray(self.query_keys))
            write_array(folder / "passage_keys.npy", np.asarray(self.passage_keys))
        write_json(
            folder / "pool.json",
            {**self.about, "format_version": FORMAT_VERSION, "lists": name, "n_queries": self.n_queries},
        )
        for stale in folder.glob("*-*.arrow"):
            if name not in stale.name:
                stale.unlink()
        self.folder = folder

    @classmethod
    def load(
        cls, folder: Path | str, *, open_searcher: Callable[[], Searcher] | None = None, progress: bool = True
    ) -> CandidatePool:
        """Open a stored pool by memory map.

        Args:
            folder: of the pool.
            progress: show bars when it is deepened.
            open_searcher: makes the teacher's searcher when a selection needs to look further; without it such a
                selection raises `ShallowPoolError`.

        Raises:
            StorageError: files that are missing, damaged, of another version, or outside the folder.
        """
        folder = Path(folder)
        said = read_versioned_json(folder / "pool.json")
        try:
            return cls._open(folder, dict(said), open_searcher, progress)
        except StorageError:
            if read_versioned_json(folder / "pool.json") == said:
                raise
            return cls.load(folder, open_searcher=open_searcher, progress=progress)  # it was deepened by another run

    @classmethod
    def _open(
        cls, folder: Path, about: dict[str, Any], open_searcher: Callable[[], Searcher] | None, progress: bool
    ) -> CandidatePool:
        name, n_queries = about.pop("lists", None), about.pop("n_queries", None)
        del about["format_version"]
        if not isinstance(name, str) or LISTS_NAME.fullmatch(name) is None:  # part of file names, perhaps not ours
            raise StorageError(
                f"{folder / 'pool.json'} names the lists {name!r}, which is no name that hf_negmine gives"
            )
        query_keys, passage_keys = (read_array(folder / f"{keys}_keys.npy") for keys in ("query", "passage"))
        if n_queries != len(query_keys):
            raise StorageError(f"{folder} has keys of {len(query_keys)} queries, expected {n_queries!r}")
        candidates = read_table(folder / f"candidates-{name}.arrow", CANDIDATES_SCHEMA)
        segments = read_table(folder / f"segments-{name}.arrow", SEGMENTS_SCHEMA)
        positives = read_table(folder / "positives.arrow", POSITIVES_SCHEMA)
        lists = CandidateLists(
            _column(candidates, "passage_id"),
            _column(candidates, "score"),
            _offsets_of_sorted(_column(segments, "query_id"), n_queries),
            *(_column(segments, name) for name in ("start", "stop", "ceiling", "first_rank", "exhausted")),
        )
        return cls(
            lists,
            Positives(
                _offsets_of_sorted(_column(positives, "query_id"), n_queries),
                _column(positives, "passage_id"),
                _column(positives, "score"),
            ),
            query_keys,
            passage_keys,
            about,
            folder=folder,
            open_searcher=open_searcher,
            progress=progress,
        )


def retrieve(
    texts: TextSet,
    open_searcher: Callable[[], Searcher],
    folder: Path,
    about: dict[str, Any],
    *,
    depth: int,
    notes: Callable[[], dict[str, Any]] | None = None,
    progress: bool = True,
) -> CandidatePool:
    """The pool in ``folder``, made if it is not there: the best ``depth`` candidates and all positive scores.

    Args:
        texts: queries, corpus and positives.
        open_searcher: makes the teacher's searcher over ``texts``; called only if something is to be searched.
        folder: where the pool is kept.
        progress: show bars.
        about: provenance that is kept with the pool.
        depth: candidates a query at first; selections deepen the pool where they need more.
        notes: provenance that is known once the pool is made.
    """
    require(depth >= 1, f"pool_depth: at least 1 candidate a query, got {depth}")
    if not (folder / "pool.json").exists():
        with only_writer(folder):  # one process searches; those that need the same pool wait for it
            if not (folder / "pool.json").exists():
                return _make(texts, open_searcher, folder, about, depth, notes, progress)
    return CandidatePool.load(folder, open_searcher=open_searcher, progress=progress)


def _make(
    texts: TextSet,
    open_searcher: Callable[[], Searcher],
    folder: Path,
    about: dict[str, Any],
    depth: int,
    notes: Callable[[], dict[str, Any]] | None,
    progress: bool,
) -> CandidatePool:
    """Search what the parts in ``folder`` lack, and make the pool of them."""
    n_queries = len(texts.queries)
    part_starts = range(0, n_queries, QUERIES_A_PART)
    parts = [folder / "parts" / f"{start:012d}.npy" for start in part_starts]
    missing = [place for place, part in enumerate(parts) if not part.exists()]
    if missing:
        searcher = open_searcher()
        with tqdm(total=n_queries, desc="Searching", unit=" queries", disable=not progress, delay=1) as bar:
            bar.update(n_queries - sum(min(QUERIES_A_PART, n_queries - part_starts[place]) for place in missing))
            for place in missing:
                queries = np.arange(part_starts[place], min(part_starts[place] + QUERIES_A_PART, n_queries))
                lists, positive_scores = _search_part(texts, searcher, queries, depth, bar)
                write_arrays(parts[place], (*(getattr(lists, name) for name in ARRAYS_OF_LISTS), positive_scores))
    lists_of_parts, scores_of_parts = zip(*(_read_part(part) for part in parts), strict=True)
    pool = CandidatePool(
        CandidateLists.concatenated(lists_of_parts),
        Positives(texts.positive_offsets, texts.positive_ids, np.concatenate(scores_of_parts)),
        texts.queries.digests[:, 0],
        texts.corpus.digests[:, 0],
        {**about, "depth": depth, **({} if notes is None else notes())},
        open_searcher=open_searcher,
        progress=progress,
    )
    pool._write(folder)
    shutil.rmtree(folder / "parts", ignore_errors=True)
    return pool


def _search_part(
    texts: TextSet, searcher: Searcher, queries: IdArray, depth: int, bar: Any
) -> tuple[CandidateLists, FloatArray]:
    first, last = texts.positive_offsets[queries[0]], texts.positive_offsets[queries[-1] + 1]
    rows = np.repeat(np.arange(len(queries)), np.diff(texts.positive_offsets[queries[0] : queries[-1] + 2]))
    return search_in_blocks(searcher, queries, rows, texts.positive_ids[first:last], depth, bar.update)


def _read_part(path: Path) -> tuple[CandidateLists, FloatArray]:
    *lists, positive_scores = read_arrays(path, len(ARRAYS_OF_LISTS) + 1)
    return CandidateLists(*lists), positive_scores


def _column(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    column = table[name]
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _offsets_of_sorted(rows: np.ndarray[Any, Any], n_rows: int) -> IdArray:
    if len(rows) and rows[-1] >= n_rows:
        raise StorageError(f"the pool names query {rows[-1]} of {n_rows}; delete its folder and run again")
    return np.searchsorted(rows, np.arange(n_rows + 1)).astype(np.int64)
