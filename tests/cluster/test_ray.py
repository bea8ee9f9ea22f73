"""`mine --executor ray` on a real Ray of this machine. Starting it takes about five seconds, which all tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_negmine import InputError
from hf_negmine.cluster import mine_in_ranks, parse_executor
from hf_negmine.cluster.executors import RETRIES, RankError
from tests.cluster.test_executors import files, miner_in, rows


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="needs the package ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


class Killed:
    """Notes that rank 1 has come, and kills it the first times."""

    def __init__(self, noted: Path, times: int) -> None:
        self.noted, self.times = noted, times

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        if rank == 1:
            with open(self.noted, "ab") as file:
                file.write(b"x")
            if self.noted.stat().st_size <= self.times:
                os.kill(os.getpid(), signal.SIGKILL)


def fails(data: Any, rank: int, world_size: int) -> None:
    raise InputError(f"rank {rank} of {world_size}")


@pytest.mark.usefixtures("_ray")
def test_tasks_do_what_one_process_does(tmp_path: Path) -> None:
    ranks, alone = miner_in(tmp_path / "ranks"), miner_in(tmp_path / "alone")
    parts: list[int] = []

    def finish() -> None:
        parts.append(len(list((tmp_path / "ranks" / "pools").glob("*/parts/*.npy"))))
        ranks.fit(rows())

    assert mine_in_ranks(parse_executor("ray:tasks=2"), ranks.config, rows(), finish) is None
    assert parts == [3]
    assert ranks.mine(rows()).to_list() == alone.mine(rows()).to_list()
    assert files(tmp_path / "ranks") == files(tmp_path / "alone")


@pytest.mark.usefixtures("_ray")
def test_a_rank_that_is_killed_is_run_again(tmp_path: Path) -> None:
    done: list[bool] = []
    parse_executor("ray:tasks=2").run([Killed(tmp_path / "noted", 1)], lambda: done.append(True), tmp_path)
    assert (tmp_path / "noted").read_bytes() == b"xx"
    assert done == [True]


@pytest.mark.usefixtures("_ray")
def test_a_rank_that_is_always_killed_or_fails_is_an_error(tmp_path: Path) -> None:
    executor = parse_executor("ray:tasks=2")
    with pytest.raises(RankError, match=rf"one of 2 Ray tasks was killed {RETRIES + 1} times.*run the same again"):
        executor.run([Killed(tmp_path / "noted", 99)], lambda: pytest.fail("it is not done"), tmp_path)
    with pytest.raises(InputError, match=r"^rank [01] of 2$"):
        executor.run([fails], lambda: pytest.fail("it is not done"), tmp_path)


def test_without_ray_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "hf_negmine\[ray\]"'):
        parse_executor("ray").run([fails], lambda: None, tmp_path)
