"""What the tests of the studies share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def encoder(models: Path) -> str:
    """The folder of a Sentence Transformers model of 32 dimensions and one layer."""
    return str(models / "dense")
