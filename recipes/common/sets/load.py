"""A training set as rows of (query, positive): decontaminated, sampled, and the same whatever the order of the source.

Choices are made by a random key of (seed, query text, positive text), see `randomness.random_keys`: the rows with the
lowest keys are taken. Only texts and the seed matter, so a source that is shuffled or sharded differently gives the
same rows.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_negmine.base.errors import InputError, require, require_whole
from hf_negmine.base.files import text_digests
from hf_negmine.base.randomness import random_keys, uniform
from hf_negmine.base.schema import DigestArray, IdArray
from hf_negmine.data.texts import find_digests, sort_digests
from hf_negmine.data.writing import in_memory
from recipes.common.sets import TrainingSet
from recipes.common.sets.layouts import Labelled, LabelledTexts, PairTable, Tables

ROWS_A_LOOK = 65_536
WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class LoadedSet:
    """Rows of a training set.

    Attributes:
        set: what was loaded.
        rows: query and positive; for classes and clusters also ``negatives``, texts of other labels.
        corpus: passages to mine from, unique; None: the positives of the rows.
        others: further positives of the rows' queries among these passages, query and positive: they were not
            sampled, and must not become negatives.
        found: rows before decontamination and sampling, equal ones counted once.
        dropped: rows among those looked at that occur in the evaluation set.
    """

    set: TrainingSet
    rows: datasets.Dataset
    corpus: pa.Array | None
    others: datasets.Dataset
    found: int
    dropped: int

    def __str__(self) -> str:
        short = self.set.samples - len(self.rows)
        lacking = f", {short:,} fewer than in table 7" if short > 0 else ""
        return f"{self.set.name}: {len(self.rows):,} of {self.found:,} rows, {self.dropped:,} dropped{lacking}"


def load_set(
    training_set: TrainingSet,
    *,
    source: str | Path | None = None,
    evaluation_source: str | Path | None = None,
    samples: int | None = None,
    negatives: int = 5,
    seed: int = 0,
    decontaminate: bool = True,
    passages: int | None = None,
) -> LoadedSet:
    """Load a training set.

    Args:
        training_set: of `sets.SETS`.
        source: a folder with ``CONFIG/SPLIT.parquet`` instead of the Hub.
        evaluation_source: the same for the evaluation set.
        samples: rows at most; None takes the count of table 7.
        negatives: texts of other labels per row, for classes and clusters.
        seed: of every choice.
        decontaminate: drop rows that occur in the set's evaluation set.
        passages: of the corpus, at most: the same under every seed. None takes all.

    Raises:
        InputError: a source that is not there or has other columns, or no row left.
    """
    samples = training_set.samples if samples is None else samples
    require_whole(samples, "samples", at_least=1)
    require_whole(negatives, "negatives", at_least=1)
    seen: set[str] = set()
    if decontaminate and training_set.evaluation is not None:
        evaluation = training_set.evaluation
        seen = {normalised(text) for text in evaluation.texts(Tables(evaluation.hub_id, evaluation_source)).to_pylist()}
        seen.discard("")  # a text of punctuation alone would match every other such text
    tables = Tables(training_set.hub_id, source, training_set.revision)
    layout = training_set.layout
    corpus = None
    others: dict[str, pa.Array] = dict.fromkeys(("query", "positive"), pa.array([], pa.large_string()))
    if isinstance(layout, Labelled):
        columns, found, dropped = _labelled_rows(layout.labelled(tables), samples, negatives, seed, seen)
    else:
        pairs = layout.pairs(tables)
        corpus = pairs.corpus if passages is None else _some(pairs.corpus, passages)
        columns, found, dropped = _pair_rows(pairs, samples, seed, seen, once=training_set.one_positive_per_query)
        if not training_set.hides_positives:
            others = _other_positives(pairs, columns, corpus)
    require(
        len(columns["query"]) > 0,
        f"{training_set.name}: no row is left of {found:,} after {dropped:,} that occur in the evaluation set",
    )
    return LoadedSet(training_set, in_memory(pa.table(columns)), corpus, in_memory(pa.table(others)), found, dropped)


def _some(corpus: pa.Array | None, most: int) -> pa.Array | None:
    """The passages with the lowest random keys, in the order of these."""
    if corpus is None:
        return None
    keys = random_keys(0, text_digests(corpus)[:, 0], np.zeros((len(corpus), 1), dtype=np.uint64))[:, 0]
    return corpus.take(pa.array(np.argsort(keys, kind="stable")[:most]))


def normalised(text: str) -> str:
    """A text without case, punctuation, spacing and Unicode variants, so that copies of it are found."""
    return WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


# ---- pairs ---------------------------------------------------------------------------------------------------------


def _pair_rows(
    pairs: PairTable, samples: int, seed: int, seen: set[str], *, once: bool
) -> tuple[dict[str, pa.Array], int, int]:
    """Columns of the rows, how many there were, how many were dropped."""
    query_digests, positive_digests = text_digests(pairs.query), text_digests(pairs.positive)
    useful = ~(query_digests == positive_digests).all(axis=1)  # a text is not its own positive
    keys = random_keys(seed, query_digests[:, 0], positive_digests[:, :1])[:, 0]
    order = np.lexsort((positive_digests[:, 0], query_digests[:, 0], keys))
    order = order[useful[order]]
    fresh = np.ones(len(order), dtype=bool)  # equal pairs, which are neighbours now, once
    fresh[1:] = (query_digests[order[1:]] != query_digests[order[:-1]]).any(axis=1)
    fresh[1:] |= (positive_digests[order[1:]] != positive_digests[order[:-1]]).any(axis=1)
    order = order[fresh]
    kept: list[int] = []
    queries: set[tuple[int, int]] = set()
    dropped = 0
    for start in range(0, len(order), ROWS_A_LOOK):
        looked_at = order[start : start + ROWS_A_LOOK]
        texts = zip(
            looked_at.tolist(),
            pairs.query.take(pa.array(looked_at)).to_pylist(),
            pairs.positive.take(pa.array(looked_at)).to_pylist(),
            strict=True,
        )
        for place, query, positive in texts:
            if len(kept) == samples:
                break
            if not normalised(query) or not positive.strip():
                continue
            if seen and (normalised(query) in seen or normalised(positive) in seen):
                dropped += 1
                continue
            if once:
                digest = (int(query_digests[place, 0]), int(query_digests[place, 1]))
                if digest in queries:
                    continue
                queries.add(digest)
            kept.append(place)
        if len(kept) == samples:
            break
    taken = pa.array(kept, pa.int64())
    return {"query": pairs.query.take(taken), "positive": pairs.positive.take(taken)}, len(order), dropped


def _other_positives(pairs: PairTable, rows: dict[str, pa.Array], corpus: pa.Array | None) -> dict[str, pa.Array]:
    """The other pairs of the rows' queries, as far as their positives are among the passages to mine from."""
    here = [text_digests(rows[name]) for name in ("query", "positive")]
    passages = here[1] if corpus is None else text_digests(corpus)
    queries, positives = text_digests(pairs.query), text_digests(pairs.positive)
    some = np.flatnonzero((_places(here[0], queries) >= 0) & (_places(passages, positives) >= 0))
    left = pa.array(some[~np.isin(_joined(queries[some], positives[some]), _joined(*here))])
    return {"query": pairs.query.take(left), "positive": pairs.positive.take(left)}


def _joined(queries: DigestArray, positives: DigestArray) -> np.ndarray[Any, Any]:
    """One comparable value for each pair of digests, shape (pairs,)."""
    both = np.concatenate([queries, positives], axis=1)
    joined: np.ndarray[Any, Any] = both.view([("", both.dtype)] * both.shape[1]).reshape(-1)
    return joined


def _places(known: DigestArray, digests: DigestArray) -> IdArray:
    return find_digests(sort_digests(known)[1], digests)


# ---- labels --------------------------------------------------------------------------------------------------------


def _labelled_rows(
    table: LabelledTexts, samples: int, negatives: int, seed: int, seen: set[str]
) -> tuple[dict[str, pa.Array], int, int]:
    """A text as query, another of its label as positive, texts of other labels as negatives."""
    found = len(table.texts)
    texts, labels = table.texts, table.labels
    if seen:
        clean = pa.array([normalised(text.as_py()) not in seen for text in texts], pa.bool_())
        texts, labels = texts.filter(clean), labels.filter(clean)
    dropped = found - len(texts)
    # By label and digest: a label is one stretch, and the source's order is gone.
    digests = text_digests(texts)
    names = sorted(set(labels.to_pylist()))
    codes = np.asarray(pc.index_in(labels, value_set=pa.array(names, pa.string())), dtype=np.int64)
    order = np.lexsort((digests[:, 1], digests[:, 0], codes))
    texts, digests, codes = texts.take(pa.array(order)), digests[order], codes[order]
    starts = np.searchsorted(codes, codes, side="left")
    sizes = np.searchsorted(codes, codes, side="right") - starts
    others = len(codes) - sizes
    queries = np.flatnonzero(sizes > 1)  # a label's only text has no positive
    if len(queries) and (fewest := int(others[queries].min())) < negatives:
        raise InputError(f"negatives: {negatives} texts of other labels wanted, and one label leaves {fewest}")
    keys = random_keys(seed, digests[queries, 0], np.zeros((1, 1), dtype=np.uint64))[:, 0]
    queries = queries[np.argsort(keys, kind="stable")][:samples]
    purposes = np.arange(1, negatives + 2, dtype=np.uint64)[None, :]
    draws = uniform(random_keys(seed, digests[queries, 0], purposes))
    positives = starts[queries] + (draws[:, 0] * (sizes[queries] - 1)).astype(np.int64)
    positives += positives >= queries  # all of the label but the query itself
    drawn = _distinct(draws[:, 1:], others[queries].astype(np.int64))
    drawn += np.where(drawn >= starts[queries, None], sizes[queries, None], 0)  # all but the query's label
    columns = {
        "query": texts.take(pa.array(queries)),
        "positive": texts.take(pa.array(positives)),
        "negatives": pa.LargeListArray.from_arrays(
            pa.array(np.arange(0, drawn.size + 1, negatives), pa.int64()), texts.take(pa.array(drawn.reshape(-1)))
        ),
    }
    return columns, found, dropped


def _distinct(draws: np.ndarray[Any, np.dtype[np.float64]], sizes: IdArray) -> IdArray:
    """For each row k different whole numbers under its size, by Floyd's algorithm (Bentley and Floyd 1987).

    Args:
        draws: numbers between 0 and 1, shape (rows, k).
        sizes: at least k, shape (rows,).
    """
    count = draws.shape[1]
    chosen = np.full(draws.shape, -1, dtype=np.int64)
    for place in range(count):
        last = sizes - count + place
        drawn = (draws[:, place] * (last + 1)).astype(np.int64)
        taken = (chosen[:, :place] == drawn[:, None]).any(axis=1)
        chosen[:, place] = np.where(taken, last, drawn)
    return chosen
