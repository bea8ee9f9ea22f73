"""The pools of parts of the queries, from which ranks select."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from hf_negmine.select.candidates import CandidateLists
from hf_negmine.select.selection import Positives, Selection


class PartPool(CandidatePool):
    """The pool of a part of the queries; what is searched deeper is written beside the part.

    Attributes:
        texts: the queries of the part, and the whole corpus.
        part: the file of the part; None if it is in the whole pool, which a rank must not change.
    """

    texts: TextSet
    part: Path | None = None

    def select(self, *arguments: Any, **named: Any) -> Selection:
        """As `CandidatePool.select`, but no negatives where more of the ranking would be needed than can be known here.

        A judge that reads them would be asked what nobody needs to know.
        """
        found = super().select(*arguments, **named)
        if found.list_ended is None:
            return found
        kept = found.ragged.kept(~np.repeat(found.list_ended, found.counts))
        return replace(found, offsets=kept.offsets, passages=kept.arrays[0], scores=kept.arrays[1])

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
    deeper: a selection takes what is known.
    """
    whole = CandidatePool.load(folder) if has_pool(folder, about=about) else None
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
            open_searcher=None if open_searcher is None or whole is not None else partial(open_searcher, some),
            progress=progress,
        )
        pool.texts = some
        pool.part = None if whole is not None else path
        pool.lists_end = pool.part is None or open_searcher is None
        yield pool
