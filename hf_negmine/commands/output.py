"""The output folder of the commands: the mined rows as Parquet, their summary, and the lookup tables of format ids."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_negmine.base.errors import ExhaustedError, InputError, StorageError, require
from hf_negmine.base.files import TEMPORARY_PREFIX, finish_or_nothing, scratch_folder, storage_errors, write_json
from hf_negmine.base.wording import counted, rules_of
from hf_negmine.data.formats.tools import TOOLS

if TYPE_CHECKING:
    import datasets

    from hf_negmine.miner import NegativeMiner
    from hf_negmine.report.summary import MiningSummary

DATA, QUERIES, CORPUS, SUMMARY = "data.parquet", "queries.parquet", "corpus.parquet", "summary.json"
POSITIVES = "positives.parquet"
LINES, LIST = "data.jsonl", "data.json"
"""The rows as other tools load them: an object per line, or for DPR one list."""
OF_ONE_RUN = frozenset({QUERIES, CORPUS, POSITIVES, LINES, LIST})
"""Files that one run writes and the next perhaps does not."""
FILES = (DATA, SUMMARY, *sorted(OF_ONE_RUN))


@dataclass(frozen=True)
class MinedData:
    """Mined rows, opened.

    Attributes:
        rows: the rows as they were written.
        lookups: queries and corpus of format ``ids``.
        summary: the summary of their mining; None for rows that another program wrote.
    """

    rows: datasets.Dataset
    lookups: tuple[datasets.Dataset, datasets.Dataset] | None = None
    summary: MiningSummary | None = None


def open_mined(source: str | Path, *, split: str | None = None, config_name: str | None = None) -> MinedData:
    """Open what `save` wrote into a folder, or rows from anywhere else.

    Raises:
        InputError: the source cannot be read.
    """
    from hf_negmine.data.sources import open_file, open_rows
    from hf_negmine.report.summary import MiningSummary

    folder = Path(source)
    if not is_output(folder):
        rows = open_rows(source, split=split, config_name=config_name).rows
        require(hasattr(rows, "select"), f"{source} does not hold a data set that can be read twice")
        return MinedData(rows)
    lookups = None
    if (folder / CORPUS).exists():
        lookups = (open_file(folder / QUERIES), open_file(folder / CORPUS))
    content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    summary = MiningSummary.from_dict(content, where=str(folder / SUMMARY))
    return MinedData(open_file(folder / DATA), lookups, summary)


def prepare_folder(folder: Path, *, overwrite: bool = False, read: Mapping[str, str | None] | None = None) -> None:
    """Make ``folder`` and check that it can be written to, before any long work.

    ``read`` are paths or names on the Hub that are read, by what the user knows them as.

    Raises:
        InputError: something that is read is the folder, or one of the files that may be replaced.
        StorageError: it holds something that these commands did not write (without ``overwrite``), or is not writable.
    """
    own = folder.expanduser().resolve()
    for name, path in (read or {}).items():
        if path is not None and Path(path).expanduser().resolve() in (own, *(own / file for file in FILES)):
            raise InputError(f"{name}: {path} may be replaced by what is written into {folder}; give another folder")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY_PREFIX)]
        if others and not overwrite and not is_output(folder):
            raise StorageError(
                f"{folder} holds {min(others)!r} and no {SUMMARY} of this command, so nothing was written; give "
                "another folder, or --overwrite"
            )
    with scratch_folder(folder):
        pass


def is_output(folder: Path) -> bool:
    """Whether an earlier run wrote ``folder``, as its summary shows."""
    try:
        return is_summary((folder / SUMMARY).read_bytes())
    except OSError:
        return False


def is_summary(content: bytes) -> bool:
    """Whether these are the bytes of a summary that an earlier run wrote."""
    try:
        return "teacher_fingerprints" in json.loads(content)["settings"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def save(mined: datasets.Dataset, miner: NegativeMiner, folder: Path, *, shown: str | None = None) -> str:
    """Write ``mined`` and what belongs to it into ``folder``, in batches; an earlier run's files there are replaced.

    Everything is written under a temporary name first, and renamed only when all of it is on disk. Returns sentences
    for the user: what was written, and how to load it; there the folder is called as it is ``shown``.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
        ExhaustedError: there is no row to write.
    """
    if not len(mined):
        settings = miner.summary.settings
        raise ExhaustedError(
            f"no row is left to write: none of {miner.summary.rows:,} rows has the requested negatives "
            f"({settings['num_negatives']} under {rules_of(settings)}); relax the method or ask for fewer"
        )
    tables = {DATA: mined}
    if miner.config.format == "ids":
        tables |= {QUERIES: miner.queries, CORPUS: miner.corpus}
    positives = miner.fitted.mined_positives
    if positives is not None:
        tables[POSITIVES] = positives
    for_tool = {"dpr": LIST}.get(miner.config.format, LINES) if miner.config.format in TOOLS else None
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):  # what killed runs have left half-written
            shutil.rmtree(path, ignore_errors=True)
        with scratch_folder(folder) as scratch:
            for name, table in tables.items():
                with finish_or_nothing(scratch / name) as file:
                    table.to_parquet(file)
            if for_tool is not None:
                with finish_or_nothing(scratch / for_tool) as file:
                    mined.to_json(file, lines=for_tool == LINES, orient="records", force_ascii=False)
            written = [*tables, *([for_tool] if for_tool else [])]
            write_json(scratch / SUMMARY, miner.summary.as_dict())
            ours = is_output(folder)
            # The summary goes first: it marks the folder as ours, so that a run killed at this point can be repeated.
            for name in (SUMMARY, *written):
                (scratch / name).replace(folder / name)
            if ours:
                for name in OF_ONE_RUN - set(written):
                    (folder / name).unlink(missing_ok=True)
    megabytes = (folder / DATA).stat().st_size / 1e6
    return _what_is_there(f"{shown or folder}/{DATA}", megabytes, tables, for_tool)


def _what_is_there(data: str, megabytes: float, tables: dict[str, datasets.Dataset], for_tool: str | None) -> str:
    besides = f"{QUERIES} and {CORPUS} (the texts of the ids) and {SUMMARY}" if QUERIES in tables else SUMMARY
    if for_tool is not None:
        besides = f"{for_tool} (the same rows as JSON) and {SUMMARY}"
    if POSITIVES in tables:
        pairs = counted(len(tables[POSITIVES]), "pair")
        besides = f"{POSITIVES} ({pairs} that the judge calls relevant), {besides}"
    return (
        f"Written: {data} ({counted(len(tables[DATA]), 'row')}, {megabytes:,.1f} MB); beside it "
        f'{besides}.\nLoad it: rows = datasets.load_dataset("parquet", data_files="{data}", split="train")'
    )


def note_on_exhausted(summary: MiningSummary) -> str:
    """A sentence about the rows that were left out because they lack negatives; empty if there are none."""
    settings = summary.settings
    ended = summary.list_ended or 0
    if not summary.exhausted + ended or settings["on_exhausted"] != "drop":
        return ""
    queries = summary.exhausted + ended + summary.complete
    if ended:
        return (
            f"Note: the list ended for {ended:,} of {queries:,} queries before {settings['method']} with "
            f"{settings['sampler']} had all it looks at; rows with fewer than {settings['num_negatives']} negatives "
            "were left out (--on-exhausted keep keeps them, a longer list or the --teacher that made it finds more)."
        )
    return (
        f"Note: in the whole corpus {rules_of(settings)} {'allow' if settings.get('filters') else 'allows'} fewer than "
        f"{settings['num_negatives']} passages for {summary.exhausted:,} of {queries:,} queries; their rows were left "
        "out (--on-exhausted keep keeps them)."
    )
