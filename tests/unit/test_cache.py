"""``hf-negmine cache``: what is verified, counted, and removed, and what is left alone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset
from filelock import FileLock
from typer.testing import CliRunner

from hf_negmine import NegativeMiner
from hf_negmine.base.errors import InputError
from hf_negmine.commands import cache_folder as cache
from hf_negmine.commands.cli import app
from hf_negmine.teachers.function import ScoreFunction

ROWS = Dataset.from_dict(
    {"query": [f"query {i}" for i in range(8)], "positive": [f"query {i} answered" for i in range(8)]}
)
DAY = 24 * 3600


def mine(folder: Path, n: int = 2) -> NegativeMiner:
    teacher = ScoreFunction(lambda queries, passages: [len(one) % 7 / 7 for one in passages], version="1")
    miner = NegativeMiner(
        teacher, method="naive", num_negatives=n, cache_dir=folder, progress=False, device="cpu",
        query_column="query", positive_column="positive",
    )  # fmt: skip
    miner.mine(ROWS)
    return miner


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "cache"
    mine(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def say() -> Callable[..., tuple[int, str]]:
    def run(*arguments: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["cache", *map(str, arguments)])
        return result.exit_code, result.output

    return run


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def age(path: Path, days: float) -> None:
    for one in [path, *path.rglob("*")]:
        os.utime(one, (time.time() - days * DAY,) * 2)


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_whole_cache_is_verified(folder: Path, say: Callable[..., tuple[int, str]]) -> None:
    before = everything(folder)
    code, said = say("verify", "--cache-dir", folder)
    assert (code, said.split(", ")[1]) == (0, "0 damaged\n")
    assert everything(folder) == before


def test_what_is_damaged_is_listed_and_repaired(
    folder: Path, say: Callable[..., tuple[int, str]], caplog: pytest.LogCaptureFixture
) -> None:
    damaged = [
        only(folder, "fits/*/scores.npy"),
        only(folder, "pools/*/positives.arrow"),
        only(folder, "pairs/*/*.pairs"),
    ]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    code, said = say("verify", "--cache-dir", folder)
    assert code == 1
    assert [line.split(":")[0] for line in said.splitlines()[:-1]] == ["pools", "fits", "pairs"]
    assert all(str(path) in said for path in damaged)
    assert said.endswith("3 damaged\n")
    code, said = say("verify", "--repair", "--cache-dir", folder)
    assert (code, said.count("; set aside")) == (1, 2)
    assert not caplog.records, "it has been printed"
    mine(folder)
    code, said = say("verify", "--cache-dir", folder)
    assert (code, said.endswith("1 damaged\n")) == (1, True)  # the record that was lost, which is asked about again


def test_the_table_of_sizes(folder: Path, say: Callable[..., tuple[int, str]]) -> None:
    (folder / "texts" / ".unfinished-abcdefgh").write_bytes(bytes(5000))
    code, said = say("size", "--cache-dir", folder)
    rows = {line[:22].strip(): line.split()[-2:] for line in said.splitlines()[3:]}
    assert code == 0
    assert rows["unfinished or damaged"] == ["1", "0.005"]
    assert [rows[kind][0] for kind in ("texts", "pools", "fits", "mined", "pairs", "banks")] == ["1"] * 5 + ["0"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert float(rows["all"][1]) == pytest.approx(sum(path.stat().st_size for path in files) / 1e6, abs=0.0006)


def test_pruning_takes_what_is_of_no_use_and_no_more(folder: Path, say: Callable[..., tuple[int, str]]) -> None:
    (folder / "vectors").mkdir()  # its teacher makes none
    before = everything(folder)
    old, young = folder / "texts" / ".unfinished-abcdefgh", folder / "texts" / ".unfinished-abcdefgi"
    aside = folder / "vectors" / ("0" * 32) / ".unfinished-damaged-shard-x-01234567"
    for path in (old, young, aside):
        path.mkdir(parents=True)
        (path / "file").write_bytes(bytes(100))
    age(old, 2)
    code, said = say("prune", "--dry-run", "--cache-dir", folder)
    assert (code, said.splitlines()[-1]) == (0, "Would remove 2: 200 bytes")
    assert old.exists()
    code, said = say("prune", "--cache-dir", folder)
    assert said.splitlines() == [
        f"{old} (unfinished): 100 bytes", f"{aside} (damaged): 100 bytes", "Removed 2: 200 bytes",
    ]  # fmt: skip
    assert everything(folder) - before == {young, young / "file", aside.parent}
    assert before <= everything(folder)


def test_a_fit_whose_texts_are_gone_goes(folder: Path) -> None:
    shutil.rmtree(only(folder, "texts/*"))
    assert [one.why for one in cache.prune(folder)] == ["its texts are gone"]
    assert not list(folder.glob("fits/*"))
    mine(folder)


def test_what_no_run_has_used_for_long_goes_if_it_is_asked_for(folder: Path) -> None:
    age(folder, 40)
    assert list(cache.prune(folder, dry_run=True)) == []
    mine(folder)  # which is a use
    assert list(cache.prune(folder, unused_for=30 * DAY)) == []
    for path in folder.glob("texts/*"):
        age(path, 40)
    assert list(cache.prune(folder, unused_for=30 * DAY)) == []  # a pool and a fit are about them
    age(folder, 40)
    whys = [(one.paths[0].parent.name, one.why) for one in cache.prune(folder, unused_for=30 * DAY)]
    assert whys == [(kind, "not used") for kind in ("fits", "mined", "pools", "texts")]
    assert list(folder.glob("pairs/*/*.pairs"))
    mine(folder)


def test_a_pool_that_a_run_is_at_work_on_stays(folder: Path) -> None:
    age(folder, 40)
    pool = only(folder, "pools/*")
    with FileLock(pool / ".lock"):
        assert pool not in [one.paths[0] for one in cache.prune(folder, unused_for=30 * DAY)]
    assert pool.exists()


def test_what_a_run_at_work_replaces_is_not_damaged(folder: Path) -> None:
    pool = only(folder, "pools/*/pool.json").parent
    only(pool, "candidates-*.arrow").unlink()
    with FileLock(pool / ".lock"):
        assert not [damage for damage in cache.verify(folder) if damage is not None]
    assert [damage.kind for damage in cache.verify(folder) if damage is not None] == ["pools"]


def test_what_a_run_at_work_removes_is_not_missed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, left = cache._files, folder / "texts" / ".unfinished-abcdefgh"

    def meanwhile(path: Path) -> list[Path]:
        found = list(listed(path))
        left.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(cache, "_files", meanwhile)
    for work in (cache.measure, lambda folder: list(cache.prune(folder))):
        left.write_bytes(b"half")
        work(folder)
        assert not left.exists()


def test_files_of_others_are_never_touched(tmp_path: Path, say: Callable[..., tuple[int, str]]) -> None:
    others = [
        "thesis.tex", "texts/thesis.tex", ".unfinished-thesis", "texts/.unfinished-thesis", "fits/jacket.json",
        "mined/coal.arrow", "pools/swimming/pool.json", "pools/.lock", "other/0123456789abcdef0123456789abcdef/x",
        "texts/notes/.unfinished-abcdefgh", ".lock",
    ]  # fmt: skip
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "fits" / ("0" * 32)).symlink_to(tmp_path / "other")
    age(tmp_path, 400)
    before = everything(tmp_path)
    assert say("prune", "--unused-for", "1h", "--cache-dir", tmp_path) == (0, "Removed 0: 0 bytes\n")
    assert say("verify", "--repair", "--cache-dir", tmp_path) == (0, "0 checked, 0 damaged\n")
    assert say("size", "--cache-dir", tmp_path)[0] == 0
    assert everything(tmp_path) == before


def test_wrong_arguments_are_one_sentence(tmp_path: Path, say: Callable[..., tuple[int, str]]) -> None:
    for arguments in (
        ("size", "--cache-dir", tmp_path / "no"),
        ("prune", "--unused-for", "soon", "--cache-dir", tmp_path),
    ):
        code, said = say(*arguments)
        assert (code, len(said.strip().splitlines())) == (1, 1), said
    for duration in ("", "30", "-1d", "1e9d", "30 days"):
        with pytest.raises(InputError, match="a number of days or hours such as 30d"):
            cache.seconds_of(duration)


def test_texts_stay_for_a_run_that_is_still_encoding(tmp_path: Path) -> None:
    pruned: list[str] = []

    def score(queries: list[str], passages: list[str]) -> list[float]:
        for kind in ("pools", "texts"):
            for path in (tmp_path / kind).glob("*"):
                age(path, 2)  # as if it had read its texts two days ago
        pruned.extend(one.paths[0].parent.name for one in cache.prune(tmp_path, unused_for=3600))
        return [len(one) % 7 / 7 for one in passages]

    teacher = ScoreFunction(score, version="2")
    miner = NegativeMiner(teacher, method="naive", num_negatives=2, cache_dir=tmp_path, progress=False, device="cpu")
    assert len(miner.mine(ROWS)) == len(ROWS)
    assert "texts" not in pruned
