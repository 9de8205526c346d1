"""Two runs on the same images."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.comparison import compare_directories, compare_predictions, write_differences
from unfreeze.evaluation.predictions import Predictions, StoredPredictions
from unfreeze.models.outputs import Outputs

CLASSES = ("cat", "dog", "ship")


def stored(
    truth: list[int], predicted: list[int], *, classes: tuple[str, ...] = CLASSES, order: list[int] | None = None
) -> StoredPredictions:
    logits = 5.0 * torch.nn.functional.one_hot(torch.tensor(predicted), len(classes))
    digests = np.array([number.to_bytes(16, "big") for number in range(len(truth))], dtype="V16")
    whole = Predictions(
        logits, torch.tensor(truth), np.arange(len(truth)), tuple(f"{n}.jpg" for n in range(len(truth))), digests
    )
    if order is not None:
        whole = whole.take(np.array(order, dtype=np.int64))
    return StoredPredictions({"test": whole}, Outputs.of(classes), None, None, digests[:0])


TRUTH = [0, 1, 2] * 100
BETTER = [(label + (number % 20 == 0)) % 3 for number, label in enumerate(TRUTH)]
WORSE = [(label + (number % 4 == 0)) % 3 for number, label in enumerate(TRUTH)]


def test_mcnemar_is_exact() -> None:
    compared = compare_predictions(stored(TRUTH, WORSE), stored(TRUTH, BETTER), "test")
    assert (compared.only_first, compared.only_second) == (0, 60)
    assert compared.p_value == pytest.approx(binomtest(0, 60).pvalue)
    assert compared.accuracies == pytest.approx((0.75, 0.95))
    assert compared.interval[0] < 0.2 < compared.interval[1]
    assert compared.interval == pytest.approx((0.155, 0.247), abs=0.01)
    assert compared.sentence.startswith("The second run is better: +20.0 points")
    assert {each.right for each in compared.differences} == {"second"}


def test_the_order_of_images_and_classes_does_not_matter() -> None:
    renamed = ("ship", "cat", "dog")
    moved = [renamed.index(CLASSES[label]) for label in TRUTH], [renamed.index(CLASSES[label]) for label in BETTER]
    other = stored(*moved, classes=renamed, order=list(range(299, -1, -1)))
    plain = compare_predictions(stored(TRUTH, WORSE), stored(TRUTH, BETTER), "test")
    assert asdict(compare_predictions(stored(TRUTH, WORSE), other, "test")) == asdict(plain)


def test_only_shared_images_are_compared() -> None:
    half = stored(TRUTH, BETTER, order=list(range(0, 300, 2)))
    compared = compare_predictions(stored(TRUTH, WORSE), half, "test")
    assert compared.images == 150


def test_few_images_show_no_significant_difference() -> None:
    few = compare_predictions(stored(TRUTH[:12], WORSE[:12]), stored(TRUTH[:12], BETTER[:12]), "test")
    assert few.p_value > 0.05
    assert few.sentence.startswith("No significant difference")
    assert 0.05 < few.smallest < 1


def test_equal_runs_do_not_differ() -> None:
    compared = compare_predictions(stored(TRUTH, BETTER), stored(TRUTH, BETTER), "test")
    assert compared.p_value == 1.0
    assert compared.differences == ()
    unseen = 1 - 0.025 ** (1 / len(TRUTH))
    assert compared.interval == pytest.approx((-unseen, unseen)), "the next image may be one on which they differ"


def test_duplicate_images_are_paired_in_order() -> None:
    twice = stored(TRUTH, BETTER, order=[0, 0, 1, 2])
    assert compare_predictions(twice, twice, "test").images == 4


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (stored([0, 1], [0, 1], classes=("cat", "cow", "ship")), "other classes"),
        (stored(TRUTH, BETTER, order=[]), "no image was evaluated by both"),
        (stored([1, 1, 2], [1, 1, 2]), "under other labels"),
    ],
)
def test_runs_that_can_not_be_compared_are_refused(other: StoredPredictions, message: str) -> None:
    with pytest.raises(UnfreezeError, match=message):
        compare_predictions(stored(TRUTH, BETTER), other, "test")


def test_differences_become_a_table(tmp_path: Path) -> None:
    compared = compare_predictions(stored(TRUTH, WORSE), stored(TRUTH, BETTER), "test")
    write_differences(compared, tmp_path / "differences.csv")
    rows = list(csv.DictReader((tmp_path / "differences.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(compared.differences) == 60
    assert rows[0].keys() == {"image", "true", "first", "second", "right"}


def test_runs_without_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError, match=r"no result\.json; want the directory of a run"):
        compare_directories(tmp_path, tmp_path, "test")
    result = tmp_path / "result.json"
    for status, advice in (
        ("stopped", f"unfreeze evaluate {tmp_path} evaluates"),
        ("completed", "type unfreeze report"),
    ):
        result.write_text(json.dumps({"status": status}))
        with pytest.raises(UnfreezeError, match=f"^compare-runs: .* has no predictions for test: .*{advice}"):
            compare_directories(tmp_path, tmp_path, "test")
    stored(TRUTH, BETTER).save(tmp_path / "predictions.npz")
    with pytest.raises(UnfreezeError, match=r"no predictions for val: it has test; unfreeze evaluate .* --split val"):
        compare_directories(tmp_path, tmp_path, "val")
    assert compare_directories(tmp_path, tmp_path, "test").images == 300
    result.write_text(json.dumps({"status": "completed", "evaluated": "more, all"}))
    with pytest.raises(UnfreezeError, match="no predictions for val: it is an evaluation of one split"):
        compare_directories(tmp_path, tmp_path, "val")
