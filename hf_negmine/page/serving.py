"""The page served on this machine alone, slice by slice, for pools of any size; labels go into a file at once."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.files import storage_errors
from hf_negmine.page.content import Shown
from hf_negmine.page.writing import page_of
from hf_negmine.select.judgements import KEYS, check_judgement, digests_of

HOST = "127.0.0.1"
QUERIES_A_SLICE = 500
LONGEST_BODY = 1000
START = b'{"query": "'
"""How the lines of this command begin: by it, a line that a crash has cut off is known."""


class LabelFile:
    """Labels in a file of JSON lines, ``{"query": …, "document": …, "relevant": …}``; of two, the last one counts.

    Args:
        path: the file; it is appended to.
        shown: the set that is labeled.

    Raises:
        InputError: the file holds something else.
    """

    def __init__(self, path: Path, shown: Shown) -> None:
        if not path.parent.is_dir() or path.is_dir():
            raise InputError(f"judgements: {path} is not the name of a file in a folder that is there; give another")
        self._path, self._shown = path, shown
        self._writing = threading.Lock()
        self.labels: dict[tuple[int, int], bool] = self._read()

    def add(self, query: int, document: int, relevant: bool) -> None:
        """Write a label: a whole line, on disk when this returns."""
        texts = self._shown.texts
        line = {
            "query": texts.queries.take(np.array([query]))[0].as_py(),
            "document": texts.corpus.take(np.array([document]))[0].as_py(),
            "relevant": relevant,
        }
        rest = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        with self._writing, storage_errors(self._path), self._path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:  # a full disk; the next label must not be joined to half of this one
                file.truncate(size)
                raise
            # Another dictionary: this one may just be read for another browser.
            self.labels = {**self.labels, (query, document): relevant}

    def _read(self) -> dict[tuple[int, int], bool]:
        """The labels of pairs that are in the set; a last line that a crash has cut off is removed."""
        if not self._path.exists():
            return {}
        lines = self._path.read_bytes().split(b"\n")  # not at U+2028, which may be in a text
        found = [_label(line) for line in lines]
        last = lines[-1]
        cut = found[-1] is None and (last.startswith(START) or START.startswith(last))
        for number, (line, label) in enumerate(zip(lines, found, strict=True), 1):
            if label is None and line.strip() and not (cut and number == len(lines)):
                raise InputError(
                    f'{self._path}, line {number}: expected {{"query": …, "document": …, "relevant": true or false}}, '
                    f"got {line[:80].decode(errors='replace')!r}; give another file for the labels"
                )
        if lines[-1]:
            with storage_errors(self._path), self._path.open("ab") as file:
                if cut:
                    file.truncate(file.tell() - len(lines[-1]))
                else:
                    file.write(b"\n")
        labels = [label for label in found if label is not None]
        texts = self._shown.texts
        sides = zip(KEYS, (texts.queries, texts.corpus), strict=False)
        ids = [column.find(digests_of(labels, side)).tolist() for side, column in sides]
        pairs = zip(*ids, labels, strict=True)
        return {(one, two): label["relevant"] for one, two, label in pairs if one >= 0 and two >= 0}


def _label(line: bytes) -> dict[str, Any] | None:
    """The judgement of a line; None if it is not one."""
    try:
        content = json.loads(line)
        check_judgement(content, "the line")
        digests_of([content], KEYS[0]), digests_of([content], KEYS[1])  # a text may not be Unicode
    except (ValueError, InputError):
        return None
    judgement: dict[str, Any] = content
    return judgement


class _Handler(BaseHTTPRequestHandler):
    """Answers only for its own address with the token, and only to pages of its own."""

    server: _Server

    def do_GET(self) -> None:
        if not self._is_allowed("/"):
            return
        asked = parse_qs(urlsplit(self.path).query)
        start, teacher = (_number(asked.get(name, [""])[0]) for name in ("start", "teacher"))
        self._answer(HTTPStatus.OK, self.server.page(start, teacher).encode(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        if not self._is_allowed("/judgements"):
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Origin") != self.server.origin or not length.isdigit() or int(length) > LONGEST_BODY:
            self._answer(HTTPStatus.FORBIDDEN)
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            query, document, relevant = body["query_id"], body["document_id"], body["relevant"]
            self.server.check(query, document, relevant)
        except (ValueError, KeyError, TypeError):
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        try:
            self.server.kept.add(query, document, relevant)
        except StorageError:
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE)
            return
        self._answer(HTTPStatus.NO_CONTENT)

    def _is_allowed(self, path: str) -> bool:
        """Another site could have its name point here, so the host is checked; others cannot know the token."""
        right = f"/{self.server.token}{path}"
        if self.headers.get("Host") == self.server.origin.removeprefix("http://") and secrets.compare_digest(
            urlsplit(self.path).path.encode(), right.encode()
        ):
            return True
        self._answer(HTTPStatus.NOT_FOUND)
        return False

    def _answer(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, shown: Shown, labels: LabelFile, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.shown, self.kept = shown, labels
        self.token = secrets.token_urlsafe(24)
        self.origin = f"http://{HOST}:{self.server_address[1]}"

    @property
    def address(self) -> str:
        return f"{self.origin}/{self.token}/"

    def page(self, start: int, teacher: int) -> str:
        """The page of the slice that begins at one of a teacher's targets."""
        teacher = min(max(teacher, 0), len(self.shown.views) - 1)
        every = self.shown.views[teacher].targets
        start = min(max(start, 0), max(len(every) - 1, 0)) // QUERIES_A_SLICE * QUERIES_A_SLICE
        content = self.shown.content({teacher: every[start : start + QUERIES_A_SLICE]})
        labels = [[f"{query}:{document}", label] for (query, document), label in self.kept.labels.items()]
        return page_of(
            content,
            server={"judgements": "judgements", "labels": labels, "start": start, "step": QUERIES_A_SLICE},
        )

    def check(self, query: Any, document: Any, relevant: Any) -> None:
        """Raise ValueError unless these are a query, a passage and a boolean."""
        sizes = len(self.shown.texts.queries), len(self.shown.texts.corpus)
        for value, size in zip((query, document), sizes, strict=True):
            if type(value) is not int or not 0 <= value < size:
                raise ValueError(value)
        if type(relevant) is not bool:
            raise ValueError(relevant)


@contextmanager
def served(shown: Shown, judgements: Path, *, port: int = 0) -> Iterator[str]:
    """Serve the page while the block runs.

    Args:
        shown: the mined set.
        judgements: the file that labels are appended to.
        port: the port to listen on; 0 takes a free one.

    Yields:
        The address, with its token.

    Raises:
        InputError: the port is taken, or the file of judgements holds something else.
    """
    kept = LabelFile(judgements, shown)
    try:
        server = _Server(shown, kept, port)
    except (OSError, OverflowError) as error:
        raise InputError(f"port: {port} cannot be listened on ({error}); give another, or none") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
