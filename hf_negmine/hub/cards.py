"""Cards as text: pure functions, no network. Text that a user adds to a card survives later pushes."""

from __future__ import annotations

import html
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.shapes import check_plain
from hf_negmine.base.wording import counted
from hf_negmine.hub.provenance import LIST_TABLES, LOOKUPS, POSITIVES, Provenance, list_config
from hf_negmine.hub.settings import is_ensemble
from hf_negmine.report.summary import MiningSummary
from hf_negmine.report.truncation import truncation_lines

TEMPLATE = Path(__file__).with_name("dataset_card_template.md")
BEGIN = "<!-- hf_negmine: everything up to the end mark is rewritten by every push -->"
END = "<!-- hf_negmine: end -->"
HEADER = re.compile(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)
TAGS = ["hf_negmine", "hard-negatives", "sentence-transformers", "retrieval"]
TASKS = ["sentence-similarity", "text-retrieval"]
LISTS = ("language", "tags", "task_categories", "source_datasets", "datasets")
"""Fields of a card's YAML that hold text."""
SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
SECTION_BEFORE = "\n## Training Details"
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
    body = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(
        TEMPLATE.read_text(encoding="utf-8")
    ).render(
        title=metadata.get("pretty_name") or repo_id.split("/")[1],
        repo_id=repo_id,
        sentence=sentence(parts[0].summary),
        main=parts[0],
        parts=[_shown(part) for part in parts],
        configs=[
            {"name": config["config_name"], "split": data["split"], "holds": config["holds"]}
            for config in configs
            for data in config["data_files"]
        ],
    )  # fmt: skip
    return join_card(metadata, own_text, body)


def split_card(card: str) -> tuple[dict[str, Any], tuple[str, str]]:
    """The YAML of a card, and the user's own text before and after ours.

    Raises:
        InputError: the YAML cannot be read.
    """
    metadata: Any = {}
    body = card
    if header := HEADER.match(card):
        try:
            metadata = yaml.load(header[1] or "", Loader=_Loader) or {}
            check_plain(metadata, "its YAML")
        except Exception as error:  # PyYAML does not wrap its constructors' errors
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"the existing card has YAML that cannot be read ({reason}); correct it first") from error
        _check_metadata(metadata)
        body = card[header.end() :]
    before, found, rest = body.partition(BEGIN)
    _, ended, after = rest.partition(END)
    require(bool(ended) or not found, f"the existing card has lost the mark {END!r}; put it back below our text")
    return metadata, (before.strip("\n"), after.strip("\n") if found else "")


def decoded_card(content: bytes) -> str:
    """The text of a card, or `InputError`."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"the existing card is not UTF-8 ({error}); correct it first") from error


def _check_metadata(metadata: Any) -> None:
    """Raise `InputError` unless the fields that are merged have the shape that the Hub requires."""
    require(isinstance(metadata, dict), "the existing card has YAML that is not a mapping; correct it first")
    for name in LISTS:
        texts = as_list(metadata.get(name))
        require(
            all(isinstance(one, str) for one in texts),
            f"the existing card has {name}: {reprlib.repr(metadata.get(name))}, expected texts; correct it first",
        )
    require(
        all(isinstance(one, dict) for one in as_list(metadata.get("configs")))
        and all(isinstance(one.get("config_name"), str | None) for one in as_list(metadata.get("configs"))),
        f"the existing card has configs: {reprlib.repr(metadata.get('configs'))}, expected mappings with a "
        "config_name; correct it first",
    )


def join_card(metadata: Mapping[str, Any], own_text: tuple[str, str], body: str) -> str:
    """A card made of YAML, the user's own text, and ours between its marks."""
    before, after = own_text
    header = yaml.dump(dict(metadata), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    body = body.strip().replace(BEGIN, "").replace(END, "")  # a mark inside the text would end ours early
    blocks = [before, f"{BEGIN}\n\n{body}\n\n{END}", after]
    return f"---\n{header}---\n\n" + "\n\n".join(block for block in blocks if block) + "\n"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses aliases: a few lines of them can expand to more than fits in memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"write out what *{self.peek_event().anchor} stands for")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML has no types
    """Escapes Unicode line breaks, which PyYAML would write unescaped and read back as a space; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if re.search("[\x85\u2028\u2029]", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def with_section(card: str, section: str) -> str:
    """A Sentence Transformers card with our section before its training details, or at the end.

    The section replaces an earlier one with the same heading.
    """
    heading = section.strip().partition("\n")[0]
    before, found, after = card.partition(SECTION_BEFORE)
    before = before.partition(f"\n{heading}\n")[0]
    return f"{before.rstrip()}\n\n{section.strip()}\n{found}{after}"


def merged_metadata(
    metadata: Mapping[str, Any],
    parts: Sequence[Provenance],
    configs: Sequence[Mapping[str, Any]],
    license: str | None,
    languages: Sequence[str],
) -> dict[str, Any]:
    """The card's YAML with ours merged in: lists are joined, the user's values are kept."""
    merged = dict(metadata)
    if license is not None:
        merged["license"] = license
    sources = [source for part in parts for source in part.source_datasets]
    joined = {"language": languages, "tags": TAGS, "task_categories": TASKS, "source_datasets": sources}
    for name, values in joined.items():
        if every := list(dict.fromkeys([*as_list(merged.get(name)), *values])):
            merged[name] = every
    rows = sum(part.rows for part in parts)
    merged["size_categories"] = [next((size for limit, size in SIZES if rows < limit), "n>1M")]
    ours = [{name: value for name, value in config.items() if name != "holds"} for config in configs]
    names = {config["config_name"] for config in ours}
    before = as_list(merged.get("configs"))
    # A push without lookup tables removes those of the push before.
    gone = {f"{part.config_name}-{name}" for part in parts for name in (*LOOKUPS, POSITIVES)}
    gone |= {list_config(part.config_name, name) for part in parts for name in LIST_TABLES}
    kept = [config for config in before if config.get("config_name") not in names | gone]
    there = {*names, *(config.get("config_name") for config in kept)}
    if "default" not in there:  # keep the same config as the one that loads without a name
        earlier = next((config.get("config_name") for config in before if config.get("default")), None)
        chosen = earlier if earlier in there else ours[0]["config_name"]
        for config in ours:
            if config["config_name"] == chosen:
                config["default"] = True
    merged["configs"] = [*ours, *kept]
    return merged


def sentence(summary: MiningSummary) -> str:
    """One sentence on what was mined, and how."""
    settings = summary.settings
    n = settings["num_negatives"]
    rows = summary.rows if summary.rows_written is None else summary.rows_written
    return (
        f"{counted(rows, 'row')} with {counted(n, 'hard negative')} per query, mined by `{settings['method']}` with "
        f"sampler `{settings['sampler']}` (seed {settings['seed']}) from a corpus of {summary.passages:,} passages; "
        f"{_teacher_clause(settings)}.{_filter_sentence(settings)}"
    )


def _teacher_clause(settings: Mapping[str, Any]) -> str:
    """The clause that names the teacher."""
    if not is_ensemble(settings):
        return f"the teacher is {escaped(str(settings['teacher']))}"
    names = ", ".join(escaped(str(stage["teacher"])) for stage in settings["stages"])
    if settings["teacher_settings"]["kind"] == "cross-sample":
        return f"each query drew one of the teachers {names}"
    return f"each query has equally many negatives from every teacher: {names}"


def _filter_sentence(settings: Mapping[str, Any]) -> str:
    filters = settings.get("filters")
    return f" Filters: {', '.join(escaped(str(one['filter'])) for one in filters)}." if filters else ""


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
    summary = part.summary
    groups = (summary.positive_scores, summary.negative_scores, summary.differences)
    names = ("count", "mean", "std", "min", "quartile_1", "median", "quartile_3", "max")
    settings = [
        (name.replace("_", " "), value)
        for name, value in sorted(summary.settings.items())
        if value is not None and not isinstance(value, dict) and name not in ("stages", "filters")
    ]
    settings += [
        (f"{name} {key}".replace("_", " "), value)
        for name, nested in sorted(summary.settings.items())
        if isinstance(nested, dict)
        for key, value in sorted(nested.items())
        if value is not None and key != "stages"
    ]
    settings += [("rows digest", part.rows_digest)] + [
        (f"version of {name}", value) for name, value in part.versions.items()
    ]
    return {
        "heading": f"`{part.config_name}`, split `{part.split}`",
        "figure": next(iter(part.files.get("figure", [])), None),
        "sweep": next(iter(part.files.get("sweep", [])), None),
        "report": next(iter(part.files.get("report", [])), None),
        "statistics": [
            [name.replace("_", " "), *(_number(getattr(group, name)) for group in groups)] for name in names
        ],
        "counts": (
            f"{summary.rows:,} rows were given, for {summary.queries:,} queries with {summary.positives_per_query:.2f} "
            f"positives each. {summary.complete:,} are complete; for {summary.exhausted:,} {_where(summary.settings)} "
            f"fewer eligible passages than {summary.settings['num_negatives']}."
            + (f" For {summary.list_ended:,} the list ended: nobody looked further." if summary.list_ended else "")
        ),
        "remarks": [
            *(f"{counted(count, 'candidate')} kept out by {escaped(rule)}" for rule, count in summary.removed.items()),
            *(escaped(line) for line in truncation_lines(summary.truncation)),
        ],
        "more": "".join(
            f"\n### {heading}\n\n{text.rstrip()}\n"
            for heading, text in (
                ("Teachers", _teachers(summary.settings)),
                ("Filters", _filters(part)),
                ("Approximate search", _recall(summary)),
                ("Agreement", _agreement(summary)),
            )
            if text
        ),
        "settings": [(name, code(value)) for name, value in settings],
        "json": json.dumps(summary.settings, indent=2, sort_keys=True, ensure_ascii=False),
        "path": part.path,
        "examples": [[(escaped(str(name)), _example(value)) for name, value in row.items()] for row in part.examples],
    }


def _where(settings: Mapping[str, Any]) -> str:
    """The place that holds too few passages, as the start of a clause."""
    if settings.get("candidates") is not None:
        return f"the {settings['candidates']} candidates of the first stage hold"
    return "the corpus holds"


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
    lines = [
        f"- {escaped(teacher)} finds {100 * share:.1f} % of the best passages; scores are exact\n"
        for teacher, share in (summary.recall or {}).items()
    ]
    return "".join(lines)


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


def as_list(value: Any) -> list[Any]:
    """A YAML value that may be one or several, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
