"""Soups of a sweep's runs and of a run's best epochs: what goes in, what comes out, what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.launch import TINY_RUN, train, unfreeze
from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import load_classifier
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.evaluator import Evaluator
from unfreeze.runs.reopen import reopen
from unfreeze.runs.soup import Ingredient, _Averaging, find_ingredients, make_soup

REQUEST = [
    *TINY_RUN,
    "strategy.stages=[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 2}]",
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soup")
    done = train(["-m", *REQUEST, "seed=0,1,2", "hydra.sweep.dir=sweep"], folder)
    assert done.code == 0, done.err
    return folder / "sweep"


def val_acc(run: Path) -> float:
    return float(json.loads((run / "result.json").read_text())["val"]["acc"])


def test_a_sweep_is_averaged_and_is_no_worse_than_its_best(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = tmp_path / "soup"
    assert unfreeze(["soup", str(sweep), "--out", str(place)], monkeypatch) == 0
    told, noise = capsys.readouterr()
    assert not noise
    assert len(told.splitlines()) == 5
    assert "the best" in told
    assert "of 3 averaged" in told
    result = json.loads((place / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["val"]["acc"] >= max(val_acc(sweep / str(job)) for job in range(3)) - 1e-9
    assert len(result["ingredients"]) + len(result["left_out"]) == 3
    assert 0 < result["test"]["acc"] <= 1
    states = [load_classifier(Path(path)).network.state_dict() for path in result["ingredients"]]
    mixed = load_classifier(place).network.state_dict()
    expected = torch.stack([state["fc.weight"] for state in states]).double().mean(dim=0).float()
    assert torch.equal(mixed["fc.weight"], expected)
    assert unfreeze(["soup", str(sweep), "--out", str(place)], monkeypatch) == 2
    assert "is not empty" in capsys.readouterr().err


def test_norms_count_anew_what_the_average_sees(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingredients = find_ingredients(sweep)
    averaging = _Averaging(Evaluator(reopen(ingredients[0].run, ingredients[0].classifier.preprocessing)))
    alone = averaging.average(ingredients[:1]).network.state_dict()
    own = ingredients[0].classifier.network.state_dict()
    assert all(torch.equal(alone[key], own[key]) for key in own), "one alone stays as it is"
    mixed = averaging.average(ingredients[:2])
    seen: list[torch.Tensor] = []
    first = mixed.network.get_submodule("conv1.0")
    hook = first.register_forward_hook(lambda _, __, out: seen.append(out))
    images = mixed.preprocessing(
        averaging.evaluator.reopened.data.store.read(averaging.evaluator.reopened.data.splits.train)
    )
    with torch.no_grad():
        mixed.network(images)
    hook.remove()
    norm = mixed.network.get_submodule("conv1.1")
    torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_norms_that_were_frozen_stay_as_they_were(tmp_path: Path) -> None:
    short = "strategy.stages=[{name: head, train: 1, epochs: 1}, {name: block, train: 2, epochs: 1}]"
    done = train(["-m", *TINY_RUN, short, "strategy.lr.head=0.01", "seed=0,1", "hydra.sweep.dir=sweep"], tmp_path)
    assert done.code == 0, done.err
    folders = [tmp_path / "sweep" / number for number in "01"]
    first, second = (load_classifier(folder) for folder in folders)
    ingredients = [Ingredient(folder, folder, each) for folder, each in zip(folders, (first, second), strict=True)]
    mixed = (
        _Averaging(Evaluator(reopen(RunDirectory(folders[0]), first.preprocessing)))
        .average(ingredients)
        .network.state_dict()
    )
    own, other = first.network.state_dict(), second.network.state_dict()
    frozen = [key for key in own if "running_" in key and torch.equal(own[key], other[key])]
    counted = [key for key in own if "running_" in key and not torch.equal(own[key], other[key])]
    assert frozen and counted
    assert all(torch.equal(mixed[key], own[key]) for key in frozen)
    assert not any(torch.equal(mixed[key], own[key]) for key in counted)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("splits.json", None),
        ("config.yaml", None),
        ("result.json", "{"),
        ("splits.json", "[]"),
        ("splits.json", "{}"),
        ("config.yaml", "- 1"),
        ("config.yaml", "a: ["),
    ],
)
def test_runs_that_are_not_whole_are_refused_in_a_line(
    sweep: Path,
    tmp_path: Path,
    file: str,
    content: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(sweep, tmp_path / "sweep")
    if content is None:
        (tmp_path / "sweep" / "0" / file).unlink()
    else:
        (tmp_path / "sweep" / "0" / file).write_text(content)
    assert unfreeze(["soup", str(tmp_path / "sweep"), "--out", str(tmp_path / "soup")], monkeypatch) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert f"0/{file}" in told


def test_the_best_epochs_of_a_run_are_kept_and_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = train([*REQUEST, "keep_best=2", "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    kept = sorted(file.name for file in (tmp_path / "run" / "checkpoints").glob("epoch*.ckpt"))
    assert len(kept) == 2
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/acc")
    scores = {f"epoch{number:04d}.ckpt": float(row.split(",")[column]) for number, row in enumerate(rows[1:], 1)}
    assert min(scores[name] for name in kept) >= max(scores[name] for name in scores if name not in kept)
    monkeypatch.chdir(tmp_path)
    assert unfreeze(["soup", "run"], monkeypatch) == 0
    assert load_classifier(tmp_path / "run" / "soup").classes == tuple("0123456789")
    assert make_soup(tmp_path / "run", out=tmp_path / "again")["val"]["acc"] >= val_acc(tmp_path / "run")


def test_what_does_not_go_together_is_refused(sweep: Path, tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match="no folder"):
        make_soup(tmp_path / "nothing")
    shutil.copytree(sweep, tmp_path / "sweep")
    splits = tmp_path / "sweep" / "1" / "splits.json"
    kept = splits.read_text()
    content = json.loads(kept)
    content["splits"]["val"]["hash"] = "0" * 32
    splits.write_text(json.dumps(content))
    with pytest.raises(UnfreezeError, match=r"val or test images of .*1 are not those of .*0"):
        make_soup(tmp_path / "sweep")
    splits.write_text(kept)
    file = tmp_path / "sweep" / "2" / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["unfreeze"]["classifier"]["preprocessing"]["crop_px"] = 48
    torch.save(checkpoint, file)
    with pytest.raises(UnfreezeError, match="has another preprocessing than"):
        make_soup(tmp_path / "sweep")
    with pytest.raises(UnfreezeError, match="train with keep_best=3"):
        make_soup(sweep / "0")
    for job in ("1", "2"):
        shutil.rmtree(tmp_path / "sweep" / job)
    with pytest.raises(UnfreezeError, match="has 1 completed jobs; want two or more"):
        make_soup(tmp_path / "sweep")


def test_the_code_of_a_repository_does_not_run_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hubconf.py").write_text(
        "from pathlib import Path\n\nfrom torch import nn\n\nPath('ran').touch()\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    hub = ["model=hub", f"model.repo={tmp_path}", "model.name=net", "model.weights=null"]
    short = "strategy.stages=[{name: head, train: 1, epochs: 1}]"
    request = [part for part in TINY_RUN if part != "model=tiny"]
    done = train(["-m", *request, *hub, short, "seed=0,1", "hydra.sweep.dir=sweep"], tmp_path)
    assert done.code == 0, done.err
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ran").unlink()
    assert unfreeze(["soup", "sweep"], monkeypatch) == 2
    assert f"repository {tmp_path}, whose code would run" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert unfreeze(["soup", "sweep", "--trust-repo"], monkeypatch) == 0
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
def test_mnasnet_is_averaged_evaluated_and_exported_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules refuse entries whose version is not known."""
    typed = [word for word in REQUEST if not word.startswith("model")]
    typed += ["model=torchvision", "model.name=mnasnet0_5", "model.weights=null", "data.image_size=32", "callbacks=ema"]
    done = train([*typed, "keep_best=2", "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    run, soup = tmp_path / "run", tmp_path / "soup"
    assert unfreeze(["soup", str(run), "--out", str(soup)], monkeypatch) == 0
    assert unfreeze(["evaluate", str(soup), "--split", "val", "--out", str(tmp_path / "again")], monkeypatch) == 0
    again, first = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path / "again", soup))
    assert again["test"]["acc"] == pytest.approx(first["val"]["acc"])
    assert unfreeze(["export", str(soup), "--to", "safetensors"], monkeypatch) == 0
