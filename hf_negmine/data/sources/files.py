"""Reading files, local or at an address, compressed or not, as data sets."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import datasets

from hf_negmine.base.errors import InputError, require
from hf_negmine.data.sources.separated import reading_options

BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")


def local_path(source: str | os.PathLike[str], what: str) -> str:
    """A path with ``~`` and ``file://`` resolved; addresses are left unchanged.

    Raises:
        InputError: it cannot be a path: bytes, empty, or with a NUL in it.
    """
    path = os.fspath(source)
    require(isinstance(path, str), f"{what}: expected a path of text, got {path!r:.80}")
    require(bool(path.strip()) and "\0" not in path, f"{what}: expected a path or a data set id, got {path!r:.80}")
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    return os.path.expanduser(path)


def is_address(path: str) -> bool:
    """Whether this looks like ``https://…``, ``s3://…`` or ``hf://…``."""
    return "://" in path


def endings(path: str) -> tuple[str, str]:
    """The ending for the format, and the one for the compression, each with its dot or empty."""
    name = urlsplit(path).path if is_address(path) else path
    name = name.rsplit("/", 1)[-1].lower()
    stem, last = os.path.splitext(name)
    return (os.path.splitext(stem)[1], last) if last in COMPRESSED else (last, "")


def open_file(path: str | Path) -> datasets.Dataset:
    """Rows of a Parquet, JSONL, CSV or TSV file."""
    return read_file(local_path(path, "rows"))[0]


def open_shards(paths: Iterable[Path]) -> datasets.Dataset:
    """Rows of several Parquet files, in this order."""
    files = [glob.escape(str(path)) for path in paths]
    try:
        rows = datasets.load_dataset("parquet", data_files=files, split="train")
    except Exception as error:  # as in `read_file`
        raise InputError(f"{files[0]} and the files beside it could not be read: {_reason(error)}") from error
    assert isinstance(rows, datasets.Dataset)
    return rows


def read_file(path: str, *, named: Iterable[str] = (), as_corpus: bool = False) -> tuple[datasets.Dataset, str]:
    """A file as a data set, and the code that makes it.

    Args:
        path: a Parquet, JSONL, CSV or TSV file, or a text file with one passage per line; compressed or not; an
            address is opened by the libraries behind `datasets`.
        named: columns that the user has named: a first line that holds them is a header.
        as_corpus: whether a file without a header may consist of texts, or of numbers and texts.

    Raises:
        InputError: the file cannot be read; the message gives the reason.
    """
    ending, compression = endings(path)
    builder = BUILDERS.get(ending)
    if builder is None or (builder == "text" and not as_corpus):
        known = sorted(known for known in BUILDERS if as_corpus or known != ".txt")
        only = "; lines of text can be a corpus, not rows" if builder == "text" else ""
        raise InputError(f"{path}: the ending {ending!r} is not among {known}{only}")
    options: dict[str, Any] = {}
    try:
        local = path
        if compression or is_address(path):
            config = datasets.DownloadConfig(disable_tqdm=True)
            local = str(datasets.DownloadManager(download_config=config).download_and_extract(path))
        require(os.path.getsize(local) > 0, f"{path} is empty")
        if builder == "csv":
            options = reading_options(local, path, "\t" if ending == ".tsv" else ",", named, as_corpus=as_corpus)
        elif builder == "text":
            options = {"encoding": "utf-8-sig"}  # a byte order mark is not part of the first passage
        rows = datasets.load_dataset(builder, data_files=glob.escape(local), split="train", **options)
    except InputError:
        raise
    except Exception as error:  # each library has its own exceptions; all of them mean an unreadable file
        or_else = "; or download the file and give its path" if is_address(path) else ""
        raise InputError(f"{path} could not be read as {builder}: {_reason(error)}{or_else}") from error
    assert isinstance(rows, datasets.Dataset)
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return rows, f"load_dataset({builder!r}, data_files={path!r}{given}, split='train')"


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
    reason = " ".join(str(cause or error).split()) or type(error).__name__
    return "it holds no rows" if "corresponds to no data" in reason else reason[:300]
