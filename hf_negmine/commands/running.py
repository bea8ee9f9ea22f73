"""What all commands share when they run: errors as one sentence, other libraries quiet, a teacher from its options."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from hf_negmine.errors import InputError, NegmineError

if TYPE_CHECKING:
    from hf_negmine.protocols import Teacher

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


@contextmanager
def reported_errors(
    debug: bool, *, stopped: str = "stopped; run again to continue", secret: str | None = None
) -> Iterator[None]:
    """Turn exceptions into one sentence on stderr and an exit code; ``debug`` adds the traceback.

    Neither shows ``secret``, nor anything that looks like a token of the Hub.
    """
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        typer.echo(f"\n{stopped}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if debug:
            typer.echo(_without_tokens(traceback.format_exc(), secret), err=True, nl=False)
        sentence = _without_tokens(_sentence(error), secret)
        typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {sentence}", err=True)
        raise typer.Exit(EXIT_FAILED) from None


def _without_tokens(text: str, secret: str | None) -> str:
    if secret is not None and (bare := secret.strip()):
        text = text.replace(bare, "hf_…")
    return TOKEN.sub("hf_…", text)


def _sentence(error: Exception) -> str:
    reason = " ".join(str(error).split()) or "no message"
    if isinstance(error, NegmineError):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not to be imported for its name
        return f"the GPU's memory is full, give --device cpu, or a smaller --max-length or --batch-size: {reason}"
    if isinstance(error, OSError | MemoryError):
        return f"the system refused ({type(error).__name__}): {reason}"
    kind = type(error).__name__
    return f"this is a bug of hf_negmine ({kind}: {reason}); run again with --debug and report what it says"


def set_up_libraries(*, quiet: bool) -> None:
    """No bars and warnings of other libraries while a model loads; with ``quiet``, no download bars either."""
    # Threads that spin while they wait make encoding several times slower where other work goes on. torch reads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    import datasets
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()


def open_teacher(spec: str, loading: dict[str, Any], device: str | None, *, prefix: str = "--") -> Teacher:
    """The teacher; for a dense one with what the options say about its loading."""
    from hf_negmine.teachers import DenseTeacher, resolve_teacher

    teacher = resolve_teacher(spec)
    given = {name: value for name, value in loading.items() if value is not None}
    if isinstance(teacher, DenseTeacher):
        return DenseTeacher(spec, device=device, **given)
    if given:
        names = ", ".join(f"{prefix}{name.replace('_', '-')}" for name in given)
        raise InputError(f"{names}: for Sentence Transformers models, and the teacher {spec!r} is none")
    return teacher
