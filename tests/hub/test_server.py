"""The real clients against the stand-in: what they do with it, and what they make of each fault."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import torch
from datasets import Dataset, load_dataset
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from sentence_transformers import SentenceTransformer

from tests.hub.client import run_client
from tests.hub.server import Hub
from tests.train.helpers import load_model, write_models

NAME = "tester/one"
Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete
ROWS = {"query": ["a", "b", "c"], "positive": ["x", "y", "z"]}


@pytest.fixture
def api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a small file, a large one, an empty one and one further down."""
    made = tmp_path / "folder"
    (made / "deep" / "er").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: mit\n---\n# One\n")
    (made / "numbers.bin").write_bytes(bytes(range(256)) * 40)
    (made / "empty.txt").write_text("")
    (made / "deep" / "er" / "ä b.json").write_text("{}")
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


class TestRepositories:
    def test_upload_and_download(self, hub: Hub, folder: Path) -> None:
        huggingface_hub.create_repo(NAME)
        with pytest.raises(HfHubHTTPError, match="409"):
            huggingface_hub.create_repo(NAME)
        huggingface_hub.create_repo(NAME, exist_ok=True)
        info = huggingface_hub.upload_folder(repo_id=NAME, folder_path=folder, commit_message="All of it")
        assert hub.files("model", NAME) == contents(folder)
        assert [commit.title for commit in hub.commits("model", NAME)] == ["All of it", "initial commit"]
        assert hub.commits("model", NAME)[0].oid == info.oid
        found = Path(snapshot_download(NAME))
        assert {path: data for path, data in contents(found).items() if path != ".gitattributes"} == contents(folder)

    def test_the_token_goes_to_the_hub_only(self, hub: Hub, folder: Path) -> None:
        huggingface_hub.create_repo(NAME, private=True)
        huggingface_hub.upload_folder(repo_id=NAME, folder_path=folder)
        snapshot_download(NAME)
        assert {(request.server, request.authorization) for request in hub.requests} == {
            ("hub", "Bearer hf_test"),
            ("storage", None),
        }

    def test_a_file_that_is_there_is_not_uploaded_again(self, hub: Hub, api: HfApi, folder: Path) -> None:
        api.create_repo(NAME)
        api.upload_folder(repo_id=NAME, folder_path=folder)
        hub.requests.clear()
        api.upload_folder(repo_id=NAME, folder_path=folder)
        assert len(hub.commits("model", NAME)) == 2
        assert not hub.asked("^/[0-9a-f]{64}$", "PUT")

    def test_what_an_api_lists(self, hub: Hub, api: HfApi, folder: Path) -> None:
        api.create_repo(NAME, repo_type="dataset")
        api.upload_folder(repo_id=NAME, folder_path=folder, repo_type="dataset")
        info = api.dataset_info(NAME, files_metadata=True)
        assert info.sha == hub.commits("dataset", NAME)[0].oid
        assert {file.rfilename: file.size for file in info.siblings or []}["numbers.bin"] == 256 * 40
        assert set(api.list_repo_files(NAME, repo_type="dataset")) == {*contents(folder), ".gitattributes"}
        top = api.list_repo_tree(NAME, repo_type="dataset", expand=True)
        assert {entry.path for entry in top} == {".gitattributes", "README.md", "deep", "empty.txt", "numbers.bin"}
        large, small, deep = api.get_paths_info(
            NAME, ["numbers.bin", "README.md", "deep", "none"], repo_type="dataset", expand=True
        )
        assert isinstance(large, RepoFile)
        assert isinstance(small, RepoFile)
        assert large.lfs is not None
        assert small.last_commit is not None
        assert large.lfs.sha256 == hashlib.sha256(folder.joinpath("numbers.bin").read_bytes()).hexdigest()
        assert (small.lfs, small.last_commit.oid, deep.path) == (None, info.sha, "deep")
        with pytest.raises(RemoteEntryNotFoundError):
            list(api.list_repo_tree(NAME, "none", repo_type="dataset"))
        assert api.whoami()["name"] == "tester"

    def test_long_lists_come_in_pages(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME, {f"{number}.txt": b"" for number in range(7)})
        hub.state.page_size = 3
        assert len(api.list_repo_files(NAME)) == 8
        assert len(hub.asked("/tree/")) == 3

    def test_commits_branches_and_tags(self, hub: Hub, api: HfApi) -> None:
        first = hub.create("dataset", NAME, {"a/1": b"1", "a/2": b"2", "b": b"3"}).at("main").oid
        api.create_branch(NAME, branch="v/2", repo_type="dataset")
        api.create_tag(NAME, tag="t", repo_type="dataset")
        operations: list[Operation] = [
            CommitOperationDelete("a/"),
            CommitOperationDelete("b"),
            CommitOperationAdd("c", b"4"),
        ]
        api.create_commit(NAME, operations, commit_message="More", revision="v/2", repo_type="dataset")
        assert hub.files("dataset", NAME, "v/2") == {"c": b"4"}
        assert hub.files("dataset", NAME, "t") == hub.files("dataset", NAME) == {"a/1": b"1", "a/2": b"2", "b": b"3"}
        refs = api.list_repo_refs(NAME, repo_type="dataset")
        assert ([branch.name for branch in refs.branches], refs.tags[0].target_commit) == (["main", "v/2"], first)
        titles = [commit.title for commit in api.list_repo_commits(NAME, repo_type="dataset", revision="v/2")]
        assert titles == ["More", "a commit of someone else", "initial commit"]
        with pytest.raises(HfHubHTTPError, match="409"):
            api.create_branch(NAME, branch="v/2", repo_type="dataset")
        with pytest.raises(RemoteEntryNotFoundError):
            api.delete_file("none", NAME, repo_type="dataset")
        api.delete_tag(NAME, tag="t", repo_type="dataset")
        api.delete_branch(NAME, branch="v/2", repo_type="dataset")
        with pytest.raises(RevisionNotFoundError):
            api.dataset_info(NAME, revision="v/2")
        api.delete_repo(NAME, repo_type="dataset")
        assert not api.repo_exists(NAME, repo_type="dataset")

    def test_a_pull_request(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        info = api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=NAME, create_pr=True)
        assert info.pr_revision == "refs/pr/1"
        assert (hub.files("model", NAME), hub.files("model", NAME, "refs/pr/1")) == ({}, {"a": b"1"})
        assert api.file_exists(NAME, "a", revision="refs/pr/1")

    def test_a_part_of_a_file(self, hub: Hub) -> None:
        hub.create("dataset", NAME, {"a.txt": b"0123456789", "a.bin": b"abcdefghij"})
        system = HfFileSystem()
        for path, part in (("a.txt", b"345"), ("a.bin", b"def")):
            with system.open(f"datasets/{NAME}/{path}", block_size=4) as file:
                file.seek(3)
                assert file.read(3) == part


class TestAccess:
    def test_private(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME, {"a": b"1"}, private=True)
        assert api.model_info(NAME).private
        for token in (False, "hf_other", "hf_reader"):
            with pytest.raises(RepositoryNotFoundError):
                api.model_info(NAME, token=token)
        hub.repository("model", NAME).readers.add("reader")
        assert api.hf_hub_download(NAME, "a", token="hf_reader")

    def test_a_bad_token(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        with pytest.raises(HfHubHTTPError, match="Invalid credentials") as caught:
            api.model_info(NAME, token="hf_bad")
        assert not isinstance(caught.value, RepositoryNotFoundError)

    @pytest.mark.parametrize(("token", "status"), [(False, 401), ("hf_reader", 403), ("hf_other", 403)])
    def test_no_permission_to_write(self, hub: Hub, api: HfApi, token: str | bool, status: int) -> None:
        hub.create("model", NAME)
        with pytest.raises(HfHubHTTPError) as caught:
            api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=NAME, token=token)
        assert caught.value.response.status_code == status
        with pytest.raises(HfHubHTTPError) as caught:
            api.create_repo("tester/two", token=token)
        assert caught.value.response.status_code == status

    def test_gated(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME, {"a": b"1"}, gated=True)
        assert api.model_info(NAME, token="hf_other").gated == "auto"
        with pytest.raises(GatedRepoError):
            api.hf_hub_download(NAME, "a", token="hf_other")
        assert api.hf_hub_download(NAME, "a")


class TestDatasets:
    def test_push_and_load(self, hub: Hub) -> None:
        rows = Dataset.from_dict(ROWS)
        rows.push_to_hub(NAME)
        assert load_dataset(NAME, split="train").to_dict() == ROWS
        hub.requests.clear()
        assert load_dataset(NAME, split="train").to_dict() == ROWS
        assert not hub.asked("^/[0-9a-f]{64}$")
        assert list(load_dataset(NAME, split="train", streaming=True)) == rows.to_list()
        assert hub.asked("^/[0-9a-f]{64}$")

        rows.select([0]).push_to_hub(NAME, config_name="small", commit_message="A second one")
        rows.select([1]).push_to_hub(NAME, revision="second")
        assert load_dataset(NAME, "small", split="train")["query"][:] == ["a"]
        assert load_dataset(NAME, split="train").to_dict() == ROWS
        assert load_dataset(NAME, split="train", revision="second")["query"][:] == ["b"]
        assert [path for path in hub.files("dataset", NAME) if path.startswith("small")] == [
            "small/train-00000-of-00001.parquet"
        ]
        assert hub.commits("dataset", NAME)[0].title == "A second one"

    def test_a_stream_that_is_cut(self, hub: Hub) -> None:
        rows = Dataset.from_dict(ROWS)
        rows.push_to_hub(NAME)
        hub.cut("^/[0-9a-f]{64}$", after_bytes=100)
        assert list(load_dataset(NAME, split="train", streaming=True)) == rows.to_list()
        assert [request.status for request in hub.asked("^/[0-9a-f]{64}$", "GET")][:2] == [0, 206]

    def test_missing(self, hub: Hub) -> None:
        with pytest.raises(Exception, match="doesn't exist on the Hub"):
            load_dataset(NAME)


class TestModels:
    def test_push_and_load(self, hub: Hub, tmp_path: Path) -> None:
        write_models(tmp_path)
        model = load_model(tmp_path)
        model.push_to_hub(NAME)
        assert {"modules.json", "model.safetensors", "README.md"} <= hub.files("model", NAME).keys()
        loaded = SentenceTransformer(NAME, device="cpu")
        assert torch.equal(loaded.encode("q w1", convert_to_tensor=True), model.encode("q w1", convert_to_tensor=True))
        with pytest.raises(OSError, match="tester/none"):
            SentenceTransformer("tester/none", device="cpu")


Action = Callable[[HfApi], object]
ACTIONS: dict[str, Action] = {
    "info": lambda api: api.model_info(NAME),
    "download": lambda api: api.hf_hub_download(NAME, "a.bin"),
    "upload": lambda api: api.upload_file(path_or_fileobj=b"1" * 100_000, path_in_repo="b.bin", repo_id=NAME),
}
FAULTS = [
    ("info", "/api/models/", 401, None, HfHubHTTPError),
    ("info", "/api/models/", 403, None, HfHubHTTPError),
    ("info", "/api/models/", 404, "RepoNotFound", RepositoryNotFoundError),
    ("info", "/api/models/", 429, None, HfHubHTTPError),
    ("info", "/api/models/", 500, None, HfHubHTTPError),
    ("download", "/resolve/", 403, "GatedRepo", GatedRepoError),
    ("download", "/resolve/", 404, "EntryNotFound", RemoteEntryNotFoundError),
    ("download", "/resolve/", 404, "RevisionNotFound", RevisionNotFoundError),
    ("upload", "/commit/", 403, None, HfHubHTTPError),
    ("upload", "/commit/", 409, None, HfHubHTTPError),
    ("upload", "/commit/", 412, None, HfHubHTTPError),
    ("upload", "/commit/", 500, None, HfHubHTTPError),
]


class TestFaults:
    @pytest.mark.parametrize(("action", "path", "status", "code", "error"), FAULTS)
    def test_once(
        self, hub: Hub, api: HfApi, action: str, path: str, status: int, code: str | None, error: type[Exception]
    ) -> None:
        hub.create("model", NAME, {"a.bin": b"0123456789"})
        hub.fail(None, path, status=status, error_code=code)
        with pytest.raises(error) as caught:
            ACTIONS[action](api)
        seen: BaseException = caught.value
        while not isinstance(seen, HfHubHTTPError):
            seen = seen.__cause__ or pytest.fail("no answer of the hub behind the error")
        assert seen.response.status_code == status
        ACTIONS[action](api)

    @pytest.mark.parametrize(("status", "retry_after", "wait"), [(429, 7, 8.0), (429, None, 1.0), (503, None, 1.0)])
    def test_the_client_itself_tries_an_upload_again(
        self, hub: Hub, api: HfApi, status: int, retry_after: int | None, wait: float
    ) -> None:
        hub.create("model", NAME)
        hub.fail("PUT", "^/[0-9a-f]{64}$", status=status, retry_after=retry_after)
        ACTIONS["upload"](api)
        assert hub.files("model", NAME) == {"b.bin": b"1" * 100_000}
        assert hub.waits == [wait]
        assert [request.status for request in hub.asked("^/[0-9a-f]{64}$", "PUT")] == [status, 200]

    def test_for_ever(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        hub.fail("POST", "/preupload/", status=500, times=None, message="Broken")
        with pytest.raises(HfHubHTTPError, match="Broken"):
            ACTIONS["upload"](api)
        assert hub.waits == [1, 2, 4, 8, 8]

    def test_a_download(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME, {"a.bin": b"0123456789", "b.bin": b"1"})
        hub.fail("HEAD", "/resolve/", status=500)
        ACTIONS["download"](api)
        hub.fail("HEAD", "/resolve/", status=500, times=None)
        with pytest.raises(LocalEntryNotFoundError):
            api.hf_hub_download(NAME, "b.bin")

    def test_a_cut_upload(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        hub.cut("^/[0-9a-f]{64}$", after_bytes=1000)
        ACTIONS["upload"](api)
        assert hub.files("model", NAME) == {"b.bin": b"1" * 100_000}
        assert [request.status for request in hub.asked("^/[0-9a-f]{64}$", "PUT")] == [0, 200]

    def test_an_upload_that_is_always_cut(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        hub.cut("^/[0-9a-f]{64}$", after_bytes=1000, times=None)
        with pytest.raises(RuntimeError, match="Error while uploading") as caught:
            ACTIONS["upload"](api)
        assert isinstance(caught.value.__cause__, httpx2.TransportError)
        assert len(hub.commits("model", NAME)) == 1

    def test_a_cut_commit(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        hub.cut("/commit/", after_bytes=10)
        with pytest.raises(httpx2.TransportError):
            ACTIONS["upload"](api)
        assert len(hub.commits("model", NAME)) == 1
        ACTIONS["upload"](api)
        assert len(hub.commits("model", NAME)) == 2

    def test_a_commit_that_was_made_though_its_answer_was_lost(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        hub.cut("/commit/", part="response")
        with pytest.raises(httpx2.TransportError):
            ACTIONS["upload"](api)
        assert hub.files("model", NAME) == {"b.bin": b"1" * 100_000}

    def test_a_cut_download(self, hub: Hub, api: HfApi) -> None:
        data = bytes(range(256)) * 400
        hub.create("model", NAME, {"a.bin": data})
        hub.cut("^/[0-9a-f]{64}$", method="GET", after_bytes=70_000)
        assert Path(api.hf_hub_download(NAME, "a.bin")).read_bytes() == data
        assert [request.status for request in hub.asked("^/[0-9a-f]{64}$", "GET")] == [0, 200]

    def test_a_commit_in_between(self, hub: Hub, api: HfApi) -> None:
        head = hub.create("model", NAME).at("main").oid
        hub.before_commit(lambda: hub.commit("model", NAME, {"other": b"2"}))

        def add(parent: str) -> None:
            api.create_commit(NAME, [CommitOperationAdd("a", b"1")], commit_message="Mine", parent_commit=parent)

        with pytest.raises(HfHubHTTPError) as caught:
            add(head)
        assert caught.value.response.status_code == 412
        assert hub.files("model", NAME) == {"other": b"2"}
        add(hub.commits("model", NAME)[0].oid)
        assert hub.files("model", NAME) == {"a": b"1", "other": b"2"}

    def test_the_commit_in_between_may_be_a_clients(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        hub.before_commit(lambda: api.upload_file(path_or_fileobj=b"2", path_in_repo="other", repo_id=NAME))
        api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=NAME)
        assert hub.files("model", NAME) == {"a": b"1", "other": b"2"}

    def test_a_client_that_goes_elsewhere(self, hub: Hub) -> None:
        with pytest.raises(httpx2.ConnectError):
            huggingface_hub.get_session().get("http://huggingface.co")
        assert hub.strayed == ["huggingface.co"]
        hub.strayed.clear()

    def test_a_request_that_the_stand_in_does_not_know(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        with pytest.raises(HfHubHTTPError, match="does not know GET"):
            next(iter(api.get_repo_discussions(NAME)))


CODE = f"""
import json, os
from datasets import Dataset, load_dataset
Dataset.from_dict({ROWS!r}).push_to_hub({NAME!r})
rows = load_dataset({NAME!r}, split="train")
print(json.dumps([rows.to_dict(), list(load_dataset({NAME!r}, split="train", streaming=True))]))
print(rows.cache_files[0]["filename"])
"""


class TestProcesses:
    def test_a_process_of_its_own(self, hub: Hub, tmp_path: Path) -> None:
        done = run_client(CODE, hub)
        assert done.returncode == 0, done.stderr
        rows, cache = done.stdout.splitlines()
        assert json.loads(rows) == [ROWS, Dataset.from_dict(ROWS).to_list()]
        assert Path(cache).is_relative_to(tmp_path)
        assert load_dataset(NAME, split="train").to_dict() == ROWS

    def test_without_a_token(self, hub: Hub) -> None:
        hub.create("model", NAME, private=True)
        done = run_client(f"import huggingface_hub; huggingface_hub.model_info({NAME!r})", hub, token=None)
        assert "RepositoryNotFoundError" in done.stderr
        assert {request.authorization for request in hub.requests} == {None}
