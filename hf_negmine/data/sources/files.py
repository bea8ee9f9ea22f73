"""Reading files, local or at an address, compressed or not, as data sets."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import datasets
import fsspec
import pandas as pd
import pyarrow as pa

from hf_negmine.base.addresses import is_address
from hf_negmine.base.errors import InputError, require
from hf_negmine.data.sources.separated import reading_options

BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
ROWS_A_PART = 10_000
"""Rows of a CSV file that `datasets` reads at a time."""
AS_WRITTEN = r"\s*(?:0|-?[1-9]\d*)\s*"
"""Whole numbers as they are printed: not 007, +7 or -0."""
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


def endings(path: str) -> tuple[str, str]:
    """The ending for the format, and the one for the compression, each with its dot or empty."""
    name = urlsplit(path).path if is_address(path) else path
    name = name.rsplit("/", 1)[-1].lower()
    stem, last = os.path.splitext(name)
    return (os.path.splitext(stem)[1], last) if last in COMPRESSED else (last, "")


def open_file(path: str | Path) -> datasets.Dataset:
    """Rows of a Parquet, JSONL, CSV or TSV file."""
    return read_file(local_path(path, "rows"))[0]


def files_of(path: str, *, as_corpus: bool = False) -> list[str]:
    """The files that a path stands for: itself, those that match a pattern, or the shards in a folder.

    Raises:
        InputError: nothing matches, or a folder holds no data files, or those of several kinds.
    """
    if os.path.isdir(path):
        found = sorted(str(file) for file in Path(path).rglob("*") if file.is_file() and _is_data(file, as_corpus))
        kinds = sorted({endings(file)[0] for file in found})
        require(
            bool(found),
            f"{path} holds no data files: none ends in {_known(as_corpus)}; expected these, a BEIR folder (corpus, "
            "queries, qrels), or one from Dataset.save_to_disk",
        )
        likely = max(kinds, key=lambda kind: kind != ".json")  # JSON often describes the others
        require(
            len(kinds) == 1,
            f"{path} holds files that end in {' and '.join(kinds)}; give a pattern, such as {path}/*{likely}",
        )
        return found
    if not is_pattern(path):
        return [path]
    if is_address(path):
        require(not path.startswith("http"), f"{path}: a web address cannot be a pattern; give the files one by one")
        try:
            system, within = fsspec.url_to_fs(path)
            found = sorted(system.unstrip_protocol(name) for name in system.glob(within))
        except Exception as error:  # each protocol has its own
            raise InputError(f"{path} could not be listed: {_reason(error)}") from error
    else:
        found = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
    require(bool(found), f"{path} matches no file")
    return found


def are_shards(path: str) -> bool:
    """Whether this is a pattern, or a folder of data files that `datasets` did not save."""
    saved = (os.path.join(path, name) for name in ("state.json", "dataset_dict.json"))
    return is_pattern(path) or (os.path.isdir(path) and not any(map(os.path.exists, saved)))


def is_pattern(path: str) -> bool:
    """Whether this is a pattern such as ``data/*.parquet``, rather than a file with such a name."""
    if is_address(path):  # where a question mark begins the query
        return "*" in path.partition("?")[0]
    return glob.has_magic(path) and not os.path.exists(path)


def _is_data(file: Path, as_corpus: bool) -> bool:
    return not file.name.startswith((".", "_")) and endings(str(file))[0] in _known(as_corpus)


def _known(as_corpus: bool) -> list[str]:
    return sorted(known for known in BUILDERS if as_corpus or known != ".txt")


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
    """A file, or several of one kind, as a data set, and the code that makes it.

    Args:
        path: a Parquet, JSONL, CSV or TSV file, or a text file with one passage per line; compressed or not; an
            address is opened by the libraries behind `datasets`; or a pattern or a folder of such files.
        named: columns that the user has named: a first line that holds them is a header.
        as_corpus: whether a file without a header may consist of texts, or of numbers and texts.

    Raises:
        InputError: the file cannot be read; the message gives the reason.
    """
    files, named = files_of(path, as_corpus=as_corpus), list(named)
    builder = BUILDERS.get(endings(files[0])[0])
    options: dict[str, Any] = {}
    try:
        prepared = [_prepared(file, named, as_corpus) for file in files]
        other = next((at for at, its in enumerate(prepared) if its[1:] != prepared[0][1:]), None)
        if other is not None:
            raise InputError(f"{path}: {files[0]} and {files[other]} have other columns or endings; give one kind")
        options = prepared[0][2]
        local = [glob.escape(file) for file, *_ in prepared]
        features = _features([file for file, *_ in prepared], options) if builder == "csv" else None
        rows = datasets.load_dataset(builder, data_files=local, split="train", features=features, **options)
    except InputError:
        raise
    except Exception as error:  # each library has its own exceptions; all of them mean an unreadable file
        or_else = "; or download the file and give its path" if is_address(path) else ""
        raise InputError(f"{path} could not be read as {builder}: {_reason(error)}{or_else}") from error
    assert isinstance(rows, datasets.Dataset)
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    return rows, f"load_dataset({builder!r}, data_files={path!r}{given}, split='train')"


def _prepared(path: str, named: list[str], as_corpus: bool) -> tuple[str, str, dict[str, Any], str]:
    """A local copy of a file, its builder with arguments, and the line with the names of a CSV file's columns."""
    ending, compression = endings(path)
    builder = BUILDERS.get(ending)
    if builder is None or (builder == "text" and not as_corpus):
        only = "; lines of text can be a corpus, not rows" if builder == "text" else ""
        raise InputError(f"{path}: the ending {ending!r} is not among {_known(as_corpus)}{only}")
    local = path
    if compression or is_address(path):
        config = datasets.DownloadConfig(disable_tqdm=True)
        local = str(datasets.DownloadManager(download_config=config).download_and_extract(path))
    require(os.path.getsize(local) > 0, f"{path} is empty")
    if builder != "csv":
        options = {"encoding": "utf-8-sig"} if builder == "text" else {}  # a byte order mark is no text
        return local, builder, options, ""
    options = reading_options(local, path, "\t" if ending == ".tsv" else ",", named, as_corpus=as_corpus)
    with open(local, encoding="utf-8-sig") as file:
        return local, builder, options, "" if "column_names" in options else file.readline().rstrip("\n")


def _features(files: list[str], options: dict[str, Any]) -> datasets.Features:
    """The features of a CSV file's first rows, as `datasets` finds them, but with numbers such as 007 as texts.

    Without features it guesses again for every part of a file: a part of a text column with numbers alone would turn
    1.10 into 1.1.
    Whole numbers are read as such if every cell of every file would be written like that again.
    """
    names = {"names": options["column_names"]} if "column_names" in options else {}
    others = names | {name: value for name, value in options.items() if name != "column_names"}
    frame = pd.read_csv(files[0], nrows=ROWS_A_PART, **others)
    whole = [name for name, kind in frame.dtypes.items() if pd.api.types.is_integer_dtype(kind)]
    for file in files if whole else ():
        with pd.read_csv(file, dtype=str, usecols=whole, chunksize=ROWS_A_PART, **others) as parts:
            for part in parts:
                as_text = [name for name in whole if not part[name].str.fullmatch(AS_WRITTEN).all()]
                frame = frame.astype(dict.fromkeys(as_text, str))
    return datasets.Features.from_arrow_schema(pa.Table.from_pandas(frame, preserve_index=False).schema)


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
    reason = " ".join(str(cause or error).split()) or type(error).__name__
    return "it holds no rows" if "corresponds to no data" in reason else reason[:300]
