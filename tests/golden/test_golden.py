"""Mined rows that were looked at once and kept, so that a change of behaviour shows.

After a change that is meant, write the file anew and read its difference: ``python -m tests.golden.test_golden``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from hf_negmine import BM25Teacher, DenseTeacher, NegativeMiner, RandomTeacher

GOLDEN = Path(__file__).with_name("mined.json")

CORPUS = [
    "The kettle whistles when the water boils.",
    "Green tea is steeped in water that has not quite boiled.",
    "Black tea is oxidised before it is dried.",
    "A pinch of salt makes bitter coffee taste milder.",
    "Espresso is brewed under high pressure.",
    "Coffee beans are roasted until they crack.",
    "Bread dough rises because yeast makes gas.",
    "Sourdough bread is raised by wild yeast.",
    "Salt slows the yeast in bread dough.",
    "An oven that is too hot burns the crust of the bread.",
    "The moon pulls the water of the sea into tides.",
    "Spring tides come at new moon and full moon.",
    "The moon shows us always the same side.",
    "A lunar eclipse happens when the earth's shadow falls on the moon.",
    "Sea water tastes of salt because rivers carry minerals to the sea.",
    "Icebergs float because ice is lighter than water.",
    "Ice melts faster when salt is strewn on it.",
    "Glaciers carve valleys out of the rock.",
    "Oak trees can live for more than five hundred years.",
    "Acorns are the fruit of the oak.",
    "Squirrels bury acorns and forget some of them.",
    "A tree grows one ring every year.",
    "The bark of the cork oak is harvested every nine years.",
    "Bees dance to show the way to flowers.",
    "Honey keeps for years because it holds little water.",
    "A beehive has one queen and many workers.",
    "Bumblebees fly on cold days when honey bees stay at home.",
    "Swallows fly south before the winter.",
    "Storks build their nests on chimneys.",
    "Owls hunt at night and see well in the dark.",
    "The heart of a hummingbird beats a thousand times a minute.",
    "A piano has eighty-eight keys.",
    "The strings of a violin are tuned in fifths.",
    "An organ makes its sound with air and pipes.",
    "Drums were used to send messages over long distances.",
    "A bicycle stays upright more easily when it rolls fast.",
    "The first bicycles had no pedals.",
    "Trains slow down on wet leaves because the rails become slippery.",
    "A compass needle points to the magnetic north.",
    "Lighthouses warn ships of rocks near the coast.",
    "Which trees live for hundreds of years?",
]

ROWS = [
    {"query": "How hot should the water for green tea be?", "positive": CORPUS[1]},
    {"query": "Why does bread dough rise?", "positive": CORPUS[6]},
    {"query": "Why does bread dough rise?", "positive": CORPUS[7]},
    {"query": "What causes the tides of the sea?", "positive": CORPUS[10]},
    {"query": "Why is sea water full of salt?", "positive": CORPUS[14]},
    {"query": "Which trees live for hundreds of years?", "positive": CORPUS[18]},
    {"query": "Who buries acorns of the oak?", "positive": CORPUS[20]},
    {"query": "How do bees tell each other the way to flowers?", "positive": CORPUS[23]},
    {"query": "How long does honey keep?", "positive": CORPUS[24]},
    {"query": "How many keys has a piano?", "positive": CORPUS[31]},
    {"query": "Why do icebergs float on the water?", "positive": CORPUS[15]},
    {"query": "When is there an eclipse of the moon?", "positive": CORPUS[13]},
]

TEACHERS = {"bm25": BM25Teacher(), "random": RandomTeacher(0)}

CASES: dict[str, dict[str, Any]] = {
    f"{teacher} {method} {sampler}": {"teacher": TEACHERS[teacher], "method": method, "sampler": sampler}
    for teacher in TEACHERS
    for method, sampler in (
        ("naive", "top"),
        ("naive", "sampled:8"),
        ("naive", "top1_sampled:8@0.5"),
        ("perc_pos:0.95", "top"),
        ("perc_pos:0.95", "sampled:6"),
        ("margin_pos:0.05", "top"),
        ("abs:0.7", "top"),
        ("shifted:5", "top"),
        ("band:3-12", "sampled:5"),
        ("perc_pos:0.9+min:0.1", "top"),
    )
} | {"bm25 each": {"teacher": TEACHERS["bm25"], "method": "perc_pos:0.8", "positive_score": "each"}}


def mine(case: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """What is kept of a case: each row's negatives as places in the corpus, and the scores to four places."""
    settings = {"num_negatives": 3, "corpus": CORPUS, "seed": 20, "on_exhausted": "keep", "include_scores": True}
    miner = NegativeMiner(**{**settings, **case}, cache_dir=folder, device="cpu", progress=False)
    names = [f"negative_{place}" for place in (1, 2, 3)]
    return [
        {
            "negatives": [CORPUS.index(row[name]) for name in names if row[name] is not None],
            "scores": [round(score, 4) for score in row["scores"]],
        }
        for row in miner.mine(Dataset.from_list(ROWS))
    ]


@pytest.mark.parametrize("case", CASES)
def test_the_rows_are_those_that_were_kept(tmp_path: Path, case: str) -> None:
    kept = json.loads(GOLDEN.read_text(encoding="utf-8"))[case]
    found = mine(CASES[case], tmp_path)
    assert [row["negatives"] for row in found] == [row["negatives"] for row in kept]
    for ours, theirs in zip(found, kept, strict=True):
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=2e-4)


def test_every_kept_case_is_still_tested() -> None:
    assert json.loads(GOLDEN.read_text(encoding="utf-8")).keys() == CASES.keys()


def scifact(folder: Path) -> tuple[Dataset, list[str]]:
    """200 judged pairs of queries with one positive, and 500 passages, these positives among them."""
    if not (folder / "scifact").is_dir():
        pytest.skip(f"real data: no folder {folder / 'scifact'}")
    tables = {name: pq.read_table(folder / "scifact" / f"{name}.parquet") for name in ("corpus", "queries", "qrels")}
    queries = dict(zip(tables["queries"]["id"].to_pylist(), tables["queries"]["text"].to_pylist(), strict=True))
    corpus = dict(zip(tables["corpus"]["id"].to_pylist(), tables["corpus"]["text"].to_pylist(), strict=True))
    positives: dict[str, list[str]] = {}
    for judged in tables["qrels"].to_pylist():
        if judged["score"] > 0 and judged["split"] == "train":
            positives.setdefault(judged["query_id"], []).append(judged["corpus_id"])
    single = {query: passages[0] for query, passages in positives.items() if len(passages) == 1}
    pairs = list(single.items())[:200]
    rows = [{"query": queries[query], "positive": corpus[passage]} for query, passage in pairs]
    passages = [row["positive"] for row in rows] + list(corpus.values())[:300]
    return Dataset.from_list(rows), [text[:200] for text in dict.fromkeys(passages)]


def test_a_real_model_on_real_data_keeps_every_promise(tmp_path: Path, data_dir: Path, minilm: str) -> None:
    rows, corpus = scifact(data_dir)
    rows = rows.map(lambda row: {"positive": row["positive"][:200]}, load_from_cache_file=False)
    teacher = DenseTeacher(minilm, dtype="float32", device="cpu", max_length=48)
    miner = NegativeMiner(
        teacher, method="perc_pos:0.95", corpus=corpus, include_scores=True, cache_dir=tmp_path, progress=False
    )
    mined = miner.mine(rows)
    assert len(mined) > 150
    assert miner.summary.complete + miner.summary.exhausted == len(set(rows["query"]))
    positives: dict[str, set[str]] = {}
    for row in rows:
        positives.setdefault(row["query"], set()).add(row["positive"])
    scores = np.array(mined["scores"])
    assert scores.shape == (len(mined), 5)
    assert np.isfinite(scores).all()
    assert (np.diff(scores[:, 1:], axis=1) <= 0).all()
    lowest: dict[str, float] = {}
    for row in mined:
        lowest[row["query"]] = min(row["scores"][0], lowest.get(row["query"], np.inf))
    for row in mined:
        negatives = {row[f"negative_{place}"] for place in (1, 2, 3, 4)}
        assert len(negatives) == 4
        assert not negatives & (positives[row["query"]] | {row["query"]})
        assert row["scores"][1] < lowest[row["query"]] * 0.95 + 1e-6

    # The model knows its trade, and its ceiling takes away what scores higher.
    assert np.median(scores[:, 0]) > 0.4
    pool = miner.pool.select("naive", n=4)
    assert float(pool.scores.mean()) > float(scores[:, 1:].mean())


def write_golden() -> None:
    """Mine every case and keep the rows."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: mine(case, Path(folder)) for name, case in CASES.items()}
    lines = [
        f" {json.dumps(name)}: [\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n ]"
        for name, rows in found.items()
    ]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden()
    sys.stdout.write(f"{GOLDEN}\n")
