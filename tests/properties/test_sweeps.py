"""A sweep of a fitted miner selects what each setting selects alone in a pool that was searched for it only."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine import CandidatePool, Consistency, CrossSample, InputError, IntraSample, NegativeMiner, Veto
from hf_negmine.select import Selection
from hf_negmine.teachers import FixedTeacher, RandomTeacher
from tests.thorough import examples

METHODS = ["naive", "perc_pos:0.9", "abs:0.2", "shifted:3", "band:2-9", "percentile:60", "margin_pos:0.3+min:-0.5"]
SAMPLERS = ["top", "sampled:6@0.2", "simans:9@30", "top1_sampled:7@0.2"]


def miner_of(kind: str, n_passages: int, rng: np.random.Generator, folder: Path, **settings: Any) -> NegativeMiner:
    """A miner that is fitted on a few rows, some with the same query, over so many passages."""
    passages = [f"passage {place}" for place in range(n_passages)]
    pairs = sorted({(int(rng.integers(4)), int(rng.integers(n_passages))) for _ in range(6)})
    queries = [f"query {place}" for place in range(4)]
    rows = Dataset.from_dict(
        {"query": [queries[query] for query, _ in pairs], "positive": [passages[place] for _, place in pairs]}
    )
    vectors = rng.standard_normal((2, 4, 5)), rng.standard_normal((2, n_passages, 5))
    teachers = [
        FixedTeacher(queries, of_queries, passages, of_passages)
        for of_queries, of_passages in zip(*vectors, strict=True)
    ]
    ensembles = {"cross": CrossSample, "intra": IntraSample}
    teacher = ensembles[kind](teachers) if kind in ensembles else teachers[0]
    settings |= {"corpus": passages, "cache_dir": folder, "progress": False}
    return NegativeMiner(teacher, **settings).fit(rows)


def told(one: Selection) -> list[Any]:
    """All that a selection says."""
    arrays = one.offsets, one.passages, one.scores, one.positive_scores, one.pair_scores, one.complete
    return [str(one.method), str(one.sampler), one.n, *(np.asarray(array).tolist() for array in arrays), [*one.status]]


def assert_each_as_alone(fresh: Callable[[], Any], methods: list[str], samplers: list[str], **options: Any) -> None:
    settings = list(itertools.product(methods, samplers))
    alone = [told(fresh().select(*setting, **options)) for setting in settings]
    assert [told(one) for one in fresh().sweep(methods, samplers, **options)] == alone


@examples(120)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["one", "one", "cross", "intra"]),
    n_passages=st.sampled_from([1, 2, 3, 17, 40]),
    depth=st.sampled_from([1, 3, 100]),
    first_pass=st.sampled_from(["float32", "bfloat16"]),
    filters=st.lists(st.sampled_from(["veto", "top_k", "min_score", "flag"]), max_size=2, unique=True),
    methods=st.lists(st.sampled_from(METHODS), min_size=1, max_size=3, unique=True),
    samplers=st.lists(st.sampled_from(SAMPLERS), min_size=1, max_size=2, unique=True),
    positive_score=st.sampled_from(["min", "each"]),
    later_veto=st.booleans(),
)
def test_a_sweep_is_each_setting_alone(
    seed: int,
    kind: str,
    n_passages: int,
    depth: int,
    first_pass: str,
    filters: list[str],
    methods: list[str],
    samplers: list[str],
    positive_score: str,
    later_veto: bool,
) -> None:
    known = {
        "veto": Veto(RandomTeacher(1), "abs:0.7"),
        "top_k": Consistency(top_k=3),
        "min_score": Consistency(min_score=-0.3),
        "flag": Consistency(top_k=2, action="flag"),
    }
    rules = [known[name] for name in filters]
    if kind != "one" or sum(isinstance(one, Consistency) for one in rules) > 1:  # refused
        rules = [one for one in rules if not isinstance(one, Consistency)]
    options = {
        "n": 1 if n_passages == 2 and kind != "intra" else 2,
        "seed": 3,
        "filters": [Veto(RandomTeacher(2), "abs:0.8")] if later_veto else [],
    }

    def fresh() -> Any:
        folder = tempfile.mkdtemp(dir=root)
        given = {"pool_depth": depth, "first_pass": first_pass, "filters": rules, "positive_score": positive_score}
        return miner_of(
            kind, n_passages, np.random.default_rng(seed), Path(folder), num_negatives=options["n"], **given
        ).pool

    with tempfile.TemporaryDirectory() as root:
        if n_passages == 1 or (n_passages == 2 and kind == "intra"):
            with pytest.raises(InputError):
                fresh()
            return
        assert_each_as_alone(fresh, methods, samplers, **options)


@pytest.mark.parametrize("first_pass", ["float32", "bfloat16"])
def test_a_sweep_over_more_passages_than_a_block_is_each_setting_alone(first_pass: str, tmp_path: Path) -> None:
    places = itertools.count()

    def fresh() -> Any:
        folder = tmp_path / str(next(places))
        rng = np.random.default_rng(1)
        return miner_of("one", 8193, rng, folder, pool_depth=5, first_pass=first_pass, num_negatives=3).pool

    assert_each_as_alone(
        fresh, [*METHODS, "shifted:4000", "band:8180-8193", "band:10%-11%"], ["top", "sampled:50"], n=3
    )


@pytest.mark.parametrize("seed", [1.5, "3", None, True])
@pytest.mark.parametrize("kind", ["one", "cross"])
def test_a_seed_that_would_be_read_as_another_is_refused(kind: str, seed: Any, tmp_path: Path) -> None:
    pool = miner_of(kind, 17, np.random.default_rng(1), tmp_path, num_negatives=2).pool
    with pytest.raises(InputError, match="seed: a whole number, got"):
        pool.select("naive", "sampled:6", 2, seed=seed)
    with pytest.raises(InputError, match="seed: a whole number, got"):
        pool.sweep(["naive"], ["sampled:6"], 2, seed=seed)
    with pytest.raises(InputError, match="RandomTeacher: seed: a whole number, got"):
        RandomTeacher(seed)
    seeds = [np.int64(3), 3]
    first, second = (told(pool.select("naive", "sampled:6", 2, seed=one)) for one in seeds)
    assert first == second


@examples(40)
@given(seed=st.integers(0, 2**32 - 1), methods=st.lists(st.sampled_from(METHODS), min_size=1, max_size=4, unique=True))
def test_a_sweep_of_lists_is_each_setting_alone(seed: int, methods: list[str]) -> None:
    rng = np.random.default_rng(seed)
    queries = {f"q{place}": f"query {place}" for place in range(4)}
    documents = {f"d{place}": f"passage {place}" for place in range(30)}
    lists = {
        query: {f"d{one}": float(rng.random()) for one in rng.choice(30, rng.integers(3, 12), replace=False)}
        for query in queries
    }
    positives = {query: [next(iter(found))] for query, found in lists.items()}
    with tempfile.TemporaryDirectory() as root:

        def fresh() -> CandidatePool:
            folder = tempfile.mkdtemp(dir=root)
            return CandidatePool.from_lists(queries, documents, lists, positives, cache_dir=folder, progress=False)

        assert_each_as_alone(fresh, methods, SAMPLERS[:3], n=2)
