"""The card of a data set as text: what was mined, how, and what it looks like."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from hf_negmine.base.wording import counted
from hf_negmine.hub.card_metadata import join_card, merged_metadata, split_card
from hf_negmine.hub.provenance import Provenance
from hf_negmine.hub.settings import is_ensemble
from hf_negmine.report.summary import MiningSummary
from hf_negmine.report.truncation import truncation_lines

TEMPLATE = Path(__file__).with_name("dataset_card_template.md")
CELL = 160
"""Characters per text in the examples."""


def dataset_card(
    repo_id: str,
    parts: Sequence[Provenance],
    *,
    configs: Sequence[Mapping[str, Any]],
    existing: str | None = None,
    license: str | None = None,
    languages: Sequence[str] = (),
) -> str:
    """The README of a repository of mined data sets.

    Args:
        repo_id: the repository's id.
        parts: provenance of every config and split, the most recently pushed one first.
        configs: as in YAML: config_name, data_files, and ``holds``, a description for the table.
        existing: the current README; its YAML and the user's text are kept.
        license: the license of the data; None keeps the current one.
        languages: ISO codes.
    """
    metadata, own_text = split_card(existing or "")
    metadata = merged_metadata(metadata, parts, configs, license, languages)
    body = rendered(
        TEMPLATE.read_text(encoding="utf-8"),
        title=metadata.get("pretty_name") or repo_id.split("/")[1],
        repo_id=repo_id,
        sentence=sentence(parts[0].summary),
        main=parts[0],
        parts=[_shown(part) for part in parts],
        configs=configs,
    )
    return join_card(metadata, own_text, body)


def rendered(template: str, **values: Any) -> str:
    """A template with its values; one that is missing is an error."""
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(template).render(values)


def sentence(summary: MiningSummary) -> str:
    """One sentence on what was mined, and how."""
    settings = summary.settings
    rows = summary.rows if summary.rows_written is None else summary.rows_written
    filters = ", ".join(escaped(str(one["filter"])) for one in settings.get("filters") or [])
    return (
        f"{counted(rows, 'row')} with {counted(settings['num_negatives'], 'hard negative')} per query, mined by "
        f"`{settings['method']}` with sampler `{settings['sampler']}` (seed {settings['seed']}) from a corpus of "
        f"{summary.passages:,} passages; {_teacher_clause(settings)}." + (f" Filters: {filters}." if filters else "")
    )


def _teacher_clause(settings: Mapping[str, Any]) -> str:
    """The clause that names the teacher."""
    if not is_ensemble(settings):
        return f"the teacher is {escaped(str(settings['teacher']))}"
    names = ", ".join(escaped(str(stage["teacher"])) for stage in settings["stages"])
    if settings["teacher_settings"]["kind"] == "cross-sample":
        return f"each query drew one of the teachers {names}"
    return f"each query has equally many negatives from every teacher: {names}"


def escaped(text: str, limit: int | None = None) -> str:
    """Text with no special meaning in Markdown, HTML or a table, cut to ``limit`` characters."""
    flat = " ".join(text.split())
    if limit is not None and len(flat) > limit:
        flat = flat[: limit - 1].rstrip() + "…"
    flat = html.escape(flat, quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#!" else letter for letter in flat)


def code(value: Any) -> str:
    """A value as code in a table's cell, on one line, whatever it contains."""
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
    text = text if text.isprintable() else json.dumps(value)
    text = str(value) if value is None or isinstance(value, bool | int | float) else text
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _shown(part: Provenance) -> dict[str, Any]:
    """One part in the form that the template needs."""
    summary, settings = part.summary, part.summary.settings
    groups = (summary.positive_scores, summary.negative_scores, summary.differences)
    names = ("count", "mean", "std", "min", "quartile_1", "median", "quartile_3", "max")
    first_stage = settings.get("candidates")
    where = "the corpus holds" if first_stage is None else f"the {first_stage} candidates of the first stage hold"
    return {
        "heading": f"`{part.config_name}`, split `{part.split}`",
        **{name: next(iter(part.files.get(name, [])), None) for name in ("figure", "sweep", "report")},
        "statistics": [
            [name.replace("_", " "), *(_number(getattr(group, name)) for group in groups)] for name in names
        ],
        "counts": (
            f"{summary.rows:,} rows were given, for {summary.queries:,} queries with {summary.positives_per_query:.2f} "
            f"positives each. {summary.complete:,} are complete; for {summary.exhausted:,} {where} fewer eligible "
            f"passages than {settings['num_negatives']}."
            + (f" For {summary.list_ended:,} the list ended: nobody looked further." if summary.list_ended else "")
        ),
        "remarks": [
            *(f"{counted(count, 'candidate')} kept out by {escaped(rule)}" for rule, count in summary.removed.items()),
            *(escaped(line) for line in truncation_lines(summary.truncation)),
        ],
        "more": "".join(
            f"\n### {heading}\n\n{text.rstrip()}\n"
            for heading, text in (
                ("Teachers", _teachers(settings)),
                ("Filters", _filters(part)),
                ("Approximate search", _recall(summary)),
                ("Agreement", _agreement(summary)),
            )
            if text
        ),
        "settings": [(name, code(value)) for name, value in _settings(part)],
        "json": json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False),
        "path": part.path,
        "examples": [[(escaped(str(name)), _example(value)) for name, value in row.items()] for row in part.examples],
    }


def _settings(part: Provenance) -> list[tuple[str, Any]]:
    """Names and values of all settings, those with settings of their own last, and what else identifies the rows."""
    settings = sorted(part.summary.settings.items())
    plain = [
        (name, value) for name, value in settings if not isinstance(value, dict) and name not in ("stages", "filters")
    ]
    nested = [
        (f"{name} {key}", value)
        for name, inner in settings
        if isinstance(inner, dict)
        for key, value in sorted(inner.items())
        if key != "stages"
    ]
    found = [(name.replace("_", " "), value) for name, value in [*plain, *nested] if value is not None]
    versions = [(f"version of {name}", value) for name, value in part.versions.items()]
    return [*found, ("rows digest", part.rows_digest), *versions]


def _teachers(settings: Mapping[str, Any]) -> str:
    """The teachers that a teacher builds on, as Markdown; empty if there are none."""
    if not settings.get("stages"):
        return ""
    own = settings.get("teacher_settings") or {}
    kind = own.get("kind")
    name, candidates = escaped(str(settings["teacher"])), f"{settings.get('candidates')} candidates per query"
    how = {
        "cross-sample": "Each query draws one of these at random, which gives all its negatives (NV-Retriever, 4.2). "
        "Scores are on the scale of the one that was drawn:",
        "intra-sample": "Each query takes the best of every one of these, equally many of each (NV-Retriever, 4.2"
        + (", each passage once" if own.get("dedup") else "")
        + "). A negative's score is on the scale of the one that gave it; positives have the first one's:",
        "fusion": f"{name} joins the scores of these into one:",
        "lists": f"The lists of {name} are continued by this one, where they end:",
        "faiss": f"{name} scores {candidates} that its index proposes, by the vectors of this one:",
    }
    first = f"{name} scores {candidates} of this one:"
    return f"{how.get(str(kind), first)}\n\n" + _stages(settings["stages"], own.get("stages") or [], "")


def _stages(stages: Sequence[Mapping[str, Any]], settings: Sequence[Mapping[str, Any] | None], indent: str) -> str:
    lines = []
    for stage, own in zip_longest(stages, settings[: len(stages)]):
        known = {name: value for name, value in (own or {}).items() if value is not None and name != "stages"}
        said = ", ".join(f"{name.replace('_', ' ')} {code(value)}" for name, value in known.items())
        lines.append(f"{indent}- {escaped(str(stage['teacher']))}{': ' if said else ''}{said}\n")
        lines.append(_stages(stage.get("stages") or [], (own or {}).get("stages") or [], indent + "  "))
    return "".join(lines)


def _filters(part: Provenance) -> str:
    """The filters that negatives and rows had to pass, as Markdown; empty without filters."""
    summary = part.summary
    lines = []
    for one in summary.settings.get("filters") or []:
        line, kind = escaped(str(one["filter"])), one.get("kind")
        if kind == "veto" and one.get("abstain_at") is not None:
            line += f"; it abstains where the positive scores {one['abstain_at']:g} or less"
        if kind == "consistency":
            rows = "left out" if one["action"] == "drop" else "flagged in the column `consistent`"
            line += f": {summary.inconsistent or 0:,} labeled pairs whose positive the teacher does not find, {rows}"
        if kind == "judge":
            most = "" if one["budget"] is None else f" of at most {one['budget']:,}"
            line += f": asked about {summary.judged or 0:,}{most} pairs; a passage that answers its query is replaced"
            line += ", and becomes another positive of it" if one["relabel"] else ""
        if kind == "judgements":
            line += f" ({one['relevant']:,} relevant), digest `{escaped(one['digest'])}`: what is relevant "
            line += "becomes another positive" if one["relabel"] else "is no negative"
        lines.append(f"- {line}\n")
    if lines and part.files.get("pool"):
        lines.append("\nThe candidate pool is in the teacher's order, before these filters.\n")
    return "".join(lines)


def _recall(summary: MiningSummary) -> str:
    """How much approximate teachers find, as Markdown; empty for an exact search."""
    return "".join(
        f"- {escaped(teacher)} finds {100 * share:.1f} % of the best passages; scores are exact\n"
        for teacher, share in (summary.recall or {}).items()
    )


def _agreement(summary: MiningSummary) -> str:
    """The paper's table 6 for these teachers, as Markdown; empty for one teacher."""
    if summary.agreement is None:
        return ""
    names = [escaped(str(name)) for name in summary.agreement["teachers"]]
    lines = ["Mean Jaccard similarity of the best negatives of two teachers (NV-Retriever, table 6).\n\n"]
    lines.append(f"| | {' | '.join(names)} |\n|---|{'---:|' * len(names)}\n")
    for name, row in zip(names, summary.agreement["jaccard"], strict=True):
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |\n")
    return "".join(lines)


def _example(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(_example(item) for item in value[:6]) + (" …" if len(value) > 6 else "")
    if isinstance(value, float):
        return f"{value:.4f}"
    return escaped(str(value), CELL)


def _number(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
