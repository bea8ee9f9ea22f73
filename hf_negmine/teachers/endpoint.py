"""An OpenAI-compatible endpoint, by the `openai` client: its key, what is asked again, how many requests at a time.

The key is read from an environment variable when requests begin and lives as long as they do: it stands in no
attribute, and is taken out of whatever a server says before that becomes an error or a line in a log.
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
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, ClassVar, TypeVar
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from hf_negmine.base.errors import InputError, TeacherError, require, require_whole

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"
NO_KEY = "no-key"
"""Sent to a server other than OpenAI's where no key is set: local servers ask for none, the client insists on one."""

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Keys have small letters or dashes, so that a key given in the place of the variable's name is not shown as one."""

ASKED_AGAIN = (408, 409, 429)
"""And every status from 500 on."""

LONGEST_DELAY = 60.0
"""Seconds; where doubling the delay ends."""

LONGEST_WAIT = 600.0
"""Seconds; a server that wants a longer pause (a daily quota, say) is an error instead."""

CHARACTERS_SHOWN = 300
"""Of what a server said."""

SHORTEST_SECRET = 8
"""Characters of a value in a base URL's query, which the client logs; a shorter one is a version or a switch."""
DATED_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
"""Such as Azure's ``api-version``: no secret either."""

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class BadAnswer(Exception):  # noqa: N818 - a call raises it to have its request asked again; it never gets out of `run`
    """An answer that cannot be used, such as half of one; asked again like a server's fault.

    Its message holds the answer uncut: it is shortened when the key was looked for in it.
    """


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible API.

    Attributes:
        model: as the server calls it.
        base_url: where the API is; None takes ``$OPENAI_BASE_URL``, or OpenAI's own. A query in it goes along with
            every request and into logs, so none with a key is taken; a user name and password are sent in the place of
            the key.
        api_key_variable: the name of the environment variable that holds the key. A server that is not OpenAI's needs
            none.
        concurrency: requests at a time.
        retries: how often a request is asked again after 408, 409, 429, 5xx, a broken connection, a time-out or an
            unusable answer. The pauses double from about a second to a minute, and are as long as ``Retry-After`` says.
        timeout: seconds that a server may be silent.

    Raises:
        InputError: an argument that cannot be.
    """

    model: str
    base_url: str | None = field(default=None, kw_only=True)
    api_key_variable: str = field(default="OPENAI_API_KEY", kw_only=True)
    concurrency: int = field(default=8, kw_only=True)
    retries: int = field(default=6, kw_only=True)
    timeout: float = field(default=60.0, kw_only=True)

    _first_delay: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        require(isinstance(self.model, str) and bool(self.model), f"model: the server's name of it, got {self.model!r}")
        require(
            isinstance(self.api_key_variable, str) and bool(VARIABLE.fullmatch(self.api_key_variable)),
            "api_key_variable: the name of an environment variable, in capitals, digits and underscores; got something "
            "else, which is not shown here in case it is the key itself",
        )
        require_whole(self.concurrency, "concurrency", at_least=1)
        require_whole(self.retries, "retries", at_least=0)
        number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        require(number and 0 < self.timeout < math.inf, f"timeout: a number of seconds over 0, got {self.timeout!r}")
        if self.base_url is None:
            object.__setattr__(self, "base_url", os.environ.get("OPENAI_BASE_URL") or OPENAI)
        try:
            whole = self._url.scheme in ("http", "https") and bool(self._url.hostname) and self._url.port != 0
        except ValueError:  # a port that is no number
            whole = False
        shown = str(self.base_url).rpartition("@")[2].partition("?")[0]
        require(whole, f"base_url: http://… or https://…, got {shown!r}")
        in_query = [value or name for name, value in parse_qsl(self._url.query, keep_blank_values=True)]
        require(
            all(len(one) < SHORTEST_SECRET or DATED_VERSION.fullmatch(one) for one in in_query),
            "base_url: its query holds a value that would stand in logs; give the key by the environment variable "
            f"{self.api_key_variable}",
        )

    @property
    def address(self) -> str:
        """The base URL without a user, a password, a query and the last slash: what may be shown and kept."""
        url = self._url
        return f"{url.scheme}://{url.netloc.rpartition('@')[2].lower()}{url.path.rstrip('/')}"

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r}, base_url={self.address!r})"

    def run(self, requests: Iterable[Request], call: Callable[[Any, Request], Answer]) -> Iterator[Answer]:
        """What ``call`` makes of each request, as answers come.

        Args:
            requests: read as they are sent, not before. Every one of them is asked until it is answered.
            call: sends one request by the `openai.OpenAI` that it is given, and returns what came; it raises
                `BadAnswer` to have it asked again. It runs in several threads at a time.

        Raises:
            InputError: `openai` is not installed, or there is no key for OpenAI.
            TeacherError: a server that refused a request, or did not answer it usefully after all retries. What is
                under way then is waited for and comes first.
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
                        except Exception as error:  # what is under way is paid for: it comes first here, too
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
                text = f"{fault.text}; it asks to wait {fault.pause:,.0f} s, at most {LONGEST_WAIT:.0f} s are waited"
                fault = _Fault(text)
                break
            pause = max(fault.pause, min(delay, LONGEST_DELAY)) * random.uniform(1, 1.25)  # not all at the same moment
            delay *= 2
            logger.info("%s at %s: %s; asked again in %.1f s", self.model, self.address, fault.text, pause)
            if stop.wait(pause):
                break
        # Outside of `except`, so that no error of the client, whose request holds the key, comes along as its context.
        times = f" (asked {asked} times)" if asked > 1 else ""
        raise TeacherError(f"{self.model} at {self.address}: {fault.text}{times}")

    @contextmanager
    def _client(self) -> Iterator[tuple[Any, list[str]]]:
        """The client, and what must not get out."""
        try:
            import openai
        except ImportError as error:
            raise InputError('an API needs the package openai: pip install "hf_negmine[api]"') from error
        key, url = self._key(), self._url
        user, password = unquote(url.username or ""), unquote(url.password or "")
        headers = {}
        if user or password:  # in the URL they would be seen in the transport's log
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
    """The JSON object of a response that was asked for by ``with_raw_response``.

    Read here and not by the client, which takes half an answer, and fails on none in ways that its versions differ in.

    Raises:
        BadAnswer: it is none.
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
        text: without a secret in it.
        passing: whether asking again may help.
        pause: seconds that the server wants to be left alone.
    """

    text: str
    passing: bool = False
    pause: float = 0.0


def _fault_of(error: Exception, secrets: list[str]) -> _Fault | None:
    """None for an error that has nothing to do with the server."""
    import openai

    if isinstance(error, BadAnswer):
        return _Fault(_told(str(error), secrets), passing=True)
    if isinstance(error, openai.APIStatusError):
        status, body = error.status_code, error.body
        said: Any = body
        if isinstance(body, dict):
            said = body.get("message") or json.dumps(body, ensure_ascii=False)
        text = f"HTTP {status}: {_told(str(said or error.response.reason_phrase), secrets)}"
        if isinstance(body, dict) and body.get("code") == "insufficient_quota":  # a 429 that no patience mends
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
    """What may be shown of a text: secrets go first, lest half of one stays at the cut."""
    for secret in secrets:
        text = text.replace(secret, "***")
    line = " ".join(text.split())
    return line if len(line) <= CHARACTERS_SHOWN else f"{line[:CHARACTERS_SHOWN]}…"


def _pause(headers: Any) -> float:
    """Seconds of ``Retry-After``, which is a number or a date; 0 where there is none."""
    given = str(headers.get("retry-after") or "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
