"""What the Hub answers: one function for each kind of request, and the rules of who may do what."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

import yaml
from huggingface_hub import RepoCard

from tests.hub.repository import Blob, Commit, HubError, Kind, Repository

ServerName = Literal["hub", "storage"]

DATE = "2026-01-01T00:00:00.000Z"
LARGE = 10_000_000
LARGE_KINDS = (".parquet", ".safetensors", ".arrow", ".bin", ".pt", ".npy", ".gz", ".zip", ".h5", ".onnx")


@dataclass(frozen=True)
class User:
    """Whose a token is, and what it allows."""

    name: str
    role: Literal["read", "write"] = "write"


@dataclass(frozen=True)
class Call:
    """A request on its way to its function."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    user: User | None

    @property
    def user_name(self) -> str | None:
        return self.user.name if self.user else None

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def wants(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("1", "true")


@dataclass(frozen=True)
class Answer:
    """What goes back: status, body, headers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> Answer:
        """JSON; an underscore in a header's name stands for a dash."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})

    @classmethod
    def error(cls, error: HubError, retry_after: int | None = None) -> Answer:
        headers = {"X-Error-Message": error.message}
        if error.code is not None:
            headers["X-Error-Code"] = error.code
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        return cls.of({"error": error.message}, error.status, **headers)


class State:
    """Repositories, large files and users, and who may do what with them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.jobs: list[dict[str, Any]] = []
        """The requests for jobs, as they were sent."""
        self.run_job: Callable[[dict[str, Any]], str] = lambda request: "COMPLETED"
        """How a job ends, asked when a client first looks at it."""
        self.tokens = {"hf_test": User("tester"), "hf_reader": User("reader", "read"), "hf_other": User("other")}
        self.url = ""
        self.storage_url = ""

    def user(self, headers: Mapping[str, str]) -> User | None:
        """Whose token the request carries; None without one."""
        authorization = headers.get("authorization")
        if authorization is None:
            return None
        user = self.tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def readable(self, call: Call, kind: str, name: str) -> Repository:
        """A repository that the caller may know of."""
        repository = self.repositories.get((kind, name))
        if repository is None or (repository.private and not repository.is_open_to(call.user_name)):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repository

    def writable(self, call: Call, kind: str, name: str) -> Repository:
        """A repository that the caller may change."""
        repository = self.readable(call, kind, name)
        self.check_write(call, repository.owner)
        return repository

    def check_write(self, call: Call, namespace: str) -> None:
        if call.user is None:
            raise HubError(401, "Invalid username or password.")
        if call.user.role != "write":
            raise HubError(403, "This token has no write permission")
        if call.user.name != namespace:
            raise HubError(403, f"You don't have the rights to write in the namespace {namespace}")

    def page(self, kind: str, name: str) -> str:
        """The address of a repository's page."""
        return f"{self.url}/{'' if kind == 'model' else kind + 's/'}{name}"


@dataclass(frozen=True)
class Route:
    """Which function answers."""

    server: ServerName
    methods: tuple[str, ...]
    path: re.Pattern[str]
    function: Callable[..., Answer]


ROUTES: list[Route] = []
REPOSITORY = r"/api/(?P<kind>model|dataset|space)s/(?P<name>[^/]+/[^/]+)"
PAGE = r"/(?:(?P<kind>dataset|space)s/)?(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"


def route(
    methods: str, path: str, server: ServerName = "hub"
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Give a function the requests whose path matches; the named groups, unquoted, are its arguments."""

    def add(function: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.append(Route(server, tuple(methods.split()), re.compile(path), function))
        return function

    return add


def answer(state: State, server: ServerName, call: Call) -> Answer:
    """Find the function of a call and run it, alone."""
    with state.lock:
        for entry in ROUTES:
            match = entry.path.fullmatch(call.path)
            if entry.server == server and call.method in entry.methods and match:
                names = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
                return entry.function(state, call, **names)
    raise HubError(404, f"The stand-in does not know {call.method} {call.path}")


# ---- users, repositories -----------------------------------------------------------------------------------------


@route("POST", "/api/validate-yaml")
def validate_yaml(state: State, call: Call) -> Answer:
    return Answer.of({"errors": [], "warnings": []})


def _named(call: Call) -> tuple[Kind, str]:
    """Kind and id of the repository that a body names."""
    asked = call.json()
    namespace = asked.get("organization") or call.user_name or ""
    return asked.get("type", "model"), f"{namespace}/{asked['name']}"


@route("POST", "/api/repos/create")
def create_repo(state: State, call: Call) -> Answer:
    kind, name = _named(call)
    state.check_write(call, name.split("/")[0])
    url = state.page(kind, name)
    if (kind, name) in state.repositories:
        return Answer.of({"error": f"You already created this {kind} repo", "url": url}, 409)
    private = bool(call.json().get("private")) or call.json().get("visibility") == "private"
    state.repositories[kind, name] = Repository(kind, name, private=private)
    return Answer.of({"url": url, "name": name, "id": name})


@route("GET", f"{REPOSITORY}(?:/revision/{REVISION})?")
def repo_info(state: State, call: Call, kind: str, name: str, revision: str = "main") -> Answer:
    repository = state.readable(call, kind, name)
    commit = repository.at(revision)
    siblings: list[dict[str, Any]] = []
    for path, blob in sorted(commit.files.items()):
        sibling: dict[str, Any] = {"rfilename": path}
        if call.wants("blobs"):
            sibling |= {"size": blob.size, "blobId": blob.oid} | _lfs(blob, "sha256")
        siblings.append(sibling)
    known = {"_id": name, "id": name, "author": repository.owner, "sha": commit.oid, "private": repository.private}
    counted = {"downloads": 0, "likes": 0, "tags": [], "cardData": _card_data(commit), "disabled": False}
    dates = {"lastModified": DATE, "createdAt": DATE}
    gated = "auto" if repository.gated else False
    return Answer.of({**known, **counted, **dates, "gated": gated, "siblings": siblings})


def _card_data(commit: Commit) -> dict[str, Any]:
    card = commit.files["README.md"].data.decode() if "README.md" in commit.files else ""
    try:
        return dict(RepoCard(card, ignore_metadata_errors=True).data.to_dict())
    except (yaml.YAMLError, ValueError):
        return {}


# ---- files -------------------------------------------------------------------------------------------------------


def _lfs(blob: Blob, name: str = "oid") -> dict[str, Any]:
    if not blob.lfs:
        return {}
    return {"lfs": {name: blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}}


def _file(path: str, blob: Blob) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": blob.size, "oid": blob.oid, **_lfs(blob)}


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _folders(paths: Iterable[str]) -> set[str]:
    """All folders that paths lie in."""
    parts = (path.split("/") for path in paths)
    return {"/".join(part[:depth]) for part in parts for depth in range(1, len(part))}


@route("GET", f"{REPOSITORY}/tree/{REVISION}(?:/(?P<folder>.*))?")
def tree(state: State, call: Call, kind: str, name: str, revision: str, folder: str = "") -> Answer:
    repository = state.readable(call, kind, name)
    files = repository.at(revision).files
    folders = _folders(files)
    if folder and folder not in folders:
        raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    start = f"{folder}/" if folder else ""
    entries = [_folder(path) for path in sorted(folders)] + [_file(path, files[path]) for path in sorted(files)]
    found = [
        entry
        for entry in entries
        if entry["path"].startswith(start) and (call.wants("recursive") or "/" not in entry["path"][len(start) :])
    ]
    return Answer.of(found)


def _check_gate(call: Call, repository: Repository) -> None:
    if repository.gated and not repository.is_open_to(call.user_name):
        raise HubError(403, f"Access to {repository.kind} {repository.id} is restricted", "GatedRepo")


@route("GET HEAD", f"{PAGE}/resolve/{REVISION}/(?P<path>.+)")
def resolve(state: State, call: Call, name: str, revision: str, path: str, kind: str = "model") -> Answer:
    repository = state.readable(call, kind, name)
    _check_gate(call, repository)
    commit = repository.at(revision)
    blob = commit.files.get(path)
    at = {"X-Repo-Commit": commit.oid}
    if blob is None:
        missing = Answer.error(HubError(404, "Entry not found", "EntryNotFound"))
        return Answer(404, missing.body, {**missing.headers, **at})
    at |= {"ETag": f'"{blob.etag}"', "X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(blob.size)}
    if blob.lfs:
        return Answer(302, b"", {**at, "Location": f"{state.storage_url}/{blob.sha256}"})
    return _content(blob.data, call, at)


def _content(data: bytes, call: Call, headers: Mapping[str, str]) -> Answer:
    """A file, or the range of it that was asked for."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if match is None:
        return Answer(200, data, headers)
    first, last = match.groups()
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= len(data):
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:stop], {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})


# ---- uploads and commits -----------------------------------------------------------------------------------------


@route("POST", f"{REPOSITORY}/preupload/{REVISION}")
def preupload(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    held = state.writable(call, kind, name).at(revision).files
    files = []
    for file in call.json()["files"]:
        path = file["path"]
        large = path.endswith(LARGE_KINDS) or file["size"] > LARGE
        oid = held[path].etag if path in held else None
        files.append({"path": path, "shouldIgnore": False, "oid": oid, "uploadMode": "lfs" if large else "regular"})
    return Answer.of({"files": files})


@route("POST", rf"{PAGE}\.git/info/lfs/objects/batch")
def lfs_batch(state: State, call: Call, name: str, kind: str = "model") -> Answer:
    state.writable(call, kind, name)
    objects = []
    for asked in call.json()["objects"]:
        entry: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in state.large:
            entry["actions"] = {"upload": {"href": f"{state.storage_url}/{asked['oid']}"}}
        objects.append(entry)
    return Answer.of({"transfer": "basic", "objects": objects})


@route("PUT", "/(?P<oid>[0-9a-f]{64})", server="storage")
def put_large(state: State, call: Call, oid: str) -> Answer:
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise HubError(400, "The content has another sha256 than its address")
    state.large[oid] = call.body
    return Answer(headers={"ETag": f'"{oid}"'})


@route("GET HEAD", "/(?P<oid>[0-9a-f]{64})", server="storage")
def get_large(state: State, call: Call, oid: str) -> Answer:
    if oid not in state.large:
        raise HubError(404, "No such object")
    return _content(state.large[oid], call, {"ETag": f'"{oid}"'})


def _without(files: dict[str, Blob], path: str, start: str) -> dict[str, Blob]:
    """Files but one, or but those whose path begins with ``start``."""
    left = {name: blob for name, blob in files.items() if name != path and not (start and name.startswith(start))}
    if len(left) == len(files):
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    return left


def _apply(state: State, files: dict[str, Blob], operation: str, value: dict[str, Any]) -> dict[str, Blob]:
    """Files after one line of a commit."""
    path = value["path"]
    if operation == "file":
        return {**files, path: Blob(base64.b64decode(value["content"]))}
    if operation == "lfsFile":
        if value["oid"] not in state.large:
            raise HubError(400, f"The large file {path} was not uploaded")
        return {**files, path: Blob(state.large[value["oid"]], lfs=True)}
    if operation == "deletedFile":
        return _without(files, path, "")
    if operation == "deletedFolder":
        return _without(files, "", path.rstrip("/") + "/")
    raise HubError(400, f"The stand-in does not know the operation {operation}")


@route("POST", f"{REPOSITORY}/commit/{REVISION}")
def commit_files(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    repository = state.writable(call, kind, name)
    head = repository.at(revision)
    lines = [json.loads(line) for line in call.body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if header.get("parentCommit") not in (None, head.oid):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for line in lines:
        if line["key"] != "header":
            files = _apply(state, files, line["key"], line["value"])
    if revision not in repository.branches:
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    made = repository.commit(files, header["summary"], branch=revision)
    url = f"{state.page(kind, name)}/commit/{made.oid}"
    return Answer.of({"success": True, "commitOid": made.oid, "commitUrl": url, "pullRequestUrl": None})


# ---- branches -------------------------------------------------------------------------------------


@route("POST", f"{REPOSITORY}/branch/(?P<branch>.+)")
def create_branch(state: State, call: Call, kind: str, name: str, branch: str) -> Answer:
    repository = state.writable(call, kind, name)
    if branch in repository.branches:
        raise HubError(409, f"Reference already exists: refs/heads/{branch}")
    repository.branches[branch] = repository.at(call.json().get("startingPoint") or "main").oid
    return Answer.of({})


# ---- jobs ---------------------------------------------------------------------------------------------------------


@route("GET", "/api/whoami-v2")
def who_am_i(state: State, call: Call) -> Answer:
    if call.user is None:
        raise HubError(401, "Invalid username or password.")
    return Answer.of({"type": "user", "name": call.user.name, "orgs": []})


@route("POST", "/api/jobs/(?P<namespace>[^/]+)")
def start_job(state: State, call: Call, namespace: str) -> Answer:
    state.check_write(call, namespace)
    state.jobs.append(call.json())
    return _job(state, namespace, len(state.jobs) - 1, "RUNNING")


@route("GET", "/api/jobs/(?P<namespace>[^/]+)/(?P<number>[0-9]+)")
def job(state: State, call: Call, namespace: str, number: str) -> Answer:
    state.check_write(call, namespace)
    return _job(state, namespace, int(number), state.run_job(state.jobs[int(number)]))


def _job(state: State, namespace: str, number: int, stage: str) -> Answer:
    kept = {name: value for name, value in state.jobs[number].items() if name not in ("secrets", "timeoutSeconds")}
    owner = {"id": namespace, "name": namespace, "type": "user"}
    status = {"stage": stage, "message": None}
    return Answer.of({"id": str(number), "createdAt": DATE, **kept, "status": status, "owner": owner})


@route("GET HEAD", r"/api/(?:model|dataset|space)s/[^/]+(?:/revision/.+)?|/[^/]+/resolve/.+")
def one_word(state: State, call: Call) -> Answer:
    """Repositories without a namespace: the stand-in has none."""
    raise HubError(404, "Repository not found", "RepoNotFound")
