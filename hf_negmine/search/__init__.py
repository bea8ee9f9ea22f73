"""Search: exact and ceiling-aware, whatever the teacher."""

from __future__ import annotations

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.protocols import Searcher, Teacher
from hf_negmine.data.texts import TextSet
from hf_negmine.search.exact import VectorSearcher
from hf_negmine.search.index import Indexes, TeacherIndex
from hf_negmine.search.pairwise import Queries, pair_scores
from hf_negmine.search.proposals import open_index, recall_of
from hf_negmine.search.ranking import Exclusions
from hf_negmine.search.rerank import ScorePairs
from hf_negmine.search.scan import ScoreSearcher
from hf_negmine.teachers.vector_store import VectorStore

__all__ = [
    "Exclusions",
    "Indexes",
    "Queries",
    "ScorePairs",
    "ScoreSearcher",
    "TeacherIndex",
    "VectorSearcher",
    "open_index",
    "open_searcher",
    "pair_scores",
    "recall_of",
]


def open_searcher(
    teacher: Teacher,
    texts: TextSet,
    store: VectorStore,
    *,
    device: str | None = None,
    first_pass: FirstPass = "auto",
    exclude_positives: bool = True,
) -> Searcher:
    """Make the teacher's view of ``texts`` ready to search, encoding what the store lacks.

    Positives and a passage with the query's own text are not candidates, unless ``exclude_positives`` is False.
    """
    index = Indexes(store, device, first_pass).open(teacher, texts.corpus)
    return index.searcher(Queries.of(texts, exclude_positives=exclude_positives))
