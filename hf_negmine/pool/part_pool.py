"""The pools of parts of the queries, from which ranks select."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_negmine.base.protocols import Searcher
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.candidate_pool import CandidatePool
from hf_negmine.pool.parts import deeper, deepest, has_part, read_part, write_part
from hf_negmine.pool.retrieving import paths_of_parts
from hf_negmine.pool.stored import has_pool
from hf_negmine.select.candidates import CandidateLists, Demand
from hf_negmine.select.choosing import Survivors
from hf_negmine.select.filters import BoundFilter
from hf_negmine.select.selection import Positives


class PartPool(CandidatePool):
    """The pool of a part of the queries; what is searched deeper is written beside the part.

    Attributes:
        texts: the queries of the part, and the whole corpus.
        part: the file of the part; None if it is in the whole pool, which a rank must not change.
    """

    texts: TextSet
    part: Path | None = None

    def _survivors(
        self, demand: Demand, purpose: str, filters: Sequence[BoundFilter]
    ) -> tuple[Survivors, dict[str, int]]:
        """As in every pool, but nothing for a target of which not enough is known; the last step selects for it."""
        found, removed = super()._survivors(demand, purpose, filters)
        return replace(found, counts=np.where(found.certain, found.counts, 0)), removed

    def _keep(self, before: CandidateLists) -> None:
        if self.lists is not before and self.part is not None:
            write_part(deeper(self.part, self.lists), self.lists, self.positives.scores)


def part_pools(
    texts: TextSet,
    open_searcher: Callable[[TextSet], Searcher] | None,
    folder: Path,
    about: dict[str, Any],
    *,
    share: slice,
    progress: bool = True,
) -> Iterator[PartPool | None]:
    """The pools of a share of the parts of the pool in ``folder``; None for a part that is not there.

    ``share`` says which parts, by number. Without ``open_searcher``, or if the whole pool is there, nothing is searched
    deeper.
    """
    whole = CandidatePool.load(folder) if has_pool(folder, about=about) else None
    open_searcher = open_searcher if whole is None else None
    paths = paths_of_parts(texts, folder / "parts")
    ends = dict(zip(paths, [*list(paths)[1:], len(texts.queries)], strict=True))
    for start, path in list(paths.items())[share]:
        if whole is None and not has_part(path):
            yield None
            continue
        some = texts.of_queries(start, ends[start])
        if whole is None:
            lists, scores = read_part(deepest(path))
        else:
            lists = whole.lists.slice(start, ends[start])
            scores = whole.positives.scores[slice(*texts.positive_offsets[[start, ends[start]]])]
        pool = PartPool(
            lists,
            Positives(some.positive_offsets, some.positive_ids, np.asarray(scores)),
            some.queries.digests[:, 0],
            some.corpus.digests[:, 0],
            about,
            open_searcher=None if open_searcher is None else partial(open_searcher, some),
            progress=progress,
        )
        pool.texts, pool.part = some, path if whole is None else None
        pool.lists_end = open_searcher is None
        yield pool
