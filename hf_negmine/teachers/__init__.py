"""Teachers score passages for a query. They never import one another."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from hf_negmine.base.devices import require_device
from hf_negmine.base.errors import InputError, require, require_whole
from hf_negmine.base.protocols import (
    FusionTeacher,
    PairTeacher,
    Role,
    ScoringTeacher,
    SparseTeacher,
    Teacher,
    TokenTeacher,
    VectorTeacher,
)
from hf_negmine.teachers.api import APITeacher
from hf_negmine.teachers.approximate import ApproximateTeacher, without_index
from hf_negmine.teachers.bm25 import BM25Teacher
from hf_negmine.teachers.cross_encoder import CrossEncoderTeacher
from hf_negmine.teachers.dense import DenseTeacher
from hf_negmine.teachers.encoders import EncoderTeacher, models_stay_the_same
from hf_negmine.teachers.fixed import FixedTeacher, RandomTeacher
from hf_negmine.teachers.function import EncodeFunction, ScoreFunction
from hf_negmine.teachers.fusion import Fusion
from hf_negmine.teachers.late_interaction import LateInteractionTeacher
from hf_negmine.teachers.lists import ListTeacher
from hf_negmine.teachers.sparse import SparseEncoderTeacher

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = [
    "APITeacher",
    "ApproximateTeacher",
    "BM25Teacher",
    "CrossEncoderTeacher",
    "DenseTeacher",
    "EncodeFunction",
    "FixedTeacher",
    "Fusion",
    "LateInteractionTeacher",
    "ListTeacher",
    "RandomTeacher",
    "ScoreFunction",
    "SparseEncoderTeacher",
    "identity_of",
    "models_stay_the_same",
    "parse_call",
    "place",
    "resolve_teacher",
    "settings_of",
    "stages_of",
    "teacher_of_settings",
    "with_stages",
    "without_index",
]

KINDS_WITHOUT_FIRST_STAGE = (VectorTeacher, ScoringTeacher, SparseTeacher)
KINDS = (*KINDS_WITHOUT_FIRST_STAGE, TokenTeacher, PairTeacher, FusionTeacher, ApproximateTeacher)
KINDS_OF_MODELS: dict[str, Callable[..., Teacher]] = {
    "CrossEncoder": CrossEncoderTeacher,
    "MultiVectorEncoder": LateInteractionTeacher,
    "SparseEncoder": SparseEncoderTeacher,
}
"""The teacher for a loaded Sentence Transformers model, by its class; for any other class it is `DenseTeacher`."""

OF_A_MODEL = {"model", "revision", "dtype", "max_length", "version"}
PROMPTS = {"query_prompt", "passage_prompt"}
SETTINGS_OF_MODELS = {
    "dense": OF_A_MODEL | PROMPTS | {"similarity", "truncate_dim"},
    "sparse": OF_A_MODEL | PROMPTS | {"max_active_dims"},
    "late-interaction": OF_A_MODEL | PROMPTS | {"candidates"},
    "cross-encoder": OF_A_MODEL | {"activation", "candidates"},
}
"""What the settings of a model may hold: they may come from the Hub, and must not make other code run here."""

Options: TypeAlias = Mapping[str, Mapping[str, Any]]
MODEL_KINDS: dict[str, Callable[..., Teacher]] = {
    "cross-encoder": CrossEncoderTeacher,
    "sparse": SparseEncoderTeacher,
    "late-interaction": LateInteractionTeacher,
    "api": APITeacher,
}
"""Prefixes of a model in a spec; a model without one is dense."""
FUSIONS = ("rrf", "sum")
ENSEMBLES = ("cross-sample", "intra-sample", "intra-sample-dedup")
"""Ensembles are a way of mining (`select.ensembles`), not teachers."""
UNFINISHED_INDEX = re.compile(r"faiss:[^:]*")
"""The beginning of an approximate teacher's spec, up to the colon at the end of its index, which may hold commas."""
EXPECTED = (
    "a model's id or folder, 'cross-encoder:MODEL', 'sparse:MODEL', 'late-interaction:MODEL', 'api:MODEL', "
    "'faiss:INDEX:MODEL', 'bm25', 'random', 'fixed:FOLDER', or a fusion such as 'rrf(bm25, MODEL)'"
)


def resolve_teacher(
    teacher: str | Path | Teacher | SentenceTransformer,
    *,
    progress: bool = True,
    device: str | None = None,
    options: Options | None = None,
) -> Teacher:
    """Make a teacher from what users write.

    Args:
        teacher: what scores passages: a Sentence Transformers model id or folder, ``cross-encoder:MODEL``,
            ``sparse:MODEL``, ``late-interaction:MODEL``, ``api:MODEL`` of an OpenAI-compatible server,
            ``faiss:IVF1024,Flat:MODEL`` or another FAISS index of a dense model's vectors, for corpora of many
            millions, ``bm25`` (``bm25:german``), ``random``, or ``fixed:FOLDER`` with vectors of your own; several
            combined into one score, ``rrf(bm25, MODEL)`` by their ranks or ``sum(bm25, MODEL)`` by their scores. In
            Python also a loaded model, or an object that follows the `Teacher` protocol. If a teacher builds on others,
            these are resolved too.
        progress: whether teachers show their own progress bars.
        device: where its models are loaded, see `place`.
        options: arguments for the teachers that a spec names, by kind (``"dense"`` for a bare model).

    Raises:
        InputError: ``teacher`` is none of these.
    """
    if isinstance(teacher, str):
        teacher = teacher.strip()
        require(teacher != "", f"teacher: it is empty, expected {EXPECTED}")
    resolved = _with_first_stage(_resolve(teacher, progress, options or {}), progress, options)
    place(resolved, device)
    return resolved


def place(teacher: Teacher, device: str | None) -> None:
    """Load the models of a teacher, and of those that it builds on, on ``device``.

    A model that is already loaded stays where it is, and one that was given its own device keeps it.

    Raises:
        InputError: this machine does not have the device.
    """
    require_device(device)
    for stage in stages_of(teacher):
        place(stage, device)
    if isinstance(teacher, EncoderTeacher):
        teacher.place(device)


def _resolve(teacher: Any, progress: bool, options: Options) -> Teacher:
    """The teacher, whose first stage may still be a spec."""
    # `EncoderTeacher` first: up to Python 3.11, looking for the attributes of a kind loads a model.
    if isinstance(teacher, (EncoderTeacher, ListTeacher, *KINDS)) and not isinstance(teacher, type):
        return cast(Teacher, teacher)
    if isinstance(teacher, str):
        if (found := parse_call(teacher, (*FUSIONS, *ENSEMBLES))) is not None:
            kind, parts = found
            if kind in ENSEMBLES:
                raise InputError(
                    f"teacher {teacher!r} is an ensemble, with a ranking and a scale for each of its teachers; "
                    f"expected one teacher here, or a fusion such as 'sum({', '.join(parts)})'"
                )
            return Fusion([resolve_teacher(part, progress=progress, options=options) for part in parts], kind)  # type: ignore[arg-type]
        kind, colon, rest = teacher.partition(":")
        if kind in MODEL_KINDS and colon:
            require(bool(rest.strip()), f"teacher {teacher!r} names no model, expected for example '{kind}:MODEL'")
            return MODEL_KINDS[kind](rest.strip(), **options.get(kind, {}))
        if kind == "faiss" and colon:
            index, _, rest = rest.partition(":")
            require(bool(rest), f"teacher {teacher!r} names no model, expected for example 'faiss:IVF1024,Flat:MODEL'")
            dense = resolve_teacher(rest.strip(), progress=progress, options=options)
            return ApproximateTeacher(dense, index, **options.get("faiss", {}))
        if kind == "bm25":
            return BM25Teacher(rest or "english", progress=progress)
        if kind == "random" and (not rest or rest.lstrip("-").isdigit()):
            return RandomTeacher(int(rest or 0))
        if kind == "fixed" and rest:
            return FixedTeacher.from_folder(rest)
    given: Any = teacher
    for model in type(given).__mro__:
        if model.__name__ in KINDS_OF_MODELS and model.__module__.startswith("sentence_transformers."):
            return KINDS_OF_MODELS[model.__name__](given)
    if isinstance(given, str | Path) or (hasattr(given, "encode_query") and not isinstance(given, type)):
        return DenseTeacher(given, **options.get("dense", {}))
    raise InputError(
        f"teacher {teacher!r} is not a model, and lacks what a teacher needs: name, fingerprint(role), and either "
        "similarity with encode(texts, role), or index(passages), or encode_sparse(texts, role), or first_stage and "
        "candidates with score(queries, passages) or encode_tokens(texts, role), or stages with fuse(scores); a "
        "function can be wrapped as EncodeFunction(f) or ScoreFunction(f)"
    )


def parse_call(spec: str, names: Sequence[str]) -> tuple[str, list[str]] | None:
    """Parse ``"rrf(bm25, sum(a, b))"`` into ``("rrf", ["bm25", "sum(a, b)"])``; None if it is no call of ``names``.

    Raises:
        InputError: the parentheses do not match, or an argument is empty.
    """
    name, opened, rest = spec.strip().partition("(")
    if not opened or name.strip() not in names:
        return None
    parts, depth = [""], 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            require(
                place == len(rest) - 1,
                f"teacher {spec!r} continues after its last parenthesis with {rest[place + 1 :]!r}, expected nothing",
            )
        elif letter == "," and depth == 1 and not UNFINISHED_INDEX.fullmatch(parts[-1].strip()):
            parts.append("")
        else:
            parts[-1] += letter
    require(depth == 0, f"teacher {spec!r} opens {spec.count('(')} parentheses and closes {spec.count(')')}")
    parts = [part.strip() for part in parts]
    require(
        all(parts) and len(parts) >= 2,
        f"teacher {spec!r} joins {sum(map(bool, parts))} teacher(s) in {len(parts)} place(s), expected two or more "
        f"separated by commas, such as '{name.strip()}(bm25, MODEL)'",
    )
    return name.strip(), parts


def _with_first_stage(teacher: Teacher, progress: bool, options: Options | None) -> Teacher:
    """The teacher with its first stage resolved; the same object if that changes nothing."""
    if not isinstance(teacher, PairTeacher | TokenTeacher) or isinstance(teacher, KINDS_WITHOUT_FIRST_STAGE):
        return teacher
    require_whole(teacher.candidates, f"candidates of {teacher.name}", at_least=1)
    first = teacher.first_stage
    if first is None and isinstance(teacher, TokenTeacher):
        return teacher
    try:
        resolved = resolve_teacher(first, progress=progress, options=options)
    except InputError as error:
        raise InputError(f"first_stage of {teacher.name}: {error}") from error
    if resolved is first:
        return teacher
    other = copy.copy(teacher)
    # Some teachers are frozen, and a copy, like a pickle, leaves out the model.
    vars(other).update({**vars(teacher), "first_stage": resolved})
    return other


def stages_of(teacher: Teacher) -> tuple[Teacher, ...]:
    """The teachers that this one builds on."""
    if (first := getattr(teacher, "first_stage", None)) is not None:
        return (first,)
    return tuple(getattr(teacher, "stages", ()))


def with_stages(teacher: Teacher) -> Iterator[Teacher]:
    """The teacher and all teachers that it builds on, directly or not."""
    yield teacher
    for stage in stages_of(teacher):
        yield from with_stages(stage)


def identity_of(teacher: Teacher) -> dict[str, Any]:
    """Everything that determines a teacher's scores, including those it builds on; part of the provenance."""
    roles: tuple[Role, ...] = ("query", "passage")
    identity: dict[str, Any] = {
        "teacher": teacher.name,
        "teacher_fingerprints": {role: teacher.fingerprint(role) for role in roles},
        "similarity": getattr(teacher, "similarity", None),
    }
    if stages := stages_of(teacher):
        identity["stages"] = [identity_of(stage) for stage in stages]
    if (candidates := getattr(teacher, "candidates", None)) is not None:
        identity["candidates"] = candidates
    return identity


def settings_of(teacher: Teacher) -> dict[str, Any] | None:
    """The settings that recreate a teacher and those that it builds on; None for a teacher without settings."""
    own: dict[str, Any] | None = getattr(teacher, "settings", None)
    if own is None or not (stages := stages_of(teacher)):
        return own
    return {**own, "stages": [settings_of(stage) for stage in stages]}


def teacher_of_settings(settings: dict[str, Any] | None) -> Teacher:
    """Recreate a teacher from the settings in provenance (`settings_of`), loading it from the Hub if it is a model.

    Raises:
        InputError: settings that cannot recreate a teacher: precomputed vectors, a user's own teacher, or an endpoint
            (a key is never sent to an address that somebody else wrote down).
    """
    unknown = f"teacher: the settings {settings} are not known to this version"
    require(settings is None or isinstance(settings, dict), unknown)
    given = dict(settings or {})
    kind = given.pop("kind", "custom")
    require(isinstance(given.get("stages", []), list), unknown)
    try:
        stages = [teacher_of_settings(stage) for stage in given.pop("stages", [])]
        if kind in SETTINGS_OF_MODELS:
            if unexpected := set(given) - SETTINGS_OF_MODELS[kind]:
                raise TypeError(f"unknown: {sorted(unexpected)}")
            if stages or kind == "cross-encoder":
                given["first_stage"] = stages[0]
            return MODEL_KINDS.get(kind, DenseTeacher)(given.pop("model"), **given)
        if kind == "faiss":
            return ApproximateTeacher(stages[0], **given)
        if kind == "fusion":
            return Fusion(stages, **given)
        if kind == "bm25":
            return BM25Teacher(**given)
        if kind == "random":
            return RandomTeacher(**given)
    except InputError:
        raise
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise InputError(f"{unknown} ({error})") from error
    raise InputError(f"teacher: one of kind {kind!r} cannot be made from its settings; give it as teacher=")
