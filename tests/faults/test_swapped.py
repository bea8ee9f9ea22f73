"""Folders of a cache that are whole, and in one another's place: after a restore or a merge that went wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import DamagedError
from tests.unit.test_miner import ROWS, WordTeacher


def miner_of(weights: str, cache: Path) -> NegativeMiner:
    columns: dict[str, Any] = {"query_column": "query", "positive_column": "positive"}
    return NegativeMiner(
        Other() if weights == "2" else WordTeacher(), method="naive", cache_dir=cache, progress=False, **columns
    )


class Other(WordTeacher):
    """Another teacher, whose vectors have the same shapes."""

    def __init__(self) -> None:
        super().__init__("2")

    def encode(self, texts: Any, role: Any) -> Any:
        return super().encode(texts, role)[:, ::-1] ** 3


def folders(kind: str, cache: Path) -> list[Path]:
    return sorted(path for path in cache.glob(kind) if path.is_dir() and not path.name.startswith("."))


@pytest.mark.parametrize(
    ("kind", "without"),
    [
        ("fits/*", ()),
        ("pools/*", ("fits",)),
        ("vectors/*/shard-*", ("fits", "pools")),
        ("vectors/*", ("fits", "pools")),
        ("texts/*", ("fits", "pools")),
    ],
)
def test_a_folder_in_the_place_of_another_is_made_again(
    tmp_path: Path, kind: str, without: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    rows = ROWS.select(range(20)) if kind == "texts/*" else ROWS
    wanted = [miner_of("1", tmp_path / "honest").mine(ROWS)[:], miner_of("2", tmp_path / "honest").mine(rows)[:]]
    cache = tmp_path / "cache"
    miner_of("1", cache).mine(ROWS)
    miner_of("2", cache).mine(rows)
    for name in (*without, "mined"):
        shutil.rmtree(cache / name)
    swapped = folders(kind, cache)
    if kind == "vectors/*/shard-*":  # shards of the same texts by two teachers
        swapped = [path for path in swapped if path.name == swapped[0].name]
    swap(*swapped[:2])
    for _ in range(2):
        assert miner_of("1", cache).mine(ROWS)[:] == wanted[0]
        assert miner_of("2", cache).mine(rows)[:] == wanted[1]
    assert "is set aside and will be made again" in caplog.text


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_a_miner_whose_fit_was_swapped_says_so(tmp_path: Path) -> None:
    miners: list[Callable[..., Any]] = []
    for weights in "12":
        miner = miner_of(weights, tmp_path).fit(ROWS)
        miner.__dict__.pop("fitted", None)
        miners.append(miner.mine)
    swap(*folders("fits/*", tmp_path))
    for mine in miners:
        with pytest.raises(DamagedError, match=r"fits/.* is damaged: it was written as fits/.*run fit again"):
            mine(ROWS)
