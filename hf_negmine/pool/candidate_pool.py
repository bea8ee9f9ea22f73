"""Exact selection from a candidate pool: where it is too shallow, only the queries that need more are searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import InputError, require, require_choice, require_list, require_whole
from hf_negmine.base.paths import folder_of
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.schema import FloatArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.beir_writing import write_beir
from hf_negmine.pool.checks import require_enough_passages
from hf_negmine.pool.ids import POSITIONS, Ids
from hf_negmine.pool.list_writing import write_list_tables, write_qrels, write_run
from hf_negmine.pool.rankings import Rankings
from hf_negmine.pool.scored_lists import open_scored_lists
from hf_negmine.pool.sweep import Sweeping
from hf_negmine.select.choosing import choose, count_removed, demand_of
from hf_negmine.select.filters import BoundFilter, Filter, Scene
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.select.samplers import resolve_sampler
from hf_negmine.select.selection import Selection
from hf_negmine.teachers import ListTeacher, place

WITHOUT_TEXTS = "this pool came without its texts; write the pool of a miner that is fitted on them, or of from_lists"


class CandidatePool(Rankings, Sweeping):
    """Scored candidates for every query of one data set, from one teacher.

    Attributes:
        lists: segments of each query's ranking (see `candidates`).
        positives: the labeled passages and their scores.
        query_keys: uint64, shape (n_queries,), first halves of the query digests.
        passage_keys: uint64, shape (n_passages,), first halves of the passage digests.
        about: where the pool comes from: teacher, texts, depth, versions.
        folder: where it is stored, None if it is not.
        filters: conditions on candidates besides their ceilings; they belong to the miner, and are not stored.
        consistency: the rule for positives that set a ceiling; not stored either.
        positive_score: the default of `select`, for which the filters are made.
        scene: makes the scene that filters are bound to; None for a pool that came without texts and teacher.
        texts: the texts that ids refer to, if available.
        columns: names of the query and positive columns in the user's rows.
        list_teacher: what scored the lists that the pool is made of, in the place of a teacher; None for other pools.
        ids: what the texts were called in the lists that the pool was just made of (`from_lists`); not stored.
        deciding: for rows that came later, the scores of all positives at fit; None for those of the pool.
        with_positives: whether positives are candidates, so that there may be as many candidates as passages.
        lists_end: whether nobody looks further where a list ends: the candidates came from elsewhere (`from_lists`),
            and no teacher continues them. Selections then have the status ``list ended`` instead of an error.
    """

    scene: Callable[[], Scene] | None = None
    deciding: FloatArray | None = None
    with_positives: bool = False
    texts: TextSet | None = None
    columns: tuple[str, str] = ("query", "positive")
    list_teacher: ListTeacher | None = None
    ids: Ids = POSITIONS

    @classmethod
    def from_lists(
        cls,
        queries: Any,
        documents: Any,
        scores: Any,
        positives: Any = None,
        *,
        teacher: Any = None,
        name: str | None = None,
        cache_dir: Path | str | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> CandidatePool:
        """A pool of lists that were scored elsewhere: by another tool, a reranker, or a search engine.

        Each list is the top of its query's ranking. A selection that would need more than a list holds has the status
        ``list ended`` for it (`Selection.status`), unless the teacher that made the lists is given to continue them.
        Ids are texts or whole numbers. Passages are identified by their texts, whatever their ids: a passage with the
        text of a positive, or of the query, is never a negative. Everything is read in batches and stored on disk.

        Args:
            queries: the texts of the queries: ``{id: text}``, or rows with one column of ids, named ``id`` or ending in
                ``_id``, and one of texts, in any form that `NegativeMiner.fit` takes; or a BEIR folder.
            documents: the texts of the passages, likewise.
            scores: rows of ``query_id``, ``document_ids`` and ``scores``, in any order; or ``{query id: {document id:
                score}}``, or a TREC run (``.trec`` or ``.run``, or these with ``.gz``). Higher scores are more
                relevant.
            positives: rows of ``query_id`` and ``positive_ids``, or of ``query_id`` and ``document_id``; or ``{query
                id: [document id]}``, or ``{query id: {document id: score}}``, or a file of TREC relevance judgements,
                of which those over 0 count; other rows must not label any as not relevant. None takes the column
                ``positive_ids`` of ``scores``. Queries without a positive are left out. The score of a positive is the
                one in the list, or else given in a column ``positive_scores`` (``positive_score``), or else the
                teacher's.
            teacher: the model that made the lists. It scores positives that have no score, and continues lists that
                end; None leaves both to the lists.
            name: what scored the lists, for summaries; None takes the teacher's name, or ``lists``.
            cache_dir: where texts and pool are stored; None takes ``$HF_NEGMINE_CACHE`` or ``~/.cache/hf_negmine``.
            device: where the teacher works, such as ``cuda``; None takes a GPU if there is one.
            progress: whether to show progress bars.

        Raises:
            InputError: an id is unknown or has two texts, a score is not a finite number, a list has more ids than
                scores, a positive has no score or is labeled as not relevant, or the teacher's scores are not those of
                the lists.
            StorageError: the cache folder is full or cannot be written to.
        """
        opened = open_scored_lists(
            queries, documents, scores, positives,
            teacher=teacher, name=name, cache_dir=cache_dir, device=device, progress=progress,
        )  # fmt: skip
        pool = cls.load(opened.folder, open_searcher=opened.open_searcher, progress=progress)
        pool.texts, pool.list_teacher, pool.ids = opened.texts, opened.teacher, opened.ids
        pool.scene = lambda: opened.scene(pool.counted())
        return pool

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
        filters: Sequence[Filter | BoundFilter] = (),
    ) -> Selection:
        """Choose n negatives for every query, exactly.

        Args:
            method: which candidates may be negatives, as a `Method` or its spec, such as ``"perc_pos:0.95"``.
            sampler: how n of them are drawn; the n best if None.
            n: negatives per query.
            seed: the seed of the draws.
            positive_score: for a query with several positives, whether the lowest positive score sets its ceiling
                (``"min"``) or each pair has its own (``"each"``). None takes the miner's choice, the only one
                possible for a pool with filters.
            filters: filters in addition to the pool's own, such as ``[Veto("bm25")]``.

        Raises:
            ShallowPoolError: the pool is too shallow for some query, and no teacher is available.
            InputError: an argument is invalid.
        """
        method, sampler = resolve_method(method), resolve_sampler(sampler)
        require_whole(n, "n", at_least=1)
        require_whole(seed, "seed")
        require_enough_passages(n, self.n_passages, "n", include_positives=self.with_positives)
        positive_score = self.positive_score if positive_score is None else positive_score
        require_choice(positive_score, get_args(PositiveScore), argument="positive_score")
        if self.filters and positive_score != self.positive_score:
            raise InputError(
                f"positive_score: {positive_score!r}, but the pool's filters are made for {self.positive_score!r}"
            )
        positives = dataclasses.replace(self.positives, counted=self.counted())
        queries, positive_scores = positives.targets(positive_score)
        method = method.settled(positives.deciding if self.deciding is None else self.deciding)
        demand = demand_of(queries, positive_scores, method, sampler, n, self.n_passages)
        every_filter = (*self.filters, *self.bound(filters, positive_score))
        survivors, removed = self._survivors(demand, f"{method} with {sampler}", every_filter)
        found = self.about.get("depth")
        depth = found if isinstance(found, int) else self.n_passages  # lists from elsewhere have none
        offsets, passages, scores = choose(
            survivors, positive_scores, demand.wanted, sampler, n, seed, self.query_keys[queries], self.passage_keys
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
            removed={**count_removed(self.lists, demand, method, positive_scores, depth), **removed},
            list_ended=~survivors.certain if self.lists_end else None,
            source=self.texts,
            columns=self.columns,
        )

    def bound(self, filters: Sequence[Filter | BoundFilter], positive_score: PositiveScore) -> tuple[BoundFilter, ...]:
        """Bind filters to the pool's data set and to the kind of its targets.

        Raises:
            InputError: something is not a filter of candidates, or the pool came without the texts that a filter needs.
        """
        require_list(filters, "filters", "[Veto('bm25')]")
        bound: list[BoundFilter] = []
        for one in filters:
            if isinstance(one, BoundFilter):
                bound.append(one)
                continue
            if not isinstance(one, Filter) or isinstance(one, type):
                raise InputError(f"filters: expected filters of candidates such as Veto('bm25'), got {one!r}")
            if self.scene is None:
                raise InputError(
                    f"filters: {one} needs the texts and the teacher, which this pool came without; select from the "
                    "pool of a miner that is fitted on them"
                )
            scene = dataclasses.replace(self.scene(), positive_score=positive_score)
            if (teacher := getattr(one, "teacher", None)) is not None:
                place(teacher, scene.indexes.device)
            bound.append(one.bind(scene))
        return tuple(bound)

    def to_lists(self, folder: Path | str, *, queries: Any = None, documents: Any = None) -> None:
        """Write the pool as scored lists: ``queries.parquet``, ``documents.parquet`` and ``scores.parquet``.

        They have the columns ``query_id`` and ``query``; ``document_id`` and ``document``; ``query_id``,
        ``document_ids``, ``scores`` and ``positive_ids``. `sentence_transformers.util.resolve_ids` joins them, and
        `from_lists` reads them. A list is the top of its query's ranking, as far as it is known, with the positives
        where their scores put them. An earlier file is replaced.

        Args:
            folder: where they are written.
            queries, documents: the texts with your ids, in any form that `from_lists` takes, such as a BEIR folder.
                None takes the ids that were given to `from_lists`, and for other pools positions. A text with several
                ids is written under the first.

        Raises:
            InputError: the pool came without its texts, or one of them has no id.
            StorageError: the folder cannot be written to.
        """
        if self.texts is None:
            raise InputError(f"to_lists: {WITHOUT_TEXTS}")
        ids = self.ids.given(self.texts, queries, documents)
        write_list_tables(folder_of(folder, "folder"), self.texts, self.lists, self.positives, ids)

    def to_run(
        self,
        path: Path | str,
        *,
        qrels: Path | str | None = None,
        tag: str = "hf_negmine",
        queries: Any = None,
        documents: Any = None,
    ) -> None:
        """Write the pool as a TREC run, with the ids and the lists of `to_lists`.

        Args:
            path: the file, compressed if its name ends in ``.gz``.
            qrels: a file for the positives as TREC relevance judgements, compressed likewise; None writes none.
            tag: the name of the run.
            queries, documents: see `to_lists`.

        Raises:
            InputError: the tag or an id is not one word, a text has no id, or both files are the same.
            StorageError: a file cannot be written.
        """
        run, judgements = folder_of(path, "path"), None if qrels is None else folder_of(qrels, "qrels")
        require(run != judgements, f"qrels: {run} is the file of the run, too; give another one")
        ids = self.ids.given(self.texts, queries, documents)
        write_run(run, self.lists, self.positives, tag, ids)
        if judgements is not None:
            write_qrels(judgements, self.positives, ids)

    def to_beir(
        self,
        folder: Path | str,
        selection: Selection,
        *,
        split: str = "train",
        queries: Any = None,
        documents: Any = None,
    ) -> None:
        """Write a selection from this pool as a BEIR folder: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/SPLIT.tsv``.

        Positives are judged 1 and negatives 0, so that readers who want only positives find these alone. The same
        judgements as lines and a card are for mteb and `load_dataset`.

        Args:
            folder: a new folder, or one without such files.
            selection: the negatives, from `select`.
            split: the name of the judgements.
            queries, documents: see `to_lists`.

        Raises:
            InputError: the pool came without its texts, the selection is another pool's, or an id cannot be written.
            StorageError: the folder holds such files already, or cannot be written to.
        """
        if self.texts is None:
            raise InputError(f"to_beir: {WITHOUT_TEXTS}")
        require(isinstance(selection, Selection), f"selection: expected pool.select(…), got {selection!r:.80}")
        targets, _ = self.positives.targets(selection.positive_score)
        if selection.source is not self.texts or len(targets) != len(selection.counts):
            raise InputError("to_beir: the selection does not come from this pool; give pool.select(…)")
        ids = self.ids.given(self.texts, queries, documents)
        chosen = np.unique(np.stack([np.repeat(targets, selection.counts), selection.passages]), axis=1)
        judged = [(self.positives.query_of_pair, self.positives.ids, 1), (*chosen, 0)]
        write_beir(folder_of(folder, "folder"), self.texts, ids, split, judged)
