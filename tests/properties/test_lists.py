"""Pools from scored lists against the whole ranking: what a list shows is exact, and where it ends is said."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.pool import CandidatePool
from hf_negmine.pool.list_sources import RunFile, read_qrels
from hf_negmine.pool.stored import arrays_of
from hf_negmine.select import Selection
from tests.properties.test_pool import METHODS, SAMPLERS, World, worlds
from tests.reference import Ranked, make_pool, ranked, selected_rows
from tests.thorough import examples

Lists = dict[str, dict[str, float]]


def ids(world: World) -> tuple[dict[str, str], dict[str, str], dict[str, list[str]]]:
    """Queries, documents and positives by id; every third document has a second id."""
    queries = {f"q{row}": text for row, text in enumerate(world.queries)}
    documents = {f"d{row}": text for row, text in enumerate(world.corpus)}
    documents |= {f"again {row}": text for row, text in enumerate(world.corpus) if row % 3 == 0}
    positives = {f"q{row}": [f"d{passage}" for passage in ids] for row, ids in enumerate(world.positives)}
    return queries, documents, positives


def lists_of(world: World, lengths: list[int], rng: np.random.Generator) -> Lists:
    """The top of each query's ranking of everything, in any order; the positives are always in it."""
    lists: Lists = {}
    for query, length in enumerate(lengths):
        best = ranked(world.scores[query])[:length]
        best += [(float(world.scores[query, passage]), passage) for passage in world.positives[query]]
        entries = {f"d{passage}": score for score, passage in best}
        entries |= {f"again {passage}": score for score, passage in best if passage % 3 == 0 and rng.random() < 0.5}
        names = list(entries)
        lists[f"q{query}"] = {names[place]: entries[names[place]] for place in rng.permutation(len(names))}
    return lists


@st.composite
def listed_worlds(draw: st.DrawFn) -> tuple[World, list[int], Lists]:
    world = draw(worlds())
    lengths = [draw(st.integers(0, len(world.corpus))) for _ in world.queries]
    return world, lengths, lists_of(world, lengths, np.random.default_rng(draw(st.integers(0, 99))))


def rows(selection: Selection) -> list[Ranked]:
    return selected_rows(selection)


SETTINGS: dict[str, Any] = {
    "method": st.sampled_from(METHODS),
    "sampler": st.sampled_from(SAMPLERS),
    "n": st.integers(1, 5),
    "positive_score": st.sampled_from(["min", "each"]),
}


@examples(60)
@given(listed=listed_worlds(), **SETTINGS)
def test_what_the_list_shows_is_exact_and_the_others_say_that_it_ended(
    listed: tuple[World, list[int], Lists], method: str, sampler: str, n: int, positive_score: Any
) -> None:
    world, _, lists = listed
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        queries, documents, positives = ids(world)
        whole = make_pool(home, world.teacher, world.text_set(home), len(world.corpus))
        pool = CandidatePool.from_lists(queries, documents, lists, positives, cache_dir=home, progress=False)
        assert pool.passage_keys.tolist() == whole.passage_keys.tolist()
        assert pool.positives.scores.tolist() == whole.positives.scores.tolist()
        settings = (method, sampler, n)
        selection = pool.select(*settings, positive_score=positive_score)
        expected = whole.select(*settings, positive_score=positive_score)
        status = selection.status.tolist()
        for target, (found, wanted) in enumerate(zip(rows(selection), rows(expected), strict=True)):
            if status[target] == "list ended":
                entries = pool.lists
                query = int(pool.positives.targets(positive_score)[0][target])
                assert not entries.exhausted[query]
            else:
                assert found == wanted
                assert status[target] == ("complete" if len(wanted) == n else "exhausted")


@examples(60)
@given(listed=listed_worlds(), **SETTINGS)
def test_with_the_teacher_no_list_ends(
    listed: tuple[World, list[int], Lists], method: str, sampler: str, n: int, positive_score: Any
) -> None:
    world, _, lists = listed
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        queries, documents, positives = ids(world)
        whole = make_pool(home, world.teacher, world.text_set(home), len(world.corpus))
        options: dict[str, Any] = {"cache_dir": home, "device": "cpu", "progress": False}
        pool = CandidatePool.from_lists(queries, documents, lists, positives, teacher=world.teacher, **options)
        for first in ("abs:0.1", method):  # a pool that was deepened for another question, too
            selection = pool.select(first, sampler, n, positive_score=positive_score)
            expected = whole.select(first, sampler, n, positive_score=positive_score)
            assert selection.list_ended is None
            assert rows(selection) == rows(expected)


@examples(30)
@given(listed=listed_worlds(), step=st.integers(1, 40))
def test_neither_batches_nor_the_order_of_rows_matter(listed: tuple[World, list[int], Lists], step: int) -> None:
    from hf_negmine.pool import list_reading, list_sources

    world, _, lists = listed
    queries, documents, positives = ids(world)
    turned = {query: dict(reversed(entries.items())) for query, entries in reversed(lists.items())}
    before = list_sources.LISTS_A_BATCH, list_reading.ENTRIES_A_STEP
    with tempfile.TemporaryDirectory() as folder:
        one = CandidatePool.from_lists(queries, documents, lists, positives, cache_dir=folder, progress=False)
        try:
            list_sources.LISTS_A_BATCH, list_reading.ENTRIES_A_STEP = 1 + step % 3, step
            two = CandidatePool.from_lists(queries, documents, turned, positives, cache_dir=folder, progress=False)
        finally:
            list_sources.LISTS_A_BATCH, list_reading.ENTRIES_A_STEP = before
        assert one.folder == two.folder


@examples(40)
@given(listed=listed_worlds())
def test_lists_that_were_written_give_the_same_pool(listed: tuple[World, list[int], Lists]) -> None:
    world, _, lists = listed
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        queries, documents, positives = ids(world)
        pool = CandidatePool.from_lists(queries, documents, lists, positives, cache_dir=home, progress=False)
        pool.to_lists(home / "lists")
        pool.to_run(home / "lists.trec.gz", qrels=home / "qrels")
        tables = [home / "lists" / f"{name}.parquet" for name in ("queries", "documents", "scores")]
        again = CandidatePool.from_lists(*tables, cache_dir=home, progress=False)
        run, judged = RunFile(home / "lists.trec.gz"), read_qrels(home / "qrels")
        from_run = CandidatePool.from_lists(*tables[:2], run, judged, cache_dir=home, progress=False)
        assert again.folder == from_run.folder
        assert_same(again, pool)


@examples(20)
@given(world=worlds(), depth=st.integers(1, 50))
def test_a_searched_pool_that_was_written_comes_back(world: World, depth: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        pool = make_pool(home, world.teacher, world.text_set(home), depth)
        pool.texts = world.text_set(home)
        pool.to_lists(home / "lists")
        tables = [home / "lists" / f"{name}.parquet" for name in ("queries", "documents", "scores")]
        assert_same(CandidatePool.from_lists(*tables, cache_dir=home, progress=False), pool)


def assert_same(one: CandidatePool, two: CandidatePool) -> None:
    assert one.about["texts"] == two.texts.fingerprint  # type: ignore[union-attr]
    for left, right in zip(arrays_of(one.lists), arrays_of(two.lists), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.positives.ids, two.positives.ids)
    np.testing.assert_array_equal(one.positives.scores, two.positives.scores)
