"""`mine --store`: ranks on machines that share no disk, with stores in memory, in a folder, and on an S3 server."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pytest
from datasets import Dataset
from typer.testing import CliRunner

import hf_negmine.pool.parts
import hf_negmine.pool.retrieving
import hf_negmine.teachers.vector_store
from hf_negmine import InputError, NegativeMiner, StorageError
from hf_negmine.cluster import Store, mine_in_ranks, run_rank, running
from hf_negmine.cluster import store as stores
from hf_negmine.cluster.running import Stage
from hf_negmine.commands.cli import app
from hf_negmine.pool import rankings
from hf_negmine.select.filters import Veto
from hf_negmine.select.judge import Judge
from hf_negmine.select.judge_models import FunctionJudge
from tests.cluster.test_executors import pairs as pairs
from tests.cluster.test_ranks import WHAT_COUNTS, contents
from tests.faults.world import CORPUS, ROWS, miner_of
from tests.forks import exit_of, forks

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_negmine.teachers.vector_store, "TEXTS_A_SHARD", 16)
    monkeypatch.setattr(hf_negmine.pool.retrieving, "QUERIES_A_PART", 10)
    monkeypatch.setattr(hf_negmine.pool.parts, "PASSAGES_A_SLICE", 32)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = pytest.importorskip("moto.server", reason="needs moto, flask and s3fs")
    running_server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running_server.start()
    host, port = running_server.get_host_and_port()
    yield f"http://{host}:{port}"
    running_server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of an empty bucket."""
    s3fs = pytest.importorskip("s3fs", reason="needs the package s3fs")
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))  # without keys of its own
    s3fs.S3FileSystem.clear_instance_cache()
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST")).close()
    fsspec.filesystem("s3").mkdir("bucket")
    yield "s3://bucket"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["memory", "file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An address where nothing is, of each kind."""
    if request.param == "s3":
        yield f"{request.getfixturevalue('bucket')}/a/run"
        return
    yield "memory://run" if request.param == "memory" else f"file://{tmp_path}/store/run"
    fsspec.filesystem("memory").store.clear()


class Machines:
    """An executor of ranks that share nothing: each starts with an empty cache folder."""

    def __init__(self, folder: Path, ranks: int, stop: Callable[[str, int], bool] = lambda stage, rank: False) -> None:
        self.folder, self.ranks, self.stop = folder, ranks, stop

    def run(self, stages: Sequence[Any], finish: Callable[[], object], folder: Path) -> None:
        for stage in stages:
            for rank in range(self.ranks):
                if self.stop(stage.work.__name__, rank):
                    raise KeyboardInterrupt
                home = self.folder / f"{stage.work.__name__}-{rank}-{time.monotonic_ns()}"
                config, texts = replace(stage.config, cache_dir=home), home / "texts" / stage.texts.name
                pickle.loads(pickle.dumps(Stage(stage.work, config, texts, stage.store)))(None, rank, self.ranks)
        finish()


def mine_with(store: Store, run: str, folder: Path, ranks: int = 3, **more: Any) -> NegativeMiner:
    """Mine on machines below a folder, and check that the last step finds all vectors."""
    miner = miner_of(run, store.cache_in(folder / "last"))
    cache = miner.config.cache_dir

    def finish() -> None:
        before = contents(cache, ["vectors"])
        miner.mine(Dataset.from_dict(ROWS))
        if run != "streaming":  # there, parts are joined
            assert contents(cache, ["vectors"]) == before

    executor = Machines(folder, ranks, **more)
    assert mine_in_ranks(executor, miner.config, Dataset.from_dict(ROWS), finish, store=store) is None
    return miner


def alone(run: str, folder: Path) -> dict[str, bytes]:
    miner_of(run, folder).mine(Dataset.from_dict(ROWS))
    return contents(folder, WHAT_COUNTS)


def test_ranks_that_share_only_a_store_give_the_bytes_of_one_process(tmp_path: Path, address: str) -> None:
    miner = mine_with(Store(address), "dense", tmp_path)
    assert contents(miner.config.cache_dir, WHAT_COUNTS) == alone("dense", tmp_path / "alone")
    kept = fsspec.core.url_to_fs(address)[0].find(address)
    assert any("/parts/" in name for name in kept)
    assert not any(".unfinished" in name or name.endswith(".lock") for name in kept)


@pytest.mark.parametrize("run", ["sparse", "tokens", "streaming", "approximate", "pairs"])
def test_every_kind_of_teacher(tmp_path: Path, run: str) -> None:
    try:
        miner = mine_with(Store("memory://kinds"), run, tmp_path, ranks=2)
        assert contents(miner.config.cache_dir, WHAT_COUNTS) == alone(run, tmp_path / "alone")
    finally:
        fsspec.filesystem("memory").store.clear()


def test_what_ranks_select_reaches_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_negmine.pool.parts, "PASSAGES_A_SLICE", 2**22)  # so that ranks search deeper, too
    miner = mine_with(Store(f"file://{tmp_path}/store"), "judged", tmp_path)
    assert contents(miner.config.cache_dir, WHAT_COUNTS) == alone("judged", tmp_path / "alone")
    names = [{path.name for path in folder.rglob("*.pairs")} for folder in (tmp_path / "last", tmp_path / "store")]
    assert names[0]
    assert names[0] <= names[1]  # the last step has asked for nothing
    assert list((tmp_path / "store").rglob("*-deeper-*.npy"))


def test_a_store_gets_what_is_searched_deeper_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_negmine.pool.parts, "PASSAGES_A_SLICE", 2**22)
    store, rows = Store(f"file://{tmp_path}/store"), Dataset.from_dict(ROWS)

    def mined(sampler: str) -> None:
        miner = miner_of("sparse", store.cache_in(tmp_path / sampler)).with_(method="naive", sampler=sampler)

        def finish() -> None:
            with monkeypatch.context() as here:
                here.setattr(rankings, "deepen", lambda *_, **__: pytest.fail("the ranks have searched deeper"))
                miner.mine(rows)

        mine_in_ranks(Machines(tmp_path, 2), miner.config, rows, finish, store=store)

    for deeper in (28, 60):  # the sizes of the files that seal the parts do not differ
        mined(f"sampled:{deeper}")


def test_ranks_select_by_the_settings_of_the_last_command(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/store")
    first = NegativeMiner("bm25", corpus=CORPUS, cache_dir=store.cache_in(tmp_path / "here"), progress=False)
    rows, finish = Dataset.from_dict(ROWS), lambda: None
    mine_in_ranks(Machines(tmp_path, 2), first.config, rows, finish, store=store)
    judge = Judge(FunctionJudge(lambda queries, passages: [False] * len(queries), name="none"))
    for filters, recorded in (([Veto("bm25", "margin_pos:1")], 1), ([Veto("bm25"), judge], 1), ([judge], 0)):
        config = first.with_(method="margin_pos:0.01", filters=filters).config
        mine_in_ranks(Machines(tmp_path, 2), config, rows, finish, store=store)
        run = store.run()
        assert run is not None
        assert run["settings"]["method"] == "margin_pos:0.01"
        assert len(run["settings"].get("filters", [])) == recorded  # a judge is not made from settings
        for work in running.WORKS:
            run_rank(store.address, work, 0, 2, tmp_path / "elsewhere")


def test_a_rank_fetches_only_the_vectors_that_it_reads(tmp_path: Path) -> None:
    mine_with(Store(f"file://{tmp_path}/store"), "dense", tmp_path)
    shards = {
        stage: [len(list(home.glob("vectors/*/shard-*"))) for home in sorted(tmp_path.glob(f"{stage}-*"))]
        for stage in ("encode_share", "search_slices", "search_share")
    }
    # 5 shards of 70 passages, and 2 of 24 queries, which every rank compares with the 2 shards of a slice, or with 1.
    assert sum(shards["encode_share"]) == 7
    assert sorted(shards["search_slices"]) == [3, 4, 4]
    assert shards["search_share"] == [0, 0, 0]


def test_a_run_that_stopped_continues_from_the_store(tmp_path: Path, address: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        mine_with(Store(address), "dense", tmp_path, stop=lambda stage, rank: (stage, rank) == ("search_share", 1))
    sent = Store(address)._sizes()
    miner = mine_with(Store(address), "dense", tmp_path / "again")  # from another machine
    assert contents(miner.config.cache_dir, WHAT_COUNTS) == alone("dense", tmp_path / "alone")
    assert sent.items() <= Store(address)._sizes().items()


@forks
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_rank_that_is_killed_has_sent_what_it_had_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SECONDS", 0.02)
    store = Store(f"file://{tmp_path}/store")

    def killed_later(*arguments: Any) -> None:
        running.WORKS["encode_share"](*arguments)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        miner = miner_of("dense", store.cache_in(tmp_path / "machine"))
        monkeypatch.setitem(running.WORKS, "encode_share", running.encode_share)
        given = running.steps.read(miner.config, Dataset.from_dict(ROWS), None)
        store.claim(running._run(miner.config, given.texts))
        store.send(miner.config.cache_dir)
        Stage(killed_later, miner.config, given.texts.folder, store)(None, 0, 2)

    assert exit_of(work) == -signal.SIGKILL
    assert list((tmp_path / "store").glob("vectors/*/shard-*/shard.json"))
    miner = mine_with(store, "dense", tmp_path)
    assert contents(miner.config.cache_dir, WHAT_COUNTS) == alone("dense", tmp_path / "alone")


@pytest.mark.parametrize("damage", ["unsealed", "shorter", "changed", "missing", "seal", "part"])
def test_what_is_half_sent_or_damaged_is_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(f"file://{tmp_path}/store")
    first = mine_with(store, "dense", tmp_path)
    seal = min((tmp_path / "store").glob("vectors/*/shard-*/shard.json"))
    vectors = seal.parent / "vectors.npy"
    whole = vectors.read_bytes()
    if damage == "unsealed":
        seal.unlink()
        vectors.write_bytes(whole[:-9])
    elif damage == "shorter":
        vectors.write_bytes(whole[:-9])
    elif damage == "changed":
        vectors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "missing":
        vectors.unlink()
    elif damage == "seal":
        seal.write_bytes(seal.read_bytes()[:40])
    else:
        part = min((tmp_path / "store").glob("pools/*/parts/*.npy"))
        part.write_bytes(part.read_bytes()[:-3])
    again = mine_with(store, "dense", tmp_path / "again", ranks=2)
    assert contents(again.config.cache_dir, WHAT_COUNTS) == contents(first.config.cache_dir, WHAT_COUNTS)
    assert ("will be made again" in caplog.text) == (damage != "unsealed")
    assert vectors.read_bytes() == whole
    third = tmp_path / "third"
    caplog.clear()
    store.fetch(third)
    assert not caplog.text
    assert contents(third, ["vectors"]) == contents(again.config.cache_dir, ["vectors"])


def test_a_name_in_a_store_that_leads_elsewhere_is_not_fetched(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/store")
    mine_with(store, "dense", tmp_path)
    seal = min((tmp_path / "store").glob("texts/*/texts.json"))
    shutil.copytree(seal.parent, tmp_path / "store" / "elsewhere" / "texts" / seal.parent.name)
    store.fetch(tmp_path / "fetched")
    assert sorted(path.name for path in (tmp_path / "fetched").iterdir()) == ["pools", "texts", "vectors"]


def test_a_store_of_another_run_is_named(tmp_path: Path, address: str) -> None:
    store = Store(address)
    mine_with(store, "dense", tmp_path)
    other = miner_of("dense", store.cache_in(tmp_path / "other"))
    rows = Dataset.from_dict({name: [*texts, f"one more {name}"] for name, texts in ROWS.items()})
    with pytest.raises(InputError, match=r"holds another run \(of hash, 30 queries.*31 and.*give another address"):
        mine_in_ranks(Machines(tmp_path, 1), other.config, rows, lambda: None, store=store)
    method = other.with_(method="naive")  # the pool is the same
    assert (
        mine_in_ranks(Machines(tmp_path, 1), method.config, Dataset.from_dict(ROWS), lambda: None, store=store) is None
    )


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, address: str) -> None:
    files, root = fsspec.core.url_to_fs(address)
    files.makedirs(root, exist_ok=True)
    files.pipe_file(f"{root}/letter.txt", b"dear")
    with pytest.raises(InputError, match=r"holds files, but no run\.json"):
        mine_with(Store(address), "dense", tmp_path)
    for content in (b"{", b"{}", b"5"):
        files.pipe_file(f"{root}/run.json", content)
        with pytest.raises(StorageError, match="is not what was written"):
            mine_with(Store(address), "dense", tmp_path)


def test_what_cannot_be_reached_is_one_sentence(
    bucket: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    def said(address: str) -> str:
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises((StorageError, InputError)) as error:
            mine_with(Store(address), "dense", tmp_path)
        assert str(error.value).startswith(f"store: {address}: ")
        return str(error.value)

    assert "The specified bucket does not exist" in said("s3://no-such-bucket/run")
    assert "Protocol not known: nope" in said("nope://bucket/run")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "gcsfs", None)
        assert "Please install gcsfs" in said("gs://bucket/run")

    def keys_needed(after: str) -> None:
        plain = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{server}/moto-api/reset-auth", after.encode(), plain, method="POST")
        urllib.request.urlopen(request).close()

    keys_needed("0")
    try:
        refused = said(f"{bucket}/run")
    finally:
        keys_needed("inf")
    assert "check the address, and the keys that this process has" in refused
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "Unable to locate credentials" in said(f"{bucket}/run")
    assert "secret" not in refused


def test_a_cache_folder_with_other_runs_is_not_sent(tmp_path: Path) -> None:
    miner = miner_of("dense", tmp_path)
    with pytest.raises(InputError, match=r"is not the store's own; give store\.cache_in\(folder\)"):
        mine_in_ranks(Machines(tmp_path, 1), miner.config, ROWS, lambda: None, store=Store("memory://other"))


def test_a_rank_needs_only_the_address(tmp_path: Path) -> None:
    store, rows = Store(f"file://{tmp_path}/store"), Dataset.from_dict(ROWS)

    def miner_in(cache: Path) -> NegativeMiner:
        settings: dict[str, Any] = {"num_negatives": 2, "method": "naive", "corpus": CORPUS, "progress": False}
        return NegativeMiner("bm25", cache_dir=cache, device="cpu", **settings)

    class Elsewhere(Machines):
        def run(self, stages: Sequence[Any], finish: Callable[[], object], folder: Path) -> None:
            for stage in stages:
                for rank in range(2):
                    run_rank(store.address, stage.work.__name__, rank, 2, self.folder / f"{stage.work.__name__}-{rank}")
            finish()

    miner, one = miner_in(store.cache_in(tmp_path / "last")), miner_in(tmp_path / "alone")
    parts: list[int] = []

    def finish() -> None:
        parts.append(len(list(miner.config.cache_dir.glob("pools/*/parts/*.npy"))))
        assert miner.mine(rows).to_list() == one.mine(rows).to_list()

    mine_in_ranks(Elsewhere(tmp_path, 2), miner.config, rows, finish, store=store)
    assert parts == [3]
    for wrong, said in (
        (("memory://empty", "encode_share", 0, 2), "memory://empty holds no run"),
        ((store.address, "search", 0, 2), "'search' is not among"),
        ((store.address, "encode_share", 2, 2), "rank: 2, expected one from 0 to 1"),
    ):
        with pytest.raises(InputError, match=said):
            run_rank(*wrong, tmp_path)


def test_the_command_with_rows_and_store_at_addresses(
    pairs: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    fsspec.filesystem("s3").put_file(str(pairs), f"{bucket}/pairs.parquet")
    options = ["-t", "bm25", "-n", "2", "-m", "naive"]

    def mined(rows: str, output: str, *more: str) -> Any:
        folders = ["-o", str(tmp_path / output), "--cache-dir", str(tmp_path / f"{output}-cache")]
        return CliRunner().invoke(app, ["mine", rows, *options, *folders, *more])

    assert mined(str(pairs), "alone").exit_code == 0
    done = mined(f"{bucket}/pairs.parquet", "ranks", "--executor", "local:2", "--store", f"{bucket}/run")
    assert done.exit_code == 0, done.output
    found, expected = (tmp_path / name / "data.parquet" for name in ("ranks", "alone"))
    assert Dataset.from_parquet(str(found)).to_list() == Dataset.from_parquet(str(expected)).to_list()
    assert any("/parts/" in name for name in fsspec.filesystem("s3").find("bucket/run"))
    assert "for --executor, which is not given" in mined(str(pairs), "no", "--store", f"{bucket}/run").output
    in_memory = mined(str(pairs), "no", "--executor", "local:2", "--store", "memory://run").output
    assert "memory://run is in the memory of one process, and the ranks are others" in " ".join(in_memory.split())
    assert "expected an address" in mined(str(pairs), "no", "--executor", "local:2", "--store", "run").output


def test_a_cache_folder_at_an_address_is_refused(pairs: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    folders = ["-o", str(tmp_path / "out"), "--cache-dir", "s3://bucket/folder"]
    done = CliRunner().invoke(app, ["mine", str(pairs), "-t", "bm25", *folders])
    assert done.exit_code == 2
    assert "expected a folder of this machine, got the address s3:/" in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "s3:").exists()


def test_a_dry_run_estimates_and_runs_nothing(pairs: Path, tmp_path: Path) -> None:
    def told(*more: str) -> Any:
        folders = ["-o", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
        return CliRunner().invoke(app, ["mine", str(pairs), "-t", "bm25", *folders, "--dry-run", *more])

    for executor in ((), ("--executor", "local:3"), ("--executor", "ray:tasks=4")):
        done = told(*executor)
        assert done.exit_code == 0, done.output
        assert "encode_hours" in done.output
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["texts"]
    assert not (tmp_path / "out").exists()
    assert "give ray:tasks=8" in told("--executor", "ray").output
