"""Negatives that keep up with the model that is trained."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import TrainerCallback

from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.search import pair_scores
from hf_negmine.select.filters import Listed, Veto, Where, keep_all
from hf_negmine.select.judge import Judge
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.teachers import DenseTeacher
from hf_negmine.train import HardNegativeCollator, NegativeBank, PositiveAwareMNRL, RemineCallback
from hf_negmine.train.bank import BankVersion
from hf_negmine.train.refresh import Reserve, changed_entries, mine_with_student, with_fallback
from tests.thorough import examples, sample
from tests.train.helpers import (
    CORPUS,
    QUERIES,
    Remembering,
    WordTeacher,
    arguments,
    load_model,
    logged_losses,
    make_miner,
    rows,
)
from tests.train.test_trainer import KillAfter, KilledError, make_trainer, two_data_sets, two_miners


def several_positives() -> datasets.Dataset:
    """Rows of which query 0 stands there twice."""
    data = rows()
    return datasets.concatenate_datasets(
        [data, datasets.Dataset.from_dict({"query": data["query"][:1], "positive": data["positive"][3:4]})]
    )


class Photograph(TrainerCallback):
    """The student's score of every query with every passage, at the begin of every epoch.

    Comes before the callback that refreshes.
    """

    def __init__(self, miner: Any, **prompts: str) -> None:
        self.miner, self.prompts = miner, prompts
        self.scores: dict[int, Any] = {}

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.scores[state.global_step] = all_scores(DenseTeacher(kwargs["model"], **self.prompts), self.miner)


def all_scores(teacher: Any, miner: Any) -> Any:
    """Cosine of every query with every passage, by id."""
    queries = np.asarray(teacher.encode(miner.queries["query"], "query"), dtype=np.float64)
    passages = np.asarray(teacher.encode(miner.corpus["document"], "passage"), dtype=np.float64)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries @ (passages / np.linalg.norm(passages, axis=1, keepdims=True)).T


def positives_of(miner: Any) -> list[list[int]]:
    texts = miner.fitted.texts
    return [list(texts.positive_ids[a:b]) for a, b in itertools.pairwise(texts.positive_offsets)]


def expected_bank(miner: Any, student: Any, teacher: Any, k: int) -> list[list[int]]:
    """The k passages of each query that the student ranks first, under the ceilings of student and teacher."""
    found = []
    for query, positives in enumerate(positives_of(miner)):
        limits = [min(scores[query][positives]) for scores in (student, teacher)]
        limits = [limit - abs(limit) * 0.05 for limit in limits]
        allowed = [
            passage
            for passage in range(student.shape[1])
            if passage not in positives and student[query][passage] < limits[0] and teacher[query][passage] < limits[1]
        ]
        found.append(sorted(allowed, key=lambda passage: -student[query][passage])[:k])
    return found


def lists_of(version: BankVersion) -> list[list[int]]:
    return [version.passages[a:b].tolist() for a, b in itertools.pairwise(version.offsets)]


def bank_of(folder: Path) -> dict[str, bytes]:
    """Every file of a bank but the times in its list of versions."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_student_finds_its_own_hardest_under_both_ceilings(
    model: SentenceTransformer, tmp_path: Path, accumulation: int
) -> None:
    miner = make_miner(tmp_path / "cache").fit(several_positives())
    collator = HardNegativeCollator(model, miner)
    photograph = Photograph(miner)
    remine = RemineCallback(collator, progress=False)
    loss = Remembering(model)
    args = arguments(tmp_path, num_train_epochs=3, gradient_accumulation_steps=accumulation)
    trainer = make_trainer(model, collator, several_positives(), loss, args, [photograph, remine])
    trainer.train()
    bank = NegativeBank(tmp_path / "negatives" / "rows")
    steps_an_epoch = 5 if accumulation == 1 else 3
    assert [version["step"] for version in bank.versions()] == [steps_an_epoch, 2 * steps_an_epoch]
    teacher = all_scores(WordTeacher(), miner)
    for number, step in ((1, steps_an_epoch), (2, 2 * steps_an_epoch)):
        version = bank._read(number)
        assert lists_of(version) == expected_bank(miner, photograph.scores[step], teacher, 8)
        assert np.all(np.diff(version.offsets) > 0)
    assert lists_of(bank._read(0)) != lists_of(bank._read(1)) != lists_of(bank._read(2))
    # What the loss saw in each epoch was drawn from the version of that epoch.
    for epoch in range(3):
        texts = miner.corpus["document"]
        allowed = dict(zip(miner.queries["query"], lists_of(bank._read(epoch)), strict=True))
        for query, (_, *negatives) in loss.drawn(5 * epoch, 5 * epoch + 5).items():
            assert set(negatives) <= {texts[passage] for passage in allowed[query]}
    assert not list(tmp_path.glob("negatives/**/student"))
    assert not list(tmp_path.glob("negatives/**/vectors"))


@pytest.mark.parametrize("teacher", ["bm25", "random:3", "words"])
def test_any_teacher_has_its_veto(model: SentenceTransformer, tmp_path: Path, teacher: str) -> None:
    given = WordTeacher() if teacher == "words" else teacher
    miner = make_miner(tmp_path / "cache", given, on_exhausted="keep").fit(rows())
    source = HardNegativeCollator(model, miner, fill="random").sources[""]
    bank = mine_with_student(source, DenseTeacher(model), tmp_path / "student", device="cpu", progress=False)
    queries = np.repeat(np.arange(16), np.diff(bank.offsets))
    assert len(queries) > 16
    assert source.open_searcher is not None
    scores = pair_scores(source.open_searcher(), queries, bank.passages)
    lowest = source.positives.targets("min")[1]
    assert (scores < (lowest - 0.05 * abs(lowest))[queries]).all()
    free = make_miner(tmp_path / "free", given, method="naive").fit(rows())  # no ceiling, so nothing to be asked
    source = HardNegativeCollator(model, free).sources[""]
    more = mine_with_student(source, DenseTeacher(model), tmp_path / "student 2", device="cpu", progress=False)
    assert (np.diff(more.offsets) == 8).all()


@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_the_student_finds_nothing_that_a_filter_or_the_judge_refuses(
    model: SentenceTransformer, tmp_path: Path, positive_score: str
) -> None:
    plain = make_miner(tmp_path / "plain", method="naive", positive_score=positive_score).fit(several_positives())
    plain_bank = mine_with_student(
        HardNegativeCollator(model, plain).sources[""],
        DenseTeacher(model),
        tmp_path / "student 1",
        device="cpu",
        progress=False,
    )

    def judge(queries: Sequence[str], passages: Sequence[str]) -> list[bool]:
        return [CORPUS.index(passage) % 3 == 1 for passage in passages]

    even = Where(
        lambda queries, passages: pc.equal(passages["half"], 0),
        queries={"query": QUERIES},
        passages={"text": CORPUS, "half": [number % 2 for number in range(len(CORPUS))]},
        name="even",
    )
    filters = [even, Veto("random:3", "perc_pos:1.2"), Judge(FunctionJudge(judge, name="thirds"))]
    miner = make_miner(tmp_path / "cache", method="naive", positive_score=positive_score, filters=filters)
    source = HardNegativeCollator(model, miner.fit(several_positives())).sources[""]
    bank = mine_with_student(source, DenseTeacher(model), tmp_path / "student 2", device="cpu", progress=False)
    assert source.pool is not None
    queries, _ = source.pool.positives.targets(source.positive_score)
    listed = Listed(np.arange(len(queries)), queries, bank.offsets, bank.passages, bank.scores)
    kept = keep_all(source.filters, listed)[0]
    assert len(kept.passages) == len(bank.passages) > 16
    everything = Listed(np.arange(len(queries)), queries, plain_bank.offsets, plain_bank.passages, plain_bank.scores)
    assert len(keep_all(source.filters[-1:], everything)[0].passages) < len(plain_bank.passages)


def test_the_student_reads_the_prompts_it_is_trained_with(model: SentenceTransformer, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows())
    collator = HardNegativeCollator(model, miner)
    photograph = Photograph(miner, query_prompt="ask ", passage_prompt="tell ")
    args = arguments(tmp_path, prompts={"query": "ask ", "positive": "tell "})
    trainer = make_trainer(
        model, collator, rows(), Remembering(model), args, [photograph, RemineCallback(collator, progress=False)]
    )
    trainer.train()
    expected = expected_bank(miner, photograph.scores[4], all_scores(WordTeacher(), miner), 8)
    assert lists_of(NegativeBank(tmp_path / "negatives" / "rows").current()[1]) == expected


@pytest.fixture(scope="module")
def miners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return two_miners(tmp_path_factory.mktemp("miners"))


@pytest.mark.parametrize(
    ("given", "nested", "expected"),
    [
        (None, False, (None, None)),
        ("find ", False, ("find ", "find ")),
        ({"question": "ask "}, False, ("ask ", None)),
        ({"query": "ask ", "positive": "tell "}, False, ("ask ", "tell ")),
        ({"second": {"question": "ask ", "answer": "tell "}, "first": {"query": "seek "}}, True, ("ask ", "tell ")),
        ({"second": "ask ", "first": "tell "}, True, ("ask ", "ask ")),
        ({"first": {"query": "seek "}}, True, (None, None)),
    ],
)
def test_the_prompt_of_a_column(
    frozen: SentenceTransformer,
    miners: dict[str, Any],
    given: Any,
    nested: bool,
    expected: tuple[str | None, str | None],
) -> None:
    miner = miners["second"]
    collator = HardNegativeCollator(frozen, {"second": miner} if nested else miner, prompts=given)
    name = "second" if nested else ""
    assert (collator.prompt_of("query", name), collator.prompt_of("positive", name)) == expected


@pytest.mark.parametrize("settings", [{"every_steps": 3}, {"every_steps": 3, "at_start": True}, {"every_epochs": 2}])
def test_when_and_what_is_told_of_it(model: SentenceTransformer, tmp_path: Path, settings: dict[str, Any]) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    remine = RemineCallback(collator, progress=False, folder=tmp_path / "elsewhere", **settings)
    args = arguments(tmp_path, num_train_epochs=3, learning_rate=1e-2)
    trainer = make_trainer(model, collator, rows(), Remembering(model), args, [remine])
    trainer.train()
    steps = [8] if "every_epochs" in settings else [3, 6, 9]
    steps = [0, *steps] if settings.get("at_start") else steps
    assert [refresh.step for refresh in remine.history] == steps
    assert [refresh.staleness for refresh in remine.history] == list(np.diff([0, *steps]))
    assert [refresh.epoch for refresh in remine.history] == [step / 4 for step in steps]
    assert all(refresh.changed > 0 and 0 < refresh.share_of_training < 1 for refresh in remine.history)
    told = [entry for entry in trainer.state.log_history if "negatives_changed" in entry]
    assert [entry["step"] for entry in told] == steps
    assert [entry["negatives_changed"] for entry in told] == [refresh.changed for refresh in remine.history]
    bank = NegativeBank(tmp_path / "elsewhere" / "rows")
    assert [version["step"] for version in bank.versions()] == steps
    assert collator.sources[""].bank is not None
    assert collator.sources[""].bank.current()[0] == len(steps)
    for number, refresh in enumerate(remine.history, start=1):
        old, new = lists_of(bank._read(number - 1)), lists_of(bank._read(number))
        assert refresh.negatives == sum(map(len, new))
        assert refresh.changed == sum(len(set(now) - set(before)) for before, now in zip(old, new, strict=True))


def test_a_stream_is_refreshed_with_every_pass(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    remine = RemineCallback(collator, progress=False)
    stream = rows().to_iterable_dataset()
    make_trainer(model, collator, stream, Remembering(model), arguments(tmp_path, max_steps=10), [remine]).train()
    assert [refresh.step for refresh in remine.history] == [4, 8]


def test_each_data_set_is_refreshed(model: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(model, two_miners(tmp_path / "cache"))
    remine = RemineCallback(collator, progress=False)
    make_trainer(model, collator, two_data_sets(), Remembering(model), arguments(tmp_path), [remine]).train()
    assert [(refresh.dataset, refresh.step) for refresh in remine.history] == [("first", 4), ("second", 4)]
    for name in ("first", "second"):
        assert NegativeBank(tmp_path / "negatives" / name).current()[0] == 1


def test_a_stored_pool_is_refreshed_without_its_teacher(model: SentenceTransformer, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows())
    collator = HardNegativeCollator(model, miner.pool.folder, num_negatives=2)
    photograph, remine = Photograph(miner), RemineCallback(collator, progress=False)
    make_trainer(model, collator, rows(), Remembering(model), arguments(tmp_path), [photograph, remine]).train()
    nothing = np.full_like(photograph.scores[4], -1.0)
    for query, positives in enumerate(positives_of(miner)):
        nothing[query][positives] = 1.0
    found = lists_of(NegativeBank(tmp_path / "negatives" / "rows").current()[1])
    assert found == expected_bank(miner, photograph.scores[4], nothing, 2)


@pytest.mark.parametrize("rule", ["student", "easy"])
def test_a_second_run_begins_where_the_first_one_did(models: Path, tmp_path: Path, rule: Any) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows())
    collator, losses = None, []
    for number in range(3):
        model = load_model(models)
        if collator is None or number == 2:  # the last run has a collator of its own
            collator = HardNegativeCollator(model, miner)
        loss = Remembering(model)
        remine = RemineCallback(collator, rule=rule, progress=False)
        make_trainer(model, collator, rows(), loss, arguments(tmp_path), [remine]).train()
        losses.append(loss.losses)
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize(
    ("rule", "every", "step"),
    sample([("student", {}, 4), ("easy", {}, 4), ("easy", {"every_steps": 3}, 5), ("student", {}, 6)], 2),
    ids=str,
)
def test_a_resumed_run_ends_with_the_same_bank(
    models: Path, tmp_path: Path, rule: Any, every: dict[str, Any], step: int
) -> None:
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": step, "learning_rate": 1e-2}

    def begin(folder: str, *callbacks: Any) -> tuple[Any, Remembering]:
        model = load_model(models)
        collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
        loss = Remembering(model)
        remine = RemineCallback(collator, rule=rule, progress=False, **every)
        args = arguments(tmp_path / folder, **settings)
        return make_trainer(model, collator, rows(), loss, args, [remine, *callbacks]), loss

    whole, expected = begin("whole")
    whole.train()
    killed, _ = begin("killed", KillAfter(step + 4))
    with pytest.raises(KilledError):
        killed.train()
    assert len(NegativeBank(tmp_path / "killed" / "negatives" / "rows").versions()) >= 1
    resumed, loss = begin("killed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{step}"))
    assert loss.batches == expected.batches[step:]
    assert logged_losses(resumed) == pytest.approx(logged_losses(whole), rel=1e-4)
    banks = [bank_of(tmp_path / folder / "negatives" / "rows") for folder in ("whole", "killed")]
    assert banks[0] == banks[1]
    assert len({name.split("/")[0] for name in banks[0]}) >= 3
    told = [
        [{key: entry[key] for key in ("step", "negatives_changed", "negatives_staleness")} for entry in entries]
        for entries in (
            [entry for entry in trainer.state.log_history if "negatives_changed" in entry]
            for trainer in (whole, resumed)
        )
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("moved", [True, False])
def test_a_resumed_run_says_that_its_refreshed_negatives_are_elsewhere(
    models: Path, tmp_path: Path, moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("hf_negmine.train.callback.logger.warning", said.append)
    for folder, resumed in (("first", None), ("second" if moved else "first", str(tmp_path / "first/checkpoint-6"))):
        model = load_model(models)
        collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
        args = arguments(tmp_path / folder, num_train_epochs=3, save_strategy="steps", save_steps=6)
        remine = RemineCallback(collator, progress=False)
        make_trainer(model, collator, rows(), Remembering(model), args, [remine]).train(resume_from_checkpoint=resumed)
    assert ["had refreshed its negatives at step 4, but" in one for one in said] == [True] * moved


# ---- Conan's rule ----------------------------------------------------------------------------------------------


def in_a_loop(ranked: list[list[int]], k: int, rounds: list[dict[tuple[int, int], float]]) -> list[list[list[int]]]:
    """The bank of each round: easy negatives leave, the next of the ranking come in."""
    banks = [row[:k] for row in ranked]
    came_with = {(target, passage): rounds[0][target, passage] for target, row in enumerate(banks) for passage in row}
    used = [len(row) for row in banks]
    found = [[list(row) for row in banks]]
    for scores in rounds[1:]:
        fresh = []
        for target, row in enumerate(banks):
            for place, passage in enumerate(row):
                now = scores[target, passage]
                is_easy = np.float32(1.15) * np.float32(now) < np.float32(came_with[target, passage]) and abs(now) < 0.8
                if is_easy and used[target] < len(ranked[target]):
                    row[place] = ranked[target][used[target]]
                    used[target] += 1
                    fresh.append((target, row[place]))
            row.sort(key=ranked[target].index)
        came_with |= {pair: scores[pair] for pair in fresh}
        found.append([list(row) for row in banks])
    return found


@examples(60)
@given(data=st.data())
def test_easy_negatives_are_replaced_as_in_a_loop(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    ranked = [list(range(10 * target, 10 * target + size)) for target, size in enumerate(sizes)]
    k = data.draw(st.integers(1, 4))
    score = st.sampled_from([-0.9, -0.5, 0.0, 0.3, 0.4, 0.5, 0.79, 0.81, 0.95])
    pairs = [(target, passage) for target, row in enumerate(ranked) for passage in row]
    rounds = [{pair: data.draw(score) for pair in pairs} for _ in range(data.draw(st.integers(1, 5)))]
    expected = in_a_loop(ranked, k, rounds)

    flat = [passage for row in ranked for passage in row]
    version = BankVersion(
        np.cumsum([0, *sizes]).astype(np.int64),
        np.array(flat, dtype=np.int32),
        np.linspace(1, 0, len(flat)).astype(np.float32),
    )

    def scores_of(reserve: Reserve, given: dict[tuple[int, int], float]) -> Any:
        pairs = zip(reserve.target.tolist(), reserve.bank.passages.tolist(), strict=True)
        return np.array([given[pair] for pair in pairs], dtype=np.float32)

    reserve = Reserve.begin(version, k)
    reserve = reserve.with_scores(scores_of(reserve, rounds[0]))
    assert lists_of(reserve.bank) == expected[0]
    for scores, wanted in zip(rounds[1:], expected[1:], strict=True):
        reserve = Reserve.of_notes(version, reserve.offsets, reserve.notes)
        before = reserve.bank
        reserve = reserve.without_easy(scores_of(reserve, scores))
        reserve = reserve.with_scores(scores_of(reserve, scores))
        assert lists_of(reserve.bank) == wanted
        changed = sum(len(set(b) - set(a)) for a, b in zip(lists_of(before), lists_of(reserve.bank), strict=True))
        assert changed_entries(before, reserve.bank, 100) == changed


def test_only_what_the_student_finds_easy_is_replaced(model: SentenceTransformer, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows())
    collator = HardNegativeCollator(model, miner)
    photograph = Photograph(miner)
    remine = RemineCallback(collator, rule="easy", progress=False)
    args = arguments(tmp_path, num_train_epochs=4, learning_rate=1e-2)
    make_trainer(model, collator, rows(), PositiveAwareMNRL(model, collator), args, [photograph, remine]).train()
    deep = miner.pool.select(miner.config.method, "top", 39)
    ranked = [deep.passages[a:b].tolist() for a, b in itertools.pairwise(deep.offsets)]
    rounds = [
        {(q, p): float(scores[q, p]) for q in range(16) for p in range(40)}
        for scores in (photograph.scores[step] for step in (0, 4, 8, 12))
    ]
    expected = in_a_loop(ranked, 8, rounds)
    bank = NegativeBank(tmp_path / "negatives" / "rows")
    assert [lists_of(bank._read(number)) for number in range(4)] == expected
    assert sum(refresh.changed for refresh in remine.history) > 0
    assert not list(tmp_path.glob("negatives/**/student"))


# ---- what is refused -------------------------------------------------------------------------------------------


def test_what_cannot_be_refreshed_is_an_error(frozen: SentenceTransformer, models: Path, tmp_path: Path) -> None:
    miner = make_miner(tmp_path / "cache").fit(rows())
    reranker = CrossEncoder(str(models / "bert"), num_labels=1, device="cpu")
    with pytest.raises(InputError, match="encodes with a SentenceTransformer, got CrossEncoder"):
        RemineCallback(HardNegativeCollator(reranker, miner))
    with pytest.raises(InputError, match="no pool whose negatives could be refreshed"):
        RemineCallback(HardNegativeCollator(frozen))
    with pytest.raises(InputError, match="no pool whose negatives could be refreshed"):
        RemineCallback(HardNegativeCollator(frozen, make_miner(tmp_path / "corpus")))
    with pytest.raises(InputError, match=r"labels='scores' promises the teacher's; take rule='easy'"):
        RemineCallback(HardNegativeCollator(frozen, miner, labels="scores"))
    assert RemineCallback(HardNegativeCollator(frozen, miner, labels="scores"), rule="easy").rule == "easy"
    collator = HardNegativeCollator(frozen, miner)
    for wrong in ({"rule": "hard"}, {"every_epochs": 0}, {"every_steps": 0}, {"every_epochs": 1, "every_steps": 1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            RemineCallback(collator, **wrong)


@pytest.mark.parametrize("distance", [True, False])
def test_a_model_that_cannot_search_is_an_error_before_the_first_step(
    model: SentenceTransformer, tmp_path: Path, distance: bool
) -> None:
    settings = {} if distance else {"prompts": {"query": "query"}}
    message = "compares vectors by 'euclidean'.*set model.similarity_fn_name" if distance else "name of the model's"
    model.similarity_fn_name = "euclidean" if distance else "cosine"
    model.prompts["query"] = "ask: "
    collator = HardNegativeCollator(model, make_miner(tmp_path / "cache").fit(rows()))
    args, callbacks = arguments(tmp_path / "run", **settings), [RemineCallback(collator)]
    trainer = make_trainer(model, collator, rows(), PositiveAwareMNRL(model, collator), args, callbacks)
    with pytest.raises(InputError, match=message):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_copy_of_a_bank_sees_what_the_other_one_publishes(frozen: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(frozen, make_miner(tmp_path / "cache").fit(rows()))
    bank = collator.sources[""].bank
    assert bank is not None
    again = pickle.loads(pickle.dumps(bank))
    again.publish(bank.current()[1], {"step": 5})
    assert [bank.current()[0], again.current()[0]] == [1, 1]
    bank.forget_after(4)
    assert [bank.current()[0], again.current()[0]] == [0, 0]
    assert not (bank.folder / "1").exists()


def test_a_target_with_nothing_new_keeps_what_it_had() -> None:
    def version(rows: list[list[int]]) -> BankVersion:
        passages = np.array([passage for row in rows for passage in row], dtype=np.int32)
        offsets = np.cumsum([0] + [len(row) for row in rows]).astype(np.int64)
        return BankVersion(offsets, passages, passages.astype(np.float32) / 10)

    both = with_fallback(version([[1, 2], [], [3], []]), version([[9], [7, 8], [5, 6], []]))
    rows = [both.passages[first:last].tolist() for first, last in itertools.pairwise(both.offsets)]
    assert rows == [[1, 2], [7, 8], [3], []]
    np.testing.assert_allclose(both.scores, both.passages / 10)


def test_a_ceiling_that_leaves_the_student_nothing_does_not_stop_training(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    miner = make_miner(tmp_path / "cache", method="perc_pos:0.3").fit(rows())
    collator = HardNegativeCollator(model, miner, fill="random")
    remine = RemineCallback(collator, progress=False)
    trainer = make_trainer(model, collator, rows(), Remembering(model), arguments(tmp_path), [remine])
    trainer.train()
    bank = NegativeBank(tmp_path / "negatives" / "rows")
    old, new = bank._read(0), bank._read(1)
    had, has = np.diff(old.offsets), np.diff(new.offsets)
    assert (has[had > 0] > 0).all()


def test_a_folder_of_the_users_is_left_alone(frozen: SentenceTransformer, tmp_path: Path) -> None:
    mine = tmp_path / "data" / "rows" / "mine.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"rows")
    collator = HardNegativeCollator(frozen, make_miner(tmp_path / "cache").fit(rows()))
    remine = RemineCallback(collator, folder=tmp_path / "data", progress=False)
    trainer = make_trainer(frozen, collator, rows(), Remembering(frozen), arguments(tmp_path), [remine])
    with pytest.raises(StorageError, match="holds something other than negatives"):
        trainer.train()
    assert mine.read_bytes() == b"rows"


def test_a_model_with_prompts_is_refreshed_as_it_is_trained(frozen: SentenceTransformer, tmp_path: Path) -> None:
    collator = HardNegativeCollator(frozen, make_miner(tmp_path / "cache").fit(rows()))
    student = RemineCallback(collator, progress=False)._teacher("", frozen)
    plain = student.encode(QUERIES[:3], "query")
    before = dict(frozen.prompts)
    try:
        frozen.prompts["query"] = "w7 w8 w9: "
        np.testing.assert_array_equal(student.encode(QUERIES[:3], "query"), plain)
    finally:
        frozen.prompts = before
