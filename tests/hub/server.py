"""A stand-in for the Hugging Face Hub: repositories in memory, over HTTP, on this machine only.

    with Hub() as hub:
        HfApi(endpoint=hub.url, token="hf_test").create_repo("tester/one")

As with the real Hub there are two servers. The hub proper knows tokens and repositories; the storage behind it takes
and gives the large files at addresses that need no token, and refuses requests that carry one. There is no Xet
server: clients must run with HF_HUB_DISABLE_XET.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.repository import Blob, Commit, HubError, Kind, Repository
from tests.hub.routes import LARGE_KINDS, Answer, Call, ServerName, State, User, answer

Part = Literal["request", "response"]


@dataclass(frozen=True)
class Request:
    """What a client asked for; header names are in lower case, status 0 says that the connection was cut."""

    server: ServerName
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    status: int

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass
class Fault:
    """Something that goes wrong for the next requests that match, ``times`` of them, or for all with None."""

    method: str | None
    path: re.Pattern[str]
    times: int | None

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is hit, which uses the fault up once."""
        if self.times == 0 or self.method not in (None, method) or not self.path.search(path):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Failure(Fault):
    """An error in place of the answer."""

    error: HubError
    retry_after: int | None


@dataclass
class Cut(Fault):
    """A connection that closes after some bytes of a body."""

    part: Part | None
    after_bytes: int

    def takes(self, method: str, path: str) -> bool:
        """As for all faults; an answer to HEAD has no body to cut."""
        return (method != "HEAD" or self.method == "HEAD") and super().takes(method, path)

    def hits(self, part: Part, method: str) -> bool:
        return part == (self.part or ("request" if method in ("POST", "PUT") else "response"))


def _query(text: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(text).items()}


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Handler(BaseHTTPRequestHandler):
    """Reads a request, lets faults happen, and sends the answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """The requests are kept in ``Hub.requests``."""

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def serve(self) -> None:
        hub, address = self.server.hub, urlsplit(self.path)
        path = unquote(address.path)
        failure, cut = hub.next_faults(self.command, path)
        if cut is not None and cut.hits("request", self.command):
            self.rfile.read(cut.after_bytes)
            hub.note(self.server.name, self.command, self.path, self.headers, 0)
            self.hang_up()
            return
        body = self.read_body()
        if failure is not None:
            result = Answer.error(failure.error, failure.retry_after)
        else:
            result = hub.answer(self.server.name, self.command, self.path, self.headers, body)
        cut_answer = cut is not None and cut.hits("response", self.command)
        hub.note(self.server.name, self.command, self.path, self.headers, 0 if cut_answer else result.status)
        self.send(result, cut.after_bytes if cut is not None and cut_answer else None)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.read_all(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0] or b"-1", 16):
            chunks.append(self.read_all(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def read_all(self, size: int) -> bytes:
        data = self.rfile.read(size) if size >= 0 else b""
        if len(data) != size:
            raise ConnectionAbortedError("the client went away")
        return data

    def send(self, result: Answer, only: int | None) -> None:
        """Send an answer, or with ``only`` that many bytes of its body."""
        self.send_response(result.status)
        for name, value in {**result.headers, "Content-Length": str(len(result.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(result.body[:only])
        if only is not None:
            self.wfile.flush()
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    """One of the two servers of a hub; it ends with all its connections and threads."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, hub: Hub, name: ServerName) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.name = name
        # Under another name the storage is another host, as it is for the real one: clients send no token there.
        self.url = f"http://{'127.0.0.1' if name == 'hub' else 'localhost'}:{self.server_port}"
        self.connections: set[socket.socket] = set()
        self._loop = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self.shutdown()
        self._loop.join()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            self.hub.errors.append(error)


class Hub:
    """The stand-in as tests see it: what it holds, what was asked of it, and what goes wrong."""

    def __init__(self) -> None:
        self.state = State()
        self.requests: list[Request] = []
        self.errors: list[Exception] = []
        """Errors of the stand-in itself."""
        self.waits: list[float] = []
        """Seconds that clients in this process would have slept before they tried again."""
        self.strayed: list[str] = []
        """Other hosts that clients in this process looked for."""
        self._faults: list[Fault] = []
        self._before_commit: list[Callable[[], object]] = []
        self._servers = [Server(self, "hub"), Server(self, "storage")]
        self.url, self.storage_url = (server.url for server in self._servers)
        self.state.url, self.state.storage_url = self.url, self.storage_url

    def __enter__(self) -> Hub:
        for server in self._servers:
            server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.stop()

    # -- what it holds

    @property
    def tokens(self) -> dict[str, User]:
        """Users by token: hf_test is tester's, hf_reader reader's (to read only), hf_other other's."""
        return self.state.tokens

    def repository(self, kind: Kind, name: str) -> Repository:
        return self.state.repositories[kind, name]

    def create(
        self,
        kind: Kind,
        name: str,
        files: Mapping[str, bytes] | None = None,
        *,
        private: bool = False,
        gated: bool = False,
    ) -> Repository:
        """Put a repository there without a request."""
        repository = Repository(kind, name, private=private, gated=gated)
        with self.state.lock:
            self.state.repositories[kind, name] = repository
        if files:
            self.commit(kind, name, files)
        return repository

    def commit(
        self,
        kind: Kind,
        name: str,
        files: Mapping[str, bytes | None],
        *,
        branch: str = "main",
        title: str = "a commit of someone else",
    ) -> str:
        """Add or, with None, delete files without a request; returns the commit's id."""
        with self.state.lock:
            repository = self.repository(kind, name)
            after = dict(repository.at(branch).files)
            for path, data in files.items():
                if data is None:
                    del after[path]
                    continue
                after[path] = blob = Blob(data, lfs=path.endswith(LARGE_KINDS))
                if blob.lfs:
                    self.state.large[blob.sha256] = data
            return repository.commit(after, title, branch=branch).oid

    def files(self, kind: Kind, name: str, revision: str = "main") -> dict[str, bytes]:
        """Path and content of all files, but for .gitattributes."""
        with self.state.lock:
            files = self.repository(kind, name).at(revision).files
        return {path: blob.data for path, blob in sorted(files.items()) if path != ".gitattributes"}

    def commits(self, kind: Kind, name: str, revision: str = "main") -> list[Commit]:
        """Commits, the newest first."""
        with self.state.lock:
            return list(self.repository(kind, name).history(revision))

    # -- what was asked of it

    def asked(self, path: str = "", method: str | None = None) -> list[Request]:
        """The requests whose path matches, in order."""
        return [
            request
            for request in list(self.requests)
            if method in (None, request.method) and re.search(path, request.path)
        ]

    # -- what goes wrong

    def fail(
        self,
        method: str | None,
        path: str,
        *,
        status: int,
        times: int | None = 1,
        error_code: str | None = None,
        message: str = "The test asked for this error",
        retry_after: int | None = None,
    ) -> None:
        """Answer the next requests that match with an error; nothing else happens to them."""
        error = HubError(status, message, error_code)
        self._faults.append(Failure(method, re.compile(path), times, error, retry_after))

    def cut(
        self,
        path: str,
        *,
        after_bytes: int = 0,
        times: int | None = 1,
        method: str | None = None,
        part: Part | None = None,
    ) -> None:
        """Close the connection after some bytes of a body.

        Of a request, which is then not acted on, or of the response, when all that was asked for has happened. Without
        ``part``: of the request when it sends something (POST, PUT), else of the response.
        """
        self._faults.append(Cut(method, re.compile(path), times, part, after_bytes))

    def stop_failing(self) -> None:
        """Let nothing go wrong any more."""
        with self.state.lock:
            self._faults.clear()

    def before_commit(self, callback: Callable[[], object], *, times: int = 1) -> None:
        """Call something when a commit has arrived and is not acted on yet, such as `commit` for one in between."""
        self._before_commit += [callback] * times

    # -- for the handler

    def next_faults(self, method: str, path: str) -> tuple[Failure | None, Cut | None]:
        """What hits this request: the first fault that matches."""
        with self.state.lock:
            fault = next((fault for fault in self._faults if fault.takes(method, path)), None)
        return (fault if isinstance(fault, Failure) else None), (fault if isinstance(fault, Cut) else None)

    def answer(self, server: ServerName, method: str, target: str, headers: Message, body: bytes) -> Answer:
        try:
            call = self._call(server, method, target, headers, body)
            if server == "hub" and method == "POST" and re.search("/commit/[^/]+$", call.path):
                self._call_back()
            return answer(self.state, server, call)
        except HubError as error:
            return Answer.error(error)
        except Exception as error:
            self.errors.append(error)
            return Answer.error(HubError(500, f"{type(error).__name__} in the stand-in"))

    def note(self, server: ServerName, method: str, target: str, headers: Message, status: int) -> None:
        address = urlsplit(target)
        query = _query(address.query)
        self.requests.append(Request(server, method, unquote(address.path), query, _lower(headers), status))

    def _call(self, server: ServerName, method: str, target: str, headers: Message, body: bytes) -> Call:
        address, lower = urlsplit(target), _lower(headers)
        if server == "storage" and "authorization" in lower:
            raise HubError(400, "Only one way to authenticate is allowed")
        user = self.state.user(lower) if server == "hub" else None
        return Call(method, address.path, _query(address.query), lower, body, user)

    def _call_back(self) -> None:
        with self.state.lock:
            callback = self._before_commit.pop(0) if self._before_commit else None
        if callback is not None:
            callback()
