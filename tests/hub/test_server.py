"""The stand-in is as strict as the Hub: about tokens, permissions, and a commit that came in between."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.hub.server import Hub

NAME = "tester/one"


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


class TestCommits:
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

    def test_a_client_that_goes_elsewhere(self, hub: Hub) -> None:
        with pytest.raises(Exception, match="tests reach"):
            huggingface_hub.get_session().get("http://huggingface.co")
        assert hub.strayed == ["huggingface.co"]
        hub.strayed.clear()

    def test_a_request_that_the_stand_in_does_not_know(self, hub: Hub, api: HfApi) -> None:
        hub.create("model", NAME)
        with pytest.raises(HfHubHTTPError, match="does not know GET"):
            next(iter(api.get_repo_discussions(NAME)))
