"""Where ranks run: in processes of this machine, as tasks of Ray, as jobs of Slurm or as Hugging Face Jobs."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch

from hf_negmine.base.errors import InputError, NegmineError, require
from hf_negmine.base.wording import counted
from hf_negmine.hub.jobs import run_jobs

Work: TypeAlias = Callable[[Any, int, int], None]
"""A stage's work, given ``(data, rank, world_size)`` like a step of a datatrove pipeline; ``data`` is not used."""
SLURM = {
    "partition": str, "tasks": int, "time": str, "qos": str, "cpus_per_task": int, "mem_per_cpu_gb": int,
    "gpus_per_task": int, "workers": int,
}  # fmt: skip
"""The settings of Slurm, as datatrove's `SlurmPipelineExecutor` names them."""
RAY = {"tasks": int, "cpus_per_task": int, "gpus_per_task": int}
JOBS = {"flavor": str, "tasks": int, "timeout": str, "namespace": str, "package": str, "secrets": str}
PACKAGES = {"s3": ["s3fs"], "gs": ["gcsfs"], "gcs": ["gcsfs"]}
"""What fsspec needs for an address; what it lacks on the Hub's machines is installed there."""
EXPECTED = (
    "expected local, local:4, ray, ray:tasks=8, slurm:partition=NAME,tasks=8,time=12:00:00, or "
    "jobs:flavor=a10g-small,tasks=8,timeout=2h"
)

MOST_PROCESSES = 8
"""Processes of this machine for each of its cores; more only fill its memory."""
RETRIES = 2
"""How often Ray runs a rank again whose process was killed."""


class RankError(NegmineError, RuntimeError):
    """A rank that failed or was killed; the others have kept what they finished."""


class Executor(Protocol):
    """Runs stages one after another, each in all its ranks, and then what comes last."""

    @property
    def ranks(self) -> int | None:
        """How many there are; None if that is only known when they run."""

    def run(self, stages: Sequence[Work], finish: Callable[[], object], folder: Path) -> str | None:
        """Run the stages, then ``finish``; a sentence for the user if they are only submitted, to run later.

        Args:
            stages: what every rank does.
            finish: what one process does afterwards.
            folder: for logs and scripts.
        """


def parse_executor(spec: str) -> Executor:
    """Parse where ranks run.

    Args:
        spec: ``local:4`` for four processes of this machine, ``local`` for one per GPU, ``ray:tasks=8`` for tasks of a
            Ray cluster, ``ray`` for one per GPU of it, ``slurm:partition=NAME,tasks=8,time=12:00:00`` for Slurm jobs,
            both with ``gpus_per_task`` and ``cpus_per_task``, Slurm with ``mem_per_cpu_gb``, ``qos`` and ``workers``
            if needed, or ``jobs:flavor=a10g-small,tasks=8,timeout=2h`` for Hugging Face Jobs, which need a ``--store``.

    Raises:
        InputError: it is neither, or a setting is missing, unknown or not a number.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "local":
        count = rest if colon else str(max(torch.cuda.device_count(), 1))
        require(count.isdecimal() and int(count) > 0, f"executor {spec!r}: {EXPECTED}")
        return LocalExecutor(int(count))
    if kind == "ray":
        return RayExecutor(**_settings(spec, rest, RAY))
    if kind == "jobs":
        return JobsExecutor(**_settings(spec, rest, JOBS, needed=("flavor", "tasks", "timeout")))
    require(kind == "slurm", f"executor {spec!r}: {EXPECTED}")
    return SlurmExecutor(_settings(spec, rest, SLURM, needed=("partition", "tasks", "time")))


def _settings(spec: str, written: str, known: Mapping[str, type], needed: Sequence[str] = ()) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for part in filter(None, written.split(",")):
        name, _, value = part.partition("=")
        require(name in known, f"executor {spec!r}: {name!r} is not among {list(known)}")
        whole = value.isdecimal() and int(value) > 0
        require(known[name] is str or whole, f"executor {spec!r}: {name} is {value!r}, expected a number from 1 on")
        settings[name] = known[name](value)
    missing = [name for name in needed if not settings.get(name)]
    require(not missing, f"executor {spec!r} lacks {', '.join(missing)}; {EXPECTED}")
    return settings


@dataclass(frozen=True)
class LocalExecutor:
    """Processes of this machine, one per rank.

    They are not those of datatrove's local executor, which waits forever for a process that was killed, as one is when
    memory runs out.
    """

    ranks: int

    def __post_init__(self) -> None:
        cores = os.cpu_count() or 1
        require(
            self.ranks <= MOST_PROCESSES * cores,
            f"executor local:{self.ranks}: {self.ranks:,} processes, but this machine has {counted(cores, 'core')} and "
            f"each process loads the model; give at most local:{MOST_PROCESSES * cores}, for speed one per GPU",
        )

    def run(self, stages: Sequence[Work], finish: Callable[[], object], folder: Path) -> None:
        """Run the stages, then ``finish`` in this process; ``folder`` stays unused."""
        try:
            require(not is_of_a_notebook(pickle.dumps(stages)), "it is defined in a notebook")
        except (pickle.PicklingError, AttributeError, TypeError, InputError) as error:
            raise InputError(
                f"executor local:{self.ranks}: the teacher cannot be sent to other processes ({error}); define its "
                "functions and classes at the top of a module that can be imported, or mine in this process"
            ) from error
        spawn = multiprocessing.get_context("spawn")  # a fork could not use a GPU
        with _environment(self.ranks), ProcessPoolExecutor(self.ranks, spawn) as processes:
            for stage in stages:
                ranks = [processes.submit(_done, stage, rank, self.ranks) for rank in range(self.ranks)]
                try:
                    for done in as_completed(ranks):
                        done.result()
                except BrokenProcessPool as error:
                    raise RankError(
                        f"one of {self.ranks} processes was killed, perhaps because memory ran out, or because a "
                        "script starts them outside of if __name__ == '__main__'; what is finished is kept: run again, "
                        "perhaps with fewer processes"
                    ) from error
        finish()


def is_of_a_notebook(pickled: bytes) -> bool:
    """Whether something needs the functions or classes of a notebook, which other processes do not find."""
    return b"__main__" in pickled and not hasattr(sys.modules["__main__"], "__file__")


@contextmanager
def _environment(processes: int) -> Iterator[None]:
    """Share the processors among new processes, since torch would start a thread for each in all of them.

    They load their models without bars, which would mix with one another.
    """
    wanted = {
        "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // processes, 1)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    ours = {name: value for name, value in wanted.items() if not os.environ.get(name)}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


@dataclass(frozen=True)
class RayExecutor:
    """Tasks of a Ray cluster: the one that this process or machine belongs to, or a new one of this machine alone.

    They are not those of datatrove's Ray executor, which logs a rank that failed, and then ends as if all were done.

    Attributes:
        tasks: ranks; None takes one per GPU of the cluster.
        cpus_per_task: processors that Ray reserves for a rank.
        gpus_per_task: GPUs that Ray reserves for a rank; None takes one if the cluster has any.
    """

    tasks: int | None = None
    cpus_per_task: int = 1
    gpus_per_task: int | None = None

    @property
    def ranks(self) -> int | None:
        """As given."""
        return self.tasks

    def run(self, stages: Sequence[Work], finish: Callable[[], object], folder: Path) -> None:
        """Run the stages, then ``finish`` in this process; ``folder`` stays unused. Ray runs a killed rank again."""
        ray = _ray()
        if not ray.is_initialized():
            ray.init(logging_level="warning")
        gpus = int(ray.cluster_resources().get("GPU", 0))
        ranks = self.tasks or max(gpus, 1)
        reserved = {"num_cpus": self.cpus_per_task, "num_gpus": self.gpus_per_task or min(gpus, 1)}
        task = ray.remote(max_retries=RETRIES, **reserved)(_done)
        for stage in stages:
            try:
                ray.get([task.remote(stage, rank, ranks) for rank in range(ranks)])
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise RankError(
                    f"one of {ranks} Ray tasks was killed {RETRIES + 1} times ({type(error).__name__}), perhaps "
                    "because memory ran out; what is finished is kept: run the same again, perhaps with fewer tasks"
                ) from error
        finish()


def _done(stage: Work, rank: int, world_size: int) -> None:
    """Run a stage in a process of its own. An error that cannot be sent from it, as many clients' cannot, is told."""
    try:
        stage(None, rank, world_size)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RankError(
                f"rank {rank} of {world_size} failed with {type(error).__name__}: {error}; what is finished is kept: "
                "run the same again"
            ) from error
        raise


@dataclass(frozen=True)
class JobsExecutor:
    """Hugging Face Jobs, one per rank, for which this process waits. They share no disk, so the run needs a store.

    Attributes:
        flavor: the hardware, such as ``a10g-small``.
        tasks: ranks.
        timeout: after which a job is stopped, such as ``2h``.
        namespace: who pays; None takes the user that is logged in.
        package: what pip installs there as hf_negmine; None takes this version.
        secrets: names of environment variables that the jobs get, with a ``+`` in between, such as the keys of a store.
    """

    flavor: str
    tasks: int
    timeout: str
    namespace: str | None = None
    package: str | None = None
    secrets: str = ""

    @property
    def ranks(self) -> int:
        """As given."""
        return self.tasks

    def run(self, stages: Sequence[Any], finish: Callable[[], object], folder: Path) -> None:
        """Run the stages, then ``finish`` in this process; ``folder`` stays unused."""
        names = [name for name in self.secrets.split("+") if name]
        lacking = [name for name in names if name not in os.environ]
        require(not lacking, f"executor: secrets names {', '.join(lacking)}, which the environment lacks")
        for stage in stages:
            address = stage.store.address
            failed = run_jobs(
                [
                    ["hf_negmine.cluster.rank", address, stage.work.__name__, str(rank), str(self.tasks)]
                    for rank in range(self.tasks)
                ],
                packages=[
                    self.package or f"hf_negmine=={version('hf_negmine')}",
                    *PACKAGES.get(address.partition(":")[0], []),
                ],
                flavor=self.flavor,
                timeout=self.timeout,
                namespace=self.namespace,
                secrets={name: os.environ[name] for name in names},
            )
            if failed:
                raise RankError(
                    f"{len(failed)} of {self.tasks} jobs did not complete ({failed[0]}, where its log is); what is "
                    "finished is in the store: run the same again"
                )
        finish()


@dataclass(frozen=True)
class SlurmExecutor:
    """Slurm jobs through datatrove: an array per stage, each after the one before; the last job calls ``finish``."""

    settings: dict[str, Any]

    @property
    def ranks(self) -> int:
        """The jobs of an array."""
        return int(self.settings["tasks"])

    def run(self, stages: Sequence[Any], finish: Callable[[], object], folder: Path) -> str:
        """Submit all jobs; their scripts and logs are in a new folder in ``folder``."""
        try:
            from datatrove.executor import SlurmPipelineExecutor
        except ImportError as error:
            raise InputError(
                'executor: Slurm needs the package datatrove: pip install "hf_negmine[cluster]"'
            ) from error
        folder = folder / time.strftime("%Y-%m-%d-%H%M%S")
        before = None
        for number, stage in enumerate([*stages, partial(_finish, finish)]):
            name = f"{number}-{stage.work.__name__ if hasattr(stage, 'work') else 'finish'}"
            settings = self.settings if number < len(stages) else {**self.settings, "tasks": 1}
            before = SlurmPipelineExecutor(
                [stage],
                **settings,
                job_name=f"negmine-{name}",
                logging_dir=str(folder / name),
                env_command=f'export PATH="{Path(sys.executable).parent}:$PATH"',  # this environment, there too
                skip_completed=False,  # what is done is known from the cache itself
                depends=before,
            )
        assert before is not None
        try:
            before.run()  # submits those that it depends on first
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise InputError(f"executor: Slurm's sbatch failed: {error}; run this where jobs are submitted") from error
        return f"Submitted to Slurm; scripts and logs are in {folder}. If a job fails, run the same command again."


def _finish(finish: Callable[[], object], data: Any, rank: int, world_size: int) -> None:
    """What comes after all ranks, as a stage of one rank."""
    finish()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError('executor: Ray needs the package ray: pip install "hf_negmine[ray]"') from error
    return ray
