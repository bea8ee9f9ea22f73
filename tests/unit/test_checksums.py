"""Sealed files: what is verified, when, and what is said and done of what is damaged."""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_negmine.base import checksums
from hf_negmine.base.checksums import is_whole, publish_sealed, read_sealed, write_sealed
from hf_negmine.base.errors import DamagedError, StorageError
from hf_negmine.base.files import scratch_folder, write_array

CONTENT = {"name": "é", "settings": {"seed": 3, "top": 0.95, "none": None}, "numbers": {"10": 1, "9": 2}}


def sealed(folder: Path, count: int = 3) -> Path:
    paths = [folder / "inner" / f"{number}.npy" for number in range(count)]
    for number, path in enumerate(paths):
        write_array(path, np.arange(number, number + 5))
    write_sealed(folder / "about.json", CONTENT, paths)
    return folder / "about.json"


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_what_is_sealed_is_read(tmp_path: Path) -> None:
    assert read_sealed(sealed(tmp_path)) == CONTENT
    write_sealed(tmp_path / "numbers.json", {"a": {10: 1, 9: 2}})  # keys that JSON makes strings of
    assert read_sealed(tmp_path / "numbers.json") == {"a": {"10": 1, "9": 2}}


@pytest.mark.parametrize("number", range(3))
def test_every_file_is_verified_and_the_damaged_one_is_named(tmp_path: Path, number: int) -> None:
    about = sealed(tmp_path)
    read_sealed(about)
    path = tmp_path / "inner" / f"{number}.npy"
    changed(path)
    with pytest.raises(DamagedError, match=rf"{path} is damaged: its content has changed; run fit again, or delete"):
        read_sealed(about)
    os.truncate(path, 5)
    with pytest.raises(DamagedError, match=rf"{path} is damaged: it has 5 bytes of 168;"):
        read_sealed(about)
    path.unlink()
    with pytest.raises(DamagedError, match=rf"{path} is damaged: No such file"):
        read_sealed(about)


def test_every_character_of_the_json_counts(tmp_path: Path) -> None:
    about = sealed(tmp_path, 1)
    text = about.read_text()
    kept = 0
    for place, character in enumerate(text):
        for bit in (1, 4):
            about.write_bytes((text[:place] + chr(ord(character) ^ bit) + text[place + 1 :]).encode())
            with suppress(StorageError):
                assert read_sealed(about) == CONTENT  # a space that became another
                kept += 1
    assert kept < len(text) / 2


@pytest.mark.parametrize(
    "files",
    [{"../x": [1, "0" * 32]}, {"/x": [1, "0" * 32]}, {"": [1, "0" * 32]}, {"x": [1]}, {"x": ["1", "0" * 32]}, [], 3],
)
def test_a_seal_names_files_of_its_own_folder(tmp_path: Path, files: Any) -> None:
    body = {"format_version": checksums.FORMAT_VERSION, "files": files}
    (tmp_path / "about.json").write_text(json.dumps({**body, "checksum": checksums._checksum(body)}))
    with pytest.raises(DamagedError, match="does not say which files it covers"):
        read_sealed(tmp_path / "about.json")


def test_a_file_is_read_through_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = sealed(tmp_path / "first")
    os.rename(tmp_path / "first", tmp_path / "second")
    read = checksums._sum_of
    seen: list[str] = []
    monkeypatch.setattr(checksums, "_sum_of", lambda path: (seen.append(path.name), read(path))[1])
    read_sealed(tmp_path / "second" / about.name)
    assert seen == []  # they were read when they were sealed
    os.utime(tmp_path / "second" / "inner" / "1.npy")
    with ThreadPoolExecutor(4) as workers:
        assert all(found == CONTENT for found in workers.map(read_sealed, [tmp_path / "second" / about.name] * 20))
    assert set(seen) == {"1.npy"}


def test_a_file_that_cannot_be_opened_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = sealed(tmp_path)
    os.utime(tmp_path / "inner" / "0.npy")

    def refused(path: Path) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(checksums, "_sum_of", refused)
    with pytest.raises(StorageError, match=r"0\.npy: .*Too many open files") as caught:
        read_sealed(about)
    assert not isinstance(caught.value, DamagedError)


def publish(path: Path, number: int) -> None:
    with scratch_folder(path.parent) as folder:
        write_array(folder / "array.npy", np.full(4, number))
        publish_sealed(folder, path, "about.json", {"number": number})


def test_a_folder_that_is_there_is_kept_only_if_it_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path / "name", 1)
    publish(tmp_path / "name", 2)
    assert read_sealed(tmp_path / "name" / "about.json") == {"number": 1}
    changed(tmp_path / "name" / "array.npy")
    with caplog.at_level(logging.WARNING):
        publish(tmp_path / "name", 3)
    assert read_sealed(tmp_path / "name" / "about.json") == {"number": 3}
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'name' / 'array.npy'} is damaged: its content has changed; it is set aside and will be made again"
    ]
    (aside,) = tmp_path.glob(".unfinished-damaged-name-*")
    assert (aside / "array.npy").exists()
    assert aside.stat().st_mtime > time.time() - 60  # so that it is not swept at once


def test_a_folder_without_its_json_is_damaged(tmp_path: Path) -> None:
    publish(tmp_path / "name", 1)
    (tmp_path / "name" / "about.json").unlink()
    assert not is_whole(tmp_path / "name" / "about.json", aside=tmp_path / "name")
    assert not (tmp_path / "name").exists()
    assert not is_whole(tmp_path / "nothing" / "about.json", aside=tmp_path / "nothing")


def test_an_error_goes_from_one_process_to_another(tmp_path: Path) -> None:
    about = sealed(tmp_path)
    changed(tmp_path / "inner" / "0.npy")
    with pytest.raises(DamagedError) as caught:
        read_sealed(about)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (DamagedError, str(caught.value))
