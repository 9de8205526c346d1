"""Whole runs on awkward data: the same whatever holds the pixels, tables, bad files, rare classes, folds."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.launch import launch, train
from tests.test_cli import unfreeze
from tests.test_refusals import write_images

TINY = ["model=tiny", "model.weights=null", "data.image_size=32", "trainer.accelerator=cpu", "logger=none"]
STAGES = ["strategy.stages=[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 1}]"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    for seed, (name, count) in enumerate({"ant": 30, "bee": 16, "cat": 8}.items()):
        write_images(folder / name, count, seed)
    return folder


def run(folder: Path, name: str, *overrides: str) -> dict[str, Any]:
    """Return result.json of a run that must have completed."""
    done = train([*TINY, *STAGES, "data.batch_size=8", f"hydra.run.dir={name}", *overrides], folder)
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return result | {"out": done.out}


def metrics(folder: Path) -> str:
    """Return metrics.csv without the columns that tell times."""
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    timed = {index for index, name in enumerate(rows[0]) if "second" in name or "memory" in name}
    return "\n".join(",".join(cell for index, cell in enumerate(row) if index not in timed) for row in rows)


@pytest.mark.slow
def test_a_run_is_the_same_wherever_the_pixels_are(photos: Path, tmp_path: Path) -> None:
    data = ["data=imagefolder", f"data.root={photos}", "augment=strong", f"cache.dir={tmp_path / 'kept = here'}"]
    results = {place: run(tmp_path, place, *data, f"data.store={place}") for place in ("ram", "disk", "off")}
    assert metrics(tmp_path / "ram") == metrics(tmp_path / "disk") == metrics(tmp_path / "off")
    assert results["ram"]["test"] == results["disk"]["test"] == results["off"]["test"]
    splits = {(tmp_path / place / "splits.json").read_text() for place in results}
    assert len(splits) == 1
    assert "streamed from the files" in results["off"]["out"]
    assert len(list((tmp_path / "kept = here" / "decoded").rglob("*.npy"))) == 1


@pytest.mark.slow
def test_a_streamed_run_that_was_ended_in_mid_epoch_goes_on_exactly(photos: Path, tmp_path: Path) -> None:
    data = ["data=imagefolder", f"data.root={photos}", "data.store=off", "data.num_workers=2", "augment=strong"]
    whole = run(tmp_path, "whole", *data)
    cut = [*TINY, *STAGES, "data.batch_size=8", "hydra.run.dir=cut", *data]
    end = [f"+callbacks.end.{key}" for key in ("_target_=tests.killing.KillAt", "step=3", "name=SIGTERM")]
    ended = launch([*cut, *end], tmp_path).finish()
    assert ended.code == 128 + signal.SIGTERM
    assert train(["resume=cut", "callbacks.end=null"], tmp_path).code == 0
    resumed = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert resumed["test"] == whole["test"]
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_a_table_with_groups_trains_and_keeps_them_whole(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    rows = [f"{path};{path.parent.name};animal {int(path.stem) // 4}" for path in files]
    (tmp_path / "table.csv").write_text("file;class;animal\n" + "\n".join(rows) + "\n")
    table = ["data=manifest", "data.csv=table.csv", "data.columns.group=animal"]
    got = run(tmp_path, "run", *table)
    assert got["data"]["train"] + got["data"]["val"] + got["data"]["test"] == len(files)
    assert set(got["test"]["per_class"]) == {"ant", "bee", "cat"}
    described = json.loads((tmp_path / "run" / "splits.json").read_text())["splits"]
    assert all(split["count"] % 2 == 0 for split in described.values())


def test_bad_files_are_left_out_counted_and_listed(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(photos, root)
    (root / "ant" / "page.jpg").write_text("<html>")
    (root / "bee" / "empty.png").touch()
    (root / "bee" / "notes.txt").touch()
    request = ["data=imagefolder", f"data.root={root}", "data.on_error=skip"]
    got = run(tmp_path, "run", *request)
    assert got["data"]["unreadable"] == 2
    assert got["data"]["train"] + got["data"]["val"] + got["data"]["test"] == 54
    assert json.loads((tmp_path / "run" / "splits.json").read_text())["unreadable"] == {
        "ant/page.jpg": "a web page, not an image",
        "bee/empty.png": "empty file",
    }
    assert "! 2 images can't be read and are left out" in got["out"]
    assert "left out by name: 1, bee/notes.txt" in got["out"]


def test_equal_images_in_two_splits_are_told(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(photos, root / "train")
    (root / "test" / "ant").mkdir(parents=True)
    shutil.copy(root / "train" / "ant" / "0.png", root / "test" / "ant" / "again.png")
    shutil.copy(root / "train" / "ant" / "1.png", root / "test" / "ant" / "too.png")
    shutil.copy(root / "train" / "ant" / "2.png", root / "train" / "bee" / "ant.png")
    shutil.copytree(root / "train" / "cat", root / "train" / "Cat")
    for image in (root / "train" / "Cat").iterdir():
        image.write_bytes(image.read_bytes() + b"another")
    (root / "train" / "bee" / "up").symlink_to("../..", target_is_directory=True)
    got = run(tmp_path, "run", "data=imagefolder", f"data.root={root}")
    assert got["data"]["also_in_train"]["test"] == 2
    assert "! 2 test images are also in train, byte for byte" in got["out"]
    assert "! no test images of Cat, bee, cat" in got["out"]
    assert "! 2 images have an equal one, byte for byte, with another label; unfreeze audit names them" in got["out"]
    assert "! classes 'Cat' and 'cat' differ only in case or Unicode form" in got["out"]
    assert "or to images of other classes or splits: train/bee/up/" in got["out"]


def test_rare_classes_weigh_more_or_are_seen_more(photos: Path, tmp_path: Path) -> None:
    data = ["data=imagefolder", f"data.root={photos}"]
    runs = {how: run(tmp_path, how, *data, f"data.balance={how}") for how in ("none", "weights", "sampler")}
    assert len({metrics(tmp_path / how) for how in runs}) == 3


def test_folds_validate_on_every_image_once(photos: Path, tmp_path: Path) -> None:
    request = [*TINY, *STAGES, "data=imagefolder", f"data.root={photos}", "data.test_fraction=0", "data.folds=3"]
    done = train(["-m", *request, "data.fold=0,1,2", "hydra.sweep.dir=sweep"], tmp_path)
    assert done.code == 0, done.err
    jobs = [json.loads(path.read_text()) for path in sorted((tmp_path / "sweep").glob("*/splits.json"))]
    assert len(jobs) == 3
    assert sum(job["splits"]["val"]["count"] for job in jobs) == 54
    assert len({job["splits"]["val"]["hash"] for job in jobs}) == 3


def test_audit_exits_with_1_where_something_would_mislead(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "photos"
    shutil.copytree(photos, root / "train")
    shutil.copytree(photos / "cat", root / "test" / "cat")
    request = ["audit", "data=imagefolder", f"data.root={root}", "model=tiny"]
    assert unfreeze(request, monkeypatch) == 1
    out = capsys.readouterr().out
    assert "87.50% of the test images are also in train" in out
    assert "! 1 pair of equal images, one in val and one in test" in out
    assert unfreeze([*request, "--json"], monkeypatch) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["exact"]["across"] == {"train test": 7, "val test": 1}
    assert report["missing"] == {"test": ["ant", "bee"]}
    assert unfreeze(["audit", "data=imagefolder", "data.root=gone"], monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: data.root: no folder ")
