"""The report page: self-contained, with escaped names and the metrics of the result."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unfreeze.evaluation.class_metrics import class_metrics
from unfreeze.evaluation.confusions import count_confusions, write_confusion
from unfreeze.evaluation.predictions import Predictions, StoredPredictions, predictions_by_task
from unfreeze.evaluation.record import RunRecord, read_record
from unfreeze.evaluation.report.explain import explain
from unfreeze.evaluation.report.sections import stage_advice
from unfreeze.models.outputs import Outputs
from unfreeze.results.run_directory import RunDirectory

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "<b>bold</b>",
    "\N{DEER}\N{ZERO WIDTH JOINER}\N{FIRE}",
    "שלום עולם",
    "n" * 200,
    "=1+1",
    "a,b;c\td",
    "\u202eevil",
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """A parser that counts the elements of a page, and collects its text and references."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: dict[str, int] = {}
        self.text: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self._inside = tag
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
                self.references.append(str(value))
            if name == "id":
                self.ids.append(str(value))
            assert not name.startswith("on"), f"a handler in <{tag}>"

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text.append(data)


class Photos:
    """Random images, read by their indices as from a store."""

    def read(self, indices: np.ndarray) -> torch.Tensor:
        draw = torch.Generator().manual_seed(int(indices.sum()))
        return torch.randint(256, (len(indices), 3, 32, 32), generator=draw, dtype=torch.uint8)


class RandomExplainer:
    """An explainer with random features and saliency, without a network."""

    images = Photos()

    def pixels(self, indices: np.ndarray) -> list[np.ndarray]:
        return [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in self.images.read(indices)]

    def features(self, indices: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(indices), 16)).astype(np.float32)

    def heat(self, indices: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).random((len(indices), 4, 4)).astype(np.float32)


def make_run(
    folder: Path, classes: tuple[str, ...], *, images: int, status: str = "completed", **more: Any
) -> RunRecord:
    """Write the directory of a run with random predictions."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % len(classes)
    logits = torch.randn(images, len(classes), generator=draw) + 4 * torch.nn.functional.one_hot(labels, len(classes))
    digests = np.array([number.to_bytes(16, "big") for number in range(images)], dtype="V16")
    names = tuple(f"{classes[int(label)]}/{number}.jpg" for number, label in enumerate(labels))
    predictions = Predictions(logits, labels, np.arange(images), names, digests)
    stored = StoredPredictions(
        {"val": predictions, "test": predictions}, Outputs.of(classes), None, (1.2,), digests[:0]
    )
    stored.save(folder / "predictions.npz")
    result = {
        "schema": 1,
        "status": status,
        "reason": None,
        "monitor": "val/acc",
        "best": {"epoch": 2, "stage": "head"},
        "val": {"acc": 0.8, "loss": 0.5},
        "test": class_metrics(logits, labels, classes, temperature=1.2),
        "temperatures": [1.2],
        "warnings": [{"level": "bad", "code": "poor-recall", "text": f"Class '{classes[0]}' has low recall."}],
        "resumed": [],
        "stages": [
            {
                "name": "head",
                "groups": ["head"],
                "epochs": 2,
                "seconds": 61.0,
                "trainable": 5,
                "total": 9,
                "val/acc": 0.8,
            }
        ],
        "seconds": 61.0,
        "seed": 0,
        "overrides": ["data=imagefolder", "data.root=my photos/<i>"],
        "versions": {"torch": "2"},
        "data": {"fingerprint": "abc", "train": 5, "val": 5, "test": images, "unreadable": 0},
        **more,
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.csv").write_text(
        "epoch,stage,train/acc,train/loss,val/acc,val/loss\n1,head,0.5,1.0,0.7,0.9\n2,head,0.6,0.8,0.8,0.5\n"
    )
    return read_record(RunDirectory(folder))


def page_of(record: RunRecord) -> str:
    explain(record, RandomExplainer())  # type: ignore[arg-type]
    return record.directory.report_file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    record = make_run(tmp_path_factory.mktemp("hostile"), HOSTILE, images=160)
    page_of(record)
    write_confusion(record)
    return record


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    classes = tuple(f"a class of some length, number {number}" for number in range(1000))
    record = make_run(tmp_path_factory.mktemp("thousand"), classes, images=3000)
    page_of(record)
    return record


def test_names_are_escaped(hostile: RunRecord) -> None:
    page = (hostile.directory.path / "report.html").read_text(encoding="utf-8")
    plain = make_run_page(hostile)
    found, expected = Elements(page), Elements(plain)
    for tags in (found.tags, expected.tags):
        del tags["use"]  # ticks of charts: as many as long names leave room for
    assert found.tags == expected.tags, "names were parsed as elements"
    text = "".join(found.text)
    for name in HOSTILE:
        assert name.replace("\u202e", "\\u202e") in text, name
    assert "\u202e" not in page
    assert found.tags["script"] == 1
    assert "my photos/<i>" in text


def make_run_page(hostile: RunRecord) -> str:
    folder = hostile.directory.path / "plain"
    folder.mkdir(exist_ok=True)
    names = tuple(chr(97 + number) for number in range(len(HOSTILE)))
    return page_of(make_run(folder, names, images=160))


def test_page_requests_nothing_from_the_network(hostile: RunRecord) -> None:
    page = (hostile.directory.path / "report.html").read_text(encoding="utf-8")
    references = Elements(page).references
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    assert re.findall(r"url\((?!#)", page) == []
    assert "default-src 'none'" in page
    places = [each for each in Elements(page).ids if each.startswith(("picture-", "mistakes", "wrong-"))]
    assert len(places) == len(set(places)) > 3


def test_headline_and_warnings_come_first(hostile: RunRecord) -> None:
    text = " ".join(Elements((hostile.directory.path / "report.html").read_text(encoding="utf-8")).text)
    right = round(hostile.result["test"]["acc"] * 160)
    order = [
        f"Right on {right} of 160 images it had never seen",
        f"{hostile.result['test']['acc']:.3f}",
        "Warnings",
        "has low recall",
        "Pictures",
        "Mistakes",
        "Most frequent confusions",
        "gain is over the stage before",
        "Data and splits",
        "Reproduction",
        "python train.py",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    low, high = hostile.result["test"]["intervals"]["acc"]
    assert f"{low:.3f} to {high:.3f}" in text


def test_every_wrong_prediction_can_be_filtered(hostile: RunRecord) -> None:
    page = (hostile.directory.path / "report.html").read_text(encoding="utf-8")
    assert hostile.predictions is not None
    task = predictions_by_task(hostile.predictions.splits["test"], hostile.predictions.outputs)[0]
    wrong = int((~task.correct).sum())
    assert wrong >= 3
    cards = re.findall(r'data-true="(\d+)" data-predicted="(\d+)" data-confidence="([\d.]+)"', page)
    assert len(cards) == wrong
    pairs = sorted((int(true), int(predicted)) for true, predicted, _ in cards)
    assert pairs == sorted(zip(task.truth[~task.correct].tolist(), task.predicted[~task.correct].tolist(), strict=True))


def test_the_confusion_is_a_table_whose_names_are_text(hostile: RunRecord) -> None:
    import csv

    rows = list(csv.reader((hostile.directory.path / "confusion.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0][1:] == list(HOSTILE)
    assert [row[0] for row in rows[1:]] == list(HOSTILE)
    assert hostile.predictions is not None
    task = predictions_by_task(hostile.predictions.splits["test"], hostile.predictions.outputs)[0]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == count_confusions(task).tolist()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"status": "stopped", "reason": "SIGTERM", "test": None}, "was stopped: SIGTERM"),
        ({"status": "failed", "reason": "the loss is not finite", "test": None}, "failed: the loss is not finite"),
        ({"resumed": [{"epoch": 3, "step": 1234}]}, "resumed in epoch 3, after step 1,234"),
        ({"evaluated": "others, all", "run": "runs/x"}, "An evaluation on others, all"),
    ],
)
def test_status_of_the_run_is_shown(tmp_path: Path, more: dict[str, Any], expected: str) -> None:
    assert expected in " ".join(Elements(page_of(make_run(tmp_path, ("a", "b"), images=20, **more))).text)


def test_page_of_a_run_that_failed_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": "failed", "reason": "no room", "test": null, "val": null}')
    explain(read_record(RunDirectory(tmp_path)), None)
    text = " ".join(Elements((tmp_path / "report.html").read_text(encoding="utf-8")).text)
    assert "Failed (no room), before anything was validated." in text
    assert "No stage had begun." in text


def test_earlier_pictures_are_reused_without_images(tmp_path: Path) -> None:
    record = make_run(tmp_path, ("a", "b", "c"), images=30)
    page_of(record)
    explain(record, None)
    found = Elements((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "its images could not be read for this page" in " ".join(found.text)
    assert sum(reference.startswith("data:image/png") for reference in found.references) >= 3


def test_ten_classes_take_less_than_5_mb_and_a_thousand_less_than_15(hostile: RunRecord, thousand: RunRecord) -> None:
    assert (hostile.directory.path / "report.html").stat().st_size < 5e6
    assert (thousand.directory.path / "report.html").stat().st_size < 15e6
    rows = re.findall(r"<tr><td><bdi>a class of some length", (thousand.directory.path / "report.html").read_text())
    assert len(rows) == 1000


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH")
@pytest.mark.parametrize("which", ["hostile", "thousand"])
def test_chromium_reports_no_error(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    file = request.getfixturevalue(which).directory.path / "report.html"
    for width in (390, 1280):
        log = tmp_path / f"net-{width}.json"
        done = subprocess.run(
            [
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--window-size={width},3000",
                f"--log-net-log={log}",
                "--run-all-compositor-stages-before-draw",
                "--virtual-time-budget=5000",
                f"--screenshot={tmp_path / f'{width}.png'}",
                "--dump-dom",
                file.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert "CONSOLE" not in done.stderr, re.findall(r".*CONSOLE.*", done.stderr)
        dom = Elements(done.stdout)
        assert re.search(r"\d+ of \d+ shown", "".join(dom.text)), "the filter has not run"
        requested = set(re.findall(r'"url":"https?://([^/"]+)', log.read_text(encoding="utf-8", errors="replace")))
        own = {host for host in requested if host.endswith((".google.com", ".googleapis.com", ".gvt1.com"))}
        assert requested == own, "the page made requests"  # the browser asks for its own updates
        assert (tmp_path / f"{width}.png").stat().st_size > 20_000


def test_stage_advice_if_no_later_stage_is_better() -> None:
    assert stage_advice(of_stages([0.941, 0.922, 0.928])) == (
        "No later stage improves on head (val/acc 0.941): block 0.922, deeper 0.928. With 180 validation images such "
        "differences may be chance. Try a lower rate in the later stages (strategy.lr.head=0.0003, from 0.001), or "
        "fewer stages: strategy=feature_extraction."
    )
    overfit = stage_advice(of_stages([0.9, 0.94, 0.8], train=0.99, val=5000))
    assert "No later stage improves on block (val/acc 0.940): deeper 0.800." in overfit
    assert "deeper overfits (accuracy 0.990 in training, 0.800 in validation)." in overfit
    assert (
        "Try more than the 1,437 training images, augment=strong, or fewer stages: only the stages up to block."
        in overfit
    )
    assert "chance" not in overfit


@pytest.mark.parametrize("scores", [[], [0.9], [0.9, 0.92], [0.9, 0.88, 0.91]])
def test_no_stage_advice_if_the_last_stage_is_the_best(scores: list[float]) -> None:
    assert stage_advice(of_stages(scores)) == ""


def of_stages(scores: list[float], *, train: float = 0.9, val: int = 180) -> RunRecord:
    """Return a record of stages of one epoch each, for the stage advice."""
    named = list(zip(("head", "block", "deeper"), scores, strict=False))
    return RunRecord(
        directory=RunDirectory(Path()),
        result={
            "monitor": "val/acc",
            "data": {"train": 1437, "val": val},
            "stages": [
                {"name": name, "best_epoch": epoch, "val/acc": score}
                for epoch, (name, score) in enumerate(named, start=1)
            ],
        },
        config={"strategy": {"lr": {"head": 1e-3}}},
        history=[
            {"epoch": epoch, "stage": name, "train/acc": train, "val/acc": score}
            for epoch, (name, score) in enumerate(named, start=1)
        ],
        plan=None,
        splits={},
        predictions=None,
    )
