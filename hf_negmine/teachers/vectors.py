"""Checks of what teachers return: dense, sparse and token vectors must be finite float32 of one shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_negmine.base.errors import TeacherError
from hf_negmine.base.protocols import SparseVectors, Teacher, TokenVectors, VectorTeacher
from hf_negmine.base.schema import AnyArray, BoolArray, FloatArray, IdArray

LONGEST_VECTOR = 1e18
LONGEST_TOKEN = 1e16
"""Smaller than `LONGEST_VECTOR`, since a score sums over tokens."""


def check_vectors(vectors: Any, teacher: VectorTeacher, texts: list[str], width: int | None) -> FloatArray:
    """Vectors as float32, or `TeacherError` if they are not one finite row of the expected width for each text."""
    array = as_array(vectors, teacher)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or len(array) != len(texts) or not array.shape[1]:
        raise TeacherError(
            f"teacher {teacher.name!r} gave an array of {array.dtype} with shape {array.shape} for {len(texts)} texts, "
            f"expected numbers with shape ({len(texts)}, width), at least 1 wide"
        )
    if width is not None and array.shape[1] != width:
        raise TeacherError(
            f"teacher {teacher.name!r} gave vectors of width {array.shape[1]}, but {width} for earlier texts"
        )
    with np.errstate(over="ignore"):  # a float64 beyond the range of float32 becomes infinite, and is refused below
        array = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        raise TeacherError(
            f"teacher {teacher.name!r} gave NaN or infinite vectors for {int((~finite).sum())} of {len(texts)} texts, "
            f"the first for {texts[first][:80]!r}; earlier shards are kept"
        )
    longest = float(np.linalg.norm(array.astype(np.float64), axis=1).max(initial=0.0))
    if teacher.similarity == "dot" and longest > LONGEST_VECTOR:
        raise TeacherError(
            f"teacher {teacher.name!r} gave a vector of length {longest:.3g}, at most {LONGEST_VECTOR:g} is supported: "
            "longer ones have dot products beyond the range of float32"
        )
    return array


def check_widths(queries: int, passages: int, teacher: Teacher) -> None:
    """Raise `TeacherError` unless the vectors of queries are as wide as those of passages."""
    if queries != passages:
        raise TeacherError(
            f"teacher {teacher.name!r} gave query vectors of width {queries} and passage vectors of width {passages}, "
            "expected the same"
        )


def as_array(values: Any, teacher: Teacher) -> AnyArray:
    """A teacher's output as a numpy array, or `TeacherError` if it is not one, as for rows of different lengths."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # from numpy, or from torch
        raise TeacherError(
            f"teacher {teacher.name!r} gave {type(values).__name__} that is not an array "
            f"({' '.join(str(error).split())}); expected numbers, equally many in each row"
        ) from error


def check_positions(positions: Any, left: BoolArray, teacher: Teacher) -> IdArray:
    """Positions of a part as int64, or `TeacherError` unless each is that of a text still ``left``."""
    array = as_array(positions, teacher)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise TeacherError(
            f"teacher {teacher.name!r} gave positions of {array.dtype} with shape {array.shape}, expected whole numbers"
        )
    array = array.astype(np.int64)
    outside = array[(array < 0) | (array >= len(left))]
    if len(outside):
        raise TeacherError(f"teacher {teacher.name!r} gave a vector for position {outside[0]} of {len(left)} texts")
    if len(np.unique(array)) < len(array) or not left[array].all():
        raise TeacherError(f"teacher {teacher.name!r} gave more than one vector for one of {len(left)} texts")
    return array


def check_sparse(found: SparseVectors, teacher: Teacher, texts: list[str]) -> SparseVectors:
    """The vectors, or `TeacherError` unless they are one row per text with finite weights of terms from 0 on."""
    offsets = _check_offsets(found.offsets, {"terms": found.terms, "weights": found.weights}, teacher, texts)
    terms, weights = as_array(found.terms, teacher), as_array(found.weights, teacher)
    if terms.ndim != 1 or weights.ndim != 1 or (len(terms) and terms.dtype.kind not in "iu"):
        raise TeacherError(
            f"teacher {teacher.name!r} gave terms of {terms.dtype} with shape {terms.shape} and weights with shape "
            f"{weights.shape}, expected whole numbers and numbers, both with shape ({int(offsets[-1])},)"
        )
    if len(terms) and (terms.min() < 0 or terms.max() > np.iinfo(np.int32).max):
        raise TeacherError(
            f"teacher {teacher.name!r} gave terms from {terms.min()} to {terms.max()}, expected 0 to 2**31 - 1"
        )
    return SparseVectors(offsets, terms.astype(np.int32), _finite(weights, offsets, teacher, texts))


def check_tokens(found: TokenVectors, teacher: Teacher, texts: list[str], width: int | None = None) -> TokenVectors:
    """The vectors, or `TeacherError` unless each text has at least one, finite and of the expected width."""
    offsets = _check_offsets(found.offsets, {"vectors": found.vectors}, teacher, texts)
    vectors = as_array(found.vectors, teacher)
    if vectors.ndim != 2 or not vectors.shape[1] or (width is not None and vectors.shape[1] != width):
        wanted = "width" if width is None else width
        raise TeacherError(
            f"teacher {teacher.name!r} gave token vectors of shape {vectors.shape}, expected ({int(offsets[-1])}, "
            f"{wanted})"
        )
    empty = np.flatnonzero(np.diff(offsets) < 1)
    if len(empty):
        raise TeacherError(f"teacher {teacher.name!r} gave no token vector for {texts[empty[0]][:80]!r}")
    vectors = _finite(vectors, offsets, teacher, texts)
    longest = float(np.linalg.norm(vectors.astype(np.float64), axis=1).max(initial=0.0))
    if longest > LONGEST_TOKEN:
        raise TeacherError(
            f"teacher {teacher.name!r} gave a token vector of length {longest:.3g}, at most {LONGEST_TOKEN:g} is "
            "supported: scores of longer ones are beyond the range of float32"
        )
    return TokenVectors(offsets, vectors)


def _check_offsets(offsets: Any, entries: dict[str, Any], teacher: Teacher, texts: list[str]) -> IdArray:
    array = as_array(offsets, teacher)
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) != len(texts) + 1:
        raise TeacherError(
            f"teacher {teacher.name!r} gave offsets of {array.dtype} with shape {array.shape} for {len(texts)} texts, "
            f"expected whole numbers with shape ({len(texts) + 1},)"
        )
    array = array.astype(np.int64)
    lengths = {name: len(values) for name, values in entries.items()}
    if array[0] != 0 or (np.diff(array) < 0).any() or any(length != array[-1] for length in lengths.values()):
        raise TeacherError(
            f"teacher {teacher.name!r} gave offsets from {array[0]} to {array[-1]} with {lengths} entries, expected "
            "offsets that rise from 0 to the number of entries"
        )
    return array


def _finite(values: AnyArray, offsets: IdArray, teacher: Teacher, texts: list[str]) -> FloatArray:
    if values.dtype.kind not in "fiu":
        raise TeacherError(f"teacher {teacher.name!r} gave vectors of {values.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # a float64 beyond the range of float32 becomes infinite, and is refused below
        numbers = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(numbers) if numbers.ndim == 1 else np.isfinite(numbers).all(axis=1)
    if not finite.all():
        first = int(np.searchsorted(offsets, np.flatnonzero(~finite)[0], side="right")) - 1
        raise TeacherError(
            f"teacher {teacher.name!r} gave NaN or infinite vectors, the first for {texts[first][:80]!r}; earlier "
            "shards are kept"
        )
    return numbers


def unit_length(vectors: FloatArray) -> FloatArray:
    """Vectors scaled to length 1 in float64, so that their dot product is the cosine; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
