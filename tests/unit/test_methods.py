"""The formulas of the methods, their specs, and what they refuse."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

from hf_negmine.base.errors import InputError
from hf_negmine.select.methods import (
    Method,
    NaiveTopK,
    RankBand,
    ScoreFloor,
    TopKAbs,
    TopKMarginPos,
    TopKPercentile,
    TopKPercPos,
    TopKShifted,
    parse_method,
)

POSITIVE_SCORES = np.array([0.8, 0.0, -0.8, 20.0], dtype=np.float32)


@pytest.mark.parametrize(
    ("method", "ceilings"),
    [
        (NaiveTopK(), [np.inf] * 4),
        (TopKShifted(10), [np.inf] * 4),
        (RankBand(30, 100), [np.inf] * 4),
        (TopKAbs(0.7), [0.7] * 4),
        (TopKMarginPos(0.05), [0.75, -0.05, -0.85, 19.95]),
        (TopKPercPos(0.95), [0.76, 0.0, -0.84, 19.0]),
        (TopKPercPos(1.05), [0.84, 0.0, -0.76, 21.0]),
        (TopKPercPos(0.95) & TopKAbs(0.7), [0.7, 0.0, -0.84, 0.7]),
        (TopKPercPos(0.95) & TopKMarginPos(0.05) & ScoreFloor(0.1), [0.75, -0.05, -0.85, 19.0]),
    ],
)
def test_ceilings(method: Method, ceilings: list[float]) -> None:
    found = method.ceilings(POSITIVE_SCORES)
    np.testing.assert_allclose(found, ceilings, rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("method", "n_passages", "ranks"),
    [
        (NaiveTopK(), 1000, (0, None)),
        (TopKShifted(10), 1000, (10, None)),
        (RankBand(30, 100), 1000, (30, 100)),
        (RankBand(0.03, 0.04), 1000, (30, 40)),
        (RankBand(0.29, 0.57), 100, (29, 57)),
        (RankBand(0, 0.5), 1000, (0, 500)),
        (RankBand(0.03, 0.04), 10, (0, 1)),  # never empty, however small the corpus
        (TopKShifted(10) & RankBand(5, 20), 1000, (10, 20)),
        (RankBand(0.1, 0.5) & RankBand(0.2, 0.9), 100, (20, 50)),
    ],
)
def test_ranks(method: Method, n_passages: int, ranks: tuple[int, int | None]) -> None:
    assert method.ranks(n_passages) == ranks


@pytest.mark.parametrize(
    ("method", "spec"),
    [
        (NaiveTopK(), "naive"),
        (TopKShifted(10), "shifted:10"),
        (TopKAbs(0.7), "abs:0.7"),
        (TopKAbs(-1.0), "abs:-1"),
        (TopKAbs(1e20), "abs:1e20"),
        (TopKAbs(1e-20), "abs:1e-20"),
        (TopKMarginPos(0.05), "margin_pos:0.05"),
        (TopKPercPos(0.95), "perc_pos:0.95"),
        (TopKPercPos(0.12345678901234567), "perc_pos:0.12345678901234566"),
        (TopKPercentile(25), "percentile:25"),
        (TopKPercentile(2.5) & TopKPercPos(0.95), "percentile:2.5+perc_pos:0.95"),
        (RankBand(30, 100), "band:30-100"),
        (RankBand(0.03, 0.04), "band:3%-4%"),
        (RankBand(0.29, 1.0), "band:29%-100%"),
        (ScoreFloor(0.2), "min:0.2"),
        (TopKPercPos(0.95) & RankBand(10, 100) & ScoreFloor(0.2), "perc_pos:0.95+band:10-100+min:0.2"),
        (TopKPercPos(0.95) & TopKShifted(3) & TopKAbs(0.7), "perc_pos:0.95+abs:0.7+shifted:3"),
    ],
)
def test_a_method_and_its_spec(method: Method, spec: str) -> None:
    assert str(method) == spec
    assert parse_method(spec) == method
    assert hash(parse_method(spec)) == hash(method)


def test_percentiles_of_a_huge_corpus_have_a_spec() -> None:
    assert parse_method(str(RankBand(1e-7, 2e-7))).ranks(10**8) == (10, 20)
    assert parse_method(str(RankBand(1 / 3, 2 / 3))).ranks(3 * 10**8) == (10**8, 2 * 10**8)


def test_spaces_around_a_plus_do_not_matter() -> None:
    assert parse_method("perc_pos:0.95 + min:0.2") == TopKPercPos(0.95) & ScoreFloor(0.2)


def test_the_defaults_are_those_of_table_3() -> None:
    assert [str(make()) for make in (TopKShifted, TopKAbs, TopKMarginPos, TopKPercPos)] == [
        "shifted:10",
        "abs:0.7",
        "margin_pos:0.05",
        "perc_pos:0.95",
    ]


def test_a_percentile_is_that_of_all_positives() -> None:
    method = TopKPercPos(0.95) & TopKPercentile(50)
    with pytest.raises(InputError, match="percentile:50 depends on the scores of all positives"):
        method.ceilings(POSITIVE_SCORES)
    every = np.array([0.0, 0.2, 0.6, 5.0, 0.4], dtype=np.float32)
    settled = method.settled(every)
    np.testing.assert_allclose(settled.ceilings(POSITIVE_SCORES), [0.4, 0.0, -0.84, 0.4], rtol=1e-6)
    assert str(settled) == str(method)
    assert settled.settled(every * 2) == method.settled(every * 2) != settled  # never that of another data set
    assert pickle.loads(pickle.dumps(settled)) == settled
    assert TopKPercPos().settled(every) == TopKPercPos()
    for wrong in (-1, 100.5):
        with pytest.raises(InputError, match=f"between 0 and 100, got {wrong:g}"):
            TopKPercentile(wrong)


def test_the_highest_floor_counts() -> None:
    assert (ScoreFloor(0.1) & ScoreFloor(0.3) & ScoreFloor(0.2)).floor == 0.3


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: TopKPercPos(95), ["between 0 and 2", "got 95", "for 95 % give 0.95"]),
        (lambda: TopKPercPos(-0.1), ["between 0 and 2", "got -0.1"]),
        (lambda: TopKPercPos(float("nan")), ["percentage is a finite number", "nan"]),
        (lambda: TopKAbs("high"), ["TopKAbs: threshold is a finite number", "'high'"]),  # type: ignore[arg-type]
        (lambda: TopKMarginPos(None), ["TopKMarginPos: margin is a finite number", "None"]),  # type: ignore[arg-type]
        (lambda: Method(floor=float("nan")), ["Method: floor is a number", "got nan"]),
        (lambda: Method(first_rank=-3), ["0 <= first_rank", "got -3"]),
        (lambda: Method(first_rank=10, last_rank=5), ["first_rank < last_rank", "got 10, 5"]),
        (lambda: TopKPercPos(True), ["percentage is a finite number", "got True"]),
        (lambda: parse_method("band:3%-40"), ["'band:3%-40' is not understood", "band:3%-4%"]),
        (lambda: TopKAbs(float("inf")), ["TopKAbs: threshold is a finite number", "inf"]),
        (lambda: ScoreFloor(float("-inf")), ["ScoreFloor: minimum is a finite number", "-inf"]),
        (lambda: TopKShifted(-1), ["0 or more", "got -1"]),
        (lambda: TopKShifted(2.5), ["a number of ranks", "got 2.5"]),  # type: ignore[arg-type]
        (lambda: TopKShifted(True), ["a number of ranks", "got True"]),
        (lambda: RankBand(5, 3), ["0 <= first < last", "got 5 and 3"]),
        (lambda: RankBand(5, 5), ["0 <= first < last", "got 5 and 5"]),
        (lambda: RankBand(-1, 5), ["0 <= first < last", "got -1 and 5"]),
        (lambda: RankBand(0.5, 0.2), ["0 <= first < last <= 1", "got 0.5 and 0.2"]),
        (lambda: RankBand(0.5, 2), ["0 <= first < last <= 1", "got 0.5 and 2"]),
        (lambda: RankBand(1, 0.5), ["0 <= first < last <= 1", "got 1 and 0.5"]),
        (lambda: RankBand(0, 5) & RankBand(5, 9), ["band:0-5", "band:5-9", "no rank is inside both"]),
        (lambda: TopKShifted(10) & RankBand(0, 5), ["shifted:10", "band:0-5", "no rank is inside both"]),
        (lambda: RankBand(5, 9) & RankBand(0.1, 0.5), ["band:5-9", "band:10%-50%", "ranks, the other percentiles"]),
        (lambda: parse_method("perc_pos:95"), ["got 95", "give 0.95"]),
        (lambda: parse_method("band:5-3"), ["got 5 and 3"]),
        (lambda: parse_method("perc_pos:high"), ["'perc_pos:high' is not understood", "perc_pos:0.95"]),
        (lambda: parse_method("perc"), ["'perc' is not understood", "perc_pos:0.95"]),
        (lambda: parse_method("perc_pos:0.95+wrong:1"), ["'perc_pos:0.95+wrong:1' is not understood"]),
        (lambda: parse_method("naive:3"), ["'naive:3' is not understood"]),
        (lambda: parse_method("shifted:2.5"), ["'shifted:2.5' is not understood"]),
        (lambda: parse_method("shifted:²"), ["'shifted:²' is not understood"]),
        (lambda: parse_method("band:1.5-7"), ["'band:1.5-7' is not understood"]),
        (lambda: parse_method(""), ["'' is not understood"]),
    ],
)
def test_a_wrong_argument_is_an_error_with_both_facts(make: Callable[[], Method], facts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make()
    for fact in facts:
        assert fact in str(caught.value)
