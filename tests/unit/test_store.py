"""The vector store: what is encoded, what is kept, and what is refused."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_negmine import store as store_module
from hf_negmine.errors import StorageError, TeacherError
from hf_negmine.protocols import Role, Similarity
from hf_negmine.store import StoredVectors, VectorStore, writable_folder
from hf_negmine.texts import TextColumn
from tests.reference import text_set


@dataclass(frozen=True)
class LetterTeacher:
    """Counts the letters a, b, c and d of a text, and remembers what it was asked."""

    weights: str = "1"
    similarity: Similarity = "dot"
    name: str = "letters"
    calls: list[tuple[Role, list[str]]] = field(default_factory=list, compare=False)
    spoil: Callable[[np.ndarray[Any, Any], Sequence[str]], Any] = lambda vectors, texts: vectors

    def fingerprint(self, role: Role) -> str:
        return self.weights

    def encode(self, texts: Sequence[str], role: Role) -> Any:
        self.calls.append((role, list(texts)))
        vectors = np.array([[text.count(letter) for letter in "abcd"] for text in texts], dtype=np.float32)
        return self.spoil(vectors, texts)

    @property
    def encoded(self) -> list[str]:
        return [text for _, texts in self.calls for text in texts]


def column(folder: Path, texts: Sequence[str]) -> TextColumn:
    return text_set(folder, ["q"], [texts[0]], texts).corpus


def shards_under(folder: Path) -> list[Path]:
    return sorted((folder / "vectors").glob("*/shard-*"))


TEXTS = ["a", "bb", "abc", "dad", "cab", "bad"]


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "TEXTS_A_SHARD", 4)


def whole(vectors: StoredVectors) -> np.ndarray[Any, Any]:
    return vectors.slice(0, vectors.shape[0])


def test_a_second_call_encodes_nothing(tmp_path: Path) -> None:
    teacher, texts = LetterTeacher(), column(tmp_path, TEXTS)
    first = VectorStore(tmp_path, progress=False).vectors(teacher, texts, "passage")
    second = VectorStore(tmp_path, progress=False).vectors(teacher, texts, "passage")
    assert teacher.encoded == TEXTS
    np.testing.assert_array_equal(whole(first), whole(second))
    assert whole(first).tolist()[2:4] == [[1, 1, 1, 0], [1, 0, 0, 2]]
    assert (first.shape, whole(first).dtype) == ((6, 4), np.float32)


@pytest.mark.usefixtures("small_shards")
def test_only_new_texts_are_encoded_and_rows_follow_the_texts_that_are_asked_for(tmp_path: Path) -> None:
    teacher, store = LetterTeacher(), VectorStore(tmp_path, progress=False)
    store.vectors(teacher, column(tmp_path, TEXTS), "passage")
    more = ["new d", *TEXTS[::-1], "new b"]
    vectors = store.vectors(teacher, column(tmp_path, more), "passage")
    assert [texts for _, texts in teacher.calls] == [TEXTS[:4], TEXTS[4:], ["new d", "new b"]]
    expected = [[text.count(letter) for letter in "abcd"] for text in more]
    assert whole(vectors).tolist() == expected
    assert vectors.gather(np.array([7, 0, 3, 3])).tolist() == [expected[i] for i in (7, 0, 3, 3)]
    assert vectors.slice(6, 100).tolist() == expected[6:]


@pytest.mark.parametrize(
    ("other", "role"),
    [
        (LetterTeacher(weights="2"), "passage"),
        (LetterTeacher(similarity="cosine"), "passage"),
        (LetterTeacher(), "query"),
    ],
    ids=["weights", "similarity", "role"],
)
def test_vectors_are_reused_for_the_very_same_thing_only(tmp_path: Path, other: LetterTeacher, role: Role) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    store.vectors(LetterTeacher(), texts, "passage")
    teacher = replace(other, calls=[])
    store.vectors(teacher, texts, role)
    assert teacher.calls == [(role, TEXTS)]


def test_the_teachers_name_alone_changes_nothing(tmp_path: Path) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    store.vectors(LetterTeacher(), texts, "passage")
    renamed = LetterTeacher(name="other")
    store.vectors(renamed, texts, "passage")
    assert renamed.calls == []


def test_cosine_vectors_have_length_one_and_zero_stays_zero(tmp_path: Path) -> None:
    def scaled(vectors: np.ndarray[Any, Any], texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return vectors * np.logspace(-30, 30, len(texts), dtype=np.float32)[:, None]

    texts = column(tmp_path, ["zero", *TEXTS, "abcd"])
    teacher = LetterTeacher(similarity="cosine", spoil=scaled)
    vectors = whole(VectorStore(tmp_path, progress=False).vectors(teacher, texts, "passage"))
    assert vectors[0].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(np.linalg.norm(vectors[1:].astype(np.float64), axis=1), 1.0, atol=1e-7)
    np.testing.assert_allclose(vectors[3], [3**-0.5] * 3 + [0], rtol=1e-6)


def only_for(text: str, value: float) -> Callable[[np.ndarray[Any, Any], Sequence[str]], Any]:
    def spoil(vectors: np.ndarray[Any, Any], texts: Sequence[str]) -> Any:
        vectors = vectors.astype(np.float64)
        vectors[[place for place, found in enumerate(texts) if found == text]] = value
        return vectors

    return spoil


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.usefixtures("small_shards")
def test_vectors_that_are_not_finite_are_refused_and_earlier_shards_kept(tmp_path: Path, value: float) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    with pytest.raises(
        TeacherError, match="'letters' gave NaN or infinite vectors for 1 of 2 texts, the first for 'bad'"
    ):
        store.vectors(LetterTeacher(spoil=only_for("bad", value)), texts, "passage")
    assert len(shards_under(tmp_path)) == 1
    assert not list(tmp_path.rglob(".unfinished-*"))
    cured = LetterTeacher()
    store.vectors(cured, texts, "passage")
    assert cured.encoded == TEXTS[4:]


def test_dot_products_beyond_float32_are_refused(tmp_path: Path) -> None:
    teacher = LetterTeacher(spoil=only_for("bad", 1e19))
    with pytest.raises(TeacherError, match=r"vector of length 2e\+19, at most 1e\+18"):
        VectorStore(tmp_path, progress=False).vectors(teacher, column(tmp_path, TEXTS), "passage")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda vectors, texts: vectors[1:], r"shape \(5, 4\) for 6 texts, expected numbers with shape \(6, width\)"),
        (lambda vectors, texts: vectors[0], r"shape \(4,\) for 6 texts"),
        (lambda vectors, texts: vectors[None], r"shape \(1, 6, 4\) for 6 texts"),
        (lambda vectors, texts: vectors.astype(str), r"an array of <U\d+ with shape \(6, 4\)"),
        (lambda vectors, texts: None, r"an array of object with shape \(\)"),
    ],
)
def test_anything_but_a_vector_a_text_is_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        VectorStore(tmp_path, progress=False).vectors(LetterTeacher(spoil=spoil), column(tmp_path, TEXTS), "passage")
    assert shards_under(tmp_path) == []


@pytest.mark.usefixtures("small_shards")
def test_another_width_than_before_is_refused(tmp_path: Path) -> None:
    def by_count(vectors: np.ndarray[Any, Any], texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return vectors[:, : len(texts)]

    with pytest.raises(TeacherError, match="vectors of width 2, and 4 for earlier texts"):
        VectorStore(tmp_path, progress=False).vectors(LetterTeacher(spoil=by_count), column(tmp_path, TEXTS), "passage")
    assert len(shards_under(tmp_path)) == 1


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_any_number_format_is_stored_as_float32(tmp_path: Path, dtype: Any) -> None:
    teacher = LetterTeacher(spoil=lambda vectors, texts: vectors.astype(dtype))
    found = whole(VectorStore(tmp_path, progress=False).vectors(teacher, column(tmp_path, TEXTS), "passage"))
    assert found.dtype == np.float32
    assert found[3].tolist() == [1, 0, 0, 2]


@pytest.mark.usefixtures("small_shards")
def test_a_run_that_was_killed_goes_on_with_the_shard_in_progress(tmp_path: Path) -> None:
    def killed(vectors: np.ndarray[Any, Any], texts: Sequence[str]) -> Any:
        if "bad" in texts:
            raise KeyboardInterrupt
        return vectors

    texts = column(tmp_path, TEXTS)
    store, elsewhere = VectorStore(tmp_path, progress=False), VectorStore(tmp_path / "elsewhere", progress=False)
    with pytest.raises(KeyboardInterrupt):
        store.vectors(LetterTeacher(spoil=killed), texts, "passage")
    continued = LetterTeacher()
    store.vectors(continued, texts, "passage")
    assert continued.encoded == TEXTS[4:]
    elsewhere.vectors(LetterTeacher(), texts, "passage")
    ours, theirs = shards_under(tmp_path), shards_under(tmp_path / "elsewhere")
    assert [shard.name for shard in ours] == [shard.name for shard in theirs]
    for one, two in zip(ours, theirs, strict=True):
        assert all((one / name).read_bytes() == (two / name).read_bytes() for name in ("vectors.npy", "digests.npy"))


@pytest.mark.parametrize("left", [0, 50, 200])
@pytest.mark.parametrize("name", ["vectors.npy", "digests.npy"])
def test_a_truncated_shard_is_reported_with_what_to_do(tmp_path: Path, name: str, left: int) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    store.vectors(LetterTeacher(), texts, "passage")
    os.truncate(shards_under(tmp_path)[0] / name, left)
    with pytest.raises(StorageError, match=f"{name}.*delete its folder and run again"):
        store.vectors(LetterTeacher(), texts, "passage")


def test_a_shard_of_unequal_halves_is_reported(tmp_path: Path) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    store.vectors(LetterTeacher(), texts, "passage")
    np.save(shards_under(tmp_path)[0] / "vectors.npy", np.zeros((5, 4), dtype=np.float32))
    with pytest.raises(StorageError, match="is damaged: 5 vectors for 6 texts; delete it"):
        store.vectors(LetterTeacher(), texts, "passage")


def test_a_store_of_another_format_version_is_refused(tmp_path: Path) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    store.vectors(LetterTeacher(), texts, "passage")
    (about,) = (tmp_path / "vectors").glob("*/store.json")
    about.write_text(json.dumps({**json.loads(about.read_text()), "format_version": 0}))
    with pytest.raises(StorageError, match="cache format 0, this version of hf_negmine reads 1"):
        store.vectors(LetterTeacher(), texts, "passage")


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_encoded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    teacher = LetterTeacher()
    with pytest.raises(StorageError, match="give a folder that can be written to"):
        VectorStore(tmp_path / "file", progress=False).vectors(teacher, column(tmp_path, TEXTS), "passage")
    assert teacher.calls == []
    with pytest.raises(StorageError, match="give a folder that can be written to"):
        writable_folder(tmp_path / "file" / "cache")
    assert os.listdir(writable_folder(tmp_path / "new" / "cache")) == []


@pytest.mark.usefixtures("small_shards")
def test_a_disk_that_fills_keeps_the_finished_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    synced = os.fsync

    def full(descriptor: int) -> None:
        if len(shards_under(tmp_path)) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"the disk is full.*finished parts are kept"):
        store.vectors(LetterTeacher(), texts, "passage")
    assert not list(tmp_path.rglob(".unfinished-*"))
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "TEXTS_A_SHARD", 4)
    again = LetterTeacher()
    store.vectors(again, texts, "passage")
    assert again.encoded == TEXTS[4:]
