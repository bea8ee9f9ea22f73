"""Judgements come back in: what was judged relevant is no negative, through every door, and can become a positive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from hf_negmine import FunctionJudge, InputError, Judge, Judgements, MiningConfig, NegativeMiner, RandomTeacher, audit
from hf_negmine.commands.cli import app
from tests.unit.test_miner import ROWS, listed, mapped, miner_in

NAMES = ("negative_1", "negative_2")


def line(query: str, document: str, relevant: bool, **more: Any) -> dict[str, Any]:
    return {"query": query, "document": document, "relevant": relevant, **more}


def negatives(mined: Any) -> dict[tuple[str, str], list[str]]:
    return {
        (row["query"], row["positive"]): [row[name] for name in row if name.startswith("negative") and row[name]]
        for row in listed(mined)
    }


@pytest.fixture
def before(tmp_path: Path) -> dict[tuple[str, str], list[str]]:
    return negatives(miner_in(tmp_path / "cache", on_exhausted="keep").mine(ROWS))


@pytest.fixture
def verdicts(before: dict[tuple[str, str], list[str]]) -> list[dict[str, Any]]:
    """Every third query's first negative is relevant, its second is not."""
    some = list(before.items())[::3]
    return [line(query, texts[place], place == 0) for (query, _), texts in some for place in range(min(2, len(texts)))]


def test_what_is_relevant_is_no_negative_for_map_mine_and_the_pool(
    tmp_path: Path, before: dict[tuple[str, str], list[str]], verdicts: list[dict[str, Any]]
) -> None:
    file = tmp_path / "judged.jsonl"
    file.write_text("".join(json.dumps({**one, "by": "me"}) + "\n" for one in verdicts))
    miner = miner_in(tmp_path / "cache", on_exhausted="keep", filters=[Judgements(file)])
    after = negatives(miner.mine(ROWS))
    assert negatives(mapped(ROWS, miner, batch_size=3)) == after
    relevant = {(one["query"], one["document"]) for one in verdicts if one["relevant"]}
    assert relevant
    for (query, positive), texts in after.items():
        assert not any((query, text) in relevant for text in texts)
        kept = [text for text in before[query, positive] if (query, text) not in relevant]
        assert texts[: len(kept)] == kept
    again = miner_in(tmp_path / "cache", on_exhausted="keep").fit(ROWS).pool
    assert again.select("naive", n=2, filters=[Judgements(verdicts)]).texts() == miner.pool.select("naive", n=2).texts()
    assert miner.summary.removed[str(Judgements(file))] > 0


def test_rows_that_come_later_obey_judgements_without_a_word(tmp_path: Path, verdicts: list[dict[str, Any]]) -> None:
    miner = miner_in(tmp_path / "cache", on_exhausted="keep", filters=[Judgements(verdicts)]).fit(ROWS)
    query = next(one["query"] for one in verdicts if one["relevant"])
    relevant = {one["document"] for one in verdicts if one["query"] == query and one["relevant"]}
    (row,) = listed(Dataset.from_list([{"query": query, "positive": "a text that is new"}]).map(miner, batched=True))
    assert relevant.isdisjoint(value for name, value in row.items() if name.startswith("negative"))
    nobody = Dataset.from_list([{"query": "a question that is new", "positive": "another new text"}])
    assert len(nobody.map(miner, batched=True)) == 1


def test_the_order_does_not_matter_and_the_last_verdict_counts() -> None:
    one, two = (
        Judgements([line("a", "b", True), line("c", "d", False)]),
        Judgements([line("c", "d", True), line("c", "d", False), line("a", "b", True, note="sure")]),
    )
    assert one.settings == two.settings
    assert one.settings != Judgements([line("a", "b", False), line("c", "d", False)]).settings
    assert one.settings != Judgements([line("a", "c", True), line("c", "d", False)]).settings


def test_relabelled_ones_become_positives_with_negatives_under_their_own_ceiling(
    tmp_path: Path, before: dict[tuple[str, str], list[str]], verdicts: list[dict[str, Any]]
) -> None:
    labelled = next(iter(before))
    given = Judgements([*verdicts, line(*labelled, True)], relabel=True)
    miner = miner_in(tmp_path / "cache", on_exhausted="keep", filters=[given], include_scores=True)
    mined = listed(miner.mine(ROWS))
    assert listed(mapped(ROWS, miner, batch_size=3)) == mined
    pairs = [(row["query"], row["positive"]) for row in mined]
    assert len(pairs) == len(set(pairs)), "a labelled positive that was judged stays one row"
    new = {(row["query"], row["positive"]) for row in mined} - set(before)
    assert new == {(one["query"], one["document"]) for one in verdicts if one["relevant"]} - set(before)
    for row in mined:
        if (row["query"], row["positive"]) in new:
            own, *others = [score for score in row["scores"] if score is not None]
            assert all(score < own for score in others)
    assert miner.pool.n_queries == len({row["query"] for row in ROWS})


def test_a_judge_and_judgements_relabel_alike_or_not_at_all(tmp_path: Path, verdicts: list[dict[str, Any]]) -> None:
    never = FunctionJudge(lambda queries, passages: [False] * len(queries), name="never")
    with pytest.raises(InputError, match="give all the same relabel="):
        miner_in(tmp_path, filters=[Judge(never), Judgements(verdicts, relabel=True)])
    both = [Judge(never, relabel=True), Judgements(verdicts, relabel=True)]
    alone = miner_in(tmp_path / "cache", on_exhausted="keep", filters=both[1:])
    together = miner_in(tmp_path / "cache", on_exhausted="keep", filters=both)
    assert listed(together.mine(ROWS)) == listed(alone.mine(ROWS))


def test_other_texts_are_told_and_nothing_at_all_is_refused(tmp_path: Path, verdicts: list[dict[str, Any]]) -> None:
    strange = [line("who?", verdicts[0]["document"], True), line(verdicts[0]["query"], "where?", False)]
    miner = miner_in(tmp_path / "cache", on_exhausted="keep", filters=[Judgements([*verdicts, *strange])])
    with pytest.warns(UserWarning, match=r"2 of 18 are about texts that are neither in the rows"):
        miner.fit(ROWS)
    with pytest.raises(InputError, match="none is about a query and a passage of these rows"):
        miner_in(tmp_path / "cache", filters=[Judgements(strange)]).fit(ROWS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no judgement"),
        ("{", r"does not hold JSON lines \(line 1: Expecting property name"),
        (f"{json.dumps(line('a', 'b', True))}\r\n\n" + '{"query": "c', r"JSON lines \(line 3: Unterminated string"),
        ("[1]", r"judgement 1 is \[1\]; expected"),
        ('{"query": "a", "document": "b"}', "judgement 1 is"),
        ('{"query": "a", "document": "b", "relevant": 1}', "judgement 1 is"),
        ('{"query": "a", "document": null, "relevant": true}', "judgement 1 is"),
        ('{"query": "a", "document": "\\ud800", "relevant": true}', "not Unicode"),
    ],
)
def test_what_is_no_judgement_is_one_sentence(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "judged.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        Judgements(file)


def test_a_file_that_is_not_there_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Judgements(tmp_path / "nothing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"query": "\xe9"}')
    with pytest.raises(InputError, match="does not hold JSON lines"):
        Judgements(tmp_path / "latin.jsonl")
    for wrong in (3, None):
        with pytest.raises(InputError, match="expected a file of JSON lines or a list"):
            Judgements(wrong)


def test_settings_hold_a_digest_and_ask_for_the_file(tmp_path: Path, verdicts: list[dict[str, Any]]) -> None:
    config = miner_in(tmp_path, filters=[Judgements(verdicts)]).config
    (settings,) = config.to_dict()["filters"]
    assert settings["kind"] == "judgements"
    assert settings["judged"] == len({(one["query"], one["document"]) for one in verdicts})
    assert not any(one["document"] in json.dumps(settings) for one in verdicts)
    with pytest.raises(InputError, match=r"give Judgements\(FILE\) with the same"):
        MiningConfig.from_dict({**config.to_dict(), "teacher_settings": {"kind": "random", "seed": 1}})


def test_an_audit_finds_what_was_judged_relevant(tmp_path: Path) -> None:
    rows = Dataset.from_dict({"query": ["q"], "positive": ["p"], "negative_1": ["yes"], "negative_2": ["no"]})
    given = Judgements([line("q", "yes", True), line("q", "no", False)])
    miner = NegativeMiner(RandomTeacher(1), method="naive", filters=[given], cache_dir=tmp_path, progress=False)
    found = audit(rows, miner)
    assert found.reasons[str(given)].tolist() == [True, False]
    assert np.flatnonzero(found.doubtful).tolist() == [0]
    assert "are dropped by 2 judgements" in str(found)
    apart = [Judgements([line("q", text, True)]) for text in ("yes", "no")]
    both = audit(rows, NegativeMiner(RandomTeacher(1), filters=apart, method="naive", cache_dir=tmp_path))
    assert both.doubtful.all(), "two files of labels have the same name if they are as long"


def test_the_command_takes_a_file(tmp_path: Path) -> None:
    rows = [{"query": f"q {place}", "positive": f"p {place}"} for place in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*options: str) -> Any:
        given = [
            "mine",
            tmp_path / "rows.jsonl",
            "-t",
            "random:1",
            "-o",
            tmp_path / "out",
            "--cache-dir",
            tmp_path / "c",
        ]
        return CliRunner().invoke(
            app, [str(one) for one in (*given, "-m", "naive", "--on-exhausted", "keep", *options)]
        )

    def mined() -> list[dict[str, Any]]:
        return listed(Dataset.from_parquet(str(tmp_path / "out" / "data.parquet"), cache_dir=str(tmp_path / "hf")))

    assert run().exit_code == 0
    (tmp_path / "judged.jsonl").write_text(json.dumps(line("q 0", mined()[0]["negative_1"], True)))
    relevant = mined()[0]["negative_1"]
    result = run("--judgements", str(tmp_path / "judged.jsonl"), "--relabel")
    assert result.exit_code == 0, result.output
    positives = [row["positive"] for row in mined() if row["query"] == "q 0"]
    assert positives == ["p 0", relevant]
    alone = run("--relabel")
    assert alone.exit_code == 1
    assert "--relabel: for --judge" in alone.output
