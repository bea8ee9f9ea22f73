"""The output folder of ``mine`` at an address: written on this machine first, then sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hf_negmine.base.addresses import files_below, opened_address
from hf_negmine.base.errors import InputError, StorageError
from hf_negmine.base.files import TEMPORARY_PREFIX, scratch_folder
from hf_negmine.commands.output import FILES, OF_ONE_RUN, SUMMARY, is_summary, save

if TYPE_CHECKING:
    import datasets

    from hf_negmine.miner import NegativeMiner

PROBE = f"{TEMPORARY_PREFIX}probe"


def prepare_address(address: str, *, overwrite: bool = False, read: Mapping[str, str | None] | None = None) -> None:
    """As `output.prepare_folder`: check before any long work that the address can be written to.

    Raises:
        InputError: something that is read is there, or the address is of no known kind.
        StorageError: it holds something that these commands did not write (without ``overwrite``), or is not writable.
    """
    for name, source in (read or {}).items():
        if source is not None and source.rstrip("/") in (address, *(f"{address}/{file}" for file in FILES)):
            raise InputError(f"{name}: {source} may be replaced by what is written into {address}; give another folder")
    with opened_address(address, "output") as (files, root):
        others = [name for name in files_below(files, root) if not name.startswith(TEMPORARY_PREFIX)]
        if "" in others:
            raise StorageError(f"{address} is a file, so nothing was written; give a folder")
        if others and not overwrite and not _is_output(files, root):
            raise StorageError(
                f"{address} holds {min(others)!r} and no {SUMMARY} of this command, so nothing was written; give "
                "another folder, or --overwrite"
            )
        files.pipe_file(f"{root}/{PROBE}", b"")
        files.rm_file(f"{root}/{PROBE}")


def save_at(mined: datasets.Dataset, miner: NegativeMiner, address: str) -> str:
    """As `output.save`: write ``mined`` and what belongs to it, file by file, each whole.

    Raises:
        StorageError: the disk of this machine is full, or the address cannot be written to.
        ExhaustedError: there is no row to write.
    """
    with scratch_folder(miner.config.cache_dir) as scratch:
        said = save(mined, miner, scratch, shown=address)
        written = [path.name for path in scratch.iterdir()]
        with opened_address(address, "output") as (files, root):
            ours = _is_output(files, root)
            for name in sorted(written, key=lambda name: name != SUMMARY):  # it marks the folder as ours
                files.put_file(str(scratch / name), f"{root}/{name}")
            for name in OF_ONE_RUN.intersection(files_below(files, root)) - {*written} if ours else ():
                files.rm_file(f"{root}/{name}")
    return said


def _is_output(files: Any, root: str) -> bool:
    try:
        return is_summary(files.cat_file(f"{root}/{SUMMARY}"))
    except FileNotFoundError:
        return False
