"""Search and pool against a flat FAISS index, on MiniLM vectors of real passages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool
from hf_negmine.search import VectorSearcher
from hf_negmine.teachers import DenseTeacher
from hf_negmine.teachers.vector_store import VectorStore
from tests.reference import ArraySource, exclusions_of, make_pool, rows_of, text_set

faiss = pytest.importorskip("faiss", reason="needs the package faiss-cpu")

N_QUERIES, N_PASSAGES, DEPTH = 50, 300, 50


@dataclass(frozen=True)
class SciFact:
    """A slice of scifact, encoded, and what FAISS says of it: all passages of each query, best first."""

    texts: TextSet
    folder: Path
    teacher: DenseTeacher
    queries: FloatArray
    passages: FloatArray
    faiss_scores: FloatArray
    faiss_ids: IdArray

    def pool(self) -> CandidatePool:
        return make_pool(self.folder, self.teacher, self.texts, 10)


@pytest.fixture(scope="module")
def scifact(data_dir: Path, minilm: str, tmp_path_factory: pytest.TempPathFactory) -> SciFact:
    folder = data_dir / "scifact"
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}")
    queries = pq.read_table(folder / "queries.parquet").to_pylist()
    judged = [row for row in pq.read_table(folder / "qrels.parquet").to_pylist() if row["score"] > 0]
    corpus = {
        row["id"]: row["text"] for row in pq.read_table(folder / "corpus.parquet").to_pylist() if row["text"].strip()
    }
    query_texts = {row["id"]: row["text"] for row in queries}
    pairs = [(query_texts[row["query_id"]], corpus[row["corpus_id"]]) for row in judged if row["corpus_id"] in corpus]
    pairs = pairs[:N_QUERIES]
    cache = tmp_path_factory.mktemp("scifact")
    texts = text_set(
        cache, [query for query, _ in pairs], [text for _, text in pairs], list(corpus.values())[:N_PASSAGES]
    )
    teacher = DenseTeacher(minilm, dtype="float32", device="cpu", max_length=48)
    store = VectorStore(cache, progress=False)
    stored_queries = store.vectors(teacher, texts.queries, "query")
    stored_passages = store.vectors(teacher, texts.corpus, "passage")
    vectors, passages = stored_queries.slice(0, N_QUERIES), stored_passages.slice(0, len(texts.corpus))
    index = faiss.IndexFlatIP(passages.shape[1])
    index.add(passages)
    scores, ids = index.search(vectors, len(passages))
    return SciFact(texts, cache, teacher, vectors, passages, scores, ids)


def assert_same_ids_but_for_ties(
    ours: list[tuple[float, int]], theirs_scores: FloatArray, theirs_ids: IdArray, row: int
) -> None:
    """The same ids at the same places, unless FAISS' float32 sums cannot tell two neighbours apart."""
    assert len(ours) == len(theirs_ids)
    np.testing.assert_allclose([score for score, _ in ours], theirs_scores, atol=1e-6)
    for place, ((_, passage), other) in enumerate(zip(ours, theirs_ids.tolist(), strict=True)):
        if passage != other:
            near = np.flatnonzero(np.abs(theirs_scores - theirs_scores[place]) < 1e-6)
            assert passage in theirs_ids[near] or near[-1] == len(theirs_ids) - 1, f"query {row}, place {place}"


@pytest.mark.parametrize("first_pass", ["bfloat16", "float32"])
def test_the_ranking_is_that_of_a_flat_index(scifact: SciFact, first_pass: FirstPass) -> None:
    n_queries = len(scifact.queries)
    searcher = VectorSearcher(
        ArraySource(scifact.queries),
        ArraySource(scifact.passages),
        exclusions_of([[]] * n_queries),
        first_pass=first_pass,
        passages_a_block=100,
    )
    rows = np.arange(n_queries)
    ranking = searcher.block(rows).best(rows, np.full(n_queries, np.inf, dtype=np.float32), DEPTH)
    for row, found in enumerate(rows_of(ranking)):
        assert_same_ids_but_for_ties(found, scifact.faiss_scores[row, :DEPTH], scifact.faiss_ids[row, :DEPTH], row)


@pytest.mark.parametrize(("spec", "keep"), [("naive", 1.0), ("perc_pos:0.95", 0.95), ("perc_pos:0.7", 0.7)])
def test_negatives_are_the_top_of_a_flat_index_under_the_ceiling(scifact: SciFact, spec: str, keep: float) -> None:
    pool = scifact.pool()
    selection = pool.select(spec, n=5)
    offsets, excluded = scifact.texts.excluded()
    for query in range(pool.n_queries):
        out = excluded[offsets[query] : offsets[query + 1]]
        scores, ids = scifact.faiss_scores[query], scifact.faiss_ids[query]
        positives = scifact.texts.positive_ids[
            scifact.texts.positive_offsets[query] : scifact.texts.positive_offsets[query + 1]
        ]
        ceiling = np.inf if spec == "naive" else keep * scores[np.isin(ids, positives)].min()
        left = (scores < ceiling) & ~np.isin(ids, out)
        found = slice(selection.offsets[query], selection.offsets[query + 1])
        ours = list(zip(selection.scores[found].tolist(), selection.passages[found].tolist(), strict=True))
        assert_same_ids_but_for_ties(ours, scores[left][:5], ids[left][:5], query)
