"""The vector store: what is encoded, what is kept, and what is refused."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_negmine.base.errors import StorageError, TeacherError
from hf_negmine.base.protocols import Role, Similarity, SparseVectors, StreamingTeacher, TokenVectors
from hf_negmine.data.texts import TextColumn
from hf_negmine.teachers import APITeacher
from hf_negmine.teachers import vector_store as store_module
from hf_negmine.teachers.vector_store import StoredVectors, VectorStore, writable_folder
from tests.forks import exit_of, forking
from tests.openai_server import Fault, OpenAIServer, Received
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


@pytest.mark.usefixtures("small_shards")
def test_a_store_of_more_files_than_a_process_may_open_is_read(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    teacher, texts = LetterTeacher(), column(tmp_path, [f"{'a' * number}d" for number in range(400)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, limits[1]))
    try:
        vectors = VectorStore(tmp_path, progress=False).vectors(teacher, texts, "passage")
        assert len(shards_under(tmp_path)) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert whole(vectors)[:, 0].tolist() == list(range(400))


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

    with pytest.raises(TeacherError, match="vectors of width 2, but 4 for earlier texts"):
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
@pytest.mark.parametrize("name", ["vectors.npy", "digests.npy", "shard.json"])
@pytest.mark.usefixtures("small_shards")
def test_the_texts_of_a_truncated_shard_are_encoded_again_and_no_others(
    tmp_path: Path, name: str, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    before = whole(store.vectors(LetterTeacher(), texts, "passage"))
    damaged = next(shard for shard in shards_under(tmp_path) if len(np.load(shard / "digests.npy")) == 4)
    os.truncate(damaged / name, left)
    again = LetterTeacher()
    np.testing.assert_array_equal(whole(store.vectors(again, texts, "passage")), before)
    assert again.encoded == TEXTS[:4]
    assert str(damaged / name) in caplog.text
    assert len(list(damaged.parent.glob(".unfinished-damaged-*"))) == 1
    assert len(shards_under(tmp_path)) == 2


@pytest.mark.usefixtures("small_shards")
def test_all_shards_may_be_damaged(tmp_path: Path) -> None:
    texts = column(tmp_path, [f"a{'b' * number}" for number in range(60)])
    store = VectorStore(tmp_path, progress=False)
    before = whole(store.vectors(LetterTeacher(), texts, "passage"))
    for shard in shards_under(tmp_path):
        np.save(shard / "vectors.npy", np.zeros((5, 4), dtype=np.float32))
    np.testing.assert_array_equal(whole(store.vectors(LetterTeacher(), texts, "passage")), before)


def test_a_store_of_another_format_version_is_refused(tmp_path: Path) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, TEXTS)
    store.vectors(LetterTeacher(), texts, "passage")
    (about,) = (tmp_path / "vectors").glob("*/store.json")
    about.write_text(json.dumps({**json.loads(about.read_text()), "format_version": 0}))
    with pytest.raises(StorageError, match="cache format 0, this version of hf_negmine reads 2"):
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


def test_many_may_see_at_once_that_a_folder_can_be_written_to(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as workers:
        found = list(workers.map(writable_folder, [tmp_path / "cache"] * 200))
    assert set(found) == {tmp_path / "cache"}
    assert os.listdir(tmp_path / "cache") == []


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


# ---- sparse and token vectors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RaggedTeacher:
    """A sparse vector a text (how often each of its letters stands in it), and a token vector a letter."""

    name: str = "ragged"
    calls: list[tuple[Role, list[str]]] = field(default_factory=list, compare=False)
    spoil: Callable[[Any, Sequence[str]], Any] = lambda vectors, texts: vectors
    first_stage: Any = None
    candidates: int = 10

    def fingerprint(self, role: Role) -> str:
        return "ragged"

    def encode_sparse(self, texts: Sequence[str], role: Role) -> Any:
        self.calls.append((role, list(texts)))
        rows = [sparse_row(text) for text in texts]
        return self.spoil(
            SparseVectors(
                np.cumsum([0] + [len(row) for row in rows]),
                np.array([term for row in rows for term, _ in row], dtype=np.int32),
                np.array([weight for row in rows for _, weight in row], dtype=np.float32),
            ),
            texts,
        )

    def encode_tokens(self, texts: Sequence[str], role: Role) -> Any:
        self.calls.append((role, list(texts)))
        return self.spoil(
            TokenVectors(
                np.cumsum([0] + [len(text) for text in texts]), np.concatenate([token_rows(text) for text in texts])
            ),
            texts,
        )

    @property
    def encoded(self) -> list[str]:
        return [text for _, texts in self.calls for text in texts]


def sparse_row(text: str) -> list[tuple[int, float]]:
    return sorted((ord(letter) - 97, text.count(letter) / 3) for letter in set(text) - {"-"})


def token_rows(text: str) -> np.ndarray[Any, Any]:
    return np.array([[ord(letter) - 97, place] for place, letter in enumerate(text)], dtype=np.float32)


RAGGED = ["a", "-", "abc", "dad", "--", "bad", "cabdab", "---", "zz"]
"""Some without any sparse entry."""


def rows_of_sparse(found: SparseVectors) -> list[list[tuple[int, float]]]:
    assert (found.offsets.dtype, found.terms.dtype, found.weights.dtype) == (np.int64, np.int32, np.float32)
    pairs = list(zip(found.terms.tolist(), found.weights.tolist(), strict=True))
    return [pairs[first:last] for first, last in itertools.pairwise(found.offsets.tolist())]


def rows_of_tokens(found: TokenVectors) -> list[list[list[float]]]:
    assert (found.offsets.dtype, found.vectors.dtype) == (np.int64, np.float32)
    return [found.vectors[first:last].tolist() for first, last in itertools.pairwise(found.offsets)]


def rounded(row: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(term, float(np.float32(weight))) for term, weight in row]


ORDERS = {
    "as they are": list(range(9)),
    "backwards": list(range(8, -1, -1)),
    "twice": [4, 4, 0, 8, 4],
    "one": [3],
    "empty ones": [7, 1, 4],
    "none": [],
}


@pytest.mark.usefixtures("small_shards")
def test_ragged_vectors_are_gathered_in_any_order(tmp_path: Path) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, RAGGED)
    sparse = store.sparse(RaggedTeacher(), texts, "passage")
    tokens = store.tokens(RaggedTeacher(), texts, "passage")
    assert len(sparse) == len(tokens) == len(RAGGED)
    assert len(shards_under(tmp_path)) == 2 * 3
    for order in ORDERS.values():
        places = np.array(order, dtype=np.int64)
        found = rows_of_sparse(sparse.gather(places))
        assert found == [rounded(sparse_row(RAGGED[place])) for place in order]
        assert rows_of_tokens(tokens.gather(places)) == [token_rows(RAGGED[place]).tolist() for place in order]


@pytest.mark.usefixtures("small_shards")
def test_a_corpus_without_any_term_is_stored(tmp_path: Path) -> None:
    texts = ["-" * length for length in range(1, 7)]
    teacher = RaggedTeacher()
    for _ in range(2):
        stored = VectorStore(tmp_path, progress=False).sparse(teacher, column(tmp_path, texts), "passage")
        assert rows_of_sparse(stored.gather(np.array([5, 0]))) == [[], []]
    assert teacher.encoded == texts


@pytest.mark.parametrize("kind", ["sparse", "tokens"])
@pytest.mark.usefixtures("small_shards")
def test_ragged_vectors_are_resumed_and_only_new_texts_encoded(tmp_path: Path, kind: str) -> None:
    def killed(vectors: Any, texts: Sequence[str]) -> Any:
        if "bad" in texts:
            raise KeyboardInterrupt
        return vectors

    def stored(teacher: RaggedTeacher, texts: list[str], folder: Path = tmp_path) -> Any:
        return getattr(VectorStore(folder, progress=False), kind)(teacher, column(tmp_path, texts), "passage")

    with pytest.raises(KeyboardInterrupt):
        stored(RaggedTeacher(spoil=killed), RAGGED)
    continued, again = RaggedTeacher(), RaggedTeacher()
    stored(continued, RAGGED)
    assert continued.encoded == RAGGED[4:]
    found = stored(again, ["new", *RAGGED[::-1]])
    assert again.encoded == ["new"]
    if kind == "sparse":
        expected: list[Any] = [rounded(sparse_row(text)) for text in ["new", *RAGGED[::-1]]]
        assert rows_of_sparse(found.gather(np.arange(10))) == expected
    else:
        expected = [token_rows(text).tolist() for text in ["new", *RAGGED[::-1]]]
        assert rows_of_tokens(found.gather(np.arange(10))) == expected
    stored(RaggedTeacher(), RAGGED, tmp_path / "elsewhere")
    ours, theirs = ({path.name: path for path in shards_under(folder)} for folder in (tmp_path, tmp_path / "elsewhere"))
    assert theirs.keys() < ours.keys()
    for name, folder in theirs.items():
        assert all((ours[name] / file.name).read_bytes() == file.read_bytes() for file in folder.iterdir())


def test_kinds_and_roles_of_one_fingerprint_are_kept_apart(tmp_path: Path) -> None:
    store, teacher, texts = VectorStore(tmp_path, progress=False), RaggedTeacher(), column(tmp_path, RAGGED)
    store.sparse(teacher, texts, "passage")
    store.tokens(teacher, texts, "passage")
    store.sparse(teacher, texts, "query")
    assert [role for role, _ in teacher.calls] == ["passage", "passage", "query"]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64], ids=["float64", "float16", "int64"])
def test_ragged_vectors_of_any_number_format_are_float32(tmp_path: Path, dtype: Any) -> None:
    def other(vectors: Any, texts: Sequence[str]) -> Any:
        if isinstance(vectors, TokenVectors):
            return TokenVectors(vectors.offsets.astype(np.int32), vectors.vectors.astype(dtype))
        terms, weights = vectors.terms.astype(np.int64), (vectors.weights * 3).round().astype(dtype)
        return SparseVectors(vectors.offsets.tolist(), terms.tolist(), weights)  # type: ignore[arg-type]

    store, teacher, texts = VectorStore(tmp_path, progress=False), RaggedTeacher(spoil=other), column(tmp_path, RAGGED)
    found = store.tokens(teacher, texts, "passage").gather(np.array([3, 0]))
    assert rows_of_tokens(found) == [token_rows("dad").tolist(), token_rows("a").tolist()]
    sparse = store.sparse(teacher, texts, "passage").gather(np.array([3, 0]))
    assert rows_of_sparse(sparse) == [[(0, 1.0), (3, 2.0)], [(0, 1.0)]]


def with_weight(vectors: SparseVectors, value: float) -> SparseVectors:
    weights = vectors.weights.astype(np.float64)
    weights[4] = value  # the first one of 'dad'
    return replace(vectors, weights=weights)


SPOILED_SPARSE: dict[str, tuple[Callable[[Any, Sequence[str]], Any], str]] = {
    "a row too few": (
        lambda found, texts: replace(found, offsets=found.offsets[:-1]),
        r"'ragged' gave offsets of int64 with shape \(9,\) for 9 texts, expected whole numbers with shape \(10,\)",
    ),
    "offsets of another kind": (
        lambda found, texts: replace(found, offsets=found.offsets / 2),
        r"offsets of float64 with shape \(10,\) for 9 texts",
    ),
    "a term too few": (
        lambda found, texts: replace(found, terms=found.terms[1:]),
        r"offsets from 0 to 14 with \{'terms': 13, 'weights': 14\} entries, expected offsets that rise from 0",
    ),
    "offsets from 1": (lambda found, texts: replace(found, offsets=found.offsets + 1), "offsets from 1 to 15 with"),
    "offsets that fall": (
        lambda found, texts: replace(found, offsets=found.offsets[[0, 2, 1, *range(3, 10)]] * [1, 3, *[1] * 8]),
        "expected offsets that rise",
    ),
    "a negative term": (
        lambda found, texts: replace(found, terms=found.terms - 1),
        r"gave terms from -1 to 24, expected 0 to 2\*\*31 - 1",
    ),
    "a term too large": (
        lambda found, texts: replace(found, terms=found.terms.astype(np.int64) + 2**32),
        "gave terms from 4294967296 to 4294967321, expected",
    ),
    "terms that are no numbers": (
        lambda found, texts: replace(found, terms=found.terms.astype(str)),
        r"terms of <U\d+ with shape \(14,\) and weights with shape \(14,\), expected whole numbers",
    ),
    "weights in a table": (
        lambda found, texts: replace(found, weights=found.weights[:, None]),
        r"weights with shape \(14, 1\), expected whole numbers and numbers, both with shape \(14,\)",
    ),
    "weights that are no numbers": (
        lambda found, texts: replace(found, weights=found.weights.astype(str)),
        r"vectors of <U\d+, expected numbers",
    ),
    "a weight of NaN": (
        lambda found, texts: with_weight(found, np.nan),
        "NaN or infinite vectors, the first for 'dad'",
    ),
    "a weight beyond float32": (
        lambda found, texts: with_weight(found, 1e300),
        "infinite vectors, the first for 'dad'",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED_SPARSE.values(), ids=SPOILED_SPARSE)
def test_sparse_vectors_that_do_not_fit_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, RAGGED)
    with pytest.raises(TeacherError, match=message):
        store.sparse(RaggedTeacher(spoil=spoil), texts, "passage")
    assert shards_under(tmp_path) == []


def with_token(vectors: TokenVectors, value: float) -> TokenVectors:
    tokens = vectors.vectors.astype(np.float64)
    tokens[6, 1] = value  # of 'dad'
    return replace(vectors, vectors=tokens)


SPOILED_TOKENS: dict[str, tuple[Callable[[Any, Sequence[str]], Any], str]] = {
    "a row too many": (
        lambda found, texts: replace(found, offsets=[0, *found.offsets.tolist()]),
        r"offsets of int64 with shape \(11,\) for 9 texts",
    ),
    "a vector too few": (
        lambda found, texts: replace(found, vectors=found.vectors[1:]),
        r"offsets from 0 to 24 with \{'vectors': 23\} entries",
    ),
    "vectors of no width": (
        lambda found, texts: replace(found, vectors=found.vectors[:, 0]),
        r"token vectors of shape \(24,\), expected \(24, width\)",
    ),
    "a text without a vector": (
        lambda found, texts: replace(found, offsets=np.r_[0, 1, 1, found.offsets[3:]]),
        "no token vector for '-'",
    ),
    "NaN": (lambda found, texts: with_token(found, np.nan), "NaN or infinite vectors, the first for 'dad'"),
    "infinity": (lambda found, texts: with_token(found, -np.inf), "NaN or infinite vectors, the first for 'dad'"),
    "a long vector": (lambda found, texts: with_token(found, 1e17), r"length 1e\+17, at most 1e\+16 is supported"),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED_TOKENS.values(), ids=SPOILED_TOKENS)
def test_token_vectors_that_do_not_fit_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, RAGGED)
    with pytest.raises(TeacherError, match=message):
        store.tokens(RaggedTeacher(spoil=spoil), texts, "passage")
    assert shards_under(tmp_path) == []


@pytest.mark.usefixtures("small_shards")
def test_token_vectors_of_another_width_than_before_are_refused(tmp_path: Path) -> None:
    def widened(vectors: TokenVectors, texts: Sequence[str]) -> TokenVectors:
        width = 2 if "bad" not in texts else 3
        return replace(vectors, vectors=np.ones((len(vectors.vectors), width)))

    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, RAGGED)
    with pytest.raises(TeacherError, match=r"token vectors of shape \(14, 3\), expected \(14, 2\)"):
        store.tokens(RaggedTeacher(spoil=widened), texts, "passage")
    assert len(shards_under(tmp_path)) == 1
    cured = RaggedTeacher()
    store.tokens(cured, texts, "passage")
    assert cured.encoded == RAGGED[4:]


# ---- vectors that come in parts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartsTeacher(LetterTeacher):
    """Gives its vectors in parts of two, the last texts first, and may fail after some."""

    fails_after: int | None = None
    parts: Callable[[list[tuple[Any, Any]]], list[tuple[Any, Any]]] = lambda parts: parts

    def encode_parts(self, texts: Sequence[str], role: Role) -> Iterator[tuple[Any, Any]]:
        places = [np.arange(max(0, stop - 2), stop) for stop in range(len(texts), 0, -2)]
        found = [(some, self.spoil(letters([texts[place] for place in some]), texts)) for some in places]
        for number, (some, vectors) in enumerate(self.parts(found)):
            if number == self.fails_after:
                raise ConnectionError("gone")
            self.calls.append((role, [texts[int(place)] for place in np.ravel(some) if 0 <= place < len(texts)]))
            yield some, vectors


def letters(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.array([[text.count(letter) for letter in "abcd"] for text in texts], dtype=np.float32)


MANY = [f"{'abcd'[number % 4] * (number % 7 + 1)} {number}" for number in range(13)]


def parts_under(folder: Path) -> list[Path]:
    return sorted((folder / "vectors").glob("*/part-*"))


@pytest.fixture
def small_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "TEXTS_A_STREAM", 8)


def test_a_teacher_of_parts_is_a_streaming_one() -> None:
    assert isinstance(PartsTeacher(), StreamingTeacher)


@pytest.mark.parametrize("fails_after", [0, 1, 3, None])
@pytest.mark.usefixtures("small_shards", "small_streams")
def test_what_a_stream_gave_before_it_broke_is_never_asked_for_again(tmp_path: Path, fails_after: int | None) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, MANY)
    first, second, third = PartsTeacher(fails_after=fails_after), PartsTeacher(), PartsTeacher()
    if fails_after is not None:
        with pytest.raises(ConnectionError):
            store.vectors(first, texts, "passage")
        assert len(first.encoded) == 2 * fails_after
        assert len(parts_under(tmp_path)) == fails_after
    else:
        store.vectors(first, texts, "passage")
    vectors = store.vectors(second, texts, "passage")
    assert sorted(first.encoded + second.encoded) == sorted(MANY)
    np.testing.assert_array_equal(whole(vectors), letters(MANY))
    assert parts_under(tmp_path) == []
    sizes = [len(np.load(shard / "digests.npy")) for shard in shards_under(tmp_path)]
    assert sum(sizes) == 13
    assert max(sizes) <= 5  # a shard is full at 4, and parts hold 2
    store.vectors(third, texts, "passage")
    assert third.calls == []


@pytest.mark.usefixtures("small_shards")
def test_a_stream_that_gives_all_at_once_makes_a_shard(tmp_path: Path) -> None:
    teacher = PartsTeacher()
    vectors = VectorStore(tmp_path, progress=False).vectors(teacher, column(tmp_path, ["b", "ca"]), "passage")
    assert whole(vectors).tolist() == [[0, 1, 0, 0], [1, 0, 1, 0]]
    assert (len(shards_under(tmp_path)), teacher.encoded) == (1, ["b", "ca"])


@pytest.mark.parametrize("step", range(9))
@pytest.mark.usefixtures("small_shards")
def test_killed_while_parts_are_joined_nothing_is_lost(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run stops before one of its renames; the next one finds all vectors and tidies up."""
    texts = column(tmp_path, MANY)
    taken = 0

    class Killed(BaseException):
        pass

    def rename(source: Any, target: Any) -> None:
        nonlocal taken
        joining = "shard-" in Path(target).name or "part-" in Path(source).name
        taken += joining
        if joining and taken == step + 1:
            raise Killed
        renamed(source, target)

    renamed = os.rename
    monkeypatch.setattr(os, "rename", rename)
    first, second = PartsTeacher(), PartsTeacher()
    with pytest.raises(Killed):
        VectorStore(tmp_path, progress=False).vectors(first, texts, "passage")
    monkeypatch.undo()
    monkeypatch.setattr(store_module, "TEXTS_A_SHARD", 4)
    assert sorted(first.encoded) == sorted(MANY)
    vectors = VectorStore(tmp_path, progress=False).vectors(second, texts, "passage")
    assert second.calls == []
    np.testing.assert_array_equal(whole(vectors), letters(MANY))
    assert parts_under(tmp_path) == []
    digests = np.concatenate([np.load(shard / "digests.npy") for shard in shards_under(tmp_path)])
    assert len(digests) == len(np.unique(digests, axis=0)) == 13


@pytest.mark.usefixtures("small_shards")
def test_a_part_that_is_half_removed_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed_by_half(folder: Any, **_: Any) -> None:
        if "part-" in Path(folder).name:
            (Path(folder) / "digests.npy").unlink()

    texts = column(tmp_path, MANY)
    monkeypatch.setattr(store_module.shutil, "rmtree", removed_by_half)
    VectorStore(tmp_path, progress=False).vectors(PartsTeacher(), texts, "passage")
    monkeypatch.undo()
    again = PartsTeacher()
    np.testing.assert_array_equal(
        whole(VectorStore(tmp_path, progress=False).vectors(again, texts, "passage")), letters(MANY)
    )
    assert again.calls == []


@pytest.mark.usefixtures("small_shards")
def test_a_part_that_another_run_has_joined_meanwhile_is_found_in_its_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = column(tmp_path, MANY)
    with pytest.raises(ConnectionError):
        VectorStore(tmp_path, progress=False).vectors(PartsTeacher(fails_after=6), texts, "passage")
    read = store_module._read_shard
    others = iter([True])

    def joined_meanwhile(path: Path, names: tuple[str, ...]) -> Any:
        if next(others, False):
            store_module._join_parts(path.parent, names)
        return read(path, names)

    monkeypatch.setattr(store_module, "_read_shard", joined_meanwhile)
    teacher = PartsTeacher()
    vectors = VectorStore(tmp_path, progress=False).vectors(teacher, texts, "passage")
    assert teacher.encoded == MANY[:1]
    np.testing.assert_array_equal(whole(vectors), letters(MANY))


def at(number: int, positions: Any, vectors: Any = None) -> Callable[[list[tuple[Any, Any]]], list[tuple[Any, Any]]]:
    """Parts of which one is replaced."""

    def parts(given: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        given[number] = positions, given[number][1] if vectors is None else vectors
        return given

    return parts


SPOILED_PARTS: dict[str, tuple[Callable[[list[tuple[Any, Any]]], list[tuple[Any, Any]]], str]] = {
    "one is missing": (
        lambda parts: parts[:3] + parts[4:],
        "gave vectors for 11 of 13 passage texts, and none for 'bbbbbb 5'",
    ),
    "one comes twice": (lambda parts: [*parts, parts[0]], "more than one vector for one of 13 texts"),
    "one comes twice in the place of another": (at(3, np.array([11, 12])), "more than one vector for one of 13 texts"),
    "twice in a part": (at(3, np.array([6, 6])), "more than one vector for one of 13 texts"),
    "a position that is none": (at(3, np.array([5, 13])), "a vector for position 13 of 13 texts"),
    "a negative position": (at(3, np.array([-1, 5])), "a vector for position -1 of 13 texts"),
    "positions in a table": (at(3, np.array([[5, 6]])), r"positions of int64 with shape \(1, 2\), expected whole"),
    "positions between two": (at(3, np.array([5.0, 6.5])), r"positions of float64 with shape \(2,\), expected whole"),
    "a vector too few": (at(3, np.array([5, 6]), np.ones((1, 4))), r"shape \(1, 4\) for 2 texts, expected numbers"),
    "another width": (at(3, np.array([5, 6]), np.ones((2, 3))), "vectors of width 3, but 4 for earlier texts"),
    "NaN": (at(3, np.array([5, 6]), np.full((2, 4), np.nan)), "NaN or infinite vectors for 2 of 2 texts"),
}


@pytest.mark.parametrize(("parts", "message"), SPOILED_PARTS.values(), ids=SPOILED_PARTS)
@pytest.mark.usefixtures("small_shards")
def test_parts_that_do_not_fit_are_refused_and_the_others_kept(tmp_path: Path, parts: Any, message: str) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, MANY)
    with pytest.raises(TeacherError, match=message):
        store.vectors(PartsTeacher(parts=parts), texts, "passage")
    cured = PartsTeacher()
    np.testing.assert_array_equal(whole(store.vectors(cured, texts, "passage")), letters(MANY))
    kept = 13 if "comes twice" in message else 7  # the first three parts and the odd one
    assert len(cured.encoded) <= kept
    assert not set(cured.encoded) & set(MANY[7:])


def test_an_empty_part_is_fine(tmp_path: Path) -> None:
    store, texts = VectorStore(tmp_path, progress=False), column(tmp_path, MANY)
    nothing = (np.array([], dtype=np.int64), np.empty((0, 4)))
    teacher = PartsTeacher(parts=lambda parts: [nothing, *parts, nothing])
    np.testing.assert_array_equal(whole(store.vectors(teacher, texts, "passage")), letters(MANY))


def test_texts_of_an_api_are_paid_for_once_through_a_crash(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    texts = column(tmp_path, MANY)
    with OpenAIServer() as server:
        teacher = APITeacher("m", base_url=server.url, texts_a_request=2, concurrency=1, retries=0)
        asked = 0

        def fourth_fails(request: Received) -> Fault | None:
            nonlocal asked
            asked += 1
            return Fault(status=500) if asked == 4 else None

        server.fault = fourth_fails
        with pytest.raises(TeacherError):
            VectorStore(tmp_path, progress=False).vectors(teacher, texts, "passage")
        assert sum(server.paid.values()) == 6
        for _ in range(2):
            vectors = VectorStore(tmp_path, progress=False).vectors(teacher, texts, "passage")
        assert server.paid == Counter(MANY)
        expected = np.stack([server.vector(text) for text in MANY]).astype(np.float64)
    np.testing.assert_allclose(whole(vectors), expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert parts_under(tmp_path) == []


@forking
def test_texts_of_an_api_are_not_paid_for_again_after_a_kill(tmp_path: Path) -> None:
    """But for the answers that were under way."""
    pytest.importorskip("openai")

    class Killed(APITeacher):
        def encode_parts(self, texts: Sequence[str], role: Role) -> Iterator[Any]:
            for number, part in enumerate(super().encode_parts(texts, role)):
                if number == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield part

    with OpenAIServer() as server:
        teacher = Killed("m", base_url=server.url, texts_a_request=2, concurrency=1)
        texts = column(tmp_path, MANY)
        store = VectorStore(tmp_path, progress=False)
        assert exit_of(lambda: store.vectors(teacher, texts, "passage")) == -signal.SIGKILL
        before = server.paid.copy()
        assert len(parts_under(tmp_path)) == 3
        teacher = APITeacher("m", base_url=server.url, texts_a_request=2)
        VectorStore(tmp_path, progress=False).vectors(teacher, column(tmp_path, MANY), "passage")
        again = server.paid - before
    assert sorted(again) == sorted(MANY[6:])
    assert set(again.values()) == {1}
