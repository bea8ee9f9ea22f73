"""What the tests of the studies share."""

from __future__ import annotations

import pytest

from tests.train.helpers import load_model, write_models


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a Sentence Transformers model of 32 dimensions and one layer."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    load_model(folder).save(str(folder / "dense"))
    return str(folder / "dense")
