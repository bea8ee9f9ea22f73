"""The vector store: a teacher's vectors for each text, stored once, on disk, read by memory map.

Each (teacher fingerprint, role) has a folder with shards of at most `TEXTS_A_SHARD` texts, each with the digests of its
texts. What a shard holds depends on the kind of vectors: dense ones form one matrix, sparse and token vectors are
ragged. A shard appears whole or not at all, so a killed run loses at most the shard in progress, and adding texts
encodes only the new ones. The order in which missing texts are encoded depends only on the texts, so a continued run
makes the same shards. Vectors that cost money arrive in parts, and each part is stored at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_negmine.base.checksums import is_whole, publish_sealed, require_writable, write_sealed
from hf_negmine.base.errors import InputError, StorageError, TeacherError, require_choice
from hf_negmine.base.files import (
    TEMPORARY_PREFIX,
    digest_of,
    is_read_only,
    read_array,
    scratch_folder,
    storage_errors,
    write_array,
)
from hf_negmine.base.progress import bar
from hf_negmine.base.protocols import (
    Role,
    SparseTeacher,
    StreamingTeacher,
    Teacher,
    TokenTeacher,
    VectorTeacher,
)
from hf_negmine.base.schema import DigestArray, IdArray
from hf_negmine.data.texts import TextColumn, find_digests, sort_digests
from hf_negmine.teachers.stored import Arrays, StoredSparse, StoredTokens, StoredVectors
from hf_negmine.teachers.vectors import check_positions, check_sparse, check_tokens, check_vectors, unit_length

ABOUT, SHARD = "store.json", "shard.json"
TEXTS_A_SHARD = 2048
TEXTS_A_STREAM = 65_536
"""Texts that a streaming teacher is given at a time; it decides itself how many go into a request."""
MANY_TEXTS = 256
"""Texts from which on the bar appears before the first shard, which takes over a minute on a slow processor."""


@dataclass(frozen=True)
class VectorStore:
    """Vectors of every text that was ever encoded under one cache folder.

    Attributes:
        folder: the cache folder.
        progress: whether to show a bar while encoding.
    """

    folder: Path
    progress: bool = True

    def vectors(self, teacher: VectorTeacher, texts: TextColumn, role: Role) -> StoredVectors:
        """Dense vectors of all ``texts``, encoding those that the store lacks.

        Raises:
            TeacherError: vectors are not finite or not of one width; nothing of that shard is stored.
            StorageError: the folder cannot be written, or has another version. A damaged shard is set aside, and its
                texts are encoded again.
        """
        require_choice(teacher.similarity, ("cosine", "dot"), argument=f"similarity of teacher {teacher.name!r}")

        def encode(batch: list[str], known: Arrays | None) -> Iterator[tuple[IdArray, Arrays]]:
            width = None if known is None else known["vectors"].shape[1]
            left = np.ones(len(batch), dtype=bool)
            if isinstance(teacher, StreamingTeacher):
                parts = teacher.encode_parts(batch, role)
            else:
                parts = iter([(np.arange(len(batch)), teacher.encode(batch, role))])
            for given, found in parts:
                positions = check_positions(given, left, teacher)
                vectors = check_vectors(found, teacher, [batch[place] for place in positions], width)
                width = vectors.shape[1]
                left[positions] = False
                yield positions, {"vectors": unit_length(vectors) if teacher.similarity == "cosine" else vectors}
            if left.any():
                first = batch[int(np.flatnonzero(left)[0])]
                raise TeacherError(
                    f"teacher {teacher.name!r} gave vectors for {int((~left).sum())} of {len(batch)} {role} texts, and "
                    f"none for {first[:80]!r}"
                )

        step = TEXTS_A_STREAM if isinstance(teacher, StreamingTeacher) else None
        return StoredVectors(*self._complete(teacher, teacher.similarity, texts, role, ("vectors",), encode, step))

    def sparse(self, teacher: SparseTeacher, texts: TextColumn, role: Role) -> StoredSparse:
        """Sparse vectors of all ``texts``; raises what `vectors` raises."""

        def encode(batch: list[str], known: Arrays | None) -> Iterator[tuple[IdArray, Arrays]]:
            found = check_sparse(teacher.encode_sparse(batch, role), teacher, batch)
            yield np.arange(len(batch)), {"offsets": found.offsets, "terms": found.terms, "weights": found.weights}

        return StoredSparse(*self._complete(teacher, "sparse", texts, role, ("offsets", "terms", "weights"), encode))

    def tokens(self, teacher: TokenTeacher, texts: TextColumn, role: Role) -> StoredTokens:
        """Token vectors of all ``texts``; raises what `vectors` raises."""

        def encode(batch: list[str], known: Arrays | None) -> Iterator[tuple[IdArray, Arrays]]:
            width = None if known is None else known["vectors"].shape[1]
            found = check_tokens(teacher.encode_tokens(batch, role), teacher, batch, width)
            yield np.arange(len(batch)), {"offsets": found.offsets, "vectors": found.vectors}

        return StoredTokens(*self._complete(teacher, "tokens", texts, role, ("offsets", "vectors"), encode))

    def _complete(
        self,
        teacher: Teacher,
        kind: str,
        texts: TextColumn,
        role: Role,
        names: tuple[str, ...],
        encode: Callable[[list[str], Arrays | None], Iterator[tuple[IdArray, Arrays]]],
        step: int | None = None,
    ) -> tuple[list[Arrays], IdArray, IdArray]:
        """The shards, with everything that was missing, and the shard and row of each text."""
        folder = self._open_folder(teacher, kind, role)
        _join_parts(folder, names)  # left by a killed run; there may be more than a process can map
        own = [folder / name for name in shard_names(texts)]
        shards, index = self._read_shards(folder, names, own)
        missing = np.flatnonzero(index.find(texts.digests)[0] < 0)
        if len(missing):
            require_writable(folder / f"shard of {len(missing):,} {role} texts")
            self._encode_missing(
                folder, texts, missing, role, encode, step or TEXTS_A_SHARD, shards[0] if shards else None
            )
            _join_parts(folder, names)
            shards, index = self._read_shards(folder, names, own)
        if not shards:
            raise InputError(f"no {role} texts to encode")
        shard_of, row_of = index.find(texts.digests)
        if (shard_of < 0).any():
            raise StorageError(f"{folder} lost {int((shard_of < 0).sum())} vectors while it was in use; run again")
        return shards, shard_of, row_of

    def _open_folder(self, teacher: Teacher, kind: str, role: Role) -> Path:
        fingerprint = teacher.fingerprint(role)
        key = digest_of("vectors", fingerprint, role, kind)
        folder = self.folder / "vectors" / key
        if not is_whole(folder / ABOUT, aside=folder / ABOUT):
            require_writable(folder / ABOUT)
            about = {"teacher": teacher.name, "role": role, "similarity": kind, "fingerprint": fingerprint}
            write_sealed(folder / ABOUT, about)
        return folder

    def _read_shards(self, folder: Path, names: tuple[str, ...], own: list[Path]) -> tuple[list[Arrays], _ShardIndex]:
        """The shards ``own`` if all are there, and else all shards, among which the texts may be spread."""
        shards: list[Arrays] = []
        digests: list[DigestArray] = []
        for path in _whole_shards(folder, own):
            try:
                shard, its_digests = _read_shard(path, names)
            except StorageError:
                if path.exists():
                    raise
                return self._read_shards(folder, names, own)  # another run has joined it with others meanwhile
            width = shard.get("vectors", its_digests).shape[1]
            if shards and "vectors" in shard and width != shards[0]["vectors"].shape[1]:
                raise StorageError(
                    f"{path} has vectors of width {width}, the others {shards[0]['vectors'].shape[1]}; delete it"
                )
            shards.append(shard)
            digests.append(its_digests)
        return shards, _ShardIndex.of(digests)

    def _encode_missing(
        self,
        folder: Path,
        texts: TextColumn,
        missing: IdArray,
        role: Role,
        encode: Callable[[list[str], Arrays | None], Iterator[tuple[IdArray, Arrays]]],
        step: int,
        known: Arrays | None,
    ) -> None:
        delay = 1 if len(missing) < MANY_TEXTS else 0
        what = "Encoding queries" if role == "query" else "Encoding passages"
        with bar(what, "texts", len(missing), shown=self.progress, delay=delay) as encoded:
            for start in range(0, len(missing), step):
                ids = missing[start : start + step]
                for positions, arrays in encode(texts.take(ids).to_pylist(), known):
                    known = known or arrays
                    whole = len(positions) == len(ids) <= TEXTS_A_SHARD
                    _write_shard(folder, "shard" if whole else "part", texts.digests[ids[positions]], arrays)
                    encoded.update(len(positions))


def _write_shard(folder: Path, kind: str, digests: DigestArray, arrays: Arrays) -> None:
    with scratch_folder(folder) as shard:
        for name, array in arrays.items():
            write_array(shard / f"{name}.npy", array)
        write_array(shard / "digests.npy", digests)
        publish_sealed(shard, folder / _name(kind, digests), SHARD, {})


def shard_names(texts: TextColumn) -> list[str]:
    """The names of the shards of a column whose texts were all encoded for it, and none for another column."""
    starts = range(0, len(texts), TEXTS_A_SHARD)
    return [_name("shard", texts.digests[start : start + TEXTS_A_SHARD]) for start in starts]


def _name(kind: str, digests: DigestArray) -> str:
    return f"{kind}-{digest_of(digests)}"


def _whole_shards(folder: Path, own: Sequence[Path] = ()) -> list[Path]:
    """The shards ``own`` if all are there, and else all shards of the folder, then the parts.

    Damaged ones are set aside, so that their texts count as missing.
    """
    while True:
        paths = list(own)
        if not paths or not all(path.exists() for path in paths):
            paths = [path for kind in ("shard-*", "part-*") for path in sorted(folder.glob(kind))]
        if not [path for path in paths if not is_whole(path / SHARD, aside=path)]:  # else look again at what is left
            return paths


def _read_shard(path: Path, names: tuple[str, ...]) -> tuple[Arrays, DigestArray]:
    shard = {name: read_array(path / f"{name}.npy") for name in names}
    return shard, np.array(read_array(path / "digests.npy"))  # a copy: the number of maps per process is limited


def _join_parts(folder: Path, names: tuple[str, ...]) -> None:
    """Join the small shards of a streaming teacher into larger ones.

    If it is killed, some texts are stored twice until the next run, which removes the parts.
    """
    if is_read_only(folder) or not next(folder.glob("part-*"), None):
        return
    shards = _whole_shards(folder)
    parts = [path for path in shards if path.name.startswith("part-")]
    joined = _ShardIndex.of([read_array(shard / "digests.npy") for shard in shards[: len(shards) - len(parts)]])
    some: list[tuple[Path, Arrays, DigestArray]] = []
    texts = 0
    for path in parts:
        try:
            shard, digests = _read_shard(path, names)
        except StorageError:
            if path.exists():
                raise
            continue
        if (joined.find(digests)[0] >= 0).all():
            _remove(path)
            continue
        some.append((path, shard, digests))
        texts += len(digests)
        if texts >= TEXTS_A_SHARD:
            _join(folder, some)
            some, texts = [], 0
    if some:
        _join(folder, some)


def _join(folder: Path, parts: list[tuple[Path, Arrays, DigestArray]]) -> None:
    arrays = {name: np.concatenate([shard[name] for _, shard, _ in parts]) for name in parts[0][1]}
    _write_shard(folder, "shard", np.concatenate([digests for _, _, digests in parts]), arrays)
    for path, _, _ in parts:
        _remove(path)


def _remove(part: Path) -> None:
    """Rename a part to a name that nothing reads, then delete it, so that it is never seen half deleted."""
    with storage_errors(part), suppress(FileNotFoundError):  # another run was faster
        gone = part.with_name(TEMPORARY_PREFIX + part.name)
        os.rename(part, gone)
        shutil.rmtree(gone, ignore_errors=True)


@dataclass(frozen=True)
class _ShardIndex:
    """The location of each text digest's vector, over all shards."""

    digests: DigestArray
    shard_of: IdArray
    row_of: IdArray

    @classmethod
    def of(cls, digests: list[DigestArray]) -> _ShardIndex:
        everything = np.concatenate(digests) if digests else np.empty((0, 2), dtype=np.uint64)
        sizes = np.array([len(part) for part in digests], dtype=np.int64)
        shard_of = np.repeat(np.arange(len(sizes)), sizes)
        row_of = np.concatenate([np.arange(size) for size in sizes]) if len(sizes) else np.empty(0, dtype=np.int64)
        order, ordered = sort_digests(everything)
        return cls(ordered, shard_of[order], row_of[order])

    def find(self, digests: DigestArray) -> tuple[IdArray, IdArray]:
        """The shard and row of each text digest, -1 where there is none."""
        at = find_digests(self.digests, digests)
        shard_of, row_of = np.full(len(digests), -1, dtype=np.int64), np.full(len(digests), -1, dtype=np.int64)
        known = at >= 0
        shard_of[known], row_of[known] = self.shard_of[at[known]], self.row_of[at[known]]
        return shard_of, row_of


def writable_folder(folder: Path) -> Path:
    """``folder``, created if needed, or `StorageError` if it cannot be written to."""
    with scratch_folder(folder):
        return folder
