"""Filters out candidates that nearly repeat a positive or a better candidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from hf_negmine.base.choices import ComparedBy
from hf_negmine.base.errors import InputError, require, require_choice, require_finite
from hf_negmine.base.files import text_digests
from hf_negmine.base.protocols import VectorTeacher
from hf_negmine.base.ragged import flat_positions
from hf_negmine.base.schema import AnyArray, BoolArray, IdArray
from hf_negmine.data.texts import TextColumn
from hf_negmine.select.filters.base import Bound, BoundFilter, Listed, Scene
from hf_negmine.select.filters.minhash import PERMUTATIONS, Signatures, load_datasketch
from hf_negmine.teachers import identity_of, resolve_teacher, without_index
from hf_negmine.teachers.stored import StoredVectors
from hf_negmine.teachers.vectors import check_vectors

PLACES = 64
"""Block size: this many entries of a list are compared with as many others at a time."""
STEP_BYTES = 2**26
DOUBT = 1e-6
"""Cosines from a matrix product that are this close to the threshold are computed again one by one."""


@dataclass(frozen=True)
class NearDuplicates:
    """Drops a candidate that says nearly the same as a positive of its query, or as a better candidate that stays.

    A near duplicate of a positive is an unlabeled positive; near duplicates among the negatives teach the same thing
    twice. In a group of near duplicates, the best-ranked one that earlier filters have kept stays; if a later filter or
    a judge drops it, the others do not come back.

    Attributes:
        threshold: two passages at least this similar are near duplicates; over 0 and at most 1.
        of: drop near duplicates of ``"positives"`` (all those of the query, whichever sets its ceiling), of better
            ``"negatives"``, or of ``"both"``.
        by: ``"cosine"`` of the passages' vectors; or ``"minhash"``, the estimated Jaccard similarity of their sets of
            three successive words in lower case (Broder 1997), which finds copied text, not paraphrases. The error is
            about 0.02 near a threshold of 0.95. It needs words with spaces between them, and the package datasketch.
        teacher: the teacher whose vectors are compared; None takes the mining teacher.
    """

    threshold: float = 0.95
    of: Literal["positives", "negatives", "both"] = field(default="both", kw_only=True)
    by: ComparedBy = field(default="cosine", kw_only=True)
    teacher: Any = field(default=None, kw_only=True)
    _kept: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_finite(self.threshold, "NearDuplicates: threshold")
        object.__setattr__(self, "threshold", float(self.threshold))
        require(0 < self.threshold <= 1, f"NearDuplicates: threshold over 0 and at most 1, got {self.threshold:g}")
        require_choice(self.of, ("positives", "negatives", "both"), argument="NearDuplicates: of")
        require_choice(self.by, get_args(ComparedBy), argument="NearDuplicates: by")
        if self.by == "minhash":
            require(self.teacher is None, "NearDuplicates: by='minhash' compares words, but teacher= makes vectors")
            load_datasketch()
        elif self.teacher is not None:
            object.__setattr__(self, "teacher", without_index(resolve_teacher(self.teacher)))
            require(
                isinstance(self.teacher, VectorTeacher),
                f"NearDuplicates: teacher {self.teacher.name} has no vector per passage, expected a dense one",
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be opened or computed again."""
        return {**self.__dict__, "_kept": {}}

    @property
    def settings(self) -> dict[str, Any]:
        """See `Filter`."""
        settings = {"filter": str(self), "threshold": self.threshold, "of": self.of, "by": self.by}
        if self.by == "minhash":
            return {**settings, "datasketch": version("datasketch")}  # another version may hash differently
        return settings if self.teacher is None else {**settings, **identity_of(self.teacher)}

    def bind(self, scene: Scene) -> BoundFilter:
        """See `Filter`.

        Raises:
            InputError: the mining teacher has no vectors, and no other teacher was given.
        """
        space: _CosineSpace | _WordSpace
        if self.by == "minhash":
            signatures = self._kept.setdefault("signatures", Signatures())
            space = _WordSpace(scene.corpus, signatures, self.threshold)
        else:
            teacher = without_index(scene.teacher) if self.teacher is None else self.teacher
            if not isinstance(teacher, VectorTeacher):
                raise InputError(
                    f"NearDuplicates: {teacher.name} has no vector per passage to take the cosine of; give a dense "
                    "teacher=, or by='minhash'"
                )
            space = _CosineSpace(teacher, self._vectors(teacher, scene), self.threshold)
        return Bound(str(self), _Comparison(space, scene, self.of).keep)

    def _vectors(self, teacher: VectorTeacher, scene: Scene) -> StoredVectors:
        """Opened once per corpus: rows that are mined on the fly bind the filter for each batch."""
        key = (str(scene.indexes.store.folder), str(scene.corpus.folder), teacher.fingerprint("passage"))
        if key not in self._kept:
            self._kept[key] = scene.indexes.store.vectors(teacher, scene.corpus, "passage")
        vectors: StoredVectors = self._kept[key]
        return vectors

    def __str__(self) -> str:
        of = "positives or negatives" if self.of == "both" else self.of
        by = self.by if self.teacher is None else f"{self.by} by {self.teacher.name}"
        return f"being near duplicates of {of} ({by} {self.threshold:g})"


@dataclass(frozen=True)
class _CosineSpace:
    """Vectors of length 1 in float64. A cosine is their dot product, rounded to float32 as scores are."""

    teacher: VectorTeacher
    vectors: StoredVectors
    threshold: float

    def gather(self, ids: IdArray) -> AnyArray:
        """Rows for passages of the corpus, shape (n, width)."""
        return _unit_length(self.vectors.gather(ids))

    def of_texts(self, texts: list[str]) -> AnyArray:
        """Rows for texts that are not in the corpus, shape (n, width)."""
        found = self.teacher.encode(texts, "passage")
        return _unit_length(check_vectors(found, self.teacher, texts, self.vectors.shape[1]))

    def alike(self, left: AnyArray, right: AnyArray) -> BoolArray:
        """Whether rows are near duplicates: (targets, a, width) and (targets, b, width) to (targets, a, b)."""
        cosines = left @ right.transpose(0, 2, 1)
        alike: BoolArray = cosines >= self.threshold
        # A matrix product may sum in another order in another batch, which would show near the threshold.
        doubtful = np.argwhere(np.abs(cosines - self.threshold) < DOUBT)
        step = max(1, STEP_BYTES // (16 * left.shape[2]))
        for start in range(0, len(doubtful), step):
            target, one, two = doubtful[start : start + step].T
            exact = (left[target, one] * right[target, two]).sum(axis=1).astype(np.float32)
            alike[target, one, two] = exact >= np.float32(self.threshold)
        return alike

    def bytes_a_target(self, places: int) -> int:
        """Bytes per target that comparing this many rows with as many others takes."""
        return 24 * places * (int(self.vectors.shape[1]) + places)


@dataclass(frozen=True)
class _WordSpace:
    """The same with MinHash signatures; the share of equal numbers in two estimates the Jaccard similarity."""

    corpus: TextColumn
    signatures: Signatures
    threshold: float

    def gather(self, ids: IdArray) -> AnyArray:
        distinct, place = np.unique(ids, return_inverse=True)
        return self.signatures.of(self.corpus.digests[distinct], self.corpus.take(distinct))[place]

    def of_texts(self, texts: list[str]) -> AnyArray:
        array = pa.array(texts, pa.large_string())
        return self.signatures.of(text_digests(array), array)

    def alike(self, left: AnyArray, right: AnyArray) -> BoolArray:
        equal = np.count_nonzero(left[:, :, None] == right[:, None], axis=3)
        return np.asarray(equal >= self.threshold * PERMUTATIONS - 1e-9)

    def bytes_a_target(self, places: int) -> int:
        return places * (places + 8) * PERMUTATIONS


@dataclass(frozen=True)
class _Comparison:
    """Candidates held against positives and better candidates."""

    space: _CosineSpace | _WordSpace
    scene: Scene
    of: str

    def keep(self, listed: Listed) -> BoolArray:
        counts = np.diff(listed.offsets)
        kept = np.ones(len(listed.passages), dtype=bool)
        order = np.argsort(-counts, kind="stable")  # groups lists of similar length
        order = order[: np.count_nonzero(counts)]
        start = 0
        while start < len(order):
            places = min(PLACES, int(counts[order[start]]))
            step = max(1, STEP_BYTES // self.space.bytes_a_target(places))
            some = order[start : start + step]
            entries, _ = flat_positions(listed.offsets[some], counts[some])
            there = np.arange(counts[some[0]]) < counts[some, None]
            kept[entries] = self._keep(listed, some, there.copy())[there]
            start += step
        return kept

    def _keep(self, listed: Listed, some: IdArray, stays: BoolArray) -> BoolArray:
        """Which entries of some lists stay, shape (lists, places); ``stays`` marks existing entries, and is updated."""
        starts = listed.offsets[some]
        blocks = [slice(first, min(first + PLACES, stays.shape[1])) for first in range(0, stays.shape[1], PLACES)]

        def rows(block: slice) -> AnyArray:
            entries = np.where(stays[:, block], starts[:, None] + np.arange(block.start, block.stop), starts[:, None])
            flat = listed.passages[entries].reshape(-1).astype(np.int64)
            return self.space.gather(flat).reshape(*entries.shape, -1)

        for number, block in enumerate(blocks):
            here = rows(block)
            if self.of != "negatives":
                stays[:, block] &= ~self._like_positives(here, listed.queries[some])
            if self.of == "positives":
                continue
            for above in blocks[:number]:
                alike = self.space.alike(here, rows(above))
                stays[:, block] &= ~(alike & stays[:, None, above]).any(axis=2)
            alike = self.space.alike(here, here)
            for place in range(1, here.shape[1]):
                earlier = slice(block.start, block.start + place)
                stays[:, block.start + place] &= ~(alike[:, place, :place] & stays[:, earlier]).any(axis=1)
        return stays

    def _like_positives(self, here: AnyArray, queries: IdArray) -> BoolArray:
        """Which rows are near duplicates of a positive of their query."""
        groups = [(self.scene.positive_offsets, self._positives)]
        known = self.scene.known_ids
        if self.scene.known_offsets is not None and known is not None:
            groups.append((self.scene.known_offsets, lambda pairs: self.space.gather(known[pairs])))
        found = np.zeros(here.shape[:2], dtype=bool)
        for offsets, rows_of in groups:
            first = offsets[queries]
            counts = offsets[queries + 1] - first
            for start in range(0, int(counts.max(initial=0)), PLACES):
                place = np.arange(start, min(start + PLACES, int(counts.max())))
                there = place < counts[:, None]
                pairs = np.where(there, first[:, None] + place, 0)
                positives = rows_of(pairs.reshape(-1)).reshape(*pairs.shape, -1)
                found |= (self.space.alike(here, positives) & there[:, None]).any(axis=2)
        return found

    def _positives(self, pairs: IdArray) -> AnyArray:
        """Rows of the positives of some (query, positive) pairs."""
        ids = np.asarray(self.scene.positive_ids[pairs], dtype=np.int64)
        inside = ids >= 0
        if inside.all():
            return self.space.gather(ids)
        places, rows = self._outside
        found = np.empty((len(pairs), rows.shape[1]), dtype=rows.dtype)
        found[inside] = self.space.gather(ids[inside])
        found[~inside] = rows[np.searchsorted(places, pairs[~inside])]
        return found

    @cached_property
    def _outside(self) -> tuple[IdArray, AnyArray]:
        """The pairs whose positive is not in the corpus, and the rows of these positives."""
        pairs = np.flatnonzero(self.scene.positive_ids < 0)
        texts = pa.array(self.scene.texts_of_pairs(pairs), pa.large_string()).dictionary_encode()
        return pairs, self.space.of_texts(texts.dictionary.to_pylist())[texts.indices.to_numpy()]


def _unit_length(vectors: AnyArray) -> AnyArray:
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return np.asarray(wide / np.where(lengths > 0, lengths, 1.0))
