"""`mine --executor jobs:…`: the requests that reach a stand-in for the Hub, and what they would run, run here."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from hf_negmine import InputError, load_mined
from hf_negmine.cluster import parse_executor
from hf_negmine.commands.cli import app
from tests.cluster.test_executors import pairs as pairs
from tests.conftest import ROOT
from tests.hub.client import forget, point_clients_at
from tests.hub.server import Hub

JOBS = "jobs:flavor=a10g-small,tasks=2,timeout=2h"
pytestmark = pytest.mark.skipif(not hasattr(HfApi, "wait_for_job"), reason="needs a newer huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        point_clients_at(running, tmp_path / "hf_home", monkeypatch)
        yield running
        forget()
    assert not running.errors, f"the stand-in itself failed: {running.errors}"
    assert not running.strayed


def mined(pairs: Path, output: Path, *more: str) -> Any:
    options = ["-t", "bm25", "-n", "2", "-m", "naive", "-o", str(output), "--cache-dir", f"{output}-cache", *more]
    return CliRunner().invoke(app, ["mine", str(pairs), *options])


def test_jobs_do_what_one_process_does(hub: Hub, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []

    def run_here(request: dict[str, Any]) -> str:
        """What uv would run, after it has installed the packages."""
        python = request["command"].index("python")
        arguments = request["command"][python + 2 :]
        with monkeypatch.context() as there:
            there.setenv("HF_NEGMINE_CACHE", str(tmp_path / f"machine-{len(hub.asked('/api/jobs/'))}"))
            there.setattr(sys, "argv", arguments)
            there.delitem(sys.modules, arguments[0], raising=False)
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        parts.append(len(list((tmp_path / "store").glob("pools/*/parts/*.npy"))))
        return "COMPLETED"

    hub.state.run_job = run_here
    monkeypatch.setenv("STORE_KEY", "a secret")
    store = f"file://{tmp_path}/store"
    done = mined(pairs, tmp_path / "ranks", "--executor", f"{JOBS},secrets=STORE_KEY", "--store", store)
    assert done.exit_code == 0, done.output
    assert mined(pairs, tmp_path / "alone").exit_code == 0
    assert (tmp_path / "ranks" / "data.parquet").read_bytes() == (tmp_path / "alone" / "data.parquet").read_bytes()
    assert parts == [0, 0, 1, 1]
    assert [request["command"][-3:] for request in hub.state.jobs] == [
        [work, rank, "2"] for work in ("encode_share", "search_share") for rank in "01"
    ]
    for request in hub.state.jobs:
        assert request["command"][:3] == ["uv", "run", "--with"]
        assert request["command"][3].startswith("hf_negmine==")
        assert request["command"][4:8] == ["python", "-m", "hf_negmine.cluster.rank", store]
        assert (request["flavor"], request["timeoutSeconds"]) == ("a10g-small", 7200)
        assert request["secrets"] == {"HF_TOKEN": "hf_test", "STORE_KEY": "a secret"}
        assert "a secret" not in str({**request, "secrets": None})


def test_the_script_of_the_docs_mines_and_pushes(
    hub: Hub, pairs: Path, tmp_path: Path, minilm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(# /// script\n.*?)```", page, re.DOTALL)
    assert "intfloat/e5-base-v2" in script
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["job.py", str(pairs), "tester/mined"])
    exec(script.replace("intfloat/e5-base-v2", minilm), {"__name__": "__main__"})
    assert len(load_mined("tester/mined").rows) == 8


def test_a_job_that_fails_is_named(hub: Hub, pairs: Path, tmp_path: Path) -> None:
    hub.state.run_job = lambda request: "ERROR" if request["command"][-2] == "1" else "COMPLETED"
    done = mined(pairs, tmp_path / "out", "--executor", JOBS, "--store", f"file://{tmp_path}/store")
    assert done.exit_code == 1
    assert f"1 of 2 jobs did not complete (ERROR {hub.url}/jobs/tester/1, where its log is)" in done.output
    assert "run the same again" in done.output
    assert len(hub.state.jobs) == 2  # nothing is searched before all is encoded


def test_what_jobs_need_is_said_before_anything_runs(
    hub: Hub, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(executor: str, *more: str) -> str:
        done = mined(pairs, tmp_path / "out", "--executor", executor, *more)
        assert done.exit_code == 1
        return " ".join(done.output.split())

    store = ("--store", f"file://{tmp_path}/store")
    assert "share no disk; give a store" in said(JOBS)
    assert "secrets names NO_SUCH, which the environment lacks" in said(f"{JOBS},secrets=NO_SUCH", *store)
    hub.fail("POST", "/api/jobs/", status=402)
    assert "running jobs on a10g-small: the Hub answered 402" in said(JOBS, *store)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert "running jobs on a10g-small" in said(JOBS, *store)
    assert not hub.state.jobs
    with pytest.raises(InputError, match="lacks timeout"):
        parse_executor("jobs:flavor=a10g-small,tasks=2")
