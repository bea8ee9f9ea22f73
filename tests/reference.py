"""Slow and plain versions of what the library does fast, for tests to compare with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from hf_negmine.base.choices import FirstPass
from hf_negmine.base.protocols import Ranking, Searcher, Teacher
from hf_negmine.base.schema import FloatArray
from hf_negmine.data.collecting import build_text_set
from hf_negmine.data.formats.tools import TOOLS
from hf_negmine.data.layouts import FORMATS
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool, retrieve
from hf_negmine.search import Exclusions, open_searcher
from hf_negmine.search.corpus import VectorsInMemory
from hf_negmine.search.scoring import canonical_scores
from hf_negmine.select import Selection
from hf_negmine.teachers.vector_store import VectorStore

OWN_FORMATS = [name for name in FORMATS if name not in TOOLS]
"""The formats of mined rows that are not those of another tool."""
Ranked = list[tuple[float, int]]
"""(score, passage) by falling score and rising passage."""


ArraySource = VectorsInMemory


@dataclass(frozen=True)
class MatrixScorer:
    """Scores that stand in a matrix; a query's text is its row. See `protocols.PassageScorer`."""

    matrix: FloatArray

    def scores(self, queries: Sequence[str]) -> FloatArray:
        return self.matrix[[int(query) for query in queries]]


def score_matrix(queries: FloatArray, passages: FloatArray) -> FloatArray:
    """The defined score of every pair, shape (queries, passages)."""
    every = torch.from_numpy(passages).expand(len(queries), -1, -1)
    scores: FloatArray = canonical_scores(torch.from_numpy(queries)[:, None], every).numpy()
    return scores


def exclusions_of(excluded: Sequence[Sequence[int]]) -> Exclusions:
    """Ragged rows of passage ids as CSR."""
    return Exclusions(
        np.cumsum([0] + [len(row) for row in excluded]).astype(np.int64),
        np.array([passage for row in excluded for passage in row], dtype=np.int32),
    )


def ranked(scores: FloatArray, excluded: Sequence[int] = ()) -> Ranked:
    """The eligible passages of one query, best first, ties by the lower passage."""
    out = set(excluded)
    return sorted(
        ((float(score), passage) for passage, score in enumerate(scores) if passage not in out),
        key=lambda pair: (-pair[0], pair[1]),
    )


def rows_of(ranking: Ranking) -> list[Ranked]:
    """The rows of a `Ranking` as lists of pairs."""
    return [
        list(zip(ranking.scores[first:last].tolist(), ranking.passages[first:last].tolist(), strict=True))
        for first, last in zip(ranking.offsets, ranking.offsets[1:], strict=False)
    ]


def search(
    rankings: Sequence[Ranked], queries: Sequence[int], ceilings: FloatArray, depth: int, skip: int = 0
) -> Ranking:
    """What a searcher answers, from whole rankings."""
    found = [
        [pair for pair in rankings[query] if pair[0] < ceiling]
        for query, ceiling in zip(queries, ceilings, strict=True)
    ]
    window = [row[skip : skip + depth] for row in found]
    return Ranking(
        offsets=np.cumsum([0] + [len(row) for row in window]).astype(np.int64),
        passages=np.array([passage for row in window for _, passage in row], dtype=np.int32),
        scores=np.array([score for row in window for score, _ in row], dtype=np.float32),
        exhausted=np.array([len(row) <= skip + depth for row in found], dtype=bool),
    )


def text_set(
    folder: Path,
    queries: Sequence[str],
    positives: Sequence[str] | Sequence[Sequence[str]],
    corpus: Sequence[str] | None = None,
) -> TextSet:
    """A `TextSet` of plain lists."""
    return build_text_set(
        folder,
        [(pa.array(queries, pa.string()), pa.array(positives))],
        None if corpus is None else [pa.array(corpus, pa.string())],
        query_column="query",
        positive_column="positive",
    )


def searcher_maker(
    folder: Path, teacher: Teacher, texts: TextSet, first_pass: FirstPass = "auto"
) -> Callable[[], Searcher]:
    """Opens a searcher on the processor with a store under ``folder``."""
    store = VectorStore(folder, progress=False)
    return lambda: open_searcher(teacher, texts, store, device="cpu", first_pass=first_pass)


def make_pool(
    folder: Path, teacher: Teacher, texts: TextSet, depth: int, first_pass: FirstPass = "auto"
) -> CandidatePool:
    """Retrieve a pool into ``folder / "pool"``."""
    about, maker = {"teacher": teacher.name}, searcher_maker(folder, teacher, texts, first_pass)
    return retrieve(texts, maker, folder / "pool", about, depth=depth, progress=False)


def selected_rows(selection: Selection) -> list[Ranked]:
    """Score and passage of each target's negatives."""
    return [
        list(zip(selection.scores[a:b].tolist(), selection.passages[a:b].tolist(), strict=True))
        for a, b in itertools.pairwise(selection.offsets)
    ]
