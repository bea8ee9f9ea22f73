"""Keeps clients on this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any


def local_names(strayed: list[str]) -> Callable[..., Any]:
    """A `socket.getaddrinfo` that knows this machine only and notes what else is asked: clients swallow errors."""
    look_up = socket.getaddrinfo

    def look_up_here(host: str | bytes | None, *args: Any, **settings: Any) -> Any:
        if host not in (None, "127.0.0.1", "localhost"):
            strayed.append(str(host))
            raise OSError(f"tests reach 127.0.0.1 only, not {host!r}")
        return look_up(host, *args, **settings)

    return look_up_here
