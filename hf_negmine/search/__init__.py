"""Search: exact and ceiling-aware, whatever the teacher."""

from __future__ import annotations

from hf_negmine.devices import best_device
from hf_negmine.protocols import ScoringTeacher, Searcher, Teacher, VectorTeacher
from hf_negmine.search.exact import FirstPass, VectorSearcher
from hf_negmine.search.ranking import Exclusions
from hf_negmine.search.scan import ScoreSearcher
from hf_negmine.store import VectorStore
from hf_negmine.texts import TextSet

__all__ = ["Exclusions", "ScoreSearcher", "VectorSearcher", "open_searcher"]


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

    Positives and a passage with the query's own text are no candidates, unless ``exclude_positives`` is False.
    """
    exclusions = Exclusions(*texts.excluded()) if exclude_positives else Exclusions.none(len(texts.queries))
    if isinstance(teacher, VectorTeacher):
        passages = store.vectors(teacher, texts.corpus, "passage")
        # A miner that is fitted on a corpus alone has no queries yet; `with_queries` brings them.
        queries = store.vectors(teacher, texts.queries, "query") if len(texts.queries) else passages
        return VectorSearcher(queries, passages, exclusions, device=device or best_device(), first_pass=first_pass)
    if isinstance(teacher, ScoringTeacher):
        scorer = teacher.index(texts.corpus.texts)
        return ScoreSearcher(scorer, texts.queries.texts, len(texts.corpus), exclusions, teacher=teacher.name)
    raise TypeError(f"{teacher!r} is neither a VectorTeacher nor a ScoringTeacher")
