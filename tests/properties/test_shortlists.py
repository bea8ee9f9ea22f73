"""Shortlists against whole rankings: what they tell is exact, however far off their scores are allowed to be."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_negmine.base.protocols import Ranking
from hf_negmine.base.schema import FloatArray
from hf_negmine.pool.shortlists import Shortlists
from hf_negmine.select.candidates import CandidateLists, Demand
from tests.reference import Ranked, ranked, rows_of, search


def approximated(
    rng: np.random.Generator, rankings: list[Ranked], ceilings: FloatArray, length: int, errors: FloatArray
) -> Ranking:
    """The best ``length`` by scores that are off by up to the error, and some that lie just over the ceiling."""
    rows, exhausted = [], []
    for ranking, ceiling, error in zip(rankings, ceilings, errors, strict=True):
        # Quarters are exact in float32, so that a score can be off by the very error.
        off = [float(error) * rng.choice([-1, -0.5, 0, 0.5, 1]) for _ in ranking]
        near = sorted(
            (
                (score + by, passage)
                for (score, passage), by in zip(ranking, off, strict=True)
                if score < ceiling or (score + by < ceiling + error and rng.random() < 0.5)
            ),
            reverse=True,
        )
        rows.append(near[:length])
        exhausted.append(len(near) <= length)
    return Ranking(
        np.cumsum([0] + [len(row) for row in rows]).astype(np.int64),
        np.array([passage for row in rows for _, passage in row], dtype=np.int32),
        np.array([score for row in rows for score, _ in row], dtype=np.float32),
        np.array(exhausted, dtype=bool),
    )


@settings(max_examples=500)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_what_a_shortlist_tells_is_a_stretch_of_the_ranking(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_queries, n_passages = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))
    spread = data.draw(st.sampled_from([3, 12]))  # few scores and many ties, or the other way round
    rankings = [ranked(np.round(rng.standard_normal(n_passages) * spread).astype(np.float32)) for _ in range(n_queries)]
    depth = data.draw(st.integers(1, 10))
    no_ceiling = np.full(n_queries, np.inf, dtype=np.float32)
    lists = CandidateLists.from_ranking(search(rankings, range(n_queries), no_ceiling, depth), no_ceiling)

    listed = np.flatnonzero(rng.random(n_queries) < 0.8)
    reach = np.nextafter(lists.reach(listed), np.float32(np.inf))
    ceilings = np.minimum(np.round(rng.standard_normal(len(listed)) * spread).astype(np.float32), reach)
    errors = rng.choice([0.0, 0.25, 1.0, 2.0], len(listed)).astype(np.float32)
    length = data.draw(st.sampled_from([1, 3, 8, 12, 20, 30]))
    approximate = approximated(rng, [rankings[query] for query in listed], ceilings, length, errors)
    nobodys = Shortlists.from_ranking(listed[:0], ceilings[:0], search([], [], ceilings[:0], 1), errors[:0])
    own = Shortlists.from_ranking(listed, ceilings, approximate, errors)
    shortlists = Shortlists.concatenated([own, nobodys])

    queries = np.flatnonzero(rng.random(n_queries) < 0.8)
    wanted = data.draw(st.sampled_from([1, 1, 2, 2, 3, 6]))
    asked = (np.round(rng.standard_normal(len(queries)) * 2 * spread) / 2).astype(np.float32)
    demand = Demand(queries, asked, -np.inf, 0, None, wanted)
    demand = demand.of(np.flatnonzero(~lists.answer(demand).certain))
    questions = shortlists.questions(lists, demand, 2 * wanted)
    assert set(questions.queries) <= set(listed)
    assert (questions.queries == demand.queries[questions.targets]).all()
    rows, passages = questions.pairs()
    true = [{passage: score for score, passage in ranking} for ranking in rankings]
    scores = [true[questions.queries[row]][passage] for row, passage in zip(rows, passages, strict=True)]
    answered, segments = questions.answered(rows, passages, np.array(scores, dtype=np.float32))

    # What is told is what a search would have found: in the segment, and with what was known.
    told = questions.queries[answered]
    bounds = np.append(segments.starts, len(segments.passages))
    found = Ranking(bounds, segments.passages, segments.scores, segments.exhausted)
    for row, query, depth, ceiling, ended in zip(
        rows_of(found), told, questions.depths[answered], segments.ceilings, found.exhausted, strict=True
    ):
        under = [pair for pair in rankings[query] if pair[0] < ceiling]
        assert row == under[:depth]
        assert ended == (len(under) <= depth)
    searched = demand.ceilings[questions.targets[answered]]
    by_search = CandidateLists.from_ranking(search(rankings, told.tolist(), searched, 2 * wanted), searched)
    one, two = lists.merged(told, segments), lists.merged(told, by_search)
    for field in dataclasses.fields(CandidateLists):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name), field.name)

    # And all is told that is sure: one more than wanted surely under the ceiling and surely over what is not listed.
    for place, row in enumerate(questions.rows):
        entries = approximate.scores[approximate.offsets[row] : approximate.offsets[row + 1]]
        lowest = -np.inf if approximate.exhausted[row] else entries[-1] + errors[row]
        under = entries[(entries + errors[row] < questions.ceilings[place]) & (entries - errors[row] > lowest)]
        assert place in answered or len(under) <= questions.depths[place]


def test_a_shortlist_without_error_tells_all_that_it_holds() -> None:
    """Nothing is left in doubt that the scores decide."""
    ranking = [(10.0 - place, place) for place in range(10)]
    ceilings, errors = np.array([8.0], dtype=np.float32), np.zeros(1, dtype=np.float32)
    top = search([ranking], [0], np.array([np.inf], dtype=np.float32), 1)
    lists = CandidateLists.from_ranking(top, np.array([np.inf], dtype=np.float32))
    shortlists = Shortlists.from_ranking(np.array([0]), ceilings, search([ranking], [0], ceilings, 6), errors)
    for ceiling, wanted, told in [(8.0, 2, True), (6.0, 1, True), (3.0, 1, False), (8.0, 3, False), (9.0, 1, False)]:
        demand = Demand(np.array([0]), np.array([ceiling], dtype=np.float32), -np.inf, 0, None, wanted)
        questions = shortlists.questions(lists, demand, 2 * wanted)
        rows, passages = questions.pairs()
        answered, _ = questions.answered(rows, passages, (10 - passages).astype(np.float32))
        assert (len(answered) == 1) == told, (ceiling, wanted)
        assert (len(rows) > 0) == told, "what is too short to tell is not scored"
