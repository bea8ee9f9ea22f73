"""Rows to train on and queries to test on, from the Hub or from BEIR folders, each the same in every run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.randomness import KeyArray, random_keys
from hf_negmine.data.sources import open_beir
from hf_negmine.data.writing import in_memory
from recipes.common.sets import SETS
from recipes.common.sets.layouts import Beir, Table, Tables
from recipes.common.sets.load import load_set
from recipes.common.settings import TestSet, TrainingSet

CHOICE = 0
"""Seed of which rows and queries are taken: the same in every run, so that runs can be compared."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train on.

    Attributes:
        name: of the set.
        rows: query and positive; each query once.
        corpus: passages to mine from.
        hidden: by query text, its other relevant passages, which its one label does not name.
    """

    name: str
    rows: datasets.Dataset
    corpus: pa.Array | pa.ChunkedArray
    hidden: Mapping[str, frozenset[str]]

    @property
    def digest(self) -> str:
        """Of the texts of the rows and the corpus."""
        table = self.rows.with_format("arrow")[:]
        columns = [_whole(table[name]) for name in ("query", "positive")]
        return digest_of(*(text_digests(column) for column in (*columns, _whole(self.corpus))))


@dataclass(frozen=True)
class TestQueries:
    """Queries to evaluate on.

    Attributes:
        name: of the set.
        relevant: by query text, the texts of all its relevant passages, whatever their grade.
        corpus: passages to find them in, each text once.
    """

    __test__ = False

    name: str
    relevant: dict[str, frozenset[str]]
    corpus: pa.LargeStringArray

    @property
    def digest(self) -> str:
        """Of the queries with their relevant passages, and of the corpus."""
        judged = [[query, *sorted(texts)] for query, texts in sorted(self.relevant.items())]
        return digest_of(judged, text_digests(self.corpus))


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
        known = datasets.concatenate_datasets([loaded.rows, loaded.others])
    else:
        opened = open_beir(_folder(data, wanted.name), split="train")
        assert isinstance(opened.rows, datasets.Dataset)
        source, known, corpus = opened.rows, opened.rows, opened.corpus
    rows = _first_rows(source, wanted.rows)
    relevant = _relevant(_column(known, "query"), _column(known, "positive"))
    if corpus is None:
        corpus = _column(source, "positive")
    if wanted.passages is not None:
        texts = pc.unique(_whole(corpus))
        positives = pc.unique(_column(rows, "positive"))
        others = texts.filter(pc.invert(pc.is_in(texts, value_set=positives)))
        room = max(wanted.passages - len(positives), 0)
        corpus = pa.concat_arrays([positives, others.take(pa.array(_chosen(others, room), pa.int64()))])
    hidden = {
        query: relevant[query] - {positive} for query, positive in zip(rows["query"], rows["positive"], strict=True)
    }
    return TrainingRows(wanted.name, rows, corpus, {query: texts for query, texts in hidden.items() if texts})


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
    relevant = _relevant(query, positive)
    names = pa.array(list(relevant), pa.large_string())
    kept = {names[place].as_py() for place in _chosen(names, wanted.queries)}
    relevant = {one: texts for one, texts in relevant.items() if one in kept}
    texts = pc.unique(_whole(corpus))
    if wanted.passages is not None:
        needed = pa.array(sorted({text for own in relevant.values() for text in own}), pa.large_string())
        texts = _some_passages(texts, needed, pc.unique(positive), wanted.passages)
    return TestQueries(wanted.name, relevant, texts)


def load_collection(
    wanted: TrainingSet, test: TestSet, data: Path, seeds: Iterable[int]
) -> tuple[dict[int, TrainingRows], TestQueries]:
    """A set to train on, by seed, with its test queries, over one corpus, which is a part of the folder's.

    Args:
        wanted: which, and how many rows; of the corpus all that is relevant to its rows and tests, and others.
        test: the test queries, of the same folder.
        data: folder that holds the set as a BEIR folder.
        seeds: each draws one label per query; the others are hidden.

    Raises:
        InputError: no such folder.
    """
    folder, parts = _folder(data, wanted.folder or wanted.name), []
    for split, most in (("train", wanted.rows), (test.split, test.queries)):
        opened = open_beir(folder, split=split)
        assert isinstance(opened.rows, datasets.Dataset)
        relevant = _relevant(_column(opened.rows, "query"), _column(opened.rows, "positive"))
        names = pa.array(list(relevant), pa.large_string())
        parts.append({(name := names[place].as_py()): relevant[name] for place in _chosen(names, most)})
    assert opened.corpus is not None
    texts = pc.unique(_whole(opened.corpus))
    needed = pa.array(sorted({text for part in parts for own in part.values() for text in own}), pa.large_string())
    if wanted.passages is not None:
        texts = _some_passages(texts, needed, needed, wanted.passages)
    if wanted.words is not None:
        chunks = {text: _chunks(text, wanted.words) for text in texts.to_pylist()}
        texts = pc.unique(pa.array([chunk for own in chunks.values() for chunk in own], pa.large_string()))
        parts = [
            {query: frozenset(chunk for text in own for chunk in chunks[text]) for query, own in part.items()}
            for part in parts
        ]
    train = {query: sorted(own) for query, own in parts[0].items()}
    rows = {seed: _labelled(wanted.name, train, texts, seed) for seed in seeds}
    return rows, TestQueries(test.name, parts[1], texts)


def _labelled(name: str, relevant: Mapping[str, list[str]], corpus: pa.Array, seed: int) -> TrainingRows:
    """Rows with one of the relevant passages of each query, drawn by the query's text."""
    digests = text_digests(pa.array(list(relevant), pa.large_string()))[:, 0]
    drawn = random_keys(seed, digests, np.zeros((len(digests), 1), dtype=np.uint64))[:, 0]
    labels = [own[int(key) % len(own)] for own, key in zip(relevant.values(), drawn, strict=True)]
    hidden = {query: frozenset(own) - {label} for (query, own), label in zip(relevant.items(), labels, strict=True)}
    rows = in_memory(pa.table({"query": list(relevant), "positive": labels}))
    return TrainingRows(name, rows, corpus, {query: own for query, own in hidden.items() if own})


def _chunks(text: str, size: int) -> list[str]:
    """Chunks of some words, each overlapping the next by half."""
    words, step = text.split(), size // 2
    return [" ".join(words[start : start + size]) for start in range(0, max(1, len(words) - step), step)]


def _relevant(queries: pa.Array, positives: pa.Array) -> dict[str, frozenset[str]]:
    """By query text, the texts of its positives."""
    relevant: defaultdict[str, set[str]] = defaultdict(set)
    for query, text in zip(queries.to_pylist(), positives.to_pylist(), strict=True):
        relevant[query].add(text)
    return {query: frozenset(texts) for query, texts in relevant.items()}


def _some_passages(texts: pa.Array, needed: pa.Array, judged: pa.Array, most: int) -> pa.Array:
    """The needed ones, whatever their number, then those that are judged, then others, in the order of ``texts``."""
    first, second = (pc.is_in(texts, value_set=some).to_numpy(zero_copy_only=False) for some in (needed, judged))
    order = np.lexsort((_keys(texts), ~second, ~first))
    return texts.take(pa.array(np.sort(order[: max(most, int(first.sum()))])))


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
    return in_memory(pa.table({"query": query.take(taken), "positive": positive.take(taken)}))


def _chosen(texts: pa.Array, most: int | None) -> list[int]:
    """Places of the texts with the lowest random keys, in the order of these; None takes all."""
    places: list[int] = np.argsort(_keys(texts), kind="stable")[:most].tolist()
    return places


def _keys(texts: pa.Array) -> KeyArray:
    """A random number for each text, which depends on nothing else."""
    return random_keys(CHOICE, text_digests(texts)[:, 0], np.zeros((len(texts), 1), dtype=np.uint64))[:, 0]


def _column(rows: datasets.Dataset, name: str) -> pa.Array:
    return _whole(rows.with_format("arrow")[:][name])


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    cast = column.cast(pa.large_string())
    if isinstance(cast, pa.Array):
        return cast
    return pa.concat_arrays(cast.chunks) if cast.num_chunks else pa.array([], pa.large_string())
