"""The vector store: what a teacher made of each text, once, on disk, read by memory map.

A folder a (teacher fingerprint, role); in it shards of at most `TEXTS_A_SHARD` vectors, each with the digests of its
texts. A shard appears whole or not at all, so a run that is killed loses at most the shard in progress, and adding
texts encodes only the new ones. The order in which missing texts are encoded depends only on the texts, so a continued
run makes the same shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_negmine.errors import InputError, StorageError, TeacherError, require_choice
from hf_negmine.files import (
    digest_of,
    publish_folder,
    read_array,
    read_versioned_json,
    scratch_folder,
    storage_errors,
    write_array,
    write_json,
)
from hf_negmine.protocols import Role, VectorTeacher
from hf_negmine.schema import FORMAT_VERSION, DigestArray, FloatArray, IdArray
from hf_negmine.texts import TextColumn, find_digests

TEXTS_A_SHARD = 2048
LONGEST_VECTOR = 1e18


class StoredVectors:
    """Vectors of a list of texts, spread over shards; row i belongs to text i."""

    def __init__(self, shards: list[FloatArray], shard_of: IdArray, row_of: IdArray, width: int) -> None:
        self._shards, self._shard_of, self._row_of = shards, shard_of, row_of
        self.shape = (len(row_of), width)

    def slice(self, start: int, stop: int) -> FloatArray:
        """Rows start to stop, float32."""
        return self.gather(np.arange(start, min(stop, len(self._row_of))))

    def gather(self, ids: np.ndarray[Any, Any]) -> FloatArray:
        """Rows with these ids, in this order, float32."""
        vectors = np.empty((len(ids), self.shape[1]), dtype=np.float32)
        shard_of, row_of = self._shard_of[ids], self._row_of[ids]
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            vectors[here] = self._shards[shard][row_of[here]]
        return vectors


@dataclass(frozen=True)
class VectorStore:
    """Vectors of every text that was ever encoded under one cache folder.

    Attributes:
        folder: where they are kept.
        progress: show a bar while encoding.
    """

    folder: Path
    progress: bool = True

    def vectors(self, teacher: VectorTeacher, texts: TextColumn, role: Role) -> StoredVectors:
        """Vectors of all ``texts``, encoding those that the store lacks.

        Raises:
            TeacherError: vectors that are not finite or not of one width; nothing of that shard is stored.
            StorageError: the folder cannot be written, is damaged, or is of another version.
        """
        require_choice(teacher.similarity, ("cosine", "dot"), argument=f"similarity of teacher {teacher.name!r}")
        folder = self._open_folder(teacher, role)
        shards, index = self._read_shards(folder)
        missing = np.flatnonzero(index.find(texts.digests)[0] < 0)
        self._encode_missing(folder, teacher, texts, missing, role, width=shards[0].shape[1] if shards else None)
        if len(missing):
            shards, index = self._read_shards(folder)
        if not shards:
            raise InputError(f"no {role} texts to encode")
        shard_of, row_of = index.find(texts.digests)
        if (shard_of < 0).any():
            raise StorageError(f"{folder} lost {int((shard_of < 0).sum())} vectors while it was used; run again")
        return StoredVectors(shards, shard_of, row_of, shards[0].shape[1])

    def _open_folder(self, teacher: VectorTeacher, role: Role) -> Path:
        fingerprint = teacher.fingerprint(role)
        key = digest_of("vectors", fingerprint, role, teacher.similarity)
        folder = self.folder / "vectors" / key
        about = folder / "store.json"
        if about.exists():
            read_versioned_json(about)
        else:
            write_json(
                about,
                {
                    "format_version": FORMAT_VERSION,
                    "teacher": teacher.name,
                    "role": role,
                    "similarity": teacher.similarity,
                    "fingerprint": fingerprint,
                },
            )
        return folder

    def _read_shards(self, folder: Path) -> tuple[list[FloatArray], _ShardIndex]:
        shards: list[FloatArray] = []
        digests: list[DigestArray] = []
        for shard in sorted(folder.glob("shard-*")):
            vectors, its_digests = read_array(shard / "vectors.npy"), read_array(shard / "digests.npy")
            if len(vectors) != len(its_digests) or vectors.ndim != 2:
                raise StorageError(
                    f"{shard} is damaged: {len(vectors)} vectors for {len(its_digests)} texts; delete it and run again"
                )
            if shards and vectors.shape[1] != shards[0].shape[1]:
                raise StorageError(
                    f"{shard} has vectors of width {vectors.shape[1]}, the others {shards[0].shape[1]}; delete it"
                )
            shards.append(vectors)
            digests.append(its_digests)
        return shards, _ShardIndex.of(digests)

    def _encode_missing(
        self, folder: Path, teacher: VectorTeacher, texts: TextColumn, missing: IdArray, role: Role, width: int | None
    ) -> None:
        if not len(missing):
            return
        with tqdm(
            total=len(missing), desc=f"Encoding {role} texts", unit=" texts", disable=not self.progress, delay=1
        ) as progress:
            for start in range(0, len(missing), TEXTS_A_SHARD):
                ids = missing[start : start + TEXTS_A_SHARD]
                batch = texts.take(ids).to_pylist()
                vectors = check_vectors(teacher.encode(batch, role), teacher, batch, width)
                width = vectors.shape[1]
                if teacher.similarity == "cosine":
                    vectors = unit_length(vectors)
                digests = texts.digests[ids]
                with scratch_folder(folder) as shard:
                    write_array(shard / "vectors.npy", vectors)
                    write_array(shard / "digests.npy", digests)
                    publish_folder(shard, folder / f"shard-{digest_of(digests)}")
                progress.update(len(ids))


@dataclass(frozen=True)
class _ShardIndex:
    """Where the vector of a text digest lies, over all shards."""

    digests: DigestArray
    shard_of: IdArray
    row_of: IdArray

    @classmethod
    def of(cls, digests: list[DigestArray]) -> _ShardIndex:
        everything = np.concatenate(digests) if digests else np.empty((0, 2), dtype=np.uint64)
        sizes = np.array([len(part) for part in digests], dtype=np.int64)
        shard_of = np.repeat(np.arange(len(sizes)), sizes)
        row_of = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else np.empty(0, dtype=np.int64)
        order = np.lexsort((everything[:, 1], everything[:, 0]))
        return cls(everything[order], shard_of[order], row_of[order])

    def find(self, digests: DigestArray) -> tuple[IdArray, IdArray]:
        """Shard and row of each text digest, -1 where there is none."""
        at = find_digests(self.digests, digests)
        shard_of, row_of = np.full(len(digests), -1, dtype=np.int64), np.full(len(digests), -1, dtype=np.int64)
        known = at >= 0
        shard_of[known], row_of[known] = self.shard_of[at[known]], self.row_of[at[known]]
        return shard_of, row_of


def check_vectors(vectors: Any, teacher: VectorTeacher, texts: list[str], width: int | None) -> FloatArray:
    """Vectors as float32, or `TeacherError` if they are not one finite row of the expected width for each text."""
    array = np.asarray(vectors)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or len(array) != len(texts):
        raise TeacherError(
            f"teacher {teacher.name!r} gave an array of {array.dtype} with shape {array.shape} for {len(texts)} texts, "
            f"expected numbers with shape ({len(texts)}, width)"
        )
    if width is not None and array.shape[1] != width:
        raise TeacherError(
            f"teacher {teacher.name!r} gave vectors of width {array.shape[1]}, and {width} for earlier texts"
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


def unit_length(vectors: FloatArray) -> FloatArray:
    """Vectors scaled to length 1 in float64, so that their dot product is the cosine; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)


def writable_folder(folder: Path) -> Path:
    """``folder``, created if needed, or `StorageError` if it cannot be written to."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / ".writable.json", {"format_version": FORMAT_VERSION})
        (folder / ".writable.json").unlink()
    return folder
