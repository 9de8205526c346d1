"""`unfreeze plan`, and the page that `train.py --help` is."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch import ROOT, train
from unfreeze.cli import main


def unfreeze(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["unfreeze", *arguments])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_plan_prints_groups_stages_and_rates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    request = ["plan", "model=resnet50", "strategy=partial", "strategy.blocks=2"]
    assert unfreeze(request, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "head        20,490" in out
    assert "total   23,528,522" in out
    assert "head layer4 layer3  22,083,594  10" in out
    assert "0.001 … 1e-05" in out
    assert list(tmp_path.iterdir()) == []


def test_plan_is_what_a_run_keeps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    request = ["data=digits", "data.fraction=0.02", "model=tiny", "model.weights=null", "trainer.max_epochs=1"]
    done = train([*request, "data.image_size=32", "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    assert unfreeze(["plan", *request], monkeypatch) == 0
    assert capsys.readouterr().out == (tmp_path / "run" / "plan.txt").read_text()


def test_plan_refuses_as_train_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert unfreeze(["plan", "data=digits", "strategy.lr.head=0"], monkeypatch) == 2
    assert capsys.readouterr().err == (
        "error: strategy.lr.head: got 0, want greater than 0, such as strategy.lr.head=0.001\n"
    )
    assert unfreeze(["plan", "model=resnet19"], monkeypatch) == 2
    assert "Could not find 'model/resnet19'" in capsys.readouterr().err


def test_help_is_a_page_with_every_choice(tmp_path: Path) -> None:
    done = train(["--help"], tmp_path)
    assert done.code == 0
    for folder in ("data", "model", "strategy", "optimizer", "augment", "trainer", "experiment"):
        for file in (ROOT / "conf" / folder).glob("*.yaml"):
            assert file.stem in done.out, file
    for key in ("data.val_fraction=0.1", "strategy.lr.head=1e-3", "optimizer.schedule=cosine", "resume=null"):
        assert key in done.out
    assert done.out.count("python train.py ") >= 3
    assert max(map(len, done.out.splitlines())) <= 130


def test_importing_the_package_does_not_import_torch() -> None:
    check = "import sys, unfreeze, unfreeze.cli; print('torch' in sys.modules, hasattr(unfreeze, 'Plan'))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
