"""A trial trains and tests what it says, and recommends only what is better beyond chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from typer.testing import CliRunner

from hf_negmine import BM25Teacher, DenseTeacher, FixedTeacher, InputError, NegativeMiner, NotFittedError, try_settings
from hf_negmine.commands.cli import app
from hf_negmine.teachers.vector_store import VectorStore
from hf_negmine.trial import SCALE, _Rows

N, WIDTH = 400, 16
QUERIES = [f"question {place}" for place in range(N)]
ANSWERS = [f"answer {place}" for place in range(N)]
TWINS = [f"twin of answer {place}" for place in range(N)]
METHODS = ["naive", "perc_pos:0.95"]


def unit(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def teacher() -> FixedTeacher:
    """The first dimensions are of the meaning, the others of nothing; every answer has an unlabeled twin."""
    rng = np.random.default_rng(0)
    meaning = rng.standard_normal((N, 8))

    def texts(noise: float) -> np.ndarray[Any, Any]:
        return unit(np.hstack([meaning + noise * rng.standard_normal((N, 8)), 1.2 * rng.standard_normal((N, 8))]))

    queries, answers = texts(0.3), texts(0.3)
    twins = unit(answers + 0.02 * rng.standard_normal(answers.shape))
    return FixedTeacher(QUERIES, queries, ANSWERS + TWINS, np.vstack([answers, twins]))


def rows(order: Any = range(N)) -> Dataset:
    return Dataset.from_dict({"query": [QUERIES[at] for at in order], "positive": [ANSWERS[at] for at in order]})


def fitted(folder: Path, data: Dataset | None = None, **settings: Any) -> NegativeMiner:
    miner = NegativeMiner(teacher(), corpus=ANSWERS + TWINS, cache_dir=folder, progress=False, **settings)
    return miner.fit(rows() if data is None else data)


def opened(miner: NegativeMiner) -> _Rows:
    return _Rows.of(miner.fitted.texts, teacher(), VectorStore(miner.config.cache_dir, progress=False))


def test_the_student_learns_what_the_negatives_teach(tmp_path: Path) -> None:
    tried = try_settings(fitted(tmp_path, num_negatives=2), METHODS, ["top"], seeds=2)
    assert (tried.train_queries + tried.held_out, tried.seeds) == (N, 2)
    assert [(one.method, one.sampler) for one in tried.settings] == [(method, "top") for method in METHODS]
    own = tried.settings[1]
    assert own.ndcg == pytest.approx(tried.own)
    assert own.gain == own.low == own.high == 0
    assert tried.own > tried.before + 0.02  # the dimensions of nothing are turned down
    for one in tried.settings:
        assert one.gain == pytest.approx(one.ndcg - tried.own)
        assert one.low <= one.gain <= one.high


def test_a_setting_is_recommended_only_if_it_is_better_beyond_chance(tmp_path: Path) -> None:
    miner = fitted(tmp_path, num_negatives=2)
    level = try_settings(miner, ["perc_pos:0.95", "perc_pos:0.949"], ["top"], seeds=1)
    assert level.best is None
    assert level.recommendation.startswith("Keep perc_pos:0.95 top: no setting is better beyond chance")
    assert str(level).endswith(level.recommendation)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(N)
    one = opened(fitted(tmp_path / "one"))
    other = opened(fitted(tmp_path / "other", rows(order)))
    for ids in ("train_ids", "held_out"):
        texts = [each.texts.queries.take(getattr(each, ids)).to_pylist() for each in (one, other)]
        assert texts[0] == texts[1]
    assert not set(one.train_ids) & set(one.held_out)


def test_the_measure_is_ndcg(tmp_path: Path) -> None:
    miner = fitted(tmp_path, Dataset.from_dict({"query": QUERIES * 2, "positive": ANSWERS + TWINS}))
    given = opened(miner)
    matrix = np.random.default_rng(2).standard_normal((WIDTH, WIDTH)).astype(np.float32)
    found = given.ndcg(matrix)
    passages = unit(np.asarray(given.passages) @ matrix)
    texts = given.texts.corpus.texts.to_pylist()
    for query, result in zip(given.held_out, found, strict=True):
        scores = passages @ unit(np.asarray(given.queries[query : query + 1]) @ matrix)[0]
        number = given.texts.queries.texts[int(query)].as_py().split()[-1]
        best = [texts[at].split()[-1] == number for at in np.argsort(-scores)[:10]]
        gain = sum(hit / np.log2(place + 2) for place, hit in enumerate(best))
        assert result == pytest.approx(gain / (1 + 1 / np.log2(3)))


def test_other_positives_of_a_query_are_no_negatives_in_the_loss(tmp_path: Path) -> None:
    data = Dataset.from_dict({"query": [QUERIES[0], QUERIES[0], *QUERIES[1:]], "positive": [TWINS[0], *ANSWERS]})
    miner = fitted(tmp_path, data, num_negatives=2)
    given = opened(miner)
    selection = miner.pool.select("perc_pos:0.95", n=2)
    batch = np.array([given.texts.queries.texts.to_pylist().index(QUERIES[at]) for at in (0, 5)])

    class First:
        def integers(self, low: int, high: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return np.zeros(len(high), dtype=np.int64)

    loss = given._loss(torch.eye(WIDTH), batch, selection, First())  # type: ignore[arg-type]
    offsets = given.texts.positive_offsets
    positives = [given.texts.positive_ids[offsets[query]] for query in batch]
    everything = sorted({*positives, *selection.ragged.take(batch).arrays[0]})
    losses = []
    for query, positive in zip(batch, positives, strict=True):
        own = set(given.texts.positive_ids[offsets[query] : offsets[query + 1]]) - {positive}
        kept = [passage for passage in everything if passage not in own]
        scores = SCALE * np.asarray(given.passages)[kept].astype(np.float64) @ np.asarray(given.queries)[query]
        losses.append(np.log(np.exp(scores).sum()) - scores[kept.index(positive)])
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-4)


def test_what_cannot_be_tried_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        try_settings(NegativeMiner(teacher()))
    few = NegativeMiner(teacher(), cache_dir=tmp_path, progress=False).fit(rows(range(50)))
    with pytest.raises(InputError, match="are held out, expected at least 20 to test on; give more rows"):
        try_settings(few)
    words = NegativeMiner(BM25Teacher(), cache_dir=tmp_path, progress=False).fit(rows())
    with pytest.raises(InputError, match="needs the vectors of a dense model, which bm25-english does not have"):
        try_settings(words)
    assert try_settings(words, ["naive"], ["top"], student=teacher(), seeds=1).held_out > 20
    with pytest.raises(InputError, match="seeds"):
        try_settings(words, seeds=0)


def test_the_student_works_where_the_miner_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = []
    monkeypatch.setattr(DenseTeacher, "place", lambda self, device: placed.append(device))
    few = fitted(tmp_path, rows(range(50)), device="cpu")
    with pytest.raises(InputError):  # there are too few queries, and no such model
        try_settings(few, student=DenseTeacher("no/model"))
    assert placed == ["cpu"]


def test_the_command_tries_what_it_sweeps(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    vectors.mkdir()
    known = teacher()
    for name, role, texts in (("queries", "query", QUERIES), ("passages", "passage", ANSWERS + TWINS)):
        Dataset.from_dict({"text": texts, "vector": known.encode(texts, role).tolist()}).to_parquet(
            vectors / f"{name}.parquet"
        )
    path = tmp_path / "rows.jsonl"
    rows().to_json(path)
    given = [
        "sweep",
        path,
        "-t",
        f"fixed:{vectors}",
        "-m",
        "naive",
        "-s",
        "top",
        "-n",
        2,
        "--cache-dir",
        tmp_path / "cache",
    ]
    result = CliRunner().invoke(app, [*map(str, given), "--try", "--seeds", "1"])
    assert result.exit_code == 0, result.output
    expected = try_settings(
        NegativeMiner(known, num_negatives=2, cache_dir=tmp_path / "other", progress=False).fit(rows()),
        ["naive"],
        ["top"],
        seeds=1,
    )
    assert str(expected) in result.output
    refused = CliRunner().invoke(app, [*map(str, given), "--seeds", "2"])
    assert refused.exit_code == 1
    assert "--seeds: for --try, which is not given" in refused.stderr
