"""Audit reports of a folder with known faults."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.data.audit.test_duplicates import scenes
from unfreeze.data.audit.audit import AuditReport, audit
from unfreeze.data.audit.text import print_audit
from unfreeze.data.sources.imagefolder import folder_source
from unfreeze.data.splits.splits import split_source
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import build_store


def report_of(root: Path, *, min_per_class: int = 5) -> AuditReport:
    source = folder_source(root)
    store = build_store(source, Resize(64), on_error="skip")
    splits = split_source(source)
    left_out = np.array(sorted(store.facts.unreadable), dtype=np.int64)
    return audit(source, splits.without(left_out), store, min_per_class=min_per_class)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Return a folder of three splits and two classes without a fault."""
    images = iter(scenes(44))
    layout = {"train/cat": 12, "train/dog": 24, "val/cat": 2, "val/dog": 2, "test/cat": 2, "test/dog": 2}
    for folder, count in layout.items():
        (tmp_path / "pets" / folder).mkdir(parents=True)
        for number in range(count):
            next(images).save(tmp_path / "pets" / folder / f"{number:02}.png")
    return tmp_path / "pets"


def test_a_clean_folder_has_no_problems(clean: Path) -> None:
    report = report_of(clean)
    assert report.problems == []
    assert report.classes["cat"] == {"train": 12, "val": 2, "test": 2}
    assert report.imbalance == 2.0
    assert report.kinds == {"PNG RGB": 44}
    assert report.sizes["smallest"] == report.sizes["largest"] == {"width": 96, "height": 96}
    assert report.test_in_train == 0.0
    assert not report.near_empty
    assert report_of(clean, min_per_class=13).near_empty == {"cat": 12}


def test_equal_images_over_splits_are_problems(clean: Path) -> None:
    shutil.copy(clean / "train/cat/00.png", clean / "test/cat/copy.png")
    shutil.copy(clean / "train/cat/01.png", clean / "train/cat/01 (1).png")
    report = report_of(clean)
    assert report.exact.across == {"train test": 1}
    assert report.exact.within["train"] == 1
    assert report.exact.examples[0] == ("train/cat/00.png", "test/cat/copy.png")
    assert report.test_in_train == pytest.approx(1 / 5)
    assert report.problems == ["1 pair of equal images, one in train and one in test"]


def test_near_equal_images_over_splits_are_problems(clean: Path) -> None:
    image = Image.open(clean / "train/dog/00.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(clean / "test/dog/mirrored.jpg", quality=70)
    report = report_of(clean)
    assert report.exact.across == {}
    assert report.near.across == {"train test": 1}
    assert report.test_in_train == pytest.approx(1 / 5)


def test_the_share_follows_pairs_from_one_to_the_next(clean: Path) -> None:
    shutil.copy(clean / "train/dog/00.png", clean / "test/dog/first.png")
    shutil.copy(clean / "train/dog/00.png", clean / "test/dog/second.png")
    assert report_of(clean).test_in_train == pytest.approx(2 / 6)


def test_labels_that_contradict_are_problems(clean: Path) -> None:
    shutil.copy(clean / "train/cat/00.png", clean / "train/dog/cat.png")
    report = report_of(clean)
    assert report.exact.conflicting == 1
    assert report.problems == ["1 pair of equal images with different labels"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("Cat", "classes 'Cat' and 'cat' differ only in case"),
        ("c\uff41t", "classes 'cat' and 'c\\uff41t' differ only in case"),
    ],
)
def test_class_names_that_look_alike_are_problems(clean: Path, other: str, message: str) -> None:
    shutil.move(clean / "train/dog", clean / "train" / other)
    shutil.rmtree(clean / "val")
    shutil.rmtree(clean / "test")
    assert report_of(clean).problems[0].startswith(message)


def test_bad_files_and_missing_classes_are_problems(clean: Path) -> None:
    shutil.rmtree(clean / "val/dog")
    (clean / "train/cat/bad.png").write_bytes(b"")
    (clean / "train/notes.txt").touch()
    report = report_of(clean)
    assert report.unreadable == {"train/cat/bad.png": "empty file"}
    assert report.missing == {"val": ["dog"]}
    assert report.problems == ["1 file can't be read", "val has no images of dog"]


def test_the_report_is_plain_values(clean: Path) -> None:
    values = json.loads(json.dumps(report_of(clean).to_dict()))
    assert values["schema"] == 1
    assert values["classes"]["dog"]["train"] == 24
    assert values["problems"] == []


def test_the_text_has_counts_bars_and_problems(clean: Path) -> None:
    shutil.copy(clean / "train/cat/00.png", clean / "test/cat/copy.png")
    console = Console(width=100, record=True, file=io.StringIO())
    print_audit(report_of(clean), console)
    printed = console.export_text()
    cat, dog = (next(line for line in printed.splitlines() if line.strip().startswith(name)) for name in ("cat", "dog"))
    assert cat.split()[:4] == ["cat", "12", "2", "3"]
    assert dog.count("█") == 2 * cat.count("█") == 24
    assert "44 images" not in printed
    assert "45 images, 2 classes" in printed
    assert "train/cat/00.png  =  test/cat/copy.png" in printed
    assert "! 1 pair of equal images, one in train and one in test" in printed


def test_every_note_is_printed_whatever_the_name_of_the_data(clean: Path) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    notes = ("the first note", "the second note", "the third note")
    print_audit(replace(report_of(clean), name="files", notes=notes), console)
    printed = console.export_text()
    assert [note for note in notes if note not in printed] == []
    assert "44 images, 2 classes" in printed
    assert "44 PNG RGB" in printed


def test_of_many_classes_the_largest_and_smallest_are_shown(tmp_path: Path) -> None:
    images = iter(scenes(200))
    for number in range(60):
        (tmp_path / f"class{number:02}").mkdir()
        for copy in range(1 + (number < 30) + 2 * (number < 10)):
            next(images).resize((16, 16)).save(tmp_path / f"class{number:02}" / f"{copy}.png")
    console = Console(width=100, record=True, file=io.StringIO())
    source = folder_source(tmp_path)
    splits = split_source(source, test_fraction=0.0)
    print_audit(audit(source, splits, build_store(source, Resize(16)), min_per_class=1), console)
    printed = console.export_text()
    assert "... 20 more" in printed
    assert sum(line.strip().startswith("class") for line in printed.splitlines()) == 41
