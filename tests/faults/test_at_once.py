"""Several runs that begin at the same moment with the same cache: an empty one, a whole one, a damaged one."""

from __future__ import annotations

import pytest

from tests.faults.conftest import World
from tests.faults.world import UNFINISHED, kind_of
from tests.thorough import sample

AT_ONCE = 3
EVERYTHING = ["texts", "vectors", "pools", "fits", "mined", "banks"]
DAMAGED = [
    ("dense", "texts/*/texts.json"), ("dense", "pools/*/pool.json"), ("dense", "pools/*/positives.arrow"),
    ("dense", "fits/*/passages.npy"), ("dense", "vectors/*/shard-*/vectors.npy"), ("streaming", "vectors/*/store.json"),
    ("approximate", "indexes/*.faiss"), (UNFINISHED, "pools/*/parts/*.npy"), ("pairs", "pairs/*/*.pairs"),
]  # fmt: skip


@pytest.mark.parametrize("run", sample(["dense", "streaming", "pairs", UNFINISHED], 3))
def test_runs_at_once_give_what_one_gives(world: World, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    without = [name for name in EVERYTHING if run != UNFINISHED or name == "fits"]
    without = [name for name in without if any(path.startswith(name) for path in world.files[run])]
    found = world.try_out({"run": run, "file": None, "fit": True, "at_once": AT_ONCE, "without": without})
    assert found["same"], found["ends"]
    with capsys.disabled():
        print(f"\nat once: {AT_ONCE} runs over one new cache, 0 wrong")


@pytest.mark.parametrize(("run", "kind"), sample(DAMAGED, 4))
def test_runs_at_once_heal_a_damaged_cache_together(world: World, run: str, kind: str) -> None:
    path = next(path for path in world.files[run] if kind_of(path) == kind)
    trial = {"run": run, "file": path, "how": "flip", "place": 0.6, "fit": True, "at_once": AT_ONCE}
    found = world.try_out(trial)
    assert found["same"], found["ends"]
