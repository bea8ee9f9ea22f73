"""What goes wrong while something is pushed or loaded: one clear error, nothing half-written, and a second call."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from hf_negmine import load_mined, push_dataset
from hf_negmine.base.errors import StorageError
from hf_negmine.hub import data_files
from hf_negmine.hub.network import HubError, hub_errors
from tests.hub.server import Hub
from tests.hub.world import NAME, mine

BLOB = "^/[0-9a-f]{64}$"


def check_message(error: BaseException, hub: Hub) -> None:
    """One line without a token, URL, host or path of this machine."""
    message = str(error)
    assert "\n" not in message
    assert not re.search(r"hf_test|https?:|127\.0\.0\.1|localhost|(^|[\s'\"`(])/\w", message), message


def contents(hub: Hub) -> dict[str, bytes]:
    found = ("dataset", NAME) in hub.state.repositories
    return hub.files("dataset", NAME) if found else {}


STATUSES = [
    (401, "the token was refused; log in"),
    (403, f"write access to {NAME}"),
    (409, "conflict"),
    (412, "somebody else has committed"),
    (429, "too many requests"),
    (500, "the Hub answered 500"),
]


def goes_through(hub: Hub, mined: Dataset) -> None:
    """The next push, with nothing going wrong."""
    hub.stop_failing()
    push_dataset(mined, NAME, license="mit")
    assert load_dataset(NAME, split="train").to_list() == mined.to_list()


class TestPush:
    @pytest.mark.parametrize(
        ("status", "message", "again"),
        [*((status, message, False) for status, message in STATUSES), (500, "the Hub answered 500", True)],
    )
    def test_a_refused_commit(self, hub: Hub, mined: Dataset, status: int, message: str, again: bool) -> None:
        if again:
            push_dataset(mined, NAME, license="mit")
        before = contents(hub)
        more = mined.select(range(8))
        hub.fail("POST", "/commit/", status=status, times=None)
        with pytest.raises(HubError, match=message) as caught:
            push_dataset(more, NAME, license="mit")
        check_message(caught.value, hub)
        assert str(caught.value).startswith(f"pushing to {NAME}: ")
        assert contents(hub) == before
        hub.stop_failing()
        hub.requests.clear()
        push_dataset(more, NAME, license="mit")
        assert len(load_dataset(NAME, split="train")) == 8
        assert not hub.asked(BLOB, "PUT")  # what was uploaded is not sent again

    @pytest.mark.parametrize(
        ("path", "status"),
        [("/api/datasets/", 500), ("/preupload/", 401), ("/info/lfs/objects/batch", 500), ("/repos/create", 403)],
    )
    def test_another_refused_request(self, hub: Hub, mined: Dataset, path: str, status: int) -> None:
        hub.fail(None, path, status=status, times=None)
        with pytest.raises(HubError) as caught:
            push_dataset(mined, NAME, license="mit")
        check_message(caught.value, hub)
        assert contents(hub) == {}
        goes_through(hub, mined)

    @pytest.mark.parametrize(("path", "after_bytes"), [(BLOB, 500), ("/commit/", 10), ("/preupload/", 0)])
    def test_a_connection_that_is_cut(self, hub: Hub, mined: Dataset, path: str, after_bytes: int) -> None:
        hub.cut(path, after_bytes=after_bytes, times=None, part="request")
        with pytest.raises(HubError, match="the connection broke off") as caught:
            push_dataset(mined, NAME, license="mit")
        check_message(caught.value, hub)
        assert contents(hub) == {}
        goes_through(hub, mined)
        assert len(hub.commits("dataset", NAME)) == 2

    def test_uploads_before_the_cut_are_kept(self, hub: Hub, mined: Dataset) -> None:
        hub.cut("/commit/", times=1)
        with pytest.raises(HubError):
            push_dataset(mined, NAME, license="mit")
        sent = hub.asked(BLOB, "PUT")
        assert len(sent) == 4
        push_dataset(mined, NAME, license="mit")
        assert hub.asked(BLOB, "PUT") == sent

    def test_a_commit_whose_answer_is_lost(self, hub: Hub, mined: Dataset) -> None:
        hub.cut("/commit/", part="response")
        with pytest.raises(HubError, match="run the same again"):
            push_dataset(mined, NAME, license="mit")
        there = contents(hub)
        push_dataset(mined, NAME, license="mit")
        assert contents(hub) == there

    def test_somebody_commits_in_between(self, hub: Hub, mined: Dataset) -> None:
        push_dataset(mined, NAME, license="mit")
        hub.before_commit(lambda: hub.commit("dataset", NAME, {"notes.txt": b"mine"}))
        with pytest.raises(HubError, match="somebody else has committed"):
            push_dataset(mined.select(range(3)), NAME)
        assert len(load_dataset(NAME, split="train")) == 12
        push_dataset(mined.select(range(3)), NAME)
        assert len(load_dataset(NAME, split="train")) == 3
        assert contents(hub)["notes.txt"] == b"mine"

    def test_a_repository_of_something_else(self, hub: Hub, mined: Dataset) -> None:
        hub.create("dataset", NAME, {"data.csv": b"a,b\n", "README.md": b"# Mine\n"})
        before = contents(hub)
        with pytest.raises(HubError, match=r"it holds 'data.csv' but nothing that hf_negmine has pushed"):
            push_dataset(mined, NAME, license="mit")
        assert contents(hub) == before
        hub.create("dataset", NAME, {"README.md": b"# Mine\n"})  # a card alone is somebody who began with it
        push_dataset(mined, NAME, license="mit")
        assert b"# Mine\n\n<!--" in contents(hub)["README.md"]

    def test_a_card_that_cannot_be_read(self, hub: Hub, mined: Dataset) -> None:
        for header in (b"a: [", b"- a\n- b"):
            hub.create("dataset", NAME, {"README.md": b"---\n" + header + b"\n---\n"})
            with pytest.raises(ValueError, match="the existing card has YAML that"):
                push_dataset(mined, NAME, license="mit")

    @pytest.mark.parametrize("there", [False, True])
    def test_no_token(self, hub: Hub, mined: Dataset, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
        if there:
            push_dataset(mined, NAME, license="mit")
        monkeypatch.setenv("HF_TOKEN", "")
        with pytest.raises(HubError, match="log in with `hf auth login`") as caught:
            push_dataset(mined.select(range(3)), NAME, license="mit")
        check_message(caught.value, hub)

    @pytest.mark.parametrize("token", ["hf_bad", "hf_reader", "hf_other"])
    def test_a_token_that_may_not(self, hub: Hub, mined: Dataset, token: str) -> None:
        with pytest.raises(HubError, match=r"log in|write access") as caught:
            push_dataset(mined, NAME, license="mit", token=token)
        check_message(caught.value, hub)
        assert token not in str(caught.value)

    def test_metadata_that_the_hub_refuses(self, hub: Hub, mined: Dataset) -> None:
        hub.fail("POST", "/api/validate-yaml", status=400)
        with pytest.raises(HubError, match="refuses the card's metadata") as caught:
            push_dataset(mined, NAME, license="no-licence")
        check_message(caught.value, hub)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
    def test_a_full_disk(self, hub: Hub, mined: Dataset, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        def full(*args: Any, **settings: Any) -> None:
            raise OSError(number, "full", tempfile.gettempdir())

        with monkeypatch.context() as patched:
            patched.setattr(data_files, "_write_shards", full)
            with pytest.raises(StorageError, match=r"cannot write the files of the push: .*TMPDIR") as caught:
                push_dataset(mined, NAME, license="mit")
        check_message(caught.value, hub)
        assert contents(hub) == {}
        push_dataset(mined, NAME, license="mit")

    def test_a_read_only_temporary_folder(
        self, hub: Hub, mined: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def refuse(*args: Any, **settings: Any) -> Any:
            raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

        with monkeypatch.context() as patched:
            patched.setattr(tempfile, "mkdtemp", refuse)
            with pytest.raises(StorageError, match="Permission denied; set TMPDIR") as caught:
                push_dataset(mined, NAME, license="mit", dry_run=True)
        check_message(caught.value, hub)

    def test_nothing_is_left_behind(
        self, hub: Hub, mined: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(scratch))
        hub.fail("POST", "/commit/", status=500)
        with pytest.raises(HubError):
            push_dataset(mined, NAME, license="mit")
        push_dataset(mined, NAME, license="mit")
        assert list(scratch.iterdir()) == []


Step = Callable[[], object]


class TestLoad:
    @pytest.mark.parametrize(
        ("status", "message"), [(401, "token was refused"), (403, "may not"), (500, "500"), (429, "too many")]
    )
    def test_a_refused_download(self, hub: Hub, mined: Dataset, status: int, message: str) -> None:
        push_dataset(mined, NAME, license="mit")
        for path in ("/resolve/", BLOB):
            hub.fail(None, path, status=status, times=None)
            with pytest.raises(HubError, match=message) as caught:
                load_mined(NAME)
            check_message(caught.value, hub)
            hub.stop_failing()
        assert load_mined(NAME).rows.to_list() == mined.to_list()

    def test_a_download_that_is_cut(self, hub: Hub, mined: Dataset) -> None:
        push_dataset(mined, NAME, license="mit")
        hub.cut(BLOB, after_bytes=100, method="GET", times=None)
        with pytest.raises(HubError, match="broke off") as caught:
            load_mined(NAME)
        check_message(caught.value, hub)
        hub.stop_failing()
        assert load_mined(NAME).rows.to_list() == mined.to_list()

    def test_private_and_gated(self, hub: Hub, mined: Dataset) -> None:
        push_dataset(mined, NAME, license="mit", private=True)
        with pytest.raises(HubError, match="no such repository, or the token may not see it"):
            load_mined(NAME, token="hf_other")
        hub.create("dataset", "tester/gated", hub.files("dataset", NAME), gated=True)
        with pytest.raises(HubError, match="it is gated"):
            load_mined("tester/gated", token="hf_other")

    def test_a_full_cache(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        push_dataset(mine(tmp_path / "cache"), NAME, license="mit", with_pool=True)

        def full(*args: Any, **settings: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(shutil, "copyfile", full)
            with pytest.raises(StorageError, match="the disk is full"):
                load_mined(NAME)
        assert load_mined(NAME).pool is not None

    @pytest.mark.parametrize("cache", ["huggingface_hub.constants.HF_HUB_CACHE", "datasets.config.HF_DATASETS_CACHE"])
    def test_a_cache_that_cannot_be_written(
        self, cache: str, hub: Hub, mined: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        push_dataset(mined, NAME, license="mit")
        (tmp_path / "file").touch()
        monkeypatch.setattr(cache, tmp_path / "file" / "cache")
        with pytest.raises(HubError, match="Not a directory; set HF_HOME") as caught:
            load_mined(NAME)
        check_message(caught.value, hub)

    def test_offline(self, hub: Hub, mined: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        for step in (lambda: load_mined(NAME), lambda: push_dataset(mined, NAME, license="mit")):
            with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set|not in the cache"):
                step()


def test_an_upload_that_xet_refuses() -> None:
    kind = pytest.importorskip("hf_xet").XetAuthenticationError  # a PermissionError
    with (
        pytest.raises(HubError, match="pushing to tester/one: the connection broke off"),
        hub_errors(NAME, "pushing to"),
    ):
        raise kind("https://cas-server.xethub.hf.co")
