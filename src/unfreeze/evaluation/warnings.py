"""Warnings: reasons to doubt the metrics of a run, or the model in spite of them, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfreeze.evaluation.intervals import share_interval
from unfreeze.results.result import RunWarning

_ORDER: Mapping[str, int] = {"bad": 0, "warn": 1, "note": 2}

_POOR_RECALL = 0.5
_RECALL_GAP = 0.2
_SURELY_BELOW = 0.75
_VERY_POOR = 0.5
_GENERALISATION_GAP = 0.1
_WIDE = 0.05
_OVERCONFIDENT = 0.05
_WORSE = 0.01
_FEW_IMAGES = 10
_SHOWN = 3


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run that its test metrics do not contain.

    Args:
        in_train: Test images that are also training images, byte for byte.
        chose_model: Evaluated images that the model was selected on.
        val_in_train: Validation images that are also training images.
        unreadable: Images that were left out.
        train_acc: Training accuracy in the best epoch, in [0, 1]; None if unknown.
        val_acc: Validation accuracy in that epoch.
        choices: What was selected on validation, in words.
        rising: True if validation was best in the last planned epoch.
    """

    in_train: int = 0
    chose_model: int = 0
    val_in_train: int = 0
    unreadable: int = 0
    train_acc: float | None = None
    val_acc: float | None = None
    choices: tuple[str, ...] = ()
    rising: bool = False


def find_warnings(
    result: Mapping[str, Any],
    *,
    epochs: int,
    planned_epochs: int | None,
    train_acc: float | None,
    chosen: tuple[str, ...] = (),
) -> list[RunWarning]:
    """Return the warnings of a run, the worst first.

    Args:
        result: The content of its result.json.
        epochs: Number of completed epochs.
        planned_epochs: Number of planned epochs; None if unknown.
        train_acc: Training accuracy in the best epoch; None if unknown.
        chosen: What was selected on validation beside the epoch, in words.
    """
    data, best, test = result.get("data") or {}, result.get("best") or {}, result.get("test")
    also = data.get("also_in_train") or {}
    facts = RunFacts(
        in_train=also.get("test", 0) if test else 0,
        chose_model=data.get("chose_model", 0),
        val_in_train=also.get("val", 0),
        unreadable=data.get("unreadable", 0),
        train_acc=train_acc,
        val_acc=(result.get("val") or {}).get("acc"),
        choices=((f"the best of {epochs} epochs",) if epochs > 1 else ()) + chosen,
        rising=epochs > 2 and best.get("epoch") == epochs == planned_epochs,
    )
    return list_warnings(test, facts)


def list_warnings(test: Mapping[str, Any] | None, facts: RunFacts) -> list[RunWarning]:
    """Return the warnings for test metrics and facts about a run, the worst first.

    Args:
        test: Test metrics, as `compute_metrics` returns them; None without a test.
        facts: Further facts about the run.
    """
    warnings = [*_of_test(test), *_of_overlap(facts), *_of_training(facts, tested=test is not None)]
    return sorted(warnings, key=lambda warning: _ORDER[warning.level])


def _of_test(test: Mapping[str, Any] | None) -> Iterator[RunWarning]:
    if test is None:
        yield RunWarning(
            "warn", "no-test", "There was no test: the metrics are those of the images that chose the model."
        )
        return
    for task, metrics in test.get("tasks", {"": test}).items():
        of = f" of {task}" if task else ""
        if "per_label" in metrics:
            yield from _of_labels(metrics)
        else:
            yield from _of_classes(metrics, of)
        yield from _of_confidence(metrics, of)
    sized = next(iter(test["tasks"].values())) if "tasks" in test else test
    yield from _of_size(sized)


def _of_classes(test: Mapping[str, Any], of: str) -> Iterator[RunWarning]:
    yield from _of_constant(test, of)
    classes, never = test["per_class"], _never_predicted(test["per_class"])
    if never:
        yield RunWarning("bad", "never-predicted", f"Never predicted{of}, though the test has it: {_listed(never)}.")
    poor = [name for name in _poorly_found(classes, test["acc"]) if name not in never]
    if poor:
        yield _poor_recall(test, poor, of)
    yield from _of_support(classes, of)


def _of_constant(test: Mapping[str, Any], of: str) -> Iterator[RunWarning]:
    classes, acc = test["per_class"], test["acc"]
    commonest = max(classes, key=lambda name: classes[name]["support"])
    share = classes[commonest]["support"] / test["n"]
    if len(classes) > 1 and share < 1 and acc <= share:
        yield RunWarning(
            "bad",
            "no-better-than-constant",
            f"Predicting {_quoted(commonest)} for every image would be as accurate{of}: {share:.1%} against {acc:.1%}.",
        )


def _poor_recall(test: Mapping[str, Any], poor: Sequence[str], of: str) -> RunWarning:
    """Return the warning of an accuracy that hides classes with low recall."""
    classes, acc = test["per_class"], test["acc"]
    occurring = sum(own["support"] > 0 for own in classes.values())
    is_rare = classes[poor[0]]["support"] < test["n"] / max(1, occurring)
    recalls = ", ".join(
        f"{_quoted(name)} {classes[name]['recall']:.0%} "
        f"({round(classes[name]['recall'] * classes[name]['support'])} of {classes[name]['support']})"
        for name in poor[:_SHOWN]
    )
    more = f", and {len(poor) - _SHOWN} more" if len(poor) > _SHOWN else ""
    return RunWarning(
        "bad" if classes[poor[0]]["recall"] < _VERY_POOR * acc else "warn",
        "poor-recall",
        f"An accuracy of {acc:.1%}{of} hides classes with low recall: {recalls}{more}. The balanced accuracy is "
        f"{test['acc_balanced']:.1%}. More such images would help"
        f"{', and data.balance=weights or data.balance=sampler' if is_rare else ''}.",
    )


def _of_support(classes: Mapping[str, Any], of: str) -> Iterator[RunWarning]:
    thin = [name for name, own in classes.items() if 0 < own["support"] < _FEW_IMAGES]
    missing = _missing(classes)
    if missing:
        predicted = sum(classes[name]["predicted"] > 0 for name in missing)
        zeros = f" Of these, {predicted:,} are predicted and count as 0 in macro averages." if predicted else ""
        yield RunWarning(
            "warn", "untested-class", f"No test images{of} of {_listed(missing)}: these were not tested.{zeros}"
        )
    if thin:
        yield RunWarning(
            "note",
            "thin-class",
            f"Fewer than {_FEW_IMAGES} test images{of} of {_listed(thin)}: their metrics are unreliable.",
        )


def _never_predicted(classes: Mapping[str, Any]) -> list[str]:
    return [name for name, own in classes.items() if own["support"] and not own["predicted"]]


def _missing(classes: Mapping[str, Any]) -> list[str]:
    return [name for name, own in classes.items() if not own["support"]]


def _poorly_found(classes: Mapping[str, Any], acc: float) -> list[str]:
    """Return the classes with a recall below half and well below the accuracy, beyond chance; the lowest first."""
    poor = []
    for name, own in classes.items():
        recall, support = own["recall"], own["support"]
        if not support or recall >= _POOR_RECALL or acc - recall < _RECALL_GAP:
            continue
        if share_interval(round(recall * support), support)[1] < _SURELY_BELOW * acc:
            poor.append(name)
    return sorted(poor, key=lambda name: classes[name]["recall"])


def _of_labels(test: Mapping[str, Any]) -> Iterator[RunWarning]:
    labels = test["per_label"]
    never, missing = _never_predicted(labels), _missing(labels)
    if never:
        yield RunWarning("bad", "never-predicted", f"Never predicted, though test images have it: {_listed(never)}.")
    poor = [name for name in _poorly_found(labels, test["acc"]) if name not in never]
    if poor:
        recalls = ", ".join(f"{_quoted(name)} {labels[name]['recall']:.0%}" for name in poor[:_SHOWN])
        yield RunWarning(
            "bad",
            "poor-recall",
            f"{test['acc']:.1%} of all predictions are right, most of them of absent labels; few of the labels that "
            f"are present are found: {recalls}. Try data.balance=weights.",
        )
    if missing:
        yield RunWarning("warn", "untested-class", f"No test images have {_listed(missing)}: these were not tested.")


def _of_confidence(test: Mapping[str, Any], of: str) -> Iterator[RunWarning]:
    error, scaled = test["ece"], test.get("ece_scaled")
    if scaled is not None and scaled - error >= _WORSE:
        yield RunWarning(
            "note",
            "temperature-misleads",
            f"The temperature fitted on validation makes these predictions less calibrated{of}: an expected "
            f"calibration error of {scaled:.3f} in place of {error:.3f}.",
        )
    if abs(test.get("confidence", test["acc"]) - test["acc"]) < _OVERCONFIDENT:
        return
    over = test["confidence"] > test["acc"]
    is_better = scaled is not None and scaled < error
    after = f" After temperature scaling the error is {scaled:.3f}." if is_better else ""
    yield RunWarning(
        "warn" if over else "note",
        "overconfident" if over else "underconfident",
        f"Mean confidence{of} is {test['confidence']:.1%} at an accuracy of {test['acc']:.1%}: "
        f"{'over' if over else 'under'}confident (expected calibration error {error:.3f}).{after}",
    )


def _of_size(test: Mapping[str, Any]) -> Iterator[RunWarning]:
    interval = (test.get("intervals") or {}).get("acc")
    if interval is None:
        return
    half = (interval[1] - interval[0]) / 2
    if half > _WIDE:
        wanted = round(test["n"] * (half / 0.02) ** 2, -2)
        yield RunWarning(
            "warn",
            "few-test-images",
            f"With {test['n']:,} images the accuracy is known to ±{half:.1%} only; a smaller difference between two "
            f"models means nothing. About {wanted:,.0f} images would narrow it to ±2 %.",
        )


def _of_overlap(facts: RunFacts) -> Iterator[RunWarning]:
    """Yield warnings of images that are shared between splits."""
    if facts.in_train:
        yield RunWarning(
            "bad",
            "test-in-train",
            f"{facts.in_train:,} test images were also trained on, byte for byte: the metrics are optimistic. "
            "unfreeze audit lists them.",
        )
    if facts.chose_model:
        yield RunWarning(
            "warn",
            "chose-model",
            f"{facts.chose_model:,} of these images are validation images of the run, which chose its epoch and its "
            "temperature: the metrics are optimistic.",
        )
    if facts.val_in_train:
        yield RunWarning(
            "warn",
            "val-in-train",
            f"{facts.val_in_train:,} validation images were also trained on, byte for byte: the metrics that chose the "
            "model are optimistic.",
        )


def _of_training(facts: RunFacts, *, tested: bool) -> Iterator[RunWarning]:
    train_acc, val_acc = facts.train_acc, facts.val_acc
    if train_acc is not None and val_acc is not None and train_acc - val_acc >= _GENERALISATION_GAP:
        yield RunWarning(
            "warn",
            "gap",
            f"The training accuracy ({train_acc:.1%}) is well above the validation accuracy ({val_acc:.1%}): try more "
            "images, augment=standard or fewer unfrozen groups.",
        )
    if len(facts.choices) > 1:
        yield RunWarning(
            "note" if tested else "warn",
            "val-reused",
            f"Validation has chosen {' and '.join(facts.choices)}: its own metrics are optimistic"
            f"{', those of the test are not' if tested else ''}.",
        )
    if facts.rising:
        yield RunWarning(
            "note", "still-rising", "Validation was best in the very last epoch: more epochs may do better."
        )
    if facts.unreadable:
        yield RunWarning("note", "unreadable", f"{facts.unreadable:,} images could not be read and were left out.")


def _quoted(name: str) -> str:
    return f"'{name}'"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(_quoted, names[:_SHOWN])) + more
