"""Candidate lists against whole rankings: every answer is right or says that it is not certain."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.ragged import joined_pieces
from hf_negmine.base.schema import FloatArray
from hf_negmine.select.candidates import CandidateLists, Demand
from tests.reference import Ranked, ranked, search
from tests.thorough import examples


def rankings_of(rng: np.random.Generator, n_queries: int, n_passages: int) -> list[Ranked]:
    """Random rankings with many ties."""
    return [ranked(np.round(rng.standard_normal(n_passages) * 3).astype(np.float32)) for _ in range(n_queries)]


def entries(lists: CandidateLists, start: int, stop: int) -> Ranked:
    return list(zip(lists.scores[start:stop].tolist(), lists.passages[start:stop].tolist(), strict=True))


def assert_segments_are_true(lists: CandidateLists, rankings: list[Ranked]) -> None:
    """Each segment is an unbroken stretch of its ranking, and what it says of its place is so."""
    for query, ranking in enumerate(rankings):
        for segment in range(lists.offsets[query], lists.offsets[query + 1]):
            found = entries(lists, lists.starts[segment], lists.stops[segment])
            if not found:
                continue
            first = ranking.index(found[0])
            assert ranking[first : first + len(found)] == found
            assert lists.first_ranks[segment] in (-1, first)
            if lists.exhausted[segment]:
                assert first + len(found) == len(ranking)
            left_out = ranking[:first]
            assert all(score >= lists.ceilings[segment] for score, _ in left_out)


def with_search(
    lists: CandidateLists, rankings: list[Ranked], queries: list[int], ceilings: FloatArray, depth: int, skip: int
) -> CandidateLists:
    found = CandidateLists.from_ranking(search(rankings, queries, ceilings, depth, skip), ceilings, skip)
    return lists.merged(np.array(queries), found)


@examples(400)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_merged_lists_answer_rightly_or_not_at_all(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_queries, n_passages = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 40))
    rankings = rankings_of(rng, n_queries, n_passages)
    no_ceiling = np.full(n_queries, np.inf, dtype=np.float32)
    depth = data.draw(st.integers(1, 10))
    lists = CandidateLists.from_ranking(search(rankings, range(n_queries), no_ceiling, depth), no_ceiling)
    for _ in range(data.draw(st.integers(0, 5))):
        queries = np.flatnonzero(rng.random(n_queries) < 0.7).tolist() or [0]
        by_rank = data.draw(st.booleans())
        ceilings = np.full(len(queries), np.inf) if by_rank else np.round(rng.standard_normal(len(queries)) * 3)
        skip = data.draw(st.integers(0, 12)) if by_rank else 0
        lists = with_search(lists, rankings, queries, ceilings.astype(np.float32), data.draw(st.integers(1, 8)), skip)
        assert_segments_are_true(lists, rankings)

    targets = rng.integers(0, n_queries, 12)
    demand = Demand(
        queries=targets,
        ceilings=np.where(rng.random(12) < 0.4, np.inf, np.round(rng.standard_normal(12) * 3)).astype(np.float32),
        floor=data.draw(st.sampled_from([-np.inf, -2.0])),
        first_rank=data.draw(st.sampled_from([0, 2, 4])),
        last_rank=data.draw(st.sampled_from([None, 5, 9])),
        wanted=data.draw(st.integers(1, 8)),
    )
    answer = lists.answer(demand)
    for place, query in enumerate(targets):
        want = [
            (score, passage)
            for rank, (score, passage) in enumerate(rankings[query])
            if demand.first_rank <= rank < (demand.last_rank or n_passages)
            and demand.floor <= score < demand.ceilings[place]
        ][: demand.wanted]
        if answer.certain[place]:
            start = answer.starts[place]
            assert entries(lists, start, start + answer.counts[place]) == want
        else:
            top = lists.offsets[query]
            assert not (np.isposinf(lists.ceilings[top]) and lists.exhausted[top]), "a whole ranking answers everything"


@examples(100)
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(1, 12), ceiling=st.integers(-4, 4), first=st.integers(0, 45))
def test_a_search_that_begins_where_the_demand_begins_answers_it(
    seed: int, depth: int, ceiling: int, first: int
) -> None:
    """Whatever is known already, even a stretch of unknown rank around the place."""
    rankings = rankings_of(np.random.default_rng(seed), 1, 40)
    no_ceiling = np.array([np.inf], dtype=np.float32)
    lists = CandidateLists.from_ranking(search(rankings, [0], no_ceiling, 1), no_ceiling)
    low = np.array([ceiling], dtype=np.float32)
    lists = with_search(lists, rankings, [0], low, depth, 0)
    by_ceiling = Demand(np.array([0]), low, -np.inf, 0, None, depth)
    assert lists.answer(by_ceiling).certain.all()
    lists = with_search(lists, rankings, [0], no_ceiling, 5, first)
    by_rank = Demand(np.array([0]), no_ceiling, -np.inf, first, first + 5, 5)
    answer = lists.answer(by_rank)
    assert answer.certain.all()
    assert lists.answer(by_ceiling).certain.all()
    assert entries(lists, answer.starts[0], answer.starts[0] + answer.counts[0]) == rankings[0][first : first + 5]


@examples(50)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_concatenated_parts_equal_one_search(seed: int, sizes: list[int]) -> None:
    rankings = rankings_of(np.random.default_rng(seed), sum(sizes), 20)
    no_ceiling = np.full(sum(sizes), np.inf, dtype=np.float32)

    def lists_of(queries: range) -> CandidateLists:
        return CandidateLists.from_ranking(
            search(rankings, queries, no_ceiling[: len(queries)], 6), no_ceiling[: len(queries)]
        )

    bounds = np.cumsum([0, *sizes]).tolist()
    parts = [lists_of(range(first, last)) for first, last in itertools.pairwise(bounds)]
    one, many = lists_of(range(sum(sizes))), CandidateLists.concatenated(parts)
    for name in ("passages", "scores", "offsets", "starts", "stops", "ceilings", "first_ranks", "exhausted"):
        np.testing.assert_array_equal(getattr(many, name), getattr(one, name), err_msg=name)


@examples(50)
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(1, 30))
def test_candidates_at_or_over_a_ceiling_are_counted_in_the_first_segment(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    rankings = rankings_of(rng, 3, 25)
    no_ceiling = np.full(3, np.inf, dtype=np.float32)
    lists = CandidateLists.from_ranking(search(rankings, range(3), no_ceiling, depth), no_ceiling)
    ceilings = np.round(rng.standard_normal(3) * 3).astype(np.float32)
    want = [sum(score >= ceiling for score, _ in row[:depth]) for row, ceiling in zip(rankings, ceilings, strict=True)]
    assert lists.count_at_or_over(np.arange(3), ceilings).tolist() == want


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=8))
def test_pieces_are_joined_whether_or_not_they_lie_behind_one_another(pieces: list[tuple[int, int]]) -> None:
    """Pieces that follow each other are copied as one; gaps, repetitions and empty ones are no such."""
    values = np.arange(100, 125)
    starts, sizes = (np.array([piece[part] for piece in pieces], dtype=np.int64) for part in (0, 1))
    expected = [value for start, size in pieces for value in values[start : start + size].tolist()]
    assert joined_pieces(values, starts, sizes).tolist() == expected
