"""A stand-in for the Hub that the clients of this process talk to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from sentence_transformers import SentenceTransformer

from hf_negmine.hub import data_files
from tests.hub.client import forget, point_clients_at
from tests.hub.server import Hub
from tests.hub.world import mine
from tests.train.helpers import load_model


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub; this process is logged in as ``tester`` with the token hf_test and has a home of its own."""
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "negmine"))
    with Hub() as running:
        point_clients_at(running, tmp_path / "hf_home", monkeypatch)
        yield running
        forget()
    assert not running.errors, f"the stand-in itself failed: {running.errors}"
    assert not running.strayed, f"a client looked for other hosts: {running.strayed}"


draw = data_files._figure


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the rest of a push."""
    monkeypatch.setattr(data_files, "_figure", lambda summary: None)


@pytest.fixture(scope="session")
def mined(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    """Rows that BM25 has mined, with scores; the note of their mining lies beside them."""
    return mine(tmp_path_factory.mktemp("mined"), "bm25", include_scores=True)


@pytest.fixture
def model(models: Path) -> SentenceTransformer:
    """A model of the test's own."""
    return load_model(models)
