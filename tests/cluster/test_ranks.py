"""However many ranks fill the parts, and whenever one is killed, a fit ends with the bytes of one process."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_negmine import steps
from hf_negmine.cluster import encode_share, search_share, search_slices, select_share
from hf_negmine.data.texts import open_text_set
from hf_negmine.pool import parts, rankings
from hf_negmine.teachers import pair_store
from tests.faults.world import ROWS, RUNS, miner_of, small
from tests.forks import exit_of, exits_of, forks
from tests.thorough import sample

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), forks]

STAGES = (encode_share, search_slices, search_share, select_share)
WHAT_COUNTS = ["pools", "fits", "mined"]
MAY_DIFFER = ("fit.json",)
"""It holds times."""


def contents(cache: Path, kinds: list[str]) -> dict[str, bytes]:
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for kind in kinds
        for path in sorted((cache / kind).rglob("*"))
        if path.is_file() and path.name not in MAY_DIFFER and "/." not in str(path.relative_to(cache))
    }


def small_files(in_slices: bool) -> None:
    small()
    if not in_slices:
        parts.PASSAGES_A_SLICE = 2**22


def fit(run: str, cache: Path, *, in_slices: bool = True) -> None:
    small_files(in_slices)
    miner_of(run, cache).mine(Dataset.from_dict(ROWS))


def in_ranks(
    run: str,
    cache: Path,
    stage: Any,
    ranks: Sequence[int],
    world_size: int,
    dies_at: int | None = None,
    *,
    in_slices: bool = True,
) -> list[int]:
    """How ranks end, all at once, each in a fork that perhaps kills itself before it gives a file its name."""

    def work(rank: int) -> None:
        small_files(in_slices)
        names = 0

        def counted(real: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: Any, **named: Any) -> None:
                nonlocal names
                if names == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                names += 1
                real(*arguments, **named)

            return call

        os.replace, os.rename = counted(os.replace), counted(os.rename)
        (texts,) = (path for path in (cache / "texts").iterdir() if not path.name.startswith("."))
        stage(miner_of(run, cache).config, open_text_set(texts), rank, world_size)

    return exits_of([partial(work, rank) for rank in ranks])


def read(run: str, cache: Path) -> int:
    return exit_of(lambda: steps.read(miner_of(run, cache).config, Dataset.from_dict(ROWS), None))


@pytest.fixture(scope="module")
def of_one_process(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def cache_of(run: str) -> Path:
        if run not in made:
            made[run] = tmp_path_factory.mktemp(run)
            assert exit_of(lambda: fit(run, made[run], in_slices=False)) == 0
        return made[run]

    return cache_of


@pytest.mark.parametrize(
    ("run", "world_size"),
    [*(("dense", count) for count in (1, 2, 4, 7)), *((run, 4) for run in RUNS if run != "dense")],
)
def test_ranks_give_the_bytes_of_one_process(
    tmp_path: Path, run: str, world_size: int, of_one_process: Callable[[str], Path]
) -> None:
    assert read(run, tmp_path) == 0
    for stage in STAGES:
        assert in_ranks(run, tmp_path, stage, range(world_size), world_size) == [0] * world_size
    names = [path.stem for path in (tmp_path / "pools").glob("*/parts/*.npy")]
    whole = [name for name in names if "-" not in name]
    assert len(whole) % 3 == 0  # of 24 queries, 10 a part, for each teacher
    assert whole
    if run == "dense":
        assert len(names) - len(whole) == 3 * 3  # slices of 32 of 70 passages
    kinds = WHAT_COUNTS if run in ("streaming", "pairs") else [*WHAT_COUNTS, "vectors"]
    before = contents(tmp_path, ["vectors"])
    assert exit_of(lambda: fit(run, tmp_path)) == 0
    assert contents(tmp_path, kinds) == contents(of_one_process(run), kinds)
    if run not in ("judged", "streaming"):  # there a veto's teacher is asked, and parts are joined
        assert contents(tmp_path, ["vectors"]) == before


def test_slices_change_nothing(tmp_path: Path, of_one_process: Callable[[str], Path]) -> None:
    assert exit_of(lambda: fit("dense", tmp_path)) == 0
    kinds = [*WHAT_COUNTS, "vectors"]
    assert contents(tmp_path, kinds) == contents(of_one_process("dense"), kinds)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("dies_at", sample(range(12), 4))
def test_a_rank_that_is_killed_and_started_again_changes_nothing(
    tmp_path: Path, stage: int, dies_at: int, of_one_process: Callable[[str], Path]
) -> None:
    run = "sparse" if STAGES[stage] is select_share else "dense"  # a large corpus is not searched deeper in ranks
    assert read(run, tmp_path) == 0
    for number, work in enumerate(STAGES):
        ends = in_ranks(run, tmp_path, work, range(2), 2, dies_at if number == stage else None)
        assert set(ends) <= {0, -signal.SIGKILL}
        if number == stage and dies_at < 2:
            assert -signal.SIGKILL in ends
        assert in_ranks(run, tmp_path, work, range(2), 2) == [0, 0]
    assert exit_of(lambda: fit(run, tmp_path)) == 0
    kinds = [*WHAT_COUNTS, "vectors"]
    assert contents(tmp_path, kinds) == contents(of_one_process(run), kinds)


@pytest.mark.parametrize("run", [run for run in RUNS if run != "streaming"])
@pytest.mark.parametrize("pool_there", [False, True])
def test_the_last_step_searches_no_deeper_and_asks_nothing(
    tmp_path: Path, run: str, pool_there: bool, of_one_process: Callable[[str], Path]
) -> None:
    """But for what would be searched deeper once the whole pool is there."""
    assert read(run, tmp_path) == 0
    if pool_there:
        shutil.copytree(of_one_process(run) / "pools", tmp_path / "pools")
    for stage in STAGES:
        assert in_ranks(run, tmp_path, stage, range(3), 3, in_slices=False) == [0, 0, 0]

    def must_not(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the last step does what ranks should have done")

    def last() -> None:
        rankings.deepen = must_not  # type: ignore[assignment]
        pair_store._Writer.add = must_not  # type: ignore[method-assign, assignment]
        fit(run, tmp_path, in_slices=False)

    assert exit_of(last) == 0
    assert contents(tmp_path, WHAT_COUNTS) == contents(of_one_process(run), WHAT_COUNTS)


def test_a_rank_that_never_came_is_made_up_for(tmp_path: Path, of_one_process: Callable[[str], Path]) -> None:
    assert read("dense", tmp_path) == 0
    for stage in STAGES:
        assert in_ranks("dense", tmp_path, stage, [1], 4) == [0]
    assert exit_of(lambda: fit("dense", tmp_path)) == 0
    assert contents(tmp_path, WHAT_COUNTS) == contents(of_one_process("dense"), WHAT_COUNTS)


def test_ranks_of_a_finished_run_leave_it_alone(tmp_path: Path, of_one_process: Callable[[str], Path]) -> None:
    shutil.copytree(of_one_process("dense"), tmp_path / "cache")
    before = contents(tmp_path / "cache", [*WHAT_COUNTS, "vectors", "texts"])
    for stage in STAGES:
        assert in_ranks("dense", tmp_path / "cache", stage, range(2), 2) == [0, 0]
    assert contents(tmp_path / "cache", [*WHAT_COUNTS, "vectors", "texts"]) == before
