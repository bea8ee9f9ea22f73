"""Vectors of users and their teachers that are none: refused where they come in, by one error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_negmine import ApproximateTeacher, EncodeFunction, FixedTeacher, NegativeMiner
from hf_negmine.base.errors import InputError, NegmineError, TeacherError
from hf_negmine.base.protocols import Role
from hf_negmine.teachers import resolve_teacher

ROWS = [{"query": f"query {i}", "positive": f"positive {i}"} for i in range(6)]
QUERIES, POSITIVES = [row["query"] for row in ROWS], [row["positive"] for row in ROWS]
VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
RAGGED = [[1.0, 2.0], [1.0]] * 3


def fit(teacher: Any, folder: Path, **settings: Any) -> NegativeMiner:
    given: dict[str, Any] = {"method": "naive", "num_negatives": 2, "progress": False, "device": "cpu", **settings}
    return NegativeMiner(teacher, cache_dir=folder, **given).fit(ROWS)


def fixed(**changed: Any) -> FixedTeacher:
    given = {"query_texts": QUERIES, "query_vectors": VECTORS, "passage_texts": POSITIVES, "passage_vectors": VECTORS}
    return FixedTeacher(**{**given, **changed})


GIVEN: dict[str, tuple[Any, str]] = {
    "ragged": (RAGGED, r"vectors of shape \(6, width\), got list: .*inhomogeneous"),
    "no width": (np.empty((6, 0)), r"got \(6, 0\) of float64"),
    "one axis": (np.zeros(6), r"got \(6,\)"),
    "three axes": (np.zeros((6, 2, 2)), r"got \(6, 2, 2\)"),
    "objects": (np.full((6, 2), "a", dtype=object), r"of numbers, got \(6, 2\) of object"),
    "text": (np.full((6, 2), "a"), r"of numbers, got \(6, 2\) of <U1"),
    "complex": (VECTORS.astype(complex), r"of numbers, got \(6, 4\) of complex128"),
    "booleans": (VECTORS > 0, r"of numbers, got \(6, 4\) of bool"),
    "too few": (VECTORS[:5], r"6 query texts need vectors of shape \(6, width\), got \(5, 4\)"),
}


@pytest.mark.parametrize(("vectors", "message"), GIVEN.values(), ids=GIVEN)
def test_given_vectors_that_are_none_are_refused(vectors: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fixed(query_vectors=vectors)
    assert "\n" not in str(caught.value)


def test_given_texts_that_are_none_are_refused(tmp_path: Path) -> None:
    for wrong, message in ((7, "expected text"), (None, "1 are null, expected text"), ("\ud800", "valid UTF-8")):
        with pytest.raises(InputError, match=f"^fixed: the query texts: .*{message}"):
            fixed(query_texts=[*QUERIES[:5], wrong])
    with pytest.raises(InputError, match=r"^fixed: query vectors are 3 wide, passage vectors 4$"):
        fixed(query_vectors=VECTORS[:, :3])
    with pytest.raises(TeacherError, match=r"fixed has no vector for 1 of 6 passage texts, the first is 'positive 5'"):
        fit(fixed(passage_texts=POSITIVES[:5], passage_vectors=VECTORS[:5]), tmp_path)


def test_a_text_with_two_vectors_is_refused_and_one_that_is_there_twice_is_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the passage text 'positive 0' is given more than once, with different"):
        fixed(passage_texts=[*POSITIVES, POSITIVES[0]], passage_vectors=np.concatenate([VECTORS, VECTORS[1:2]]))
    twice = fixed(passage_texts=[*POSITIVES, POSITIVES[0]], passage_vectors=np.concatenate([VECTORS, VECTORS[:1]]))
    np.testing.assert_array_equal(twice.encode(POSITIVES, "passage"), VECTORS)


def write(folder: Path, name: str, **columns: Any) -> None:
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def test_a_folder_of_vectors_is_read_and_what_is_wrong_with_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "queries", text=QUERIES, vector=VECTORS.tolist())
    with pytest.raises(InputError, match=r"passages\.parquet does not exist, expected Parquet with the columns"):
        resolve_teacher("fixed:~")
    write(tmp_path, "passages", text=POSITIVES, vector=VECTORS.tolist())
    (tmp_path / "notes.txt").write_text("other files do no harm")
    assert fit("fixed:~", tmp_path / "cache").is_fitted
    broken: list[Any] = [RAGGED, [*VECTORS.tolist()[:5], None], [], [1.0] * 6, ["a"] * 6]
    for vectors in broken:
        write(tmp_path, "passages", text=POSITIVES[: len(vectors)], vector=vectors)
        with pytest.raises(InputError, match=r"passage") as caught:
            FixedTeacher.from_folder(tmp_path)
        assert "\n" not in str(caught.value)
    write(tmp_path, "passages", text=POSITIVES)
    with pytest.raises(InputError, match=r"expected a Parquet file with the columns text and vector"):
        FixedTeacher.from_folder(tmp_path)
    for folder in ("a\0b", "", 5):
        with pytest.raises(InputError, match=r"^fixed: expected the path of a folder"):
            FixedTeacher.from_folder(folder)  # type: ignore[arg-type]


ENCODED: dict[str, tuple[Any, str]] = {
    "ragged": (lambda texts: [[1.0, 2.0], [1.0]] * (len(texts) // 2), "gave list that is not an array"),
    "no width": (lambda texts: np.empty((len(texts), 0)), r"with shape \(6, 0\) for 6 texts"),
    "one axis": (lambda texts: np.zeros(len(texts)), r"with shape \(6,\)"),
    "objects": (lambda texts: np.full((len(texts), 2), None), "an array of object"),
    "complex": (lambda texts: np.ones((len(texts), 2)) * 1j, "an array of complex128"),
    "booleans": (lambda texts: np.ones((len(texts), 2), dtype=bool), "an array of bool"),
    "one row too few": (lambda texts: np.ones((len(texts) - 1, 2)), r"with shape \(5, 2\) for 6 texts"),
    "nothing": (lambda texts: None, "an array of object"),
    "not a number": (lambda texts: np.full((len(texts), 2), np.nan), "NaN or infinite vectors for 6 of 6 texts"),
}


class Encoding:
    """A teacher that is no more than the protocol."""

    name = "own"
    similarity = "dot"

    def __init__(self, encode: Any) -> None:
        self._encode = encode

    def fingerprint(self, role: Role) -> str:
        return f"own {role}"

    def encode(self, texts: list[str], role: Role) -> Any:
        return self._encode(texts)


@pytest.mark.parametrize("kind", ["function", "object"])
@pytest.mark.parametrize(("encode", "message"), ENCODED.values(), ids=ENCODED)
def test_what_a_teacher_gives_instead_of_vectors_is_refused(
    tmp_path: Path, encode: Any, message: str, kind: str
) -> None:
    teacher = EncodeFunction(encode, version="1") if kind == "function" else Encoding(encode)
    with pytest.raises(TeacherError, match=message) as caught:
        fit(teacher, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_queries_of_another_width_than_passages_are_refused(tmp_path: Path, approximate: bool, similarity: Any) -> None:
    teacher = EncodeFunction(
        lambda texts: np.ones((len(texts), 4)), lambda texts: np.ones((len(texts), 3)), similarity, version="1"
    )
    with pytest.raises(
        TeacherError, match=r"gave query vectors of width 3 and passage vectors of width 4, expected the same"
    ):
        fit(ApproximateTeacher(teacher, "Flat") if approximate else teacher, tmp_path)


def test_the_probe_of_a_function_that_gives_no_vectors_is_an_error_of_ours(tmp_path: Path) -> None:
    for encode, _ in ENCODED.values():
        with pytest.raises(NegmineError):
            fit(EncodeFunction(encode), tmp_path)
