"""Ids and titles of mined passages: mining knows passages by their texts, and a corpus says what else they have."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.files import text_digests
from hf_negmine.base.schema import BoolArray, DigestArray, IdArray
from hf_negmine.data.checks import is_list, is_text, whole
from hf_negmine.data.formats.cells import (
    after_titles,
    elements_of,
    have_titles,
    is_messages,
    lists_like,
    texts_of_elements,
)
from hf_negmine.data.formats.lists import with_column
from hf_negmine.data.sources.beir import find_texts, read_beir_table
from hf_negmine.data.sources.columns import table_batches
from hf_negmine.data.sources.rows import open_rows
from hf_negmine.data.texts import find_digests, sort_digests

IDS = ("docid", "_id", "id", "passage_id", "document_id", "doc_id", "corpus_id", "corpus-id")
"""Names of ids, in a corpus and in records; the first one that is there counts."""
BESIDE = {"pos": "pos_id", "neg": "neg_id"}
"""Columns of texts that may have their ids in another column."""


def with_ids(rows: datasets.Dataset, corpus: Any) -> datasets.Dataset:
    """Rows with the ids and titles of passages that have none yet, such as mined negatives in a tool's format.

    Passages are found in the corpus by their texts; one that is not there stays as it is, and of several with one
    text the first counts. Records get an id (``docid``, ``passage_id``, …) where they have none, and title and text
    apart where the title stands before the text; ``neg_id`` and ``pos_id`` are filled in, too.

    Args:
        rows: rows in the format of Tevatron, DPR, FlagEmbedding or another tool with ids.
        corpus: the passages with a column of ids (``docid``, ``_id``, ``id``, …), ``text`` and perhaps ``title``: a
            data set, a file, a BEIR folder or any other source that is no stream.

    Raises:
        InputError: the corpus cannot be read, or lacks ids or texts.
    """
    require(isinstance(rows, datasets.Dataset), f"with_ids: rows: expected a Dataset, got {type(rows).__name__}")
    known = _Known.of(corpus)

    def filled(table: pa.Table) -> pa.Table:
        for name in table.column_names:
            kind = table.schema.field(name).type
            element = kind.value_type if is_list(kind) and not is_messages(kind) else kind
            if pa.types.is_struct(element) and element.get_field_index("text") >= 0:
                table = with_column(table, name, _with_records(table[name], name, known))
            elif BESIDE.get(name) in table.column_names and is_text(element):
                table = with_column(table, BESIDE[name], _with_values(table, name, BESIDE[name], known))
        return table

    kinds = [rows.features.arrow_schema.field(name).type for name in rows.column_names]
    elements = [kind.value_type if is_list(kind) else kind for kind in kinds]
    holds = any(pa.types.is_struct(one) for one in elements) or bool({*BESIDE.values()} & {*rows.column_names})
    require(
        holds,
        f"with_ids: the rows have the columns {rows.column_names}, none of which has a place for ids, such as "
        "records with a text, or pos_id and neg_id; mine in the format of a tool (format=)",
    )
    return rows.with_format("arrow").map(filled, batched=True, features=rows.features).with_format(None)


@dataclass(frozen=True)
class _Known:
    """The passages of a corpus: ids as texts, texts and titles (null without), and where texts are found."""

    ids: pa.Array
    texts: pa.Array
    titles: pa.Array
    joined: tuple[IdArray, DigestArray]
    plain: tuple[IdArray, DigestArray]

    @classmethod
    def of(cls, corpus: Any) -> _Known:
        if isinstance(corpus, str | os.PathLike) and find_texts(folder := Path(corpus).expanduser(), "corpus"):
            table, _ = read_beir_table(folder, "corpus")
        else:
            rows = open_rows(corpus).rows
            require(isinstance(rows, datasets.Dataset), "with_ids: the corpus is a stream, but it is searched; load it")
            name = next((one for one in IDS if one in rows.column_names), None)
            if name is None or "text" not in rows.column_names:
                raise InputError(
                    f"with_ids: the corpus has the columns {rows.column_names}, expected an id (one of {list(IDS)}), "
                    "text, and perhaps title"
                )
            columns = [name, "text", *(["title"] if "title" in rows.column_names else [])]
            table = pa.concat_tables(table_batches(rows, columns))
        name = next(one for one in IDS if one in table.column_names)
        texts = whole(table["text"]).cast(pa.large_string())
        titles = whole(table["title"]) if "title" in table.column_names else pa.nulls(len(texts))
        titles = titles.cast(pa.large_string())
        found = (sort_digests(text_digests(pc.fill_null(one, ""))) for one in (after_titles(titles, texts), texts))
        return cls(whole(table[name]).cast(pa.large_string()), texts, titles, *found)

    def find(self, texts: pa.Array) -> tuple[IdArray, BoolArray]:
        """The place of each text, -1 where there is none, and whether its title stands before it."""
        digests = text_digests(pc.fill_null(texts, ""))
        missing = np.asarray(pc.is_null(texts))
        places = []
        for order, ordered in (self.joined, self.plain):
            at = find_digests(ordered, digests)
            places.append(np.where(missing | (at < 0), -1, order[at]))
        return np.where(places[0] < 0, places[1], places[0]), places[0] >= 0


def _with_records(column: pa.ChunkedArray, name: str, known: _Known) -> pa.Array:
    """A column of records, or lists of them, with ids and titles."""
    records, offsets = elements_of(column)
    places, titled = known.find(texts_of_elements(records, name))
    fields = {field.name: pc.struct_field(records, field.name) for field in records.type}
    if (own := next((one for one in IDS if one in fields), None)) is not None:
        fields[own] = _filled(fields[own], known.ids, places, pc.is_null(fields[own]))
    if have_titles(records.type):
        blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(fields["title"], "")), "")
        apart = pc.and_(blank, pa.array(titled))
        fields["title"] = _filled(fields["title"], pc.fill_null(known.titles, ""), places, apart)
        fields["text"] = _filled(fields["text"], known.texts, places, apart)
    made = pa.StructArray.from_arrays(list(fields.values()), fields=list(records.type), mask=pc.is_null(records))
    return lists_like(column.type, made, offsets) if is_list(column.type) else made


def _with_values(table: pa.Table, name: str, beside: str, known: _Known) -> pa.Array:
    """A column of ids beside one of texts, with those that were missing."""
    texts, offsets = elements_of(table[name])
    ids, of_ids = elements_of(table[beside])
    if pa.types.is_null(ids.type):
        return table[beside]
    if not of_ids[-1]:  # no row has any yet
        ids, of_ids = pa.nulls(len(texts), ids.type), offsets
    if not np.array_equal(offsets, of_ids):
        row = int(np.flatnonzero(np.diff(offsets) != np.diff(of_ids))[0])
        raise InputError(
            f"with_ids: column {beside!r} has {np.diff(of_ids)[row]} id(s) in row {row} for {np.diff(offsets)[row]} in "
            f"{name!r}, expected one each; remove the column or mend it"
        )
    places, _ = known.find(texts_of_elements(texts, name))
    return lists_like(table.schema.field(beside).type, _filled(ids, known.ids, places, pc.is_null(ids)), offsets)


def _filled(old: pa.Array, values: pa.Array, places: IdArray, where: pa.BooleanArray) -> pa.Array:
    """The array with the values at some places, where that is asked for and there is one."""
    new = values.take(pa.array(places, mask=places < 0))
    try:
        new = new.cast(old.type)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"with_ids: the ids of the corpus do not fit into ids of {old.type} ({error}); cast these to text first"
        ) from error
    return pc.if_else(pc.and_(where, pc.is_valid(new)), new, old)
