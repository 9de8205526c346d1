"""The rank of this process in distributed training, from the environment."""

import os

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Variables of torchrun, Lightning and Slurm; only in the first process are all that are set 0."""

_INTERACTIVE_JOBS = ("bash", "interactive")
"""Slurm jobs that are a shell, in which Lightning starts the ranks itself."""


def is_first_process() -> bool:
    """Return whether this process is global rank 0, the one that writes."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def is_rank() -> bool:
    """Return whether this process was started as one of several ranks on its machine."""
    return "LOCAL_RANK" in os.environ


def is_launched_externally() -> bool:
    """Return whether torchrun or Slurm starts the ranks, each with its own command line."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _number("WORLD_SIZE") > 1
    return _number("SLURM_NTASKS") > 1 and os.environ.get("SLURM_JOB_NAME") not in _INTERACTIVE_JOBS


def _number(name: str) -> int:
    value = os.environ.get(name, "1")
    return int(value) if value.isdigit() else 1
