"""Files from elsewhere that would run code: refused wherever one may be named, and nothing runs."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launch import train
from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import build_classifier
from unfreeze.models.spec import ModelSpec
from unfreeze.training.teacher import find_teacher

HUBCONF = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""
needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.trace,)


def evil(folder: Path, name: str) -> tuple[Path, Path]:
    """Return a file that would leave a trace, and the trace."""
    file, trace = folder / name, folder / "owned"
    torch.save({"state_dict": {"network.fc.weight": Malicious(trace)}, "unfreeze": Malicious(trace)}, file)
    return file, trace


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".bin", ".safetensors"])
@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("tiny"),
        ModelSpec("resnet18"),
        pytest.param(ModelSpec("resnet18", "timm"), marks=needs_timm),
        ModelSpec("net", "hub", repo="."),
    ],
    ids=lambda spec: f"{spec.source} {spec.name}",
)
def test_weights(spec: ModelSpec, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    monkeypatch.chdir(tmp_path)
    file, trace = evil(tmp_path, f"evil{suffix}")
    with pytest.raises(UnfreezeError, match="which runs no code when loaded"):
        build_classifier(spec, classes=("a", "b"), weights=str(file))
    assert not trace.exists()


@pytest.mark.parametrize("load", [load_classifier, lambda path: find_teacher(str(path))], ids=["checkpoint", "teacher"])
def test_checkpoints(load: Any, tmp_path: Path) -> None:
    file, trace = evil(tmp_path, "evil.ckpt")
    with pytest.raises(UnfreezeError, match="can't be read as a checkpoint"):
        load(file)
    assert not trace.exists()


@pytest.mark.parametrize("key", ["model.weights", "objective.teacher"])
def test_on_the_command_line_it_is_one_line(key: str, tmp_path: Path) -> None:
    file, trace = evil(tmp_path, "evil.ckpt")
    objective = ["objective=distill"] if key == "objective.teacher" else []
    done = train(["data=digits", "model=tiny", *objective, f"{key}={file}", "hydra.run.dir=run"], tmp_path)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "evil.ckpt" in done.err
    assert not trace.exists()
    assert not (tmp_path / "run").exists()
