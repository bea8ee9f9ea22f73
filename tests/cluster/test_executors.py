"""The ranks of `mine --executor`: real processes of this machine, and Slurm's jobs under a stand-in for sbatch."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from typer.testing import CliRunner

from hf_negmine import InputError, NegativeMiner
from hf_negmine.base.files import digest_of, text_digests
from hf_negmine.base.wording import counted
from hf_negmine.cluster import mine_in_ranks, parse_executor
from hf_negmine.cluster.executors import LocalExecutor, RankError
from hf_negmine.commands.cli import app
from hf_negmine.select.judge import Judge
from hf_negmine.select.judge_models import FunctionJudge
from hf_negmine.teachers.function import ScoreFunction
from tests.conftest import ROOT

CORES = os.cpu_count() or 1

QUERIES, WIDTH = 20_000, 8
"""Three parts of a search, and ten shards."""
SBATCH = """#!/bin/bash
# Notes its arguments and the script, and runs it now: each job of an array, as Slurm would.
echo "$@" >> "$JOBS/arguments"
script="${@: -1}"
cp "$script" "$JOBS/script-$(ls "$JOBS" | wc -l)"
export SLURM_NODELIST=here
grep -q merge_stats "$script" || for rank in $(seq 0 $(sed -n 's/^#SBATCH --array=0-//p' "$script")); do
    SLURM_ARRAY_TASK_ID=$rank bash "$script" >> "$JOBS/output" 2>&1 || exit 1
done
echo "Submitted batch job $(ls "$JOBS" | wc -l)"
"""
SRUN = """#!/bin/bash
shift 3
exec "$@"
"""


class Numbers:
    name, similarity = "numbers", "cosine"

    def fingerprint(self, role: str) -> str:
        return digest_of("numbers", role)

    def encode(self, texts: Any, role: str) -> Any:
        digests = text_digests(pa.array(list(texts), type=pa.large_string()))
        return (digests.view(np.uint8).reshape(len(digests), -1)[:, :WIDTH].astype(np.float32) - 127).copy()


def rows() -> Dataset:
    numbers = range(QUERIES)
    return Dataset.from_dict({"query": [f"query {i}" for i in numbers], "positive": [f"passage {i}" for i in numbers]})


def miner_in(cache: Path) -> NegativeMiner:
    return NegativeMiner(Numbers(), method="naive", pool_depth=4, cache_dir=cache, device="cpu", progress=False)


def killed(data: Any, rank: int, world_size: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def fails(data: Any, rank: int, world_size: int) -> None:
    raise InputError(f"rank {rank} of {world_size}")


def files(cache: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for kind in ("vectors", "pools", "texts")
        for path in sorted((cache / kind).rglob("*"))
        if path.is_file()
    }


class OfAClient(Exception):
    """As those of many clients, it cannot be made again from what pickle keeps of it."""

    def __init__(self, message: str, *, response: object) -> None:
        super().__init__(message)


def refused(data: Any, rank: int, world_size: int) -> None:
    raise OfAClient("rate limit reached", response=None)


def test_local_processes_do_what_one_does(tmp_path: Path) -> None:
    ranks, alone = miner_in(tmp_path / "ranks"), miner_in(tmp_path / "alone")
    parts: list[int] = []

    def finish() -> None:
        parts.append(len(list((tmp_path / "ranks" / "pools").glob("*/parts/*.npy"))))
        ranks.fit(rows())

    assert mine_in_ranks(parse_executor("local:2"), ranks.config, rows(), finish) is None
    assert parts == [3]
    assert ranks.mine(rows()).to_list() == alone.mine(rows()).to_list()
    assert files(tmp_path / "ranks") == files(tmp_path / "alone")


def test_the_code_of_the_docs_is_what_ranks_run(
    pairs: Path, tmp_path: Path, minilm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(import os\n.*?)```", page, re.DOTALL)
    for named, here in (("intfloat/e5-base-v2", minilm), ("/shared/cache", tmp_path), ("pairs.parquet", pairs)):
        assert named in code
        code = code.replace(named, str(here))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        names: dict[str, Any] = {}
        exec(code, names)
    for rank in range(2):
        names["search_share"](names["miner"].config, names["texts"], rank, 2)
    assert list((tmp_path / "pools").glob("*/parts/*.npy"))
    before = sorted((tmp_path / "vectors").rglob("*"))
    assert len(names["miner"].mine(str(pairs))) == 8
    assert sorted((tmp_path / "vectors").rglob("*")) == before


def test_only_the_teacher_is_sent_to_processes(tmp_path: Path) -> None:
    judge = Judge(FunctionJudge(lambda queries, passages: [False] * len(queries), name="none"))
    settings: dict[str, Any] = {"method": "naive", "cache_dir": tmp_path, "device": "cpu", "progress": False}
    miner = NegativeMiner(Numbers(), filters=[judge], **settings)
    assert mine_in_ranks(LocalExecutor(1), miner.config, rows(), lambda: miner.fit(rows())) is None
    miner = NegativeMiner(ScoreFunction(lambda queries, passages: [0.0] * len(queries), version="1"), **settings)
    with pytest.raises(InputError, match=r"local:1: the teacher cannot be sent .*lambda.* at the top of a module"):
        mine_in_ranks(LocalExecutor(1), miner.config, rows(), lambda: None)


def test_a_process_that_is_killed_or_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RankError, match=r"one of 2 processes was killed.*__main__.*run again"):
        LocalExecutor(2).run([killed], lambda: None, tmp_path)
    with pytest.raises(InputError, match=r"rank 0 of 2|rank 1 of 2"):
        LocalExecutor(2).run([fails], lambda: None, tmp_path)
    with pytest.raises(RankError, match=r"rank [01] of 2 failed with OfAClient: rate limit reached; what is finished"):
        LocalExecutor(2).run([refused], lambda: None, tmp_path)


def test_a_teacher_of_a_notebook_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")  # without the name of a file, as in a notebook
    monkeypatch.setitem(sys.modules, "__main__", main)
    main.Own = type("Own", (Numbers,), {"__module__": "__main__"})  # type: ignore[attr-defined]
    miner = NegativeMiner(main.Own(), method="naive", cache_dir=tmp_path, device="cpu", progress=False)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"local:1: the teacher cannot be sent .*defined in a notebook.*of a module"):
        mine_in_ranks(LocalExecutor(1), miner.config, rows(), lambda: None)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("cloud", "executor 'cloud': expected local"),
        ("local:0", "executor 'local:0': expected local"),
        ("local:many", "executor 'local:many': expected local"),
        ("local:1000000", f"1,000,000 processes, but this machine has {counted(CORES, 'core')} and each process loads"),
        (f"local:{8 * CORES + 1}", f"give at most local:{8 * CORES}, for speed one per GPU"),
        ("slurm", "executor 'slurm' lacks partition, tasks, time"),
        ("slurm:partition=gpu,tasks=two", "tasks is 'two', expected a number"),
        ("slurm:nodes=3", "'nodes' is not among"),
        ("ray:2", "'2' is not among ['tasks', 'cpus_per_task', 'gpus_per_task']"),
        ("ray:tasks=0", "tasks is '0', expected a number from 1 on"),
    ],
)
def test_an_executor_that_is_none_is_named(spec: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_executor(spec)
    assert said in str(error.value)


def test_without_datatrove_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datatrove.executor", None)
    executor = parse_executor("slurm:partition=gpu,tasks=2,time=01:00:00")
    with pytest.raises(InputError, match=r'pip install "hf_negmine\[cluster\]"'):
        executor.run([fails], lambda: None, tmp_path)


def test_a_machine_without_slurm_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch failed"):
        parse_executor("slurm:partition=gpu,tasks=2,time=01:00:00").run([fails], miner_in, tmp_path)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    topics = ["tea", "rain", "bread", "glass", "sleep", "salt", "wool", "paper"]
    path = tmp_path / "pairs.parquet"
    data = {"query": [f"what is {topic}" for topic in topics], "answer": [f"{topic} is a thing" for topic in topics]}
    Dataset.from_dict(data).to_parquet(str(path))
    return path


def mined(pairs: Path, output: Path, *more: str) -> Any:
    options = ["-t", "bm25", "-n", "2", "-m", "naive", "-o", str(output), "--cache-dir", f"{output}-cache", *more]
    return CliRunner().invoke(app, ["mine", str(pairs), *options])


SLURM = "slurm:partition=gpu,tasks=3,time=01:00:00,gpus_per_task=1,qos=high"


@pytest.mark.parametrize(
    ("executor", "stored"),
    [("local:2", False), (SLURM, False), ("slurm:partition=gpu,tasks=1,time=01:00:00", True)],
)
def test_the_command_gives_the_same_rows(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, stored: bool
) -> None:
    jobs, programs = tmp_path / "jobs", tmp_path / "programs"
    for folder in (jobs, programs):
        folder.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", "#!/bin/bash\necho here\n")):
        (programs / name).write_text(script)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("JOBS", str(jobs))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert mined(pairs, tmp_path / "alone").exit_code == 0
    store = ("--store", f"file://{tmp_path}/store") if stored else ()
    done = mined(pairs, tmp_path / "ranks", "--executor", executor, *store)
    output = jobs / "output"
    said = output.read_text() if output.exists() else ""
    assert done.exit_code == 0, done.output + said
    assert (tmp_path / "ranks" / "data.parquet").exists(), said
    assert (tmp_path / "ranks" / "data.parquet").read_bytes() == (tmp_path / "alone" / "data.parquet").read_bytes()
    if executor != SLURM:
        return
    assert "Submitted to Slurm" in done.output
    scripts = [path.read_text() for path in sorted(jobs.glob("script-*"))]
    encode, search, finish = (script for script in scripts if "launch_pickled_pipeline" in script)
    for line in (
        "partition=gpu",
        "time=01:00:00",
        "gpus=1",
        "qos=high",
        "array=0-2",
        "job-name=negmine-0-encode_share",
    ):
        assert f"#SBATCH --{line}\n" in encode
    assert "#SBATCH --job-name=negmine-1-search_share\n" in search
    assert "#SBATCH --array=0-0\n" in finish
    assert f'export PATH="{Path(sys.executable).parent}:$PATH"' in encode
    assert (jobs / "arguments").read_text().count("--dependency=afterok:") == 2
