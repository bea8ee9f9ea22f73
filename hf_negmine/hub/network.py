"""The Hub's errors as one sentence each, without a token, a URL or a host name in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_negmine.errors import NegmineError

TRANSPORT = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")

AGAIN = "nothing has changed on the Hub; run the same again, finished uploads are kept"
REASONS = {
    401: "the token was refused; log in with `hf auth login`, or give token=",
    403: "the token may not do this; take one with write access to {repo_id}",
    404: "there is no such repository, or the token may not see it",
    409: "the Hub reports a conflict; " + AGAIN,
    412: "somebody else has committed in the meantime; " + AGAIN,
    429: "too many requests; wait a while, then: " + AGAIN,
}


class HubError(NegmineError, RuntimeError):
    """Something that the Hub refused, or a connection to it that broke off."""


@contextmanager
def hub_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn what the Hub's client raises while ``doing`` something into one `HubError`."""
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise HubError(f"{doing} {repo_id}: no token; log in with `hf auth login`, or give token=") from error
    except RevisionNotFoundError as error:
        raise HubError(f"{doing} {repo_id}: it has no such revision") from error
    except GatedRepoError as error:
        raise HubError(f"{doing} {repo_id}: it is gated; ask for access on its page") from error
    except RepositoryNotFoundError as error:
        raise HubError(f"{doing} {repo_id}: {REASONS[401 if _status(error) == 401 else 404]}") from error
    except LocalEntryNotFoundError as error:
        raise HubError(f"{doing} {repo_id}: the Hub cannot be reached, and the file is not in the cache") from error
    except HfHubHTTPError as error:
        status = _status(error)
        reason = REASONS.get(status, f"the Hub answered {status}; {AGAIN}").format(repo_id=repo_id)
        raise HubError(f"{doing} {repo_id}: {reason}") from error
    except Exception as error:
        module = type(error).__module__.split(".")[0]
        if module not in TRANSPORT and not isinstance(error, ConnectionError | TimeoutError):
            raise
        raise HubError(f"{doing} {repo_id}: the connection broke off ({type(error).__name__}); {AGAIN}") from error


def _status(error: HfHubHTTPError) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
