"""A miner's filters: sorted by kind, and as settings that go into provenance and recreate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_negmine.base.errors import InputError, require, require_list
from hf_negmine.select.filters import Consistency, Filter, NearDuplicates, Veto
from hf_negmine.select.judge import Judge
from hf_negmine.select.judgements import Judgements
from hf_negmine.teachers import settings_of, teacher_of_settings

KINDS = {
    "veto": Veto,
    "near-duplicates": NearDuplicates,
    "consistency": Consistency,
    "judgements": Judgements,
    "judge": Judge,
}
WHY_NOT = {
    "judge": "a judge is never called on settings that somebody else wrote: it costs money, and a key would be sent",
    "judgements": "the judgements themselves are not recorded, only their digest; give Judgements(FILE) with the same",
    "custom": "it is the user's own code or table",
}
"""Why settings of this kind cannot recreate a filter."""


def ordered_filters(
    filters: Sequence[Filter | Consistency | Judge],
) -> tuple[Filter | Consistency | Judge, ...]:
    """Filters of candidates in the given order, then the rule for rows, then the judge, which has the last word."""
    require_list(filters, "filters", "[Veto('bm25')]")
    candidates, rows, judges = [], [], []
    for one in filters:
        if isinstance(one, Judge):
            judges.append(one)
        elif isinstance(one, Consistency):
            rows.append(one)
        # Up to Python 3.11, looking for a veto's settings loads its model.
        elif isinstance(one, Veto) or (isinstance(one, Filter) and not isinstance(one, type)):
            candidates.append(one)
        else:
            raise InputError(f"filters: expected filters such as Veto('bm25'), got {one!r}")
    for kind in (rows, judges):
        require(len(kind) <= 1, f"filters: at most one {type(kind[0]).__name__ if kind else ''}, got {len(kind)}")
    return (*candidates, *rows, *judges)


def settings_of_filters(filters: Sequence[Any]) -> list[dict[str, Any]]:
    """The settings of each filter, with its kind, its name, and the settings that recreate its teacher."""
    every = []
    for one in filters:
        kind = next((kind for kind, made in KINDS.items() if isinstance(one, made)), "custom")
        settings = {**one.settings, "filter": str(one), "kind": kind}
        if isinstance(one, Veto):
            settings["method"] = str(one.method)
        if isinstance(one, Veto | NearDuplicates) and one.teacher is not None:
            settings["teacher_settings"] = settings_of(one.teacher)
        every.append(settings)
    return every


def filters_of_settings(settings: Sequence[Any]) -> list[Any]:
    """Recreate filters from the settings in provenance (`settings_of_filters`); nothing in them is trusted.

    Raises:
        InputError: settings that cannot recreate a filter: of a judge, `Judgements`, a `Where`, a user's own filter, or
            one with a teacher that settings cannot recreate.
    """
    if not isinstance(settings, list) or not all(isinstance(one, dict) for one in settings):
        raise InputError(f"filters: the settings {settings!r} are not known to this version")
    made = []
    for one in settings:
        try:
            made.append(_filter_of(dict(one)))
        except InputError as error:
            every = ", ".join(repr(str(other.get("filter"))) for other in settings)
            raise InputError(
                f"filters: {str(one.get('filter'))!r} cannot be made from its settings ({error}); give all that were "
                f"used, as filters=[…]: {every}"
            ) from error
    return made


def _filter_of(settings: dict[str, Any]) -> Any:
    kind = settings.get("kind")
    try:
        if kind == "veto":
            teacher = teacher_of_settings(settings["teacher_settings"])
            return Veto(teacher, settings["method"], settings["abstain_at"], settings["depth"])
        if kind == "near-duplicates":
            given = "teacher_settings" in settings
            vectors = teacher_of_settings(settings["teacher_settings"]) if given else None
            return NearDuplicates(settings["threshold"], of=settings["of"], by=settings["by"], teacher=vectors)
        if kind == "consistency":
            return Consistency(settings["top_k"], settings["min_score"], settings["action"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"its settings are not known to this version: {error!r}") from error
    raise InputError(WHY_NOT[kind if kind in WHY_NOT else "custom"])
