"""What the site shows from outside docs/: parts of the README, READMEs of other folders, the command line.

A page keeps its path in the repository (less ``docs/``), so the same links work in both places.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ("benchmarks/README.md", "recipes/README.md", "recipes/*/README.md", "CONTRIBUTING.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
PART = re.compile(r"^<!-- README\.md: (.+) -->$", re.MULTILINE)
COMMAND_LINE = "<!-- hf-negmine -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the files that they name."""
    pages = [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    for path in [*pages, ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target, _ in LINK.findall(path.read_text(encoding="utf-8")):
            linked = Path(os.path.normpath(path.parent / target))
            if linked.is_file() and linked.suffix != ".md":
                pages.append(linked)
    for path in dict.fromkeys(pages):
        if files.get_file_from_path(_uri(path)) is None:
            files.append(File.generated(config, _uri(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Put in what stands elsewhere, and let links find their pages."""
    uri = page.file.src_uri
    source = ROOT / "docs" / uri if (ROOT / "docs" / uri).exists() else ROOT / uri
    markdown = _with_links(markdown, source, uri)
    markdown = PART.sub(lambda found: _with_links(_part_of_readme(found[1]), ROOT / "README.md", uri), markdown)
    return markdown.replace(COMMAND_LINE, _command_line()) if COMMAND_LINE in markdown else markdown


def _uri(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removeprefix("docs/")


def _with_links(markdown: str, source: Path, uri: str) -> str:
    """The text of ``source`` with links as they have to be on the page ``uri``."""

    def link(found: re.Match[str]) -> str:
        path = Path(os.path.normpath(source.parent / found[1]))
        if not path.exists():
            raise PluginError(f"{source.relative_to(ROOT)}: {found[1]} does not exist")
        return os.path.relpath(_uri(path), os.path.dirname(uri) or ".") + (found[2] or "")

    return LINK.sub(link, markdown)


def _part_of_readme(name: str) -> str:
    """What stands under a heading of the README, or before the first one (``top``)."""
    top, *parts = re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    contents = {"top": top.partition("\n")[2], **dict(part.split("\n", 1) for part in parts)}
    if name not in contents:
        raise PluginError(f"README.md has no part {name!r}; it has {list(contents)}")
    return contents[name].strip()


def _command_line() -> str:
    """Every command with its arguments and options, as ``--help`` says it."""
    import typer

    from hf_negmine.commands.cli import app

    def sections(command: Any, name: str) -> list[str]:
        lines = [f"## {name}", "", _plain(command.help), ""]
        inner = getattr(command, "commands", {})
        options = [one for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
        if options and not inner:
            lines += ["| option | default | |", "|---|---|---|", *map(_row, options), ""]
        for word, one in inner.items():
            lines += sections(one, f"{name} {word}")
        return lines

    group: Any = typer.main.get_command(app)
    return "\n".join(line for word, one in group.commands.items() for line in sections(one, f"hf-negmine {word}"))


def _row(option: Any) -> str:
    if option.param_type_name == "argument":
        names, default = f"`{option.name.upper()}`", ""
    else:
        names = " ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        shown = option.show_default if isinstance(option.show_default, str) else option.default
        default = "" if shown in (None, False, ()) or callable(shown) else str(getattr(shown, "value", shown))
    text = " ".join(_plain(option.help).split()).replace("|", "\\|")
    return f"| {names} | {default} | {text} |"


def _plain(text: str | None) -> str:
    """A help text without the marks of rich."""
    from rich.text import Text

    return Text.from_markup(text or "").plain.strip()
