"""Available memory of machines and containers."""

from pathlib import Path

import pytest

from unfreeze.system import cgroups
from unfreeze.system.memory import free_memory_bytes


def put_limit(folder: Path, limit: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text("700000\n")
    (folder / "memory.stat").write_text("anon 500000\ninactive_file 100000\n")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let the process be in a control group of its own, and return the folder of all."""
    monkeypatch.setattr(cgroups, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cgroups, "_OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/job/task\n")
    return tmp_path


@pytest.mark.parametrize("folder", ["job/task", "job"])
def test_inactive_file_pages_of_a_container_count_as_free(groups: Path, folder: str) -> None:
    put_limit(groups / folder, "1000000")
    assert free_memory_bytes() == 400_000


def test_a_full_container_has_no_free_memory(groups: Path) -> None:
    put_limit(groups / "job", "500000")
    assert free_memory_bytes() == 0


def test_a_group_without_a_limit_has_the_free_memory_of_the_machine(groups: Path) -> None:
    put_limit(groups / "job", "max")
    assert free_memory_bytes() > 1e8
