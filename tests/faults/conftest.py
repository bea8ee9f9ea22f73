"""The process that does the runs of `world`, for all tests of this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


class World:
    """The process that does the trials."""

    def __init__(self, folder: Path, server: subprocess.Popen[str]) -> None:
        self.folder, self._server = folder, server
        self.files: dict[str, list[str]] = self._answer()

    def try_out(self, trial: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(trial) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        return dict(json.loads(self._server.stdout.readline()))


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    with tempfile.TemporaryDirectory() as name:
        yield from _served(Path(name))


def _served(folder: Path) -> Iterator[World]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.world", str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        yield World(folder, server)
        assert server.stdin is not None
        server.stdin.close()
