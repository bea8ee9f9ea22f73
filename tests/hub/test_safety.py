"""What comes from the Hub is not trusted, and what goes there tells nothing of this machine."""

from __future__ import annotations

import getpass
import io
import itertools
import json
import logging
import pickle
import socket
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from hf_negmine import load_mined, push_dataset, push_model
from hf_negmine.base.errors import StorageError
from hf_negmine.hub.network import HubError
from hf_negmine.hub.provenance import check_path
from hf_negmine.pool import CandidatePool
from tests.hub.server import Hub
from tests.hub.world import NAME, mine

OUTSIDE = [
    "../secret",
    "/etc/passwd",
    "data/../../secret",
    "..\\secret",
    "C:\\secret",
    "C:/secret",
    "..",
    "",
    "a/*/b",
    "a\0b",
]
HOST = "rechner-im-keller"
POOL = "negmine/default/train-pool/"


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.fixture
def pushed(hub: Hub, tmp_path: Path) -> Hub:
    """A hub that holds a mined data set with its pool."""
    push_dataset(mine(tmp_path / "cache"), NAME, license="mit", with_pool=True)
    return hub


def change(hub: Hub, path: str, **new: Any) -> None:
    content = json.loads(hub.files("dataset", NAME)[path])
    hub.commit("dataset", NAME, {path: json.dumps({**content, **new}).encode()})


def snapshot(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


class TestWhatComes:
    @pytest.mark.parametrize("path", OUTSIDE)
    def test_paths_that_leave_the_folder(self, path: str) -> None:
        with pytest.raises(StorageError, match="would leave its folder"):
            check_path(path, "it")

    def test_provenance_that_names_files_outside(self, pushed: Hub, tmp_path: Path) -> None:
        files = json.loads(pushed.files("dataset", NAME)["negmine/default/train.json"])["files"]
        pushed.requests.clear()
        paths = ("../../secret.parquet", "/secret.parquet", "..\\secret.parquet")
        for kind, path in itertools.product(("data", "corpus", "pool", "unheard_of"), paths):
            change(pushed, "negmine/default/train.json", files={**files, kind: [path]})
            with pytest.raises(StorageError, match="would leave its folder; nothing was read"):
                load_mined(NAME, cache_dir=tmp_path / "elsewhere")
        assert not (tmp_path / "elsewhere").exists()
        assert not [request for request in pushed.requests if "secret" in request.path]

    def test_a_pool_that_names_files_outside(self, pushed: Hub, tmp_path: Path) -> None:
        for name in ("../../x", "/x", "a/b", "..", "", None, 3, ["x"], "0123456789ab/../x"):
            change(pushed, POOL + "pool.json", lists=name)
            with pytest.raises(StorageError, match="not a name that hf_negmine gives"):
                load_mined(NAME, cache_dir=tmp_path / "elsewhere")
            assert not list((tmp_path / "elsewhere" / "pools").iterdir())

    def test_a_pool_of_more_queries_than_there_are(self, pushed: Hub) -> None:
        for n_queries in (10**15, -1, "12", None, 3):
            change(pushed, POOL + "pool.json", n_queries=n_queries)
            with pytest.raises(StorageError, match="expected"):
                load_mined(NAME)

    def test_a_pool_of_other_texts(self, pushed: Hub) -> None:
        other = io.BytesIO()
        np.save(other, np.arange(12, dtype=np.uint64))
        pushed.commit("dataset", NAME, {POOL + "query_keys.npy": other.getvalue()})
        with pytest.raises(StorageError, match="belongs to other texts"):
            load_mined(NAME)

    def test_a_pool_that_names_passages_that_are_not_there(self, hub: Hub, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        mined = mine(cache)
        (folder,) = (cache / "pools").iterdir()
        pool = CandidatePool.load(folder)
        lists = pool.lists
        wrong = np.array(lists.passages)
        wrong[3] = 99
        pool.lists = type(lists)(wrong, *(getattr(lists, name) for name in list(lists.__dataclass_fields__)[1:]))
        pool.save(folder)
        push_dataset(mined, NAME, license="mit", with_pool=True)
        with pytest.raises(StorageError, match="damaged"):
            load_mined(NAME)

    def test_nothing_is_unpickled(self, pushed: Hub, tmp_path: Path) -> None:
        mark, array, archive = tmp_path / "exploded", io.BytesIO(), io.BytesIO()
        np.save(array, np.array([Bomb(mark)] * 12, dtype=object), allow_pickle=True)
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("a.npy", b"\x93NUMPY")
        for content in (array.getvalue(), pickle.dumps(Bomb(mark)), archive.getvalue()):
            pushed.commit("dataset", NAME, {POOL + "query_keys.npy": content})
            with pytest.raises(StorageError):
                load_mined(NAME)
            assert not mark.exists()

    def test_code_in_a_repository_is_not_run(self, pushed: Hub, tmp_path: Path) -> None:
        mark = tmp_path / "exploded"
        code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n".encode()
        pushed.commit("dataset", NAME, {"one.py": code, "data/default/one.py": code, "setup.py": code})
        load_mined(NAME)
        assert not mark.exists()
        assert not pushed.asked(r"\.py$")

    def test_only_what_the_provenance_names_is_fetched(self, pushed: Hub) -> None:
        pushed.commit("dataset", NAME, {"large/other.parquet": b"large"})
        pushed.requests.clear()
        load_mined(NAME)
        assert not pushed.asked("/resolve/.*large")

    def test_ids_that_are_not_there(self, pushed: Hub) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for ids in ([99], [-1]):
            content = io.BytesIO()
            pq.write_table(pa.table({"query_id": ids, "document_id": [0], "score": [0.5]}), content)
            path = "lookups/default/train/pairs-00000-of-00001.parquet"
            pushed.commit("dataset", NAME, {path: content.getvalue()})
            with pytest.raises(StorageError, match="not there"):
                load_mined(NAME)

    def test_a_model_of_pickled_weights_is_not_loaded_over_ours(self, hub: Hub, model: SentenceTransformer) -> None:
        push_model(model, NAME)
        hub.commit("model", NAME, {"pytorch_model.bin": pickle.dumps(1)})
        push_model(model, NAME)
        assert not [path for path in hub.files("model", NAME) if path.endswith((".bin", ".pt", ".pkl"))]


def secrets(hub: Hub, tmp_path: Path) -> set[bytes]:
    """What nothing that is pushed, printed or logged may hold."""
    addresses = {hub.url.removeprefix("http://"), hub.storage_url.removeprefix("http://")}
    found = {"hf_test", "Nutzername", str(tmp_path), str(Path.home()) + "/", HOST, str(Path(__file__).parents[2])}
    return {text.encode() for text in found | addresses}


def check_files(files: Mapping[str, bytes], forbidden: set[bytes]) -> None:
    for path, data in files.items():
        for secret in forbidden:
            assert secret not in data, f"{path} holds {secret.decode()}"


@pytest.mark.parametrize("push", ["dataset", "model", "refused"])
def test_nothing_of_this_machine_is_told(
    hub: Hub,
    tmp_path: Path,
    model: SentenceTransformer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    push: str,
) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "Nutzername")
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    assert getpass.getuser() == "Nutzername"
    caplog.set_level(logging.DEBUG, logger="hf_negmine")
    mined = mine(tmp_path / "cache", model)
    calls: dict[str, Callable[[], object]] = {
        "dataset": lambda: push_dataset(mined, NAME, license="mit", with_pool=True),
        "model": lambda: push_model(model, NAME, mined=mined, base=str(tmp_path / "bert")),
        "refused": lambda: push_dataset(mined, NAME, license="mit"),
    }
    if push == "refused":
        hub.fail("POST", "/commit/", status=500)
        with pytest.raises(HubError) as caught:
            calls[push]()
        shown = str(caught.value)
    else:
        shown = str(calls[push]())
    forbidden = secrets(hub, tmp_path)
    for kind in ("dataset", "model"):
        if (kind, NAME) in hub.state.repositories:
            check_files(hub.files(kind, NAME), forbidden)  # type: ignore[arg-type]
    printed = capsys.readouterr()
    check_files({"messages": "\n".join([shown, caplog.text, printed.out, printed.err]).encode()}, forbidden)


def test_a_data_set_is_pushed_without_the_teachers_folder(
    hub: Hub, tmp_path: Path, models: Path, model: SentenceTransformer
) -> None:
    model.save_pretrained(str(tmp_path / "teacher"))
    mined = mine(tmp_path / "cache", str(tmp_path / "teacher"))
    push_dataset(mined, NAME, license="mit", with_pool=True)
    check_files(hub.files("dataset", NAME), secrets(hub, tmp_path))
    assert (
        json.loads(hub.files("dataset", NAME)["negmine/default/train.json"])["summary"]["settings"]["teacher"]
        == "teacher"
    )
