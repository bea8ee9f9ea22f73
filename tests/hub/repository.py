"""What a Hub keeps: blobs, commits and the repositories that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Kind = Literal["model", "dataset", "space"]

GIT_ATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"


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
        self.commit({".gitattributes": Blob(GIT_ATTRIBUTES)}, "initial commit")

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def is_open_to(self, user: str | None) -> bool:
        return user is not None and (user == self.owner or user in self.readers)

    def commit(self, files: Mapping[str, Blob], title: str, *, branch: str = "main") -> Commit:
        """Make ``files`` all that ``branch`` holds; a branch that is new starts from ``main``."""
        parent = self.branches.get(branch) or (self.at("main").oid if self._commits else None)
        name = f"{self.kind} {self.id} {len(self._commits)} {branch} {title}"
        commit = Commit(hashlib.sha1(name.encode()).hexdigest(), title, parent, dict(files))
        self._commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def at(self, revision: str) -> Commit:
        """The commit that a branch or commit id names."""
        name = revision.removeprefix("refs/heads/")
        oid = self.branches.get(name, name)
        if oid not in self._commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self._commits[oid]

    def history(self, revision: str = "main") -> Iterator[Commit]:
        """Commits up to ``revision``, the newest first."""
        oid: str | None = self.at(revision).oid
        while oid is not None:
            yield self._commits[oid]
            oid = self._commits[oid].parent
