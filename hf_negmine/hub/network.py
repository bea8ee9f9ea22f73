"""The Hub's errors, each as one sentence without a token, a URL or a host name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_negmine.base.errors import NegmineError

TRANSPORT = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet")

AGAIN = "nothing half-finished is on the Hub; run the same again, finished uploads are kept"
REASONS = {
    401: "no token was given, or the token was refused; log in with `hf auth login`, or give token= (--token)",
    403: "the token may not do this; use one with write access to {repo_id}",
    404: "there is no such repository, or the token may not see it",
    409: "the Hub reports a conflict; " + AGAIN,
    412: "somebody else has committed in the meantime; " + AGAIN,
    429: "too many requests; wait a while; " + AGAIN,
}
SAID: dict[type[Exception], str] = {
    LocalTokenNotFoundError: "no token; log in with `hf auth login`, or give token= (--token)",
    RevisionNotFoundError: "it has no such revision",
    GatedRepoError: "it is gated; ask for access on its page",
}


class HubError(NegmineError, RuntimeError):
    """A request that the Hub refused, or a connection to it that broke."""


@contextmanager
def hub_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn the errors that the Hub's client raises while ``doing`` something into one `HubError`."""
    try:
        yield
    except NegmineError:
        raise
    except Exception as error:
        if (reason := _reason(error, repo_id)) is None:
            raise
        raise HubError(f"{doing} {repo_id}: {reason}") from error


def _reason(error: Exception, repo_id: str) -> str | None:
    """The reason for an error; None if neither the Hub nor the folder for its files has to do with it."""
    for kind, reason in SAID.items():
        if isinstance(error, kind):
            return reason
    if isinstance(error, RepositoryNotFoundError):
        return REASONS[401 if _status(error) == 401 else 404]
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata"):
        return f"the Hub refuses the card's metadata: {' '.join(str(error).split())}"
    cause: BaseException | None = error
    while cause is not None:  # a failed upload is a RuntimeError caused by the answer or the connection
        if isinstance(cause, HfHubHTTPError) and _status(cause):
            status = _status(cause)
            return REASONS.get(status, f"the Hub answered {status}; {AGAIN}").format(repo_id=repo_id)
        if isinstance(cause, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, so the Hub is not asked"
        if type(cause).__module__.split(".")[0] in TRANSPORT or isinstance(cause, ConnectionError | TimeoutError):
            return f"the connection broke off ({type(cause).__name__}); {AGAIN}"
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"{os.strerror(cause.errno)}; set HF_HOME to a folder that can be written to, on a disk with room"
        cause = cause.__cause__
    if isinstance(error, LocalEntryNotFoundError):
        return "the Hub cannot be reached, and the file is not in the cache"
    return None


def _status(error: HfHubHTTPError) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
