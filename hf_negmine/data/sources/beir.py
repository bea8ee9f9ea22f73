"""BEIR folders: a corpus, queries, and relevance judgements by id."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.ragged import offsets_of_rows
from hf_negmine.data.checks import is_text, whole
from hf_negmine.data.formats.cells import after_titles
from hf_negmine.data.sources.columns import TRAIN, OpenedRows, choose_split
from hf_negmine.data.sources.files import open_file
from hf_negmine.data.writing import in_memory


def open_beir(folder: Path, *, split: str | None = None, default: str = TRAIN) -> OpenedRows:
    """Open the rows (query, positive, query-id, corpus-id) and the corpus of a BEIR folder.

    ``corpus`` and ``queries`` are JSONL or Parquet files with an id (``_id`` or ``id``) and a text; a title is put
    before the text. ``qrels`` is a folder with one TSV (or Parquet) file per split, or one Parquet file with a
    ``split`` column. A score of 0 or less does not make a positive.

    Args:
        folder: the BEIR folder.
        split: the split of the judgements; None takes the only one, or the ``default``.
        default: the split to take if there are several.

    Raises:
        InputError: there are several splits without the default among them, an id with two texts, or a judged id
            without a text.
    """
    return joined_beir(
        read_beir_texts(folder, "corpus"),
        read_beir_texts(folder, "queries"),
        read_judgements(folder, split, default),
        where=str(folder),
    )


def open_judged_beir(folder: Path, *, split: str | None = None) -> OpenedRows:
    """Open the queries of a BEIR folder that have positives, with the passages judged 0 or less as their negatives.

    Returns:
        Rows of ``query``, ``query-id``, and the lists ``positive`` and ``negatives``, in the order of the judgements;
        and the corpus. For the arguments and errors see `open_beir`.
    """
    corpus, queries = read_beir_texts(folder, "corpus"), read_beir_texts(folder, "queries")
    _, judgements = read_qrels_table(folder, split, TRAIN)
    query_rows = np.asarray(_positions(queries[0], whole(judgements["query-id"]), what=f"{folder}: queries"))
    passages = np.asarray(_positions(corpus[0], whole(judgements["corpus-id"]), what=f"{folder}: corpus"))
    relevant = np.asarray(pc.greater(judgements["score"], 0.0))
    require(bool(relevant.any()), f"{folder} has no judgement with a score over 0")
    asked = np.unique(query_rows[relevant])
    columns = {"query": queries[1].take(asked), "query-id": queries[0].take(asked)}
    for name, some in (("positive", relevant), ("negatives", ~relevant & np.isin(query_rows, asked))):
        row = np.searchsorted(asked, query_rows[some])
        order = np.argsort(row, kind="stable")
        offsets = offsets_of_rows(row[order], len(asked))
        columns[name] = pa.LargeListArray.from_arrays(offsets, whole(corpus[1].take(passages[some][order])))
    return OpenedRows(in_memory(pa.table(columns)), corpus[1], columns=("query", "positive"))


def is_beir(folder: Path) -> bool:
    """Whether a folder holds ``corpus`` and ``queries``."""
    return find_texts(folder, "corpus") is not None and find_texts(folder, "queries") is not None


def joined_beir(
    corpus: tuple[pa.Array, pa.ChunkedArray],
    queries: tuple[pa.Array, pa.ChunkedArray],
    judged: tuple[pa.Array, pa.Array],
    *,
    where: str,
) -> OpenedRows:
    """The rows and the corpus of ids with texts, and of judged pairs of ids; see `open_beir`."""
    query_rows = _positions(queries[0], judged[0], what=f"{where}: queries")
    passage_rows = _positions(corpus[0], judged[1], what=f"{where}: corpus")
    rows = pa.table(
        {
            "query": queries[1].take(query_rows),
            "positive": corpus[1].take(passage_rows),
            "query-id": judged[0],
            "corpus-id": judged[1],
        }
    )
    require(len(rows) > 0, f"{where} has no judgement with a score over 0")
    return OpenedRows(in_memory(rows), corpus[1], columns=("query", "positive"))


def read_beir_texts(folder: Path, name: str) -> tuple[pa.Array, pa.ChunkedArray]:
    """The ids and texts of ``corpus`` or ``queries``."""
    return texts_with_ids(*_rows_of(folder, name))


def read_beir_table(folder: Path, name: str) -> tuple[pa.Table, pa.Array]:
    """The rows of ``corpus`` or ``queries`` with all their columns, and their ids."""
    table, path = _rows_of(folder, name)
    return table, texts_with_ids(table, path)[0]


def _rows_of(folder: Path, name: str) -> tuple[pa.Table, Path]:
    path = find_texts(folder, name)
    if path is None:
        raise InputError(f"{folder} lacks {name}.jsonl and {name}.parquet")
    return _read_parquet(path) if path.suffix == ".parquet" else open_file(path).with_format("arrow")[:], path


def texts_with_ids(table: pa.Table, path: Path | str) -> tuple[pa.Array, pa.ChunkedArray]:
    """The ids and texts of a table with a column ``_id`` or ``id``, ``text``, and perhaps ``title``."""
    id_column = next((column for column in ("_id", "id") if column in table.column_names), None)
    if id_column is None or "text" not in table.column_names:
        raise InputError(f"{path} has the columns {table.column_names}, expected _id (or id) and text")
    ids = whole(_as_text(table, id_column, pa.string(), path))
    texts = _as_text(table, "text", pa.large_string(), path)
    if "title" in table.column_names:
        titles = pc.fill_null(_as_text(table, "title", pa.large_string(), path), "")
        texts = after_titles(titles, pc.fill_null(texts, ""))
    _check_ids(ids, texts, path)
    return ids, texts


def _check_ids(ids: pa.Array, texts: pa.ChunkedArray, path: Path | str) -> None:
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    for name in repeated.to_pylist():
        its_texts = pc.unique(texts.filter(pc.equal(ids, name))).to_pylist()
        if len(its_texts) > 1:
            raise InputError(f"{path}: the id {name!r} has two texts, {its_texts[0][:60]!r} and {its_texts[1][:60]!r}")


def read_judgements(folder: Path, split: str | None, default: str) -> tuple[pa.Array, pa.Array]:
    """The query and passage ids of the pairs judged relevant in a split of a BEIR folder; see `open_beir`."""
    return _relevant(read_qrels_table(folder, split, default)[1])


def read_qrels_table(folder: Path, split: str | None, default: str) -> tuple[str, pa.Table]:
    """The split, and all its judgements: texts ``query-id`` and ``corpus-id``, float64 ``score``; see `open_beir`."""
    single, several = folder / "qrels.parquet", folder / "qrels"
    if single.is_file():
        table = _read_parquet(single)
        if "split" in table.column_names:
            split = choose_split(pc.unique(table["split"]).to_pylist(), split, where=str(single), default=default)
            table = table.filter(pc.equal(table["split"], split))
    elif several.is_dir():
        files = {path.stem: path for path in sorted(several.iterdir()) if path.suffix in (".tsv", ".parquet")}
        require(bool(files), f"{several} holds no TSV or Parquet file")
        split = choose_split(list(files), split, where=str(several), default=default)
        path = files[split]
        table = _read_parquet(path) if path.suffix == ".parquet" else _read_tsv(path)
    else:
        raise InputError(f"{folder} lacks qrels (a folder with one TSV file per split, or qrels.parquet)")
    return split or default, _judgements(table, str(folder))


def judged_pairs(table: pa.Table, where: str) -> tuple[pa.Array, pa.Array]:
    """The query and passage ids of the rows with a score over 0 in a table of query-id, corpus-id and score."""
    return _relevant(_judgements(table, where))


def _relevant(judgements: pa.Table) -> tuple[pa.Array, pa.Array]:
    relevant = judgements.filter(pc.greater(judgements["score"], 0.0))
    return whole(relevant["query-id"]), whole(relevant["corpus-id"])


def _judgements(table: pa.Table, where: str) -> pa.Table:
    """The table with columns of one type, whatever their spelling."""
    names = {name.replace("-", "_"): name for name in table.column_names}
    missing = [name for name in ("query_id", "corpus_id", "score") if name not in names]
    if missing:
        raise InputError(
            f"qrels of {where} have the columns {table.column_names}, expected query-id, corpus-id and score"
        )
    try:
        scores = table[names["score"]].cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise InputError(f"qrels of {where}, column score: {error}; expected a number in every line") from error
    ids = (_as_text(table, names[name], pa.string(), f"qrels of {where}") for name in ("query_id", "corpus_id"))
    judged = pa.table([*ids, scores], names=["query-id", "corpus-id", "score"])
    for name in judged.column_names:
        missing = pc.is_null(judged[name], nan_is_null=True)
        if pc.any(missing).as_py():
            raise InputError(
                f"qrels of {where}: {pc.sum(missing)} of {len(judged)} judgements have no {name}; expected one in each"
            )
    return judged


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are these, too
        raise InputError(f"{path} could not be read as parquet: {' '.join(str(error).split())[:300]}") from error


def _as_text(table: pa.Table, name: str, kind: pa.DataType, path: Path | str) -> pa.ChunkedArray:
    own = table[name].type
    if not (is_text(own) or pa.types.is_integer(own)):  # JSON's readers turn dates into times, and long ids into floats
        raise InputError(
            f"{path}: column {name!r} holds {str(own)[:120]}, expected text or whole numbers; if a reader of JSON took "
            "texts for dates or numbers, save the file as Parquet"
        )
    return table[name].cast(kind)


def _read_tsv(path: Path) -> pa.Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    wrong = next((row for row in rows if len(row) != 3), None)
    if not rows or wrong is not None:
        raise InputError(
            f"{path}: expected three tab-separated columns in every line (query-id, corpus-id and score), got "
            f"{wrong or 'an empty file'}"
        )
    columns = list(zip(*rows[1:], strict=True)) or [(), (), ()]
    return pa.table({name: pa.array(values, type=pa.string()) for name, values in zip(rows[0], columns, strict=True)})


def _positions(ids: pa.Array, wanted: pa.Array, *, what: str) -> pa.Array:
    at = pc.index_in(wanted, value_set=ids)
    if at.null_count:
        missing = wanted.filter(pc.is_null(at))
        raise InputError(f"{what} lacks {len(pc.unique(missing))} judged id(s), the first is {missing[0].as_py()!r}")
    return at


def find_texts(folder: Path, name: str) -> Path | None:
    """The file of ``corpus`` or ``queries``."""
    paths = (folder / f"{name}{ending}" for ending in (".parquet", ".jsonl", ".jsonl.gz"))
    return next((path for path in paths if path.is_file()), None)
