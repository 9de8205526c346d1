"""What a run says of itself when it has ended, and what is asked of it later: report, evaluate, compare-runs."""

import json
import shutil
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.launch import launch, train, unfreeze
from tests.photos import save_photo
from unfreeze.evaluation.predictions import StoredPredictions

REQUEST = [
    "data=imagefolder",
    "data.batch_size=8",
    "data.image_size=32",
    "model=tiny",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "callbacks.progress=null",
    "strategy.stages=[{name: head, train: 1, epochs: 2}, {name: all, train: all, epochs: 3, patience: 1}]",
]
CLASSES = ("ant", '<b>bee "x" & y', "\N{DEER} שלום")


class _Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.told = ""
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.told += data


def page_of(run: Path) -> str:
    return _Text((run / "report.html").read_text(encoding="utf-8")).told


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    for name in CLASSES:
        for number in range(20):
            # Three colours, so that a head can tell them apart.
            save_photo(root / name / f"{number}.png", seed=f"{CLASSES.index(name)}", size=(12, 10))
            with (root / name / f"{number}.png").open("ab") as file:
                file.write(bytes([number]))  # no two files are equal
    return root


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    done = train([*REQUEST, f"data.root={photos}", "hydra.run.dir=run"], folder)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].strip() == "run/report.html"
    return folder / "run"


def test_a_run_leaves_a_report_and_its_pictures(finished: Path) -> None:
    test = result_of(finished)["test"]
    told = page_of(finished)
    assert f"Right on {round(test['acc'] * test['n'])} of {test['n']} images it had never seen" in told
    for name in CLASSES:
        assert name in told
    drawn = {file.stem for file in (finished / "figures").glob("*.png")}
    assert drawn >= {"learning_curves", "rates", "confusion", "per_class", "reliability", "predictions", "feature_map"}
    assert "saliency" in drawn
    assert (finished / "confusion.csv").is_file()
    augmented = "over the augmented images" in told
    assert augmented == ("light" in (finished / "plan.txt").read_text())


def test_the_answers_are_kept_and_say_what_the_result_says(finished: Path) -> None:
    kept, result = StoredPredictions.load(finished / "predictions.npz"), result_of(finished)
    for split in ("val", "test"):
        answers = kept.splits[split]
        right = (answers.logits.argmax(dim=1) == answers.labels).float().mean()
        assert float(right) == pytest.approx(result[split]["acc"])
    assert result["temperatures"] == list(kept.temperatures or ())
    assert len(kept.train_digests) == result["data"]["train"]
    assert all(name.endswith(".png") for name in kept.splits["test"].names)


def test_a_stage_that_ended_early_is_told(finished: Path) -> None:
    stages = result_of(finished)["stages"]
    early = stages[1]["epochs"] < 3
    assert ("Stage all was stopped early" in page_of(finished)) == early


def test_tensorboard_has_the_pictures_and_a_layout(finished: Path) -> None:
    events = EventAccumulator(str(finished / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert set(events.Tags()["images"]) >= {"confusion", "learning_curves", "predictions"}
    layout = events.summary_metadata["custom_scalars__config__"]
    assert layout.plugin_data.plugin_name == "custom_scalars"


def test_a_report_is_written_anew(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "one"
    shutil.copytree(finished, run)
    for name in ("report.html", "predictions.npz", "confusion.csv"):
        (run / name).unlink()
    shutil.rmtree(run / "figures")
    before = result_of(run)
    assert unfreeze(["report", str(tmp_path / "runs")], monkeypatch) == 0
    assert "report.html" in capsys.readouterr().out
    assert (run / "figures" / "confusion.png").is_file()
    assert page_of(run) == page_of(finished)
    after = result_of(run)
    assert after["test"]["acc"] == before["test"]["acc"]
    assert after["warnings"] == before["warnings"]


def test_a_report_needs_no_images(
    finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = (run / "config.yaml").read_text().replace(str(photos), str(tmp_path / "gone"))
    (run / "config.yaml").write_text(config)
    assert unfreeze(["report", str(run)], monkeypatch) == 0
    assert "without its images" in capsys.readouterr().out
    assert "could not be read for this page" in page_of(run)


@pytest.mark.parametrize("given", ["nowhere", "."])
def test_a_report_of_nothing_is_refused(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert unfreeze(["report", given], monkeypatch) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_that_was_stopped_says_so_and_one_that_was_resumed(photos: Path, tmp_path: Path) -> None:
    long = [each for each in REQUEST if not each.startswith(("strategy.", "callbacks."))]
    long += ["strategy.stages=[{name: head, train: 1, epochs: 3}, {name: all, train: all, epochs: 2000}]"]
    running = launch([*long, f"data.root={photos}", "hydra.run.dir=run"], tmp_path)
    running.wait_for("all  3/2000")
    running.kill(signal.SIGTERM)
    assert running.finish().code == 143
    told = page_of(tmp_path / "run")
    assert "Stopped before its end (SIGTERM)" in told
    assert "This run was stopped: SIGTERM." in told
    (tmp_path / "stdout").unlink()
    again = launch(["resume=run"], tmp_path)
    again.wait_for("/2000  6 batches")
    again.kill(signal.SIGTERM)
    again.finish()
    assert "It was interrupted and resumed in epoch" in page_of(tmp_path / "run")
    assert result_of(tmp_path / "run")["resumed"][0]["step"] > 0


def test_a_run_that_was_killed_says_what_it_had_come_to(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [each for each in REQUEST if not each.startswith(("strategy.", "callbacks."))]
    long += ["strategy.stages=[{name: all, train: all, epochs: 2000}]"]
    running = launch([*long, f"data.root={photos}", "hydra.run.dir=run"], tmp_path)
    running.wait_for("4/2000")
    running.kill(signal.SIGKILL)
    running.finish()
    assert unfreeze(["report", str(tmp_path / "run")], monkeypatch) == 0
    told, result = page_of(tmp_path / "run"), result_of(tmp_path / "run")
    assert result["status"] == "stopped"
    assert result["best"]["epoch"] >= 1
    assert f"best so far in epoch {result['best']['epoch']}" in told
    assert "killed, or running still" in told
    assert "resume=" in told
    assert "No stage had begun" not in told


def test_a_run_that_failed_says_so(photos: Path, tmp_path: Path) -> None:
    short = [each for each in REQUEST if not each.startswith("strategy.")]
    stages = "[{name: head, train: 1, epochs: 1}, {name: all, train: all, epochs: 3, lr: 100, optimizer: sgd}]"
    short += [f"strategy.stages={stages}"]
    short += ["strategy.lr={decay: 1.0, floor: 1.0}", "optimizer.schedule=constant", "optimizer.weight_decay=10"]
    done = train([*short, "augment=none", f"data.root={photos}", "hydra.run.dir=run"], tmp_path)
    assert done.code == 1
    told = page_of(tmp_path / "run")
    assert "Failed" in told
    assert "the training loss is not finite" in told
    assert "best so far in epoch 1" in told


def test_without_a_report_there_is_none(photos: Path, tmp_path: Path) -> None:
    short = [each for each in REQUEST if not each.startswith("strategy.")]
    short += ["strategy.stages=[{name: head, train: 1, epochs: 1}]", "report=false"]
    done = train([*short, f"data.root={photos}", "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].strip() == "run"
    assert not (tmp_path / "run" / "report.html").exists()
    assert not (tmp_path / "run" / "figures").exists()


def test_of_a_multirun_the_best_job_alone_has_a_report(photos: Path, tmp_path: Path) -> None:
    short = [each for each in REQUEST if not each.startswith("strategy.")]
    short += ["strategy.stages=[{name: head, train: 1, epochs: 2}]"]
    done = train(["-m", *short, f"data.root={photos}", "hydra.sweep.dir=sweep", "strategy.lr.head=1e-6,1e-2"], tmp_path)
    assert done.code == 0, done.err
    reported = [file.parent.name for file in (tmp_path / "sweep").glob("*/report.html")]
    assert reported == ["1"]
    winner = tmp_path / "sweep" / "1"
    assert "the best of 2 runs" in page_of(winner)
    assert set(StoredPredictions.load(winner / "predictions.npz").splits) == {"val", "test"}


@pytest.mark.parametrize(("split", "images"), [("val", 6), ("test", 6)])
def test_a_run_is_evaluated_again_beside_itself(
    finished: Path,
    tmp_path: Path,
    split: str,
    images: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*") if "evaluations" not in file.parts}
    assert unfreeze(["evaluate", str(finished), "--split", split, "--out", str(tmp_path / "again")], monkeypatch) == 0
    told = capsys.readouterr().out
    result = result_of(tmp_path / "again")
    assert result["test"]["n"] == images
    assert result["test"]["acc"] == pytest.approx(result_of(finished)[split]["acc"])
    assert f"photos, {split}, {images} images" in told
    assert "An evaluation on photos" in page_of(tmp_path / "again")
    assert {file: file.stat().st_mtime_ns for file in before if file.is_file()} == {
        file: time for file, time in before.items() if file.is_file()
    }


def test_other_images_with_some_of_the_classes_are_judged_by_the_run_s_classes(
    finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "others"
    for name in (CLASSES[2], CLASSES[0]):
        shutil.copytree(photos / name, others / name)
    arguments = ["evaluate", str(finished), "data=imagefolder", f"data.root={others}"]
    assert unfreeze(arguments, monkeypatch) == 0
    assert "others, all, 40 images" in capsys.readouterr().out
    (place,) = (finished / "evaluations").glob("*others-all*")
    result = result_of(place)
    assert set(result["test"]["per_class"]) == set(CLASSES)
    assert result["test"]["per_class"][CLASSES[1]]["support"] == 0
    assert {each["code"] for each in result["warnings"]} >= {"untested-class", "test-in-train"}
    own, again = (StoredPredictions.load(folder / "predictions.npz").splits["test"] for folder in (finished, place))
    said = {digest.tobytes(): int(logits.argmax()) for digest, logits in zip(own.digests, own.logits, strict=True)}
    shared = [
        (said[digest.tobytes()], int(logits.argmax()))
        for digest, logits in zip(again.digests, again.logits, strict=True)
        if digest.tobytes() in said
    ]
    assert shared
    assert all(first == second for first, second in shared)


def test_images_of_one_class_are_judged(
    finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos / CLASSES[1], tmp_path / "more" / CLASSES[1])
    arguments = ["evaluate", str(finished), "data=imagefolder", f"data.root={tmp_path / 'more'}"]
    assert unfreeze([*arguments, "--out", str(tmp_path / "judged")], monkeypatch) == 0
    assert "more, all, 20 images" in capsys.readouterr().out
    test = result_of(tmp_path / "judged")["test"]
    assert test["per_class"][CLASSES[1]]["support"] == test["n"] == 20
    assert test["acc"] == pytest.approx(test["per_class"][CLASSES[1]]["recall"])
    assert unfreeze([*arguments, "--out", str(tmp_path / "judged")], monkeypatch) == 2
    assert "judged is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["model=resnet18"], "stays"),
        (["data.image_size=64"], "stays"),
        (["--split", "train"], "want val or test"),
        (["data=imagefolder", "data.root={tmp}/zoo"], "knows no class 'zebra'"),
        (["data=imagefolder", "data.root={tmp}/ants", "--split", "val"], "no val split of its own"),
    ],
)
def test_evaluations_that_can_not_be_are_refused_in_a_line(
    finished: Path,
    tmp_path: Path,
    more: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_photo(tmp_path / "zoo" / "zebra" / "1.png")
    save_photo(tmp_path / "zoo" / "ant" / "1.png")
    for name in (CLASSES[0], CLASSES[2]):
        save_photo(tmp_path / "ants" / name / "1.png")
    arguments = [each.replace("{tmp}", str(tmp_path)) for each in more]
    count = len(list(finished.glob("evaluations/*")))
    assert unfreeze(["evaluate", str(finished), *arguments], monkeypatch) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert told in said
    assert len(list(finished.glob("evaluations/*"))) == count


def test_runs_are_compared_on_the_images_both_were_judged_on(
    finished: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [each for each in REQUEST if not each.startswith("strategy.")]
    short += ["strategy.stages=[{name: head, train: 1, epochs: 1}]", "report=false", "strategy.lr.head=1e-7"]
    done = train([*short, f"data.root={photos}", "hydra.run.dir=poor"], tmp_path)
    assert done.code == 0, done.err
    table = tmp_path / "differences.csv"
    assert unfreeze(["compare-runs", str(tmp_path / "poor"), str(finished), "--json"], monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 6
    assert told["accuracies"] == [pytest.approx(result_of(run)["test"]["acc"]) for run in (tmp_path / "poor", finished)]
    assert unfreeze(["compare-runs", str(tmp_path / "poor"), str(finished), "--out", str(table)], monkeypatch) == 0
    said = capsys.readouterr().out
    assert told["sentence"].split(":")[0] in said
    assert len(table.read_text(encoding="utf-8").splitlines()) >= 1
