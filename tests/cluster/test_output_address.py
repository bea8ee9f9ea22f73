"""`mine -o s3://bucket/mined`: the files of an output folder at an address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pytest
from datasets import load_dataset
from typer.testing import CliRunner

from hf_negmine.commands.cli import app
from tests.cluster.test_executors import pairs as pairs
from tests.cluster.test_store import address as address
from tests.cluster.test_store import bucket as bucket
from tests.cluster.test_store import server as server


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cache"
    assert not list((tmp_path / "cache").glob(".*"))


def mined(pairs: str | Path, output: str | Path, cache: Path, *more: str) -> Any:
    options = ["-t", "bm25", "-n", "2", "-m", "naive", "-o", str(output), "--cache-dir", str(cache), *more]
    return CliRunner().invoke(app, ["mine", str(pairs), *options])


def files_at(address: str) -> dict[str, bytes]:
    files, root = fsspec.core.url_to_fs(address)
    files.invalidate_cache()
    return {name.removeprefix(root).strip("/"): files.cat_file(name) for name in files.find(root)}


def test_an_address_gets_the_files_of_a_folder(
    address: str, pairs: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more in (["-f", "ids"], ["-f", "tevatron"], []):
        assert mined(pairs, tmp_path / "here", cache, *more).exit_code == 0
        done = mined(pairs, f"{address}/", cache, *more)  # again: over the files of the run before
        assert done.exit_code == 0, done.output
        assert f"Written: {address}/data.parquet (8 rows" in done.output
        found = files_at(address)
        assert set(found) == {path.name for path in (tmp_path / "here").iterdir()}
        for name in set(found) - {"summary.json"}:  # it holds times
            assert found[name] == (tmp_path / "here" / name).read_bytes()
    if not address.startswith("memory"):
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # the S3 server is on this machine
        rows = load_dataset("parquet", data_files=f"{address}/data.parquet", split="train", cache_dir=str(tmp_path))
        assert len(rows) == 8


def test_ranks_write_to_an_address_too(pairs: Path, cache: Path, tmp_path: Path) -> None:
    assert mined(pairs, tmp_path / "here", cache).exit_code == 0
    done = mined(pairs, f"file://{tmp_path}/there", tmp_path / "other", "--executor", "local:1")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "there" / "data.parquet").read_bytes() == (tmp_path / "here" / "data.parquet").read_bytes()


def test_files_of_others_stay(address: str, pairs: Path, cache: Path) -> None:
    files, root = fsspec.core.url_to_fs(address)
    if address.startswith("file"):
        files.makedirs(root)
    files.pipe_file(f"{root}/notes.txt", b"mine")
    refused = mined(pairs, address, cache)
    assert refused.exit_code == 1
    assert f"{address} holds 'notes.txt' and no summary.json of this command" in " ".join(refused.output.split())
    assert files_at(address) == {"notes.txt": b"mine"}
    assert mined(pairs, address, cache, "--overwrite").exit_code == 0
    assert mined(pairs, address, cache, "-f", "ids").exit_code == 0
    assert files_at(address)["notes.txt"] == b"mine"


def test_a_folder_that_a_console_made_is_empty(pairs: Path, cache: Path, bucket: str) -> None:
    """S3 knows no folders, so a console makes an object whose name ends in a slash."""
    boto3 = pytest.importorskip("boto3", reason="needs the package boto3")
    for folder in ("mined/", "run/"):
        boto3.client("s3").put_object(Bucket="bucket", Key=folder, Body=b"")
    for _ in range(2):
        done = mined(pairs, f"{bucket}/mined", cache, "--executor", "local:1", "--store", f"{bucket}/run")
        assert done.exit_code == 0, done.output
    assert {"data.parquet", "summary.json"} < set(files_at(f"{bucket}/mined"))


def test_what_cannot_be_written_is_said_before_any_work(pairs: Path, cache: Path, tmp_path: Path, bucket: str) -> None:
    def said(rows: str | Path, output: str) -> str:
        done = mined(rows, output, cache)
        assert done.exit_code == 1
        assert not (cache / "texts").exists()
        return " ".join(done.output.split())

    assert "output: nowhere://bucket/mined: Protocol not known: nowhere" in said(pairs, "nowhere://bucket/mined")
    assert "output: s3://no-such-bucket/mined: FileNotFoundError" in said(pairs, "s3://no-such-bucket/mined")
    fsspec.filesystem("s3").put_file(str(pairs), f"{bucket}/mined/data.parquet")
    assert f"{bucket}/mined/data.parquet is a file" in said(pairs, f"{bucket}/mined/data.parquet")
    assert "output: S3://bucket/mined: Protocol not known: S3" in said(pairs, "S3://bucket/mined")
    for nowhere in ("s3://", "memory:///"):
        done = mined(pairs, nowhere, cache)
        assert done.exit_code == 2
        assert f"{nowhere} names no folder, expected an address" in " ".join(done.output.replace("│", " ").split())
    over_itself = said(f"{bucket}/mined/data.parquet", f"{bucket}/mined")
    assert f"ROWS: {bucket}/mined/data.parquet may be replaced by what is written into {bucket}/mined" in over_itself


def test_other_outputs_are_files_of_this_machine(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (
        ["sweep", str(pairs), "-t", "bm25", "-o", "s3://bucket/sweep.csv"],
        ["audit", str(pairs), "-t", "bm25", "-o", "s3://bucket/all.parquet"],
        ["audit", str(pairs), "-t", "bm25", "--repair", "s3://bucket/rows.parquet"],
        ["report", str(tmp_path), "-o", "s3://bucket/page.html"],
        ["demo", "-o", "s3://bucket/demo"],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        assert "of this machine, got the address s3:/" in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "s3:").exists()
