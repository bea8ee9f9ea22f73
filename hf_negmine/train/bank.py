"""The bank: the candidates that each query's negatives are drawn from during training, memory-mapped and versioned.

Version 0 holds the survivors of a selection: the candidates that a sampler may draw from. A refresh (`refresh`) adds a
version. Every process that reads the bank sees a new version as soon as it is published, since the list of versions is
checked with every batch; the list alone decides which version counts.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hf_negmine.base.checksums import is_whole, publish_sealed, read_sealed, require_writable, write_sealed
from hf_negmine.base.files import TEMPORARY_PREFIX, read_array, scratch_folder, write_array
from hf_negmine.base.protocols import Sampler
from hf_negmine.base.randomness import KeyArray
from hf_negmine.base.schema import AnyArray, FloatArray, IdArray, PassageArray
from hf_negmine.select import Selection, Survivors, choose

VERSIONS, ABOUT = "versions.json", "bank.json"
ARRAYS = ("offsets", "passages", "scores")
Notes: TypeAlias = Mapping[str, AnyArray]


@dataclass(frozen=True)
class BankVersion:
    """The survivors of every target, as CSR.

    Attributes:
        offsets: int64, shape (targets + 1,).
        passages: int32 passage ids, by falling score within a target.
        scores: float32, same shape.
    """

    offsets: IdArray
    passages: PassageArray
    scores: FloatArray

    @classmethod
    def of(cls, selection: Selection) -> BankVersion:
        """The negatives that a selection has chosen."""
        return cls(selection.offsets, selection.passages, selection.scores)

    def draw(
        self,
        targets: IdArray,
        positive_scores: FloatArray,
        query_keys: KeyArray,
        passage_keys: KeyArray,
        sampler: Sampler,
        n: int,
        seed: int,
    ) -> tuple[IdArray, PassageArray, FloatArray]:
        """Offsets, passages and scores of up to n negatives for each of ``targets``, its places; see `choose`."""
        starts = self.offsets[targets]
        wanted = sampler.depth(n)
        counts = np.minimum(self.offsets[targets + 1] - starts, wanted)
        survivors = Survivors(self.passages, self.scores, starts, counts, np.ones(len(starts), dtype=bool))
        return choose(survivors, positive_scores, wanted, sampler, n, seed, query_keys, passage_keys)


def is_bank(folder: Path) -> bool:
    """Whether ``folder`` is empty, or holds only what a `NegativeBank` writes (even one that was killed early)."""
    known = (VERSIONS, "student")
    names = [path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)]
    return all(name in known or (name.isdigit() and (folder / name / "offsets.npy").exists()) for name in names)


class NegativeBank:
    """The versions of a bank in one folder.

    Attributes:
        folder: the folder of the bank.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[int, int] | None = None
        self._open: tuple[int, BankVersion] | None = None

    @classmethod
    def create(cls, folder: Path, first: BankVersion, notes: Notes | None = None) -> NegativeBank:
        """The bank in ``folder``; if it has no version 0 yet, ``first`` (and notes on it) becomes that."""
        bank = cls(folder)
        if not is_whole(folder / "0" / ABOUT, aside=folder / "0"):
            bank._write(0, first, notes or {})  # several processes may do so; all write the same
        return bank

    def current(self) -> tuple[int, BankVersion]:
        """The newest version with its number; checks the disk on every call."""
        try:
            status = os.stat(self.folder / VERSIONS)
            seen = (status.st_mtime_ns, status.st_ino)
        except FileNotFoundError:
            seen = None
        if self._open is None or seen != self._seen:
            versions = self.versions()
            number = versions[-1]["version"] if versions else 0
            if self._open is None or self._open[0] != number:
                self._open = (number, self._read(number))
            self._seen = seen
        return self._open

    def versions(self) -> list[dict[str, Any]]:
        """The refreshes so far: the number of each version, and what was recorded when it was published."""
        if not (self.folder / VERSIONS).exists():
            return []
        found: list[dict[str, Any]] = read_sealed(self.folder / VERSIONS)["versions"]
        return found

    def publish(self, version: BankVersion, about: dict[str, Any], notes: Notes | None = None) -> None:
        """Add a version, which takes effect at once, and store arrays (``notes``) with it.

        The list of versions records what is said ``about`` it; its ``step`` is the optimizer step it was made at.
        """
        versions = self.versions()
        number = versions[-1]["version"] + 1 if versions else 1
        shutil.rmtree(self.folder / str(number), ignore_errors=True)  # left by a run killed before listing it
        self._write(number, version, notes or {})
        self._list([*versions, {**about, "version": number}])

    def notes(self, names: Iterable[str]) -> Notes | None:
        """The named arrays stored with the newest version, None if one of them is missing."""
        folder = self.folder / str(self.current()[0])
        names = list(names)
        if not all((folder / f"{name}.npy").exists() for name in names):
            return None
        return {name: read_array(folder / f"{name}.npy") for name in names}

    def forget_after(self, step: int) -> None:
        """Remove the versions published after optimizer step ``step``, before a run resumes there."""
        versions = self.versions()
        kept = [version for version in versions if version["step"] <= step]
        if len(kept) < len(versions):
            self._list(kept)
            for version in versions[len(kept) :]:
                shutil.rmtree(self.folder / str(version["version"]), ignore_errors=True)
            self._open = None

    def _list(self, versions: list[dict[str, Any]]) -> None:
        write_sealed(self.folder / VERSIONS, {"versions": versions})

    def _write(self, number: int, version: BankVersion, notes: Notes) -> None:
        require_writable(self.folder / str(number))
        with scratch_folder(self.folder) as scratch:
            for name in ARRAYS:
                write_array(scratch / f"{name}.npy", getattr(version, name))
            for name, array in notes.items():
                write_array(scratch / f"{name}.npy", array)
            publish_sealed(scratch, self.folder / str(number), ABOUT, {})

    def _read(self, number: int) -> BankVersion:
        folder = self.folder / str(number)
        read_sealed(folder / ABOUT)
        return BankVersion(*(read_array(folder / f"{name}.npy") for name in ARRAYS))

    def __reduce__(self) -> tuple[Any, ...]:
        """Only the path: copies in other processes map the files themselves."""
        return NegativeBank, (self.folder,)
