"""The page as one file: template, style, script and content put together, with a policy that allows nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import replace
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

from hf_negmine.base.defaults import PAGE_QUERIES
from hf_negmine.base.errors import require, require_whole
from hf_negmine.base.files import finish_or_nothing
from hf_negmine.base.paths import folder_of
from hf_negmine.data.sources import is_beir
from hf_negmine.miner import NegativeMiner
from hf_negmine.page.content import Shown
from hf_negmine.pool.ids import POSITIONS, SPACE, Ids, require_fields
from hf_negmine.report.sweep import Sweep


def write_report(
    mined: NegativeMiner | Shown,
    path: Path | str,
    *,
    queries: int = PAGE_QUERIES,
    sweep: Sweep | None = None,
    ids: Any = None,
) -> Path:
    """Write a page to look at mined negatives: one HTML file that needs no network.

    It shows the summary, the distributions of scores, differences and losses (figure 4 of the paper), and each query
    with its positives, its negatives and what was held back. A slider moves the ceiling: what would be mined under
    another one is read from the stored candidates, without filters and with the sampler ``top``. Passages can be
    labeled as relevant or not; the labels are exported as JSON lines or TREC relevance judgements. The page of an
    ensemble shows how much its teachers agree, and the candidates of one of them at a time.

    Args:
        mined: a fitted miner.
        path: the file to write; an earlier one is replaced.
        queries: how many queries the page holds at most, drawn by their texts; an ensemble's teachers share them.
        sweep: many settings side by side (`NegativeMiner.sweep`), to be shown as a table; None shows none.
        ids: the texts with your ids, under which labels are exported: a BEIR folder, or queries and documents, each
            in any form that `CandidatePool.from_lists` takes. None exports positions as ids.

    Returns:
        The path.

    Raises:
        NotFittedError: the miner is not fitted.
        InputError: the candidates are no longer in the cache, or a text has no id, or one that is not a word.
        StorageError: the file cannot be written.
    """
    require_whole(queries, "queries", at_least=1)
    require(isinstance(mined, NegativeMiner | Shown), f"mined: expected a fitted miner, got {mined!r:.80}")
    require(sweep is None or isinstance(sweep, Sweep), f"sweep: expected miner.sweep(…), got {sweep!r:.80}")
    shown = mined if isinstance(mined, Shown) else Shown.of(mined)
    if ids is not None:
        shown = replace(shown, ids=_ids(shown, ids))
    path = folder_of(path, "path")
    with finish_or_nothing(path) as file:
        file.write(page_of(shown.content(shown.sample(queries)), sweep=sweep).encode())
    return path


def _ids(shown: Shown, given: Any) -> Ids:
    if isinstance(given, str | PathLike) and is_beir(Path(given).expanduser()):
        given = (given, given)
    require(
        isinstance(given, tuple | list) and len(given) == 2,
        f"ids: expected a BEIR folder (corpus, queries), or (queries, documents), got {given!r:.80}",
    )
    found = POSITIONS.given(shown.texts, *given)
    require_fields(found, SPACE, "relevance judgements")
    return found


def page_of(content: dict[str, Any], *, sweep: Sweep | None = None, server: dict[str, Any] | None = None) -> str:
    """The HTML of a page.

    Args:
        content: from `Shown.content`.
        sweep: settings to show as a table.
        server: for a served page, the address for judgements, the judgements so far, and the slices; None for a file.
    """
    template, style, script = (
        files("hf_negmine.page").joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    # Compressed, texts can be three times as long; and no text can end the script element.
    table = None
    if sweep is not None:
        table = {"heading": sweep.heading, "cells": sweep.cells(), "told": sweep.recommendation.replace("`", "")}
    whole = {**content, "sweep": table, "server": server}
    data = _encoded(gzip.compress(json.dumps(whole, ensure_ascii=False).encode(), 6, mtime=0))
    parts = {"STYLE": style, "SCRIPT": script, "STYLE_HASH": _hash(style), "SCRIPT_HASH": _hash(script), "DATA": data}
    pieces = template.split("@@")
    return "".join(piece if place % 2 == 0 else parts[piece] for place, piece in enumerate(pieces))


def _hash(text: str) -> str:
    return f"sha256-{_encoded(hashlib.sha256(text.encode()).digest())}"


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
