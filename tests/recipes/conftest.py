"""What the tests of the studies share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub.client import forget, point_clients_at
from tests.hub.server import Hub


@pytest.fixture(scope="session")
def encoder(models: Path) -> str:
    """The folder of a Sentence Transformers model of 32 dimensions and one layer."""
    return str(models / "dense")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The stand-in for the Hub, for all tests of a file; what they mine is kept in a folder of their own."""
    folder = tmp_path_factory.mktemp("home")
    with Hub() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_NEGMINE_CACHE", str(folder / "negmine"))
        point_clients_at(running, folder, patch)
        yield running
        forget()
    assert not running.errors
    assert not running.strayed
