"""Models that are made once."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from hf_negmine import NegativeMiner
from tests.train.helpers import load_model, make_miner


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> None:
    """Accelerate collects garbage at every training run, which takes longer than the run with so much imported."""
    gc.freeze()


@pytest.fixture(scope="session")
def frozen(models: Path) -> SentenceTransformer:
    """A model that no test trains."""
    return load_model(models)


@pytest.fixture
def model(models: Path) -> SentenceTransformer:
    """A model of the test's own."""
    return load_model(models)


@pytest.fixture
def miner(tmp_path: Path) -> NegativeMiner:
    """A miner of the test's own, not fitted."""
    return make_miner(tmp_path / "cache")
