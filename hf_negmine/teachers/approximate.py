"""A dense teacher over a FAISS index, for a corpus that an exact search is too slow for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from inspect import getattr_static
from typing import Any

from hf_negmine.base.errors import InputError, require, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import Role, Teacher

CANDIDATES = 256
"""Enough on SQuAD with all-MiniLM-L6-v2 for 4 negatives under 95 % of the positive's score: 99.4 % of the queries have
them (98.5 % with 48, 99.6 % with 1,000). Codes of 48 bytes (PQ96x4fs) find 95 % of the 48 best among 256 proposals, but
only 76 % among 48."""

MOST = 2**31 - 1
"""The largest search parameter: FAISS reads them as C ints."""


@dataclass(frozen=True)
class IndexSpec:
    """A FAISS factory and search parameters, such as ``IVF1024,Flat@nprobe=32`` or ``HNSW32@efSearch=128``.

    Attributes:
        factory: the kind of index; see https://github.com/facebookresearch/faiss/wiki/The-index-factory.
        parameters: how it is searched, whole numbers named as in ``faiss.ParameterSpace``; the index stays the same.
    """

    factory: str
    parameters: dict[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, spec: str) -> IndexSpec:
        """Read ``factory@name=value,name=value``, or raise `InputError`."""
        require(isinstance(spec, str), f"index: a FAISS factory such as 'IVF1024,Flat', got {spec!r}")
        factory, at, settings = spec.partition("@")
        parameters: dict[str, int] = {}
        for setting in settings.split(",") if at else ():
            match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d{1,10})\s*", setting)
            if match is None or not 1 <= int(match[2]) <= MOST:
                raise InputError(
                    f"index: {setting!r} in {spec!r} is not a setting such as 'nprobe=32', "
                    f"a whole number from 1 to {MOST}"
                )
            parameters[match[1]] = int(match[2])
        require(bool(factory.strip()), f"index: a FAISS factory such as 'IVF1024,Flat', got {spec!r}")
        return cls(factory.strip(), parameters)

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in sorted(self.parameters.items()))
        return f"{self.factory}@{settings}" if settings else self.factory


class ApproximateTeacher:
    """A dense teacher that scores the passages which a FAISS index of its vectors proposes, and the positives.

    The scores are those of the dense teacher, to the last bit; what the index does not propose is not found. Like a
    cross-encoder, it ranks nothing but its candidates: a query is exhausted when these are. The summary says what share
    of the best passages the index proposes.

    Args:
        teacher: a teacher with one vector per text, or anything that `resolve_teacher` makes into one.
        index: a FAISS factory such as ``"IVF1024,Flat"``, optionally with search parameters, such as
            ``"IVF1024,Flat@nprobe=64"`` or ``"HNSW32@efSearch=256"``. Without them an IVF index probes an eighth of
            its clusters, at least 8, and a graph is searched with efSearch=128.
        candidates: how many passages the index proposes per query.

    Raises:
        InputError: the teacher has no vector per text, or the index is not a factory with search parameters.
    """

    def __init__(self, teacher: Any, index: str, *, candidates: int = CANDIDATES) -> None:
        require_whole(candidates, "candidates", at_least=1)
        from hf_negmine.teachers import resolve_teacher  # imported here because it imports this class

        self.teacher: Any = resolve_teacher(teacher)
        # isinstance() looks for the attributes of the protocol, which up to Python 3.11 loads the model.
        require(
            all(getattr_static(self.teacher, name, None) is not None for name in ("similarity", "encode")),
            f"ApproximateTeacher: {self.teacher.name} has no vector per passage to index, expected a dense teacher",
        )
        self.index = IndexSpec.parse(index)
        self.candidates = int(candidates)

    @property
    def stages(self) -> tuple[Any, ...]:
        """The dense teacher, which it builds on."""
        return (self.teacher,)

    @property
    def name(self) -> str:
        """The index and the teacher: ``faiss:HNSW32:e5-base``."""
        return f"faiss:{self.index}:{self.teacher.name}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that recreate this teacher, except for the dense one; part of the provenance."""
        return {"kind": "faiss", "index": str(self.index), "candidates": self.candidates}

    def fingerprint(self, role: Role) -> str:
        """Digest of the index and how it is searched; that of the dense teacher is kept beside it."""
        return digest_of("faiss", str(self.index))


def without_index(teacher: Teacher) -> Teacher:
    """The dense teacher of an approximate one; any other teacher as it is."""
    return teacher.teacher if isinstance(teacher, ApproximateTeacher) else teacher
