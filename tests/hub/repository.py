"""What a Hub keeps: blobs, commits and the repositories that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Kind = Literal["model", "dataset", "space"]

GIT_ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"
PULL_REQUEST = "refs/pr/"


class HubError(Exception):
    """An answer that is an error: the client reads its class from ``code``, the header X-Error-Code."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass(frozen=True)
class Blob:
    """The content of a file; ``lfs`` says that it lies in the storage and not in git."""

    data: bytes
    lfs: bool = False

    @property
    def size(self) -> int:
        return len(self.data)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git holds of a file of the storage."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @cached_property
    def oid(self) -> str:
        """The name that git has for the content."""
        content = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """All files of a repository at one time."""

    oid: str
    title: str
    description: str
    parent: str | None
    files: Mapping[str, Blob]


@dataclass
class Repository:
    """A git repository as the Hub shows it; ``main`` is there from the start."""

    kind: Kind
    id: str
    private: bool = False
    gated: bool = False
    readers: set[str] = field(default_factory=set)
    """Users besides the owner that may read a private or gated repository."""

    def __post_init__(self) -> None:
        self._commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit({".gitattributes": Blob(GIT_ATTRIBUTES)}, "initial commit")

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def is_open_to(self, user: str | None) -> bool:
        return user is not None and (user == self.owner or user in self.readers)

    def commit(
        self, files: Mapping[str, Blob], title: str, *, description: str = "", branch: str = "main", onto: str = "main"
    ) -> Commit:
        """Make ``files`` all that ``branch`` holds; a branch that is new starts from the revision ``onto``."""
        parent = self.branches.get(branch) or (self.at(onto).oid if self._commits else None)
        name = f"{self.kind} {self.id} {len(self._commits)} {branch} {title}"
        commit = Commit(hashlib.sha1(name.encode()).hexdigest(), title, description, parent, dict(files))
        self._commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def at(self, revision: str) -> Commit:
        """The commit that a branch, tag or commit id names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.branches.get(name) or self.tags.get(name) or name
        if oid not in self._commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self._commits[oid]

    def history(self, revision: str = "main") -> Iterator[Commit]:
        """Commits up to ``revision``, the newest first."""
        oid: str | None = self.at(revision).oid
        while oid is not None:
            yield self._commits[oid]
            oid = self._commits[oid].parent

    def last_change(self, revision: str, path: str) -> Commit:
        """The commit that gave the file ``path`` the content it has at ``revision``."""
        history = list(self.history(revision))
        now = history[0].files[path]
        return next(
            commit
            for commit, before in zip(history, [*history[1:], None], strict=True)
            if before is None or before.files.get(path) != now
        )

    def new_pull_request(self) -> str:
        """The name of the branch of the next pull request."""
        return f"{PULL_REQUEST}{1 + sum(name.startswith(PULL_REQUEST) for name in self.branches)}"
