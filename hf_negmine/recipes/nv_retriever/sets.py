"""The 32 training sets of NV-Retriever-v1 (table 7), by name."""

from __future__ import annotations

from collections.abc import Iterable

from hf_negmine.base.errors import InputError
from hf_negmine.recipes.nv_retriever.other_sets import OTHER_SETS
from hf_negmine.recipes.nv_retriever.retrieval_sets import RETRIEVAL_SETS
from hf_negmine.recipes.nv_retriever.training_set import KINDS, Kind, TrainingSet

__all__ = ["KINDS", "SETS", "Kind", "TrainingSet", "choose_sets", "table_of_sources"]

SETS: dict[str, TrainingSet] = {one.name: one for one in (*RETRIEVAL_SETS, *OTHER_SETS)}


def choose_sets(kinds: Iterable[str], leave_out: Iterable[str] = ()) -> tuple[TrainingSet, ...]:
    """The sets of some kinds, in the order of table 7.

    Raises:
        InputError: a kind or name that there is not, or nothing left.
    """
    kinds, leave_out = tuple(kinds), tuple(leave_out)
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"kinds: {kind!r} is not among {list(KINDS)}")
    for name in leave_out:
        if name not in SETS:
            raise InputError(f"leave_out: {name!r} is not among {list(SETS)}")
    chosen = tuple(one for one in SETS.values() if one.kind in kinds and one.name not in leave_out)
    if not chosen:
        raise InputError(f"no set is left of the kinds {list(kinds)} without {list(leave_out)}")
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
