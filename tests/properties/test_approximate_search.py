"""Candidates from a FAISS index: what it misses is not found, and everything else is as in the exact search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.schema import FloatArray
from hf_negmine.search import VectorSearcher, pair_scores, proposals, recall_of, rerank
from hf_negmine.search.faiss_index import build_index
from hf_negmine.search.proposals import IndexProposals
from hf_negmine.search.rerank import BestOf, RerankingSearcher
from hf_negmine.teachers.approximate import IndexSpec
from tests.properties.test_search import (
    Problem,
    assert_best,
    ceiling_kinds,
    problems,
    some_ceilings,
    vector_searcher,
)
from tests.reference import ArraySource, exclusions_of, ranked, rows_of
from tests.thorough import examples
from tests.unit.test_faiss_index import clustered

pytest.importorskip("faiss", reason="needs the package faiss-cpu")

depths = st.integers(1, 40)
skips = st.sampled_from([0, 0, 1, 3, 250])


def candidates_of(exact: VectorSearcher, index: Any, candidates: int) -> RerankingSearcher:
    """A searcher of what the index proposes."""
    first_stage = IndexProposals(exact, lambda: index, candidates)
    return RerankingSearcher(first_stage, lambda queries, passages: pair_scores(exact, queries, passages))


def make_searcher(
    folder: Path, spec: str, passages: FloatArray, queries: FloatArray, candidates: int
) -> RerankingSearcher:
    """A searcher of queries that each have one excluded passage."""
    parsed = IndexSpec.parse(spec)
    index = build_index(ArraySource(passages), parsed, folder / f"{parsed.factory}.faiss", progress=False)
    excluded = exclusions_of([[row % len(passages)] for row in range(len(queries))])
    return candidates_of(VectorSearcher(ArraySource(queries), ArraySource(passages), excluded), index, candidates)


def searcher_of(problem: Problem, spec: str, folder: Path, candidates: int) -> RerankingSearcher:
    path = folder / "index.faiss"
    index = build_index(ArraySource(problem.passages), IndexSpec.parse(spec), path, progress=False)
    return candidates_of(vector_searcher(problem), index, candidates)


@examples(100)
@given(problem=problems(), kind=ceiling_kinds, depth=depths, skip=skips, more=st.sampled_from([0, 1, 2**62]))
def test_an_index_that_proposes_the_corpus_gives_what_the_exact_search_gives(
    problem: Problem, kind: str, depth: int, skip: int, more: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    candidates = min(len(problem.passages) + more, 2**62)
    searcher = searcher_of(problem, "Flat", tmp_path_factory.mktemp("flat"), candidates)
    assert_best(searcher.block(np.arange(len(problem.queries))), problem, some_ceilings(problem, kind), depth, skip)


@examples(100)
@given(
    problem=problems(),
    spec=st.sampled_from(["Flat", "IVF4,Flat@nprobe=1", "HNSW4@efSearch=1", "IVF3,SQ8", "SQ8", "L2norm,Flat"]),
    candidates=st.integers(1, 60),
    kind=ceiling_kinds,
    depth=depths,
    skip=skips,
)
def test_whatever_the_index_misses_the_rest_is_right(
    problem: Problem,
    spec: str,
    candidates: int,
    kind: str,
    depth: int,
    skip: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if len(problem.passages) < 4:
        return
    searcher = searcher_of(problem, spec, tmp_path_factory.mktemp("index"), candidates)
    rows, ceilings = problem.rng.permutation(len(problem.queries)), some_ceilings(problem, kind)
    block, no_ceiling = searcher.block(np.arange(len(rows))), np.full(len(rows), np.inf, dtype=np.float32)
    everything = rows_of(block.best(rows, no_ceiling, len(problem.passages)))
    ranking = block.best(rows, ceilings[rows], depth, skip)
    for row, whole, found, exhausted in zip(rows, everything, rows_of(ranking), ranking.exhausted, strict=True):
        eligible = ranked(problem.scores[row], problem.excluded[row])
        # Canonical scores, nothing excluded, nothing twice, in order, and no more than was proposed.
        assert set(whole) <= set(eligible)
        assert whole == sorted(set(whole), key=lambda pair: (-pair[0], pair[1]))
        assert len(whole) <= candidates
        # Every other answer is a part of this ranking.
        under = [pair for pair in whole if pair[0] < ceilings[row]]
        assert found == under[skip : skip + depth]
        assert exhausted == (len(under) <= skip + depth)


@examples(60)
@given(seed=st.integers(0, 2**32 - 1), candidates=st.integers(1, 40), excluded=st.integers(0, 30))
def test_a_flat_index_proposes_the_best_that_are_eligible(
    seed: int, candidates: int, excluded: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Excluded passages, which tend to be the very best, take no candidate's place."""
    passages, queries = clustered(80, seed=seed), clustered(5, seed=seed + 1)
    best = [ranked(passages @ query) for query in queries]
    out = [sorted(place for _, place in row[:excluded]) for row in best]
    exact = VectorSearcher(ArraySource(queries), ArraySource(passages), exclusions_of(out))
    index = build_index(
        ArraySource(passages), IndexSpec.parse("Flat"), tmp_path_factory.mktemp("flat") / "index.faiss", progress=False
    )
    rows, no_ceiling = np.arange(5), np.full(5, np.inf, dtype=np.float32)
    found = candidates_of(exact, index, candidates).block(rows).best(rows, no_ceiling, 80)
    expected = exact.block(rows).best(rows, no_ceiling, candidates)
    assert found.passages.tolist() == expected.passages.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert found.exhausted.all()


@pytest.mark.parametrize("spec", ["Flat", "IVF16,Flat@nprobe=2", "HNSW8", "PCA8,IVF4,Flat", "IVF4,PQ4x4fs"])
@pytest.mark.usefixtures("torch_threads")
def test_blocks_and_threads_do_not_change_a_bit(tmp_path: Path, spec: str) -> None:
    searcher = make_searcher(tmp_path, spec, clustered(1000), clustered(70, seed=1), 30)
    everything = np.arange(70)
    no_ceiling = np.full(70, np.inf, dtype=np.float32)
    together = rows_of(searcher.block(everything).best(everything, no_ceiling, 30))
    for size, threads in [(1, 1), (7, 2), (33, 3)]:
        torch.set_num_threads(threads)
        apart = []
        for start in range(0, 70, size):
            some = everything[start : start + size]
            apart += rows_of(searcher.block(some).best(np.arange(len(some)), no_ceiling[some], 30))
        assert apart == together


def test_the_index_gets_one_query_at_a_time() -> None:
    """For a batch it uses matrix products, whose last digits depend on the size of the batch."""
    sizes: list[int] = []

    class Index:
        ntotal = 40

        def search(self, queries: FloatArray, k: int) -> tuple[None, Any]:
            sizes.append(len(queries))
            return None, np.tile(np.arange(k), (len(queries), 1))

    exact = VectorSearcher(ArraySource(clustered(30)), ArraySource(clustered(40)), exclusions_of([[0]] * 30))
    rows, no_ceiling = np.arange(30), np.full(30, np.inf, dtype=np.float32)
    found = candidates_of(exact, Index(), 5).block(rows).best(rows, no_ceiling, 9)
    assert [sorted(place for _, place in row) for row in rows_of(found)] == [[1, 2, 3, 4, 5]] * 30
    assert sizes == [1] * 30


def test_recall_is_that_of_the_index(tmp_path: Path) -> None:
    passages, queries = clustered(3000), clustered(60, seed=1)

    def recall(spec: str, candidates: int = 100) -> float:
        searcher = make_searcher(tmp_path, spec, passages, queries, candidates)
        over = RerankingSearcher(BestOf(searcher, 10), searcher.score_pairs)
        found = recall_of(searcher, 60, 20)
        assert found is not None
        assert recall_of(over, 60, 20) == found
        return found

    assert recall("Flat") == recall("Flat", 20) == 1.0
    assert recall("IVF32,Flat@nprobe=32") == 1.0
    one, four = recall("IVF32,Flat@nprobe=1"), recall("IVF32,Flat@nprobe=4")
    assert 0.2 < one < four <= 1.0
    few, many = recall("IVF4,PQ4x4@nprobe=4", 20), recall("IVF4,PQ4x4@nprobe=4", 200)
    assert 0.2 < few < many <= 1.0
    assert recall("Flat", 5) == 1.0  # of no more than it proposes


def test_any_of_equal_passages_is_found(tmp_path: Path) -> None:
    passages, queries = np.tile(clustered(10), (30, 1)), clustered(60, seed=1)
    for candidates in (48, 100):
        assert recall_of(make_searcher(tmp_path, "Flat", passages, queries, candidates), 60, 48) == 1.0


def test_an_exact_search_has_no_recall() -> None:
    exact = VectorSearcher(ArraySource(clustered(3)), ArraySource(clustered(40)), exclusions_of([[0]] * 3))
    assert recall_of(exact, 3, 5) is None
    assert recall_of(RerankingSearcher(BestOf(exact, 5), lambda *_: np.zeros(0, dtype=np.float32)), 3, 5) is None


def test_an_index_is_opened_when_candidates_are_requested(tmp_path: Path) -> None:
    rows, opened = np.arange(20), []
    eager = make_searcher(tmp_path, "HNSW8", clustered(300), clustered(20, seed=1), 30)
    first = eager.first_stage
    assert isinstance(first, IndexProposals)
    lazy = RerankingSearcher(
        IndexProposals(first.exact, lambda: opened.append(1) or first.open_index(), 30), eager.score_pairs
    )
    assert np.array_equal(lazy.block(rows).pair_scores(rows, rows), eager.block(rows).pair_scores(rows, rows))
    assert not opened
    proposals.open_index(RerankingSearcher(BestOf(lazy, 5), eager.score_pairs))
    assert opened == [1]


def test_a_block_holds_a_bounded_number_of_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerank, "CANDIDATES_A_BLOCK", 1000)
    sizes = [make_searcher(tmp_path, "Flat", clustered(30), clustered(3), n).block_size for n in (1, 300, 5000)]
    assert sizes == [1000, 3, 1]


def test_no_rows_are_no_rows(tmp_path: Path) -> None:
    searcher = make_searcher(tmp_path, "Flat", clustered(400), clustered(3, seed=1), 9)
    none = np.empty(0, dtype=np.int64)
    ranking = searcher.block(np.arange(3)).best(none, none.astype(np.float32), 4)
    assert (ranking.offsets.tolist(), len(ranking.exhausted)) == ([0], 0)
