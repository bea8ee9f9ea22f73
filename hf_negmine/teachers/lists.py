"""Lists that were scored elsewhere, in the place of a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hf_negmine.base.protocols import Role, Teacher


@dataclass(frozen=True)
class ListTeacher:
    """What scored the lists of `CandidatePool.from_lists`; it scores nothing else.

    Attributes:
        name: its name.
        digest: digest of the lists.
        texts: fingerprint of the texts that they rank.
        continued_by: the teacher that continues them where they end, if it is there.
    """

    name: str
    digest: str
    texts: str
    continued_by: Teacher | None = None

    def fingerprint(self, role: Role) -> str:
        """See `protocols.Teacher`."""
        return self.digest

    @property
    def stages(self) -> tuple[Teacher, ...]:
        """The teacher that continues the lists, if it is there."""
        return () if self.continued_by is None else (self.continued_by,)

    @property
    def settings(self) -> dict[str, Any]:
        """What is recorded of it; lists cannot be made again from that."""
        return {"kind": "lists"}
