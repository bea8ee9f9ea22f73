"""An audit finds exactly the negatives that the miner would not take, and a repair changes nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from hf_negmine import (
    CrossSample,
    FixedTeacher,
    FunctionJudge,
    InputError,
    Judge,
    NearDuplicates,
    NegativeMiner,
    Veto,
    audit,
)
from hf_negmine.commands.cli import app

QUERIES = [f"question {place}" for place in range(12)]
PASSAGES = [f"passage {place}" for place in range(40)]


def vectors(seed: int, count: int) -> np.ndarray[Any, Any]:
    made = np.random.default_rng(seed).standard_normal((count, 8))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def fixed(seed: int) -> FixedTeacher:
    """A teacher whose scores fall on both sides of 0."""
    return FixedTeacher(QUERIES, vectors(seed, 12), PASSAGES, vectors(seed + 100, 40), name=f"fixed {seed}")


def score(query: str, passage: str, seed: int = 1) -> np.float32:
    """The score of a teacher, computed another way."""
    left = vectors(seed, 12)[QUERIES.index(query)].astype(np.float32)
    right = vectors(seed + 100, 40)[PASSAGES.index(passage)].astype(np.float32)
    return np.float32(left.astype(np.float64) @ right.astype(np.float64))


def miner(folder: Path, **settings: Any) -> NegativeMiner:
    return NegativeMiner(fixed(1), cache_dir=folder, progress=False, **settings)


def rows_of(seed: int, n: int = 4) -> Dataset:
    """Rows with random negatives, in the format of FlagEmbedding."""
    rng = np.random.default_rng(seed)
    return Dataset.from_list(
        [
            {
                "query": query,
                "pos": [PASSAGES[at] for at in rng.choice(40, 1 + place % 2, replace=False)],
                "neg": [PASSAGES[at] for at in rng.choice(40, rng.integers(0, n + 1))],
                "type": f"kind {place}",
            }
            for place, query in enumerate(QUERIES)
        ]
    )


def by_hand(rows: Dataset, percentage: float) -> list[list[set[str]]]:
    """What speaks against each negative of each row, by the definitions."""
    found = []
    for row in rows:
        lowest = float(min(score(row["query"], text) for text in row["pos"]))
        ceiling = np.float32(lowest - abs(lowest) * (1 - percentage))
        reasons = []
        for place, text in enumerate(row["neg"]):
            against = set()
            if score(row["query"], text) >= ceiling:
                against.add(f"ceiling of perc_pos:{percentage:g}")
            if text in row["pos"]:
                against.add("text of a positive")
            if text in row["neg"][:place]:
                against.add("twice in its row")
            reasons.append(against)
        found.append(reasons)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_speaks_against_a_negative_is_what_the_definitions_say(seed: int, tmp_path: Path) -> None:
    rows = rows_of(seed)
    done = audit(rows, miner(tmp_path, method="perc_pos:0.5"))
    table = done.to_dataset()
    expected = by_hand(rows, 0.5)
    assert [(row["row"], row["place"]) for row in table] == [
        (at, place) for at, reasons in enumerate(expected) for place in range(len(reasons))
    ]
    assert [set(row["reasons"]) for row in table] == [each for reasons in expected for each in reasons]
    for row in table:
        assert row["negative"] == rows[row["row"]]["neg"][row["place"]]
        assert row["score"] == pytest.approx(score(row["query"], row["negative"]), abs=1e-6)
        shared = sum(row["negative"] in other["neg"] for other in rows)
        assert row["rows_sharing"] == shared
    assert done.share == pytest.approx(np.mean([bool(each) for reasons in expected for each in reasons]))


def test_each_positive_has_its_own_ceiling_if_that_is_asked_for(tmp_path: Path) -> None:
    rows = Dataset.from_list([{"query": QUERIES[0], "pos": [PASSAGES[at]], "neg": PASSAGES[10:20]} for at in range(6)])
    done = audit(rows, miner(tmp_path, method="perc_pos:0.5", positive_score="each"))
    for row in done.to_dataset():
        positive = float(score(QUERIES[0], PASSAGES[row["row"]]))
        assert row["positive_score"] == pytest.approx(positive)
        assert bool(row["reasons"]) == (row["score"] >= np.float32(positive - abs(positive) * 0.5))


def test_what_a_miner_has_taken_is_not_doubtful(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"query": QUERIES, "positive": PASSAGES[:12]})
    filters = [Veto(fixed(2), "perc_pos:0.9"), NearDuplicates(0.99)]
    own = miner(tmp_path, corpus=PASSAGES, method="perc_pos:0.9", filters=filters, on_exhausted="keep")
    done = audit(own.mine(rows), own)
    assert len(done.scores)
    assert not done.doubtful.any()


def test_a_filter_drops_what_it_would_have_dropped(tmp_path: Path) -> None:
    rows = rows_of(9)
    veto = Veto(fixed(2), "perc_pos:0.5")
    table = audit(rows, miner(tmp_path, method="naive", filters=[veto])).to_dataset()
    seen = set()
    for row in table:
        if {"text of a positive", "twice in its row"} & set(row["reasons"]):
            continue
        lowest = float(min(score(row["query"], text, 2) for text in rows[row["row"]]["pos"]))
        over = score(row["query"], row["negative"], 2) >= np.float32(lowest - abs(lowest) * 0.5)
        assert (str(veto) in row["reasons"]) == over
        seen.add(bool(over))
    assert seen == {True, False}


def test_a_judge_reads_the_highest_scores_within_its_budget(tmp_path: Path) -> None:
    asked = []

    def relevant(queries: Any, passages: Any) -> list[bool]:
        asked.extend(zip(queries, passages, strict=True))
        return [passage.endswith(("1", "3")) for passage in passages]

    rows = rows_of(3)
    judge = FunctionJudge(relevant, name="by its last digit")
    done = audit(rows, miner(tmp_path, method="naive", filters=[Judge(judge, budget=9)]))
    assert done.judged == len(asked) == len(set(asked)) == 9
    table = [row for row in done.to_dataset() if not {"text of a positive", "twice in its row"} & set(row["reasons"])]
    best = sorted({(-row["score"], row["query"], row["negative"]) for row in table})[:9]
    assert set(asked) == {pair[1:] for pair in best}
    assert all(
        (f"judge {judge.name}" in row["reasons"]) == (pair in asked and row["negative"].endswith(("1", "3")))
        for row in table
        for pair in [(row["query"], row["negative"])]
    )
    assert "are relevant to judge by its last digit (asked about 9 pairs)" in str(done)


# ---- repairs ---------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**16), percentage=st.sampled_from([0.2, 0.5, 0.9]), replace=st.booleans())
def test_a_repair_takes_only_doubtful_negatives_and_leaves_the_rest(
    seed: int, percentage: float, replace: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = rows_of(seed)
    if not any(rows["neg"]):
        return
    own = miner(tmp_path_factory.mktemp("cache"), method=f"perc_pos:{percentage:g}", corpus=PASSAGES)
    done = audit(rows, own)
    repaired = done.repair(replace=replace)
    changes = {row["row"]: row for row in repaired.changes}
    for at, (row, new, reasons) in enumerate(zip(rows, repaired.rows, by_hand(rows, percentage), strict=True)):
        assert {name: new[name] for name in ("query", "pos", "type")} == {
            name: row[name] for name in ("query", "pos", "type")
        }
        kept = [text for text, against in zip(row["neg"], reasons, strict=True) if not against]
        assert new["neg"][: len(kept)] == kept
        lost, gained = len(row["neg"]) - len(kept), new["neg"][len(kept) :]
        assert len(gained) <= (lost if replace else 0)
        assert len(set(new["neg"])) == len(new["neg"])
        change = changes.get(at, {"kept": len(row["neg"]), "replaced": 0, "dropped": 0})
        assert (change["kept"], change["replaced"], change["dropped"]) == (len(kept), len(gained), lost - len(gained))
        assert (at in changes) == bool(lost)
    if any(repaired.rows["neg"]):
        assert not audit(repaired.rows, own).doubtful.any()


def with_ids(texts: list[str]) -> list[dict[str, str]]:
    return [{"docid": f"id of {text}", "title": "", "text": text} for text in texts]


IN_FORMATS: dict[str, tuple[Any, Any]] = {
    "n-tuple": (
        lambda row: {
            "query": row["query"],
            "positive": row["pos"],
            **{f"negative_{place}": (row["neg"] + [None] * 4)[place] for place in range(4)},
        },
        lambda row: [row[name] for name in sorted(row) if name.startswith("negative_") and row[name]],
    ),
    "labeled-list": (
        lambda row: {
            "query": row["query"],
            "passages": row["pos"] + row["neg"],
            "labels": [1] * len(row["pos"]) + [0] * len(row["neg"]),
        },
        lambda row: [text for text, label in zip(row["passages"], row["labels"], strict=True) if not label],
    ),
    "tevatron": (
        lambda row: {
            "query_id": f"id of {row['query']}",
            "query": row["query"],
            "positive_passages": with_ids(row["pos"]),
            "negative_passages": with_ids(row["neg"]),
        },
        lambda row: [passage["text"] for passage in row["negative_passages"]],
    ),
}


@pytest.mark.parametrize("name", IN_FORMATS)
def test_the_same_rows_are_repaired_alike_in_every_format(name: str, tmp_path: Path) -> None:
    rows = rows_of(4)
    own = miner(tmp_path, method="perc_pos:0.5", corpus=PASSAGES)
    expected = audit(rows, own)
    written, negatives = IN_FORMATS[name]
    done = audit(Dataset.from_list([written(row) for row in rows]), own.with_(rows_format=name))
    np.testing.assert_array_equal(done.doubtful, expected.doubtful)
    again = [negatives(row) for row in done.repair().rows]
    assert again == [row["neg"] for row in expected.repair().rows]


def test_pairs_of_a_query_may_lie_anywhere(tmp_path: Path) -> None:
    rows = rows_of(4)
    own = miner(tmp_path, method="perc_pos:0.5", corpus=PASSAGES)
    pairs = [
        {"query": row["query"], "passage": text, "label": int(name == "pos")}
        for name in ("neg", "pos")
        for row in rows
        for text in row[name]
    ]
    repaired = audit(Dataset.from_list(pairs), own).repair().rows
    found = {row["query"]: [] for row in rows}
    for row in repaired:
        if not row["label"]:
            found[row["query"]].append(row["passage"])
    assert found == {row["query"]: row["neg"] for row in audit(rows, own).repair().rows}


def test_replacements_are_the_hardest_that_the_miner_allows(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"query": QUERIES, "positive": PASSAGES[:12]})
    best = miner(tmp_path, method="perc_pos:0.5", corpus=PASSAGES, num_negatives=3, on_exhausted="keep").mine(rows)
    wrong = rows.map(lambda row: {f"negative_{place}": row["positive"] for place in (1, 2, 3)})
    repaired = audit(wrong, miner(tmp_path, method="perc_pos:0.5", corpus=PASSAGES)).repair().rows
    names = [f"negative_{place}" for place in (1, 2, 3)]
    assert [[row[name] for name in names] for row in repaired] == [[row[name] for name in names] for row in best]


# ---- what is refused, and the command --------------------------------------------------------------------------------


def test_triplets_of_a_pair_get_different_replacements(tmp_path: Path) -> None:
    lists = Dataset.from_list([row for row in rows_of(4) if len(row["pos"]) == 1 and len(set(row["neg"])) > 1])
    lists = lists.map(lambda row: {"neg": list(dict.fromkeys(row["neg"]))})
    triplets = [
        {"query": row["query"], "positive": row["pos"][0], "negative": text} for row in lists for text in row["neg"]
    ]
    own = miner(tmp_path, method="perc_pos:0.5", corpus=PASSAGES)
    repaired = audit(Dataset.from_list(triplets), own).repair()
    found = {row["query"]: set[str]() for row in lists}
    for row in repaired.rows.filter(lambda row: row["negative"]):
        found[row["query"]].add(row["negative"])
    assert found == {row["query"]: set(row["neg"]) for row in audit(lists, own).repair().rows}
    assert len(repaired.changes) > len(lists)


def test_a_judge_reads_only_what_takes_a_place(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def relevant(queries: Any, passages: Any) -> list[bool]:
        asked.extend(zip(queries, passages, strict=True))
        return [passage.endswith(("1", "3")) for passage in passages]

    judge = Judge(FunctionJudge(relevant, name="by its last digit"))
    done = audit(rows_of(3), miner(tmp_path, method="naive", filters=[judge], corpus=PASSAGES))
    asked.clear()
    repaired = done.repair()
    given = [
        (new["query"], text)
        for old, new in zip(done.source.rows, repaired.rows, strict=True)
        for text in new["neg"]
        if text not in old["neg"]
    ]
    assert {pair for pair in asked if not pair[1].endswith(("1", "3"))} == set(given) != set()
    assert len(asked) == len(set(asked))


def test_what_cannot_be_audited_is_refused_in_a_sentence(tmp_path: Path) -> None:
    plain = Dataset.from_dict({"query": QUERIES, "positive": PASSAGES[:12]})
    refused: dict[str, tuple[Any, Any]] = {
        "which is none of the known formats": (plain, miner(tmp_path)),
        "have no negatives": (plain.add_column("negative", [None] * 12), miner(tmp_path)),
        "column 'quest' is not among": (rows_of(1), miner(tmp_path, query_column="quest")),
        "the rows are a stream": (rows_of(1).to_iterable_dataset(), miner(tmp_path)),
        "is an ensemble": (rows_of(1), NegativeMiner(CrossSample([fixed(1), fixed(2)]))),
    }
    for words, (rows, given_miner) in refused.items():
        with pytest.raises(InputError, match=words) as caught:
            audit(rows, given_miner)
        assert "\n" not in str(caught.value)
    done = audit(rows_of(1), miner(tmp_path))
    with pytest.raises(InputError, match=r"end the name of the file in \.parquet"):
        done.save(tmp_path / "audit.csv")


def test_a_teacher_alone_takes_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path))
    rows = rows_of(1)
    assert str(audit(rows, "random").config.method) == "perc_pos:0.95"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def test_the_command_writes_the_table_and_the_repaired_rows(tmp_path: Path) -> None:
    rows = rows_of(5)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, repaired = tmp_path / "audit.parquet", tmp_path / "repaired.jsonl"
    given_options = ("-t", "random", "-m", "perc_pos:0.5", "--cache-dir", tmp_path / "cache")
    result = run(path, *given_options, "-o", table, "--repair", repaired, "--fail-over", 0.01)
    assert result.exit_code == 1, result.output
    assert "of the negatives score 50 % of their positive or more" in result.output
    assert "over 1 %" in result.stderr
    assert pq.read_table(table).num_rows == sum(map(len, rows["neg"]))
    again = load_dataset("json", data_files=str(repaired), split="train", cache_dir=str(tmp_path / "datasets"))
    assert again["query"] == rows["query"]
    assert pq.read_table(tmp_path / "repaired.changes.parquet").column_names == ["row", "kept", "replaced", "dropped"]
    assert run(repaired, *given_options, "--fail-over", 0, "-q").exit_code == 0


def test_the_command_takes_what_mine_has_written(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [{"query": query, "positive": text} for query, text in zip(QUERIES, PASSAGES[:12], strict=True)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = ["-t", "random", "-m", "perc_pos:0.9", "--cache-dir", str(tmp_path / "cache"), "-q"]
    mined = CliRunner().invoke(app, ["mine", str(rows), *settings, "-n", "2", "-o", str(tmp_path / "mined")])
    assert mined.exit_code == 0, mined.output
    result = run(tmp_path / "mined", *settings, "--fail-over", 0)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--drop"], "--drop: for --repair"),
        (["--repair", "rows.csv"], "rows are written as .parquet or .jsonl"),
        (["-o", "audit.md"], "end the name of the file in .parquet"),
        (["--fail-over", "3"], "--fail-over"),
    ],
)
def test_options_that_do_not_fit_are_said(more: list[str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(5)))
    result = run(path, "-t", "random", "--cache-dir", tmp_path / "cache", *more)
    assert result.exit_code != 0
    assert words in result.stderr


def test_a_ceiling_that_depends_on_all_positives_is_that_of_mining(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"query": QUERIES, "positive": PASSAGES[:12]})
    own = miner(tmp_path, corpus=PASSAGES, method="percentile:50", num_negatives=2, on_exhausted="keep")
    mined = own.mine(rows)
    assert not audit(mined, own).doubtful.any()
    over = audit(mined, own.with_(method="percentile:10"))
    ceiling = np.quantile([score(query, passage) for query, passage in zip(QUERIES, PASSAGES, strict=False)], 0.1)
    table = over.to_dataset()
    assert table["ceiling"] == pytest.approx([ceiling] * len(table), abs=1e-6)
    assert over.doubtful.any()


@pytest.mark.parametrize("sampler", ["mixed:1+1@10", "sampled:3", "simans:3"])
def test_a_sampler_does_not_keep_rows_from_being_repaired(sampler: str, tmp_path: Path) -> None:
    done = audit(rows_of(2), miner(tmp_path, method="perc_pos:0.5", sampler=sampler, num_negatives=2, corpus=PASSAGES))
    assert sum(done.repair().changes["replaced"])


def test_a_teacher_that_knows_no_word_of_the_positives_is_warned_of(tmp_path: Path) -> None:
    rows = [{"query": f"ask{place}", "pos": [f"tell{place}"], "neg": [f"other{place}"]} for place in range(8)]
    with pytest.warns(UserWarning, match="scores 8 of 8 positives 0"):
        audit(rows, NegativeMiner("bm25", cache_dir=tmp_path, progress=False))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("-o", "same.parquet", "--repair", "same.parquet"), "--repair and --output are the same file"),
        (
            ("-o", "x.changes.parquet", "--repair", "x.parquet"),
            "what changed, beside --repair and --output are the same",
        ),
        (("--repair", "rows.jsonl"), "--repair and ROWS are the same file"),
        (("--corpus", "rows.parquet", "-o", "rows.parquet"), "--output and --corpus are the same file"),
    ],
)
def test_no_file_is_written_over_another(
    files: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = "".join(json.dumps(row) + "\n" for row in rows_of(5))
    Path("rows.jsonl").write_text(content)
    result = run("rows.jsonl", "-t", "random", "--cache-dir", "cache", *files)
    assert result.exit_code == 1
    assert words in result.stderr
    assert Path("rows.jsonl").read_text() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_scores_of_given_vectors_are_read_as_they_are(tmp_path: Path) -> None:
    teacher = FixedTeacher(
        ["q"], np.array([[1.0, 0.0]]), ["p", "near", "far"], np.array([[1.0, 0.0], [0.96, 0.28], [0.6, 0.8]])
    )
    rows = [{"query": "q", "positive": "p", "negative_1": "near", "negative_2": "far"}]
    done = audit(rows, NegativeMiner(teacher, cache_dir=tmp_path, progress=False))
    assert done.doubtful.tolist() == [True, False]
    at_the_ceiling = NegativeMiner(teacher, cache_dir=tmp_path, progress=False, method="abs:0.6")
    assert audit(rows, at_the_ceiling).doubtful.tolist() == [True, True]  # a ceiling is exclusive
    assert str(done) == (
        "1 row with 2 negatives, held against perc_pos:0.95 by fixed\n\n"
        " 50.0 % of the negatives score 95 % of their positive or more\n"
        "  0.0 % score over their positive\n\n"
        " 50.0 % of the negatives are doubtful: 1 of 2, in 1 of 1 row."
    )
