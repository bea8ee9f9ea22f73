"""Training rows and test queries of the reranker recipe, from the Hub or from BEIR folders."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.errors import InputError
from hf_negmine.files import digest_of, text_digests
from hf_negmine.randomness import random_keys
from hf_negmine.recipes.nv_retriever.layouts import Beir, Table, Tables
from hf_negmine.recipes.nv_retriever.load import load_set
from hf_negmine.recipes.nv_retriever.sets import SETS
from hf_negmine.recipes.reranker.recipe import TestSet, TrainingSet
from hf_negmine.sources import open_beir

CHOICE = 0
"""Seed of which rows and queries are taken: the same in every run, so that runs can be compared."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train on.

    Attributes:
        name: of the set.
        rows: query and positive; a query stands once.
        corpus: passages to mine from.
    """

    name: str
    rows: datasets.Dataset
    corpus: pa.Array | pa.ChunkedArray

    @property
    def digest(self) -> str:
        """Of the texts of the rows."""
        table = self.rows.with_format("arrow")[:]
        return digest_of(*(text_digests(_whole(table[name])) for name in ("query", "positive")))


@dataclass(frozen=True)
class TestQueries:
    """Queries to evaluate on.

    Attributes:
        name: of the set.
        relevant: by query text, the texts of all its relevant passages, whatever their grade.
        corpus: passages to find them in.
    """

    __test__ = False

    name: str
    relevant: dict[str, frozenset[str]]
    corpus: pa.Array | pa.ChunkedArray

    @property
    def digest(self) -> str:
        """Of the queries and their relevant passages."""
        return digest_of([[query, *sorted(texts)] for query, texts in sorted(self.relevant.items())])


def load_training(wanted: TrainingSet, data: Path | None) -> TrainingRows:
    """The rows of a set: those with the lowest random keys of their query, whatever the order of the source.

    Args:
        wanted: which, and how many.
        data: folder that holds the set as a BEIR folder; None loads it from the Hub.

    Raises:
        InputError: no such folder or set.
    """
    if data is None:
        if wanted.name not in SETS:
            raise InputError(
                f"training_sets: {wanted.name!r} is not among {sorted(SETS)}, which are loaded from the Hub; give a "
                f"folder that holds {wanted.name} as a BEIR folder with --data"
            )
        loaded = load_set(SETS[wanted.name], samples=wanted.rows, seed=CHOICE)
        source, corpus = loaded.rows, loaded.corpus
    else:
        opened = open_beir(_folder(data, wanted.name), split="train")
        assert isinstance(opened.rows, datasets.Dataset)
        source, corpus = opened.rows, opened.corpus
    rows = _first_rows(source, wanted.rows)
    if corpus is None:
        corpus = _column(source, "positive")
    if wanted.passages is not None:
        texts = pc.unique(_whole(corpus))
        positives = pc.unique(_column(rows, "positive"))
        others = texts.filter(pc.invert(pc.is_in(texts, value_set=positives)))
        room = max(wanted.passages - len(positives), 0)
        corpus = pa.concat_arrays([positives, others.take(pa.array(_chosen(others, room)))])
    return TrainingRows(wanted.name, rows, corpus)


def load_test(wanted: TestSet, data: Path | None) -> TestQueries:
    """The queries of a set, chosen like rows; for the arguments and errors see `load_training`."""
    if data is None:
        pairs = Beir(Table("default", wanted.split)).pairs(Tables(wanted.name))
        query, positive, corpus = pairs.query, pairs.positive, pairs.corpus
    else:
        opened = open_beir(_folder(data, wanted.name), split=wanted.split)
        assert isinstance(opened.rows, datasets.Dataset)
        query, positive, corpus = _column(opened.rows, "query"), _column(opened.rows, "positive"), opened.corpus
    assert corpus is not None
    relevant: defaultdict[str, set[str]] = defaultdict(set)
    for one, text in zip(query.to_pylist(), positive.to_pylist(), strict=True):
        relevant[one].add(text)
    names = pa.array(list(relevant), pa.large_string())
    kept = [names[place].as_py() for place in _chosen(names, wanted.queries)]
    return TestQueries(wanted.name, {query: frozenset(relevant[query]) for query in kept}, corpus)


def _folder(data: Path, name: str) -> Path:
    folder = data / name
    if not folder.is_dir():
        there = sorted(one.name for one in data.iterdir() if one.is_dir()) if data.is_dir() else None
        raise InputError(
            f"--data: {data} lacks the folder {name}, it holds {there}"
            if there is not None
            else f"--data: no folder {data}, expected one with the BEIR folder {name}"
        )
    return folder


def _first_rows(rows: datasets.Dataset, most: int) -> datasets.Dataset:
    """Some queries, each with its first positive."""
    query, positive = _column(rows, "query"), _column(rows, "positive")
    first: dict[str, int] = {}
    for place, text in enumerate(query.to_pylist()):
        first.setdefault(text, place)
    places = np.array(list(first.values()), dtype=np.int64)
    places = places[_chosen(query.take(pa.array(places)), most)]
    taken = pa.array(places)
    return datasets.Dataset(pa.table({"query": query.take(taken), "positive": positive.take(taken)}))


def _chosen(texts: pa.Array, most: int) -> list[int]:
    """Places of the texts with the lowest random keys, in the order of these."""
    keys = random_keys(CHOICE, text_digests(texts)[:, 0], np.zeros((len(texts), 1), dtype=np.uint64))[:, 0]
    places: list[int] = np.argsort(keys, kind="stable")[:most].tolist()
    return places


def _column(rows: datasets.Dataset, name: str) -> pa.Array:
    return _whole(rows.with_format("arrow")[:][name])


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    cast = column.cast(pa.large_string())
    if isinstance(cast, pa.Array):
        return cast
    return pa.concat_arrays(cast.chunks) if cast.num_chunks else pa.array([], pa.large_string())
