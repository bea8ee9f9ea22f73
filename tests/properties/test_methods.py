"""What holds for ceilings of any scores, and for any method's spec."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.select.methods import (
    Method,
    NaiveTopK,
    RankBand,
    ScoreFloor,
    TopKAbs,
    TopKMarginPos,
    TopKPercPos,
    TopKShifted,
    parse_method,
)

scores = st.floats(-1e6, 1e6, width=32)
numbers = st.floats(-1e30, 1e30, allow_nan=False)


@given(positive=scores, percentage=st.floats(0, 1, exclude_max=True))
def test_a_percentage_under_one_never_lets_a_candidate_over_the_positive(positive: float, percentage: float) -> None:
    """Whatever the sign: with ``p * percentage`` a negative positive score would raise the ceiling."""
    ceiling = TopKPercPos(percentage).ceilings(np.array([positive], dtype=np.float32))
    assert ceiling[0] <= np.float32(positive)


@given(positive=scores, percentage=st.floats(1, 2))
def test_a_percentage_over_one_never_lowers_the_ceiling(positive: float, percentage: float) -> None:
    assert TopKPercPos(percentage).ceilings(np.array([positive], dtype=np.float32))[0] >= np.float32(positive)


@given(positive=st.floats(0, 1e6, width=32), percentage=st.floats(0, 2))
def test_for_positive_scores_the_ceiling_is_the_product_of_the_paper(positive: float, percentage: float) -> None:
    ceiling = TopKPercPos(percentage).ceilings(np.array([positive], dtype=np.float32))[0]
    assert abs(ceiling - positive * percentage) <= 2e-7 * positive


def ranks() -> st.SearchStrategy[Method]:
    whole = st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda pair: RankBand(pair[0], sum(pair)))
    return whole | st.integers(0, 1000).map(TopKShifted)


def percentiles() -> st.SearchStrategy[Method]:
    return st.tuples(st.integers(0, 50), st.integers(51, 100)).map(lambda pair: RankBand(pair[0] / 100, pair[1] / 100))


rules = st.lists(
    numbers.map(TopKAbs) | numbers.map(TopKMarginPos) | st.floats(0, 2).map(TopKPercPos) | numbers.map(ScoreFloor),
    max_size=4,
)


@given(rules=rules, window=ranks() | percentiles() | st.just(NaiveTopK()), n_passages=st.integers(1, 10**7))
def test_a_spec_means_the_method_it_was_made_from(rules: list[Method], window: Method, n_passages: int) -> None:
    method = window
    for rule in rules:
        method = rule & method
    again = parse_method(str(method))
    positive_scores = np.array([0.5, -3.0, 0.0], dtype=np.float32)
    assert again.rules == method.rules
    assert again.floor == method.floor
    np.testing.assert_array_equal(again.ceilings(positive_scores), method.ceilings(positive_scores))
    assert again.ranks(n_passages) == method.ranks(n_passages)


@given(rules=rules, positive=scores)
def test_combined_methods_have_the_lowest_ceiling_whatever_the_order(rules: list[Method], positive: float) -> None:
    forward, backward = NaiveTopK(), NaiveTopK()
    for rule in rules:
        forward, backward = forward & rule, rule & backward
    positive_scores = np.array([positive], dtype=np.float32)
    lowest = min([np.float32(np.inf)] + [rule.ceilings(positive_scores)[0] for rule in rules])
    assert forward.ceilings(positive_scores)[0] == backward.ceilings(positive_scores)[0] == lowest
    assert forward.floor == backward.floor == max([-np.inf] + [rule.floor for rule in rules])
