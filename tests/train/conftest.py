"""Models that are made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from tests.train.helpers import load_model, make_miner, write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the untrained models."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="session")
def frozen(models: Path) -> SentenceTransformer:
    """A model that no test trains."""
    return load_model(models)


@pytest.fixture
def model(models: Path) -> SentenceTransformer:
    """A model of the test's own."""
    return load_model(models)


@pytest.fixture
def miner(tmp_path: Path):  # type: ignore[no-untyped-def]
    return make_miner(tmp_path / "cache")
