"""Opening rows of (query, positive)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import pyarrow as pa

from hf_negmine.base.addresses import is_address
from hf_negmine.base.errors import InputError, require
from hf_negmine.data.sources.beir import is_beir, open_beir
from hf_negmine.data.sources.columns import OpenedRows, Rows, choose_split, with_same_names
from hf_negmine.data.sources.files import BUILDERS, are_shards, endings, is_pattern, local_path, read_file
from hf_negmine.data.sources.joined import open_joined
from hf_negmine.data.sources.on_hub import load_from_hub
from hf_negmine.data.sources.tables import as_dataset

RowSource: TypeAlias = (
    Rows | datasets.DatasetDict | str | Path | Sequence[Mapping[str, Any]] | Sequence[tuple[str, Any]] | pa.Table | Any
)
"""Any: frames of pandas, polars and others, and columns of values by name."""

EXPECTED = (
    "rows: expected a data set, a file, a data frame, or a list of dictionaries or of (query, positive) pairs, got"
)


def open_rows(
    source: RowSource,
    *,
    split: str | None = None,
    config_name: str | None = None,
    named: Iterable[str | None] = (),
    config_argument: str = "config_name",
) -> OpenedRows:
    """Open rows in any form that a user may have.

    Args:
        source: a data set, a list of dictionaries or of pairs, a data frame, an Arrow table, a Parquet, JSONL, CSV or
            TSV file (compressed or not, local or at an address), a folder or a pattern of them, a BEIR folder, a folder
            from `Dataset.save_to_disk`, a JSON file of LlamaIndex or Automodel, or a data set id on the Hub, with
            ``@REVISION`` if it has several.
        split: the split of a DatasetDict, a Hub data set or a BEIR folder; may be left out if there is only one, or a
            "train".
        config_name: the config of a Hub data set that has several.
        named: columns that the user has named, which tell a header from data.
        config_argument: what the user knows ``config_name`` as.

    Raises:
        InputError: the rows cannot be read, the split does not exist, or a split of rows without splits.
    """
    if isinstance(source, str | os.PathLike):
        return _open_path(source, split, config_name, [name for name in named if name is not None], config_argument)
    where = f"the {type(source).__name__}"
    refuse_config(config_name, where, config_argument)
    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        chosen = choose_split(list(source), split, where=where)
        return OpenedRows(source[chosen], code=f"rows[{chosen!r}]")
    _refuse_split(split, where)
    if isinstance(source, datasets.Dataset | datasets.IterableDataset):
        return OpenedRows(source)
    if isinstance(source, Mapping) and len(source) == 1:
        raise InputError(f"{EXPECTED} {type(source).__name__} with one column, {list(source)}")
    if (made := as_dataset(source, "rows")) is not None:
        return OpenedRows(made[0], code=made[1])
    return _rows_of_list(source)


def refuse_config(config_name: str | None, where: str, argument: str) -> None:
    """Raise `InputError` if a config is given for something that has none."""
    require(config_name is None, f"{argument}: {config_name!r}, but {where} has no configs; leave it out")


def _refuse_split(split: str | None, where: str) -> None:
    require(split is None, f"split: {split!r}, but {where} has no splits; leave it out")


def _rows_of_list(source: Any) -> OpenedRows:
    if not isinstance(source, Sequence) or isinstance(source, bytes | bytearray):
        remedy = "; rows are read more than once, so give list(rows)" if isinstance(source, Iterable) else ""
        raise InputError(f"{EXPECTED} {type(source).__name__}{remedy if hasattr(source, '__next__') else ''}")
    pairs = len(source) > 0 and _is_pair(source[0])
    wrong = next((at for at, row in enumerate(source) if not (_is_pair(row) if pairs else isinstance(row, dict))), None)
    if wrong is not None:
        raise InputError(f"{EXPECTED} {source[wrong]!r:.80} in place {wrong}")
    if pairs:
        source = [{"query": query, "positive": positive} for query, positive in source]
    named, code = with_same_names(source)
    try:
        rows = datasets.Dataset.from_list(named)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:  # pyarrow's errors are these, too
        raise InputError(
            f"rows: {error}; expected the same type in every row of a column, and text that is valid UTF-8"
        ) from error
    if pairs:
        code = "Dataset.from_list([{'query': query, 'positive': positive} for query, positive in rows])"
        return OpenedRows(rows, columns=("query", "positive"), code=code)
    return OpenedRows(rows, code=f"Dataset.from_list({code})")


def _is_pair(row: Any) -> bool:
    return isinstance(row, tuple | list) and len(row) == 2


def _open_path(
    source: str | os.PathLike[str], split: str | None, config_name: str | None, named: list[str], config_argument: str
) -> OpenedRows:
    path = local_path(source, "rows")
    if os.path.isdir(path):  # unlike Path.is_dir(), False for text that is too long for a path
        refuse_config(config_name, path, config_argument)
        return _open_folder(Path(path), split, named)
    if (of_hub := hub_id(path)) is not None:
        return load_from_hub(of_hub, split, config_name, config_argument)
    if os.path.isfile(path) or is_address(path) or is_pattern(path):
        refuse_config(config_name, path, config_argument)
        _refuse_split(split, path)
        if endings(path)[0] == ".json" and (joined := open_joined(path)) is not None:
            return joined
        rows, code = read_file(path, named=named)
        return OpenedRows(rows, code=code)
    if isinstance(source, os.PathLike) or endings(path)[0] in BUILDERS or path.startswith((".", "/", "~")):
        raise InputError(f"{source} does not exist")
    return load_from_hub(path, split, config_name, config_argument)


def hub_id(path: str) -> str | None:
    """The data set behind ``hf://datasets/USER/NAME[@REVISION]`` or its web page; None for anything else."""
    found = re.fullmatch(r"(?:hf:/|https://huggingface\.co)/datasets/([^/]+/[^/?#]+)/?", path)
    return found[1] if found else None


def _open_folder(path: Path, split: str | None, named: list[str]) -> OpenedRows:
    if is_beir(path):
        return open_beir(path, split=split)
    if are_shards(str(path)):
        _refuse_split(split, str(path))
        rows, code = read_file(str(path), named=named)
        return OpenedRows(rows, code=code)
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:  # for a damaged folder, from whichever library reads it first
        raise InputError(f"{path} could not be read: {' '.join(str(error).split())[:300]}") from error
    code = f"load_from_disk({str(path)!r})"
    if isinstance(saved, datasets.Dataset):
        _refuse_split(split, str(path))
        return OpenedRows(saved, code=code)
    chosen = choose_split(list(saved), split, where="the DatasetDict")
    return OpenedRows(saved[chosen], code=f"{code}[{chosen!r}]")
