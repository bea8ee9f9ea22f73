"""The options of ``hf-negmine push`` and ``reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hf_negmine.commands.options import RUNNING, TEACHER, folder, option

REPOSITORY, CARD = "Repository", "Card"

MinedFolder: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="What mine has written: its --output.", show_default=False)
]
RepoId: TypeAlias = Annotated[
    str, typer.Argument(metavar="USER/NAME", help="The data set on the Hub.", show_default=False)
]
Config: TypeAlias = Annotated[
    str,
    option(
        REPOSITORY,
        "Which part of the data set, such as the name of a method: a repository holds several, and each push replaces "
        "one.",
        "--config",
        value="NAME",
    ),
]
HubSplit: TypeAlias = Annotated[str, option(REPOSITORY, "Which split of that part.", "--split", value="NAME")]
Private: TypeAlias = Annotated[
    bool | None,
    option(
        REPOSITORY,
        "Who may see the repository, if this push creates it.",
        "--private/--public",
        default="the account's default",
    ),
]
PushRevision: TypeAlias = Annotated[
    str | None,
    option(
        REPOSITORY,
        "Branch to push to; it is created if it does not exist.",
        "--revision",
        value="BRANCH",
        default="the main one",
    ),
]
WithPool: TypeAlias = Annotated[
    bool,
    option(
        REPOSITORY,
        "Push the candidates and scores, too, so that others can select by another method without the teacher.",
        "--with-pool",
    ),
]
License: TypeAlias = Annotated[
    str | None,
    option(
        CARD,
        "License of the data, as the Hub names it: cc-by-4.0, mit, unknown, …",
        "--license",
        value="NAME",
        default="what the card has, or what all --source-dataset have",
    ),
]
Languages: TypeAlias = Annotated[
    list[str] | None,
    option(CARD, "Language of the texts, as a code such as en; may be repeated.", "--language", value="CODE"),
]
SourceDatasets: TypeAlias = Annotated[
    list[str] | None,
    option(
        CARD, "Data set on the Hub that the rows come from; may be repeated.", "--source-dataset", value="USER/NAME"
    ),
]
Token: TypeAlias = Annotated[
    str | None,
    option(
        RUNNING,
        "Hub token; the variable keeps it out of the shell's history.",
        "--token",
        value="TOKEN",
        default="the one of hf auth login",
        envvar="HF_TOKEN",
    ),
]
DryRun: TypeAlias = Annotated[
    bool, option(RUNNING, "Write all files and the card to a folder, and send nothing.", "--dry-run")
]
PushCacheDir: TypeAlias = Annotated[
    Path | None,
    option(
        RUNNING,
        "Where the rows were mined: their texts and candidates are taken from there.",
        "--cache-dir",
        value="DIR",
        callback=folder,
        default="$HF_NEGMINE_CACHE or ~/.cache/hf_negmine",
    ),
]
LoadRevision: TypeAlias = Annotated[
    str | None,
    option(REPOSITORY, "Branch, tag or commit.", "--revision", value="NAME", default="the main branch"),
]
OtherTeacher: TypeAlias = Annotated[
    str | None,
    option(
        TEACHER,
        "A replacement for the teacher that mined, such as a local copy of it.",
        "--teacher",
        "-t",
        value="MODEL",
        default="the same model from the Hub",
    ),
]
QuietReproduce: TypeAlias = Annotated[bool, option(RUNNING, "Print only the verdict.", "--quiet", "-q")]
