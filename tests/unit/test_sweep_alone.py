"""A sweep takes and refuses what `select` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_negmine import CrossSample, IntraSample, NegativeMiner, RandomTeacher
from hf_negmine.base.errors import InputError

ROWS = {"query": [f"query {i}" for i in range(8)], "answer": [f"answer {i}" for i in range(8)]}


def pool_of(folder: Path, teacher: Any) -> Any:
    from datasets import Dataset

    miner = NegativeMiner(teacher, num_negatives=4, cache_dir=folder, progress=False, positive_column="answer")
    return miner.fit(Dataset.from_dict(ROWS)).pool


@pytest.mark.parametrize("sampler", ["sampled:3", "mixed:1+1@3"])
def test_a_sampler_of_an_ensemble_draws_each_teachers_share(tmp_path: Path, sampler: str) -> None:
    pool = pool_of(tmp_path, IntraSample([RandomTeacher(1), RandomTeacher(2)]))
    alone = pool.select("naive", sampler, 4)
    (swept,) = pool.sweep(["naive"], [sampler], 4)
    assert (swept.offsets.tolist(), swept.passages.tolist()) == (alone.offsets.tolist(), alone.passages.tolist())


@pytest.mark.parametrize("teacher", [RandomTeacher(), CrossSample([RandomTeacher(1), RandomTeacher(2)])])
@pytest.mark.parametrize("settings", [{"n": "2"}, {"n": 2, "seed": "1"}, {"n": 2, "seed": 1.5}, {"n": 2, "seed": None}])
def test_n_and_seed_are_whole_numbers(tmp_path: Path, teacher: Any, settings: dict[str, Any]) -> None:
    pool = pool_of(tmp_path, teacher)
    for choose in (lambda: pool.select("naive", "top", **settings), lambda: pool.sweep(["naive"], **settings)):
        with pytest.raises(InputError, match="a whole number"):
            choose()


@pytest.mark.parametrize("seed", ["1", 1.5])
def test_the_seed_of_a_teacher_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(InputError, match="RandomTeacher: seed: a whole number, got"):
        RandomTeacher(seed)
