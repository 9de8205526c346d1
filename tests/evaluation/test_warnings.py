"""Warnings and headlines, and the metrics that cause them."""

from typing import Any

import pytest
import torch

from unfreeze.evaluation.class_metrics import class_metrics
from unfreeze.evaluation.headline import build_headline
from unfreeze.evaluation.multilabel_metrics import multilabel_metrics
from unfreeze.evaluation.warnings import RunFacts, find_warnings, list_warnings
from unfreeze.results.result import RunWarning


def metrics_of(truth: list[int], predicted: list[int], *, sure: float = 0.9, classes: int = 2) -> dict[str, Any]:
    """Return the metrics of predictions that all have one confidence."""
    rest = (1 - sure) / (classes - 1)
    hot = torch.nn.functional.one_hot(torch.tensor(predicted), classes)
    logits = torch.where(hot.bool(), torch.tensor(sure), torch.tensor(rest)).log()
    return class_metrics(logits, torch.tensor(truth), [f"class {number}" for number in range(classes)], temperature=1.0)


def codes(found: list[RunWarning], level: str | None = None) -> set[str]:
    return {warning.code for warning in found if level in (None, warning.level)}


def headline_of(test: dict[str, Any] | None, found: list[RunWarning], **more: Any) -> Any:
    return build_headline({"status": "completed", "test": test, "val": {"acc": 0.9}, **more}, found)


def test_98_percent_with_12_percent_of_the_rare_class_is_bad() -> None:
    truth = [0] * 980 + [1] * 25
    test = metrics_of(truth, [0] * 980 + [1] * 3 + [0] * 22, sure=0.98)
    assert test["acc"] > 0.975
    found = list_warnings(test, RunFacts())
    assert "poor-recall" in codes(found, "bad")
    assert "'class 1' 12% (3 of 25)" in found[0].text
    assert "data.balance" in found[0].text
    headline = headline_of(test, found)
    assert headline.grade == "bad"
    assert headline.text == "Right on 983 of 1,005 images it had never seen; but the recall of 'class 1' is only 12%."


def test_a_class_that_is_never_predicted_is_bad() -> None:
    test = metrics_of([0] * 50 + [1] * 50 + [2] * 20, [0] * 50 + [1] * 70, classes=3)
    found = list_warnings(test, RunFacts())
    assert "never-predicted" in codes(found, "bad")
    assert "'class 2'" in found[0].text
    assert headline_of(test, found).grade == "bad"


def test_predictions_no_better_than_constant_are_bad() -> None:
    test = metrics_of([0] * 90 + [1] * 10, [0] * 85 + [1] * 5 + [0] * 5 + [1] * 5)
    assert "no-better-than-constant" in codes(list_warnings(test, RunFacts()), "bad")


def test_headline_of_a_model_worse_than_constant() -> None:
    truth = [number % 2 for number in range(60)]
    test = metrics_of(truth, [1 - label for label in truth])
    headline = headline_of(test, list_warnings(test, RunFacts()))
    assert headline.grade == "bad"
    assert "no better than predicting one class for every image" in headline.text


def test_images_the_model_was_selected_on_are_not_called_unseen() -> None:
    test = metrics_of([0, 1] * 500, [0, 1] * 500)
    found = list_warnings(test, RunFacts(chose_model=1000))
    assert "chose-model" in codes(found, "warn")
    assert "it was selected on" in headline_of(test, found, data={"chose_model": 1000}).text
    trained = {"also_in_train": {"test": 1000}}
    assert "it was trained on" in headline_of(test, found, data=trained).text


def test_an_accurate_model_has_no_warnings() -> None:
    truth = [number % 2 for number in range(2000)]
    predicted = [1 - label if number % 20 == 0 else label for number, label in enumerate(truth)]
    test = metrics_of(truth, predicted, sure=0.95)
    found = list_warnings(test, RunFacts(train_acc=0.97, val_acc=0.95, choices=("the best of 5 epochs",)))
    assert found == []
    assert headline_of(test, found).grade == "good"


def test_a_class_of_few_images_is_not_called_poor_by_chance() -> None:
    truth = [0] * 500 + [1] * 3
    found = list_warnings(metrics_of(truth, [0] * 500 + [1, 0, 0], sure=0.99), RunFacts())
    assert "poor-recall" not in codes(found)
    assert "thin-class" in codes(found, "note")


@pytest.mark.parametrize(
    ("sure", "right", "code"), [(0.99, 80, "overconfident"), (0.60, 95, "underconfident"), (0.8, 80, None)]
)
def test_confidence_far_from_accuracy_is_warned_of(sure: float, right: int, code: str | None) -> None:
    truth = [number % 2 for number in range(100)]
    predicted = [label if number < right else 1 - label for number, label in enumerate(truth)]
    found = codes(list_warnings(metrics_of(truth, predicted, sure=sure), RunFacts())) & {
        "overconfident",
        "underconfident",
    }
    assert found == ({code} if code else set())


def test_a_temperature_that_worsens_calibration_is_warned_of() -> None:
    truth = [number % 2 for number in range(100)]
    test = metrics_of(truth, [label if number < 80 else 1 - label for number, label in enumerate(truth)], sure=0.9)
    sound, misled = ({**test, "ece_scaled": error} for error in (0.02, 0.2))
    (over,) = [each for each in list_warnings(sound, RunFacts()) if each.code == "overconfident"]
    assert over.text.endswith("After temperature scaling the error is 0.020.")
    found = {each.code: each for each in list_warnings(misled, RunFacts())}
    assert "0.200 in place of 0.100" in found["temperature-misleads"].text
    assert "temperature" not in found["overconfident"].text


def test_few_test_images_are_warned_of() -> None:
    truth = [number % 2 for number in range(50)]
    test = metrics_of(truth, [1 - label if number % 5 == 0 else label for number, label in enumerate(truth)], sure=0.8)
    (small,) = [each for each in list_warnings(test, RunFacts()) if each.code == "few-test-images"]
    assert "±" in small.text
    assert small.level == "warn"


def test_facts_about_the_run_are_warned_of() -> None:
    test = metrics_of([0, 1] * 500, [0, 1] * 500)
    facts = RunFacts(
        in_train=14,
        val_in_train=2,
        unreadable=3,
        train_acc=0.99,
        val_acc=0.80,
        choices=("the best of 10 epochs", "the best of 32 runs"),
        rising=True,
    )
    found = list_warnings(test, facts)
    assert codes(found, "bad") == {"test-in-train"}
    assert codes(found) >= {"val-in-train", "gap", "val-reused", "still-rising", "unreadable"}
    assert [each.level for each in found] == sorted((each.level for each in found), key=["bad", "warn", "note"].index)
    assert "of which 14 were trained on" in headline_of(test, found, data={"also_in_train": {"test": 14}}).text


def test_without_a_test_the_grade_is_unknown() -> None:
    found = list_warnings(None, RunFacts())
    assert codes(found, "warn") == {"no-test"}
    assert headline_of(None, found).grade == "unknown"
    assert "90.0%" in headline_of(None, found).text


@pytest.mark.parametrize(("status", "word"), [("stopped", "Stopped"), ("failed", "Failed")])
def test_a_run_that_has_not_completed_has_an_unknown_grade(status: str, word: str) -> None:
    headline = headline_of(None, [], status=status, reason="SIGTERM", best={"epoch": 2, "stage": "head"})
    assert headline.grade == "unknown"
    assert headline.text.startswith(f"{word}")
    assert "SIGTERM" in headline.text
    assert "epoch 2" in headline.text


def test_labels_that_are_never_predicted_are_bad() -> None:
    truth = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0]] * 25)
    logits = torch.where(truth == 1, 3.0, -3.0)
    logits[:, 1] = -3.0
    found = list_warnings(multilabel_metrics(logits, truth, ("a", "b")), RunFacts())
    assert "never-predicted" in codes(found, "bad")


def test_warnings_from_a_result() -> None:
    result = {
        "test": metrics_of([0, 1] * 500, [0, 1] * 500),
        "val": {"acc": 0.7},
        "best": {"epoch": 4},
        "data": {"unreadable": 1, "also_in_train": {"val": 0, "test": 5}},
    }
    found = find_warnings(result, epochs=4, planned_epochs=4, train_acc=0.95, chosen=("a threshold per label",))
    assert codes(found) >= {"test-in-train", "gap", "val-reused", "still-rising", "unreadable"}
    assert "still-rising" not in codes(find_warnings(result, epochs=6, planned_epochs=6, train_acc=0.95))
