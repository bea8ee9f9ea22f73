"""Finish-or-nothing writes, what is said of damaged files, and digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hf_negmine.base import files
from hf_negmine.base.errors import DamagedError, InputError, StorageError
from hf_negmine.base.paths import folder_of
from hf_negmine.base.schema import CANDIDATES_SCHEMA, FORMAT_VERSION, AnyArray

ARRAY = np.arange(6).reshape(2, 3)
TABLE = pa.table([np.array([1], dtype=np.int32), np.array([0.5], dtype=np.float32)], schema=CANDIDATES_SCHEMA)

WRITERS: dict[str, Callable[[Path], None]] = {
    "array": lambda path: files.write_array(path, ARRAY),
    "arrays": lambda path: files.write_arrays(path, [ARRAY, ARRAY]),
    "json": lambda path: files.write_json(path, {"a": 1}),
    "table": lambda path: files.write_table(path, TABLE),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files.write_array(tmp_path / "new" / "array.npy", ARRAY)
    np.testing.assert_array_equal(files.read_array(tmp_path / "new" / "array.npy"), ARRAY)
    files.write_table(tmp_path / "table.arrow", TABLE)
    assert files.read_table(tmp_path / "table.arrow", CANDIDATES_SCHEMA).equals(TABLE)
    files.write_json(tmp_path / "about.json", {"format_version": FORMAT_VERSION, "name": "é"})
    assert files.read_versioned_json(tmp_path / "about.json")["name"] == "é"


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_the_old_file_and_no_half_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match=r"the disk is full \([\d,]+ MB free\).*finished parts are kept"):
        write(path)
    assert (os.listdir(tmp_path), path.read_bytes()) == (["file"], b"old")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_while_bytes_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_disk(*_: Any, **__: Any) -> tuple[int, str]:
        (tmp_path / "temporary").touch()
        return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "temporary")

    monkeypatch.setattr(tempfile, "mkstemp", on_full_disk)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with pytest.raises(StorageError, match="the disk is full"):
        files.write_array(tmp_path / "array.npy", np.zeros(100_000))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_path_below_a_file_cannot_be_written(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*give a folder that can be written to"):
        write(tmp_path / "file" / "deeper" / "name")


def test_an_error_inside_the_block_leaves_nothing(tmp_path: Path) -> None:

    def half() -> None:
        with files.finish_or_nothing(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert os.listdir(tmp_path) == []


def test_a_scratch_folder_is_gone_unless_published(tmp_path: Path) -> None:
    with files.scratch_folder(tmp_path) as folder:
        (folder / "a").write_text("1")
        files.publish_folder(folder, tmp_path / "kept")
    with files.scratch_folder(tmp_path) as folder:
        (folder / "a").write_text("2")
        files.publish_folder(folder, tmp_path / "kept")  # somebody else was first

    def half() -> None:
        with files.scratch_folder(tmp_path) as folder:
            (folder / "a").write_text("3")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "a").read_text() == "1"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4), np.asfortranarray(np.arange(12).reshape(3, 4)), np.array(3.5),
        np.empty((0, 2), dtype=np.uint64), np.array([True, False]),
    ],
)  # fmt: skip
def test_arrays_are_read_as_they_were_and_their_files_are_closed(tmp_path: Path, array: AnyArray) -> None:
    files.write_array(tmp_path / "array.npy", array)
    read = files.read_array(tmp_path / "array.npy")
    np.testing.assert_array_equal(read, array)
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert not read.flags.writeable
    descriptors = Path("/proc/self/fd")
    if descriptors.exists():
        assert not [entry for entry in descriptors.iterdir() if entry.exists() and entry.resolve().name == "array.npy"]
    read_again = files.read_array(tmp_path / "array.npy")
    (tmp_path / "array.npy").unlink()  # a map outlives the name
    np.testing.assert_array_equal(read_again, array)


def test_arrays_of_one_file_are_read_one_after_another_where_processors_like_them(tmp_path: Path) -> None:
    arrays = [np.array([True, False, True]), np.empty(0, dtype=np.float32), np.arange(7), np.asfortranarray(ARRAY)]
    files.write_arrays(tmp_path / "arrays.npy", arrays)
    read = files.read_arrays(tmp_path / "arrays.npy", 4)
    for was, now in zip(arrays, read, strict=True):
        np.testing.assert_array_equal(now, was)
        assert (now.dtype, now.flags.aligned) == (was.dtype, True)
    np.testing.assert_array_equal(np.load(tmp_path / "arrays.npy"), arrays[0])  # numpy reads the first


@pytest.mark.parametrize("left", [0, 100, -70, -64])
def test_a_file_that_lacks_its_end_is_damaged(tmp_path: Path, left: int) -> None:
    path = tmp_path / "arrays.npy"
    files.write_arrays(path, [np.arange(100), np.arange(8)])
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(StorageError, match=r"cannot read .*arrays.npy: .*; delete its folder and run again"):
        files.read_arrays(path, 2)
    with pytest.raises(StorageError, match="cannot read"):
        files.read_arrays(path, 3)


def test_what_was_left_unfinished_long_ago_is_swept(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "other"):
        (folder / ".unfinished-folder" / "inner").mkdir(parents=True)
        (folder / ".unfinished-file").touch()
        (folder / ".unfinished-young").touch()
        (folder / "finished").touch()
        for name in (".unfinished-folder", ".unfinished-file", "finished"):
            os.utime(folder / name, (0, time.time() - 8 * 24 * 3600))
    files.write_array(tmp_path / "array.npy", ARRAY)
    with files.scratch_folder(tmp_path / "other"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".unfinished-young", "finished", "other", "array.npy"}
    assert {path.name for path in (tmp_path / "other").iterdir()} == {".unfinished-young", "finished"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd")
def test_a_folder_is_on_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file, each folder that names files, and the folder that names the folder: each once, and in that order."""
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append("renamed")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", renamed)
    with files.scratch_folder(tmp_path) as folder:
        files.write_array(folder / "inner" / "array.npy", ARRAY)
        files.write_json(folder / "about.json", {})
        scratch = folder.name
        files.publish_folder(folder, tmp_path / "kept")
    assert all(name.startswith(files.TEMPORARY_PREFIX) for name in events[:2])  # the files, under their first names
    assert events[2:] == [scratch, "inner", "renamed", tmp_path.name]


def test_nobody_is_told_to_delete_a_file_that_could_only_not_be_opened(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    files.write_array(tmp_path / "array.npy", ARRAY)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "array.npy").open("rb") as taken:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken.fileno(), limits[1]))
        try:
            with pytest.raises(StorageError, match=r"cannot read .*raise the limit of this process \(ulimit -n"):
                files.read_array(tmp_path / "array.npy")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def npy(header: str, numbers: bytes = bytes(24), magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    return magic + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n" + numbers


def like_numpy(shape: str, descr: str = "'<f4'", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


ODD = {
    "a huge shape": npy(like_numpy("(9223372036854775807, 9223372036854775807)")),
    "a shape beyond all numbers": npy(like_numpy(f"({'9' * 30},)")),
    "a huge shape of nothing": npy(like_numpy("(0, 9999999999999999999)")),
    "a negative shape": npy(like_numpy("(-6,)")),
    "many dimensions": npy(like_numpy(f"({'1, ' * 100})")),
    "more than there is": npy(like_numpy("(7,)")),
    "less than there is": npy(like_numpy("(2,)"), bytes(300)),
    "junk behind it": npy(like_numpy("(6,)")) + b"junk",
    "objects": npy(like_numpy("(6,)", "'|O'")),
    "records": npy(like_numpy("(6,)", "[('a', '<f4')]")),
    "no size of a number": npy(like_numpy("(6,)", "'<f3'")),
    "texts": npy(like_numpy("(1,)", "'<U6'")),
    "an order that is none": npy(like_numpy("(6,)", order="Maybe")),
    "nested deeply": npy("(" * 60_000),
    "a long number": npy(like_numpy(f"({'1' * 60_000}")),
    "many numbers": npy(like_numpy(f"({'1, ' * 20_000}")),
    "code": npy("__import__('os').abort()"),
    "no header": npy(""),
    "another version": npy(like_numpy("(6,)"), magic=b"\x93NUMPY\x02\x00"),
    "a pickle": b"\x80\x04N.",
    "nothing": b"",
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_an_array_that_nobody_here_writes_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "array.npy").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match=r"cannot read .*array\.npy: "):
            files.read_array(tmp_path / "array.npy")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def arrow(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def test_half_an_arrow_file_is_damaged_wherever_it_is_cut(tmp_path: Path) -> None:
    content = arrow(TABLE)
    for stop in range(0, len(content), 7):
        (tmp_path / "table.arrow").write_bytes(content[:stop])
        with pytest.raises(DamagedError, match=r"cannot read .*table\.arrow: "):
            files.read_table(tmp_path / "table.arrow", CANDIDATES_SCHEMA)


def test_a_flipped_byte_of_an_arrow_file_is_another_number_or_one_error(tmp_path: Path) -> None:
    content = bytearray(arrow(TABLE))
    for place in range(len(content)):
        content[place] ^= 0xFF
        (tmp_path / "table.arrow").write_bytes(content)
        with suppress(StorageError):
            assert files.read_table(tmp_path / "table.arrow", CANDIDATES_SCHEMA).schema == CANDIDATES_SCHEMA
        content[place] ^= 0xFF


def test_what_other_libraries_note_in_a_schema_is_not_read(tmp_path: Path) -> None:
    noted = TABLE.replace_schema_metadata({b"huggingface": b"{" * 1000, b"pandas": b"\xff"})
    (tmp_path / "table.arrow").write_bytes(arrow(noted))
    assert files.read_table(tmp_path / "table.arrow", CANDIDATES_SCHEMA).equals(TABLE)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, b"\0"])
def test_json_that_nobody_here_writes_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "about.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"cannot read .*about\.json: "):
        files.read_versioned_json(tmp_path / "about.json")


@pytest.mark.parametrize("given", ["a\0b", 5, None, b"bytes", ["a"], "\ud800", ""])
def test_what_cannot_be_a_folder(given: Any) -> None:
    with pytest.raises(InputError, match="cache_dir: expected the path of a folder, got "):
        folder_of(given, "cache_dir")


@pytest.mark.parametrize("left", [0, 5, 100])
def test_a_truncated_file_is_reported_with_what_to_do(tmp_path: Path, left: int) -> None:
    files.write_array(tmp_path / "array.npy", np.arange(100))
    files.write_table(tmp_path / "table.arrow", TABLE)
    for path in tmp_path.iterdir():
        os.truncate(path, left)
    with pytest.raises(StorageError, match=r"cannot read .*array\.npy.*delete its folder and run again"):
        files.read_array(tmp_path / "array.npy")
    with pytest.raises(StorageError, match=r"cannot read .*table\.arrow.*delete its folder and run again"):
        files.read_table(tmp_path / "table.arrow", CANDIDATES_SCHEMA)


def test_a_table_of_another_schema_is_refused(tmp_path: Path) -> None:
    files.write_table(tmp_path / "table.arrow", TABLE.rename_columns(["passage", "score"]))
    with pytest.raises(StorageError, match=r"columns \['passage', 'score'\], expected \['passage_id', 'score'\]"):
        files.read_table(tmp_path / "table.arrow", CANDIDATES_SCHEMA)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"null"])
def test_damaged_json_is_reported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "about.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"cannot read .*delete .* and run again"):
        files.read_versioned_json(tmp_path / "about.json")


def test_another_format_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(StorageError, match=f"cache format 99, this version of hf_negmine reads {FORMAT_VERSION}"):
        files.read_versioned_json(tmp_path / "about.json")


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["", "a", "日本", "x" * 1000]),
        pa.array(["", "a", "日本", "x" * 1000], pa.large_string()),
        pa.array(["cut", "", "a", "日本", "x" * 1000, "off"]).slice(1, 4),
        pa.array(["cut", "", "a", "日本", "x" * 1000], pa.large_string()).slice(1),
    ],
)
def test_text_digests_are_blake2b_of_the_utf8_bytes(array: pa.Array) -> None:
    expected = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in array.to_pylist())
    assert files.text_digests(array).tobytes() == expected
    assert files.text_digests(array[:0]).shape == (0, 2)


def test_digests_tell_values_types_shapes_and_boundaries_apart() -> None:
    parts: list[tuple[Any, ...]] = [
        (np.arange(6),),
        (np.arange(6, dtype=np.int32),),
        (np.arange(6).reshape(2, 3),),
        (np.arange(6).reshape(2, 3).T.copy(),),
        (np.arange(3), np.arange(3)),
        (b"ab", b"c"),
        (b"a", b"bc"),
        ("ab", "c"),
        ({"a": 1},),
        ({"a": 1.5},),
        (np.empty(0),),
        (),
    ]
    assert len({files.digest_of(*part) for part in parts}) == len(parts)


def test_digests_depend_on_content_not_on_memory_order_or_key_order() -> None:
    array = np.arange(6).reshape(2, 3)
    assert files.digest_of(np.asfortranarray(array)) == files.digest_of(array)
    assert files.digest_of({"a": 1, "b": 2}) == files.digest_of({"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HF_NEGMINE_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/hf_negmine"),
        ({"HOME": "/home/me"}, "/home/me/.cache/hf_negmine"),
    ],
)
def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str) -> None:
    for name in ("HF_NEGMINE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert files.default_cache_dir() == Path(expected)
