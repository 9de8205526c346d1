"""What is said against a model, and when."""

from typing import Any

import pytest
import torch

from unfreeze.evaluation.class_metrics import judge_classes
from unfreeze.evaluation.label_metrics import judge_labels
from unfreeze.evaluation.verdict import reach_verdict
from unfreeze.evaluation.warnings import Caution, Circumstances, find_cautions, judge_trust


def judged(truth: list[int], answers: list[int], *, sure: float = 0.9, classes: int = 2) -> dict[str, Any]:
    """Return the figures of answers that are all said with one confidence."""
    rest = (1 - sure) / (classes - 1)
    said = torch.nn.functional.one_hot(torch.tensor(answers), classes)
    logits = torch.where(said.bool(), torch.tensor(sure), torch.tensor(rest)).log()
    return judge_classes(logits, torch.tensor(truth), [f"class {number}" for number in range(classes)], temperature=1.0)


def codes(found: list[Caution], level: str | None = None) -> set[str]:
    return {caution.code for caution in found if level in (None, caution.level)}


def verdict_of(test: dict[str, Any] | None, found: list[Caution], **more: Any) -> Any:
    return reach_verdict({"status": "completed", "test": test, "val": {"acc": 0.9}, **more}, found)


def test_98_percent_with_12_percent_of_the_rare_class_is_bad() -> None:
    truth = [0] * 980 + [1] * 25
    test = judged(truth, [0] * 980 + [1] * 3 + [0] * 22, sure=0.98)
    assert test["acc"] > 0.975
    found = find_cautions(test, Circumstances())
    assert "poor-recall" in codes(found, "bad")
    assert "'class 1' 12% (3 of 25)" in found[0].text
    assert "data.balance" in found[0].text
    verdict = verdict_of(test, found)
    assert verdict.grade == "bad"
    assert verdict.text == "Right on 983 of 1,005 images it had never seen; yet bad: of 'class 1' it finds 12%."


def test_a_class_that_is_never_predicted_is_bad() -> None:
    test = judged([0] * 50 + [1] * 50 + [2] * 20, [0] * 50 + [1] * 70, classes=3)
    found = find_cautions(test, Circumstances())
    assert "never-predicted" in codes(found, "bad")
    assert "'class 2'" in found[0].text
    assert verdict_of(test, found).grade == "bad"


def test_answers_that_no_model_is_needed_for_are_bad() -> None:
    test = judged([0] * 90 + [1] * 10, [0] * 85 + [1] * 5 + [0] * 5 + [1] * 5)
    assert "no-better-than-constant" in codes(find_cautions(test, Circumstances()), "bad")


def test_a_model_that_is_worse_than_none_is_called_bad_in_the_first_sentence() -> None:
    truth = [number % 2 for number in range(60)]
    test = judged(truth, [1 - label for label in truth])
    verdict = verdict_of(test, find_cautions(test, Circumstances()))
    assert verdict.grade == "bad"
    assert "that is bad: one answer for every image would be as often right" in verdict.text


def test_images_that_chose_the_model_are_not_called_new_to_it() -> None:
    test = judged([0, 1] * 500, [0, 1] * 500)
    found = find_cautions(test, Circumstances(chose_model=1000))
    assert "chose-model" in codes(found, "warn")
    assert "by which it was chosen" in verdict_of(test, found, data={"chose_model": 1000}).text
    trained = {"also_in_train": {"test": 1000}}
    assert "it was trained on" in verdict_of(test, found, data=trained).text


def test_a_model_that_is_even_and_right_has_nothing_said_against_it() -> None:
    truth = [number % 2 for number in range(2000)]
    answers = [1 - label if number % 20 == 0 else label for number, label in enumerate(truth)]
    test = judged(truth, answers, sure=0.95)
    found = find_cautions(test, Circumstances(train_acc=0.97, val_acc=0.95, choices=("the best of 5 epochs",)))
    assert found == []
    assert verdict_of(test, found).grade == "good"


def test_a_class_of_few_images_is_not_called_poor_by_chance() -> None:
    truth = [0] * 500 + [1] * 3
    found = find_cautions(judged(truth, [0] * 500 + [1, 0, 0], sure=0.99), Circumstances())
    assert "poor-recall" not in codes(found)
    assert "thin-class" in codes(found, "note")


@pytest.mark.parametrize(
    ("sure", "right", "code"), [(0.99, 80, "overconfident"), (0.60, 95, "underconfident"), (0.8, 80, None)]
)
def test_what_a_model_says_of_itself_is_held_against_it(sure: float, right: int, code: str | None) -> None:
    truth = [number % 2 for number in range(100)]
    answers = [label if number < right else 1 - label for number, label in enumerate(truth)]
    told = codes(find_cautions(judged(truth, answers, sure=sure), Circumstances())) & {
        "overconfident",
        "underconfident",
    }
    assert told == ({code} if code else set())


def test_a_temperature_that_misleads_is_named_and_not_praised() -> None:
    truth = [number % 2 for number in range(100)]
    test = judged(truth, [label if number < 80 else 1 - label for number, label in enumerate(truth)], sure=0.9)
    sound, misled = ({**test, "ece_scaled": error} for error in (0.02, 0.2))
    (over,) = [each for each in find_cautions(sound, Circumstances()) if each.code == "overconfident"]
    assert over.text.endswith("it is off by 2.0%.")
    found = {each.code: each for each in find_cautions(misled, Circumstances())}
    assert "0.200 in place of 0.100" in found["temperature-misleads"].text
    assert "temperature" not in found["overconfident"].text


def test_a_small_test_says_how_little_it_tells() -> None:
    truth = [number % 2 for number in range(50)]
    test = judged(truth, [1 - label if number % 5 == 0 else label for number, label in enumerate(truth)], sure=0.8)
    (small,) = [each for each in find_cautions(test, Circumstances()) if each.code == "few-test-images"]
    assert "±" in small.text
    assert small.level == "warn"


def test_what_the_test_does_not_know_is_said_too() -> None:
    test = judged([0, 1] * 500, [0, 1] * 500)
    about = Circumstances(
        in_train=14,
        val_in_train=2,
        unreadable=3,
        train_acc=0.99,
        val_acc=0.80,
        choices=("the best of 10 epochs", "the best of 32 runs"),
        rising=True,
    )
    found = find_cautions(test, about)
    assert codes(found, "bad") == {"test-in-train"}
    assert codes(found) >= {"val-in-train", "gap", "val-reused", "still-rising", "unreadable"}
    assert [each.level for each in found] == sorted((each.level for each in found), key=["bad", "warn", "note"].index)
    assert "of which 14 were trained on" in verdict_of(test, found, data={"also_in_train": {"test": 14}}).text


def test_without_a_test_the_verdict_is_unknown() -> None:
    found = find_cautions(None, Circumstances())
    assert codes(found, "warn") == {"no-test"}
    assert verdict_of(None, found).grade == "unknown"
    assert "90.0%" in verdict_of(None, found).text


@pytest.mark.parametrize(("status", "word"), [("stopped", "Stopped"), ("failed", "Failed")])
def test_a_run_that_has_not_ended_by_itself_has_no_verdict(status: str, word: str) -> None:
    told = verdict_of(None, [], status=status, reason="SIGTERM", best={"epoch": 2, "stage": "head"})
    assert told.grade == "unknown"
    assert told.text.startswith(f"{word}")
    assert "SIGTERM" in told.text
    assert "epoch 2" in told.text


def test_labels_that_are_never_given_are_bad() -> None:
    truth = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0]] * 25)
    logits = torch.where(truth == 1, 3.0, -3.0)
    logits[:, 1] = -3.0
    found = find_cautions(judge_labels(logits, truth, ("a", "b")), Circumstances())
    assert "never-predicted" in codes(found, "bad")


def test_the_figures_of_a_run_are_enough() -> None:
    result = {
        "test": judged([0, 1] * 500, [0, 1] * 500),
        "val": {"acc": 0.7},
        "best": {"epoch": 4},
        "data": {"unreadable": 1, "also_in_train": {"val": 0, "test": 5}},
    }
    found = judge_trust(result, epochs=4, planned_epochs=4, train_acc=0.95, chosen=("a threshold per label",))
    assert codes(found) >= {"test-in-train", "gap", "val-reused", "still-rising", "unreadable"}
    assert "still-rising" not in codes(judge_trust(result, epochs=6, planned_epochs=6, train_acc=0.95))
