"""Runs that an earlier version wrote are resumed, evaluated, reported, used for prediction, exported and averaged."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torchvision.transforms.v2.functional import normalize, resize

from tests.launch import train, unfreeze

OLD_RUNS = Path(__file__).parent / "assets" / "old_runs"
WRITTEN = {"rel": 2e-3, "abs": 2e-3}
"""How near figures must come on another CPU, whose sums have another order."""

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with copies of both runs."""
    for name in ("completed", "stopped"):
        shutil.copytree(OLD_RUNS / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tested() -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Return the test images of the completed run, shape (180, 8, 8), and the probabilities that it kept of them."""
    kept = np.load(OLD_RUNS / "completed" / "predictions.npz")
    grey = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    return grey[kept["test_indices"]], torch.from_numpy(kept["test_logits"]).softmax(dim=1)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("network.")}


def scalars(figures: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in figures.items() if isinstance(value, int | float)}


def test_a_stopped_run_ends_where_the_uninterrupted_one_ended(place: Path) -> None:
    written = (place / "stopped" / "metrics.csv").read_text()
    done = train(["resume=stopped"], place)
    assert done.code == 0, done.err
    got, want = result(place / "stopped"), result(OLD_RUNS / "completed")
    assert (got["status"], got["reason"], got["best"]) == ("completed", None, {"epoch": 4, "stage": "block"})
    assert [(stage["name"], stage["epochs"]) for stage in got["stages"]] == [("head", 2), ("block", 3), ("all", 1)]
    assert [stage["trainable"] for stage in got["stages"]] == [10_250, 14_986, 18_202]
    assert [stage["best_epoch"] for stage in got["stages"]] == [2, 4, 6]
    assert got["resumed"][0]["step"] == 66
    assert got["val"] == pytest.approx(want["val"], rel=0.03, abs=0.03)
    assert scalars(got["test"]) == pytest.approx(scalars(want["test"]), rel=0.05, abs=0.03)
    assert (place / "stopped" / "metrics.csv").read_text().startswith(written)
    for row, expected in zip(rows(place / "stopped"), rows(OLD_RUNS / "completed"), strict=True):
        assert [row[key] for key in ("epoch", "step", "stage")] == [expected[key] for key in ("epoch", "step", "stage")]
        for key in ("train/loss", "val/loss", "lr/head", "lr/stage4"):
            assert float(row[key]) == pytest.approx(float(expected[key]), rel=0.02), key
    for name in ("best.ckpt", "last.ckpt"):
        resumed, whole = weights(place / "stopped", name), weights(OLD_RUNS / "completed", name)
        assert resumed.keys() == whole.keys()
        got_all, want_all = (torch.cat([state[key].double().ravel() for key in whole]) for state in (resumed, whole))
        assert (got_all - want_all).norm() < 0.02 * want_all.norm(), name


def test_a_stopped_run_refuses_other_settings_than_those_it_was_written_with(place: Path) -> None:
    refused = train(["resume=stopped", "optimizer.weight_decay=0.5", "data.batch_size=16"], place)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "data.batch_size was 32, is 16" in refused.err
    plan = train(["resume=stopped", "strategy.lr.head=0.1"], place)
    assert plan.code == 2
    assert "the plan has changed" in plan.err
    assert result(place / "stopped") == result(OLD_RUNS / "stopped")


def test_a_completed_run_has_nothing_left_to_do(place: Path) -> None:
    again = train(["resume=completed", "trainer.max_time=00:01:00:00"], place)
    assert again.code == 0, again.err
    assert "completed has completed; nothing is left to do" in again.out
    refused = train(["resume=completed", "strategy.lr.head=0.1"], place)
    assert refused.code == 2
    assert "strategy.lr.head was 0.02, is 0.1" in refused.err
    assert result(place / "completed") == result(OLD_RUNS / "completed")


@pytest.mark.parametrize("split", ["test", pytest.param("val", marks=pytest.mark.slow)])
def test_an_evaluation_repeats_the_figures(split: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unfreeze(["evaluate", "completed", "--split", split, "--out", "again"], monkeypatch) == 0
    got, want = result(place / "again"), result(OLD_RUNS / "completed")
    assert got["best"] == want["best"]
    if split == "val":
        assert got["test"]["acc"] == pytest.approx(want["val"]["acc"], **WRITTEN)
        assert got["test"]["loss"] == pytest.approx(want["val"]["loss"], **WRITTEN)
        return
    assert scalars(got["test"]) == pytest.approx(scalars(want["test"]), **WRITTEN)
    assert got["test"]["confusion"] == want["test"]["confusion"]
    assert got["test"]["per_class"].keys() == want["test"]["per_class"].keys()
    assert got["test"]["intervals"]["acc"] == pytest.approx(want["test"]["intervals"]["acc"], **WRITTEN)
    assert got["temperatures"] == want["temperatures"]


def test_two_copies_are_compared_by_the_predictions_that_were_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "completed", place / "copy")
    assert unfreeze(["compare-runs", "completed", "copy", "--json"], monkeypatch) == 0
    compared = json.loads(capsys.readouterr().out)
    assert (compared["images"], compared["accuracies"]) == (180, [118 / 180, 118 / 180])


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("completed", ["65.6", "overconfident", "Divided by the temperature that validation finds"]),
        ("stopped", ["was stopped: SIGTERM", "There was no test"]),
    ],
)
def test_a_report_shows_the_figures(run: str, told: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unfreeze(["report", run], monkeypatch) == 0
    page = (place / run / "report.html").read_text()
    assert all(phrase in page for phrase in told)
    assert (place / run / "figures" / "learning_curves.png").is_file()
    assert result(place / run) == result(OLD_RUNS / run)


def test_predictions_are_those_that_were_kept(
    place: Path,
    tested: tuple[NDArray[np.uint8], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, probabilities = tested
    for number in range(12):
        Image.fromarray(images[number]).save(place / f"{number:02d}.png")
    files = [f"{number:02d}.png" for number in range(12)]
    assert unfreeze(["predict", "completed", *files, "--format", "csv"], monkeypatch) == 0
    told = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    best = probabilities[:12].max(dim=1)
    assert [row["path"] for row in told] == files
    assert [int(row["class"]) for row in told] == best.indices.tolist()
    assert [float(row["probability"]) for row in told] == pytest.approx(best.values.tolist(), abs=1e-3)


def test_exported_weights_give_the_probabilities_that_were_kept(
    place: Path, tested: tuple[NDArray[np.uint8], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unfreeze(["export", "completed", "--to", "safetensors"], monkeypatch) == 0
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=10)
    network.load_state_dict(load_file(place / "completed" / "exports" / "tiny.safetensors"), strict=True)
    images, probabilities = tested
    seen = resize(torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1), [32, 32], antialias=True) / 255
    mean, std = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)
    with torch.no_grad():
        got = network.eval()(normalize(seen, mean, std)).softmax(dim=1)
    torch.testing.assert_close(got, probabilities, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_an_exported_graph_gives_the_probabilities_that_were_kept(
    place: Path, tested: tuple[NDArray[np.uint8], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unfreeze(["export", "completed", "--to", "torch", "--preprocessing", "inside"], monkeypatch) == 0
    images, probabilities = tested
    graph = torch.export.load(place / "completed" / "exports" / "tiny-uint8.pt2").module()
    with torch.no_grad():
        got = graph(torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1))
    torch.testing.assert_close(got, probabilities, rtol=1e-3, atol=1e-4)


def test_a_soup_of_two_copies_is_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in "01":
        shutil.copytree(place / "completed", place / "sweep" / number)
    assert unfreeze(["soup", "sweep"], monkeypatch) == 0
    got, want = result(place / "sweep" / "soup"), result(OLD_RUNS / "completed")
    assert len(got["ingredients"]) == 2
    assert scalars(got["test"]) == pytest.approx(scalars(want["test"]), **WRITTEN)
    mixed, own = weights(place / "sweep" / "soup", "best.ckpt"), weights(OLD_RUNS / "completed", "best.ckpt")
    assert mixed.keys() == own.keys()
    assert all(torch.equal(mixed[key], own[key]) for key in own)
