"""Warnings: reasons to doubt the metrics of a run, or the model in spite of them, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unfreeze.evaluation.intervals import share_interval

Level = Literal["bad", "warn", "note"]
_ORDER: Mapping[str, int] = {"bad": 0, "warn": 1, "note": 2}

_POOR_RECALL = 0.5
_FAR_BELOW = 0.2
_SURELY_BELOW = 0.75
_HARDLY = 0.5
_GAP = 0.1
_WIDE = 0.05
_OVERCONFIDENT = 0.05
_WORSE = 0.01
_FEW_IMAGES = 10
_SHOWN = 3


@dataclass(frozen=True)
class Caution:
    """One thing that a person should know before trusting a model.

    Args:
        level: "bad": do not use the model for this; "warn": the figures may mislead; "note": worth knowing.
        code: What it is, for programs, such as "poor-recall".
        text: A sentence or two.
    """

    level: Level
    code: str
    text: str


@dataclass(frozen=True)
class Circumstances:
    """What a test does not know of itself.

    Args:
        in_train: Test images that were also trained on, byte for byte.
        chose_model: Of the images that were judged, those by which the model was chosen.
        val_in_train: Validation images that were.
        unreadable: Images that were left out.
        train_acc: Training accuracy in the best epoch, in [0, 1]; None where it is not known.
        val_acc: Validation accuracy in that epoch.
        choices: What validation has chosen, in words.
        rising: Whether validation was best in the very last epoch that was planned.
    """

    in_train: int = 0
    chose_model: int = 0
    val_in_train: int = 0
    unreadable: int = 0
    train_acc: float | None = None
    val_acc: float | None = None
    choices: tuple[str, ...] = ()
    rising: bool = False


def judge_trust(
    result: Mapping[str, Any],
    *,
    epochs: int,
    planned_epochs: int | None,
    train_acc: float | None,
    chosen: tuple[str, ...] = (),
) -> list[Caution]:
    """Return what a person should know of a run, the worst first.

    Args:
        result: The content of its result.json.
        epochs: That were done.
        planned_epochs: That were planned at most; None where it is not known.
        train_acc: Training accuracy in the best epoch; None where it is not known.
        chosen: What validation has chosen beside the epoch, in words.
    """
    data, best, test = result.get("data") or {}, result.get("best") or {}, result.get("test")
    also = data.get("also_in_train") or {}
    about = Circumstances(
        in_train=also.get("test", 0) if test else 0,
        chose_model=data.get("chose_model", 0),
        val_in_train=also.get("val", 0),
        unreadable=data.get("unreadable", 0),
        train_acc=train_acc,
        val_acc=(result.get("val") or {}).get("acc"),
        choices=((f"the best of {epochs} epochs",) if epochs > 1 else ()) + chosen,
        rising=epochs > 2 and best.get("epoch") == epochs == planned_epochs,
    )
    return find_cautions(test, about)


def find_cautions(test: Mapping[str, Any] | None, about: Circumstances) -> list[Caution]:
    """Return what a person should know, the worst first.

    Args:
        test: The figures of a test, as `judge_answers` has them; None where there was none.
        about: What else is known of the run.
    """
    found = [*_of_test(test), *_of_run(about, tested=test is not None)]
    return sorted(found, key=lambda caution: _ORDER[caution.level])


def _of_test(test: Mapping[str, Any] | None) -> Iterator[Caution]:
    if test is None:
        yield Caution("warn", "no-test", "There was no test: the figures are those of the images that chose the model.")
        return
    for task, figures in test.get("tasks", {"": test}).items():
        of = f" of {task}" if task else ""
        if "per_label" in figures:
            yield from _of_labels(figures)
        else:
            yield from _of_classes(figures, of)
        yield from _of_confidence(figures, of)
    sized = next(iter(test["tasks"].values())) if "tasks" in test else test
    yield from _of_size(sized)


def _of_classes(test: Mapping[str, Any], of: str) -> Iterator[Caution]:
    classes, count, acc = test["per_class"], test["n"], test["acc"]
    commonest = max(classes, key=lambda name: classes[name]["support"])
    share = classes[commonest]["support"] / count
    if len(classes) > 1 and share < 1 and acc <= share:
        yield Caution(
            "bad",
            "no-better-than-constant",
            f"Answering {_quoted(commonest)} for every image would be right as often{of}: {share:.1%} against "
            f"{acc:.1%}.",
        )
    never = [name for name, own in classes.items() if own["support"] and not own["predicted"]]
    if never:
        yield Caution("bad", "never-predicted", f"Never predicted{of}, though the test has it: {_listed(never)}.")
    poor = [name for name in _poorly_found(classes, acc) if name not in never]
    if poor:
        rare = classes[poor[0]]["support"] < count / max(1, sum(own["support"] > 0 for own in classes.values()))
        told = ", ".join(
            f"{_quoted(name)} {classes[name]['recall']:.0%} "
            f"({round(classes[name]['recall'] * classes[name]['support'])} of {classes[name]['support']})"
            for name in poor[:_SHOWN]
        )
        more = f", and {len(poor) - _SHOWN} more" if len(poor) > _SHOWN else ""
        yield Caution(
            "bad" if classes[poor[0]]["recall"] < _HARDLY * acc else "warn",
            "poor-recall",
            f"An accuracy of {acc:.1%}{of} hides what is not found: {told}{more}. The balanced accuracy is "
            f"{test['acc_balanced']:.1%}. More such images would help"
            f"{', and data.balance=weights or data.balance=sampler' if rare else ''}.",
        )
    thin = [name for name, own in classes.items() if 0 < own["support"] < _FEW_IMAGES]
    missing = [name for name, own in classes.items() if not own["support"]]
    if missing:
        answered = sum(classes[name]["predicted"] > 0 for name in missing)
        zeros = f" Classes among them that were answered all the same count as 0 in macro figures: {answered:,}."
        zeros = zeros if answered else ""
        yield Caution(
            "warn", "untested-class", f"No test images{of} of {_listed(missing)}: nothing is known of these.{zeros}"
        )
    if thin:
        yield Caution(
            "note",
            "thin-class",
            f"Fewer than {_FEW_IMAGES} test images{of} of {_listed(thin)}: little is known of these.",
        )


def _poorly_found(classes: Mapping[str, Any], acc: float) -> list[str]:
    """Return the classes of which less than half is found, far less than of all, and not by chance; worst first."""
    poor = []
    for name, own in classes.items():
        recall, support = own["recall"], own["support"]
        if not support or recall >= _POOR_RECALL or acc - recall < _FAR_BELOW:
            continue
        if share_interval(round(recall * support), support)[1] < _SURELY_BELOW * acc:
            poor.append(name)
    return sorted(poor, key=lambda name: classes[name]["recall"])


def _of_labels(test: Mapping[str, Any]) -> Iterator[Caution]:
    labels = test["per_label"]
    never = [name for name, own in labels.items() if own["support"] and not own["predicted"]]
    if never:
        yield Caution("bad", "never-predicted", f"Never given, though test images have it: {_listed(never)}.")
    poor = [name for name in _poorly_found(labels, test["acc"]) if name not in never]
    if poor:
        told = ", ".join(f"{_quoted(name)} {labels[name]['recall']:.0%}" for name in poor[:_SHOWN])
        yield Caution(
            "bad",
            "poor-recall",
            f"{test['acc']:.1%} of all answers are right, most of them that a label is absent; of those that are there "
            f"few are found: {told}. Try data.balance=weights.",
        )
    missing = [name for name, own in labels.items() if not own["support"]]
    if missing:
        yield Caution("warn", "untested-class", f"No test images have {_listed(missing)}: nothing is known of these.")


def _of_confidence(test: Mapping[str, Any], of: str) -> Iterator[Caution]:
    error, scaled = test["ece"], test.get("ece_scaled")
    if scaled is not None and scaled - error >= _WORSE:
        yield Caution(
            "note",
            "temperature-misleads",
            f"The temperature that validation finds makes these answers less calibrated{of}: an expected error of "
            f"{scaled:.3f} in place of {error:.3f}.",
        )
    if abs(test.get("confidence", test["acc"]) - test["acc"]) < _OVERCONFIDENT:
        return
    over = test["confidence"] > test["acc"]
    is_mended = scaled is not None and scaled < error
    mended = f" Divided by the temperature that validation finds, it is off by {scaled:.1%}." if is_mended else ""
    yield Caution(
        "warn" if over else "note",
        "overconfident" if over else "underconfident",
        f"It says {test['confidence']:.1%} on average{of} and is right in {test['acc']:.1%}: "
        f"{'over' if over else 'under'}confident (expected calibration error {error:.3f}).{mended}",
    )


def _of_size(test: Mapping[str, Any]) -> Iterator[Caution]:
    interval = (test.get("intervals") or {}).get("acc")
    if interval is None:
        return
    half = (interval[1] - interval[0]) / 2
    if half > _WIDE:
        wanted = round(test["n"] * (half / 0.02) ** 2, -2)
        yield Caution(
            "warn",
            "few-test-images",
            f"With {test['n']:,} images the accuracy is known to ±{half:.1%} only; a difference between two "
            f"models below that means nothing. About {wanted:,.0f} would tell it to ±2 %.",
        )


def _of_run(about: Circumstances, *, tested: bool) -> Iterator[Caution]:
    if about.in_train:
        yield Caution(
            "bad",
            "test-in-train",
            f"{about.in_train:,} test images were also trained on, byte for byte: the figures flatter. "
            "unfreeze audit names them.",
        )
    if about.chose_model:
        yield Caution(
            "warn",
            "chose-model",
            f"{about.chose_model:,} of these images are validation images of the run, which chose its epoch and its "
            "temperature: the figures flatter.",
        )
    if about.val_in_train:
        yield Caution(
            "warn",
            "val-in-train",
            f"{about.val_in_train:,} validation images were also trained on, byte for byte: the figures that chose the "
            "model flatter.",
        )
    if about.train_acc is not None and about.val_acc is not None and about.train_acc - about.val_acc >= _GAP:
        yield Caution(
            "warn",
            "gap",
            f"It has learnt its training images better ({about.train_acc:.1%}) than what they show "
            f"({about.val_acc:.1%} in validation): try more images, augment=standard or fewer thawed groups.",
        )
    if len(about.choices) > 1:
        yield Caution(
            "note" if tested else "warn",
            "val-reused",
            f"Validation has chosen {' and '.join(about.choices)}: its own figures flatter"
            f"{', those of the test do not' if tested else ''}.",
        )
    if about.rising:
        yield Caution("note", "still-rising", "Validation was best in the very last epoch: more epochs may do better.")
    if about.unreadable:
        yield Caution("note", "unreadable", f"{about.unreadable:,} images could not be read and were left out.")


def _quoted(name: str) -> str:
    return f"'{name}'"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(_quoted, names[:_SHOWN])) + more
