"""The candidate pool: what it stores, when it looks deeper, and what it refuses."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_negmine.base import files as files_module
from hf_negmine.base.errors import InputError, NegmineError, ShallowPoolError, StorageError
from hf_negmine.base.protocols import QueryBlock, Searcher
from hf_negmine.base.schema import IdArray
from hf_negmine.data.texts import TextSet
from hf_negmine.pool import CandidatePool, retrieve, retrieving, stored
from hf_negmine.select import Sampled, Selection, choosing
from hf_negmine.teachers import FixedTeacher, RandomTeacher
from tests.reference import make_pool, searcher_maker, text_set

N_QUERIES, N_PASSAGES = 10, 60
QUERIES = [f"query {i}" for i in range(N_QUERIES)]
CORPUS = [f"passage {i}" for i in range(N_PASSAGES)]


def teacher() -> FixedTeacher:
    rng = np.random.default_rng(7)
    return FixedTeacher(QUERIES, rng.standard_normal((N_QUERIES, 8)), CORPUS, rng.standard_normal((N_PASSAGES, 8)))


def texts_in(folder: Path) -> TextSet:
    return text_set(folder, QUERIES, CORPUS[:N_QUERIES], CORPUS)


def no_searcher() -> Searcher:
    raise AssertionError("nothing is to be searched")


def stored_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def chosen(pool: CandidatePool, *arguments: Any, **named: Any) -> tuple[list[int], list[int], list[float]]:
    selection = pool.select(*arguments, **named)
    return selection.offsets.tolist(), selection.passages.tolist(), selection.scores.tolist()


def test_a_stored_pool_answers_without_searching(tmp_path: Path) -> None:
    texts = texts_in(tmp_path)
    first = make_pool(tmp_path, teacher(), texts, 30)
    again = retrieve(texts, no_searcher, tmp_path / "pool", {}, depth=30, progress=False)
    assert chosen(again, "shifted:5", "sampled:6", 3) == chosen(first, "shifted:5", "sampled:6", 3)
    assert again.about == first.about == {"teacher": "fixed", "depth": 30}
    assert (again.n_queries, again.n_passages) == (N_QUERIES, N_PASSAGES)
    assert repr(again) == "CandidatePool(10 queries, 60 passages, 300 candidates, teacher 'fixed')"


def test_a_pool_that_is_too_shallow_says_so_without_a_teacher(tmp_path: Path) -> None:
    make_pool(tmp_path, teacher(), texts_in(tmp_path), 3)
    pool = CandidatePool.load(tmp_path / "pool")
    assert pool.select("naive", n=3).complete.all()
    with pytest.raises(
        ShallowPoolError, match=r"10 of 10 queries need more candidates for naive with top .*\(3 per query\)"
    ):
        pool.select("naive", n=4)
    with pytest.raises(ShallowPoolError, match=r"perc_pos:0\.1 with sampled:10 .*pool_depth"):
        pool.select("perc_pos:0.1", Sampled(10), n=2)


def test_a_deepened_pool_is_stored_and_its_old_files_are_gone(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), 3)
    before = {name for name in os.listdir(tmp_path / "pool") if name.endswith(".arrow")}
    deep = chosen(pool, "abs:-0.5", "top", 5)
    after = {name for name in os.listdir(tmp_path / "pool") if name.endswith(".arrow")}
    assert len(after) == len(before) == 3
    assert after & before == {"positives.arrow"}
    loaded = CandidatePool.load(tmp_path / "pool")
    assert chosen(loaded, "abs:-0.5", "top", 5) == deep
    assert chosen(loaded, "naive", n=3) == chosen(pool, "naive", n=3)


def test_a_pool_is_saved_elsewhere_and_loaded(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), 8)
    pool.save(tmp_path / "copy")
    assert stored_files(tmp_path / "copy") == stored_files(tmp_path / "pool")
    assert chosen(CandidatePool.load(str(tmp_path / "copy")), "naive", n=4) == chosen(pool, "naive", n=4)


class Dies(Exception):
    """The process was killed."""


class DyingSearcher:
    """Works for a number of blocks."""

    def __init__(self, searcher: Searcher, blocks: int) -> None:
        self.block_size, self._searcher, self._left = searcher.block_size, searcher, blocks

    def block(self, queries: IdArray) -> QueryBlock:
        if not self._left:
            raise Dies
        self._left -= 1
        return self._searcher.block(queries)


def test_a_killed_retrieval_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieving, "QUERIES_A_PART", 3)
    texts, about = texts_in(tmp_path), {"teacher": "fixed"}
    opened = searcher_maker(tmp_path, teacher(), texts)
    retrieve(texts, opened, tmp_path / "at once", about, depth=5, progress=False)
    searched: list[list[int]] = []

    class Watched(DyingSearcher):
        def block(self, queries: IdArray) -> QueryBlock:
            found = super().block(queries)
            searched.append(queries.tolist())
            return found

    for _ in range(3):
        with pytest.raises(Dies):
            retrieve(texts, lambda: Watched(opened(), 1), tmp_path / "killed", about, depth=5, progress=False)
    retrieve(texts, lambda: Watched(opened(), 99), tmp_path / "killed", about, depth=5, progress=False)
    assert searched == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert stored_files(tmp_path / "killed") == stored_files(tmp_path / "at once")
    monkeypatch.setattr(retrieving, "QUERIES_A_PART", 100)
    retrieve(texts, opened, tmp_path / "one part", about, depth=5, progress=False)
    assert stored_files(tmp_path / "one part") == stored_files(tmp_path / "at once")


class BusySearcher:
    """Says that it is at work, and finishes when it is told to."""

    def __init__(self, searcher: Searcher) -> None:
        self.block_size, self._searcher = searcher.block_size, searcher
        self.busy, self.go_on = threading.Event(), threading.Event()

    def block(self, queries: IdArray) -> QueryBlock:
        self.busy.set()
        assert self.go_on.wait(10)
        return self._searcher.block(queries)


def test_of_several_runs_that_need_a_pool_one_searches_and_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files_module, "PATIENCE", 0.01)
    texts, about = texts_in(tmp_path), {"teacher": "fixed"}
    searcher = BusySearcher(searcher_maker(tmp_path, teacher(), texts)())
    with ThreadPoolExecutor(3) as runs:
        first = runs.submit(retrieve, texts, lambda: searcher, tmp_path / "pool", about, depth=5, progress=False)
        assert searcher.busy.wait(10)
        others = [
            runs.submit(retrieve, texts, no_searcher, tmp_path / "pool", about, depth=5, progress=False)
            for _ in range(2)
        ]
        while len(caplog.records) < 2:
            time.sleep(0.01)
        searcher.go_on.set()
        pools = [run.result(10) for run in (first, *others)]
    assert [chosen(pool, "naive", n=4) for pool in pools] == [chosen(pools[0], "naive", n=4)] * 3
    assert str(tmp_path / "pool") in caplog.text
    assert "this one continues when it has finished" in caplog.text


def test_runs_that_write_and_load_one_pool_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    made = [make_pool(tmp_path / str(depth), teacher(), texts_in(tmp_path), depth) for depth in (3, 30)]
    made[0].save(tmp_path / "pool")

    def write_and_load(turn: int) -> bool:
        made[turn % 2].save(tmp_path / "pool")
        return CandidatePool.load(tmp_path / "pool").select("naive", n=3).complete.all()

    with ThreadPoolExecutor(4) as runs:
        assert all(runs.map(write_and_load, range(40)))
    assert len(list((tmp_path / "pool").glob("*.arrow"))) == 3


def test_a_deepening_that_is_killed_leaves_the_pool_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), 3)
    before = chosen(pool, "naive", n=3)

    def killed(*_: Any, **__: Any) -> None:
        raise Dies

    monkeypatch.setattr(stored, "write_sealed", killed)
    with pytest.raises(Dies):
        pool.select("naive", n=9)
    assert chosen(CandidatePool.load(tmp_path / "pool"), "naive", n=3) == before


def test_steps_over_targets_and_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_in(tmp_path)
    pool = make_pool(tmp_path, teacher(), texts, 3)
    whole = chosen(pool, "perc_pos:0.8", "sampled:8", 4, seed=5)
    monkeypatch.setattr(choosing, "CANDIDATES_A_STEP", 3)
    monkeypatch.setattr(retrieving, "QUERIES_A_PART", 4)
    assert chosen(make_pool(tmp_path / "cut", teacher(), texts, 30), "perc_pos:0.8", "sampled:8", 4, seed=5) == whole


def test_the_order_of_the_rows_does_not_change_what_a_query_gets(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(N_QUERIES).tolist()
    shuffled = text_set(tmp_path, [QUERIES[i] for i in order], [CORPUS[i] for i in order], CORPUS)
    one = make_pool(tmp_path / "one", teacher(), texts_in(tmp_path), 20).select("perc_pos:0.9", "sampled:8", 3, seed=1)
    two = make_pool(tmp_path / "two", teacher(), shuffled, 20).select("perc_pos:0.9", "sampled:8", 3, seed=1)
    for place, query in enumerate(order):
        np.testing.assert_array_equal(
            two.passages[two.offsets[place] : two.offsets[place + 1]],
            one.passages[one.offsets[query] : one.offsets[query + 1]],
        )


def test_the_seed_decides_the_draw(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), 20)
    assert chosen(pool, "naive", "sampled:10", 3, seed=1) == chosen(pool, "naive", "sampled:10", 3, seed=1)
    assert chosen(pool, "naive", "sampled:10", 3, seed=1) != chosen(pool, "naive", "sampled:10", 3, seed=2)


def test_several_positives_set_the_ceiling_by_the_lowest_or_each_by_its_own(tmp_path: Path) -> None:
    scores = {"a": 0.9, "b": 0.5, "c": 0.8, "d": 0.6, "e": 0.4, "f": 0.1}
    vectors = np.array([[score] for score in scores.values()])
    fixed = FixedTeacher(["q"], np.ones((1, 1)), list(scores), vectors, similarity="dot")
    texts = text_set(tmp_path, ["q"], [["a", "b"]], list(scores))
    pool = make_pool(tmp_path, fixed, texts, 2)
    corpus = texts.corpus.texts.to_pylist()

    def names(selection: Selection) -> list[list[str]]:
        bounds = selection.offsets
        return [[corpus[i] for i in selection.passages[a:b]] for a, b in itertools.pairwise(bounds)]

    lowest = pool.select("perc_pos:0.95", n=2)
    assert (names(lowest), lowest.positive_scores.tolist()) == ([["e", "f"]], [0.5])
    each = pool.select("perc_pos:0.95", n=2, positive_score="each")
    assert names(each) == [["c", "d"], ["e", "f"]]
    np.testing.assert_allclose(each.positive_scores, [0.9, 0.5])


def test_a_query_with_too_few_eligible_passages_is_exhausted_not_cut_short(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), 1)
    selection = pool.select("perc_pos:0.95+min:0.1", n=30)
    assert not selection.complete.all()
    assert selection.counts.max() > 1
    assert (selection.scores >= 0.1).all()


def test_what_each_rule_removed_is_counted(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), N_PASSAGES)
    method = "abs:0.2+margin_pos:0.1+shifted:2"
    selection = pool.select(method, n=2)
    scores = pool.lists.scores.reshape(N_QUERIES, -1)
    positive = pool.positives.scores[:, None]
    assert selection.removed["abs:0.2"] == (scores >= np.float32(0.2)).sum()
    assert (
        selection.removed["margin_pos:0.1"] == (scores >= (positive.astype(np.float64) - 0.1).astype(np.float32)).sum()
    )
    assert selection.removed["ranks before 2"] == 2 * N_QUERIES


def test_what_is_counted_as_removed_depends_on_no_earlier_selection(tmp_path: Path) -> None:
    fresh, deepened = (make_pool(tmp_path / name, teacher(), texts_in(tmp_path), 3) for name in ("fresh", "deepened"))
    deepened.select("naive", "sampled:20")
    for method in ("abs:-0.5", "abs:-1+shifted:5", "margin_pos:0.3"):
        assert deepened.select(method, n=1).removed == fresh.select(method, n=1).removed


def test_a_scoring_teacher_fills_a_pool_too(tmp_path: Path) -> None:
    texts = texts_in(tmp_path)
    shallow, deep = (make_pool(tmp_path / str(depth), RandomTeacher(), texts, depth) for depth in (2, 50))
    assert chosen(shallow, "abs:0.5", "top1_sampled:9", 4) == chosen(deep, "abs:0.5", "top1_sampled:9", 4)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda pool: pool.select("naive", n=0), "n: a whole number, at least 1, got 0"),
        (lambda pool: pool.select("naive", n=60), "n: 60 negatives per query from a corpus of 60 passages"),
        (lambda pool: pool.select("naive", "sampled:3", n=4), "sampled:3 cannot draw 4 negatives"),
        (
            lambda pool: pool.select("naive", n=2, positive_score="max"),
            r"positive_score: 'max' is not among \['min', 'each'\]",
        ),
        (lambda pool: pool.select("perc_pos:95"), "got 95; for 95 % give 0.95"),
        (lambda pool: pool.select("naive", "best"), "sampler 'best' is not understood"),
    ],
)
def test_a_wrong_argument_is_an_error_with_both_facts(
    tmp_path: Path, ask: Callable[[CandidatePool], object], message: str
) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), 5)
    with pytest.raises(InputError, match=message):
        ask(pool)


def test_a_depth_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pool_depth: at least 1 candidate per query, got 0"):
        make_pool(tmp_path, teacher(), texts_in(tmp_path), 0)


def test_a_pool_cannot_be_saved_below_a_file(tmp_path: Path) -> None:
    pool = make_pool(tmp_path, teacher(), texts_in(tmp_path), 5)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="give a folder that can be written to"):
        pool.save(tmp_path / "file" / "pool")


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        *itertools.product(
            ["pool.json", "candidates-*.arrow", "segments-*.arrow", "positives.arrow", "*_keys.npy"], [0, 30, None]
        )
    ],
)
def test_a_damaged_pool_is_reported(tmp_path: Path, pattern: str, left: int | None) -> None:
    make_pool(tmp_path, teacher(), texts_in(tmp_path), 5)
    path = next((tmp_path / "pool").glob(pattern))
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left)
    with pytest.raises(StorageError, match=r"delete .* and run again"):
        CandidatePool.load(tmp_path / "pool")


def test_a_pool_of_another_format_version_is_refused(tmp_path: Path) -> None:
    make_pool(tmp_path, teacher(), texts_in(tmp_path), 5)
    path = tmp_path / "pool" / "pool.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 1}))
    with pytest.raises(NegmineError, match="cache format 1, this version of hf_negmine reads 2"):
        CandidatePool.load(tmp_path / "pool")


def test_a_folder_without_a_pool_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*pool\.json"):
        CandidatePool.load(tmp_path / "nothing")
