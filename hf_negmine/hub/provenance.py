"""What travels with a mined data set: every setting, digests, versions, and where its files lie in the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from hf_negmine.errors import InputError, StorageError, require
from hf_negmine.files import digest_of, text_digests
from hf_negmine.schema import DigestArray
from hf_negmine.sources import table_batches
from hf_negmine.summary import MiningSummary

PROVENANCE_VERSION = 1
LIBRARIES = ("hf_negmine", "datasets", "sentence-transformers", "transformers", "torch", "numpy", "pyarrow", "bm25s")
FOLDER = "negmine"
LOOKUPS = ("queries", "corpus", "pairs")
SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Provenance:
    """How one split of one config was mined.

    Attributes:
        config_name, split: which.
        summary: settings, counts, statuses and score statistics (`MiningSummary`).
        columns: the query and the positive column.
        rows: how many were pushed.
        rows_digest: of their content, whatever their order.
        versions: of the libraries.
        files: paths in the repository by what they hold: data, queries, corpus, pairs, figure, pool.
        source_datasets: ids on the Hub of what was mined, if known.
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
        """Where it lies in the repository."""
        return provenance_path(self.config_name, self.split)

    def to_json(self) -> str:
        """As it is stored."""
        content = {**asdict(self), "provenance_version": PROVENANCE_VERSION}
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Provenance:
        """The inverse of `to_json`; nothing in it is trusted.

        Raises:
            StorageError: no provenance of hf_negmine, one of a later version, or file names that leave the repository.
        """
        try:
            content = json.loads(text)
            found = content.pop("provenance_version")
            if found > PROVENANCE_VERSION:
                raise StorageError(
                    f"{where} has provenance version {found}, this version of hf_negmine reads up to "
                    f"{PROVENANCE_VERSION}; upgrade hf_negmine"
                )
            content["summary"] = MiningSummary.from_dict(content["summary"])
            content["columns"] = tuple(content["columns"])
            provenance = cls(**content)
            for name in (provenance.config_name, provenance.split):
                check_name(name, where)
            for paths in [provenance.files["data"], *provenance.files.values()]:
                require(isinstance(paths, list) and bool(paths), f"files: expected lists of paths, got {paths!r}")
                for path in paths:
                    check_path(path, where)
        except StorageError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"{where} is no provenance that hf_negmine has written ({error!r})") from error
        return provenance


def is_ensemble(settings: Mapping[str, Any]) -> bool:
    """Whether several teachers mined, with a pool each (`select.ensembles`), as the settings of a summary say."""
    return (settings.get("teacher_settings") or {}).get("kind") in ("cross-sample", "intra-sample")


def provenance_path(config_name: str, split: str) -> str:
    """Where the provenance of a config's split lies in the repository."""
    return f"{FOLDER}/{config_name}/{split}.json"


def check_path(path: str, where: str) -> str:
    """``path``, if it stays inside the repository's folder."""
    inside = isinstance(path, str) and path and not path.startswith("/") and not set(path) & set("\\:*?[\0")
    if not inside or ".." in PurePosixPath(path).parts:
        raise StorageError(f"{where} names the file {path!r}, which would leave its folder; nothing was read")
    return path


def check_name(name: str, argument: str) -> str:
    """A config or split name, or `InputError`."""
    require(
        NAME.fullmatch(name) is not None
        and name != "data"
        and not name.endswith(tuple(f"-{lookup}" for lookup in LOOKUPS)),
        f"{argument}: {name!r} cannot name a part of a data set on the Hub; use letters, digits, '_', '-' and '.', "
        "and not 'data' or an ending of the lookup tables such as '-corpus'",
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


def library_versions() -> dict[str, str]:
    """Versions of the libraries that a mined set hangs on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def row_digests(rows: datasets.Dataset) -> DigestArray:
    """A digest of the content of each row, uint64, shape (rows, 2), sorted."""
    found = [np.empty((0, 2), dtype=np.uint64)]
    for table in table_batches(rows):
        texts = [json.dumps(row, sort_keys=True, ensure_ascii=False, default=str) for row in table.to_pylist()]
        found.append(text_digests(pa.array(texts, pa.large_string())))
    digests = np.concatenate(found)
    return np.asarray(digests[np.lexsort((digests[:, 1], digests[:, 0]))])


def rows_digest(rows: datasets.Dataset) -> str:
    """Digest of the content of all rows, whatever their order."""
    return digest_of("rows", sorted(rows.column_names), row_digests(rows))
