"""Every pool that was mined keeps the rules of `pool.checks`, and one with a single thing wrong breaks one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_negmine.base.errors import StorageError
from hf_negmine.pool.checks import check_pool
from hf_negmine.pool.stored import StoredPool, read_pool
from hf_negmine.select import parse_sampler
from tests.properties.test_pool import World, questions, worlds
from tests.reference import make_pool
from tests.thorough import examples

Corruption = Callable[[StoredPool, int], StoredPool | None]


def mined(folder: Path, world: World, depth: int, asked: Any) -> tuple[StoredPool, Any]:
    """A pool as it is stored after some questions, with its texts."""
    texts = world.text_set(folder)
    pool = make_pool(folder, world.teacher, texts, depth)
    pool.about["texts"] = texts.fingerprint
    for spec, sampler, n, seed, positive_score in asked:
        pool.select(spec, parse_sampler(sampler), n, seed=seed, positive_score=positive_score)
    pool.save(folder / "pool")
    return replace(read_pool(folder / "pool"), about=pool.about), texts


depths = st.sampled_from([1, 2, 4, 13, 100])


def changed(array: np.ndarray[Any, Any], place: int, value: Any) -> np.ndarray[Any, Any]:
    copied = np.array(array)
    copied[place] = value
    return copied


def of_lists(pool: StoredPool, **arrays: Any) -> StoredPool:
    return replace(pool, lists=replace(pool.lists, **arrays))


def query_of(pool: StoredPool, entry: int) -> int:
    segment = int(np.searchsorted(pool.lists.starts, entry, side="right")) - 1
    while pool.lists.stops[segment] <= entry:
        segment += 1
    return int(np.searchsorted(pool.lists.offsets, segment, side="right")) - 1


def neighbours(pool: StoredPool, entry: int) -> bool:
    """Whether this entry and the next belong to one segment."""
    return entry + 1 < len(pool.lists.passages) and entry + 1 not in pool.lists.starts


def an_entry(name: str, value: Callable[[StoredPool, int], Any]) -> Corruption:
    def corrupt(pool: StoredPool, place: int) -> StoredPool | None:
        entry = place % len(pool.lists.passages)
        return of_lists(pool, **{name: changed(getattr(pool.lists, name), entry, value(pool, entry))})

    return corrupt


def a_positive(pool: StoredPool, place: int) -> StoredPool:
    entry = place % len(pool.lists.passages)
    own = pool.positives.ids[pool.positives.offsets[query_of(pool, entry)]]
    return of_lists(pool, passages=changed(pool.lists.passages, entry, own))


def twice(pool: StoredPool, place: int) -> StoredPool | None:
    entry = place % len(pool.lists.passages)
    if not neighbours(pool, entry):
        return None
    return of_lists(pool, passages=changed(pool.lists.passages, entry + 1, pool.lists.passages[entry]))


def swapped(pool: StoredPool, place: int) -> StoredPool | None:
    entry = place % len(pool.lists.passages)
    if not neighbours(pool, entry):
        return None
    order = np.arange(len(pool.lists.passages))
    order[[entry, entry + 1]] = entry + 1, entry
    return of_lists(pool, passages=pool.lists.passages[order], scores=pool.lists.scores[order])


def at_its_ceiling(pool: StoredPool, place: int) -> StoredPool | None:
    segment = place % len(pool.lists.starts)
    if pool.lists.first_ranks[segment] > 0 or pool.lists.starts[segment] == pool.lists.stops[segment]:
        return None
    first = pool.lists.scores[pool.lists.starts[segment]]
    return of_lists(pool, ceilings=changed(pool.lists.ceilings, segment, first))


def a_segment(name: str, value: Callable[[StoredPool, int], Any]) -> Corruption:
    def corrupt(pool: StoredPool, place: int) -> StoredPool | None:
        segment = place % len(pool.lists.starts)
        return of_lists(pool, **{name: changed(getattr(pool.lists, name), segment, value(pool, segment))})

    return corrupt


def first_rank(pool: StoredPool, place: int) -> StoredPool:
    query = place % (len(pool.lists.offsets) - 1)
    return of_lists(pool, first_ranks=changed(pool.lists.first_ranks, int(pool.lists.offsets[query]), 1 + place % 3))


def far_rank(pool: StoredPool, place: int) -> StoredPool | None:
    segment = place % len(pool.lists.starts)
    if pool.lists.starts[segment] == pool.lists.stops[segment]:
        return None  # an empty one says only that the ranking ends before it
    return of_lists(pool, first_ranks=changed(pool.lists.first_ranks, segment, 2**62))


def an_end(pool: StoredPool, place: int) -> StoredPool | None:
    segment = place % len(pool.lists.starts)
    if pool.lists.first_ranks[segment] < 0:
        return None  # how much lies above it is not known
    return of_lists(pool, exhausted=changed(pool.lists.exhausted, segment, not pool.lists.exhausted[segment]))


def other_positives(pool: StoredPool, place: int) -> StoredPool:
    pair = place % len(pool.positives.ids)
    ids = changed(pool.positives.ids, pair, pool.positives.ids[pair] + 1)
    return replace(pool, positives=replace(pool.positives, ids=ids))


def a_positive_score(value: float) -> Corruption:
    def corrupt(pool: StoredPool, place: int) -> StoredPool:
        scores = changed(pool.positives.scores, place % len(pool.positives.ids), value)
        return replace(pool, positives=replace(pool.positives, scores=scores))

    return corrupt


def other_keys(name: str) -> Corruption:
    def corrupt(pool: StoredPool, place: int) -> StoredPool:
        keys = getattr(pool, name)
        return replace(pool, **{name: changed(keys, place % len(keys), keys[place % len(keys)] ^ np.uint64(1))})

    return corrupt


CORRUPTIONS: dict[str, Corruption] = {
    "a candidate is a labeled positive": a_positive,
    "a candidate is not there": an_entry("passages", lambda pool, entry: len(pool.passage_keys)),
    "a candidate below 0": an_entry("passages", lambda pool, entry: -1),
    "a candidate twice": twice,
    "NaN": an_entry("scores", lambda pool, entry: np.nan),
    "inf": an_entry("scores", lambda pool, entry: np.inf),
    "-inf": an_entry("scores", lambda pool, entry: -np.inf),
    "neighbours swapped": swapped,
    "at the ceiling": at_its_ceiling,
    "a ceiling of NaN": a_segment("ceilings", lambda pool, segment: np.nan),
    "a first rank over 0": first_rank,
    "a rank below -1": a_segment("first_ranks", lambda pool, segment: -2),
    "a rank beyond the corpus": far_rank,
    "a segment that begins later": a_segment("starts", lambda pool, segment: pool.lists.starts[segment] + 1),
    "a segment that begins before the first": a_segment("starts", lambda pool, segment: -1),
    "a segment that stops later": a_segment("stops", lambda pool, segment: pool.lists.stops[segment] + 1),
    "an end that is none, or one that is missing": an_end,
    "another positive": other_positives,
    "a positive scores NaN": a_positive_score(np.nan),
    "a positive scores inf": a_positive_score(np.inf),
    "another query": other_keys("query_keys"),
    "another passage": other_keys("passage_keys"),
    "other texts": lambda pool, place: replace(pool, about={**pool.about, "texts": "0" * 32}),
    "scores in float64": lambda pool, place: of_lists(pool, scores=pool.lists.scores.astype(np.float64)),
    "keys in int64": lambda pool, place: replace(pool, query_keys=pool.query_keys.astype(np.int64)),
    "a query less": lambda pool, place: of_lists(pool, offsets=pool.lists.offsets[:-1]),
    "a query without a segment": lambda pool, place: of_lists(pool, offsets=changed(pool.lists.offsets, 0, 1)),
    "candidates behind the last segment": lambda pool, place: of_lists(
        pool, passages=np.append(pool.lists.passages, np.int32(0)), scores=np.append(pool.lists.scores, np.float32(0))
    ),
}


def test_one_wrong_thing_is_refused_in_a_pool_that_is_right_without_it() -> None:
    refused = set()

    @examples(60, every=6)
    @given(world=worlds(), depth=depths, asked=questions, place=st.integers(0, 10_000))
    def check(world: World, depth: int, asked: Any, place: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pool, texts = mined(Path(folder), world, depth, asked)
            check_pool(pool, texts, include_positives=False, whole_corpus=True)
            check_pool(pool, texts, include_positives=False, whole_corpus=False)
            for name, corrupt in CORRUPTIONS.items() if len(pool.lists.passages) else ():
                wrong = next(filter(None, (corrupt(pool, place + further) for further in range(20))), None)
                if wrong is not None:
                    with pytest.raises(StorageError, match=r"the pool (is damaged|belongs to other texts)"):
                        check_pool(wrong, texts, include_positives=False, whole_corpus=True)
                    refused.add(name)

    check()
    assert refused == set(CORRUPTIONS)
