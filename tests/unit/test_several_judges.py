"""Each judge reads only what those before it call relevant, and what all call relevant is handed out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hf_negmine import (
    BM25Teacher,
    ChatJudge,
    CrossEncoderTeacher,
    InputError,
    Judge,
    Judgements,
    NegativeMiner,
    ScoreFunction,
    ScoreJudge,
    TeacherError,
    audit,
)
from hf_negmine.hub import push_dataset
from tests.hub import world
from tests.openai_server import OpenAIServer
from tests.unit import test_audit, test_cli_teachers
from tests.unit.test_cli_teachers import Run, hash_of
from tests.unit.test_filters import SCORES, digits
from tests.unit.test_miner import ROWS, listed, miner_in

files, mine, server, tiny = (getattr(test_cli_teachers, name) for name in ("files", "mine", "server", "tiny"))

Pair = tuple[str, str]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Every:
    """A judge that calls every so manyth passage relevant, and takes note of what it was asked."""

    def __init__(self, step: int, most: int = 10**9) -> None:
        self.name, self.step, self.most = f"every {step}", step, most
        self.heard: list[Pair] = []

    def fingerprint(self) -> str:
        return self.name

    def relevant(self, passage: str) -> bool:
        return int(passage.split()[1]) % self.step == 0

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Iterator[tuple[int, bool]]:
        for place, pair in enumerate(zip(queries, passages, strict=True)):
            if len(self.heard) >= self.most:
                raise KeyboardInterrupt
            self.heard.append(pair)
            yield place, self.relevant(pair[1])


def test_the_next_judge_reads_only_what_those_before_it_call_relevant(cache: Path) -> None:
    cheap, strong = Every(2), Every(3)
    miner = miner_in(cache, filters=[Judge([cheap, strong])], on_exhausted="keep").fit(ROWS)
    assert set(strong.heard) == {pair for pair in cheap.heard if cheap.relevant(pair[1])}
    assert miner.summary.judged == len(cheap.heard) == len(set(cheap.heard))
    assert len(strong.heard) == len(set(strong.heard))
    both = {pair for pair in strong.heard if strong.relevant(pair[1])}
    assert both
    assert {(row["query"], row["positive"]) for row in miner.mined_positives} == both
    one = miner_in(cache, filters=[Judge(Every(6))], on_exhausted="keep")
    assert listed(one.mine(ROWS)) == listed(miner.mine(ROWS)), "both together are a judge of their own"


def test_a_strong_judge_is_added_without_asking_the_cheap_one_again(cache: Path) -> None:
    cheap = Every(2)
    miner_in(cache, filters=[Judge(cheap)], on_exhausted="keep").fit(ROWS)
    again, strong = Every(2, most=0), Every(3)
    miner_in(cache, filters=[Judge([again, strong])], on_exhausted="keep").fit(ROWS)
    assert strong.heard
    assert again.heard == []


@pytest.mark.parametrize("verdicts", [0, 1, 5])
def test_a_strong_judge_that_is_struck_goes_on(tmp_path: Path, verdicts: int) -> None:
    def mined(folder: str, *judges: Every) -> list[dict[str, Any]]:
        return listed(miner_in(tmp_path / folder, filters=[Judge(judges)], on_exhausted="keep").mine(ROWS))

    cheap, strong = Every(2), Every(3)
    expected = mined("a", cheap, strong)
    first, struck, second, rested = Every(2), Every(3, most=verdicts), Every(2), Every(3)
    with pytest.raises(KeyboardInterrupt):
        mined("b", first, struck)
    assert mined("b", second, rested) == expected
    assert sorted([*first.heard, *second.heard]) == sorted(cheap.heard)
    assert sorted([*struck.heard, *rested.heard]) == sorted(strong.heard)


def test_numbers_of_numpy_are_numbers(cache: Path) -> None:
    def fit(judge: Judge, judgements: Judgements) -> NegativeMiner:
        return miner_in(cache, filters=[judgements, judge], on_exhausted="keep").fit(ROWS)

    said = {"query": ROWS[0]["query"], "document": ROWS[1]["positive"]}
    yes = np.bool_(True)
    miner = fit(Judge(Every(3), np.int64(9), relabel=yes), Judgements([said | {"relevant": yes}], relabel=yes))
    plain = fit(Judge(Every(3), 9, relabel=True), Judgements([said | {"relevant": True}], relabel=True))
    assert miner.fitted.folder == plain.fitted.folder
    table = miner.sweep(["naive"], ["top"], tolerance=np.float32(0.5))
    assert json.loads(json.dumps(table.as_dict()))["tolerance"] == 0.5
    chats = [ChatJudge("m", max_tokens=kind(9), max_characters=kind(9)) for kind in (int, np.int64)]
    assert chats[0].fingerprint() == chats[1].fingerprint()


def test_mined_positives_have_the_teachers_scores(cache: Path) -> None:
    miner = miner_in(cache, filters=[Judge(Every(3))], on_exhausted="keep").fit(ROWS)
    found = miner.mined_positives
    assert len(found) == len({(row["query"], row["positive"]) for row in found}) > 0
    for row in found:
        assert row["score"] == pytest.approx(SCORES[row["query"]][row["positive"]], abs=1e-6)
    opened = miner_in(cache, filters=[Judge(Every(3, most=0))], on_exhausted="keep").fit(ROWS)
    assert opened.mined_positives.to_list() == found.to_list()
    with pytest.raises(InputError, match="mined_positives: no judge has read the negatives; give one"):
        _ = miner_in(cache).fit(ROWS).mined_positives


def test_an_audit_hands_them_out_too(tmp_path: Path) -> None:
    rows, judge = test_audit.rows_of(3), Judge([Every(2), Every(3)])
    done = audit(rows, test_audit.miner(tmp_path, method="naive", filters=[judge]))
    expected = {
        (row["query"], text)
        for row in rows
        for place, text in enumerate(row["neg"])
        if Every(6).relevant(text) and text not in (*row["pos"], *row["neg"][:place])
    }
    found = done.mined_positives()
    assert sorted((row["query"], row["positive"]) for row in found) == sorted(expected)
    for row in found:
        assert row["score"] == pytest.approx(test_audit.score(row["query"], row["positive"]), abs=1e-6)
    assert "are relevant to judge every 2, then every 3" in str(done)
    with pytest.raises(InputError, match="no judge has read the negatives"):
        audit(rows, test_audit.miner(tmp_path)).mined_positives()


def test_a_second_teacher_judges_by_its_score(cache: Path) -> None:
    teacher = ScoreFunction(digits, version="1", label="digits")
    miner = miner_in(cache, method="naive", filters=[Judge(ScoreJudge(teacher, 0.6))], on_exhausted="keep").fit(ROWS)
    found = [(row["query"], row["positive"]) for row in miner.mined_positives]
    assert found
    assert min(digits(*map(list, zip(*found, strict=True)))) >= 0.6
    kept = [(row["query"], row[name]) for row in miner.mine(ROWS) for name in row if name.startswith("negative_")]
    kept = [(query, text) for query, text in kept if text]
    assert kept
    assert max(digits(*map(list, zip(*kept, strict=True)))) < 0.6
    assert str(miner.config.judge) == "judge digits@0.6"


def test_another_threshold_is_another_judge() -> None:
    teacher = ScoreFunction(digits, version="1")
    assert ScoreJudge(teacher, 0.5).fingerprint() != ScoreJudge(teacher, 0.6).fingerprint()
    assert ScoreJudge(teacher, 0.5).fingerprint() == ScoreJudge(teacher, np.float64(0.5)).fingerprint()


def test_what_cannot_judge_is_refused(cache: Path) -> None:
    with pytest.raises(InputError, match=r"does not read a query and a passage together.*use it as a Veto"):
        ScoreJudge(BM25Teacher(), 1.0)
    with pytest.raises(InputError, match="at_least: a finite number, got nan"):
        ScoreJudge(ScoreFunction(digits, version="1"), float("nan"))
    with pytest.raises(InputError, match="expected the lowest score of a relevant passage at the end"):
        Judge("cross-encoder:BAAI/bge-reranker-base")
    with pytest.raises(InputError, match="the list is empty, expected at least one judge"):
        Judge([])
    wrong = ScoreFunction(lambda queries, passages: [float("nan")] * len(queries), version="1", label="nothing")
    with pytest.raises(TeacherError, match="'nothing' gave the score nan"):
        miner_in(cache, filters=[Judge(ScoreJudge(wrong, 0.5))]).fit(ROWS)


# ---- the commands, and the Hub --------------------------------------------------------------------------------


def test_the_command_mines_with_a_cheap_and_a_strong_judge(
    mine: Run, server: OpenAIServer, tiny: Path, tmp_path: Path
) -> None:
    server.reply = lambda question: "Yes" if hash_of(question) % 2 == 0 else "No"
    cheap = f"cross-encoder:{tiny / 'cross'}@0.5"
    result = mine("-t", "bm25", "--judge", cheap, "--judge", "tiny", "--judge-url", server.url)
    assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "mined" / "positives.parquet").to_pylist()
    assert f"positives.parquet ({len(table)} pairs that the judge calls relevant)" in result.output.replace("\n", "")
    assert 0 < len(table) < len(server.requests)
    teacher = CrossEncoderTeacher(tiny / "cross")
    assert min(teacher.score([row["query"] for row in table], [row["positive"] for row in table])) >= 0.5
    (kept,) = test_cli_teachers.settings(tmp_path)["filters"]
    assert kept["judge"] == "cross@0.5, then tiny"
    again = mine("-t", "bm25")
    assert again.exit_code == 0, again.output
    assert not (tmp_path / "mined" / "positives.parquet").exists(), "they are not those of this run"


def test_the_command_audits_and_writes_them(tiny: Path, tmp_path: Path) -> None:
    rows = test_audit.rows_of(5)
    path, found = tmp_path / "rows.jsonl", tmp_path / "found.jsonl"
    rows.to_json(path)
    options = ("-t", "random", "-m", "naive", "--cache-dir", tmp_path / "cache", "--device", "cpu")
    judge = ("--judge", f"cross-encoder:{tiny / 'cross'}@-100")
    result = test_audit.run(path, *options, *judge, "--positives", found)
    assert result.exit_code == 0, result.output
    assert len(found.read_text().splitlines()) > 0
    for more, words in {
        ("--positives", found): "--positives: for --judge, which is not given",
        (*judge, "--positives", "found.csv"): "--positives found.csv: rows are written as .parquet or .jsonl",
        (*judge, "--judge-url", "http://localhost:1"): "--judge-url: for a chat model, but no --judge is one",
        (*judge, "--positives", path): "--positives and ROWS are the same file",
    }.items():
        refused = test_audit.run(path, *options, *more)
        assert refused.exit_code != 0
        assert words in " ".join(refused.stderr.split())


def test_they_are_pushed_beside_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_NEGMINE_CACHE", str(tmp_path))
    miner: NegativeMiner = world.make_miner(tmp_path, filters=[Judge(Every(3))])
    mined = miner.mine(world.rows())
    pushed = push_dataset(mined, world.NAME, license="mit", dry_run=True)
    assert pushed.folder is not None
    (path,) = [file for file in pushed.files if "positives" in file]
    assert pq.read_table(pushed.folder / path).to_pylist() == miner.mined_positives.to_list()
    yaml, text = world.read_card((pushed.folder / "README.md").read_bytes())
    assert "default-positives" in [config["config_name"] for config in yaml["configs"]]
    assert "negatives that a judge calls relevant" in text
    with pytest.raises(InputError, match="cannot name a part of a data set"):
        push_dataset(mined, world.NAME, config_name="my-positives", license="mit", dry_run=True)
