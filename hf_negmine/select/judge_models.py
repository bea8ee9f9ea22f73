"""Judges decide whether a passage answers a query, which exposes false negatives.

A judge is a chat model (`chat_judge`), a function, or a second teacher that scores pairs, with a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hf_negmine.base.errors import InputError, TeacherError, require, require_finite, require_whole
from hf_negmine.base.files import digest_of
from hf_negmine.base.protocols import PairTeacher
from hf_negmine.base.wording import counted
from hf_negmine.search.pairwise import check_scores
from hf_negmine.select.chat_judge import ChatJudge, require_pairs
from hf_negmine.select.filters.where import code_digest
from hf_negmine.teachers import resolve_teacher

SCORERS = "cross-encoder:"
"""How the name of a judge begins that is a teacher and a threshold."""
PAIRS_A_BATCH = 1024
"""Pairs that a `ScoreJudge` scores before its verdicts are stored."""


@runtime_checkable
class PairJudge(Protocol):
    """Anything that decides whether a passage answers a query."""

    @property
    def name(self) -> str:
        """A readable name, for summaries and provenance."""

    def fingerprint(self) -> str:
        """Digest of everything that changes a verdict. Stored verdicts are reused exactly when it is equal."""

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Iterator[tuple[int, bool]]:
        """Yield the position of each pair, and whether its passage answers its query, in any order.

        Both lists have the same length. Yielded verdicts are stored at once; a later error does not lose them.
        """


@dataclass(frozen=True)
class FunctionJudge:
    """A function as a judge.

    Attributes:
        function: takes as many queries as passages, and returns a bool for each pair.
        name: the judge's name. Verdicts are stored under the name and the version.
        version: change it when the function judges differently.
        batch_size: pairs per call.
    """

    function: Callable[[Sequence[str], Sequence[str]], Sequence[bool]]
    name: str = field(kw_only=True)
    version: str = field(default="1", kw_only=True)
    batch_size: int = field(default=64, kw_only=True)

    def __post_init__(self) -> None:
        require(callable(self.function), f"function: a function of queries and passages, got {self.function!r}")
        require(isinstance(self.name, str) and bool(self.name), f"name: expected the judge's name, got {self.name!r}")
        require_whole(self.batch_size, "batch_size", at_least=1)

    def fingerprint(self) -> str:
        """Digest of name and version."""
        return digest_of("function judge", self.name, self.version)

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Iterator[tuple[int, bool]]:
        """Judge batch by batch (see `PairJudge`).

        Raises:
            TeacherError: the function does not return a bool for each pair.
        """
        require_pairs(queries, passages)
        for start in range(0, len(queries), self.batch_size):
            stop = min(start + self.batch_size, len(queries))
            returned = self.function(queries[start:stop], passages[start:stop])
            if not isinstance(returned, Iterable) or getattr(returned, "ndim", 1) == 0:
                raise TeacherError(
                    f"{self.name} returned {returned!r:.80} for {counted(stop - start, 'pair')}, expected a list of "
                    "True or False"
                )
            verdicts = list(returned)
            if len(verdicts) != stop - start:
                raise TeacherError(
                    f"{self.name} returned {counted(len(verdicts), 'verdict')} for {counted(stop - start, 'pair')}"
                )
            for position, verdict in enumerate(verdicts, start):
                if not isinstance(verdict, bool | np.bool_):
                    raise TeacherError(f"{self.name} returned {verdict!r} for a pair, expected True or False")
                yield position, bool(verdict)


@dataclass(frozen=True)
class ScoreJudge:
    """A second teacher as a judge: a passage is relevant if it scores ``at_least`` so much.

    Attributes:
        teacher: what scores a query and a passage together: ``"cross-encoder:MODEL"``, or another `PairTeacher`.
        at_least: the lowest score of a relevant passage, in the teacher's own scale.

    Raises:
        InputError: the teacher does not score pairs, or the threshold is not a finite number.
    """

    teacher: Any
    at_least: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher", resolve_teacher(self.teacher))
        if not isinstance(self.teacher, PairTeacher):
            raise InputError(
                f"ScoreJudge: {self.teacher.name} does not read a query and a passage together; give "
                "'cross-encoder:MODEL', or use it as a Veto"
            )
        require_finite(self.at_least, "ScoreJudge: at_least")

    @property
    def name(self) -> str:
        """The teacher's name and the threshold."""
        return f"{self.teacher.name}@{self.at_least:g}"

    def fingerprint(self) -> str:
        """Digest of the teacher's fingerprint and the threshold."""
        return digest_of("score judge", self.teacher.fingerprint("query"), float(self.at_least))

    def judge(self, queries: Sequence[str], passages: Sequence[str]) -> Iterator[tuple[int, bool]]:
        """Judge batch by batch (see `PairJudge`)."""
        require_pairs(queries, passages)
        for start in range(0, len(queries), PAIRS_A_BATCH):
            some = slice(start, start + PAIRS_A_BATCH)
            pairs = list(queries[some]), list(passages[some])
            scores = check_scores(self.teacher.score(*pairs), self.teacher.name, *pairs)
            yield from enumerate((scores >= self.at_least).tolist(), start)


def resolve_judge(
    judge: str | PairJudge | Callable[[Sequence[str], Sequence[str]], Sequence[bool]], **server: Any
) -> PairJudge:
    """Make a judge from what users write.

    Args:
        judge: the name of a chat model; a cross-encoder with the lowest score of a relevant passage,
            ``"cross-encoder:MODEL@0.9"``; a `PairJudge`; or a function with a name, under which its verdicts are
            stored until its own body changes.
        server: arguments for a chat model, see `ChatJudge`.
    """
    if isinstance(judge, str) and judge.startswith(SCORERS):
        teacher, _, threshold = judge.rpartition("@")
        try:
            at_least = float(threshold)
        except ValueError:
            raise InputError(
                f"judge {judge!r}: expected the lowest score of a relevant passage at the end, {SCORERS}MODEL@0.9"
            ) from None
        return ScoreJudge(teacher, at_least)
    if isinstance(judge, str):
        return ChatJudge(judge, **server)
    if isinstance(judge, PairJudge) and not isinstance(judge, type):
        return judge
    if callable(judge) and not isinstance(judge, type):
        name = getattr(judge, "__name__", "<none>")
        if name.startswith("<"):  # verdicts are stored under it
            raise InputError(f"judge {judge!r} has no name of its own; give it one, FunctionJudge(function, name=...)")
        return FunctionJudge(judge, name=name, version=code_digest(judge) or "1")
    raise InputError(
        f"judge {judge!r} is neither the name of a chat model nor a function of queries and passages, and lacks what a "
        "judge needs: name, fingerprint() and judge(queries, passages)"
    )
