"""Exact search against a full score matrix, whatever way it goes about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.protocols import QueryBlock, Ranking
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.search import ScoreSearcher, VectorSearcher, contenders, corpus, exact, picking, scoring
from hf_negmine.search.ranking import merged
from tests import reference
from tests.reference import ArraySource, exclusions_of, ranked, rows_of, score_matrix
from tests.thorough import examples

Kind = Literal["normal", "integers", "zeros", "large", "huge", "tiny", "minute", "vanishing", "crowded", "unit"]


@dataclass(frozen=True)
class Problem:
    """Queries, passages and exclusions; ``scores`` holds the score of every pair."""

    queries: FloatArray
    passages: FloatArray
    excluded: list[list[int]]
    scores: FloatArray
    rng: np.random.Generator


def make_vectors(rng: np.random.Generator, kind: Kind, count: int, width: int) -> FloatArray:
    vectors = rng.standard_normal((count, width))
    if kind == "integers":  # many exact ties
        vectors = np.round(vectors)
    elif kind == "zeros":
        vectors[rng.random(count) < 0.3] = 0.0
    elif kind == "large":
        vectors *= 10.0 ** rng.uniform(0, 6, (count, 1))
    elif kind == "tiny":
        vectors *= 1e-12
    elif kind == "huge":
        vectors *= 1e16
    elif kind == "minute":  # the square of such a number is 0 in float32
        vectors *= 1e-24
    elif kind == "vanishing":  # numbers of a few bits each, which some processors take for 0
        vectors *= 1e-42
    elif kind == "crowded":  # scores that no first pass can tell apart
        vectors = 1.0 + 1e-6 * vectors
    elif kind == "unit":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


@st.composite
def problems(draw: st.DrawFn, *, most_passages: int = 200) -> Problem:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_passages, n_queries, width = (
        draw(st.integers(1, most_passages)),
        draw(st.integers(1, 12)),
        draw(st.integers(1, 40)),
    )
    kinds = st.sampled_from(Kind.__args__)  # type: ignore[attr-defined]
    queries, passages = (
        make_vectors(rng, draw(kinds), n_queries, width),
        make_vectors(rng, draw(kinds), n_passages, width),
    )
    if draw(st.booleans()):  # duplicates
        passages = passages[rng.integers(0, max(1, n_passages // 4), n_passages)]
    excluded = [
        np.sort(rng.choice(n_passages, rng.integers(0, min(n_passages, 6) + 1), replace=False)).tolist()
        for _ in range(n_queries)
    ]
    return Problem(queries, passages, excluded, score_matrix(queries, passages), rng)


def vector_searcher(
    problem: Problem, *, passages_a_block: int = 50, first_pass: FirstPass = "float32"
) -> VectorSearcher:
    return VectorSearcher(
        ArraySource(problem.queries),
        ArraySource(problem.passages),
        exclusions_of(problem.excluded),
        first_pass=first_pass,
        passages_a_block=passages_a_block,
    )


def some_ceilings(problem: Problem, kind: str) -> FloatArray:
    """A ceiling a query: none, the very score of some passage, a little over it, or under everything."""
    rows = np.arange(len(problem.queries))
    own = problem.scores[rows, problem.rng.integers(0, problem.scores.shape[1], len(rows))]
    choices: dict[str, FloatArray] = {
        "none": np.full(len(rows), np.inf),
        "score": own,
        "next": np.nextafter(own, np.float32(np.inf)),
        "under all": problem.scores.min(axis=1),
        "mixed": np.where(rows % 2 == 0, np.inf, own),
    }
    return choices[kind].astype(np.float32)


ceiling_kinds = st.sampled_from(["none", "score", "next", "under all", "mixed"])


def assert_best(block: QueryBlock, problem: Problem, ceilings: FloatArray, depth: int, skip: int) -> None:
    """Compare `best` for all queries, in a shuffled order, with a sorted list of all scores."""
    rows = problem.rng.permutation(len(problem.queries))
    ranking = block.best(rows, ceilings[rows], depth, skip)
    eligible = [
        [pair for pair in ranked(problem.scores[row], problem.excluded[row]) if pair[0] < ceilings[row]] for row in rows
    ]
    assert rows_of(ranking) == [row[skip : skip + depth] for row in eligible]
    assert ranking.exhausted.tolist() == [len(row) <= skip + depth for row in eligible]
    assert ranking.passages.dtype == np.int32
    assert ranking.scores.dtype == np.float32
    assert np.isfinite(ranking.scores).all()
    assert (ranking.passages >= 0).all()
    assert (ranking.passages < problem.scores.shape[1]).all()
    query_of = np.repeat(rows, np.diff(ranking.offsets))
    place_of = np.repeat(np.arange(len(rows)), np.diff(ranking.offsets))
    assert (ranking.scores < ceilings[query_of]).all()
    assert block.pair_scores(rows[place_of], ranking.passages).tobytes() == ranking.scores.tobytes()


@examples(200)
@given(
    problem=problems(),
    kind=ceiling_kinds,
    depth=st.integers(1, 40),
    skip=st.sampled_from([0, 0, 1, 3, 250]),
    passages_a_block=st.sampled_from([1, 7, 64, 1000]),
    first_pass=st.sampled_from(["bfloat16", "float32"]),
    many=st.sampled_from([0, 3, 1024]),
    cached=st.sampled_from([1, 150, 2**19]),
)
def test_vector_search_equals_sorting_every_score(
    problem: Problem,
    kind: str,
    depth: int,
    skip: int,
    passages_a_block: int,
    first_pass: FirstPass,
    many: int,
    cached: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picking, "CACHED", cached)  # products of the rows that are compared at a time
        patch.setattr(contenders, "MANY", many)  # from how many on a query's passages are scored on the way
        searcher = vector_searcher(problem, passages_a_block=passages_a_block, first_pass=first_pass)
        block = searcher.block(np.arange(len(problem.queries)))
        assert_best(block, problem, some_ceilings(problem, kind), depth, skip)


@examples(100)
@given(problem=problems(), kind=ceiling_kinds, depth=st.integers(1, 40), skip=st.sampled_from([0, 2, 250]))
def test_score_search_equals_sorting_every_score(problem: Problem, kind: str, depth: int, skip: int) -> None:
    texts = pa.array([str(row) for row in range(len(problem.queries))], pa.large_string())
    searcher = ScoreSearcher(
        lambda queries: problem.scores[queries],
        texts,
        problem.scores.shape[1],
        exclusions_of(problem.excluded),
        teacher="matrix",
    )
    assert_best(searcher.block(np.arange(len(problem.queries))), problem, some_ceilings(problem, kind), depth, skip)


@examples(30)
@given(
    problem=problems(),
    kind=ceiling_kinds,
    depth=st.integers(1, 40),
    first_pass=st.sampled_from(["bfloat16", "float32"]),
)
def test_a_corpus_that_is_not_held_in_memory_is_searched_alike(
    problem: Problem, kind: str, depth: int, first_pass: FirstPass
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "RESIDENT_BYTES", 0)
        patch.setattr(scoring, "STEP_BYTES", 4096)
        patch.setattr(exact, "ROWS_A_GROUP", 3)
        searcher = vector_searcher(problem, passages_a_block=17, first_pass=first_pass)
        assert_best(searcher.block(np.arange(len(problem.queries))), problem, some_ceilings(problem, kind), depth, 0)


@examples(60)
@given(
    problem=problems(),
    depth=st.integers(1, 20),
    first_pass=st.sampled_from(["bfloat16", "float32"]),
    passages_a_block=st.sampled_from([7, 1000]),
)
def test_several_ceilings_of_a_query_are_searched_for_at_once(
    problem: Problem, depth: int, first_pass: FirstPass, passages_a_block: int
) -> None:
    rows = np.repeat(np.arange(len(problem.queries)), problem.rng.integers(0, 4, len(problem.queries)))
    own = problem.scores[rows, problem.rng.integers(0, problem.scores.shape[1], len(rows))]
    ceilings = np.where(problem.rng.random(len(rows)) < 0.2, np.inf, own).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "ROWS_A_GROUP", 5)
        patch.setattr(picking, "CACHED", 100)
        searcher = vector_searcher(problem, first_pass=first_pass, passages_a_block=passages_a_block)
        found = rows_of(searcher.block(np.arange(len(problem.queries))).best(rows, ceilings, depth))
    under = [
        [pair for pair in ranked(problem.scores[row], problem.excluded[row]) if pair[0] < ceiling]
        for row, ceiling in zip(rows, ceilings, strict=True)
    ]
    assert found == [pairs[:depth] for pairs in under]


@examples(30)
@given(problem=problems(), depth=st.integers(1, 20))
def test_a_block_of_some_queries_keeps_their_exclusions_and_scores(problem: Problem, depth: int) -> None:
    queries = problem.rng.permutation(len(problem.queries))[: max(1, len(problem.queries) // 2)]
    searcher = vector_searcher(problem)
    no_ceiling = np.full(len(queries), np.inf, dtype=np.float32)
    found = rows_of(searcher.block(queries).best(np.arange(len(queries)), no_ceiling, depth))
    assert found == [ranked(problem.scores[query], problem.excluded[query])[:depth] for query in queries]


@examples(20)
@given(problem=problems(most_passages=1500), kind=ceiling_kinds)
@pytest.mark.usefixtures("torch_threads")
def test_formats_blocks_and_threads_give_the_same_bits(problem: Problem, kind: str) -> None:
    ceilings = some_ceilings(problem, kind)
    rows = np.arange(len(problem.queries))
    seen = set()
    ways: list[tuple[FirstPass, int, int]] = [
        ("bfloat16", 2000, 2),
        ("float32", 2000, 2),
        ("bfloat16", 333, 1),
        ("float32", 100, 1),
    ]
    for first_pass, passages_a_block, threads in ways:
        torch.set_num_threads(threads)
        searcher = vector_searcher(problem, passages_a_block=passages_a_block, first_pass=first_pass)
        ranking = searcher.block(rows).best(rows, ceilings, 25)
        seen.add((ranking.offsets.tobytes(), ranking.passages.tobytes(), ranking.scores.tobytes()))
    assert len(seen) == 1


@examples(40)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 500), rows=st.integers(1, 6), length=st.integers(1, 30))
@pytest.mark.usefixtures("torch_threads")
def test_a_score_depends_on_its_two_vectors_only(seed: int, width: int, rows: int, length: int) -> None:
    """Sums that cancel to almost nothing would show any other order of summation."""
    rng = np.random.default_rng(seed)

    def vectors(*shape: int) -> FloatArray:
        wild = rng.standard_normal(shape) * 10.0 ** rng.uniform(-6, 6, shape)
        return np.concatenate([wild, -wild[..., : shape[-1] // 2]], axis=-1).astype(np.float32)

    queries, passages = torch.from_numpy(np.abs(vectors(rows, width))), torch.from_numpy(vectors(rows, length, width))
    torch.set_num_threads(2)
    together = scoring.canonical_scores(queries[:, None], passages)
    pairs = scoring.canonical_scores(queries.repeat_interleave(length, 0), passages.reshape(rows * length, -1))
    torch.set_num_threads(1)
    single = torch.stack(
        [scoring.canonical_scores(queries[i], passages[i, j]) for i in range(rows) for j in range(length)]
    )
    assert torch.equal(together.view(-1), pairs)
    assert torch.equal(pairs, single)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 12))
def test_merging_in_any_order_gives_what_one_search_gives(seed: int, pieces: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, (4, int(rng.integers(1, 40)))).astype(np.float32)  # many ties
    of_piece = rng.integers(0, pieces, scores.shape[1])
    everyone, no_ceiling = range(len(scores)), np.full(len(scores), np.inf, dtype=np.float32)

    def found(passages: IdArray) -> Ranking:
        left_out = np.setdiff1d(np.arange(scores.shape[1]), passages)
        return reference.search([ranked(row, left_out.tolist()) for row in scores], everyone, no_ceiling, depth)

    parts = [found(np.flatnonzero(of_piece == piece)) for piece in rng.permutation(pieces)]
    while len(parts) > 1:  # not only from one end to the other
        at = int(rng.integers(len(parts) - 1))
        parts[at : at + 2] = [merged(*parts[at : at + 2], depth)]
    whole = found(np.arange(scores.shape[1]))
    assert rows_of(parts[0]) == rows_of(whole)
    assert parts[0].exhausted.tolist() == whole.exhausted.tolist()
