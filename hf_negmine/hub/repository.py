"""A repository before a push, and the commit that changes it: the only place that writes to the network."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from hf_negmine.hub.card_metadata import as_list, decoded_card, split_card
from hf_negmine.hub.network import HubError, hub_errors
from hf_negmine.hub.provenance import FOLDER, Provenance, read_provenance
from hf_negmine.hub.staging import PushResult, kept, paths_in


class Repository:
    """A repository on the Hub, in its state before a push; for a dry run, an empty one that nobody is asked about."""

    def __init__(self, repo_id: str, kind: str, *, revision: str | None, token: str | None, dry_run: bool) -> None:
        self._api = HfApi(token=token, library_name="hf_negmine")
        self._repo_id, self._kind, self._revision, self._dry_run = repo_id, kind, revision, dry_run
        self.exists = self.new_branch = False
        self.head: str | None = None
        self.private: bool | None = None
        self.files: list[str] = []
        self.card = ""
        self.parts: list[Provenance] = []
        if not dry_run:
            self._look()

    def _look(self) -> None:
        """Read the current state, or raise `HubError` if it holds something else."""
        self._list()
        ours = [path for path in self.files if path.startswith(f"{FOLDER}/") and path.endswith(".json")]
        ours = [path for path in ours if path.count("/") == 2]
        is_ours, lacking = bool(ours), "nothing that hf_negmine has pushed"
        if self._kind == "model":
            is_ours, lacking = "modules.json" in self.files, "no model of Sentence Transformers"
        others = [path for path in self.files if path not in ("README.md", ".gitattributes")]
        if others and not is_ours:
            raise HubError(f"pushing to {self._repo_id}: it holds {others[0]!r} but {lacking}; give another name")
        if self._kind == "dataset":
            self.parts = [read_provenance(self._read(path), path, where=f"{self._repo_id}/{path}") for path in ours]

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

    @property
    def license(self) -> str | None:
        """The license that the card names."""
        return _only(split_card(self.card)[0].get("license"))

    def license_of(self, sources: Sequence[str]) -> str | None:
        """The license of other data sets, if they share one; None for a dry run."""
        found = set()
        for source in [] if self._dry_run else sources:
            with hub_errors(source, "reading the license of"):
                info = self._api.dataset_info(source)
            found.add(_only(getattr(info.card_data, "license", None)))
        return _only(list(found))

    def send(self, folder: Path, stale: Sequence[str], message: str, *, private: bool | None) -> PushResult:
        """Send the files of a folder in one commit that also deletes the stale ones; a dry run keeps them here."""
        paths = paths_in(folder)
        if self._dry_run:
            return PushResult(self._repo_id, None, None, kept(folder, self._repo_id), paths)
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
        place = self._repo_id if self._kind == "model" else f"datasets/{self._repo_id}"
        return PushResult(self._repo_id, str(done.oid), f"https://huggingface.co/{place}", None, paths)

    def _read(self, path: str) -> bytes:
        with hub_errors(self._repo_id, "reading"), tempfile.TemporaryDirectory() as folder:
            local = self._api.hf_hub_download(
                self._repo_id, path, repo_type=self._kind, revision=self.head, local_dir=folder
            )
            return Path(local).read_bytes()


def _only(license: Any) -> str | None:
    """The license, if it is a single one: a card may have it as a list."""
    found = as_list(license)
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None
