"""An OpenAI-compatible server on this machine, with faults on demand, that counts what it is asked."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

import numpy as np

from hf_negmine.base.schema import FloatArray

Json = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """How one answer differs from a good one.

    Attributes:
        status: of the answer.
        body: sent instead of the good one; a string is sent as it is.
        headers: sent besides.
        hang: seconds of silence before the answer.
        close: break the connection off in the middle of the answer.
        change: makes another content of the good one.
    """

    status: int = 200
    body: Json | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    close: bool = False
    change: Callable[[Json], Json] | None = None


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    path: str
    body: Json
    headers: dict[str, str]
    at: float

    @property
    def texts(self) -> list[str]:
        """The texts to embed, or the question."""
        if "input" in self.body:
            return list(self.body["input"])
        return [message["content"] for message in self.body["messages"]]


class OpenAIServer:
    """Embeddings and chat completions under ``url``, while a ``with`` block lasts.

    Attributes:
        faults: of the next requests, in their order.
        fault: the fault of a request, if there is none in ``faults``.
        reply: what a chat model says to a question.
        base64: False for a server that knows numbers only.
        delay: seconds that an answer takes.
        width: of vectors, where no dimensions are asked for.
        requests: all that came.
        paid: how often each text was answered with status 200.
        most_at_once: requests.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.fault: Callable[[Received], Fault | None] = lambda request: None
        self.reply: Callable[[str], str | None] = lambda question: "Yes"
        self.base64 = True
        self.delay = 0.0
        self.width = 4
        self.requests: list[Received] = []
        self.paid: Counter[str] = Counter()
        self.most_at_once = 0
        self.ended = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._http.daemon_threads = False  # so that closing waits for them
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def sizes(self) -> list[int]:
        """Texts of each request."""
        return [len(request.texts) for request in self.requests]

    def vector(self, text: str, width: int | None = None) -> FloatArray:
        """What the model makes of a text."""
        width = width or self.width
        noise = hashlib.shake_128(text.encode()).digest(width)
        return np.frombuffer(noise, dtype=np.uint8).astype(np.float32) / 256 - 0.37

    def receive(self, request: Received) -> Fault:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self.requests.append(request)
            return (self.faults.pop(0) if self.faults else self.fault(request)) or Fault()

    def answered(self, request: Received, fault: Fault) -> None:
        with self._lock:
            self._at_once -= 1
            if fault.status == 200 and not fault.close:
                self.paid.update(request.texts)

    def content(self, request: Received) -> Json:
        if request.path.partition("?")[0].endswith("/embeddings"):
            vectors = [self.vector(text, request.body.get("dimensions")) for text in request.texts]
            coded = self.base64 and request.body.get("encoding_format") == "base64"
            data = [
                {"object": "embedding", "index": index, "embedding": _coded(vector) if coded else vector.tolist()}
                for index, vector in enumerate(vectors)
            ]
            return {"object": "list", "data": data, "model": request.body["model"], "usage": {"total_tokens": 1}}
        message = {"role": "assistant", "content": self.reply(request.texts[-1])}
        return {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        return False


def _coded(vector: FloatArray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _handler_of(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5  # of a client that was never closed
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            at = time.monotonic()
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.path, body, headers, at)
            fault = server.receive(request)
            server.ended.wait(fault.hang + server.delay)
            content: Json | str = fault.body if fault.body is not None else {"error": {"message": "a fault on demand"}}
            if fault.body is None and fault.status == 200:
                content = server.content(request)
            if fault.change is not None and isinstance(content, dict):
                content = fault.change(content)
            sent = (content if isinstance(content, str) else json.dumps(content)).encode()
            server.answered(request, fault)  # before the client can know
            try:
                self.send_response(fault.status)
                for name, value in fault.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent[: len(sent) // 2] if fault.close else sent)
            except OSError:  # the client did not wait
                self.close_connection = True
            if fault.close:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Not into the output of the tests."""

    return Handler
