"""A pool of scored lists on disk: where it lies, and what selects from it or continues it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Searcher, Teacher
from hf_negmine.base.schema import FORMAT_VERSION, BoolArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool.continuing import ContinuedSearcher
from hf_negmine.pool.ids import POSITIONS, Ids
from hf_negmine.pool.stored import LISTS, read_pool
from hf_negmine.search import Indexes, Queries
from hf_negmine.select.filters import Scene
from hf_negmine.teachers import ListTeacher, identity_of


def about_lists(teacher: ListTeacher) -> dict[str, Any]:
    """The identity of a pool of lists."""
    return {
        **identity_of(teacher),
        "texts": teacher.texts,
        "library_version": version("hf_negmine"),
        "source": LISTS,
    }


def lists_pool_name(teacher: ListTeacher) -> str:
    """The name of the folder of a pool of lists: the digest of everything in it."""
    return digest_of("pool", FORMAT_VERSION, about_lists(teacher))


@dataclass(frozen=True)
class ListedPool:
    """A pool of lists, and what can be done with its texts.

    Attributes:
        folder: the pool's folder.
        texts: queries, corpus and positives.
        teacher: what scored the lists.
        indexes: opens teachers over the corpus.
        ids: what the texts were given as.
    """

    folder: Path
    texts: TextSet
    teacher: ListTeacher
    indexes: Indexes
    ids: Ids = POSITIONS

    def scene(self, counted: BoolArray | None) -> Scene:
        """What filters may look at; ``counted`` is that of the pool."""
        return Scene.of(self.texts, self.teacher.continued_by or self.teacher, self.indexes, counted=counted)

    @property
    def open_searcher(self) -> Callable[[], Searcher] | None:
        """Opens what continues the lists, if there is a teacher."""
        teacher = self.teacher.continued_by
        return None if teacher is None else cache(partial(self._searcher, teacher))

    def _searcher(self, teacher: Teacher) -> Searcher:
        searcher = self.indexes.open(teacher, self.texts.corpus).searcher(Queries.of(self.texts))
        return ContinuedSearcher(searcher, read_pool(self.folder).lists.tops(), len(self.texts.corpus))
