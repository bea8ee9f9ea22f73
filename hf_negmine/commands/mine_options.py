"""The options of ``hf-negmine mine`` that no other command has: teachers that build on others, filters, a judge."""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Literal, TypeAlias

from hf_negmine.base.errors import InputError
from hf_negmine.commands.options import TEACHER, TEACHERS_HELP, checked, option

FILTERS = "Filters"

ENSEMBLES_HELP = (
    " Several side by side, each under its own ceiling: [cyan]cross-sample(bm25, MODEL)[/] draws one of them for each "
    "query, [cyan]intra-sample(bm25, MODEL)[/] takes the best of every one, [cyan]intra-sample-dedup(bm25, MODEL)[/] "
    "takes each passage once."
)
VETO_HELP = (
    "Another teacher that must agree: TEACHER@METHOD keeps a candidate only if it is under this teacher's ceiling, "
    "too ([cyan]bm25@perc_pos:0.95[/]). With a third part the teacher has no say where it scores the positive at or "
    "under that, as it has not found the positive itself: [cyan]bm25@perc_pos:0.95@0[/]. May be repeated."
)
NEAR_DUPLICATES_HELP = (
    "Keep out what nearly repeats a positive or a better negative: [cyan]0.95[/] by the cosine of the teacher's "
    "vectors, [cyan]minhash:0.8[/] by the words that two passages share, for teachers without vectors (needs "
    "hf_negmine\\[filters])."
)
CONSISTENCY_HELP = (
    "Rows whose positive the teacher does not find among its N best passages are left out: the label is likely wrong."
)
JUDGE_HELP = (
    "A chat model that reads the negatives; those that answer their query are replaced. It runs at OpenAI or on a "
    "compatible server. The key is taken from the variable OPENAI_API_KEY."
)


class ActivationName(str, Enum):
    """`CrossEncoderTeacher.activation` for the command line."""

    IDENTITY = "identity"
    SIGMOID = "sigmoid"


class ConsistencyAction(str, Enum):
    """`filters.Consistency.action` for the command line."""

    DROP = "drop"
    FLAG = "flag"


def veto_parts(spec: str) -> tuple[str, str | None, float | None]:
    """Teacher, method and abstaining score of ``TEACHER[@METHOD[@SCORE]]``.

    Raises:
        InputError: a part is empty, or the method is unknown.
    """
    from hf_negmine.select.methods import parse_method

    index = re.match(r"faiss:[^:]*:", spec)  # its parameters come after an @, too
    head = index[0] if index else ""
    parts = spec.removeprefix(head).split("@")
    abstain_at = None
    if len(parts) > 2 and (number := _number(parts[-1])) is not None:
        abstain_at = number
        del parts[-1]
    method = parts.pop() if len(parts) > 1 else None
    teacher = head + "@".join(parts)  # a folder may have an @ in its name
    if not teacher.strip() or method == "":
        raise InputError(
            f"{spec!r} is not a TEACHER, TEACHER@METHOD or TEACHER@METHOD@SCORE, such as bm25@perc_pos:0.95@0"
        )
    if method is not None:
        parse_method(method)
    return teacher, method, abstain_at


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _veto_specs(values: list[str] | None) -> list[str] | None:
    for value in values or []:
        checked(veto_parts, value)
    return values


def near_duplicates_parts(spec: str) -> tuple[Literal["cosine", "minhash"], float]:
    """How passages are compared, and the least similarity of near duplicates: ``0.95``, ``minhash:0.8``.

    Raises:
        InputError: the spec is neither.
    """
    by, colon, rest = spec.rpartition(":")
    threshold = _number(rest)
    if threshold is None or not 0 < threshold <= 1 or (colon and by not in ("cosine", "minhash")):
        raise InputError(f"{spec!r} is not a similarity over 0 and at most 1, such as 0.95 or minhash:0.8")
    return "minhash" if by == "minhash" else "cosine", threshold


def _near_duplicates_spec(value: str | None) -> str | None:
    return checked(near_duplicates_parts, value)


MineTeacher: TypeAlias = Annotated[
    str, option(TEACHER, TEACHERS_HELP + ENSEMBLES_HELP, "--teacher", "-t", value="TEACHER")
]
BatchSize: TypeAlias = Annotated[
    int | None,
    option(TEACHER, "Texts per forward pass; less memory with fewer.", "--batch-size", value="N", default="32", min=1),
]
TruncateDim: TypeAlias = Annotated[
    int | None,
    option(
        TEACHER,
        "Keep only the first N dimensions of a vector, for Matryoshka models.",
        value="N",
        default="all",
        min=1,
    ),
]
Activation: TypeAlias = Annotated[
    ActivationName | None,
    option(TEACHER, "What turns a cross-encoder's output into a score.", default="the model's own"),
]
Revision: TypeAlias = Annotated[
    str | None, option(TEACHER, "Branch, tag or commit of a model on the Hub.", value="NAME", default="main")
]
TrustRemoteCode: TypeAlias = Annotated[
    bool,
    option(TEACHER, "Run Python code that comes with a model. Read it first.", "--trust-remote-code", default=False),
]
FirstStage: TypeAlias = Annotated[
    str | None,
    option(
        TEACHER,
        "Finds the candidates that a cross-encoder: or late-interaction: teacher scores: any other teacher.",
        value="TEACHER",
        default="bm25; a late-interaction model's own token vectors",
    ),
]
Candidates: TypeAlias = Annotated[
    int | None,
    option(
        TEACHER,
        "Candidates per query that such a teacher, or a faiss: teacher, scores. If too few of them are under the "
        "ceiling, the query is exhausted.",
        value="N",
        default="100; 256 of a faiss: teacher",
        min=1,
    ),
]
ApiUrl: TypeAlias = Annotated[
    str | None,
    option(
        TEACHER,
        "Address of an api: teacher's server. The key is taken from the variable OPENAI_API_KEY.",
        value="URL",
        default="$OPENAI_BASE_URL, or OpenAI's own",
    ),
]

Vetoes: TypeAlias = Annotated[
    list[str] | None,
    option(FILTERS, VETO_HELP, "--veto", value="TEACHER@METHOD", callback=_veto_specs, default=False),
]
NearDuplicatesSpec: TypeAlias = Annotated[
    str | None,
    option(FILTERS, NEAR_DUPLICATES_HELP, value="SPEC", callback=_near_duplicates_spec, default=False),
]
ConsistencyTop: TypeAlias = Annotated[
    int | None, option(FILTERS, CONSISTENCY_HELP, "--consistency", value="N", default=False, min=1)
]
ConsistencyActionOption: TypeAlias = Annotated[
    ConsistencyAction | None,
    option(
        FILTERS,
        "Whether --consistency drops such rows, or keeps them with a column that flags them.",
        "--consistency-action",
        default="drop",
    ),
]
JudgeModel: TypeAlias = Annotated[str | None, option(FILTERS, JUDGE_HELP, "--judge", value="MODEL", default=False)]
JudgeBudget: TypeAlias = Annotated[
    int | None,
    option(FILTERS, "Most pairs that it reads, the likeliest false negatives first.", value="N", default="all", min=0),
]
JudgeUrl: TypeAlias = Annotated[
    str | None, option(FILTERS, "Address of its server.", value="URL", default="$OPENAI_BASE_URL, or OpenAI's own")
]
Relabel: TypeAlias = Annotated[
    bool, option(FILTERS, "Write passages that it says answer a query as further positives of the query.", "--relabel")
]
