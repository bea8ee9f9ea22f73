"""What a push keeps of a card, its YAML and the user's own text: read, merged, and written around ours."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from hf_negmine.base.errors import InputError, require
from hf_negmine.base.shapes import check_plain
from hf_negmine.hub.provenance import LIST_TABLES, LOOKUPS, POSITIVES, Provenance, list_config

BEGIN = "<!-- hf_negmine: everything up to the end mark is rewritten by every push -->"
END = "<!-- hf_negmine: end -->"
HEADER = re.compile(r"---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", re.DOTALL)
TAGS = ["hf_negmine", "hard-negatives", "sentence-transformers", "retrieval"]
TASKS = ["sentence-similarity", "text-retrieval"]
LISTS = ("language", "tags", "task_categories", "source_datasets", "datasets")
"""Fields of a card's YAML that hold text."""
SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]


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
    # What `Dataset.push_to_hub` has added to a config of ours: its splits stay, the column types may be out of date.
    theirs = {config.get("config_name"): as_list(config.get("data_files")) for config in before}
    for config in ours:
        if config["config_name"] in {part.config_name for part in parts}:
            splits = [file["split"] for file in config["data_files"]]
            found = theirs.get(config["config_name"], [])
            more = [file for file in found if isinstance(file, dict) and file.get("split") not in splits]
            config["data_files"] = [*config["data_files"], *more]
    infos = as_list(merged.pop("dataset_info", None))
    if infos := [one for one in infos if not isinstance(one, dict) or one.get("config_name", "default") not in names]:
        merged["dataset_info"] = infos
    there = {*names, *(config.get("config_name") for config in kept)}
    if "default" not in there:  # keep the same config as the one that loads without a name
        earlier = next((config.get("config_name") for config in before if config.get("default")), None)
        chosen = earlier if earlier in there else ours[0]["config_name"]
        for config in ours:
            if config["config_name"] == chosen:
                config["default"] = True
    merged["configs"] = [*ours, *kept]
    return merged


def as_list(value: Any) -> list[Any]:
    """A YAML value that may be one or several, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


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
