"""Samplers: which candidates are drawn, how often, and their specs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from hf_negmine.base.errors import InputError
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.randomness import KeyArray, random_keys, uniform
from hf_negmine.base.schema import FloatArray, IdArray
from hf_negmine.select import Mixed, Sampled, SimANS, Top, Top1Sampled, parse_sampler, resolve_sampler
from hf_negmine.select.samplers import draw

MANY = 40_000


def keys_of(rows: int, columns: int, seed: int = 0) -> KeyArray:
    return random_keys(seed, np.arange(rows, dtype=np.uint64), np.arange(columns, dtype=np.uint64)[None])


def softmax_sample_shares(scores: list[float], n: int, temperature: float) -> FloatArray:
    """Probability that each candidate is among n drawn one after another without replacement."""
    weights = np.exp(np.array(scores) / temperature)
    shares = np.zeros(len(scores))
    for order in permutations(range(len(scores)), n):
        left, probability = weights.sum(), 1.0
        for candidate in order:
            probability *= weights[candidate] / left
            left -= weights[candidate]
        shares[list(order)] += probability
    return shares.astype(np.float32)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 3.0, float("inf")])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_frequencies_follow_the_softmax_without_replacement(temperature: float, n: int) -> None:
    scores = [1.5, 1.0, 0.2, -0.5]
    columns = Sampled(4, temperature).choose(
        np.tile(np.array(scores, dtype=np.float32), (MANY, 1)), keys_of(MANY, 4), n
    )
    found = np.bincount(columns.reshape(-1), minlength=4) / MANY
    expected = softmax_sample_shares(scores, n, temperature)
    deviation = np.sqrt(expected * (1 - expected) / MANY)
    np.testing.assert_array_less(np.abs(found - expected), 4.5 * deviation + 1e-9)


def test_top1_sampled_always_holds_the_best_and_draws_the_rest_by_softmax() -> None:
    scores = [2.0, 1.0, 0.2, -0.5]
    columns = Top1Sampled(4).choose(np.tile(np.array(scores, dtype=np.float32), (MANY, 1)), keys_of(MANY, 4), 3)
    assert (columns[:, 0] == 0).all()
    expected = softmax_sample_shares(scores[1:], 2, 1.0)
    found = np.bincount(columns[:, 1:].reshape(-1), minlength=4)[1:] / MANY
    np.testing.assert_allclose(found, expected, atol=0.012)


@pytest.mark.parametrize(("a", "b"), [(4.0, 0.0), (10.0, -0.5), (0.0, 0.3)])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_simans_draws_by_the_distance_to_the_positive(a: float, b: float, n: int) -> None:
    """Equation 4 of the paper: the probability is proportional to exp(-a (s - s(positive) - b)^2)."""
    scores, positive = [1.5, 1.0, 0.2, -0.5], 0.9
    table = np.tile(np.array(scores, dtype=np.float32), (MANY, 1))
    positives = np.full(MANY, positive, dtype=np.float32)
    columns = SimANS(4, a, b).choose_near(positives, table, keys_of(MANY, 4), n)
    found = np.bincount(columns.reshape(-1), minlength=4) / MANY
    expected = softmax_sample_shares([-a * (score - positive - b) ** 2 for score in scores], n, 1.0)
    deviation = np.sqrt(expected * (1 - expected) / MANY)
    np.testing.assert_array_less(np.abs(found - expected), 4.5 * deviation + 1e-9)


def test_simans_near_each_rows_own_positive() -> None:
    scores = np.tile(np.array([0.9, 0.7, 0.5, 0.3], dtype=np.float32), (4, 1))
    positives = np.array([0.3, 0.52, 0.69, 5.0], dtype=np.float32)
    assert SimANS(4, 1e6).choose_near(positives, scores, keys_of(4, 4), 1).tolist() == [[3], [2], [1], [0]]
    assert SimANS(4, 1e6, -0.2).choose_near(positives[2:], scores[2:], keys_of(2, 4), 1).tolist() == [[2], [0]]
    with pytest.raises(InputError, match="simans:4@1 draws by the distance to the positive's score"):
        SimANS(4, 1).choose(scores, keys_of(4, 4), 1)


def test_mixed_takes_the_best_and_others_alike_likely() -> None:
    scores = np.tile(np.array([9.0, 8.0, 7.0, 3.0, -50.0], dtype=np.float32), (MANY, 1))
    columns = Mixed(2, 2, 5).choose(scores, keys_of(MANY, 5), 4)
    assert (columns[:, :2] == [0, 1]).all()
    np.testing.assert_allclose(np.bincount(columns[:, 2:].reshape(-1))[2:] / MANY, 2 / 3, atol=0.012)
    uniform_others = Top1Sampled(5, float("inf")).choose(scores, keys_of(MANY, 5), 3)
    np.testing.assert_array_equal(Mixed(1, 2, 5).choose(scores, keys_of(MANY, 5), 3), uniform_others)
    np.testing.assert_array_equal(Mixed(3, 0, 5).choose(scores, keys_of(MANY, 5), 3)[0], [0, 1, 2])
    drawn = Sampled(5, float("inf")).choose(scores, keys_of(MANY, 5), 3)
    np.testing.assert_array_equal(Mixed(0, 3, 5).choose(scores, keys_of(MANY, 5), 3), drawn)


class Last:
    """A sampler of a user's own, with the three arguments that samplers have always had."""

    def depth(self, n: int) -> int:
        return 2 * n

    def choose(self, scores: FloatArray, keys: KeyArray, n: int) -> IdArray:
        return np.argsort(scores, axis=1, kind="stable")[:, :n]

    def __str__(self) -> str:
        return "last"


def test_a_sampler_that_does_not_see_the_positive_is_called_as_ever() -> None:
    scores, keys = np.array([[3.0, 2.0, 1.0]], dtype=np.float32), keys_of(1, 3)
    sampler = resolve_sampler(Last())
    assert draw(sampler, np.zeros(1, dtype=np.float32), scores, keys, 2).tolist() == [[2, 1]]
    near = draw(SimANS(3, 1e6), np.array([1.0], dtype=np.float32), scores, keys, 1)
    assert near.tolist() == [[2]]


def test_top_takes_the_first() -> None:
    assert Top().choose(np.zeros((2, 5), dtype=np.float32), keys_of(2, 5), 3).tolist() == [[0, 1, 2]] * 2


def test_a_temperature_near_zero_takes_the_best() -> None:
    scores = np.tile(np.array([0.9, 0.8, 0.7, 0.1], dtype=np.float32), (500, 1))
    assert (Sampled(4, 1e-4).choose(scores, keys_of(500, 4), 2) == [0, 1]).all()


@pytest.mark.parametrize(
    "sampler",
    [Sampled(6), Top1Sampled(6), Sampled(6, float("inf")), SimANS(6), SimANS(6, 0.0), Mixed(2, 1, 6), Mixed(0, 3, 6)],
)
def test_places_without_a_candidate_are_chosen_last(sampler: Sampler) -> None:
    scores = np.full((300, 6), -np.inf, dtype=np.float32)
    counts = np.arange(300) % 7
    scores[np.arange(6) < counts[:, None]] = -1000.0
    columns = draw(sampler, np.full(300, 0.5, dtype=np.float32), scores, keys_of(300, 6), 3)
    chosen = np.take_along_axis(scores, columns, axis=1) > -np.inf
    assert columns.shape == (300, 3)
    assert (chosen.sum(axis=1) == np.minimum(counts, 3)).all()
    assert (np.diff(columns, axis=1) > 0).all(), "distinct, better ones first"


@pytest.mark.parametrize("sampler", [Top(), Sampled(8), Top1Sampled(8), SimANS(8, 3.0), Mixed(1, 2, 8)])
def test_a_row_is_drawn_alike_in_any_batch(sampler: Sampler) -> None:
    scores = -np.sort(-np.random.default_rng(0).standard_normal((50, 8)), axis=1).astype(np.float32)
    keys, positives = keys_of(50, 8), np.linspace(-1, 1, 50, dtype=np.float32)
    whole = draw(sampler, positives, scores, keys, 3)
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_array_equal(draw(sampler, positives[order], scores[order], keys[order], 3), whole[order])
    for row in (0, 17, 49):
        some = slice(row, row + 1)
        np.testing.assert_array_equal(draw(sampler, positives[some], scores[some], keys[some], 3), whole[some])


def test_another_seed_draws_others_and_the_same_seed_the_same() -> None:
    scores = np.zeros((200, 10), dtype=np.float32)

    def draw(seed: int) -> IdArray:
        return Sampled(10).choose(scores, keys_of(200, 10, seed), 4)

    np.testing.assert_array_equal(draw(3), draw(3))
    assert (draw(3) != draw(4)).any(axis=1).mean() > 0.9


def test_neighbouring_seeds_queries_and_passages_are_independent() -> None:
    keys = np.stack([keys_of(100, 100, seed) for seed in range(-2, 3)])
    numbers = uniform(keys)
    assert len(np.unique(keys)) == keys.size
    assert numbers.min() > 0.0
    assert numbers.max() < 1.0
    for axis in range(3):
        one, two = np.delete(numbers, 0, axis), np.delete(numbers, -1, axis)
        assert abs(np.corrcoef(one.reshape(-1), two.reshape(-1))[0, 1]) < 0.02
    shares = np.histogram(numbers, bins=20, range=(0, 1))[0] / numbers.size
    np.testing.assert_allclose(shares, 0.05, atol=0.006)


@pytest.mark.parametrize(
    ("sampler", "spec"),
    [
        (Top(), "top"),
        (Sampled(), "sampled:10"),
        (Sampled(5), "sampled:5"),
        (Sampled(10, 0.05), "sampled:10@0.05"),
        (Sampled(10, float("inf")), "sampled:10@inf"),
        (Top1Sampled(), "top1_sampled:10"),
        (Top1Sampled(20, 2.0), "top1_sampled:20@2"),
        (SimANS(), "simans:100@100"),
        (SimANS(50, 0.5), "simans:50@0.5"),
        (SimANS(50, 200.0, -0.1), "simans:50@200@-0.1"),
        (Sampled(10, 1 / 3), "sampled:10@0.3333333333333333"),  # another number would draw others
        (SimANS(50, 1e20, 1 / 3), "simans:50@1e20@0.3333333333333333"),
        (Mixed(), "mixed:2+2@100"),
        (Mixed(0, 4, 1000), "mixed:0+4@1000"),
    ],
)
def test_a_sampler_and_its_spec(sampler: Sampler, spec: str) -> None:
    assert str(sampler) == spec
    assert parse_sampler(spec) == sampler


def test_a_sampler_looks_at_k_and_top_at_n() -> None:
    assert (Top().depth(4), Sampled(10).depth(4), Top1Sampled(4).depth(4)) == (4, 10, 4)


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: Sampled(3).depth(4), ["sampled:3", "4 negatives", "k >= 4"]),
        (lambda: Top1Sampled(3).depth(4), ["top1_sampled:3", "4 negatives", "k >= 4"]),
        (lambda: Sampled(0), ["Sampled: k", "1 or more", "got 0"]),
        (lambda: Top1Sampled(2.5), ["Top1Sampled: k", "got 2.5"]),  # type: ignore[arg-type]
        (lambda: Sampled(10, 0.0), ["temperature is positive", "got 0.0"]),
        (lambda: Sampled(10, float("nan")), ["temperature is positive", "got nan"]),
        (lambda: Sampled(10, "0.5"), ["temperature is positive", "got '0.5'"]),  # type: ignore[arg-type]
        (lambda: Sampled(10, True), ["temperature is positive", "got True"]),
        (lambda: SimANS(a="1"), ["SimANS: a", "got '1'"]),  # type: ignore[arg-type]
        (lambda: SimANS(b="1"), ["SimANS: b", "got '1'"]),  # type: ignore[arg-type]
        (lambda: parse_sampler("sampled:10@-1"), ["temperature is positive", "got -1.0"]),
        (lambda: SimANS(3).depth(4), ["simans:3", "4 negatives", "k >= 4"]),
        (lambda: SimANS(a=-1.0), ["SimANS: a", "0 or more", "got -1.0"]),
        (lambda: SimANS(b=float("inf")), ["SimANS: b", "finite", "got inf"]),
        (lambda: Mixed(2, 2).depth(3), ["mixed:2+2@100 draws 4 negatives", "not 3"]),
        (lambda: Mixed(3, 3, 5), ["cannot draw 6 negatives from 5", "k >= 6"]),
        (lambda: Mixed(-1, 3), ["Mixed: top", "0 or more", "got -1"]),
        (lambda: Mixed(0, 0), ["Mixed: top and random", "1 or more"]),
        (lambda: parse_sampler("mixed:4"), ["'mixed:4' is not understood", "mixed:2+2@100"]),
        (lambda: parse_sampler("mixed:2+2@5@5"), ["is not understood"]),
        (lambda: parse_sampler("simans:5@a"), ["'simans:5@a' is not understood", "simans:100@50"]),
        (lambda: parse_sampler("sampled:0"), ["1 or more", "got 0"]),
        (lambda: parse_sampler("sampled:ten"), ["'sampled:ten' is not understood", "sampled:10"]),
        (lambda: parse_sampler("top:5"), ["'top:5' is not understood", "top"]),
        (lambda: parse_sampler("best"), ["'best' is not understood", "top"]),
    ],
)
def test_a_wrong_argument_is_an_error_with_both_facts(make: Callable[[], object], facts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make()
    for fact in facts:
        assert fact in str(caught.value)
