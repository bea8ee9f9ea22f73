"""What users have, opened: data sets, files, Hub ids and BEIR folders, as rows and a corpus."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets.arrow_writer import TypedSequence
from datasets.formatting.formatting import LazyBatch

from hf_negmine.errors import ColumnError, InputError, require
from hf_negmine.texts import TEXTS_A_BATCH, batches_of
from hf_negmine.writing import in_memory

Rows: TypeAlias = datasets.Dataset | datasets.IterableDataset
RowSource: TypeAlias = Rows | datasets.DatasetDict | str | Path | Sequence[dict[str, Any]] | pa.Table
CorpusSource: TypeAlias = (
    datasets.Dataset | datasets.DatasetDict | str | Path | Sequence[str] | pa.Array | pa.ChunkedArray
)

TRAIN = "train"
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv"}


@dataclass(frozen=True)
class OpenedRows:
    """Rows of (query, positive).

    Attributes:
        corpus: the corpus that came with them, if any.
        columns: the query and the positive column, where the source itself says which they are.
    """

    rows: Rows
    corpus: pa.ChunkedArray | None = None
    columns: tuple[str | None, str | None] = (None, None)


def open_rows(source: RowSource, *, split: str | None = None) -> OpenedRows:
    """Open what a user calls rows.

    Args:
        source: a data set, a list of dictionaries, an Arrow table, a Parquet, JSONL, CSV or TSV file, a BEIR folder, a
            folder of `Dataset.save_to_disk`, or a data set id on the Hub.
        split: of a DatasetDict, a Hub data set or a BEIR folder; may be left out where there is one, or a "train".

    Raises:
        InputError: rows that cannot be read, a split that is not there, or one of rows that have no splits.
    """
    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        return OpenedRows(source[choose_split(list(source), split, where="the DatasetDict")])
    if isinstance(source, str | Path):
        return _open_path(source, split)
    _refuse_split(split, f"the {type(source).__name__}")
    if isinstance(source, datasets.Dataset | datasets.IterableDataset):
        return OpenedRows(source)
    return OpenedRows(in_memory(source) if isinstance(source, pa.Table) else _rows_of_list(source))


def _refuse_split(split: str | None, where: str) -> None:
    require(split is None, f"split: {split!r}, and {where} has no splits; leave it out")


def _rows_of_list(source: Any) -> datasets.Dataset:
    expected = "rows: expected a data set, a file or a list of dictionaries, got"
    require(isinstance(source, Sequence), f"{expected} {type(source).__name__}")
    wrong = next((place for place, row in enumerate(source) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise InputError(f"{expected} {source[wrong]!r:.80} in place {wrong}")
    try:
        return datasets.Dataset.from_list(list(source))
    except (ValueError, TypeError) as error:  # pyarrow's errors are these, too
        raise InputError(
            f"rows: {error}; expected the same type in every row of a column, and text that is valid UTF-8"
        ) from error


def _open_path(source: str | Path, split: str | None) -> OpenedRows:
    path = Path(source)
    if os.path.isdir(path):  # unlike path.is_dir(), False for a text that is too long for a path
        if _find(path, "corpus") and _find(path, "queries"):
            return open_beir(path, split=split)
        try:
            saved = datasets.load_from_disk(str(path))
        except FileNotFoundError as error:
            raise InputError(
                f"{path} is neither a BEIR folder (corpus, queries, qrels) nor one of Dataset.save_to_disk"
            ) from error
        if isinstance(saved, datasets.Dataset):
            _refuse_split(split, str(path))
        return open_rows(saved, split=split)
    if os.path.isfile(path):
        _refuse_split(split, str(path))
        return OpenedRows(open_file(path))
    if isinstance(source, Path) or path.suffix in BUILDERS or source.startswith((".", "/", "~")):
        raise InputError(f"{source} does not exist")
    try:
        loaded = datasets.load_dataset(source, split=split) if split else datasets.load_dataset(source)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{source[:80]!r} is no file or folder here, and could not be loaded from the Hub: {reason}"
        ) from error
    return open_rows(loaded)


def open_file(path: Path) -> datasets.Dataset:
    """Rows of a Parquet, JSONL, CSV or TSV file."""
    builder = BUILDERS.get(path.suffix)
    if builder is None:
        raise InputError(f"{path}: the ending {path.suffix!r} is not among {sorted(BUILDERS)}")
    options = {"sep": "\t"} if path.suffix == ".tsv" else {}
    try:
        rows = datasets.load_dataset(builder, data_files=str(path), split="train", **options)
    except Exception as error:  # each builder has its own exceptions; all of them mean an unreadable file
        raise InputError(f"{path} could not be read as {builder}: {error.__cause__ or error}") from error
    assert isinstance(rows, datasets.Dataset)
    return rows


def choose_split(available: list[str], wanted: str | None, *, where: str, default: str = TRAIN) -> str:
    """The split that was asked for, the only one, or the ``default``."""
    if wanted is not None:
        if wanted not in available:
            raise InputError(f"split: {wanted!r} is not among {available} in {where}")
        return wanted
    if len(available) == 1:
        return available[0]
    require(default in available, f"split: {where} has {available}; name one")
    return default


def choose_columns(rows: Rows, query: str | None, positive: str | None) -> tuple[str, str]:
    """The query and positive columns: as named, or the two columns of a data set that has no others."""
    available = list(rows.column_names or [])
    if not available and isinstance(rows, datasets.IterableDataset):
        available = list(next(iter(rows.take(1)), {}))
    require(bool(available), "the data set is empty: it has no rows and no columns, expected a query and a positive")
    for argument, name in (("query_column", query), ("positive_column", positive)):
        if name is not None and name not in available:
            raise ColumnError(name, available, argument=argument)
    if query is None or positive is None:
        others = [name for name in available if name not in (query, positive)]
        lacking = [name for name in (query, positive) if name is None]
        if len(others) != len(lacking):
            raise InputError(
                f"query_column and positive_column: name them, the data set has the columns {available} and only one "
                "with exactly two is clear by itself"
            )
        query = query if query is not None else others.pop(0)
        positive = positive if positive is not None else others.pop(0)
    require(query != positive, f"query_column and positive_column are both {query!r}")
    return query, positive


def pair_batches(rows: Rows, query: str, positive: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Batches of the two columns as Arrow arrays, in order."""
    for table in table_batches(rows, [query, positive]):
        yield _whole(table[query]), _whole(table[positive])


def table_batches(rows: Rows, columns: list[str] | None = None, size: int = TEXTS_A_BATCH) -> Iterator[pa.Table]:
    """Batches of rows as Arrow tables, in order."""
    if columns is not None:
        rows = rows.select_columns(columns)
    if isinstance(rows, datasets.IterableDataset):
        for batch in rows.iter(batch_size=size):
            yield table_of(batch)
        return
    yield from rows.with_format("arrow").iter(batch_size=size)


def table_of(columns: Mapping[str, Any]) -> pa.Table:
    """Columns of Python values as an Arrow table, or `InputError` naming a column that is not of one type."""
    return pa.table({name: _array_of(values, f"column {name!r}") for name, values in columns.items()})


def table_of_batch(batch: LazyBatch) -> pa.Table:
    """What `datasets.Dataset.map` hands to a function, as the Arrow table beneath it, with what was set since then."""
    features = batch.formatter.features or {}
    columns = {
        name: batch.pa_table[name]
        if name in batch.keys_to_format
        else _array_of(TypedSequence(batch[name], try_type=features.get(name)), f"column {name!r}")
        for name in batch
    }
    return pa.table(columns)


def _array_of(values: Any, what: str) -> pa.Array:
    try:
        return pa.array(values)
    except (ValueError, TypeError) as error:  # pyarrow's errors are these, too
        raise InputError(f"{what}: {error}; expected values of one type, and text that is valid UTF-8") from error


def open_corpus(source: CorpusSource, *, column: str | None = None) -> Iterable[pa.Array]:
    """Batches of passage texts from texts, a data set, or a file (of a BEIR folder: its corpus)."""
    if isinstance(source, pa.Array | pa.ChunkedArray):
        return batches_of(source)
    if isinstance(source, datasets.DatasetDict):
        source = source[choose_split(list(source), None, where="the DatasetDict of the corpus")]
    if isinstance(source, str | Path):
        path = Path(source)
        if os.path.isdir(path) and _find(path, "corpus"):
            return batches_of(read_beir_texts(path, "corpus")[1])
        opened = open_rows(source)
        require(
            isinstance(opened.rows, datasets.Dataset),
            f"corpus: {source} does not hold a data set that can be read twice",
        )
        source = opened.rows
    if isinstance(source, datasets.Dataset):
        return _corpus_column(source, column)
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise InputError(f"corpus: expected texts, a data set or a file, got {type(source).__name__}")
    texts = list(source)
    wrong = next((place for place, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"corpus: passage {wrong} is {texts[wrong]!r:.80}, expected text")
    return batches_of(_array_of(texts, "corpus").cast(pa.large_string()))


def _corpus_column(source: datasets.Dataset, column: str | None) -> Iterable[pa.Array]:
    available = source.column_names
    if column is None:
        texts = [
            name for name in available if getattr(source.features[name], "dtype", "") in ("string", "large_string")
        ]
        candidates = [name for name in texts if name in ("text", "passage", "document")] or texts
        require(len(candidates) == 1, f"corpus_column: name the column of passage texts, the corpus has {available}")
        column = candidates[0]
    elif column not in available:
        raise ColumnError(column, available, argument="corpus_column")
    return (_whole(table[column]) for table in table_batches(source, [column]))


def open_beir(folder: Path, *, split: str | None = None, default: str = TRAIN) -> OpenedRows:
    """Rows (query, positive, query-id, corpus-id) and the corpus of a BEIR folder.

    ``corpus`` and ``queries`` are JSONL or Parquet files with an id (``_id`` or ``id``) and a text; a title is put
    before the text. ``qrels`` is a folder with a TSV (or Parquet) file a split, or one Parquet file with a ``split``
    column. A score of 0 or less is no positive.

    Args:
        folder: that holds them.
        split: of the judgements; None takes the only one, or the ``default``.
        default: taken of several.

    Raises:
        InputError: several splits without the default among them, an id that stands for two texts, or a judged id
            without a text.
    """
    corpus_ids, corpus = read_beir_texts(folder, "corpus")
    query_ids, queries = read_beir_texts(folder, "queries")
    judged_queries, judged_passages = read_judgements(folder, split, default)
    query_rows = _positions(query_ids, judged_queries, what=f"{folder / 'queries'}")
    passage_rows = _positions(corpus_ids, judged_passages, what=f"{folder / 'corpus'}")
    rows = pa.table(
        {
            "query": queries.take(query_rows),
            "positive": corpus.take(passage_rows),
            "query-id": judged_queries,
            "corpus-id": judged_passages,
        }
    )
    require(len(rows) > 0, f"{folder} has no judgement with a score over 0")
    return OpenedRows(in_memory(rows), corpus, columns=("query", "positive"))


def read_beir_texts(folder: Path, name: str) -> tuple[pa.Array, pa.ChunkedArray]:
    """Ids and texts of ``corpus`` or ``queries``."""
    path = _find(folder, name)
    if path is None:
        raise InputError(f"{folder} lacks {name}.jsonl and {name}.parquet")
    table = pq.read_table(path) if path.suffix == ".parquet" else open_file(path).with_format("arrow")[:]
    id_column = next((column for column in ("_id", "id") if column in table.column_names), None)
    if id_column is None or "text" not in table.column_names:
        raise InputError(f"{path} has the columns {table.column_names}, expected _id (or id) and text")
    ids, texts = table[id_column].cast(pa.string()).combine_chunks(), table["text"].cast(pa.large_string())
    if "title" in table.column_names:
        titles = pc.fill_null(table["title"].cast(pa.large_string()), "")
        texts = pc.utf8_trim_whitespace(
            pc.binary_join_element_wise(titles, pc.fill_null(texts, ""), pa.scalar(" ", pa.large_string()))
        )
    _check_ids(_whole(ids), texts, path)
    return _whole(ids), texts


def _check_ids(ids: pa.Array, texts: pa.ChunkedArray, path: Path) -> None:
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    for name in repeated.to_pylist():
        its_texts = pc.unique(texts.filter(pc.equal(ids, name))).to_pylist()
        if len(its_texts) > 1:
            raise InputError(
                f"{path}: the id {name!r} stands for two texts, {its_texts[0][:60]!r} and {its_texts[1][:60]!r}"
            )


def read_judgements(folder: Path, split: str | None, default: str) -> tuple[pa.Array, pa.Array]:
    """Ids of the queries and of the passages that a split of a BEIR folder says are relevant; see `open_beir`."""
    single, several = folder / "qrels.parquet", folder / "qrels"
    if single.is_file():
        table = pq.read_table(single)
        if "split" in table.column_names:
            chosen = choose_split(pc.unique(table["split"]).to_pylist(), split, where=str(single), default=default)
            table = table.filter(pc.equal(table["split"], chosen))
    elif several.is_dir():
        files = {path.stem: path for path in sorted(several.iterdir()) if path.suffix in (".tsv", ".parquet")}
        require(bool(files), f"{several} holds no TSV or Parquet file")
        path = files[choose_split(list(files), split, where=str(several), default=default)]
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_tsv(path)
    else:
        raise InputError(f"{folder} lacks qrels (a folder with a TSV file a split, or qrels.parquet)")
    names = {name.replace("-", "_"): name for name in table.column_names}
    missing = [name for name in ("query_id", "corpus_id", "score") if name not in names]
    if missing:
        raise InputError(
            f"qrels of {folder} have the columns {table.column_names}, expected query-id, corpus-id and score"
        )
    try:
        scores = table[names["score"]].cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise InputError(f"qrels of {folder}, column score: {error}; expected a number in every line") from error
    table = table.filter(pc.greater(scores, 0.0))
    return _whole(table[names["query_id"]].cast(pa.string())), _whole(table[names["corpus_id"]].cast(pa.string()))


def _read_tsv(path: Path) -> pa.Table:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    require(
        bool(rows) and all(len(row) == 3 for row in rows), f"{path}: expected three tab-separated columns in every line"
    )
    columns = list(zip(*rows[1:], strict=True)) or [(), (), ()]
    return pa.table({name: pa.array(values, type=pa.string()) for name, values in zip(rows[0], columns, strict=True)})


def _positions(ids: pa.Array, wanted: pa.Array, *, what: str) -> pa.Array:
    at = pc.index_in(wanted, value_set=ids)
    if at.null_count:
        missing = wanted.filter(pc.is_null(at))
        raise InputError(f"{what} lacks {len(pc.unique(missing))} judged id(s), the first is {missing[0].as_py()!r}")
    return at


def _find(folder: Path, name: str) -> Path | None:
    return next((path for ending in (".parquet", ".jsonl") if (path := folder / f"{name}{ending}").is_file()), None)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def take_rows(batch: dict[str, Any], rows: np.ndarray[Any, Any]) -> dict[str, list[Any]]:
    """Some rows of a dictionary of columns, in the order given."""
    places = rows.tolist()
    return {name: [values[place] for place in places] for name, values in batch.items()}
