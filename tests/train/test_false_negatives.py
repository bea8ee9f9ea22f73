"""False negatives of a batch, compared with a loop over every pair."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from hf_negmine.base.errors import InputError
from hf_negmine.base.files import text_digests
from hf_negmine.select.filters import Consistency
from hf_negmine.teachers import DenseTeacher, FixedTeacher
from hf_negmine.train import HardNegativeCollator
from hf_negmine.train.false_negatives import BatchKeys, false_negatives
from hf_negmine.train.source import NegativeSource
from tests.thorough import examples
from tests.train.helpers import CORPUS, QUERIES, WordTeacher, make_miner

TEXTS = [*CORPUS[:20], QUERIES[0], QUERIES[1], "a text of nowhere", "another"]
KNOWN = [(0, [0, 16]), (1, [1]), (2, [2, 3, 4]), (3, [3]), (4, [16])]
"""Queries with their positives."""


def data() -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"query": [QUERIES[q] for q, _ in KNOWN], "positive": [[CORPUS[p] for p in found] for _, found in KNOWN]}
    )


def keys_of(rows: Sequence[Sequence[str]]) -> Any:
    flat = text_digests(pa.array([text for row in rows for text in row], pa.large_string()))[:, 0]
    return flat.reshape(len(rows), -1)


def cosine(first: str, second: str) -> float:
    one, two = WordTeacher().encode([first], "query")[0], WordTeacher().encode([second], "passage")[0]
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def in_a_loop(
    rows: Sequence[Sequence[str]],
    own: Sequence[int],
    *,
    known: dict[str, list[str]],
    each: bool,
    vectors: bool,
    in_batch: bool,
) -> list[list[bool]]:
    """What `false_negatives` says it does, pair by pair; ``known`` are the positives of each query."""
    columns = [(number, column) for column in range(1, len(rows[0])) for number in range(len(rows))]
    masked = []
    for number in own:
        query, positive = rows[number][:2]
        left_out, kept = {}, set()
        for other, column in sorted(
            columns, key=lambda place: place[0] != number
        ):  # of repeated texts the row's own counts
            text = rows[other][column]
            if (other, column) == (number, 1):
                left_out[other, column] = False
                continue
            out = text in (query, positive) or text in known.get(query, [])
            out |= any(text == there[1] for there in rows if there[0] == query)
            if vectors and positive in known.get(query, []) and text in CORPUS:
                deciding = [positive] if each else known[query]
                lowest = min(cosine(query, some) for some in deciding)
                out |= cosine(query, text) >= lowest - abs(lowest) * 0.05
            out |= not in_batch and other != number
            out |= text in kept
            if not out:
                kept.add(text)
            left_out[other, column] = bool(out)
        masked.append([left_out[place] for place in columns])
    return masked


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, frozen: SentenceTransformer) -> dict[str, list[NegativeSource]]:
    """By name: a teacher of vectors with either positive score, one without vectors, a stored pool, and nothing."""
    folder = tmp_path_factory.mktemp("sources")
    given: dict[str, Any] = {
        "min": make_miner(folder, on_exhausted="keep").fit(data()),
        "each": make_miner(folder, on_exhausted="keep", positive_score="each").fit(data()),
        "random": make_miner(folder, "random:0", on_exhausted="keep").fit(data()),
        "corpus": make_miner(folder),
    }
    given["pool"] = given["min"].pool.folder
    made = {name: HardNegativeCollator(frozen, some, num_negatives=2) for name, some in given.items()}
    return {"none": [], **{name: list(collator.sources.values()) for name, collator in made.items()}}


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[str]], list[int]]:
    n = draw(st.integers(0, 3))
    query = st.sampled_from([*QUERIES[:6], "a query of nowhere"])
    row = st.builds(lambda q, rest: [q, *rest], query, st.lists(st.sampled_from(TEXTS), min_size=n + 1, max_size=n + 1))
    rows = draw(st.lists(row, min_size=1, max_size=6))
    for some in rows:  # half of the rows are those of the data set
        found = [p for q, p in KNOWN if QUERIES[q] == some[0]]
        if found and draw(st.booleans()):
            some[1] = CORPUS[draw(st.sampled_from(found[0]))]
    first = draw(st.integers(0, len(rows) - 1))
    return rows, list(range(first, draw(st.integers(first + 1, len(rows)))))


@pytest.mark.parametrize("name", ["min", "each", "random", "corpus", "pool", "none"])
@examples(25)
@given(batch=batches(), in_batch=st.booleans())
def test_a_batch_is_masked_as_pair_by_pair(
    sources: dict[str, list[NegativeSource]], name: str, batch: tuple[list[list[str]], list[int]], in_batch: bool
) -> None:
    rows, own = batch
    masked = false_negatives(BatchKeys(keys_of(rows), np.array(own)), sources[name], in_batch_negatives=in_batch)
    expected = in_a_loop(
        rows,
        own,
        known={} if name in ("corpus", "none") else {QUERIES[q]: [CORPUS[p] for p in found] for q, found in KNOWN},
        each=name == "each",
        vectors=name in ("min", "each"),
        in_batch=in_batch,
    )
    assert masked.tolist() == expected


def masked(rows: list[list[str]], sources: list[NegativeSource], **settings: Any) -> list[list[bool]]:
    settings = {"in_batch_negatives": True, **settings}
    found: list[list[bool]] = false_negatives(
        BatchKeys(keys_of(rows), np.arange(len(rows))), sources, **settings
    ).tolist()
    return found


def test_each_reason_to_leave_a_passage_out_literally() -> None:
    rows = [["q", "p", "n"], ["q", "p2", "m"], ["r", "q", "n"], ["s", "p", "m"]]
    #         p      p2     q      p      n      m      n      m
    assert masked(rows, []) == [
        [False, True, True, True, False, False, True, True],  # p2 answers q, too; q is the query; the second p is p
        [True, False, True, True, False, False, True, True],
        [False, False, False, True, True, False, False, True],  # r is told from p once, and from its own n
        [True, False, False, False, False, True, True, False],  # its own positive stays, the other p goes
    ]
    assert masked(rows, [], in_batch_negatives=False)[2] == [True, True, False, True, True, True, False, True]


def test_a_passage_at_its_ceiling_is_left_out_and_one_below_is_not(tmp_path: Path, frozen: SentenceTransformer) -> None:
    """Vectors whose scores are exact: the positive scores 1.0, the ceiling of margin 0.5 is 0.5."""
    passages = ["p", "at", "below", "over", "low"]
    scores = np.array([1.0, 0.5, np.nextafter(np.float32(0.5), np.float32(0)), 0.75, 0.0], dtype=np.float32)
    vectors = np.stack([scores, np.zeros(5)], axis=1)
    teacher = FixedTeacher(["q"], np.array([[1.0, 0.0]]), passages, vectors, similarity="dot")
    miner = make_miner(tmp_path, teacher, corpus=passages, method="margin_pos:0.5", sampler="top", num_negatives=1).fit(
        datasets.Dataset.from_dict({"query": ["q"], "positive": ["p"]})
    )
    sources = list(HardNegativeCollator(frozen, miner).sources.values())
    rows = [["q", "p", "low"], ["x", "at", "below"], ["y", "over", "elsewhere"]]
    assert masked(rows, sources)[0] == [False, True, True, False, False, False]


@pytest.mark.parametrize("travelled", [False, True])
def test_an_inconsistent_positive_sets_no_ceiling(
    tmp_path: Path, frozen: SentenceTransformer, travelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Query 0 has a second positive that its teacher does not find, and that lies under nearly everything."""
    worst = min(CORPUS, key=lambda text: cosine(QUERIES[0], text))
    data = datasets.Dataset.from_dict({"query": [QUERIES[0], *QUERIES[:4]], "positive": [worst, *CORPUS[:4]]})
    miner = make_miner(tmp_path, filters=[Consistency(top_k=10)]).fit(data)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        collator = HardNegativeCollator(frozen, miner)
    finally:
        logger.removeHandler(caplog.handler)
    assert "1 of 5 positives fail consistency (top 10)" in caplog.text
    source = collator.sources[""]
    source = pickle.loads(pickle.dumps(source)) if travelled else source
    negatives = [row for row in miner.mine(data) if row["query"] == QUERIES[0]]
    rows = [[QUERIES[0], CORPUS[0], negatives[0]["negative_1"]], [QUERIES[1], CORPUS[1], CORPUS[20]]]
    assert cosine(*rows[0][::2]) > cosine(QUERIES[0], worst)
    assert masked(rows, [source])[0][:1] + masked(rows, [source])[0][2:3] == [False, False]
    assert source.ceilings(np.array([0]), np.array([0.0], dtype=np.float32))[0] == pytest.approx(
        0.95 * cosine(QUERIES[0], CORPUS[0]), rel=1e-5
    )


def test_a_model_that_is_its_own_teacher_leaves_out_by_the_scores_of_the_fit(
    tmp_path: Path, model: SentenceTransformer
) -> None:
    """Its vectors of today would be those of the whole corpus again, at every step, under ceilings of the fit."""
    miner = make_miner(tmp_path, DenseTeacher(model)).fit(data())
    sources = list(HardNegativeCollator(model, miner).sources.values())
    rows = [[QUERIES[query], CORPUS[query], CORPUS[query + 5]] for query, _ in KNOWN]
    before = masked(rows, sources)
    stored = sorted((tmp_path / "vectors").rglob("*"))
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn_like(weights))
    assert masked(rows, sources) == before
    assert sorted((tmp_path / "vectors").rglob("*")) == stored
    later = HardNegativeCollator(model, miner)  # which draws from the bank as before
    with pytest.raises(InputError, match=r"no longer what it was at fit.*copy\.deepcopy"):
        masked(rows, list(later.sources.values()))
