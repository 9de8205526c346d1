"""What a person can mend is refused in one line, with exit code 2, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.launch import train

QUICK = ["data=digits", "model=tiny", "model.weights=null"]


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def nothing(folder: Path) -> None:
    """Prepare nothing."""


def unknown_class_in_val(folder: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "val/c"):
        write_images(folder / "photos" / name, 3)


def empty_folder(folder: Path) -> None:
    (folder / "photos").mkdir()


def no_class_folders(folder: Path) -> None:
    write_images(folder / "photos", 3)


def deeper_folders(folder: Path) -> None:
    for name in "ab":
        write_images(folder / "photos" / "inner" / name, 3)


def table_of_missing_files(folder: Path) -> None:
    (folder / "photos.csv").write_text("image,label\n" + "".join(f"gone/{i}.png,{'xy'[i % 2]}\n" for i in range(4)))


def one_class(folder: Path) -> None:
    write_images(folder / "photos" / "a", 3)


def one_class_in_two_splits(folder: Path) -> None:
    for name in ("train/a", "val/a"):
        write_images(folder / "photos" / name, 3)


def one_class_in_a_table(folder: Path) -> None:
    (folder / "photos.csv").write_text("image,label\na.png,x\nb.png,x\n")


def bad_files(folder: Path) -> None:
    write_images(folder / "photos" / "a", 3)
    write_images(folder / "photos" / "b", 3)
    (folder / "photos" / "a" / "broken.jpg").write_bytes(b"<html>")
    (folder / "photos" / "b" / "empty.png").write_bytes(b"")


def table(folder: Path) -> None:
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{'xy'[i // 2 % 2]},p{i % 3}\n" for i in range(12))
    (folder / "photos.csv").write_text(f"image,label,age,patient\n{rows}")


def ragged_table(folder: Path) -> None:
    (folder / "photos.csv").write_text("image,label\na.png,x\nb, 2.png,y\n")


def other_weights(folder: Path) -> None:
    torch.save({"conv1.0.weight": torch.zeros(4, 3, 3, 3)}, folder / "other.pth")


PHOTOS = ["data=imagefolder", "data.root=photos", "model=tiny", "model.weights=null"]
TABLE = ["data=manifest", "data.csv=photos.csv", "model=tiny", "model.weights=null"]
REFUSALS: list[tuple[list[str], Callable[[Path], None], str]] = [
    (["data.batch_size=many", *QUICK], nothing, "data.batch_size: got 'many', want a valid integer"),
    (["data.batch_size=0", *QUICK], nothing, "data.batch_size: got 0, want greater than or equal to 1"),
    (["data.batch_size=true", *QUICK], nothing, "data.batch_size: got True"),
    (["data.val_fraction=1.5", *QUICK], nothing, "data.val_fraction: got 1.5"),
    (["strategy.lr.head=-1", *QUICK], nothing, "strategy.lr.head: got -1, want greater than 0"),
    (["optimizer.schedule=wavy", *QUICK], nothing, "optimizer.schedule: got 'wavy', want 'constant'"),
    (["seed=-1", *QUICK], nothing, "seed: got -1"),
    (["monitor=val/auc", *QUICK], nothing, "monitor: nothing logs 'val/auc'; want one of val/loss"),
    (["mode=min", *QUICK], nothing, "mode: 'min' contradicts monitor=val/acc"),
    (["trainer.max_epochs=0", *QUICK], nothing, "trainer.max_epochs: got 0"),
    (
        ["-m", "sweep=optuna", "hydra.sweeper.n_trials=0", *QUICK],
        nothing,
        "hydra.sweeper.n_trials: got 0, want an integer of 1 or more",
    ),
    (["resume=", *QUICK], nothing, "resume: the value is empty; type one"),
    (["model.weights=", "model=tiny", "data=digits"], nothing, "model.weights: the value is empty; type one"),
    (["data.root=", "data=cifar10"], nothing, "data.root: the value is empty; type one"),
    (
        ["trainer.devices=1000", "trainer.accelerator=cpu", *QUICK],
        nothing,
        "trainer.devices: got 1000, but this process",
    ),
    (["trainer.max_time=5", *QUICK], nothing, "trainer: max_time: got 5, want days, hours, minutes and seconds"),
    (["hydra.run.dir=/proc/nothing", *QUICK], nothing, "hydra.run.dir: can't write in '/proc/nothing'"),
    (["trainer.accelerator=warp", *QUICK], nothing, "trainer: "),
    (["trainer.accelerator=tpu", *QUICK], nothing, "; type trainer.accelerator=auto to use what this machine has"),
    (["trainer.precision=64-true", *QUICK], nothing, "trainer.precision: got '64-true', want one of auto, 32"),
    (["trainer.accumulate_grad_batches=0", *QUICK], nothing, "trainer.accumulate_grad_batches: got 0"),
    (["trainer.limit_val_batches=0", *QUICK], nothing, "trainer.limit_val_batches: got 0"),
    (["trainer.check_val_every_n_epoch=5", *QUICK], nothing, "but a stage has 3 epochs"),
    (["+trainer.logger=true", *QUICK], nothing, "trainer.logger: set by the run itself"),
    (["callbacks.progress=3", *QUICK], nothing, "callbacks.progress: got 3, want null, or a mapping"),
    (["+callbacks.x={_target_: no.such}", *QUICK], nothing, "callbacks.x: can't be made"),
    (["+callbacks.x={_target_: builtins.dict}", *QUICK], nothing, "builtins.dict is no lightning.Callback"),
    (["+logger.x={_target_: no.Such}", *QUICK], nothing, "logger.x: can't be made"),
    (["strategy.lr.groups=[]", *QUICK], nothing, "strategy.lr.groups: got [], want at least 1 item"),
    (["hydra.run.dir=other.pth/run", *QUICK], other_weights, "is not a folder to write in"),
    (["strategy=scratch", "model.weights=DEFAULT", "data=digits", "model=tiny"], nothing, "model.weights: 'DEFAULT'"),
    (["strategy.stages=[]", *QUICK], nothing, "strategy.stages: got []"),
    (["strategy.stages=[{name: a, train: 9, epochs: 1}]", *QUICK], nothing, "train is 9, but tiny has 5 groups"),
    (["strategy.stages=[{name: a, train: [nose], epochs: 1}]", *QUICK], nothing, "no group matches 'nose'. Groups"),
    (["strategy.stages=[{name: a, train: [], epochs: 1}]", *QUICK], nothing, "trains nothing"),
    (["strategy.stages=[{name: a, train: [head, h.*], epochs: 1}]", *QUICK], nothing, "'head' and 'h.*' both match"),
    (["strategy.stages=[{name: a, train: 1, epochs: 1, pace: 2}]", *QUICK], nothing, "there is no such key"),
    (["model=torchvision", "model.name=resnet19", "data=digits"], nothing, "no classifier 'resnet19'"),
    (["model=torchvision", "model.name=resnet18", "data=digits", "model.weights=V9"], nothing, "has no 'V9'"),
    (["data=digits", "model=tiny", "model.weights=gone.pth"], nothing, "model.weights: no file"),
    (["data=digits", "model=tiny", "model.weights=other.pth"], other_weights, "does not fit the backbone"),
    (["data=imagefolder", "data.root=photo", "model=tiny"], nothing, "data.root: no folder"),
    (["data=imagefolder", "model=tiny"], nothing, "data.root: missing; type data.root="),
    (PHOTOS, empty_folder, "data.root: no images"),
    (PHOTOS, no_class_folders, "3 images directly in"),
    (PHOTOS, no_class_folders, "no folder per class. Put each class in a folder of its own"),
    (PHOTOS, deeper_folders, "photos/inner has a, b: type data.root="),
    (PHOTOS, one_class, "to tell apart. Want a folder per class, with its images in it"),
    (TABLE, table_of_missing_files, "none of the 4 images exists, such as 'gone/0.png' in"),
    (
        ["callbacks=ema", "callbacks.average.decay=2", *QUICK],
        nothing,
        "callbacks.average.decay: got 2, want a",
    ),
    (["+callbacks.x={_target_: lightning.pytorch.callbacks.Timer, interval: 3}", *QUICK], nothing, "can't be made (Un"),
    (PHOTOS, one_class, "has one class of 'label', 'a'; want two or more to tell apart"),
    (PHOTOS, one_class_in_two_splits, "has one class of 'label', 'a'; want two or more to tell apart"),
    (TABLE, one_class_in_a_table, "has one class of 'label', 'x'; want two"),
    (PHOTOS, unknown_class_in_val, "val/ has a class 'c' that train/ lacks"),
    (PHOTOS, bad_files, "2 of 8 images can't be read; fix or remove them, or type data.on_error=skip"),
    (PHOTOS, bad_files, "out: a/broken.jpg (a web page, not an image), b/empty.png (empty file)"),
    (["data=manifest", "model=tiny"], nothing, "data.csv: missing; type data.csv="),
    (TABLE, nothing, "photos.csv' (no such file); want a CSV or Parquet file"),
    (TABLE, ragged_table, "data.csv: line 3 has 3 cells and the header 2"),
    (["data.columns.label=race", *TABLE], table, "no column 'race'. Columns of the table: image, label, age, patient"),
    (["data.columns.label=[age,label]", *TABLE], table, "head=linear: learns one task, but the data has 2: age, label"),
    (["data.columns.group=patient", "data.folds=4", "data.fold=0", *TABLE], table, "data.folds: got 4, but there are"),
    (["data.folds=4", *QUICK], nothing, "data.fold: missing beside data.folds=4; type data.fold=0"),
    (["data.folds=4", "data.fold=4", *QUICK], nothing, "data.fold: got 4, want one of 0 to 3"),
    (["resume=gone"], nothing, "resume: no run in"),
    (
        ["data=digit"],
        nothing,
        "data: no choice 'digit'; nearest: digits; want one of cifar10, digits, imagefolder, man",
    ),
    (["-m", "data=digits,digit"], nothing, "data: no choice 'digit'"),
    (["data.image_sise=64"], nothing, "data.image_sise: there is no such key; want one of data.image_size"),
    (["strategy.stages=[{name: head"], nothing, "can't be parsed: a { is not closed"),
    (["seed=${nowhere}", *QUICK], nothing, "seed: Interpolation key 'nowhere' not found"),
    (["hydra.run.dir=${nowhere}", *QUICK], nothing, "hydra.run.dir: Interpolation key 'nowhere' not found"),
    (
        ["evaluate", "outputs/run"],
        nothing,
        "a command of unfreeze, not of train.py; type unfreeze evaluate outputs/run",
    ),
    (["--resume", "outputs/run"], nothing, "--resume: there is no such flag; type --resolve, or resume=outputs/run"),
    (["--cfg", "jobs"], nothing, "--cfg: got 'jobs', want one of job, hydra, all"),
    (["--config-dir", "gone"], nothing, "--config-dir: no folder 'gone'"),
    (["-m", "trainer=ddp", "seed=0,1", *QUICK], nothing, "a multirun runs each job on one device"),
]


@pytest.mark.parametrize(("request_", "prepare", "message"), REFUSALS, ids=[f"{r[0][0]} {r[2][:30]}" for r in REFUSALS])
def test_refused(request_: list[str], prepare: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    before = set(tmp_path.rglob("*"))
    finished = train(request_, tmp_path)
    assert finished.code == 2, finished.err
    assert message in finished.err
    assert finished.err.startswith("error: ")
    assert finished.err.count("\n") == 1
    assert finished.out == ""
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "stdout", tmp_path / "stderr"}


def test_a_directory_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")
    finished = train([*QUICK, "hydra.run.dir=run"], tmp_path)
    assert finished.code == 2
    assert "holds a run; type resume=run to go on with it" in finished.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_values_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """In a fresh interpreter, since the others have imported it."""
    import subprocess
    import sys

    script = (
        "import sys, runpy\n"
        "sys.argv = ['train.py', 'data=digits', 'monitor=val/auc']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    print('torch' in sys.modules)\n"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout.strip() == "False"
