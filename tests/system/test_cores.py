"""How many cores a process may use, and who goes by it."""

import os
from pathlib import Path

import pytest
import torch

from unfreeze.data.store.store import StoreOptions
from unfreeze.system import cgroups, cores


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the machine have 64 cores, no quota, and one job of one rank."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(cgroups, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cgroups, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(cores, "_jobs_at_once", 1)
    monkeypatch.setattr(cores, "_ranks_here", 1)


def put_quota(root: Path, folder: str, quota: str) -> None:
    (root / "own").write_text("4:memory:/elsewhere\n0::/job/task\n")
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "cpu.max").write_text(f"{quota} 100000\n")


def test_all_cores_that_it_may_be_scheduled_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores.usable_cores() == 64
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert cores.usable_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert cores.usable_cores() == 8


@pytest.mark.parametrize("folder", ["job/task", "job", "."])
def test_a_quota_of_its_group_or_of_one_around_it(folder: str, tmp_path: Path) -> None:
    put_quota(tmp_path, folder, "250000")
    assert cores.usable_cores() == 3


@pytest.mark.parametrize("quota", ["max", "6400000", "-1 and more"])
def test_a_quota_that_limits_nothing(quota: str, tmp_path: Path) -> None:
    put_quota(tmp_path, "job", quota)
    assert cores.usable_cores() == 64


@pytest.mark.parametrize(("jobs", "usable"), [(1, 64), (4, 16), (3, 21), (-1, 1), (-61, 16), (100, 1), (-100, 64)])
def test_jobs_that_run_at_once_share_the_cores(jobs: int, usable: int) -> None:
    cores.share_cores(jobs)
    assert cores.usable_cores() == usable


def test_ranks_share_the_cores_of_their_job() -> None:
    cores.share_cores(2)
    cores.share_cores_among(8)
    assert cores.usable_cores() == StoreOptions().worker_count == 4


@pytest.mark.parametrize(("jobs", "workers"), [(1, 16), (8, 8), (64, 1)])
def test_decoding_has_a_worker_per_core_but_not_more_than_sixteen(jobs: int, workers: int) -> None:
    cores.share_cores(jobs)
    assert StoreOptions().worker_count == workers
    assert StoreOptions(workers=40).worker_count == 40


@pytest.mark.parametrize(("threads", "jobs", "expected"), [(64, 1, None), (64, 8, 8), (32, 4, 16), (4, 1, None)])
def test_the_threads_of_torch_are_lowered_and_never_raised(
    threads: int, jobs: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", limits.append)
    cores.share_cores(jobs)
    cores.limit_torch_threads()
    assert limits == ([] if expected is None else [expected])
