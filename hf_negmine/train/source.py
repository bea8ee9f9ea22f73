"""The source of one data set's negatives: the texts and the teacher of a fit, and a bank to draw from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from transformers.utils import logging

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import InputError, StorageError, require
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import PositiveSampler, Sampler, Searcher, VectorTeacher
from hf_negmine.base.randomness import seed_of_epoch
from hf_negmine.base.schema import FORMAT_VERSION, BoolArray, FloatArray, IdArray, PassageArray
from hf_negmine.data.pairs import PairFinder, RowPairs
from hf_negmine.data.texts import TextSet, open_text_set
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.ensemble_pool import EnsemblePool
from hf_negmine.select import Positives, Top, resolve_sampler
from hf_negmine.select.filters import BoundFilter
from hf_negmine.select.methods import Method, resolve_method
from hf_negmine.teachers import without_index
from hf_negmine.train.bank import BankVersion, NegativeBank
from hf_negmine.train.rows import TrainingRow

logger = logging.get_logger(__name__)


@dataclass
class NegativeSource:
    """Negatives for rows of (query, positive).

    Attributes:
        texts: queries, corpus and positives.
        pool: the teacher's candidates and positive scores; None if only a corpus was fitted.
        bank: the negatives to draw from; None without a pool.
        first_bank: the bank before any refresh; a run with refreshes starts from it.
        method, sampler, n, seed, positive_score: as in `NegativeMiner`.
        columns: names of the query and the positive column, if known.
        miner: mines rows that are not in the pool, and scores with its teacher; None for a pool alone.
    """

    texts: TextSet
    pool: CandidatePool | None
    bank: NegativeBank | None
    method: Method
    sampler: Sampler
    n: int
    seed: int
    positive_score: PositiveScore
    columns: tuple[str | None, str | None]
    miner: NegativeMiner | None
    first_bank: NegativeBank | None = None

    @classmethod
    def of_miner(cls, miner: NegativeMiner, n: int | None, sampler: Sampler | str | None, seed: int) -> NegativeSource:
        """Make it from a miner; an unfitted one is fitted on its corpus, and then mines each batch on the fly."""
        require(
            not miner.config.include_positives,
            "negatives: the miner was made with include_positives=True, which is not for training",
        )
        if not miner.is_fitted:
            miner.fit()
        fitted = miner.fitted
        pool = miner.pool if len(fitted.texts.queries) else None
        _note_inconsistent(miner)
        if isinstance(pool, EnsemblePool):
            raise InputError(
                f"negatives: fresh ones are drawn from one teacher's ranking, but {miner.config.teacher.name} has "
                "several; train on the rows that it has mined"
            )
        source = cls(
            texts=fitted.texts,
            pool=pool,
            bank=None,
            method=miner.config.method,
            sampler=miner.config.sampler if sampler is None else resolve_sampler(sampler),
            n=n or miner.config.num_negatives,
            seed=seed,
            positive_score=miner.config.positive_score,
            columns=(fitted.query_column, fitted.positive_column),
            miner=miner,
        )
        if source.compares_vectors:
            with suppress(InputError):  # it has changed since the fit, which only matters to what needs its scores
                _ = source.searcher  # opened now, while a teacher that is trained itself is what it was at fit
        return source._with_bank(miner.config.cache_dir)

    @classmethod
    def of_pool(
        cls,
        pool: CandidatePool | str | Path,
        n: int,
        method: Method | str | None,
        sampler: Sampler | str | None,
        seed: int,
    ) -> NegativeSource:
        """Make it from a stored pool, without its teacher."""
        if not isinstance(pool, CandidatePool):
            pool = CandidatePool.load(pool)
        if pool.folder is None:
            raise InputError("negatives: the pool is not stored; save it, or give the miner that made it")
        cache_dir = pool.folder.parent.parent
        texts_folder = cache_dir / "texts" / str(pool.about.get("texts"))
        if not texts_folder.is_dir():
            raise StorageError(
                f"negatives: the pool in {pool.folder} only has ids, and its texts are not in {texts_folder}; give the "
                "miner that made it"
            )
        source = cls(
            open_text_set(texts_folder), pool, None, resolve_method(method), resolve_sampler(sampler), n, seed,
            "min", (None, None), None,
        )  # fmt: skip
        return source._with_bank(cache_dir)

    def _with_bank(self, cache_dir: Path) -> NegativeSource:
        if self.pool is not None:
            k = min(self.sampler.depth(self.n), self.pool.n_passages - 1)
            selection = self.pool.select(self.method, Top(), k, positive_score=self.positive_score)
            first = BankVersion.of(selection)
            name = digest_of(
                "bank", FORMAT_VERSION, self.texts.fingerprint, first.offsets, first.passages, first.scores
            )
            self.bank = self.first_bank = NegativeBank.create(cache_dir / "banks" / name, first)
        return self

    # ---- drawing -----------------------------------------------------------------------------------------------

    def fill(self, rows: list[TrainingRow], epoch: int, *, mine: bool) -> list[int]:
        """Give rows their negatives for an epoch, by their first positives; returns the places of rows left without.

        Rows that are not in the pool are mined on the fly, if ``mine`` is set and there is a miner.
        """
        pairs = self.pairs_of(rows)
        places, seen = self.finder.find(pairs)
        known = np.flatnonzero(seen)
        if len(known):
            self._draw(rows, pairs, places, known, epoch)
        unseen = np.flatnonzero(~seen)
        if mine and len(unseen) and self.miner is not None:
            self._mine([rows[row] for row in unseen], epoch)
            return []
        return [int(row) for row in unseen]

    def lacks(self, rows: list[TrainingRow]) -> tuple[BoolArray, BoolArray]:
        """Which rows are in the pool, and which of these have no negative under one of their positives."""
        pairs = self.pairs_of(rows, all_positives=True)
        places, seen = self.finder.find(pairs)
        known, lacks = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
        if self.bank is not None and seen.any():
            counts = np.diff(self.bank.current()[1].offsets)
            targets = places if self.positive_score == "each" else pairs.query_ids[pairs.rows]
            known[pairs.rows[seen]] = True
            lacks[pairs.rows[seen & (counts[targets] == 0)]] = True
        return known, lacks

    def pairs_of(self, rows: list[TrainingRow], *, all_positives: bool = False) -> RowPairs:
        """The rows, each with its first positive or with all of them."""
        query_column, positive_column = self.columns
        positives = [row.positives if all_positives else row.positives[:1] for row in rows]
        return self.finder.pairs_of(
            pa.array([row.query for row in rows], pa.large_string()),
            pa.array(positives, pa.large_list(pa.large_string())),
            query_column=query_column or "query",
            positive_column=positive_column or "positive",
        )

    def _draw(self, rows: list[TrainingRow], pairs: RowPairs, places: IdArray, known: IdArray, epoch: int) -> None:
        assert self.bank is not None
        assert self.pool is not None
        queries = pairs.query_ids[known]
        targets = places[known] if self.positive_score == "each" else queries
        _, version = self.bank.current()
        own = self.pool.positives.scores[places[known]]
        offsets, passages, scores = version.draw(
            targets,
            self._deciding(queries, own) if isinstance(self.sampler, PositiveSampler) else own,
            self.texts.queries.digests[queries, 0],
            self.texts.corpus.digests[:, 0],
            self.sampler,
            self.n,
            seed_of_epoch(self.seed, epoch),
        )
        self._write([rows[row] for row in known], passages, scores, offsets[:-1], offsets[1:], own)

    def _mine(self, rows: list[TrainingRow], epoch: int) -> None:
        """Mine rows on the fly, each against all of its positives."""
        assert self.miner is not None
        if self.miner.fitted.texts.fingerprint != self.texts.fingerprint:
            raise InputError(
                "negatives: the miner was fitted again after the collator was made; make the collator after fit()"
            )
        if self.bank is not None:
            logger.warning_once(
                "Rows that the miner was not fitted on are mined on the fly, with the teacher in every batch; the "
                f"first has the query {rows[0].query[:80]!r}."
            )
        found = self.miner.mine_fresh(
            self.pairs_of(rows, all_positives=True),
            n=self.n,
            sampler=self.sampler,
            seed=seed_of_epoch(self.seed, epoch),
        )
        pairs = np.searchsorted(found.rows, np.arange(len(rows)))
        starts, stops = found.offsets[pairs], found.offsets[pairs + 1]
        self._write(rows, found.passages, found.scores, starts, stops, found.positive_scores[pairs])

    def _write(
        self,
        rows: list[TrainingRow],
        passages: PassageArray,
        scores: FloatArray,
        starts: IdArray,
        stops: IdArray,
        positive_scores: FloatArray,
    ) -> None:
        """Write texts and scores into rows, those from ``starts`` to ``stops`` of the passages into each."""
        texts, values = self.texts.corpus.take(passages).to_pylist(), scores.tolist()
        bounds = zip(starts.tolist(), stops.tolist(), positive_scores.tolist(), strict=True)
        for row, (start, stop, positive_score) in zip(rows, bounds, strict=True):
            row.negatives, row.scores, row.positive_score = texts[start:stop], values[start:stop], positive_score

    # ---- the teacher's scores ----------------------------------------------------------------------------------

    @cached_property
    def finder(self) -> PairFinder:
        """Finds rows by their texts."""
        return PairFinder(self.texts)

    @cached_property
    def filters(self) -> tuple[BoundFilter, ...]:
        """The filters, including the judge's, that negatives must pass besides their ceilings.

        They hold resources of this process and are not pickled: a copy takes its miner's when it first needs them, and
        a copy without a miner has none.
        """
        if self.pool is None or self.pool.filters or self.miner is None:
            return () if self.pool is None else self.pool.filters
        has_some = bool(self.miner.config.candidate_filters) or self.miner.config.judge is not None
        pool = self.miner.pool if has_some else None
        return pool.filters if isinstance(pool, CandidatePool) else ()

    @cached_property
    def positives(self) -> Positives:
        """The scored positives of every query, with those that set a ceiling; a copy asks its miner for the latter."""
        pool = self.pool
        assert pool is not None
        if pool.consistency is None and self.miner is not None and self.miner.config.consistency is not None:
            its_pool = self.miner.pool
            pool = its_pool if isinstance(its_pool, CandidatePool) else pool
        return replace(pool.positives, counted=pool.counted())

    @property
    def open_searcher(self) -> Callable[[], Searcher] | None:
        """Opens the teacher's searcher, if there is a miner."""
        return None if self.miner is None else lambda: self.searcher

    @cached_property
    def searcher(self) -> Searcher:
        """The searcher of the miner's teacher, opened once.

        If the teacher compares vectors, these are the stored ones, whatever becomes of a model that is itself trained.
        """
        assert self.miner is not None
        return self.miner.open_searcher()

    @property
    def compares_vectors(self) -> bool:
        """Whether scoring any pair costs the teacher no more than two vectors."""
        if self.pool is None or self.miner is None:
            return False
        return isinstance(without_index(self.miner.config.teacher), VectorTeacher)

    def teacher_scores(self, queries: IdArray, passages: IdArray) -> FloatArray:
        """The teacher's score of every query with every passage, shape (queries, passages)."""
        block = self.searcher.block(queries)
        rows = np.repeat(np.arange(len(queries)), len(passages))
        scores = block.pair_scores(rows, np.tile(passages, len(queries)).astype(np.int32))
        return scores.reshape(len(queries), len(passages))

    def ceilings(self, queries: IdArray, positive_scores: FloatArray) -> FloatArray:
        """The ceiling of each query; ``positive_scores`` are those of the rows' own positives."""
        return self._settled.ceilings(self._deciding(queries, positive_scores))

    @cached_property
    def _settled(self) -> Method:
        return self.method.settled(self.positives.deciding) if self.method.sees_all_positives else self.method

    def _deciding(self, queries: IdArray, positive_scores: FloatArray) -> FloatArray:
        """The score that sets each query's ceiling; ``positive_scores`` are those of the rows' own positives."""
        return np.asarray(positive_scores if self.positive_score == "each" else self._lowest[queries], dtype=np.float32)

    @cached_property
    def _lowest(self) -> FloatArray:
        """The lowest positive score of each query, among those that set a ceiling."""
        return self.positives.targets("min")[1]

    def __getstate__(self) -> dict[str, Any]:
        """Only paths and settings: every process opens texts and pool by memory map."""
        left_out = ("finder", "filters", "positives", "_lowest", "searcher", "texts", "pool")
        state = {name: value for name, value in self.__dict__.items() if name not in left_out}
        return {**state, "texts": self.texts.folder, "pool": None if self.pool is None else self.pool.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        pool = state["pool"]
        self.__dict__.update(
            {
                **state,
                "texts": open_text_set(state["texts"]),
                "pool": None if pool is None else CandidatePool.load(pool),
            }
        )


def _note_inconsistent(miner: NegativeMiner) -> None:
    """Log how many rows `NegativeMiner.mine` would leave out, which a collator cannot do."""
    rule, consistent = miner.config.consistency, miner.fitted.consistent
    if rule is None or rule.action != "drop" or consistent is None or consistent.all():
        return
    logger.warning(
        f"{np.count_nonzero(~consistent):,} of {len(consistent):,} positives fail {rule}. They set no "
        "ceiling, but rows with them are trained on; to leave them out, train on the output of miner.mine(rows)."
    )
