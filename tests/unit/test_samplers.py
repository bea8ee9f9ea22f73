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
from hf_negmine.select import Sampled, Top, Top1Sampled, parse_sampler

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


def test_top_takes_the_first() -> None:
    assert Top().choose(np.zeros((2, 5), dtype=np.float32), keys_of(2, 5), 3).tolist() == [[0, 1, 2]] * 2


def test_a_temperature_near_zero_takes_the_best() -> None:
    scores = np.tile(np.array([0.9, 0.8, 0.7, 0.1], dtype=np.float32), (500, 1))
    assert (Sampled(4, 1e-4).choose(scores, keys_of(500, 4), 2) == [0, 1]).all()


@pytest.mark.parametrize("sampler", [Sampled(6), Top1Sampled(6), Sampled(6, float("inf"))])
def test_places_without_a_candidate_are_chosen_last(sampler: Sampler) -> None:
    scores = np.full((300, 6), -np.inf, dtype=np.float32)
    counts = np.arange(300) % 7
    scores[np.arange(6) < counts[:, None]] = -1000.0
    columns = sampler.choose(scores, keys_of(300, 6), 3)
    chosen = np.take_along_axis(scores, columns, axis=1) > -np.inf
    assert columns.shape == (300, 3)
    assert (chosen.sum(axis=1) == np.minimum(counts, 3)).all()
    assert (np.diff(columns, axis=1) > 0).all(), "distinct, better ones first"


@pytest.mark.parametrize("sampler", [Top(), Sampled(8), Top1Sampled(8)])
def test_a_row_is_drawn_alike_in_any_batch(sampler: Sampler) -> None:
    scores = -np.sort(-np.random.default_rng(0).standard_normal((50, 8)), axis=1).astype(np.float32)
    keys = keys_of(50, 8)
    whole = sampler.choose(scores, keys, 3)
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_array_equal(sampler.choose(scores[order], keys[order], 3), whole[order])
    for row in (0, 17, 49):
        np.testing.assert_array_equal(
            sampler.choose(scores[row : row + 1], keys[row : row + 1], 3), whole[row : row + 1]
        )


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
        (lambda: parse_sampler("sampled:10@-1"), ["temperature is positive", "got -1.0"]),
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
