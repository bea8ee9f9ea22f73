"""The pair store: each pair is asked about once, whatever happens to the runs in between."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hf_negmine.base.errors import StorageError
from hf_negmine.base.files import text_digests
from hf_negmine.base.schema import DigestArray, FloatArray, IdArray
from hf_negmine.teachers.pair_store import RECORD, PairStore, pair_digests
from tests.forks import exit_of, forking


def digests(numbers: Sequence[int]) -> DigestArray:
    """Digests of pairs that are called by a number."""
    texts = text_digests(pa.array([f"text {number}" for number in numbers], pa.large_string()))
    return pair_digests(texts, texts[:, ::-1])


def scores_of(numbers: Sequence[int]) -> list[float]:
    return [number / 2 for number in numbers]


@dataclass
class Asked:
    """Scores the pair ``number`` by half of it, a few at a time, and remembers what it was asked."""

    numbers: Sequence[int]
    at_a_time: int = 3
    fails_after: int | None = None
    log: list[int] = field(default_factory=list)

    def __call__(self, places: IdArray) -> Iterator[tuple[IdArray, FloatArray]]:
        for part, start in enumerate(range(len(places) - 1, -1, -self.at_a_time)):  # from the end to the start
            if part == self.fails_after:
                raise ConnectionError("gone")
            some = np.arange(max(0, start - self.at_a_time + 1), start + 1)
            asked = [self.numbers[place] for place in places[some]]
            self.log += asked
            yield some, np.array(scores_of(asked), dtype=np.float32)


def complete(store: PairStore, numbers: Sequence[int], *, fails_after: int | None = None) -> list[int]:
    """Complete a store, check what it answers, and return what it asked about."""
    asked = Asked(numbers, fails_after=fails_after)
    assert store.complete(digests(numbers), asked).tolist() == scores_of(numbers)
    assert len(set(asked.log)) == len(asked.log)
    return sorted(asked.log)


def store_in(folder: Path) -> PairStore:
    return PairStore.of(folder, "scorer", "scorer", progress=False)


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.pairs"))


def test_a_pair_is_scored_once_over_calls_and_runs(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert complete(store, [5, 3, 9, 1]) == [1, 3, 5, 9]
    assert complete(store, [9, 4, 5, 2, 1]) == [2, 4]
    assert complete(store, [9, 4, 5, 2, 1]) == []
    again = store_in(tmp_path)
    assert complete(again, [1, 7, 2, 3, 4, 5, 9]) == [7]
    assert len(files_in(tmp_path)) == 2


def test_duplicates_within_a_call_are_asked_about_once(tmp_path: Path) -> None:
    assert complete(store_in(tmp_path), [4, 4, 2, 4, 2, 8]) == [2, 4, 8]
    (file,) = files_in(tmp_path)
    assert file.stat().st_size == 3 * RECORD.itemsize


def test_nothing_to_score_writes_nothing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert complete(store, []) == []
    assert not list(tmp_path.iterdir())


def test_the_pair_counts_and_not_its_texts_alone() -> None:
    one, other = (text_digests(pa.array([text] * 2, pa.large_string())) for text in ("one", "other"))
    seen = {tuple(pair_digests(queries, passages)[0]) for queries in (one, other) for passages in (one, other)}
    assert len(seen) == 4
    assert len({half for pair in seen for half in pair}) == 8


def test_another_scorer_has_scores_of_its_own(tmp_path: Path) -> None:
    complete(store_in(tmp_path), [1, 2])
    other = PairStore.of(tmp_path, "other", "scorer", progress=False)
    assert np.isnan(other.find(digests([1, 2]))).all()


def test_what_is_not_stored_is_nan(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    complete(store, [1, 2])
    np.testing.assert_array_equal(store.find(digests([2, 3, 1])), np.array([1.0, np.nan, 0.5], dtype=np.float32))
    assert store.find(digests([])).shape == (0,)


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("same_store", [True, False], ids=["same store", "new store"])
def test_what_came_before_an_error_is_kept(tmp_path: Path, parts: int, same_store: bool) -> None:
    numbers = list(range(9))
    store = store_in(tmp_path)
    with pytest.raises(ConnectionError):
        complete(store, numbers, fails_after=parts)
    rest = complete(store if same_store else store_in(tmp_path), numbers)
    assert rest == numbers[: 9 - 3 * parts]


def test_many_small_calls_merge_what_they_hold(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for number in range(40):
        assert complete(store, [number, max(number - 1, 0)]) == [number]
        assert len(store._runs or []) <= 6
    everything = list(range(40))[::-1]
    assert complete(store, everything) == []
    assert complete(store_in(tmp_path), everything) == []
    assert len(files_in(tmp_path)) == 1


def test_many_files_are_read_as_one(tmp_path: Path) -> None:
    for number in range(16):
        complete(store_in(tmp_path), [number])
    assert len(files_in(tmp_path)) == 16
    store = store_in(tmp_path)
    assert complete(store, list(range(16 + 1))) == [16]
    assert len(store._runs or []) == 2  # the new one is much shorter


# ---- damage ------------------------------------------------------------------------------------------------------


def stored_numbers(folder: Path, file: Path) -> list[int]:
    """The pairs of a file, in their order."""
    records = np.frombuffer(file.read_bytes(), dtype=RECORD)
    return [int(score * 2) for score in records["score"]]


@pytest.mark.parametrize("cut", [1, RECORD.itemsize - 1, RECORD.itemsize, RECORD.itemsize + 7])
def test_a_file_that_was_cut_loses_its_end_only(tmp_path: Path, cut: int) -> None:
    numbers = list(range(10))
    complete(store_in(tmp_path), numbers)
    (file,) = files_in(tmp_path)
    order = stored_numbers(tmp_path, file)
    os.truncate(file, file.stat().st_size - cut)
    lost = -(-cut // RECORD.itemsize)
    assert complete(store_in(tmp_path), numbers) == sorted(order[-lost:])
    assert complete(store_in(tmp_path), numbers) == []


@pytest.mark.parametrize("byte", range(RECORD.itemsize))
def test_a_record_with_a_wrong_byte_is_not_read(tmp_path: Path, byte: int) -> None:
    numbers = list(range(10))
    complete(store_in(tmp_path), numbers)
    (file,) = files_in(tmp_path)
    order = stored_numbers(tmp_path, file)
    content = bytearray(file.read_bytes())
    content[4 * RECORD.itemsize + byte] ^= 0x41
    file.write_bytes(content)
    assert complete(store_in(tmp_path), numbers) == [order[4]]


@pytest.mark.parametrize(
    "garbage",
    [b"\0" * (5 * RECORD.itemsize), b"\xff" * (5 * RECORD.itemsize), bytes(range(256)), b"\0" * 7],
    ids=["zeros", "ones", "bytes", "a few zeros"],
)
def test_garbage_is_never_a_score(tmp_path: Path, garbage: bytes) -> None:
    numbers = list(range(10))
    complete(store_in(tmp_path), numbers)
    (file,) = files_in(tmp_path)
    with file.open("ab") as end:
        end.write(garbage)
    (file.parent / "other.pairs").write_bytes(garbage)
    (file.parent / "empty.pairs").touch()
    store = store_in(tmp_path)
    assert complete(store, numbers) == []
    assert sum(len(found) for found, _ in store._runs or []) == 10


def test_records_that_moved_by_a_few_bytes_are_not_read(tmp_path: Path) -> None:
    numbers = list(range(10))
    complete(store_in(tmp_path), numbers)
    (file,) = files_in(tmp_path)
    file.write_bytes(b"\0\0\0" + file.read_bytes())
    assert complete(store_in(tmp_path), numbers) == numbers


def test_after_a_full_disk_the_same_store_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The half record at the end of the file must not hide what comes behind it."""
    numbers = list(range(9))
    store = store_in(tmp_path)
    complete(store, [100])
    write = os.write

    def full(descriptor: int, content: memoryview) -> int:
        if os.fstat(descriptor).st_size > 3 * RECORD.itemsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[: RECORD.itemsize + 10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match=r"the disk is full.*finished parts are kept"):
        complete(store, numbers)
    monkeypatch.undo()
    (file,) = files_in(tmp_path)
    assert file.stat().st_size % RECORD.itemsize
    rest = complete(store, numbers)
    assert len(rest) > 3
    assert len(files_in(tmp_path)) == 1
    assert complete(store_in(tmp_path), [*numbers, 100]) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pairs").touch()
    with pytest.raises(StorageError, match="give a folder that can be written to"):
        complete(store_in(tmp_path), [1])


def test_a_file_that_cannot_be_read_is_an_error_each_time(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.folder / "folder.pairs").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"folder\.pairs"):
            store.find(digests([1]))


# ---- several at once ---------------------------------------------------------------------------------------------


def test_two_stores_write_to_one_folder_at_once(tmp_path: Path) -> None:
    one, two = store_in(tmp_path), store_in(tmp_path)
    numbers = list(range(12))
    of_two: list[int] = []

    def both(places: IdArray) -> Iterator[tuple[IdArray, FloatArray]]:
        for some, values in Asked(numbers)(places):
            yield some, values
            of_two.extend(complete(two, [numbers[place] for place in places[some]]))

    assert one.complete(digests(numbers), both).tolist() == scores_of(numbers)
    assert sorted(of_two) == numbers[:9]  # it has seen what was there when it first looked
    assert len(files_in(tmp_path)) == 2
    third = store_in(tmp_path)
    assert complete(third, numbers) == []


@forking
def test_a_fork_knows_what_was_scored_and_has_a_file_of_its_own(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    complete(store, [1, 2, 3])

    def work() -> None:
        assert complete(store, [3, 4, 5]) == [4, 5]

    assert exit_of(work) == 0
    assert complete(store, [2, 6]) == [6]
    assert len(files_in(tmp_path)) == 2
    assert complete(store_in(tmp_path), [1, 2, 3, 4, 5, 6, 7]) == [7]


@forking
def test_a_killed_process_loses_the_part_in_progress_only(tmp_path: Path) -> None:
    numbers = list(range(30))

    def killed(places: Any) -> Iterator[Any]:
        for part, found in enumerate(Asked(numbers, at_a_time=4)(places)):
            if part == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            yield found

    assert exit_of(lambda: store_in(tmp_path).complete(digests(numbers), killed)) == -signal.SIGKILL
    assert complete(store_in(tmp_path), numbers) == list(range(30 - 5 * 4))
    assert complete(store_in(tmp_path), numbers) == []


def test_pairs_that_share_half_a_digest_are_told_apart(tmp_path: Path) -> None:
    """Their records have the same first half, in any order and in any number of runs."""
    numbers = list(range(12))
    halves = digests(numbers)
    halves[:, 0] = halves[0, 0]
    store = store_in(tmp_path)
    for start in range(0, 12, 3):
        some = halves[start : start + 3]
        found = store.complete(some, Asked(numbers[start : start + 3]))
        assert found.tolist() == scores_of(numbers[start : start + 3])
    assert store.find(halves[::-1]).tolist() == scores_of(numbers[::-1])
    assert store_in(tmp_path).find(halves).tolist() == scores_of(numbers)
