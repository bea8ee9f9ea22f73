"""A cache that cannot be written to: whatever it holds is used, and what it lacks is said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import World
from tests.faults.world import RUNS, kind_of


def read_only(world: World, run: str, **trial: Any) -> dict[str, Any]:
    found = world.try_out({"run": run, "file": None, "fit": True, "read_only": True, **trial})
    if found.get("not allowed"):
        pytest.skip("this user may not mount a folder read-only, and no permission stops it")
    assert found["unchanged"], "something was written"
    return found


@pytest.mark.parametrize("fit", [True, False])
@pytest.mark.parametrize("run", RUNS)
def test_a_cache_that_holds_everything_is_enough(world: World, run: str, fit: bool) -> None:
    found = read_only(world, run, fit=fit)
    assert found["same"], found


@pytest.mark.parametrize(
    ("without", "missing"), [("texts", "/texts/"), ("pools", "/pools/"), ("fits", "/fits/"), ("banks", "/banks/")]
)
def test_what_is_missing_is_said(world: World, without: str, missing: str) -> None:
    message = read_only(world, "dense", without=[without])["error"]
    assert missing in message
    assert "is missing, and" in message
    assert "cannot be written to" in message


def test_missing_vectors_are_said_before_anything_is_encoded(world: World) -> None:
    message = read_only(world, "sparse", without=["vectors", "pools"])["error"]
    assert "is missing, and" in message


@pytest.mark.parametrize("kind", ["fits/*/scores.npy", "texts/*/corpus/utf8.bin", "pools/*/positives.arrow"])
def test_what_is_damaged_is_named(world: World, kind: str) -> None:
    path = next(path for path in world.files["dense"] if kind_of(path) == kind)
    message = read_only(world, "dense", file=path, how="flip", place=0.6)["error"]
    assert f"{path} is damaged" in message
