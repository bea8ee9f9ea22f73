"""Opening a corpus of passages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.addresses import is_address
from hf_negmine.base.errors import ColumnError, InputError, require
from hf_negmine.data.checks import batches_of, in_code, is_text, whole
from hf_negmine.data.formats.cells import after_titles
from hf_negmine.data.sources.beir import find_texts, read_beir_texts
from hf_negmine.data.sources.columns import Rows, array_of, choose_split, table_batches
from hf_negmine.data.sources.files import BUILDERS, are_shards, endings, files_of, local_path, read_file
from hf_negmine.data.sources.reading import schema_of
from hf_negmine.data.sources.rows import hub_id, open_rows, refuse_config
from hf_negmine.data.sources.tables import as_column, as_dataset

CorpusSource: TypeAlias = (
    datasets.Dataset | datasets.DatasetDict | str | Path | Sequence[str] | pa.Array | pa.ChunkedArray | pa.Table | Any
)
"""Any: frames and series of pandas, polars and others, and columns of values by name."""

EXPECTED = "corpus: expected texts, a data set, a data frame or a file, got"
CONFIG_ARGUMENT = "corpus_config_name"
"""What users know the config of a corpus as."""
TEXT_COLUMNS = ("text", "passage", "document")


@dataclass(frozen=True)
class OpenedCorpus:
    """Batches of passage texts.

    Attributes:
        batches: the texts, which can be read once.
        without_blanks: Python that makes this corpus without its blank passages, for errors.
    """

    batches: Iterable[pa.Array]
    without_blanks: str = "[text for text in corpus if (text or '').strip()]"

    def __iter__(self) -> Iterator[pa.Array]:
        return iter(self.batches)


def open_corpus(
    source: CorpusSource, *, column: str | None = None, config_name: str | None = None, titled: bool = False
) -> OpenedCorpus:
    """Open the passages of a corpus.

    Args:
        source: texts in a list, a series or an Arrow array; a data set, a data frame, an Arrow table or a list of
            dictionaries with a column of texts, or a stream; a file, a folder or a pattern of these, or one with a text
            per line (``.txt``, or TSV lines of a number and a text); a BEIR folder, whose corpus is taken; a data set
            id on the Hub.
        column: the column of texts; may be left out for ``text``, ``passage``, ``document``, or the only text column.
        config_name: the config of a Hub data set that has several.
        titled: whether a column ``title`` is put before the text, as in rows whose passages are records with titles.

    Raises:
        InputError: something is not text, or it is not clear which text is meant.
    """
    if isinstance(source, str | os.PathLike):
        return _open_path(source, column, config_name, titled)
    refuse_config(config_name, f"the {type(source).__name__} of the corpus", CONFIG_ARGUMENT)
    if isinstance(source, datasets.DatasetDict | datasets.IterableDatasetDict):
        split = choose_split(list(source), None, where="the DatasetDict of the corpus")
        return _of_column(source[split], column, f"corpus[{split!r}]", titled)
    if isinstance(source, datasets.Dataset | datasets.IterableDataset):
        return _of_column(source, column, "corpus", titled)
    if isinstance(source, Sequence) and len(source) and all(isinstance(row, dict) for row in source):
        opened = open_rows(source)
        assert isinstance(opened.rows, datasets.Dataset)
        return _of_column(opened.rows, column, "Dataset.from_list(corpus)", titled)
    if (made := as_dataset(source, "corpus")) is not None:
        return _of_column(made[0], column, made[1], titled)
    if (array := as_column(source, "corpus")) is not None:
        called = next((name for name in ("dropna", "to_pylist", "to_list") if hasattr(source, name)), None)
        texts = f"corpus.{called}()" if called else "corpus"
        return OpenedCorpus(batches_of(array), f"[text for text in {texts} if (text or '').strip()]")
    return OpenedCorpus(batches_of(array_of(_texts(source), "corpus").cast(pa.large_string())))


def _open_path(
    source: str | os.PathLike[str], column: str | None, config_name: str | None, titled: bool
) -> OpenedCorpus:
    path = local_path(source, "corpus")
    is_name = isinstance(source, os.PathLike) or len(path.split()) == 1 or endings(path)[0] in BUILDERS
    if not is_name and not os.path.exists(path):
        raise InputError(f"{EXPECTED} one text, {path[:80]!r}, and no file of that name exists; give a list of texts")
    if os.path.isdir(path) and find_texts(Path(path), "corpus"):
        refuse_config(config_name, path, CONFIG_ARGUMENT)
        return OpenedCorpus(batches_of(read_beir_texts(Path(path), "corpus")[1]))
    if are_shards(path) or os.path.isfile(path) or (is_address(path) and hub_id(path) is None):
        refuse_config(config_name, path, CONFIG_ARGUMENT)
        rows, code = read_file(path, named=[column] if column else (), as_corpus=True)
        opened = _of_column(rows, column, code, titled)
        if endings(files_of(path, as_corpus=True)[0])[0] != ".txt":
            return opened
        return OpenedCorpus(_lines_with_text(opened.batches, path))
    opened_rows = open_rows(source, config_name=config_name, config_argument=CONFIG_ARGUMENT)
    if opened_rows.corpus is not None and column is None:
        return OpenedCorpus(batches_of(opened_rows.corpus))
    return _of_column(opened_rows.rows, column, opened_rows.code, titled)


def _lines_with_text(batches: Iterable[pa.Array], path: str) -> Iterator[pa.Array]:
    found = 0
    for batch in batches:
        lines = batch.filter(pc.not_equal(pc.utf8_trim_whitespace(batch), ""))
        found += len(lines)
        yield lines
    require(found > 0, f"{path} holds only blank lines")


def _texts(source: Any) -> list[str]:
    kind = type(source).__name__
    if isinstance(source, Mapping):
        remedy = (
            "list(corpus.values())" if all(isinstance(text, str) for text in source.values()) else "a list of texts"
        )
        raise InputError(f"{EXPECTED} a {kind} that is not a table of columns; give {remedy}")
    if isinstance(source, set | frozenset):
        raise InputError(f"{EXPECTED} a {kind}, which has no order for numbering passages; give sorted(corpus)")
    if isinstance(source, Iterator):
        raise InputError(f"{EXPECTED} a {kind}, which can only be read once; give list(corpus)")
    if isinstance(source, bytes | bytearray) or not isinstance(source, Iterable):
        raise InputError(f"{EXPECTED} {kind}")
    try:
        texts = list(source)
    except TypeError as error:  # such as a tensor of one number
        raise InputError(f"{EXPECTED} {kind}: {error}") from error
    wrong = next((place for place, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(f"corpus: passage {wrong} is {texts[wrong]!r:.80}, expected text")
    return texts


def _of_column(source: Rows, column: str | None, code: str, titled: bool) -> OpenedCorpus:
    schema = schema_of(source)
    available = [] if schema is None else schema.names
    if column is None:
        texts = [name for name in available if schema is not None and is_text(schema.field(name).type)]
        candidates = [name for name in texts if name in TEXT_COLUMNS] or texts
        require(len(candidates) == 1, f"corpus_column: name the column of passage texts, the corpus has {available}")
        column = candidates[0]
    elif column not in available:
        raise ColumnError(column, available, argument="corpus_column")
    is_empty = isinstance(source, datasets.Dataset) and not len(source)
    require(not is_empty, f"corpus: it has the column {column!r} but no rows")
    has_titles = schema is not None and "title" in available and is_text(schema.field("title").type)
    columns = [column, *(["title"] if titled and has_titles and column != "title" else [])]
    batches = (_texts_of(table.select(columns)) for table in table_batches(source, columns))
    return OpenedCorpus(batches, in_code(code, f".filter(lambda row: (row[{column!r}] or '').strip())", "corpus"))


def _texts_of(table: pa.Table) -> pa.Array:
    """The texts of a batch, after their titles if there is a second column."""
    texts, *titles = (whole(column) for column in table.columns)
    if not titles:
        return texts
    return after_titles(titles[0].cast(pa.large_string()), texts.cast(pa.large_string()))
