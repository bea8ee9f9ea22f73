"""What the page shows of a mined set: texts, figures of the whole, and what each teacher has found and chosen."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_negmine.base.choices import PositiveScore
from hf_negmine.base.errors import InputError
from hf_negmine.base.ragged import Ragged
from hf_negmine.base.schema import IdArray
from hf_negmine.base.wording import numbered
from hf_negmine.data.texts import TextColumn, TextSet
from hf_negmine.figures import html
from hf_negmine.fitted import Fitted
from hf_negmine.miner import NegativeMiner
from hf_negmine.page.views import Excerpt, View, packed
from hf_negmine.pool import CandidatePool
from hf_negmine.pool.ids import POSITIONS, Ids, taken
from hf_negmine.pool.stored import StoredPool, has_pool, read_pool
from hf_negmine.report.summary import MiningSummary
from hf_negmine.select.ensembles import drawn_teachers
from hf_negmine.select.methods import Method, parse_method

CROSS_SAMPLE = "cross-sample"
TEXT_BYTES = 6_500_000
"""Texts of one page at most; if they are longer, the long ones are cut to one length."""
SHORTEST_CUT = 80
HUBS = 10
"""How many of the passages that are negatives of most queries are shown."""


@dataclass(frozen=True)
class Shown:
    """A mined set, opened to be looked at.

    Attributes:
        texts: queries, corpus and positives.
        views: what the teacher has found and chosen; with an ensemble, each of its teachers.
        negatives: passages and scores of the mined negatives, a row per target.
        positive_score: whether a target is a query (``min``) or a pair (``each``).
        summary: how they were mined.
        relevant: query ids and passage ids of the pairs that a judge called relevant; None without one.
        ids: what the user calls the texts.
    """

    texts: TextSet
    views: tuple[View, ...]
    negatives: Ragged
    positive_score: PositiveScore
    summary: MiningSummary
    relevant: tuple[IdArray, IdArray] | None = None
    ids: Ids = POSITIONS

    @classmethod
    def of(cls, miner: NegativeMiner) -> Shown:
        """The set that a miner has been fitted on.

        Raises:
            NotFittedError: before `fit`.
            InputError: there is nothing to show; see `of_fit`.
        """
        return cls.of_fit(miner.fitted, miner.config.cache_dir, miner.config.method)

    @classmethod
    def of_fit(cls, fitted: Fitted, cache_dir: Path, method: Method | None = None) -> Shown:
        """The set of a fit, whose pools are in the cache; a ``method`` with a ceiling of one's own must be given.

        Raises:
            InputError: the fit has no queries, or a pool is no longer in the cache.
        """
        if not len(fitted.texts.queries):
            raise InputError("report: the miner is fitted on a corpus alone, so there are no queries to show")
        folders = [cache_dir / "pools" / key for key in fitted.pool_keys]
        for folder in folders:
            if not has_pool(folder):
                raise InputError(f"report: the candidates are no longer in {folder}; mine again, and then report")
        relevant = None if fitted.relevant is None else fitted.relevant[:2]
        negatives = Ragged(fitted.offsets, (fitted.passages, fitted.scores))
        method = method or parse_method(fitted.summary.settings["method"])
        views = tuple(_views(fitted, [read_pool(folder) for folder in folders], method))
        return cls(fitted.texts, views, negatives, fitted.positive_score, fitted.summary, relevant)

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
        targets = np.arange(len(selection.counts))
        view = View(settings["teacher"], pool.lists, pool.positives, selection.method, selection.n, targets)
        return cls(texts, (view,), selection.ragged, selection.positive_score, summary)

    @property
    def n_targets(self) -> int:
        """Number of targets: queries, or pairs under ``positive_score="each"``."""
        return len(self.negatives.offsets) - 1

    def sample(self, most: int) -> dict[int, IdArray]:
        """At most so many targets, drawn by their queries' texts, in the order of the rows: those of each view.

        The views share them equally.
        """
        order = self.texts.queries.digests[self._query_of_target, 1]
        share = max(most // len(self.views), 1)
        return {
            place: np.sort(view.targets[np.argsort(order[view.targets], kind="stable")[:share]])
            for place, view in enumerate(self.views)
        }

    def content(self, targets: Mapping[int, IdArray]) -> dict[str, Any]:
        """Everything that the page needs about some targets, as JSON-able content.

        Args:
            targets: by the place of a view, int64, which of its targets, in the order of the page.
        """
        corpus, summary, settings = self.texts.corpus, self.summary, self.summary.settings
        of_target = self._query_of_target
        excerpts = [Excerpt(self.views[place], of, of_target[of], self.positive_score) for place, of in targets.items()]
        queries = np.unique(np.concatenate([one.queries for one in excerpts]))
        passages = np.unique(np.concatenate([one.passages for one in excerpts]))
        texts, cut = _cut([*_texts(self.texts.queries, queries), *_texts(corpus, passages)], TEXT_BYTES)
        named = [taken(self.ids.queries, queries), taken(self.ids.documents, passages)]
        flags = [one.flags(self.negatives, self.relevant, len(corpus)) for one in excerpts]
        return {
            "texts": self.texts.fingerprint,
            "unit": "pairs" if self.positive_score == "each" else "queries",
            "targets": self.n_targets,
            "title": settings["teacher"],
            "summary": str(summary),
            "settings": {name: settings[name] for name in ("teacher", "method", "sampler", "num_negatives", "seed")},
            "cut": cut,
            "queries": texts[: len(queries)],
            "passages": texts[len(queries) :],
            "digests": _digests(self.texts, queries, passages) if cut else None,
            "query_ids": packed(queries, "<i4"),
            "passage_ids": packed(passages, "<i4"),
            "filters": _filters(summary) if self.views[0].filtered else [],
            "judged": self.relevant is not None,
            "ids": None if self.ids is POSITIONS else [part.to_pylist() for part in named],
            "teachers": [view.teacher for view in self.views],
            "shared": _shared(summary, self.views),
            "agreement": _agreement(summary, self.views),
            "shown": list(targets),
            "views": [one.content(queries, passages, of) for one, of in zip(excerpts, flags, strict=True)],
            "hubs": self._hubs(),
        }

    @property
    def _query_of_target(self) -> IdArray:
        if self.positive_score == "each":
            return self.views[0].positives.query_of_pair
        return np.arange(len(self.texts.queries))

    def _hubs(self) -> list[list[Any]]:
        """The passages that are negatives of most targets of the whole set, and of how many each is one."""
        n_passages = len(self.texts.corpus)  # two teachers may choose the same one for a target
        once = np.unique(self.negatives.rows * n_passages + self.negatives.arrays[0])
        counts = np.bincount(once % n_passages, minlength=1)
        top = np.argsort(-counts, kind="stable")[:HUBS]
        top = top[counts[top] > 1]
        texts = _texts(self.texts.corpus, top)
        return [[html.shown(text), int(count)] for text, count in zip(texts, counts[top], strict=True)]


def _views(fitted: Fitted, pools: Sequence[StoredPool], method: Method) -> Iterator[View]:
    """What each teacher of a fit has found and chosen."""
    settings = fitted.summary.settings
    wanted, names = settings["num_negatives"], [settings["teacher"]]
    targets = [np.arange(len(fitted.offsets) - 1)] * len(pools)
    if len(pools) > 1:
        names = numbered([stage["teacher"] for stage in settings["stages"]])
        if _kind(fitted.summary) == CROSS_SAMPLE:
            queries, _ = pools[0].positives.targets(fitted.positive_score)
            drawn = drawn_teachers(settings["seed"], fitted.texts.queries.digests[queries, 0], len(pools))
            targets = [np.flatnonzero(drawn == teacher) for teacher in range(len(pools))]
        else:
            wanted //= len(pools)
    drops = any(one["kind"] == "consistency" and one["action"] == "drop" for one in settings.get("filters", []))
    filtered = bool(_filters(fitted.summary)) and settings["sampler"] == "top"
    for name, pool, of in zip(names, pools, targets, strict=True):
        positives = replace(pool.positives, counted=fitted.consistent) if drops else pool.positives
        yield View(name, pool.lists, positives, method.settled(positives.deciding), wanted, of, filtered)


def _filters(summary: MiningSummary) -> list[str]:
    """The names of the filters of candidates; what a judge calls relevant is known one by one."""
    filters = summary.settings.get("filters", [])
    return [one["filter"] for one in filters if one["kind"] not in ("consistency", "judge")]


def _kind(summary: MiningSummary) -> str:
    """The kind of an ensemble, with which its name begins."""
    return str(summary.settings["teacher"]).partition("(")[0]


def _shared(summary: MiningSummary, views: Sequence[View]) -> str | None:
    """How an ensemble's teachers share the work, in words; None for a single teacher."""
    if len(views) == 1:
        return None
    if _kind(summary) == CROSS_SAMPLE:
        return "Each query draws one teacher, which chooses all its negatives; these are the queries of this teacher."
    n, share = summary.settings["num_negatives"], views[0].wanted
    told = f"Each teacher chooses {share} of the {n} negatives of a query; figures and slider are about this one's."
    if _kind(summary).endswith("-dedup"):
        told += " A passage that a teacher before it has chosen was replaced, which the slider does not do."
    return told


def _agreement(summary: MiningSummary, views: Sequence[View]) -> dict[str, Any] | None:
    """How much an ensemble's teachers agree, in numbers and in words; None for a single teacher."""
    if summary.agreement is None:
        return None
    jaccard, settings = summary.agreement["jaccard"], summary.settings
    pairs = sorted((jaccard[one][two], two, one) for one in range(len(jaccard)) for two in range(one))
    least, most = ([views[place].teacher for place in pair[1:]] + [f"{pair[0]:.2f}"] for pair in (pairs[0], pairs[-1]))
    told = (
        f"Mean Jaccard similarity of the best {settings['num_negatives']} negatives of two teachers under "
        f"{settings['method']}: 1.00 if they are the same, 0.00 if none are in both."
    )
    if len(pairs) > 1:
        told += " The most alike are {} and {} ({}),".format(*most) + " the least {} and {} ({}).".format(*least)
    return {"jaccard": jaccard, "told": told}


def _texts(column: TextColumn, ids: IdArray) -> list[str]:
    found: list[str] = column.take(ids).to_pylist()
    return found


def _digests(texts: TextSet, queries: IdArray, passages: IdArray) -> str:
    """16 bytes for each text: a label of a text that is cut names the text by them."""
    return packed(np.concatenate([texts.queries.digests[queries], texts.corpus.digests[passages]]), "<u8")


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
