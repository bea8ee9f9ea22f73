"""The provenance of a mined data set: every setting, digests, versions, and where its files are in the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.base import shapes
from hf_negmine.base.errors import InputError, StorageError, require
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.naming import is_plain_name, public_content
from hf_negmine.base.schema import DigestArray
from hf_negmine.base.shapes import Shape, check_plain, list_of
from hf_negmine.data.sources import table_batches
from hf_negmine.data.texts import sort_digests
from hf_negmine.hub.settings import check_settings, require_settings
from hf_negmine.report.summary import MiningSummary

PROVENANCE_VERSION = 1
LIBRARIES = ("hf_negmine", "datasets", "sentence-transformers", "transformers", "torch", "numpy", "pyarrow", "bm25s")
FOLDER = "negmine"
LOOKUPS = ("queries", "corpus", "pairs")
POSITIVES = "positives"
"""What a judge has found, as a config beside the mined rows."""
LIST_TABLES = {"queries": "queries", "documents": "corpus", "scores": "scores"}
"""The configs of a pool as scored lists, by the names under which `resolve_ids` is used with them, and their files."""
SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
KEPT = ("columns", "query_prompt", "passage_prompt")
"""Settings that are the user's own text, not names."""
LONGEST_PATH, LONGEST_NAME = 1024, 255


def _files(value: Any, where: str) -> None:
    """Paths by content, at least those of the rows."""
    shapes.record({}, required=["data"])(value, where)
    shapes.map_of(list_of(shapes.text))(value, where)
    shapes.expect(all(value.values()), where, "a path for each kind of content", value)


REQUIRED: dict[str, Shape] = {
    "config_name": shapes.text,
    "split": shapes.text,
    "summary": shapes.map_of(shapes.anything),
    "columns": list_of(shapes.text, length=2),
    "rows": shapes.whole(),
    "rows_digest": shapes.text,
    "versions": shapes.map_of(shapes.text),
    "files": _files,
}
SHAPE = shapes.record(
    {**REQUIRED, "source_datasets": list_of(shapes.text), "examples": list_of(shapes.map_of(shapes.anything))},
    required=REQUIRED,
    closed=True,
)
"""The shape of `Provenance.to_json`, except for the version and the content of the summary."""


class LaterVersionError(StorageError):
    """Provenance written by a later version of this library."""


@dataclass(frozen=True)
class Provenance:
    """How one split of one config was mined.

    Attributes:
        config_name, split: which part of the data set.
        summary: settings, counts, statuses and score statistics (`MiningSummary`).
        columns: the query and the positive column.
        rows: how many were pushed.
        rows_digest: digest of their content, independent of their order.
        versions: the versions of the libraries.
        files: paths in the repository by content: data, queries, corpus, pairs, figure, sweep, report, pool, scores.
        source_datasets: ids on the Hub of the mined data sets, if known.
        examples: a few of the rows.
    """

    config_name: str
    split: str
    summary: MiningSummary
    columns: tuple[str, str]
    rows: int
    rows_digest: str
    versions: dict[str, str]
    files: dict[str, list[str]]
    source_datasets: list[str] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Its path in the repository."""
        return provenance_path(self.config_name, self.split)

    def to_json(self) -> str:
        """The stored form."""
        content = {**asdict(self), "provenance_version": PROVENANCE_VERSION}
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> Provenance:
        """The inverse of `to_json`; the content is not trusted.

        Raises:
            StorageError: not provenance of hf_negmine, a later version, or file names that leave the repository.
        """
        try:
            content = json.loads(text)
            check_plain(content, where)
            _require_known_version(content, where)
            content = dict(content)
            del content["provenance_version"]
            SHAPE(content, where)
            check_settings(content["summary"].get("settings", {}), f"{where}, settings")
            content["summary"] = MiningSummary.from_dict(content["summary"], where=f"{where}, summary")
            content["columns"] = tuple(content["columns"])
            provenance = cls(**content)
            for name in (provenance.config_name, provenance.split):
                check_name(name, where)
        except (ValueError, RecursionError, StorageError) as error:
            if isinstance(error, LaterVersionError):
                raise
            raise StorageError(f"{where} is not provenance that hf_negmine has written ({error})") from error
        for path in (path for paths in provenance.files.values() for path in paths):
            check_path(path, where)
        return provenance


def _require_known_version(content: Any, where: str) -> None:
    shapes.record({"provenance_version": shapes.whole()}, required=["provenance_version"])(content, where)
    found = content["provenance_version"]
    if found > PROVENANCE_VERSION:
        raise LaterVersionError(
            f"{where} has provenance version {found}, this version of hf_negmine reads up to {PROVENANCE_VERSION}; "
            "upgrade hf_negmine"
        )


def read_provenance(content: bytes, path: str, *, where: str) -> Provenance:
    """The provenance at ``path`` of a repository, complete and checked, so that later code can trust it.

    Raises:
        StorageError: see `Provenance.from_json`; also a missing setting, or provenance of another part.
    """
    provenance = Provenance.from_json(content, where=where)
    require_settings(provenance.summary.settings, where)
    if provenance.path != path:
        raise StorageError(
            f"{where} is about config {provenance.config_name!r}, split {provenance.split!r}, but its name says "
            "otherwise"
        )
    return provenance


def provenance_path(config_name: str, split: str) -> str:
    """The path of the provenance of a config's split in the repository."""
    return f"{FOLDER}/{config_name}/{split}.json"


def list_config(config_name: str, table: str) -> str:
    """The config of one of the `LIST_TABLES` tables; those of ``default`` have the bare names."""
    return table if config_name == "default" else f"{config_name}-{table}"


def check_path(path: str, where: str) -> str:
    """``path``, if it stays inside the repository's folder."""
    parts = PurePosixPath(path).parts if isinstance(path, str) else ()
    inside = bool(parts) and not path.startswith("/") and path.isprintable() and not set(path) & set("\\:*?[")
    if not inside or ".." in parts:
        raise StorageError(f"{where} names the file {path!r:.200}, which would leave its folder; nothing was read")
    if len(path) > LONGEST_PATH or max(len(part.encode()) for part in parts) > LONGEST_NAME:
        raise StorageError(f"{where} names a file with a name of {len(path)} characters, which no folder can hold")
    return path


def check_name(name: str, argument: str) -> str:
    """A config or split name, or `InputError`."""
    require(
        isinstance(name, str)
        and NAME.fullmatch(name) is not None
        and name not in ("data", *LIST_TABLES)
        and not name.endswith(tuple(f"-{lookup}" for lookup in (*LOOKUPS, *LIST_TABLES, POSITIVES))),
        f"{argument}: {name!r} cannot name a part of a data set on the Hub; use letters, digits, '_', '-' and '.', "
        "but not 'data', the name of a lookup table such as 'scores', or its ending such as '-corpus'",
    )
    require(
        argument != "split" or SPLIT.fullmatch(name) is not None,
        f"{argument}: {name!r} cannot name a split; datasets wants letters, digits and '_', with single '.' in between",
    )
    return name


def check_repo_id(repo_id: str) -> str:
    """``user/name``, or `InputError`."""
    parts = repo_id.split("/") if isinstance(repo_id, str) else []
    if len(parts) != 2 or not all(NAME.fullmatch(part) for part in parts):
        raise InputError(f"repo_id: expected 'user/name', got {repo_id!r}")
    return repo_id


def public_summary(summary: MiningSummary) -> MiningSummary:
    """The summary without paths of this machine, neither in the names of teachers nor in those of filters and rules.

    Columns and prompts are part of the data and of a model's input, so they stay as they are.
    """
    return MiningSummary.from_dict(public_content(summary.as_dict(), kept=KEPT))


def check_dataset_ids(ids: Sequence[str], argument: str) -> list[str]:
    """Ids of data sets on the Hub, ``user/name`` or ``name``, or `InputError`."""
    wrong = [ids] if isinstance(ids, str) else [one for one in ids if not is_plain_name(one)]
    require(
        not wrong, f"{argument}: expected a list of ids of data sets on the Hub such as ['user/name'], got {wrong[:1]}"
    )
    return list(ids)


def library_versions() -> dict[str, str]:
    """The versions of the libraries that a mined set depends on."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def row_digests(rows: Iterable[Mapping[str, Any]]) -> DigestArray:
    """A digest of the content of each row, uint64, shape (rows, 2)."""
    texts = [json.dumps(row, sort_keys=True, ensure_ascii=False, default=str) for row in rows]
    return text_digests(pa.array(texts, pa.large_string()))


def rows_digest(rows: datasets.Dataset) -> str:
    """A digest of the content of all rows, independent of their order."""
    found = [row_digests(table.to_pylist()) for table in table_batches(rows)]
    _, ordered = sort_digests(np.concatenate([np.empty((0, 2), dtype=np.uint64), *found]))
    return digest_of("rows", sorted(rows.column_names), np.ascontiguousarray(ordered))
