"""A repository before a push, and the commit that changes it: the only place that writes to the network."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from hf_negmine.hub.cards import decoded_card, split_card
from hf_negmine.hub.network import HubError, hub_errors
from hf_negmine.hub.provenance import FOLDER, Provenance, read_provenance


class Repository:
    """A repository on the Hub, in its state before a push."""

    def __init__(self, api: HfApi, repo_id: str, revision: str | None, kind: str) -> None:
        self._api, self._repo_id, self._revision, self._kind = api, repo_id, revision, kind
        self.exists = self.new_branch = False
        self.head: str | None = None
        self.private: bool | None = None
        self.files: list[str] = []
        self.card = ""
        self.parts: list[Provenance] = []

    def look(self) -> None:
        """Read the current state.

        Raises:
            HubError: it holds something else.
        """
        self._list()
        ours = [path for path in self.files if path.startswith(f"{FOLDER}/") and path.endswith(".json")]
        ours = [path for path in ours if path.count("/") == 2]
        others = [path for path in self.files if path not in ("README.md", ".gitattributes")]
        if others and not ours:
            raise HubError(
                f"pushing to {self._repo_id}: it holds {others[0]!r} but nothing that hf_negmine has pushed; give "
                "another name"
            )
        self.parts = [read_provenance(self._read(path), path, where=f"{self._repo_id}/{path}") for path in ours]

    def look_at_model(self) -> None:
        """Read the current state.

        Raises:
            HubError: it holds something other than a Sentence Transformers model.
        """
        self._list()
        others = [path for path in self.files if path not in ("README.md", ".gitattributes")]
        if others and "modules.json" not in self.files:
            raise HubError(
                f"pushing to {self._repo_id}: it holds {others[0]!r} but no model of Sentence Transformers; give "
                "another name"
            )

    def _list(self) -> None:
        """Read the files and the card of the branch; nothing if there is no repository."""
        with hub_errors(self._repo_id, "looking at"):
            info: Any = None
            try:
                look = self._api.dataset_info if self._kind == "dataset" else self._api.model_info
                self.exists = True
                info = look(self._repo_id, revision=self._revision)
            except RevisionNotFoundError:
                self.new_branch, info = True, look(self._repo_id)  # it will start from the main one
            except RepositoryNotFoundError as error:
                if getattr(error.response, "status_code", 404) == 401:
                    raise
                self.exists = False
                return
        self.head, self.private = info.sha, bool(info.private)
        self.files = [sibling.rfilename for sibling in info.siblings or []]
        if "README.md" in self.files:
            self.card = decoded_card(self._read("README.md"))

    def stale(self, part: Provenance, paths: Sequence[str]) -> list[str]:
        """Files that the same part had before, and no longer has."""
        before = next((other for other in self.parts if other.path == part.path), None)
        had = {path for group in before.files.values() for path in group} if before else set()
        return sorted((had - set(paths)) & set(self.files))

    @property
    def license(self) -> str | None:
        """The license that the card names."""
        found = split_card(self.card)[0].get("license")
        return found if isinstance(found, str) else None

    def commit(
        self, folder: Path, paths: Sequence[str], stale: Sequence[str], message: str, *, private: bool | None
    ) -> str:
        """Send the files in one commit that also deletes the stale ones; returns its id."""
        if private and self.private is False:
            raise HubError(
                f"pushing to {self._repo_id}: it is public, and private=True only applies to a new repository; make it "
                "private in its settings first, or give another name"
            )
        with hub_errors(self._repo_id, "pushing to"):
            if not self.exists:
                self._api.create_repo(self._repo_id, repo_type=self._kind, private=private, exist_ok=True)
            if self._revision is not None and (self.new_branch or not self.exists):
                self._api.create_branch(self._repo_id, repo_type=self._kind, branch=self._revision, exist_ok=True)
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(folder / path)) for path in paths
            ]
            operations += [CommitOperationDelete(path_in_repo=path) for path in stale]
            done = self._api.create_commit(
                self._repo_id,
                operations,
                repo_type=self._kind,
                revision=self._revision,
                commit_message=message,
                parent_commit=self.head,
            )
        return str(done.oid)

    def _read(self, path: str) -> bytes:
        with hub_errors(self._repo_id, "reading"), tempfile.TemporaryDirectory() as folder:
            local = self._api.hf_hub_download(
                self._repo_id, path, repo_type=self._kind, revision=self.head, local_dir=folder
            )
            return Path(local).read_bytes()
