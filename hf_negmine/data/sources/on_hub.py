"""Data sets on the Hub, in one piece or as BEIR and MTEB lay them out."""

from __future__ import annotations

import ast
import re

import datasets
import pyarrow as pa

from hf_negmine.base.errors import InputError, require
from hf_negmine.data.sources.beir import joined_beir, judged_pairs, texts_with_ids
from hf_negmine.data.sources.columns import OpenedRows, Rows, choose_split

CONFIGS = re.compile(r"[Aa]vailable(?: configs)?: (\[[^\]]*\])")
MOST_CONFIGS = 30
JUDGEMENTS = {"query-id", "corpus-id", "score"}


def load_from_hub(given: str, split: str | None, config_name: str | None, config_argument: str) -> OpenedRows:
    """Load a data set by its id, ``USER/NAME`` or ``USER/NAME@REVISION``.

    One whose configs are ``corpus``, ``queries`` and judgements (``default``, ``qrels``, or a set ``NAME-qrels``) is
    joined like a BEIR folder.

    Raises:
        InputError: it cannot be loaded, or it is not clear which config or split is meant.
    """
    name, _, revision = given.partition("@")
    try:
        loaded = datasets.load_dataset(name, config_name, split=split, **_pinned(revision))
    except Exception as error:  # from datasets, the Hub, or the network
        if config_name is None and {"corpus", "queries"} <= set(_configs(error)):
            return _joined(name, split, revision, _judgements(name, split, revision, _configs(error)))
        raise InputError(_why_not_loaded(given, config_name, config_argument, error)) from error
    arguments = ", ".join(repr(one) for one in (name, config_name) if one is not None)
    if isinstance(loaded, dict):
        split = choose_split(list(loaded), None, where=f"{given} on the Hub")
        loaded = loaded[split]
    if config_name is None and set(loaded.column_names or []) == JUDGEMENTS:
        return _joined(name, split, revision, loaded)
    pinned = f", revision={revision!r}" if revision else ""
    return OpenedRows(loaded, code=f"load_dataset({arguments}, split={split!r}{pinned})")


def _judgements(name: str, split: str | None, revision: str, configs: list[str]) -> Rows:
    """The judgements of a set without a default config: its config ``qrels``, or the set of that name beside it."""
    if "qrels" in configs:
        return _part(name, "qrels", split, revision)
    return _part(f"{name}-qrels", None, split, "")


def _joined(name: str, split: str | None, revision: str, judgements: Rows) -> OpenedRows:
    corpus, queries = (_table(_part(name, part, None, revision)) for part in ("corpus", "queries"))
    return joined_beir(
        texts_with_ids(corpus, f"{name}: corpus"),
        texts_with_ids(queries, f"{name}: queries"),
        judged_pairs(_table(judgements), name),
        where=name,
    )


def _part(name: str, config_name: str | None, split: str | None, revision: str) -> Rows:
    """One config, in the split that is named, or the only one, or ``train``."""
    try:
        loaded = datasets.load_dataset(name, config_name, split=split, **_pinned(revision))
    except Exception as error:
        raise InputError(_why_not_loaded(name, config_name, "config_name", error)) from error
    if isinstance(loaded, dict):
        loaded = loaded[choose_split(list(loaded), None, where=f"{name} on the Hub")]
    return loaded


def _pinned(revision: str) -> dict[str, str]:
    return {"revision": revision} if revision else {}


def _table(rows: Rows) -> pa.Table:
    require(isinstance(rows, datasets.Dataset), "a stream cannot be joined by ids; load it without streaming=True")
    table: pa.Table = rows.with_format("arrow")[:]
    return table


def _configs(error: Exception) -> list[str]:
    """The configs that an error of `datasets` offers."""
    offered = CONFIGS.search(str(error))
    return [str(one) for one in ast.literal_eval(offered[1])] if offered else []


def _why_not_loaded(name: str, config_name: str | None, argument: str, error: Exception) -> str:
    message, configs = str(error).strip(), _configs(error)
    if configs:
        more = f" and {len(configs) - MOST_CONFIGS} more" if len(configs) > MOST_CONFIGS else ""
        given = "name one" if config_name is None else f"{config_name!r} is not among them"
        return f"{argument}: {name} on the Hub has the configs {configs[:MOST_CONFIGS]}{more}; {given}"
    reason = (message or type(error).__name__).splitlines()[0][:200]
    return f"{name[:80]!r} is not a file or folder here, and could not be loaded from the Hub: {reason}"
