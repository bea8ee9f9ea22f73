"""Makes the pools of a configuration: those of a fit, searched once and stored, and those of later rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa

from hf_negmine.base.errors import InputError, require, require_choice
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.protocols import Role, Searcher, Teacher, VectorTeacher
from hf_negmine.base.ragged import flat_positions, offsets_of_rows
from hf_negmine.base.schema import FORMAT_VERSION, FloatArray, IdArray
from hf_negmine.data.pairs import RowPairs
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool, retrieve
from hf_negmine.pool.deepening import search_in_blocks
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.pool.part_pool import PartPool, part_pools
from hf_negmine.pool.parts import slices
from hf_negmine.pool.retrieving import OpenSlice, search_share, search_slices
from hf_negmine.pool.scored_lists import ListedPool, lists_pool_name
from hf_negmine.search import Exclusions, Indexes, Queries, open_index, recall_of
from hf_negmine.select import Positives
from hf_negmine.select.ensembles import Ensemble
from hf_negmine.select.filters import BoundFilter, Scene
from hf_negmine.teachers import ApproximateTeacher, ListTeacher, identity_of, with_stages, without_index
from hf_negmine.teachers.vector_store import VectorStore

if TYPE_CHECKING:
    from hf_negmine.config import MiningConfig


class PoolBuilder:
    """Makes and opens the pool of a configuration's teacher, or of each teacher of its ensemble."""

    def __init__(self, config: MiningConfig) -> None:
        self.config = config
        self._searchers: dict[tuple[str, str], Searcher] = {}
        self._scores_at_fit: dict[tuple[str, str], FloatArray] = {}

    @cached_property
    def indexes(self) -> Indexes:
        """Opens each teacher's index of a corpus, once."""
        config = self.config
        store = VectorStore(config.cache_dir, progress=config.progress)
        return Indexes(store, config.device, config.first_pass)

    def vectors(self, texts: TextSet, some: Sequence[str], role: Role) -> FloatArray:
        """The teacher's stored vectors of some of the texts; see `NegativeMiner.vectors`."""
        require_choice(role, get_args(Role), argument="role")
        listed = not isinstance(some, str) and all(isinstance(text, str) for text in some)
        require(listed, f"texts: expected a list of texts, got {repr(some)[:80]}")
        teacher = without_index(self.config.teacher)
        if not isinstance(teacher, VectorTeacher):
            raise InputError(f"vectors: {teacher.name} has no vector per text, as a dense teacher has")
        column, kind = (texts.queries, "queries") if role == "query" else (texts.corpus, "passages")
        ids = column.find(text_digests(pa.array(list(some), pa.large_string())))
        lacking = np.flatnonzero(ids < 0)
        if len(lacking):
            raise InputError(
                f"vectors: {repr(some[lacking[0]])[:80]} is not among the {kind} that the miner was fitted on "
                f"({len(lacking):,} of {len(ids):,} texts are not)"
            )
        return self.indexes.store.vectors(teacher, column, role).gather(ids)

    # ---- pools of a fit ----------------------------------------------------------------------------------------

    def about(self, teacher: Teacher, texts: TextSet) -> dict[str, Any]:
        """The identity of a teacher's pool: teacher, texts and version."""
        return {**identity_of(teacher), "texts": texts.fingerprint, "library_version": version("hf_negmine")}

    def pool_names(self, texts: TextSet) -> list[str]:
        """Names of the pools' folders, one per teacher."""
        return [
            lists_pool_name(teacher)
            if isinstance(teacher, ListTeacher)
            else self._pool_name(self.about(teacher, texts))
            for teacher in self.config.members
        ]

    def require_same(self, names: Sequence[str], texts: TextSet) -> None:
        """Raise `InputError` unless the teachers' pools would still have these ``names``."""
        _require_same(list(names) == self.pool_names(texts), self.config.teacher)

    def open_corpus(self, texts: TextSet) -> None:
        """Encode and index the corpus now, rather than at the first query of every process of a map."""
        for teacher in self.config.members:
            open_index(self.searcher(teacher, texts))

    def searcher(self, teacher: Teacher, texts: TextSet) -> Searcher:
        """A teacher's searcher for the queries of ``texts``, kept until other texts are requested."""
        key = (texts.fingerprint, digest_of(identity_of(teacher)))
        if key not in self._searchers:
            self._searchers = {other: kept for other, kept in self._searchers.items() if other[0] == key[0]}
            queries = Queries.of(texts, exclude_positives=not self.config.include_positives)
            self._searchers[key] = self.indexes.open(teacher, texts.corpus).searcher(queries)
        return self._searchers[key]

    def pool(
        self, texts: TextSet, columns: tuple[str, str], not_relevant: BoundFilter | None = None
    ) -> CandidatePool | EnsemblePool:
        """Open the pool of all queries of ``texts``, with the filters; it is made if missing.

        ``columns`` are the query and positive columns in the rows; ``not_relevant`` keeps out what a judge called
        relevant.
        """
        pools = [
            self._listed(teacher, texts) if isinstance(teacher, ListTeacher) else self._pool(teacher, texts)
            for teacher in self.config.members
        ]
        for pool in pools:
            pool.texts, pool.columns = texts, columns
            pool.filters += () if not_relevant is None else (not_relevant,)
        return self._joined(pools)

    def search_share(self, texts: TextSet, share: slice) -> None:
        """Search a share of the parts of the pools that `pool` then finds; see `retrieving.search_share`."""
        for teacher in self.config.members:
            folder, about, searcher = self._stored(teacher, texts)
            depth, progress = self._depth(teacher), self.config.progress
            opened = None if has_slices(teacher, texts) else partial(searcher, texts)
            search_share(texts, opened, folder, about, depth=depth, share=share, progress=progress)

    def search_slices(self, texts: TextSet, rank: int, world_size: int) -> None:
        """Search this rank's slices of the corpus with the teachers that have some; see `retrieving.search_slices`."""
        for teacher in (one for one in self.config.members if has_slices(one, texts)):
            folder, about, searcher = self._stored(teacher, texts)
            search_slices(
                texts,
                searcher,
                folder,
                about,
                depth=self._depth(teacher),
                rank=rank,
                world_size=world_size,
                progress=self.config.progress,
            )

    def pools_of_share(self, texts: TextSet, share: slice) -> Iterator[tuple[TextSet, CandidatePool | EnsemblePool]]:
        """The texts and the pool of each part in a share that all teachers have searched for; see `part_pools`.

        A large corpus is not searched deeper, since each rank would read all of it.
        """
        members = self.config.members
        parts = []
        for teacher in members:
            folder, about, searcher = self._stored(teacher, texts)
            opened = None if has_slices(teacher, texts) else searcher
            parts.append(part_pools(texts, opened, folder, about, share=share, progress=self.config.progress))
        for found in zip(*parts, strict=True):
            pools = [pool for pool in found if pool is not None]
            if len(pools) == len(members):
                joined = self._joined([self._of_part(*one) for one in zip(members, pools, strict=True)])
                yield pools[0].texts, joined

    def _of_part(self, teacher: Teacher, pool: PartPool) -> CandidatePool:
        def scene() -> Scene:
            return replace(Scene.of(pool.texts, teacher, self.indexes, counted=pool.counted()), whole=False)

        return self._with_rules(pool, scene)

    def _stored(self, teacher: Teacher, texts: TextSet) -> tuple[Path, dict[str, Any], OpenSlice]:
        """A teacher's pool on disk: its folder and its identity; and what opens the searchers that fill it."""
        about = self.about(teacher, texts)  # computed once: it reads a whole model each time

        def searcher(some: TextSet) -> Searcher:
            _require_same(self.about(teacher, texts) == about, teacher)
            return self.searcher(teacher, some)

        return self.config.cache_dir / "pools" / self._pool_name(about), about, searcher

    def _pool(self, teacher: Teacher, texts: TextSet) -> CandidatePool:
        folder, about, searcher = self._stored(teacher, texts)

        def recall() -> dict[str, Any]:
            found = recall_of(self.searcher(teacher, texts), len(texts.queries), self.config.pool_depth)
            return {"recall": {one.name: found for one in approximate}}

        approximate = [one for one in with_stages(teacher) if isinstance(one, ApproximateTeacher)]
        pool = retrieve(
            texts,
            partial(searcher, texts),
            folder,
            about,
            depth=self._depth(teacher),
            open_slice=searcher if has_slices(teacher, texts) else None,
            notes=recall if approximate else None,
            progress=self.config.progress,
        )
        pool.positives.warn_of_zeros(teacher.name)
        return self._with_rules(pool, lambda: Scene.of(texts, teacher, self.indexes, counted=pool.counted()))

    def _listed(self, teacher: ListTeacher, texts: TextSet) -> CandidatePool:
        """The pool of lists that were scored elsewhere, which is there since they were read."""
        require(
            teacher.texts == texts.fingerprint,
            f"{teacher.name}: the lists rank other texts than those of the rows; give the texts of the lists",
        )
        listed = ListedPool(self.config.cache_dir / "pools" / lists_pool_name(teacher), texts, teacher, self.indexes)
        pool = CandidatePool.load(listed.folder, open_searcher=listed.open_searcher, progress=self.config.progress)
        return self._with_rules(pool, lambda: listed.scene(pool.counted()))

    def _pool_name(self, about: dict[str, Any]) -> str:
        return digest_of("pool", FORMAT_VERSION, about, self.config.pool_depth, self.config.include_positives)

    # ---- pools of rows that come later -------------------------------------------------------------------------

    def pool_of_rows(self, texts: TextSet, pairs: RowPairs) -> CandidatePool | EnsemblePool:
        """The pool of some rows, searched now and not stored.

        Rows are independent: the positives in a row set its ceiling, and the positives that ``texts`` has for its query
        are not candidates either. A positive outside the corpus is scored, but is not a candidate for other rows.
        """
        known = _known_positives(texts, pairs)
        queries = Queries(pairs.queries, self._exclusions(texts, pairs, known))
        return self._joined([self._pool_of_rows(one, texts, pairs, queries, known) for one in self.config.members])

    def _pool_of_rows(
        self, teacher: Teacher, texts: TextSet, pairs: RowPairs, queries: Queries, known: tuple[IdArray, IdArray]
    ) -> CandidatePool:
        index = self.indexes.open(teacher, texts.corpus)
        searcher = index.searcher(queries)
        inside, outside = np.flatnonzero(pairs.positive_ids >= 0), np.flatnonzero(pairs.positive_ids < 0)
        lists, inside_scores = search_in_blocks(
            searcher,
            np.arange(len(pairs.queries)),
            pairs.rows[inside],
            pairs.positive_ids[inside].astype(np.int32),
            self._depth(teacher),
        )
        scores = np.empty(len(pairs.rows), dtype=np.float32)
        scores[inside] = inside_scores
        if len(outside):
            query_texts = pairs.queries.take(pa.array(pairs.rows[outside])).to_pylist()
            scores[outside] = index.text_scores(query_texts, pairs.positives.take(pa.array(outside)).to_pylist())
        offsets = offsets_of_rows(pairs.rows, len(pairs.queries))
        pool = CandidatePool(
            lists,
            Positives(offsets, pairs.positive_ids.astype(np.int32), scores),
            text_digests(pairs.queries)[:, 0],
            texts.corpus.digests[:, 0],
            {"teacher": teacher.name},
            open_searcher=lambda: searcher,
            progress=False,
        )
        if self.config.method.sees_all_positives:
            pool.deciding = self._deciding(teacher, texts)

        def scene() -> Scene:
            return Scene(
                queries,
                texts.corpus,
                offsets,
                pairs.positive_ids,
                pairs.positives,
                self.config.positive_score,
                teacher,
                self.indexes,
                pool.counted(),
                whole=False,
                known_offsets=offsets_of_rows(known[0], len(pairs.queries)),
                known_ids=known[1],
            )

        return self._with_rules(pool, scene)

    def _exclusions(self, texts: TextSet, pairs: RowPairs, known: tuple[IdArray, IdArray]) -> Exclusions:
        if self.config.include_positives:
            return Exclusions.none(len(pairs.queries))
        own = texts.corpus.find(text_digests(pairs.queries))
        rows = np.concatenate([pairs.rows, known[0], np.arange(len(own))])
        passages = np.concatenate([pairs.positive_ids, known[1], own])
        edges = np.unique(np.stack([rows, passages])[:, passages >= 0], axis=1)
        return Exclusions(offsets_of_rows(edges[0], len(pairs.queries)), edges[1].astype(np.int32))

    def _deciding(self, teacher: Teacher, texts: TextSet) -> FloatArray:
        """The scores of all positives at fit, on which a method may depend."""
        if not len(texts.queries):
            raise InputError(
                f"method: {self.config.method} depends on the positives' scores at fit(), and the miner is fitted on a "
                "corpus alone; fit it on rows"
            )
        key = (texts.fingerprint, digest_of(identity_of(teacher)))
        if key not in self._scores_at_fit:
            pool = self._pool(teacher, texts)
            self._scores_at_fit = {key: replace(pool.positives, counted=pool.counted()).deciding}
        return self._scores_at_fit[key]

    # ---- both --------------------------------------------------------------------------------------------------

    def _depth(self, teacher: Teacher) -> int:
        """How many candidates are stored: all of those with scores that would be expensive to compute again."""
        kept = 0 if isinstance(teacher, ApproximateTeacher) else getattr(teacher, "candidates", 0)
        return max(self.config.pool_depth, kept)

    def _with_rules(self, pool: CandidatePool, scene: Callable[[], Scene]) -> CandidatePool:
        """The pool with the configuration's filters and rules."""
        config = self.config
        pool.consistency, pool.positive_score, pool.scene = config.consistency, config.positive_score, scene
        pool.with_positives = config.include_positives
        pool.filters = pool.bound(config.candidate_filters, config.positive_score)
        return pool

    def _joined(self, pools: list[CandidatePool]) -> CandidatePool | EnsemblePool:
        teacher = self.config.teacher
        return EnsemblePool(teacher, pools) if isinstance(teacher, Ensemble) else pools[0]


def has_slices(teacher: Teacher, texts: TextSet) -> bool:
    """Whether the corpus is searched in slices: it is large, and a passage's score depends on no other passage."""
    dense = isinstance(teacher, VectorTeacher) and not isinstance(teacher, ApproximateTeacher)
    return dense and len(slices(len(texts.corpus))) > 1


def _known_positives(texts: TextSet, pairs: RowPairs) -> tuple[IdArray, IdArray]:
    """The positives that ``texts`` has for the rows' queries: row (rising) and passage id of each."""
    rows = np.flatnonzero(pairs.query_ids >= 0)
    queries = pairs.query_ids[rows]
    starts = texts.positive_offsets[queries]
    entries, places = flat_positions(starts, texts.positive_offsets[queries + 1] - starts)
    return rows[places], texts.positive_ids[entries].astype(np.int64)


def _require_same(same: bool, teacher: Teacher) -> None:
    require(
        same,
        f"{teacher.name} is no longer what it was at fit(): its weights or settings have changed since, and its scores "
        "would mix with the earlier ones; call fit() again, or, if the model is being trained, give the miner a copy "
        "(copy.deepcopy)",
    )
