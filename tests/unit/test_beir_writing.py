"""BEIR folders that are written: mined judgements, and what is hard for several systems; read again by our own door."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine import (
    CandidatePool,
    InputError,
    NegativeMiner,
    RandomTeacher,
    ScoreFunction,
    StorageError,
    audit,
    write_hard_subset,
)
from hf_negmine.data.sources import open_beir, read_beir_texts
from tests.unit.test_lists import DOCUMENTS, POSITIVES, QUERIES, SCORES

OPTIONS: dict[str, Any] = {"progress": False, "device": "cpu"}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_qrels(path: Path) -> dict[str, dict[str, str]]:
    """As the readers of BEIR folders read them."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL)
        assert next(rows) == ["query-id", "corpus-id", "score"]
        for query, passage, score in rows:
            assert passage not in found[query], "each pair is judged once"
            found[query][passage] = score
    return found


# ---- mined judgements ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_positives_are_judged_1_and_negatives_0(tmp_path: Path, positive_score: Any) -> None:
    positives = {**POSITIVES, "q3": ["c", "f"]}
    pool = CandidatePool.from_lists(QUERIES, DOCUMENTS, SCORES, positives, cache_dir=tmp_path / "cache", **OPTIONS)
    selection = pool.select("naive", n=2, positive_score=positive_score)
    pool.to_beir(tmp_path / "mined", selection)
    assert {row["_id"]: row["text"] for row in read_lines(tmp_path / "mined" / "corpus.jsonl")} == DOCUMENTS
    assert {row["_id"]: row["text"] for row in read_lines(tmp_path / "mined" / "queries.jsonl")} == QUERIES
    expected: dict[str, dict[str, str]] = {query: dict.fromkeys(row, "1") for query, row in positives.items()}
    for row in selection.to_dataset():
        (query,) = (name for name, text in QUERIES.items() if text == row["query"])
        for column in ("negative_1", "negative_2"):
            (passage,) = (name for name, text in DOCUMENTS.items() if text == row[column])
            expected[query][passage] = "0"
    assert read_qrels(tmp_path / "mined" / "qrels" / "train.tsv") == expected
    rows = open_beir(tmp_path / "mined").rows
    assert sorted((row["query"], row["positive"]) for row in rows) == sorted(
        (QUERIES[query], DOCUMENTS[one]) for query, row in positives.items() for one in row
    ), "to mine from it again, the negatives are no positives"


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    pool = CandidatePool.from_lists(QUERIES, DOCUMENTS, SCORES, POSITIVES, cache_dir=tmp_path / "one", **OPTIONS)
    selection = pool.select("naive", n=1)
    with pytest.raises(InputError, match="the selection does not come from this pool"):
        CandidatePool.from_lists(
            QUERIES, {**DOCUMENTS, "g": "More."}, SCORES, POSITIVES, cache_dir=tmp_path / "two", **OPTIONS
        ).to_beir(tmp_path / "mined", selection)
    with pytest.raises(InputError, match="split: expected a name of letters"):
        pool.to_beir(tmp_path / "mined", selection, split="../train")
    assert pool.folder is not None
    with pytest.raises(InputError, match="to_beir: this pool came without its texts"):
        CandidatePool.load(pool.folder).to_beir(tmp_path / "mined", selection)
    tabs = {f"{name}\t": text for name, text in QUERIES.items()}
    with pytest.raises(InputError, match="queries: 3 of 3 ids cannot be a field of a TSV file"):
        pool.to_beir(tmp_path / "mined", selection, queries=tabs)
    with pytest.raises(InputError, match="queries: the id 'same' belongs to several texts"):
        pool.to_beir(tmp_path / "mined", selection, queries=[{"id": "same", "text": text} for text in QUERIES.values()])
    with pytest.raises(InputError, match=r"selection: expected pool.select\(…\), got 'naive'"):
        pool.to_beir(tmp_path / "mined", "naive")  # type: ignore[arg-type]
    assert not (tmp_path / "mined").exists()
    pool.to_beir(tmp_path / "mined", selection)
    with pytest.raises(StorageError, match=r"holds corpus.jsonl already, so nothing was written"):
        pool.to_beir(tmp_path / "mined", selection, split="other")


def test_a_folder_that_was_mined_keeps_its_ids(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "nfcorpus"
    miner = NegativeMiner("random", method="naive", num_negatives=3, cache_dir=tmp_path / "cache", **OPTIONS)
    pool = miner.fit(folder, split="dev").pool
    assert isinstance(pool, CandidatePool)
    selection = pool.select("naive", n=3)
    pool.to_beir(tmp_path / "mined", selection, split="dev", queries=folder, documents=folder)
    names = {}
    for part in ("queries", "corpus"):  # the first id of each text, as several have two
        for name, text in reversed(list(zip(*(one.to_pylist() for one in read_beir_texts(folder, part)), strict=True))):
            names[part, text] = name
    expected: dict[str, set[str]] = defaultdict(set)
    for row in open_beir(folder, split="dev").rows:
        expected[names["queries", row["query"]]].add(names["corpus", row["positive"]])
    mined = read_qrels(tmp_path / "mined" / "qrels" / "dev.tsv")
    found = {query: {name for name, score in row.items() if score == "1"} for query, row in mined.items()}
    assert found == expected
    assert sum(score == "0" for row in mined.values() for score in row.values()) == len(selection.passages)


@pytest.mark.parametrize("titles", [None, ["", "  "], ["a title ", ""]])
def test_spaces_at_the_ends_of_texts_stay(titles: list[str] | None, tmp_path: Path) -> None:
    """Identity is by text, so a text must be the same through every door."""
    beir, documents = tmp_path / "beir", {"d0": "  of tea ", "d1": "\tof ice\n", "d2": "of oak", "d3": " \u00a0 of sun"}
    (beir / "qrels").mkdir(parents=True)
    of_title = {name: {} if titles is None else {"title": titles[int(name[1]) % 2]} for name in documents}
    corpus = [{"_id": name, **of_title[name], "text": text} for name, text in documents.items()]
    queries = [{"_id": f"q{name}", "text": f" what is {name} "} for name in documents]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (beir / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    judged = "".join(f"q{name}\t{name}\t1\n" for name in documents)
    (beir / "qrels" / "train.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", encoding="utf-8")

    options: dict[str, Any] = {"num_negatives": 1, "cache_dir": tmp_path / "cache", "progress": False}
    miner = NegativeMiner(RandomTeacher(1), **options).fit(beir)
    told = {
        name: f"{of.get('title', '').strip() and of['title'] + ' '}{documents[name]}" for name, of in of_title.items()
    }
    assert sorted(miner.fitted.texts.corpus.texts.to_pylist()) == sorted(told.values())
    miner.pool.to_beir(tmp_path / "again", miner.pool.select("naive", n=1), queries=beir, documents=beir)  # type: ignore[union-attr]
    plain = NegativeMiner(RandomTeacher(1), corpus=list(told.values()), **options).fit(
        Dataset.from_dict({"query": [row["text"] for row in queries], "positive": list(told.values())})
    )
    doors = [(beir, beir), (queries, corpus), (tmp_path / "again", tmp_path / "again")]
    for one in (miner, plain):
        for place, (of_queries, of_documents) in enumerate(doors):
            run = tmp_path / f"{place}.trec"
            one.pool.to_run(run, queries=of_queries, documents=of_documents)  # type: ignore[union-attr]
            assert {line.split()[2] for line in run.read_text().splitlines()} == set(documents)


def test_mined_judgements_are_audited_and_repaired(tmp_path: Path) -> None:
    write_world(tmp_path / "beir", {"q0": {"d1": 2, "d5": 0, "d7": -1}, "q1": {"d2": 1}, "q2": {"d3": 0}})
    corpus = [f"t{place} text {place}" for place in range(20)]
    queries = [f"what is q{place}" for place in range(3)]
    grid = np.random.default_rng(1).uniform(size=(3, 20)).astype(np.float32)
    grid[0, [1, 5, 7]] = 0.5, 0.2, 0.6
    scores = {(query, text): grid[at, place] for at, query in enumerate(queries) for place, text in enumerate(corpus)}
    teacher = ScoreFunction(
        lambda asked, passages: [scores[pair] for pair in zip(asked, passages, strict=True)],
        RandomTeacher(1), candidates=19, version="1", label="grid",
    )  # fmt: skip
    done = audit(
        tmp_path / "beir", NegativeMiner(teacher, method="perc_pos:1", cache_dir=tmp_path / "cache", **OPTIONS)
    )
    table = done.to_dataset()
    assert [(row["query"], row["negative"], bool(row["reasons"])) for row in table] == [
        (queries[0], corpus[5], False), (queries[0], corpus[7], True),
    ]  # fmt: skip
    assert "2 rows with 2 negatives" in str(done)
    first, second = done.repair().rows
    best = [text for text in corpus if scores[queries[0], text] < 0.5 and text not in (corpus[1], corpus[5])]
    assert first["negatives"] == [corpus[5], max(best, key=lambda text: scores[queries[0], text])]
    assert (first["query-id"], second["query-id"], second["negatives"]) == ("q0", "q1", [])
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\n")
    with pytest.raises(InputError, match="the rows have no negatives"):
        audit(str(tmp_path / "beir"), "random")


# ---- what is hard for several systems --------------------------------------------------------------------------------


@st.composite
def worlds(draw: Any) -> tuple[dict[str, dict[str, int]], list[dict[str, dict[str, float]]], int]:
    """Judgements, runs, and how deep they are read."""
    seed, queries, passages = draw(st.integers(0, 2**16)), draw(st.integers(1, 5)), draw(st.integers(2, 20))
    rng = np.random.default_rng(seed)
    names = [f"d{place}" for place in range(passages)]
    judged = {
        f"q{place}": {name: int(rng.integers(-1, 3)) for name in names if rng.random() < 0.3}
        for place in range(queries)
    }
    judged["q0"][names[0]] = 2
    runs = []
    for _ in range(draw(st.integers(1, 3))):
        scores = rng.permuted(np.arange(passages * queries)).reshape(queries, passages)
        runs.append(
            {
                f"q{place}": {name: float(scores[place, at]) for at, name in enumerate(names) if rng.random() < 0.8}
                for place in range(queries)
            }
        )
        runs[-1]["q0"].setdefault(names[-1], -1.0)
    return judged, runs, draw(st.integers(1, 6))


def write_world(folder: Path, judged: dict[str, dict[str, int]], passages: int = 20) -> None:
    (folder / "qrels").mkdir(parents=True)
    rows = [
        {"_id": f"d{place}", "title": f"t{place}", "text": f"text {place}", "url": "u"} for place in range(passages)
    ]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = [json.dumps({"_id": query, "text": f"what is {query}"}) for query in judged]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    pairs = [f"{query}\t{one}\t{score}\n" for query, row in judged.items() for one, score in row.items()]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(pairs))


@given(world=worlds())
def test_a_subset_holds_the_positives_and_the_best_of_every_run(
    world: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    judged, runs, top_k = world
    home = tmp_path_factory.mktemp("subset")
    write_world(home / "whole", judged)
    paths = []
    for place, run in enumerate(runs):
        lines = [f"{query} Q0 {one} 0 {score} x\n" for query, row in run.items() for one, score in row.items()]
        np.random.default_rng(place).shuffle(lines)  # lists may be in parts
        paths.append(home / f"{place}.trec")
        paths[-1].write_text("".join(lines))
    write_hard_subset(home / "whole", paths, home / "hard", top_k=top_k)
    queries = {query for query, row in judged.items() if max(row.values(), default=0) > 0}
    passages = {one for query in queries for one, score in judged[query].items() if score > 0}
    for run in runs:
        for query in queries:
            passages |= set(sorted(run[query], key=lambda one: -run[query][one])[:top_k])
    corpus = read_lines(home / "hard" / "corpus.jsonl")
    assert [row for row in read_lines(home / "whole" / "corpus.jsonl") if row["_id"] in passages] == corpus
    assert {row["_id"] for row in read_lines(home / "hard" / "queries.jsonl")} == queries
    left = {
        query: {one: str(score) for one, score in row.items() if one in passages}
        for query, row in judged.items()
        if query in queries
    }
    assert read_qrels(home / "hard" / "qrels" / "test.tsv") == left


def test_a_passage_that_a_run_names_twice_counts_once(tmp_path: Path) -> None:
    write_world(tmp_path / "whole", {"q0": {"d1": 1}}, 6)
    run = {"query_id": ["q0", "q0"], "document_ids": [["d2", "d3"], ["d2", "d4"]], "scores": [[0.9, 0.8], [0.9, 0.7]]}
    write_hard_subset(tmp_path / "whole", [run], tmp_path / "hard", top_k=2)
    assert [row["_id"] for row in read_lines(tmp_path / "hard" / "corpus.jsonl")] == ["d1", "d2", "d3"]


def test_a_subset_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    write_world(tmp_path / "whole", {"q0": {"d1": 1}})
    run = {"q0": {"d1": 1.0, "d2": 0.5}}
    (tmp_path / "empty.trec").touch()
    crossed = {"query_id": ["q0", "q9"], "document_ids": [["d1", "d2"], ["d3"]], "scores": [[1.0], [0.9, 0.8]]}
    refused: dict[str, tuple[Any, ...]] = {
        r"runs\[0\]: 1 of 1 ids in a batch are not among the 20 ids": ([{"q0": {"lost": 1.0}}], tmp_path / "hard"),
        r"runs\[1\]: it has none of the 1 queries that have a positive": (
            [run, {"q9": {"d1": 1.0}}],
            tmp_path / "hard",
        ),
        r"runs\[0\]: it has none of the 1 queries": ([tmp_path / "empty.trec"], tmp_path / "hard"),
        r"runs\[0\]: document_ids and scores: 2 row.* is that of query 'q0' with 2 ids and 1 scores": (
            [crossed],
            tmp_path / "hard",
        ),
        "runs: there is none": ([], tmp_path / "hard"),
        "is the source; give another one": ([run], tmp_path / "whole"),
        "there is no file": (["lost.trec"], tmp_path / "hard"),
    }
    for message, (runs, folder) in refused.items():
        with pytest.raises(InputError, match=message) as caught:
            write_hard_subset(tmp_path / "whole", runs, folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="top_k: a whole number, at least 1, got 0"):
        write_hard_subset(tmp_path / "whole", [run], tmp_path / "hard", top_k=0)
    with pytest.raises(InputError, match=r"split: 'dev' is not among \['test'\]"):
        write_hard_subset(tmp_path / "whole", [run], tmp_path / "hard", split="dev")
    assert not (tmp_path / "hard").exists()
