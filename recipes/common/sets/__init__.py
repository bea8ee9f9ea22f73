"""The 32 training sets of NV-Retriever-v1 (table 7), by name, and those of a scale without the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hf_negmine.base.errors import require, require_choice
from recipes.common.sets.folder_sets import FOLDER_SETS
from recipes.common.sets.other_sets import OTHER_SETS
from recipes.common.sets.retrieval_sets import RETRIEVAL_SETS
from recipes.common.sets.training_set import KINDS, Kind, TrainingSet

__all__ = ["FOLDER_SETS", "KINDS", "SETS", "Kind", "TrainingSet", "choose_sets", "table_of_sources"]

SETS: dict[str, TrainingSet] = {one.name: one for one in (*RETRIEVAL_SETS, *OTHER_SETS)}


def choose_sets(
    kinds: Iterable[str], leave_out: Iterable[str] = (), *, among: Mapping[str, TrainingSet] = SETS
) -> tuple[TrainingSet, ...]:
    """The sets of some kinds, in the order of ``among``, which is that of table 7.

    Raises:
        InputError: a kind or name that there is not, or nothing left.
    """
    kinds, leave_out = tuple(kinds), tuple(leave_out)
    for kind in kinds:
        require_choice(kind, KINDS, argument="kinds")
    for name in leave_out:
        require_choice(name, among, argument="leave_out")
    chosen = tuple(one for one in among.values() if one.kind in kinds and one.name not in leave_out)
    require(bool(chosen), f"no set is left of the kinds {list(kinds)} without {list(leave_out)}")
    return chosen


def table_of_sources(sets: Iterable[TrainingSet] = tuple(SETS.values())) -> str:
    """Where each set comes from, as Markdown."""
    lines = [
        "| set | Hub | columns | columns are | checked against | licence |",
        "|---|---|---|---|---|---|",
    ]
    for one in sets:
        against = "nothing" if one.evaluation is None else f"{one.evaluation.name} (`{one.evaluation.hub_id}`)"
        how = "verified" if one.verified else "read"
        lines.append(f"| {one.name} | `{one.hub_id}` | {one.layout.columns} | {how} | {against} | {one.licence} |")
    return "\n".join(lines)
