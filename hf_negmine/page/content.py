"""What the page shows of a mined set: queries with their positives and ranked candidates, as arrays and texts."""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import InputError
from hf_negmine.base.ragged import Ragged, flat_positions, offsets_of_counts
from hf_negmine.base.schema import AnyArray, IdArray
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.fitted import Fitted
from hf_negmine.miner import NegativeMiner
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.stored import has_pool, read_pool
from hf_negmine.report.summary import MiningSummary
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives

TEXT_BYTES = 6_500_000
"""Texts of one page at most; if they are longer, the long ones are cut to one length."""
SHORTEST_CUT = 80
HUBS, HUB_LETTERS = 10, 200
"""The passages shown that are negatives of most queries, and how much of each."""
MINED, RELEVANT = 1, 2
"""Flags of a candidate: it is a negative of the mined set; a judge called it relevant."""


@dataclass(frozen=True)
class Shown:
    """A mined set, opened to be looked at.

    Attributes:
        texts: queries, corpus and positives.
        lists: the candidates of every query.
        positives: the scored positives of every query.
        negatives: the passages of the mined negatives, a row per target.
        positive_score: whether a target is a query (``min``) or a pair (``each``).
        summary: how they were mined.
        relevant: query ids and passage ids of the pairs that a judge called relevant; None without one.
    """

    texts: TextSet
    lists: CandidateLists
    positives: Positives
    negatives: Ragged
    positive_score: PositiveScore
    summary: MiningSummary
    relevant: tuple[IdArray, IdArray] | None = None

    @classmethod
    def of(cls, miner: NegativeMiner) -> Shown:
        """The set that a miner has been fitted on.

        Raises:
            NotFittedError: before `fit`.
            InputError: there is nothing to show; see `of_fit`.
        """
        return cls.of_fit(miner.fitted, miner.config.cache_dir)

    @classmethod
    def of_fit(cls, fitted: Fitted, cache_dir: Path) -> Shown:
        """The set of a fit, whose pool is in the cache.

        Raises:
            InputError: the fit has no queries, or several pools (an ensemble), or its pool is no longer in the cache.
        """
        if not len(fitted.texts.queries):
            raise InputError("report: the miner is fitted on a corpus alone, so there are no queries to show")
        if len(fitted.pool_keys) > 1:
            raise InputError(
                f"report: {fitted.summary.settings['teacher']} has a pool per teacher, and the page shows one; mine "
                "with one of the teachers"
            )
        folder = cache_dir / "pools" / fitted.pool_keys[0]
        if not has_pool(folder):
            raise InputError(f"report: the candidates are no longer in {folder}; mine again, and then report")
        pool = read_pool(folder)
        negatives = Ragged(fitted.offsets, (fitted.passages,))
        relevant = None if fitted.relevant is None else fitted.relevant[:2]
        about = (fitted.positive_score, fitted.summary, relevant)
        return cls(fitted.texts, pool.lists, pool.positives, negatives, *about)

    @classmethod
    def of_pool(cls, pool: CandidatePool, texts: TextSet, summary: MiningSummary) -> Shown:
        """A set that came with its pool, such as one from the Hub: the negatives are selected again.

        Raises:
            InputError: they were mined with filters or a judge, which are not part of a pool.
            ShallowPoolError: the pool does not hold all that the selection needs.
        """
        settings = summary.settings
        if settings.get("filters") or settings.get("judge"):
            raise InputError(
                "report: these negatives were mined with filters or a judge, which a pool does not hold; mine the "
                "rows again (reproduce does so), and report what comes out"
            )
        selection = pool.select(
            settings["method"],
            settings["sampler"],
            settings["num_negatives"],
            seed=settings["seed"],
            positive_score=settings["positive_score"],
        )
        negatives = Ragged(selection.offsets, (selection.passages,))
        return cls(texts, pool.lists, pool.positives, negatives, selection.positive_score, summary)

    @property
    def n_targets(self) -> int:
        """Number of targets: queries, or pairs under ``positive_score="each"``."""
        return len(self.negatives.offsets) - 1

    def sample(self, most: int) -> IdArray:
        """At most so many targets, drawn by their queries' texts, in the order of the rows."""
        chosen = np.argsort(self.texts.queries.digests[self._query_of_target, 1], kind="stable")[:most]
        return np.sort(chosen)

    def content(self, targets: IdArray) -> dict[str, Any]:
        """Everything that the page needs about some targets, as JSON-able content; arrays are base64 of little-endian.

        Args:
            targets: int64, which ones, in the order of the page.
        """
        lists, corpus = self.lists, self.texts.corpus
        queries = self._query_of_target[targets]
        segments, item_of_segment = flat_positions(lists.offsets[queries], np.diff(lists.offsets)[queries])
        sizes = (lists.stops - lists.starts)[segments]
        entries, segment_of_entry = flat_positions(lists.starts[segments], sizes)
        item_of_entry = item_of_segment[segment_of_entry]
        passages, scores = np.asarray(lists.passages[entries]), np.asarray(lists.scores[entries])
        positives = Ragged(self.positives.offsets, (self.positives.ids, self.positives.scores)).take(queries)
        n_passages = len(corpus)
        keys = queries[item_of_entry] * n_passages + passages
        flags = np.zeros(len(keys), dtype=np.uint8)
        mined = self.negatives.take(targets)
        of_items, places = np.unique(item_of_entry * n_passages + passages, return_index=True)  # segments may overlap
        flags[places[np.isin(of_items, mined.rows * n_passages + mined.arrays[0])]] |= MINED
        if self.relevant is not None:
            flags[np.isin(keys, self.relevant[0] * n_passages + self.relevant[1])] |= RELEVANT
        used = np.unique(np.concatenate([passages, positives.arrays[0]]))
        texts, cut = _cut([*_texts(self.texts.queries, queries), *_texts(corpus, used)], TEXT_BYTES)
        offsets_of_segments = offsets_of_counts(np.bincount(item_of_segment, minlength=len(targets)))
        _, deciding = self.positives.targets(self.positive_score)
        summary = self.summary
        return {
            "texts": self.texts.fingerprint,
            "unit": "pairs" if self.positive_score == "each" else "queries",
            "title": summary.settings["teacher"],
            "summary": str(summary),
            "settings": {
                name: summary.settings[name] for name in ("teacher", "method", "sampler", "num_negatives", "seed")
            },
            "targets": self.n_targets,
            "cut": cut,
            "queries": texts[: len(queries)],
            "passages": texts[len(queries) :],
            "digests": _digests(self.texts, queries, used) if cut else None,
            "query_ids": _packed(queries, "<i4"),
            "passage_ids": _packed(used, "<i4"),
            "deciding": _packed(deciding[targets], "<f4"),
            "positive_offsets": _packed(positives.offsets, "<i4"),
            "positive_places": _packed(np.searchsorted(used, positives.arrays[0]), "<i4"),
            "positive_scores": _packed(positives.arrays[1], "<f4"),
            "segment_offsets": _packed(offsets_of_segments, "<i4"),
            "entry_offsets": _packed(offsets_of_counts(sizes), "<i4"),
            "ceilings": _packed(lists.ceilings[segments], "<f4"),
            "first_ranks": _packed(lists.first_ranks[segments], "<i4"),
            "exhausted": _packed(lists.exhausted[segments], "u1"),
            "places": _packed(np.searchsorted(used, passages), "<i4"),
            "scores": _packed(scores, "<f4"),
            "flags": _packed(flags, "u1"),
            "hubs": self._hubs(),
        }

    @property
    def _query_of_target(self) -> IdArray:
        if self.positive_score == "each":
            return self.positives.query_of_pair
        return np.arange(len(self.texts.queries))

    def _hubs(self) -> list[list[Any]]:
        """The passages that are negatives of most targets of the whole set, and of how many each is one."""
        counts = np.bincount(self.negatives.arrays[0], minlength=1)
        top = np.argsort(-counts, kind="stable")[:HUBS]
        top = top[counts[top] > 1]
        texts = (shorten(text, HUB_LETTERS, placeholder="…") for text in _texts(self.texts.corpus, top))
        return [[text, int(count)] for text, count in zip(texts, counts[top], strict=True)]


def _texts(column: TextColumn, ids: IdArray) -> list[str]:
    found: list[str] = column.take(ids).to_pylist()
    return found


def _digests(texts: TextSet, queries: IdArray, passages: IdArray) -> str:
    """16 bytes for each text: a label of a text that is cut names the text by them."""
    return _packed(np.concatenate([texts.queries.digests[queries], texts.corpus.digests[passages]]), "<u8")


def _cut(texts: Sequence[str], budget: int) -> tuple[list[str], int | None]:
    """The texts within a budget of bytes, and the number of letters that long ones are cut to; None if none is."""
    sizes = np.array([len(text.encode()) for text in texts], dtype=np.int64)
    if sizes.sum() <= budget:
        return list(texts), None
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    share = sizes / np.maximum(lengths, 1)
    over = bisect_left(
        range(int(lengths.max())), True, key=lambda limit: (np.minimum(lengths, limit) * share).sum() > budget
    )
    limit = max(over - 1, SHORTEST_CUT)
    return [text if len(text) <= limit else f"{text[:limit]}…" for text in texts], limit


def _packed(values: AnyArray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()
