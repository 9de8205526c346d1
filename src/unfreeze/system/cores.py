"""How many cores this process may use: all that it is allowed, shared with the jobs and the ranks beside it."""

import os

from unfreeze.system.cgroups import control_groups

MOST_WORKERS = 16
"""More processes than this are seldom fed by one disk."""

_jobs_at_once = 1
_ranks_here = 1


def share_cores(jobs: int) -> None:
    """Note that so many jobs like this process run on the machine at once; a negative number leaves cores free.

    Args:
        jobs: As joblib counts them: -1 for as many as there are cores, -2 for one fewer.
    """
    global _jobs_at_once
    _jobs_at_once = max(1, jobs if jobs > 0 else allowed_cores() + 1 + jobs)


def share_cores_among(ranks: int) -> None:
    """Note that this process is one of so many ranks of a run on this machine."""
    global _ranks_here
    _ranks_here = max(1, ranks)


def usable_cores() -> int:
    """Return how many cores this process may keep busy, 1 or more."""
    return max(1, allowed_cores() // (_jobs_at_once * _ranks_here))


def limit_torch_threads() -> None:
    """Let PyTorch start no more threads than there are cores for."""
    import torch

    if usable_cores() < torch.get_num_threads():
        torch.set_num_threads(usable_cores())


def wait_asleep() -> None:
    """Let threads of PyTorch that wait for each other sleep, unless a person has said otherwise; before it is imported.

    They would turn in a loop, and keep the cores from the processes that decode, or from whatever else runs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def ask_for_gpus_cheaply() -> None:
    """Let PyTorch ask the CUDA runtime whether there is a GPU, which Adam does in each step; for runs on the CPU.

    Lightning makes it load NVIDIA's management library for that each time, so that processes may be forked before CUDA
    is used: https://docs.pytorch.org/docs/stable/notes/cuda.html (environment variables). Here it is not used.
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def allowed_cores() -> int:
    """Return the cores that the process may be scheduled on, or fewer where a container's quota says so."""
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([scheduled, *_quotas()]))


def _quotas() -> list[int]:
    """Return the quotas in cores, rounded up, of the process's control group and of those around it (cgroup v2)."""
    quotas = []
    for folder in control_groups():
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            quotas.append(-(-int(quota) // int(period)))
        except (OSError, ValueError):  # no such file at the root, or "max"
            continue
    return quotas
