"""Number of cores for this process: those allowed, divided among concurrent jobs and ranks."""

import os

from unfreeze.system.cgroups import control_groups

MAX_WORKERS = 16
"""Limit of decoding processes: one disk seldom supplies more."""

_jobs_at_once = 1
_ranks_here = 1


def share_cores(jobs: int) -> None:
    """Set the number of jobs that run on this machine at the same time.

    Args:
        jobs: As in joblib: -1 for the number of cores, -2 for one fewer.
    """
    global _jobs_at_once
    _jobs_at_once = max(1, jobs if jobs > 0 else allowed_cores() + 1 + jobs)


def share_cores_among(ranks: int) -> None:
    """Set the number of ranks of this run on this machine."""
    global _ranks_here
    _ranks_here = max(1, ranks)


def usable_cores() -> int:
    """Return the number of cores for this process, at least 1."""
    return max(1, allowed_cores() // (_jobs_at_once * _ranks_here))


def limit_torch_threads() -> None:
    """Limit PyTorch's threads to the usable cores."""
    import torch

    if usable_cores() < torch.get_num_threads():
        torch.set_num_threads(usable_cores())


def use_passive_wait() -> None:
    """Set OMP_WAIT_POLICY=passive unless it is set; call this before PyTorch is imported.

    By default waiting OpenMP threads spin, and take the cores from decoding processes and other programs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def skip_nvml_check() -> None:
    """Disable the NVML-based check for GPUs in runs on the CPU.

    Adam checks for GPUs in each step. Lightning enables the slow check by NVML, so that processes can be forked before
    CUDA is initialised, which never happens on the CPU:
    https://docs.pytorch.org/docs/stable/notes/cuda.html (environment variables).
    """
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def allowed_cores() -> int:
    """Return the number of cores that the process may be scheduled on, or a container's quota if that is lower."""
    scheduled = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([scheduled, *_quotas()]))


def _quotas() -> list[int]:
    """Return the quotas in cores, rounded up, of the process's control group and its ancestors (cgroup v2)."""
    quotas = []
    for folder in control_groups():
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
            quotas.append(-(-int(quota) // int(period)))
        except (OSError, ValueError):  # no such file at the root, or "max"
            continue
    return quotas
