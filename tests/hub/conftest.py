"""A stand-in for the Hub that the clients of this process talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.client import forget, point_clients_at
from tests.hub.server import Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub; this process is logged in as ``tester`` with the token hf_test and has a home of its own."""
    with Hub() as running:
        point_clients_at(running, tmp_path / "hf_home", monkeypatch)
        yield running
        forget()
    assert not running.errors, f"the stand-in itself failed: {running.errors}"
    assert not running.strayed, f"a client looked for other hosts: {running.strayed}"
