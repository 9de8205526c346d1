"""`unfreeze features`: a file of what a network sees, with what it saw."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.digits_run import save_digits
from tests.launch import unfreeze
from unfreeze import load_run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(digits_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the run was started in."""
    monkeypatch.chdir(digits_place)
    return digits_place


def test_a_runs_own_images_in_its_own_splits(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    out = tmp_path / "features.npz"
    assert unfreeze(["features", "outputs/digits", "--out", str(out)], monkeypatch) == 0
    assert capsys.readouterr() == (f"  720 x 1024 float32 · {out}\n", "")
    content = np.load(out)
    splits = json.loads(Path("outputs/digits/splits.json").read_text())["splits"]
    counts = {name: int((content["splits"] == name).sum()) for name in ("train", "val", "test")}
    assert counts == {"train": 540, "val": 60, "test": 120}
    assert set(splits) == set(counts)
    assert content["classes"].tolist() == list("0123456789")
    assert [path.split("/")[1] for path in content["paths"]] == [str(label) for label in content["labels"]]
    assert content["features"].dtype == np.float32
    asked = [0, 333, 719]
    direct = load_run("outputs/digits").features([here / "digits" / content["paths"][row] for row in asked])
    np.testing.assert_allclose(content["features"][asked], direct, rtol=1e-4, atol=1e-5)


def test_both_kinds_of_file_say_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = [
        "features",
        "outputs/digits/checkpoints/best.ckpt",
        "--split",
        "test",
        "--layer",
        "stage3",
        "--pool",
        "none",
    ]
    for name in ("f.npz", "f.safetensors"):
        assert unfreeze([*words, "--out", str(tmp_path / name)], monkeypatch) == 0
    content = np.load(tmp_path / "f.npz")
    assert content["features"].shape == (120, 96, 2, 2)
    with safe_open(tmp_path / "f.safetensors", "np") as file:
        assert sorted(file.keys()) == ["features", "labels"]
        assert np.array_equal(file.get_tensor("features"), content["features"])
        assert np.array_equal(file.get_tensor("labels"), content["labels"])
        told = {name: json.loads(value) for name, value in file.metadata().items()}
    assert told == {name: content[name].tolist() for name in ("paths", "splits", "classes")}


def test_other_images_and_networks_without_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_digits(tmp_path / "other", train=3, test=2)
    data = ["data=imagefolder", f"data.root={tmp_path / 'other'}", "data.val_fraction=0.1"]
    for model, more in (("outputs/digits", []), ("tiny", ["data.image_size=64"])):
        words = ["features", model, *data, *more, "--split", "test", "--out", str(tmp_path / f"{model[:4]}.npz")]
        assert unfreeze(words, monkeypatch) == 0
    run, tiny = (np.load(tmp_path / f"{name}.npz")["features"] for name in ("outp", "tiny"))
    assert run.shape == tiny.shape == (20, 1024)
    assert not np.allclose(run, tiny), "at another size they are others"
    assert torch.allclose(
        torch.from_numpy(run), load_run("outputs/digits").features(tmp_path / "other/test"), atol=1e-4
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["outputs/digits", "--layer", "stage9"],
            "layer: tiny has no 'stage9'; layer groups: head stage4 stage3 stage2",
        ),
        (["outputs/digits", "--split", "dev"], "--split: got 'dev', want one of train, val, test, all"),
        (["outputs/digits", "--pool", "max"], "pool: got 'max', want one of avg, none"),
        (["outputs/digits", "--out", "f.csv"], "--out: got 'f.csv', want a name that ends in .npz or .safetensors"),
        (["outputs/digits", "--out", "no/f.npz"], "--out: there is no folder 'no'; make it, or type another file"),
        (["outputs/digits", "data.root=x"], "features: got data.root=x without data=...; type data=imagefolder"),
        (
            ["outputs/digits", "data=digits", "data.image_size=64"],
            "data.image_size: a run sees its images at its own size",
        ),
        (["tiny"], "features: 'tiny' has no images of its own; type data=imagefolder data.root=..."),
        (["no/run"], "no checkpoint 'no/run'; want a .ckpt file or the directory of a run that has one"),
        (
            ["outputs/digits", "data=digits", "data.test_fraction=0", "--split", "test"],
            "--split: got 'test', and the data",
        ),
    ],
)
def test_what_can_not_be_done_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path, words: list[str], told: str
) -> None:
    out = [] if "--out" in words else ["--out", str(tmp_path / "f.npz")]
    assert unfreeze(["features", *words, *out], monkeypatch) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {told}")
    assert len(shown.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
