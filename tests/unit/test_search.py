"""Exact search on cases that are chosen by hand."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.errors import TeacherError
from hf_negmine.base.protocols import SparseVectors
from hf_negmine.base.schema import FloatArray
from hf_negmine.search import Exclusions, ScoreSearcher, VectorSearcher, corpus
from hf_negmine.search.ranking import NOTHING, pack_keys, unpack_keys
from hf_negmine.search.scoring import canonical_scores
from hf_negmine.search.sparse import InvertedIndex
from hf_negmine.search.workers import side_by_side
from tests.reference import ArraySource, exclusions_of, ranked, rows_of, score_matrix

INFINITE = np.array([np.inf], dtype=np.float32)
ONE_ROW = np.zeros(1, dtype=np.int64)


def one_query(query: Sequence[float], passages: FloatArray, excluded: Sequence[int] = ()) -> VectorSearcher:
    return VectorSearcher(
        ArraySource(np.array([query], dtype=np.float32)), ArraySource(passages), exclusions_of([list(excluded)])
    )


def test_equal_scores_come_by_the_lower_passage_id() -> None:
    passages = np.array([[1], [3], [1], [3], [1]], dtype=np.float32)
    ranking = one_query([1.0], passages).block(ONE_ROW).best(ONE_ROW, INFINITE, 4)
    assert ranking.passages.tolist() == [1, 3, 0, 2]
    assert ranking.scores.tolist() == [3.0, 3.0, 1.0, 1.0]
    assert ranking.exhausted.tolist() == [False]


def test_minus_zero_ties_with_zero() -> None:
    keys = pack_keys(torch.tensor([-0.0, 0.0, -0.0]), torch.tensor([0, 1, 2]))
    assert keys.argsort(descending=True).tolist() == [0, 1, 2]
    assert (keys.diff() == -1).all()


def test_a_candidate_at_the_ceiling_goes_and_one_just_under_it_stays() -> None:
    passages = np.array([[0.5], [np.nextafter(np.float32(0.5), np.float32(0))], [0.7]], dtype=np.float32)
    ranking = one_query([1.0], passages).block(ONE_ROW).best(ONE_ROW, np.array([0.5], dtype=np.float32), 3)
    assert ranking.passages.tolist() == [1]
    assert ranking.exhausted.tolist() == [True]


def test_a_corpus_of_nothing_but_exclusions_gives_an_empty_row() -> None:
    ranking = one_query([1.0], np.ones((3, 1), dtype=np.float32), [0, 1, 2]).block(ONE_ROW).best(ONE_ROW, INFINITE, 2)
    assert (ranking.offsets.tolist(), ranking.exhausted.tolist()) == ([0, 0], [True])


@pytest.mark.parametrize("first_pass", ["bfloat16", "float32"])
def test_ceilings_in_the_densest_region_cost_no_candidate(first_pass: FirstPass) -> None:
    """20,000 passages whose scores no first pass can tell from the ceiling, nor from one another."""
    rng = np.random.default_rng(3)
    passages = (1.0 + 1e-5 * rng.standard_normal((20_000, 16))).astype(np.float32)
    queries = np.ones((4, 16), dtype=np.float32) + 1e-3 * rng.standard_normal((4, 16)).astype(np.float32)
    scores = score_matrix(queries, passages)
    ceilings = np.quantile(scores, [0.2, 0.5, 0.9, 0.99], axis=1).diagonal().astype(np.float32)
    searcher = VectorSearcher(
        ArraySource(queries), ArraySource(passages), exclusions_of([[], [5], [], []]), first_pass=first_pass
    )
    rows = np.arange(4)
    ranking = searcher.block(rows).best(rows, ceilings, 30)
    for row, found in enumerate(rows_of(ranking)):
        under = [pair for pair in ranked(scores[row], [5] if row == 1 else []) if pair[0] < ceilings[row]]
        assert found == under[:30]
    assert not ranking.exhausted.any()


def test_ten_thousand_equal_passages_come_by_id() -> None:
    passages = np.tile(np.array([[0.3, 0.1, -0.2]], dtype=np.float32), (10_000, 1))
    ranking = one_query([1.0, 2.0, 3.0], passages, [1]).block(ONE_ROW).best(ONE_ROW, INFINITE, 5, skip=2)
    assert ranking.passages.tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("held", [True, False])
def test_a_corpus_that_is_not_held_is_read_for_many_queries_at_once(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not held:
        monkeypatch.setattr(corpus, "RESIDENT_BYTES", 0)
    rng = np.random.default_rng(0)
    queries, passages = (rng.standard_normal((count, 8)).astype(np.float32) for count in (5000, 10_000))
    read = []

    class Source(ArraySource):
        def slice(self, start: int, stop: int) -> FloatArray:
            read.append(stop - start)
            return super().slice(start, stop)

    searcher = VectorSearcher(ArraySource(queries), Source(passages), Exclusions.none(5000), first_pass="float32")
    block = searcher.block(np.arange(5000))
    ranking = block.best(np.arange(5000), np.full(5000, np.inf, dtype=np.float32), 3)
    assert sum(read) == 10_000  # once for all queries
    assert max(read) == (10_000 if held else 8192)
    best = np.argsort(-(queries[:50].astype(np.float64) @ passages.T.astype(np.float64)), axis=1)[:, :3]
    assert ranking.passages.reshape(-1, 3)[:50].tolist() == best.tolist()


@pytest.mark.parametrize("first_pass", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", ["none", "some", "all"])
@pytest.mark.usefixtures("torch_threads")
def test_threads_that_search_for_rows_of_their_own_find_the_same(first_pass: FirstPass, kind: str) -> None:
    """Enough rows for several groups, so that each thread has a product of its own."""
    rng = np.random.default_rng(1)
    queries, passages = (rng.standard_normal((count, 16)).astype(np.float32) for count in (1100, 700))
    exclusions = exclusions_of([[row % 700] for row in range(1100)])
    rows = np.arange(1100)
    ceilings = np.where(rng.random(1100) < {"none": 0, "some": 0.5, "all": 1}[kind], 1.5, np.inf).astype(np.float32)
    seen = set()
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        searcher = VectorSearcher(ArraySource(queries), ArraySource(passages), exclusions, first_pass=first_pass)
        for _ in range(3):
            ranking = searcher.block(rows).best(rows, ceilings, 10)
            seen.add((ranking.offsets.tobytes(), ranking.passages.tobytes(), ranking.scores.tobytes()))
    assert len(seen) == 1
    scores = score_matrix(queries[:20], passages)
    for row, found in enumerate(rows_of(ranking)[:20]):
        assert found == [pair for pair in ranked(scores[row], [row]) if pair[0] < ceilings[row]][:10]


def test_workers_keep_to_one_thread_each_and_hand_errors_on() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert side_by_side(lambda place: (place, torch.get_num_threads()), range(7)) == [(n, 1) for n in range(7)]
        assert torch.get_num_threads() == 3
        with pytest.raises(ZeroDivisionError):
            side_by_side(lambda place: 1 // place, [2, 1, 0])
    finally:
        torch.set_num_threads(before)


def test_the_score_is_the_dot_product_to_the_last_float32_digit() -> None:
    rng = np.random.default_rng(0)
    queries, passages = rng.standard_normal((2, 50, 384)).astype(np.float32)
    given = torch.from_numpy(passages)
    found = canonical_scores(torch.from_numpy(queries), given).numpy()
    assert canonical_scores(torch.from_numpy(queries), given.double()).numpy().tolist() == found.tolist()
    np.testing.assert_array_equal(given.numpy(), passages)  # nothing was multiplied in what was given
    for query, passage, score in zip(queries.tolist(), passages.tolist(), found, strict=True):
        true = np.float32(math.fsum(a * b for a, b in zip(query, passage, strict=True)))
        assert abs(score - true) <= np.spacing(np.abs(true))


def test_positive_scores_of_memory_mapped_ids_raise_no_warning() -> None:
    searcher = one_query([2.0], np.array([[1], [3]], dtype=np.float32))
    ids = np.array([1, 0], dtype=np.int32)
    ids.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = searcher.block(ONE_ROW).pair_scores(np.zeros(2, dtype=np.int64), ids)
    assert scores.tolist() == [6.0, 2.0]


def test_other_queries_search_the_corpus_that_is_loaded_already() -> None:
    passages = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)
    searcher = one_query([1.0, 0.0], passages)
    other = searcher.with_queries(ArraySource(np.array([[0.0, 1.0]], dtype=np.float32)), exclusions_of([[2]]))
    assert other.block(ONE_ROW).best(ONE_ROW, INFINITE, 3).passages.tolist() == [1, 0]
    assert searcher.block(ONE_ROW).best(ONE_ROW, INFINITE, 3).passages.tolist() == [0, 2, 1]


def test_keys_sort_as_scores_do_and_unpack_to_the_same_bits() -> None:
    scores = torch.tensor([-3.4e38, -1.0, -1e-40, 0.0, 1e-40, 1.0, 3.4e38, 1.0])
    passages = torch.tensor([2**31 - 1, 5, 6, 0, 1, 9, 3, 8])
    keys = pack_keys(scores, passages)
    order = keys.argsort(descending=True)
    assert order.tolist() == [6, 7, 5, 4, 3, 2, 1, 0]
    back, ids = unpack_keys(keys)
    assert torch.equal(back, scores)
    assert torch.equal(ids.long(), passages)
    assert pack_keys(torch.tensor([-torch.inf]), torch.tensor([4])).tolist() == [NOTHING]


def test_exclusions_of_shuffled_queries() -> None:
    exclusions = exclusions_of([[1, 2], [], [7]])
    rows, passages = exclusions.of(np.array([2, 1, 0]))
    assert (rows.tolist(), passages.tolist()) == ([0, 2, 2], [7, 1, 2])


def score_searcher(scores: FloatArray) -> ScoreSearcher:
    exclusions = Exclusions(np.array([0, 0]), np.empty(0, dtype=np.int32))
    return ScoreSearcher(lambda _: scores, pa.array(["which?"], pa.large_string()), 3, exclusions, teacher="mine")


def test_scores_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(TeacherError, match=r"'mine' gave scores of shape \(1, 2\), expected \(1, 3\)"):
        score_searcher(np.zeros((1, 2), dtype=np.float32)).block(ONE_ROW)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(TeacherError, match=rf"gave the score {bad} to passage 1 for the query 'which\?'"):
        score_searcher(np.array([[0.0, bad, 1.0]], dtype=np.float32)).block(ONE_ROW)


def sparse_of(*rows: dict[int, float]) -> SparseVectors:
    terms = np.array([term for row in rows for term in row], dtype=np.int32)
    weights = np.array([weight for row in rows for weight in row.values()], dtype=np.float32)
    return SparseVectors(np.cumsum([0] + [len(row) for row in rows]), terms, weights)


def test_an_inverted_index_takes_memory_by_its_terms_not_by_their_numbers() -> None:
    last = 2**26 - 1
    tracemalloc.start()
    try:
        index = InvertedIndex.of([sparse_of({3: 2.0, last: 5.0}, {}), sparse_of({3: 7.0, 9: 1.0})])
        scores = index.scores(sparse_of({0: 9.0, 3: 1.0, 4: 9.0, last: 10.0}, {last + 1: 9.0}, {}, {9: 3.0}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scores.tolist() == [[52, 0, 7], [0, 0, 0], [0, 0, 0], [0, 0, 3]]
    assert peak < 2**20
    assert InvertedIndex.of([sparse_of({}, {})]).scores(sparse_of({1: 1.0})).tolist() == [[0, 0]]
