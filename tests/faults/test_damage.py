"""One bit flipped, or the end cut off, anywhere in a cache: the same rows, or a sentence that names the file."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECONDS_A_TEST
from tests.faults.conftest import World
from tests.faults.world import UNFINISHED, kind_of
from tests.thorough import THOROUGH

TRIALS = int(os.environ.get("HF_NEGMINE_TRIALS", "2000" if THOROUGH else "25"))
SEED = int(os.environ.get("HF_NEGMINE_SEED", "0"))
Trial = dict[str, Any]


def trials_over(files: dict[str, list[str]]) -> list[Trial]:
    """Each kind of file in turn, at random places: flipped or cut, fitted again or only used."""
    chance = random.Random(SEED)
    kinds: dict[tuple[str, str], list[str]] = {}
    for run, paths in files.items():
        for path in paths:
            kinds.setdefault((run, kind_of(path)), []).append(path)
    order = sorted(kinds)
    chance.shuffle(order)
    trials = []
    for number in range(TRIALS):
        run, kind = order[number % len(order)]
        fit = run == UNFINISHED or chance.random() < 0.7
        how = "flip" if chance.random() < 0.7 else "cut"
        path = chance.choice(kinds[run, kind])
        trials.append({"run": run, "file": path, "how": how, "place": chance.random(), "fit": fit})
    return trials


def judged(trial: Trial, found: dict[str, Any], folder: Path) -> str:
    """How a trial ended, in a word."""
    if found["same"]:
        return "healed" if not found["left"] or not trial["fit"] else "left damaged"
    if "error" not in found:
        return next(key for key in ("rows", "exit", "exception") if key in found).replace("rows", "wrong")
    path = folder / trial["run"] / "cache" / trial["file"]
    named = str(path) in found["error"] or (str(path.parent) in found["error"] and "cache format" in found["error"])
    return "named" if named else "named another"


def test_an_honest_cache_gives_the_same_again(world: World) -> None:
    for run in world.files:
        for fit in (True, False) if run != UNFINISHED else (True,):
            found = world.try_out({"run": run, "file": None, "fit": fit})
            assert found["same"], (run, found)
            assert not found["left"]


def test_every_kind_of_file_is_there(world: World) -> None:
    kinds = {kind_of(path) for paths in world.files.values() for path in paths}
    assert kinds >= {
        "banks/*/0/bank.json", "banks/*/1/scores.npy", "banks/*/versions.json", "fits/*/consistent.npy",
        "fits/*/fit.json", "fits/*/relabelled_keeps.npy", "fits/*/relevant_passages.npy", "indexes/*.faiss",
        "indexes/*.json", "mined/*.arrow", "mined/*.json", "pairs/*/*.pairs", "pools/*/candidates-*.arrow",
        "pools/*/parts/*.npy", "pools/*/pool.json", "pools/*/positives.arrow", "pools/*/query_keys.npy",
        "texts/*/corpus/utf8.bin", "texts/*/texts.json",
        "vectors/*/shard-*/offsets.npy", "vectors/*/shard-*/shard.json", "vectors/*/shard-*/terms.npy",
        "vectors/*/shard-*/vectors.npy", "vectors/*/store.json",
    }  # fmt: skip


def test_damage_anywhere_is_healed_or_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    if hasattr(signal, "SIGALRM"):
        signal.alarm(SECONDS_A_TEST + TRIALS)  # thousands of them may be asked for
    ends: Counter[str] = Counter()
    strange = []
    for trial in trials_over(world.files):
        found = world.try_out(trial)
        end = judged(trial, found, world.folder)
        ends[end] += 1
        if end not in ("healed", "named"):
            strange.append((trial, end, found))
    with capsys.disabled():
        wrong = sum(count for end, count in ends.items() if end not in ("healed", "named"))
        print(f"\ndamage: {TRIALS} trials, {ends['healed']} healed, {ends['named']} named, {wrong} wrong")
    assert not strange, strange[:5]


def one_of(world: World, run: str, kind: str) -> Callable[..., dict[str, Any]]:
    path = next(path for path in world.files[run] if kind_of(path) == kind)

    def try_out(how: str, place: float, *, fit: bool) -> dict[str, Any]:
        return world.try_out({"run": run, "file": path, "how": how, "place": place, "fit": fit})

    return try_out


TO_BE_MADE_AGAIN = [
    ("dense", "texts/*/corpus/utf8.bin"), ("dense", "fits/*/scores.npy"), ("dense", "fits/*/fit.json"),
    ("dense", "pools/*/positives.arrow"), ("dense", "vectors/*/shard-*/vectors.npy"),
    ("dense", "vectors/*/store.json"), ("approximate", "indexes/*.faiss"), ("judged", "pairs/*/*.pairs"),
    (UNFINISHED, "pools/*/parts/*.npy"), ("dense", "mined/*.arrow"), ("dense", "banks/*/0/scores.npy"),
]  # fmt: skip
DAMAGES = [("flip", 0.5), ("cut", 0.5), ("cut", 0.0)]


@pytest.mark.parametrize(("run", "kind"), TO_BE_MADE_AGAIN)
def test_what_is_damaged_is_made_again_by_the_next_fit(world: World, run: str, kind: str) -> None:
    one = TO_BE_MADE_AGAIN.index((run, kind)) % len(DAMAGES)
    for how, place in DAMAGES if THOROUGH else DAMAGES[one : one + 1]:
        found = one_of(world, run, kind)(how, place, fit=True)
        assert found["same"], found
        assert not found["left"]


@pytest.mark.parametrize("kind", ["fits/*/passages.npy", "texts/*/corpus/utf8.bin", "fits/*/fit.json"])
def test_a_miner_that_is_fitted_already_says_that_fit_makes_it_again(world: World, kind: str) -> None:
    found = one_of(world, "dense", kind)("flip", 0.7, fit=False)
    assert "run fit again" in found["error"]
    assert kind.rpartition("/")[2] in found["error"]
