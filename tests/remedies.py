"""The Python that an error suggests, run as a user would run it."""

from __future__ import annotations

import re
from typing import Any

import datasets
import pyarrow as pa

CALL = re.compile(r"(?:for example with|or give|give) (.+?)(?: \(after (\w+) = (.+)\))?(?:, or leave .*)?$")


def suggested(message: str, **given: Any) -> Any:
    """What comes out of the code at the end of a message; ``given`` are ``rows``, ``corpus`` or ``dataset``."""
    found = CALL.search(message)
    assert found is not None, f"no code in {message!r}"
    call, name, made = found.groups()
    known = {
        "Dataset": datasets.Dataset,
        "load_dataset": datasets.load_dataset,
        "load_from_disk": datasets.load_from_disk,
        "pa": pa,
        **given,
    }
    if name is not None:
        known[name] = eval(made, dict(known))
    return eval(call, known)
