"""Commands on machines of Hugging Face Jobs, which are rented by the minute."""

from __future__ import annotations

from collections.abc import Sequence

import huggingface_hub

from hf_negmine.base.errors import InputError
from hf_negmine.hub.network import hub_errors

IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
"""With uv, which installs packages in seconds; `run_uv_job` runs commands in it, too, but is experimental."""
SECONDS_A_LOOK = 10.0


def run_jobs(
    modules: Sequence[Sequence[str]],
    *,
    packages: Sequence[str],
    flavor: str,
    timeout: str,
    namespace: str | None = None,
    secrets: dict[str, str] | None = None,
) -> list[str]:
    """Run ``python -m`` with each of some modules and arguments as a job of its own, and wait until all have ended.

    Args:
        modules, packages: a module and its arguments per job, and what uv installs there.
        flavor, timeout: the hardware, such as ``a10g-small``, and when a job is stopped, such as ``2h``.
        namespace: who pays; None takes the user that is logged in.
        secrets: environment variables of the jobs, besides ``HF_TOKEN``.

    Returns:
        How each job that did not complete ended, and its address; nothing if all did.

    Raises:
        InputError: the installed huggingface_hub is too old.
        HubError: the Hub refused a job, or cannot be reached; jobs that have been started go on.
    """
    api = huggingface_hub.HfApi()
    if not hasattr(api, "wait_for_job"):
        raise InputError("executor: Hugging Face Jobs need a newer client: pip install -U huggingface_hub")
    token = huggingface_hub.get_token()
    run = ["uv", "run", *(part for package in packages for part in ("--with", package)), "python", "-m"]
    with hub_errors(f"on {flavor}", "running jobs"):
        started = [
            api.run_job(
                image=IMAGE,
                command=[*run, *module],
                flavor=flavor,
                timeout=timeout,
                namespace=namespace,
                secrets={**({"HF_TOKEN": token} if token else {}), **(secrets or {})},
            )
            for module in modules
        ]
        ended = [api.wait_for_job(job.id, namespace=namespace, poll_interval=SECONDS_A_LOOK) for job in started]
    return [f"{job.status.stage} {job.url}" for job in ended if str(job.status.stage) != "COMPLETED"]
