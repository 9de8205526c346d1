"""A full disk ends a run with a one-line error and a result with the reason."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.launch import TINY_RUN, train
from unfreeze.system.disk import DiskFullError
from unfreeze.system.files import replacing
from unfreeze.training.callbacks.checkpointing import CheckpointFiles

STAGES = "strategy.stages=[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 1}]"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a file system of a size in memory."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        command = shutil.which("mount")
        done = command and subprocess.run(
            [command, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False
        )
        if not done or done.returncode:
            pytest.skip("file systems can't be mounted here")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_file_that_does_not_fit_is_removed(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("100k")
    with (
        pytest.raises(DiskFullError, match=r"no room for '.*/large'; 0.1 MB are free"),
        replacing(disk / "large") as file,
    ):
        file.write_bytes(b"x" * 200_000)
    assert list(disk.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_keeps_the_previous_one(small_disk: Callable[[str], Path]) -> None:
    """PyTorch's writer raises a RuntimeError that names no reason."""
    disk, files = small_disk("1000k"), CheckpointFiles()
    files.save_checkpoint({"state_dict": {"weight": torch.zeros(100_000)}}, disk / "last.ckpt")
    more = {"state_dict": {"weight": torch.ones(100_000)}, "moments": torch.ones(100_000)}
    with pytest.raises(DiskFullError, match=r"last.ckpt', which takes 0.8 MB; 0.6 MB are free"):
        files.save_checkpoint(more, disk / "last.ckpt")
    assert not torch.load(disk / "last.ckpt", weights_only=True)["state_dict"]["weight"].any()
    files.teardown()


@pytest.mark.parametrize("size", ["1200k", pytest.param("3500k", marks=pytest.mark.slow)])
def test_a_run_that_fills_the_disk_ends_with_a_one_line_error(
    size: str, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    run = small_disk(size) / "run"
    request = [part for part in TINY_RUN if part not in ("logger=none", "report=false")]
    done = train([*request, "data.fraction=0.1", STAGES, f"hydra.run.dir={run}"], tmp_path / "work")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"error: the disk is full: no room for '{run}/")
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["reason"] == done.err.removeprefix("error: ").strip()
    assert not (run / ".room").exists()
