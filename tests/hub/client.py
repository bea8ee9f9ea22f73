"""Points the real clients at the stand-in: in this process, and in one of their own."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import datasets
import datasets.arrow_dataset
import datasets.dataset_dict
import datasets.utils.file_utils
import huggingface_hub
import huggingface_hub.file_download
import huggingface_hub.hf_api
import huggingface_hub.utils._cache_manager
import huggingface_hub.utils._http
import pytest
import transformers.dynamic_module_utils
import transformers.utils.hub
from huggingface_hub import HfFileSystem, constants

from tests.hub.names import local_names
from tests.hub.server import Hub

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_test"
MOST_WAITS = 50
STAY_HERE = "import socket; from tests.hub.names import local_names; socket.getaddrinfo = local_names([])\n"

UNSET = (
    "HUGGING_FACE_HUB_TOKEN",
    "HF_OIDC_RESOURCE",
    "HF_TOKEN_PATH",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ASSETS_CACHE",
    "HF_XET_CACHE",
    "HF_DATASETS_CACHE",
    "HF_MODULES_CACHE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "SENTENCE_TRANSFORMERS_HOME",
)


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Variables for a process that talks to the stand-in, in the place of those in `UNSET`."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": "127.0.0.1,localhost",
    }


class Clock:
    """The module `time` for a client that sleeps before it tries again: the waits are kept, not waited."""

    def __init__(self, waits: list[float]) -> None:
        self._waits = waits

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        if len(self._waits) >= MOST_WAITS:
            raise AssertionError(f"a client waited {MOST_WAITS} times and would wait for ever")
        self._waits.append(seconds)


def point_clients_at(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo in this process what the clients read from the environment when they were imported."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(hub, home).items():
        monkeypatch.setenv(name, value)
    _patch_hub_client(hub, home, monkeypatch)
    _patch_datasets(hub, home, monkeypatch)
    _patch_transformers(home, monkeypatch)
    _patch_clocks(hub, monkeypatch)
    monkeypatch.setattr(socket, "getaddrinfo", local_names(hub.strayed))
    # huggingface_hub uploads large files so. Pytest forgets the filter with the test.
    warnings.filterwarnings("ignore", "Use 'content=<...>' to upload raw bytes", DeprecationWarning)
    forget()


def _patch_hub_client(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = str(home / "hub")
    values = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": cache,
        "HUGGINGFACE_HUB_CACHE": cache,
        "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_XET_CACHE": str(home / "xet"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
    }
    for name, value in values.items():
        monkeypatch.setattr(constants, name, value, raising=False)
    # Made at import: the functions huggingface_hub.create_repo, .upload_folder and the like belong to this object.
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr(huggingface_hub.utils._cache_manager, "HF_HUB_CACHE", cache)
    # Asked for once a process, with the first request; older versions do not ask.
    if importlib.util.find_spec("huggingface_hub.utils._detect_agent"):
        nothing: dict[str, Any] = {"standardEnvVars": [], "harnesses": {}}
        monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", nothing, raising=False)


def _patch_datasets(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = home / "datasets"
    values = {
        "HF_ENDPOINT": hub.url,
        "HUB_DATASETS_URL": hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": False,
        "HF_DATASETS_OFFLINE": False,
        "HF_CACHE_HOME": str(home),
        "HF_DATASETS_CACHE": cache,
        "HF_MODULES_CACHE": home / "modules",
        "DOWNLOADED_DATASETS_PATH": cache / "downloads",
        "EXTRACTED_DATASETS_PATH": cache / "downloads" / "extracted",
        # These would go to s3.amazonaws.com and to the host datasets-server.127.0.0.1.
        "HF_UPDATE_DOWNLOAD_COUNTS": False,
        "USE_PARQUET_EXPORT": False,
    }
    for name, value in values.items():
        monkeypatch.setattr(datasets.config, name, value, raising=False)


def _patch_transformers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (transformers.utils.hub, transformers.utils, transformers.dynamic_module_utils):
        monkeypatch.setattr(module, "HF_MODULES_CACHE", str(home / "modules"), raising=False)
    # Made with the first request, and kept with the address that it had then.
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)


def _patch_clocks(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = (
        huggingface_hub.utils._http,
        huggingface_hub.file_download,
        datasets.arrow_dataset,
        datasets.dataset_dict,
        datasets.utils.file_utils,
    )
    for module in waiting:
        monkeypatch.setattr(module, "time", Clock(hub.waits), raising=False)


def forget() -> None:
    """Drop open connections and what file systems remember: another stand-in may get the same port."""
    getattr(huggingface_hub, "close_session", lambda: None)()
    HfFileSystem.clear_instance_cache()


def run_client(code: str, hub: Hub, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with the home of the test's clients."""
    kept = {name: value for name, value in os.environ.items() if name not in UNSET}
    folder = Path(os.environ["HF_HOME"])
    return subprocess.run(
        [sys.executable, "-c", STAY_HERE + code],
        env={**kept, **environment(hub, folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
