"""An OpenAI-compatible endpoint through the `openai` client: its key, its retries, its concurrent requests.

The key is read from an environment variable when requests begin and lives only as long as they do: it is stored in no
attribute, and is removed from every server message before that becomes an error or a log line.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, ClassVar, TypedDict, TypeVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from hf_negmine.base.errors import InputError, TeacherError, is_number, require, require_whole

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
NO_KEY = "no-key"
"""Sent to a server other than OpenAI's if no key is set: local servers need none, but the client insists on one."""

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Keys have lower-case letters or dashes, so a key given by mistake is not taken for a variable name and shown."""

ASKED_AGAIN = (408, 409, 429)
"""HTTP statuses; every status from 500 on is retried too."""

LONGEST_DELAY = 60.0
"""Seconds; the doubling delay stops growing here."""

LONGEST_WAIT = 600.0
"""Seconds; if a server asks for a longer pause (a daily quota, say), that is an error instead."""

CHARACTERS_SHOWN = 300
"""Characters of a server's message that are shown."""

SHORTEST_SECRET = 8
"""Characters; in a base URL's query, which the client logs, a shorter value counts as a version or a switch."""
DATED_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
"""Such as Azure's ``api-version``; not a secret either."""

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class BadAnswer(Exception):  # noqa: N818 - raised by a call to have its request retried; it never leaves `run`
    """An answer that cannot be used, such as half of one; retried like a server error.

    Its message holds the answer uncut: it is shortened only after the key was searched for in it.
    """


class ServerSettings(TypedDict, total=False):
    """The keyword arguments of `Endpoint`, which describes them."""

    base_url: str | None
    api_key_variable: str
    concurrency: int
    retries: int
    timeout: float


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible API.

    Attributes:
        model: the server's name for the model.
        base_url: the API's address; None takes ``$OPENAI_BASE_URL``, or OpenAI's own. A query string in it is sent with
            every request and logged, so one that may hold a key is refused; a user name and password are sent in place
            of the key.
        api_key_variable: the name of the environment variable that holds the key. Only OpenAI's own server needs one.
        concurrency: requests at a time.
        retries: how often a request is repeated after 408, 409, 429, 5xx, a broken connection, a time-out or an
            unusable answer. The pauses double from about a second to a minute, and are never shorter than
            ``Retry-After``.
        timeout: seconds without data from the server before a request counts as failed.

    Raises:
        InputError: an argument is invalid.
    """

    model: str
    _: KW_ONLY
    base_url: str | None = None
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    retries: int = 6
    timeout: float = 60.0

    _first_delay: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        named = isinstance(self.model, str) and bool(self.model)
        require(named, f"model: the server's name for the model, got {self.model!r}")
        require(
            isinstance(self.api_key_variable, str) and bool(VARIABLE.fullmatch(self.api_key_variable)),
            "api_key_variable: the name of an environment variable, in capitals, digits and underscores; got something "
            "else, which is not shown here in case it is the key itself",
        )
        require_whole(self.concurrency, "concurrency", at_least=1)
        require_whole(self.retries, "retries", at_least=0)
        require(
            is_number(self.timeout) and 0 < self.timeout < math.inf,
            f"timeout: a number of seconds over 0, got {self.timeout!r}",
        )
        if self.base_url is None:
            object.__setattr__(self, "base_url", os.environ.get("OPENAI_BASE_URL") or OPENAI)
        try:
            whole = self._url.scheme in ("http", "https") and bool(self._url.hostname) and self._url.port != 0
        except ValueError:  # a port that is not a number
            whole = False
        shown = str(self.base_url).rpartition("@")[2].partition("?")[0]
        require(whole, f"base_url: http://… or https://…, got {shown!r}")
        in_query = [value or name for name, value in parse_qsl(self._url.query, keep_blank_values=True)]
        require(
            all(len(one) < SHORTEST_SECRET or DATED_VERSION.fullmatch(one) for one in in_query),
            "base_url: its query holds a value that would appear in logs; give the key in the environment variable "
            f"{self.api_key_variable}",
        )

    @property
    def address(self) -> str:
        """The base URL without user, password, query and trailing slash: what may be shown and stored."""
        url = self._url
        return f"{url.scheme}://{url.netloc.rpartition('@')[2].lower()}{url.path.rstrip('/')}"

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r}, base_url={self.address!r})"

    def run(self, requests: Iterable[Request], call: Callable[[Any, Request], Answer]) -> Iterator[Answer]:
        """Yield the result of ``call`` for each request, as answers arrive.

        Args:
            requests: read only as they are sent. Each of them is retried until it is answered.
            call: sends one request through the `openai.OpenAI` it is given, and returns the result; raises `BadAnswer`
                to have the request retried. It runs in several threads at once.

        Raises:
            InputError: `openai` is not installed, or there is no key for OpenAI.
            TeacherError: the server refused a request, or gave no usable answer after all retries. Requests already
                under way are awaited, and their answers come first.
        """
        source = iter(requests)
        upcoming = list(islice(source, self.concurrency))
        if not upcoming:
            return
        stop = threading.Event()
        failure: BaseException | None = None
        with self._client() as (client, secrets), ThreadPoolExecutor(self.concurrency) as threads:

            def send(request: Request) -> Future[Answer]:
                return threads.submit(self._ask, client, call, request, stop, secrets)

            running = {send(request) for request in upcoming}
            try:
                while running:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    failure = failure or next((error for future in finished if (error := future.exception())), None)
                    if failure is None:
                        try:
                            upcoming = list(islice(source, len(finished)))
                        except Exception as error:  # requests under way are paid for: their answers come first
                            upcoming, failure = [], error
                        running |= {send(request) for request in upcoming}
                    if failure is not None:
                        stop.set()
                    for future in finished:
                        if future.exception() is None:
                            yield future.result()
            finally:
                stop.set()
        if failure is not None:
            raise failure

    def _ask(
        self,
        client: Any,
        call: Callable[[Any, Request], Answer],
        request: Request,
        stop: threading.Event,
        secrets: list[str],
    ) -> Answer:
        """Ask until there is an answer; gives up early once ``stop`` is set."""
        delay = self._first_delay
        for asked in range(1, self.retries + 2):
            try:
                return call(client, request)
            except Exception as error:
                if (found := _fault_of(error, secrets)) is None:
                    raise
                fault = found
            if not fault.passing or asked > self.retries or stop.is_set():
                break
            if fault.pause > LONGEST_WAIT:
                text = f"{fault.text}; it asks to wait {fault.pause:,.0f} s, the limit is {LONGEST_WAIT:.0f} s"
                fault = _Fault(text)
                break
            pause = max(fault.pause, min(delay, LONGEST_DELAY)) * random.uniform(1, 1.25)  # not all at the same moment
            delay *= 2
            logger.info("%s at %s: %s; retried in %.1f s", self.model, self.address, fault.text, pause)
            if stop.wait(pause):
                break
        # Outside of `except`, so that no client error, whose request holds the key, is attached as its context.
        times = f" ({asked} attempts)" if asked > 1 else ""
        raise TeacherError(f"{self.model} at {self.address}: {fault.text}{times}")

    @contextmanager
    def _client(self) -> Iterator[tuple[Any, list[str]]]:
        """The client, and the secrets that must not leak."""
        try:
            import openai
        except ImportError as error:
            raise InputError('an API needs the package openai: pip install "hf_negmine[api]"') from error
        key, url = self._key(), self._url
        user, password = unquote(url.username or ""), unquote(url.password or "")
        headers = {}
        if user or password:  # in the URL they would appear in the transport's log
            basic = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers = {"Authorization": f"Basic {basic}"}
        client = openai.OpenAI(
            api_key=key,
            base_url=self.address,
            default_query=dict(parse_qsl(url.query, keep_blank_values=True)),
            default_headers=headers,
            timeout=self.timeout,
            max_retries=0,
        )
        given = [key, password, *(value.removeprefix("Basic ") for value in headers.values())]
        secrets = {form for secret in given if secret not in ("", NO_KEY) for form in (secret, quote(secret, safe=""))}
        with client:
            yield client, sorted(secrets, key=len, reverse=True)

    def _key(self) -> str:
        key = os.environ.get(self.api_key_variable, "").strip()
        if not key and self.address == OPENAI:
            raise InputError(f"{self.model}: environment variable {self.api_key_variable} holds no key for {OPENAI}")
        if not (key.isascii() and key.isprintable()):  # the client's error would show it
            raise InputError(f"{self.model}: environment variable {self.api_key_variable} holds no ASCII text")
        return key or NO_KEY

    @property
    def _url(self) -> SplitResult:
        return urlsplit(str(self.base_url))


def read_json(raw: Any) -> dict[str, Any]:
    """The JSON object of a response requested through ``with_raw_response``.

    Parsed here rather than by the client, which accepts half an answer, and fails on an empty one differently in each
    version.

    Raises:
        BadAnswer: the response is not a JSON object.
    """
    text = raw.http_response.text
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise BadAnswer(f"expected a JSON object, got {text!r}")
    return content


@dataclass(frozen=True)
class _Fault:
    """What went wrong with one request.

    Attributes:
        text: the message, without secrets.
        passing: whether a retry may help.
        pause: seconds that the server asks to wait.
    """

    text: str
    passing: bool = False
    pause: float = 0.0


def _fault_of(error: Exception, secrets: list[str]) -> _Fault | None:
    """The fault behind an error; None for an error that has nothing to do with the server."""
    import openai

    if isinstance(error, BadAnswer):
        return _Fault(_told(str(error), secrets), passing=True)
    if isinstance(error, openai.APIStatusError):
        status, body = error.status_code, error.body
        said: Any = body
        if isinstance(body, dict):
            said = body.get("message") or json.dumps(body, ensure_ascii=False)
        text = f"HTTP {status}: {_told(str(said or error.response.reason_phrase), secrets)}"
        if isinstance(body, dict) and body.get("code") == "insufficient_quota":  # a 429 that no waiting will fix
            return _Fault(text)
        return _Fault(text, status in ASKED_AGAIN or status >= 500, _pause(error.response.headers))
    if isinstance(error, openai.APITimeoutError):
        return _Fault("no answer in time", passing=True)
    if isinstance(error, openai.APIConnectionError):
        cause = error.__cause__ or error
        return _Fault(f"the connection broke off ({_told(f'{type(cause).__name__}: {cause}', secrets)})", passing=True)
    if isinstance(error, openai.OpenAIError):
        return _Fault(_told(f"{type(error).__name__}: {error}", secrets))
    return None


def _told(text: str, secrets: list[str]) -> str:
    """The part of a text that may be shown: secrets are removed first, lest half of one survives the cut."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = " ".join(text.split())
    return line if len(line) <= CHARACTERS_SHOWN else f"{line[:CHARACTERS_SHOWN]}…"


def _pause(headers: Any) -> float:
    """Seconds of ``Retry-After``, which is a number or a date; 0 if absent."""
    given = str(headers.get("retry-after") or "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
