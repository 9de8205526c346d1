"""`unfreeze export` on runs: the files reproduce the run's figures; what can't be written is refused in a line."""

import json
import shutil
from pathlib import Path

import onnxruntime
import pytest
import torch
import torchvision
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from tests.launch import TINY_RUN, train, unfreeze
from unfreeze.models.checkpoint import load_classifier
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.reopen import reopen

REQUEST = [
    *TINY_RUN,
    "strategy.stages=[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 1}]",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    done = train([*REQUEST, "hydra.run.dir=run"], folder)
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="module")
def tested(run: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the run's test images, as its data hands them out, and their labels."""
    data = reopen(RunDirectory(run), load_classifier(run).preprocessing).data
    test = data.splits.test
    return data.store.read(test), data.labels[test]


def answers(file: Path, images: torch.Tensor, size: int) -> torch.Tensor:
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(file)
        return torch.cat(
            [torch.from_numpy(session.run(None, {"images": each.numpy()})[0]) for each in images.split(size)]
        )
    module = torch.export.load(file).module()
    with torch.no_grad():
        return torch.cat([module(each) for each in images.split(size)])


@pytest.mark.parametrize("preprocessing", [pytest.param("outside", marks=pytest.mark.slow), "inside"])
@pytest.mark.parametrize("to", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_graphs_reproduce_the_test_accuracy(
    run: Path,
    tested: tuple[torch.Tensor, torch.Tensor],
    to: str,
    preprocessing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert unfreeze(["export", str(run), "--to", to, "--preprocessing", preprocessing], monkeypatch) == 0
    told, noise = capsys.readouterr()
    assert not noise
    lines = told.splitlines()
    assert len(lines) == 5
    assert "val images in batches of" in lines[1]
    assert "the same prediction for all" in lines[1]
    images, labels = tested
    file = Path(lines[-1].strip())
    if preprocessing == "outside":
        images = load_classifier(run).preprocessing(images).contiguous()
    result = json.loads((run / "result.json").read_text())
    for size in (1, 7, 64):
        right = answers(file, images, size).argmax(dim=1) == labels
        assert float(right.double().mean()) == pytest.approx(result["test"]["acc"], abs=1e-12)
    card = ModelCard.load(run / "exports" / "README.md", ignore_metadata_errors=False)
    assert card.data.eval_results[0].metric_value == pytest.approx(result["test"]["acc"], abs=1e-6)
    assert file.name in card.text


def test_weights_go_into_torchvisions_own_network(
    run: Path, tested: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unfreeze(["export", str(run), "--to", "safetensors", "--license", "mit"], monkeypatch) == 0
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    network.load_state_dict(load_file(run / "exports" / "tiny.safetensors"), strict=True)
    classifier = load_classifier(run)
    seen = classifier.preprocessing(tested[0])
    with torch.no_grad():
        assert torch.equal(network.eval()(seen), classifier.network(seen))
    assert ModelCard.load(run / "exports" / "README.md").data.license == "mit"


def test_without_its_images_digits_are_asked_and_it_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "some.ckpt"
    shutil.copy(run / "checkpoints" / "best.ckpt", alone)
    assert unfreeze(["export", str(alone), "--to", "safetensors"], monkeypatch) == 0
    told = capsys.readouterr().out
    assert "256 digits in batches of 32 and 7" in told
    assert "the checkpoint lies alone" in told
    assert (tmp_path / "exports" / "tiny-some.safetensors").is_file()
    assert "digits" in (tmp_path / "exports" / "README.md").read_text()
    moved = tmp_path / "moved"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("exports"))
    (moved / "config.yaml").write_text((run / "config.yaml").read_text().replace("fraction: 0.3", "fraction: 0.2"))
    assert unfreeze(["export", str(moved), "--to", "safetensors"], monkeypatch) == 0
    told = capsys.readouterr().out
    assert "the run's images can't be had: data: not the images, or not the splits" in told


def test_figures_of_the_run_are_told_of_its_best_checkpoint_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unfreeze(["export", str(run / "checkpoints" / "last.ckpt"), "--to", "safetensors"], monkeypatch) == 0
    assert (run / "exports" / "tiny-last.safetensors").is_file()
    card = (run / "exports" / "README.md").read_text()
    assert "model-index" not in card
    assert "Fingerprint of images" in card


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--to", "tflite"], "--to: got 'tflite'; want onnx, torch, safetensors"),
        (["--to", "onnx", "--preprocessing", "both"], "--preprocessing: got 'both'; want inside or outside"),
        (["--to", "safetensors", "--preprocessing", "inside"], "holds weights alone; type --to onnx or --to torch"),
        (["--to", "onnx", "--out", "net.pt"], "--out: got 'net.pt'; want a file whose name ends in .onnx"),
        (["--to", "torch", "--out", "nowhere/net.pt2"], "there is no folder"),
    ],
    ids=lambda value: "",
)
def test_what_can_t_be_written_is_refused_in_a_line(
    run: Path,
    typed: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert unfreeze(["export", str(run), *typed], monkeypatch) == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert told in err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unfreeze(["export", str(tmp_path), "--to", "torch"], monkeypatch) == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_what_installs_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unfreeze.inference.export import request

    monkeypatch.setattr(request, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert unfreeze(["export", str(run), "--to", "onnx"], monkeypatch) == 2
    assert capsys.readouterr().err == (
        "error: --to onnx: onnxscript is not installed; type pip install 'unfreeze[export]'\n"
    )


def test_the_code_of_a_repository_does_not_run_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hubconf.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    hub = ["model=hub", f"model.repo={tmp_path}", "model.name=net", "model.weights=null"]
    request = [part for part in TINY_RUN if part != "model=tiny"]
    done = train([*request, *hub, "strategy=feature_extraction", "trainer.max_epochs=1", "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    monkeypatch.chdir(tmp_path)
    assert unfreeze(["export", "run", "--to", "torch"], monkeypatch) == 2
    assert f"repository {tmp_path}, whose code would run; if you trust it, type --trust-repo" in capsys.readouterr().err
    assert not (tmp_path / "run" / "exports").exists()
    assert unfreeze(["export", "run", "--to", "torch", "--trust-repo"], monkeypatch) == 0
    assert unfreeze(["export", "run", "--to", "safetensors", "--trust-repo"], monkeypatch) == 0
    assert "neither torchvision nor timm has this network" in capsys.readouterr().out
    assert str(tmp_path) not in (tmp_path / "run" / "exports" / "README.md").read_text()
