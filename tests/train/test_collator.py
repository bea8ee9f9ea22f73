"""The collator's negatives: fresh every epoch, the same in every process, made up where there are too few."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch.utils.data import DataLoader

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError, NegmineError
from hf_negmine.base.files import text_digests
from hf_negmine.select.filters import Veto, Where, same_value
from hf_negmine.select.judge import Judge
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.train import HardNegativeCollator
from hf_negmine.train.bank import BankVersion
from hf_negmine.train.random_negatives import random_negatives
from hf_negmine.train.rows import TrainingRow
from tests.train.helpers import CORPUS, POSITIVES, QUERIES, WordTeacher, columns_of, make_miner, rows, rows_of

# Some versions of torch say this of any fork under several threads; the workers here draw numbers only.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

Drawn = dict[str, tuple[str, ...]]


def draw(collator: HardNegativeCollator, features: Any, epoch: int, size: int = 16) -> Drawn:
    """Positive and negatives of each query, in batches of ``size``."""
    collator.set_epoch(epoch)
    features, found = list(features), {}
    for start in range(0, len(features), size):
        found |= rows_of(columns_of(collator(features[start : start + size]), collator.model))
    return found


def test_the_first_epoch_draws_what_the_miner_mines(tmp_path: Path, frozen: SentenceTransformer) -> None:
    miner = make_miner(tmp_path)
    mined = miner.mine(rows())
    assert len(mined) == 16
    drawn = draw(HardNegativeCollator(frozen, miner), rows(), 0)
    assert drawn == {row["query"]: (row["positive"], row["negative_1"], row["negative_2"]) for row in mined}


@pytest.mark.parametrize("teacher", [WordTeacher(), "random:0"])
def test_every_epoch_draws_anew_from_the_survivors(tmp_path: Path, frozen: SentenceTransformer, teacher: Any) -> None:
    miner = make_miner(tmp_path, teacher, method="naive").fit(rows())
    collator = HardNegativeCollator(frozen, miner)
    epochs = [draw(collator, rows(), epoch) for epoch in range(4)]
    survivors = miner.pool.select("naive", "top", 8)
    texts = miner.corpus["document"]
    for query, number in zip(miner.queries["query"], miner.queries["query_id"], strict=True):
        allowed = {
            texts[i] for i in survivors.passages[survivors.offsets[number] : survivors.offsets[number + 1]].tolist()
        }
        seen = [set(epoch[query][1:]) for epoch in epochs]
        assert all(len(some) == 2 and some <= allowed for some in seen)
    changed = [sum(first[query] != second[query] for query in QUERIES) for first, second in itertools.pairwise(epochs)]
    assert min(changed) > 8
    assert draw(collator, rows(), 0) == epochs[0]
    assert draw(HardNegativeCollator(frozen, miner, seed=1), rows(), 1) != epochs[1]


def test_a_row_has_the_same_negatives_in_any_batch(frozen: SentenceTransformer, miner: NegativeMiner) -> None:
    collator = HardNegativeCollator(frozen, miner.fit(rows()))
    together = draw(collator, rows(), 3)
    shuffled = list(rows().shuffle(seed=1))
    assert draw(collator, shuffled, 3, size=5) == together
    assert draw(collator, shuffled, 3, size=1) == together


def loader_of(collator: HardNegativeCollator, workers: int, *, persistent: bool) -> DataLoader[Any]:
    given: Any = rows()
    return DataLoader(given, 4, collate_fn=collator, num_workers=workers, persistent_workers=persistent)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_what_the_main_process_draws(
    frozen: SentenceTransformer, miner: NegativeMiner, persistent: bool
) -> None:
    collator = HardNegativeCollator(frozen, miner.fit(rows()))
    loader = loader_of(collator, 2, persistent=persistent)
    for epoch in (0, 1, 2):
        collator.set_epoch(epoch)
        seen: Drawn = {}
        for batch in loader:
            seen |= rows_of(columns_of(batch, frozen))
        assert seen == draw(collator, rows(), epoch)


def test_persistent_workers_see_every_new_version_of_the_bank(
    frozen: SentenceTransformer, miner: NegativeMiner
) -> None:
    collator = HardNegativeCollator(frozen, miner.fit(rows()))
    collator.set_epoch(0)
    loader = loader_of(collator, 1, persistent=True)
    seen = [[columns_of(batch, frozen) for batch in loader]]
    bank = collator.sources[""].bank
    assert bank is not None
    for number in (1, 2):
        _, old = bank.current()
        bank.publish(BankVersion(old.offsets, np.roll(old.passages, 8), old.scores), {"step": number})
        seen.append([columns_of(batch, frozen) for batch in loader])
        here = [columns_of(collator(list(rows(start, start + 4))), frozen) for start in range(0, 16, 4)]
        assert seen[-1] == here != seen[-2]


def test_not_being_told_the_epoch_is_an_error(frozen: SentenceTransformer, miner: NegativeMiner) -> None:
    collator = HardNegativeCollator(frozen, miner.fit(rows()))
    with pytest.raises(InputError, match=r"callbacks=\[collator\]"):
        collator(list(rows()))
    with pytest.raises(InputError, match=r"epoch"):
        collator.set_epoch(-1)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_negatives": 0},
        {"seed": 0.5},
        {"fill": "zero"},
        {"labels": "all"},
        {"layout": "triplet"},
        {"fill": "random"},
        {"sampler": "bottom"},
    ],
)
def test_a_wrong_argument_is_an_error(frozen: SentenceTransformer, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        HardNegativeCollator(frozen, **settings)


def test_sources_that_make_no_sense_are_errors(tmp_path: Path, frozen: SentenceTransformer) -> None:
    miner = make_miner(tmp_path).fit(rows())
    with pytest.raises(InputError, match="method: the miner has its own"):
        HardNegativeCollator(frozen, miner, method="naive")
    with pytest.raises(InputError, match="include_positives=True"):
        HardNegativeCollator(frozen, make_miner(tmp_path, include_positives=True))
    with pytest.raises(InputError, match="num_negatives: how many"):
        HardNegativeCollator(frozen, miner.pool.folder)
    with pytest.raises(InputError, match="expected a NegativeMiner, a pool or its folder, got int"):
        HardNegativeCollator(frozen, 3)  # type: ignore[arg-type]
    with pytest.raises(NegmineError):
        HardNegativeCollator(frozen, tmp_path / "nothing", num_negatives=2)
    with pytest.raises(InputError, match="rows hold negatives, and negatives= was given as well"):
        draw(HardNegativeCollator(frozen, miner), miner.mine(rows()), 0)
    with pytest.raises(InputError, match="no place to take them from"):
        draw(HardNegativeCollator(frozen), rows(), 0)


def test_a_stored_pool_gives_what_its_miner_gives(tmp_path: Path, frozen: SentenceTransformer) -> None:
    miner = make_miner(tmp_path).fit(rows(0, 12))
    folder = miner.pool.folder
    assert folder is not None
    expected = draw(HardNegativeCollator(frozen, miner), rows(0, 12), 2)
    for given in (folder, str(folder), miner.pool):
        collator = HardNegativeCollator(frozen, given, num_negatives=2, sampler="sampled:8@0.2", seed=miner.config.seed)
        assert draw(collator, rows(0, 12), 2) == expected
    with pytest.raises(InputError, match="not in the pool, the first has the query 'q w36 w37'"):
        draw(collator, rows(), 0)
    looser = HardNegativeCollator(frozen, folder, num_negatives=2, method="naive")
    assert draw(looser, rows(0, 12), 2) != draw(
        HardNegativeCollator(frozen, folder, num_negatives=2, method="perc_pos:0.5"), rows(0, 12), 2
    )


def test_a_miner_on_a_corpus_alone_mines_each_batch(tmp_path: Path, frozen: SentenceTransformer) -> None:
    fitted = make_miner(tmp_path / "fitted").fit(rows())
    collator = HardNegativeCollator(frozen, make_miner(tmp_path / "corpus"))
    for epoch in (0, 1):
        assert draw(collator, rows(), epoch, size=5) == draw(HardNegativeCollator(frozen, fitted), rows(), epoch)


def test_rows_that_come_later_are_mined_beside_those_of_the_fit(tmp_path: Path, frozen: SentenceTransformer) -> None:
    partly = make_miner(tmp_path / "partly").fit(rows(0, 8))
    fitted = make_miner(tmp_path / "fitted").fit(rows())
    shuffled = rows().shuffle(seed=2)
    expected = draw(HardNegativeCollator(frozen, fitted), shuffled, 1)
    assert draw(HardNegativeCollator(frozen, partly), shuffled, 1, size=6) == expected


def test_mining_on_the_fly_gives_no_positive_of_the_row_as_a_negative(
    tmp_path: Path, frozen: SentenceTransformer
) -> None:
    collator = HardNegativeCollator(
        frozen, make_miner(tmp_path, method="naive", num_negatives=8, sampler="top"), num_negatives=8
    )
    feature = {"query": QUERIES[0], "positive": [POSITIVES[0], CORPUS[16], CORPUS[1]]}
    for epoch in range(6):
        passages = draw(collator, [feature], epoch)[QUERIES[0]]
        assert passages[0] in feature["positive"]
        assert not set(passages[1:]) & set(feature["positive"])
        assert len(set(passages)) == 9


@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_several_positives_a_query_are_drawn_under_their_own_ceilings(
    tmp_path: Path, frozen: SentenceTransformer, positive_score: Any
) -> None:
    data = datasets.Dataset.from_dict(
        {"query": QUERIES[:6], "positive": [[CORPUS[i], CORPUS[16 + i]] for i in range(6)]}
    )
    miner = make_miner(tmp_path, positive_score=positive_score, sampler="top", on_exhausted="keep").fit(data)
    mined = {(row["query"], row["positive"]): row for row in miner.mine(data)}
    collator = HardNegativeCollator(frozen, miner)
    seen = set()
    for epoch in range(8):
        for query, (positive, *negatives) in draw(collator, data, epoch).items():
            row = mined[query, positive]
            own = [text for text in (row["negative_1"], row["negative_2"]) if text is not None]
            assert negatives == (own * 2)[:2]
            seen.add((query, positive))
    assert seen == set(mined)


# ---- too few ---------------------------------------------------------------------------------------------------


def cosine(query: str, passage: str) -> float:
    first, second = WordTeacher().encode([query], "query")[0], WordTeacher().encode([passage], "passage")[0]
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.fixture
def few(tmp_path: Path) -> NegativeMiner:
    """A miner with two survivors a query: ranks 3 and 4."""
    return make_miner(tmp_path / "few", method="perc_pos:0.95+band:3-5", sampler="top").fit(rows())


def test_too_few_are_repeated_from_the_best_down(frozen: SentenceTransformer, few: NegativeMiner) -> None:
    own = draw(HardNegativeCollator(frozen, few, num_negatives=2), rows(), 0)
    filled = draw(HardNegativeCollator(frozen, few, num_negatives=5), rows(), 0)
    for query, (positive, first, second) in own.items():
        assert filled[query] == (positive, first, second, first, second, first)


def test_too_few_are_made_up_by_random_passages_that_are_true_negatives(
    frozen: SentenceTransformer, tmp_path: Path
) -> None:
    # Query 0 has two positives and stands in the corpus itself.
    data = datasets.Dataset.from_dict({"query": [*QUERIES, QUERIES[0]], "positive": [*POSITIVES, CORPUS[16]]})
    corpus = [*CORPUS, QUERIES[0]]
    few = make_miner(tmp_path, corpus=corpus, method="perc_pos:0.95+band:16-18", sampler="top").fit(data)
    own = draw(HardNegativeCollator(frozen, few, num_negatives=2), data, 0)
    collator = HardNegativeCollator(frozen, few, num_negatives=6, fill="random")
    epochs = [draw(collator, data, epoch) for epoch in range(3)]
    for filled in epochs:
        for query in QUERIES:
            positives = [row["positive"] for row in data if row["query"] == query]
            negatives = filled[query][1:]
            assert list(negatives[:2]) == list(own[query][1:])
            assert len(set(negatives)) == 6
            assert not {query, *positives} & set(negatives)
            lowest = min(cosine(query, positive) for positive in positives)
            assert max(cosine(query, negative) for negative in negatives) < lowest - abs(lowest) * 0.05 + 1e-6
    assert all(epochs[0][query] != epochs[1][query] for query in QUERIES)
    assert draw(collator, data.shuffle(seed=0), 1, size=3)[QUERIES[5]] == epochs[1][QUERIES[5]]


def thirds(queries: Sequence[str], passages: Sequence[str]) -> list[bool]:
    """A judge: every third passage is relevant to everything."""
    return [CORPUS.index(passage) % 3 == 1 for passage in passages]


@pytest.mark.parametrize("positive_score", ["min", "each"])
def test_random_passages_keep_the_filters_and_the_judge_in_every_process(
    frozen: SentenceTransformer, tmp_path: Path, positive_score: str
) -> None:
    halves = {
        "queries": {"query": QUERIES, "half": [0] * len(QUERIES)},
        "passages": {"text": CORPUS, "half": [number % 2 for number in range(len(CORPUS))]},
    }
    filters = [Where(same_value("half"), **halves), Veto("bm25", "abs:5"), Judge(FunctionJudge(thirds, name="thirds"))]
    settings = {"sampler": "top", "positive_score": positive_score, "num_negatives": 6, "on_exhausted": "keep"}
    miner = make_miner(tmp_path, "random:1", method="naive", filters=filters, **settings).fit(rows())
    source = HardNegativeCollator(frozen, miner, num_negatives=1).sources[""]
    copy = pickle.loads(pickle.dumps(source))
    texts, said = miner.fitted.texts, miner.fitted.relevant
    assert said is not None
    relevant = set(zip(said[0].tolist(), said[1].tolist(), strict=True))
    assert len(relevant) > 16
    refused = {
        (query, passage)
        for query in range(16)
        for passage in range(40)
        if (query, passage) in relevant or CORPUS.index(texts.corpus.texts[passage].as_py()) % 2
    }
    for epoch in range(3):
        for number in range(16):
            row = TrainingRow(QUERIES[number], [POSITIVES[number]], [])
            filled = random_negatives(source, row, 3, epoch)[0]
            assert len(filled) == 3
            query = int(texts.queries.find(text_digests(pa.array([row.query])))[0])
            ids = texts.corpus.find(text_digests(pa.array(filled))).tolist()
            assert not {(query, passage) for passage in ids} & refused
            assert random_negatives(copy, row, 3, epoch)[0] == filled


def test_random_passages_run_out_before_rows_repeat(frozen: SentenceTransformer, tmp_path: Path) -> None:
    miner = make_miner(tmp_path, "random:0", corpus=CORPUS[:3], method="band:0-1", num_negatives=1, sampler="top")
    data = rows(0, 3)
    collator = HardNegativeCollator(frozen, miner.fit(data), num_negatives=5, fill="random")
    for query, (positive, *negatives) in draw(collator, data, 0).items():
        assert set(negatives) <= set(CORPUS[:3]) - {positive, query}
        assert negatives[2:] == (negatives[:2] * 2)[:3] or len(set(negatives)) < 2


def test_a_row_without_any_negative_is_an_error(frozen: SentenceTransformer, tmp_path: Path) -> None:
    miner = make_miner(tmp_path, method="abs:-2", sampler="top", on_exhausted="keep").fit(rows())
    with pytest.raises(InputError, match="no negative to repeat, its query is 'q w0 w1'"):
        draw(HardNegativeCollator(frozen, miner), rows(), 0)
    collator = HardNegativeCollator(frozen, num_negatives=2)
    with pytest.raises(InputError, match="no negative to repeat, its query is 'q w0 w1'"):
        draw(collator, [{"query": QUERIES[0], "positive": POSITIVES[0], "negatives": None}], 0)


def test_the_ceiling_yields_before_a_row_without_any_negative_stops_a_run(
    frozen: SentenceTransformer, tmp_path: Path
) -> None:
    miner = make_miner(tmp_path, method="abs:-2", sampler="top", on_exhausted="keep").fit(rows())
    for query, (positive, *negatives) in draw(HardNegativeCollator(frozen, miner, fill="random"), rows(), 0).items():
        assert len(set(negatives)) == len(negatives) == 2
        assert not {query, positive} & set(negatives)


# ---- labels and layouts ----------------------------------------------------------------------------------------


def test_scores_as_labels_are_the_teachers(frozen: SentenceTransformer, miner: NegativeMiner) -> None:
    collator = HardNegativeCollator(frozen, miner.fit(rows()), labels="scores")
    collator.set_epoch(0)
    batch = collator(list(rows()))
    texts = columns_of(batch, frozen)
    expected = [
        [cosine(query, passage) for passage in passages] for query, *passages in zip(*texts.values(), strict=True)
    ]
    assert batch["label"].tolist() == [pytest.approx(row, abs=1e-5) for row in expected]


@pytest.mark.parametrize("format", ["n-tuple", "labeled-list"])
def test_scores_as_labels_come_from_mined_rows(tmp_path: Path, frozen: SentenceTransformer, format: Any) -> None:
    mined = make_miner(tmp_path, format=format, include_scores=True).mine(rows())
    collator = HardNegativeCollator(frozen, labels="scores", num_negatives=2)
    collator.set_epoch(0)
    assert collator(list(mined))["label"].tolist() == [pytest.approx(row) for row in mined["scores"]]
    without = make_miner(tmp_path / "without").mine(rows())
    with pytest.raises(InputError, match=r"labels='scores' needs a finite score of the teacher.*q w0 w1"):
        collator(list(without))


@pytest.fixture
def reranker(models: Path) -> CrossEncoder:
    return CrossEncoder(str(models / "bert"), num_labels=1, device="cpu")


def test_a_labelled_list_is_laid_out_for_rerankers(reranker: CrossEncoder, miner: NegativeMiner) -> None:
    collator = HardNegativeCollator(reranker, miner.fit(rows()), layout="labeled-list")
    collator.set_epoch(0)
    batch = collator(list(rows(0, 3)))
    assert set(batch) == {"query", "documents", "label"}
    assert batch["query"] == QUERIES[:3]
    assert [documents[0] for documents in batch["documents"]] == POSITIVES[:3]
    assert [len(set(documents)) for documents in batch["documents"]] == [3, 3, 3]
    assert torch.stack(batch["label"]).tolist() == [[1.0, 0.0, 0.0]] * 3


def test_prompts_reach_columns_of_any_name(tmp_path: Path, frozen: SentenceTransformer) -> None:
    data = rows().rename_columns({"query": "question", "positive": "answer"})
    miner = make_miner(tmp_path).fit(data)
    prompts = {"question": "ask ", "answer": "tell "}
    collator = HardNegativeCollator(frozen, miner, prompts=prompts)
    collator.set_epoch(0)
    texts = columns_of(collator(list(data)), frozen)
    assert all(text.startswith("ask q ") for text in texts["query"])
    for column in ("positive", "negative_1", "negative_2"):
        assert all(text.startswith("tell d ") for text in texts[column])
    named = HardNegativeCollator(frozen, miner, prompts={**prompts, "negative_2": "seek "})
    named.set_epoch(0)
    texts = columns_of(named(list(data)), frozen)
    assert all(text.startswith("tell d ") for text in texts["negative_1"])
    assert all(text.startswith("seek d ") for text in texts["negative_2"])
    everywhere = HardNegativeCollator(frozen, miner, prompts="find ")
    everywhere.set_epoch(0)
    for column in columns_of(everywhere(list(data)), frozen).values():
        assert all(text.startswith("find ") for text in column)


def test_each_data_set_has_its_own_columns_miner_and_prompts(tmp_path: Path, frozen: SentenceTransformer) -> None:
    first = rows(0, 8)
    second = rows(8, 16).rename_columns({"query": "question", "positive": "answer"}).add_column("id", list(range(8)))
    third = datasets.Dataset.from_dict(
        {
            "query": QUERIES[:2],
            "positive": POSITIVES[:2],
            **{f"negative_{n}": CORPUS[18 + n : 20 + n] for n in (1, 2, 3)},
        }
    )
    sources = {
        "first": make_miner(tmp_path / "first").fit(first),
        "second": make_miner(tmp_path / "second", query_column="question", positive_column="answer").fit(second),
        "third": None,
    }
    prompts = {
        "first": {"query": "ask ", "positive": "tell "},
        "second": {"question": "find ", "answer": "seek "},
        "third": {"query": "seek ", "positive": "ask "},
    }
    collator = HardNegativeCollator(frozen, sources, prompts=prompts)
    collator.set_epoch(0)
    for name, data, (ask, tell), n in (
        ("first", first, ("ask", "tell"), 2),
        ("second", second, ("find", "seek"), 2),
        ("third", third, ("seek", "ask"), 3),
        ("first", first, ("ask", "tell"), 2),
    ):
        batch = collator([{**row, "dataset_name": name} for row in data])
        assert batch["dataset_name"] == name
        texts = columns_of(batch, frozen)
        assert list(texts) == ["query", "positive", *(f"negative_{place}" for place in range(1, n + 1))]
        assert all(text.startswith(f"{ask} q ") for text in texts.pop("query"))
        assert all(text.startswith(f"{tell} d ") for column in texts.values() for text in column)


def test_data_sets_of_a_mapping_need_no_names_where_rows_tell_them_apart(
    tmp_path: Path, frozen: SentenceTransformer
) -> None:
    """The trainer adds names only for a loss or prompts of each data set."""
    miners = {"first": make_miner(tmp_path / "first").fit(rows(0, 8)), "second": make_miner(tmp_path).fit(rows(8, 16))}
    together = HardNegativeCollator(frozen, {**miners, "third": None})
    for name, data in (("first", rows(0, 8)), ("second", rows(8, 16))):
        assert draw(together, data, 1) == draw(HardNegativeCollator(frozen, miners[name]), data, 1)
    own = make_miner(tmp_path / "third").mine(rows())
    assert draw(together, own, 1) == draw(HardNegativeCollator(frozen), own, 1)


def test_data_sets_without_names_keep_their_own_corpora_and_numbers(
    tmp_path: Path, frozen: SentenceTransformer
) -> None:
    narrow = {"method": "perc_pos:0.95+band:3-5", "sampler": "top"}  # two survivors a query
    own = {"first": POSITIVES[:8] + CORPUS[16:28], "second": POSITIVES[8:] + CORPUS[28:]}
    miners = {
        "first": make_miner(tmp_path / "first", corpus=own["first"], **narrow).fit(rows(0, 8)),
        "second": make_miner(tmp_path / "second", corpus=own["second"], num_negatives=3, **narrow).fit(rows(8, 16)),
    }
    together = HardNegativeCollator(frozen, miners, fill="random")
    for name, data, n in (("first", rows(0, 8), 2), ("second", rows(8, 16), 3)):
        drawn = draw(together, data, 1)
        assert drawn == draw(HardNegativeCollator(frozen, miners[name], fill="random"), data, 1)
        assert {len(texts) for texts in drawn.values()} == {1 + n}
        assert {text for texts in drawn.values() for text in texts} <= set(own[name])
    with pytest.raises(InputError, match=r"one batch come from data sets with \[2, 3\] negatives per row"):
        draw(together, rows(6, 10), 1)
    unknown = datasets.Dataset.from_dict({"query": ["q w1"], "positive": [CORPUS[3]]})
    with pytest.raises(InputError, match=r"not in the pool, .*'q w1'.* tell which data set each row belongs to"):
        draw(together, unknown, 1)


def test_a_collator_says_what_it_is(frozen: SentenceTransformer, miner: NegativeMiner) -> None:
    assert repr(HardNegativeCollator(frozen)).startswith(
        "HardNegativeCollator(rows that hold their negatives, n=as given"
    )
    assert "1 source(s), n=3" in repr(HardNegativeCollator(frozen, miner, num_negatives=3))


def test_one_miner_cannot_serve_two_data_sets(frozen: SentenceTransformer, miner: NegativeMiner) -> None:
    fitted = miner.fit(rows())
    with pytest.raises(InputError, match="two data sets have the same miner"):
        HardNegativeCollator(frozen, {"one": fitted, "two": fitted})


def test_a_miner_that_is_fitted_anew_is_noticed(frozen: SentenceTransformer, miner: NegativeMiner) -> None:
    collator = HardNegativeCollator(frozen, miner.fit(rows(0, 8)))
    miner.fit(rows(8, 16))
    collator.set_epoch(0)
    with pytest.raises(InputError, match="fitted again after the collator was made"):
        collator(list(rows(8, 12)))


def test_labelled_pairs_beside_a_mined_set_are_trained_on_as_they_are(
    frozen: SentenceTransformer, miner: NegativeMiner
) -> None:
    collator = HardNegativeCollator(frozen, {"mined": miner.fit(rows()), "pairs": None})
    collator.set_epoch(0)
    pairs = [{"dataset_name": "pairs", "one": "w1 w2", "two": "w3", "label": 0.5}] * 2
    batch = collator(pairs)
    assert batch["label"].tolist() == [0.5, 0.5]
    assert {name.split("_")[0] for name in batch} == {"dataset", "label", "query", "positive"}
