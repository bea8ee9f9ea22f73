"""Shared by all commands: errors as one sentence, other libraries kept quiet, teachers from their options."""

from __future__ import annotations

import inspect
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import typer

from hf_negmine.base.errors import InputError, NegmineError
from hf_negmine.commands.options import DEBUG, RUNNING
from hf_negmine.commands.signatures import Command, Panels, takes

if TYPE_CHECKING:
    from hf_negmine.base.protocols import Teacher

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
NO_GPU = "set CUDA_VISIBLE_DEVICES= to nothing, so that the command runs without the GPU"
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


@contextmanager
def reported_errors(
    debug: bool,
    *,
    stopped: str = "stopped; run again to continue",
    to_save_memory: str = NO_GPU,
    secret: str | None = None,
) -> Iterator[None]:
    """Turn exceptions into one sentence on stderr and an exit code, and warnings into one sentence.

    ``debug`` adds the traceback, and the file and line of a warning. Nothing shows ``secret``, nor what looks like a
    Hub token. ``to_save_memory`` is the remedy that this command suggests when the GPU's memory is full.
    """
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = partial(_show_warning, secret)
            yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        typer.echo(f"\n{stopped}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if debug:
            typer.echo(_without_tokens(traceback.format_exc(), secret), err=True, nl=False)
        sentence = _without_tokens(_sentence(error, to_save_memory), secret)
        typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {sentence}", err=True)
        raise typer.Exit(EXIT_FAILED) from None


def command(options: Panels, **reporting: Any) -> Callable[[Command], Command]:
    """Make a function a command with these options and ``--debug``, see `takes`; its errors are `reported_errors`."""

    def decorate(function: Command) -> Command:
        @takes({**options, RUNNING: [*options.get(RUNNING, []), DEBUG]})
        @wraps(function)
        def run(debug: bool, **given: Any) -> None:
            with reported_errors(debug, secret=given.get("token"), **reporting):
                function(**given)

        return run

    return decorate


def _show_warning(secret: str | None, message: Warning | str, *_: Any) -> None:
    sentence = _without_tokens(" ".join(str(message).split()), secret)
    typer.echo(f"{typer.style('Warning:', fg='yellow', bold=True)} {sentence}", err=True)


def _without_tokens(text: str, secret: str | None) -> str:
    if secret is not None and (bare := secret.strip()):
        text = text.replace(bare, "hf_…")
    return TOKEN.sub("hf_…", text)


def _sentence(error: Exception, to_save_memory: str) -> str:
    reason = " ".join(str(error).split()) or "no message"
    if isinstance(error, NegmineError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not worth importing torch for
        return f"the GPU's memory is full, {to_save_memory}: {reason}"
    if isinstance(error, OSError | MemoryError):
        return f"the system refused ({type(error).__name__}): {reason}"
    kind = type(error).__name__
    return f"this is a bug of hf_negmine ({kind}: {reason}); run again with --debug and report the output"


def set_up_libraries(*, quiet: bool) -> None:
    """Silence other libraries' bars and warnings while a model loads; with ``quiet``, also download bars."""
    # Threads that spin while they wait make encoding several times slower beside other work. torch reads this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import datasets
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()


MODELS = "Sentence Transformers models"
CALLED = {
    ("dense", "cross-encoder", "sparse", "late-interaction"): MODELS,
    ("dense", "sparse", "late-interaction", "api"): f"{MODELS} that make vectors, or api: teachers",
    ("cross-encoder", "late-interaction"): "cross-encoder: or late-interaction: teachers",
    ("cross-encoder", "late-interaction", "faiss"): "cross-encoder:, late-interaction: or faiss: teachers",
    ("dense",): "dense models",
    ("cross-encoder",): "cross-encoder: teachers",
    ("api",): "api: teachers",
}
"""In words, the kinds of teachers that an option is for."""
OF_A_VETO = ("dtype", "batch_size", "trust_remote_code", "candidates", "base_url")
"""Options that also apply to the teachers of vetoes. Prompts and lengths do not: they belong to one model."""

OF_ONE_MODEL = {"query_prompt": "prompt", "passage_prompt": "prompt", "revision": "revision"}
"""Options that say nothing about several models."""


def open_teacher(spec: str, loading: dict[str, Any], *, prefix: str) -> Teacher:
    """Open a teacher with the options for its loading."""
    from hf_negmine.teachers import resolve_teacher

    teacher = resolve_teacher(spec, options=_by_kind(loading))
    _check_used(loading, spec, [teacher], prefix)
    return teacher


def open_miners_teachers(spec: str | None, vetoes: Sequence[str], loading: dict[str, Any]) -> tuple[Any, list[Any]]:
    """Open a teacher or an ensemble (None without a spec), and the vetoes of others, with the options for them."""
    from hf_negmine.select.ensembles import resolve_ensemble
    from hf_negmine.select.filters import Veto
    from hf_negmine.select.filters.specs import parse_veto
    from hf_negmine.teachers import resolve_teacher

    given = dict(loading)
    if "first_stage" in given:  # resolved here, so that it does not become its own first stage
        below = _by_kind({name: value for name, value in given.items() if name not in ("first_stage", "candidates")})
        given["first_stage"] = resolve_teacher(given["first_stage"], options=below)
    teacher = None if spec is None else resolve_ensemble(spec, options=_by_kind(given))
    teachers = [] if teacher is None else [teacher]
    of_vetoes = {name: value for name, value in loading.items() if name in OF_A_VETO}
    shared = _by_kind(of_vetoes)
    made = []
    for veto in vetoes:
        other, method, abstain_at = parse_veto(veto)
        made.append(Veto(resolve_teacher(other, options=shared), method, abstain_at))
    _check_used({name: value for name, value in loading.items() if name not in of_vetoes}, spec, teachers)
    _check_used(of_vetoes, spec, [*teachers, *(veto.teacher for veto in made)])
    return teacher, made


def _by_kind(loading: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arguments of the teachers' classes, by kind (see `teachers.resolve_teacher`)."""
    options: dict[str, dict[str, Any]] = {}
    for name, value in loading.items():
        for kind in _kinds_with(name):
            options.setdefault(kind, {})[name] = value
    return options


def _check_used(loading: dict[str, Any], spec: str | None, teachers: Sequence[Any], prefix: str = "--") -> None:
    """Raise `InputError` for an option that no teacher takes, or a prompt that several would."""
    kinds = [kind for teacher in teachers for kind in _kinds(teacher)]
    unused = [name for name in loading if not set(_kinds_with(name)) & set(kinds)]
    if unused:
        those = _kinds_with(unused[0])
        names = ", ".join(_shown(name, prefix) for name in unused if _kinds_with(name) == those)
        raise InputError(f"{names}: for {CALLED[those]}, but the teacher {spec!r} is not one of them")
    for name in loading:
        several = sum(kind in _kinds_with(name) for kind in kinds)
        if name in OF_ONE_MODEL and several > 1:
            raise InputError(
                f"{_shown(name, prefix)}: a {OF_ONE_MODEL[name]} belongs to one model, but {spec!r} has {several}; "
                f"save each with its {OF_ONE_MODEL[name]}, or mine from Python"
            )


def _shown(name: str, prefix: str) -> str:
    return f"{prefix}{'api-url' if name == 'base_url' else name.replace('_', '-')}"


def _classes() -> dict[str, Any]:
    """The classes of teachers that have options, by kind."""
    from hf_negmine.teachers import MODEL_KINDS, ApproximateTeacher, DenseTeacher

    return {"dense": DenseTeacher, **MODEL_KINDS, "faiss": ApproximateTeacher}


def _kinds_with(name: str) -> tuple[str, ...]:
    """The kinds of teachers that take an argument."""
    return tuple(kind for kind, made in _classes().items() if name in inspect.signature(made).parameters)


def _kinds(teacher: Any) -> list[str]:
    """Kinds of a teacher and of all teachers that it builds on."""
    from hf_negmine.teachers import with_stages

    return [kind for one in with_stages(teacher) for kind, made in _classes().items() if isinstance(one, made)]
