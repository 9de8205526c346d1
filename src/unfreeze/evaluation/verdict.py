"""The first sentence of a report: how far a model can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unfreeze.evaluation.metrics import weakest_class
from unfreeze.evaluation.warnings import Caution

Grade = Literal["good", "careful", "bad", "unknown"]
_ALL_SAME = 1e-9


@dataclass(frozen=True)
class Verdict:
    """A grade, and a sentence.

    Args:
        grade: "good": nothing speaks against the figures; "careful": something may; "bad": do not use it as it is;
            "unknown": it was not tested.
        text: For a person.
    """

    grade: Grade
    text: str


def reach_verdict(result: Mapping[str, Any], cautions: Sequence[Caution]) -> Verdict:
    """Return the verdict on a run.

    Args:
        result: The content of result.json.
        cautions: What is known against it.
    """
    test, val = result.get("test"), result.get("val")
    if result["status"] != "completed":
        return Verdict("unknown", _of_unfinished(result))
    if test is None:
        known = f" Validation, which chose it, has {val['acc']:.1%} right." if val and "acc" in val else ""
        return Verdict("unknown", f"Not tested.{known}")
    levels = {caution.level for caution in cautions}
    grade: Grade = "bad" if "bad" in levels else "careful" if "warn" in levels else "good"
    return Verdict(grade, _of_test(test, cautions, _seen(result)))


def _seen(result: Mapping[str, Any]) -> str:
    """Return how new the images of a test were to the model."""
    data, count = result.get("data") or {}, result["test"]["n"]
    trained, chose = (data.get("also_in_train") or {}).get("test", 0), data.get("chose_model", 0)
    if trained >= count:
        return "it was trained on"
    if trained:
        return f"of which {trained:,} were trained on"
    if chose >= count:
        return "by which it was chosen"
    return f"of which {chose:,} have chosen it" if chose else "it had never seen"


def _of_unfinished(result: Mapping[str, Any]) -> str:
    how = {"stopped": "Stopped before its end", "failed": "Failed"}[result["status"]]
    reason = f" ({result['reason']})" if result.get("reason") else ""
    best, val = result.get("best"), result.get("val")
    if not best or not val or "acc" not in val:
        return f"{how}{reason}, before anything was validated."
    return (
        f"{how}{reason}. Not tested; best so far in epoch {best['epoch']}, with {val['acc']:.1%} of the validation "
        "images right."
    )


def _of_test(test: Mapping[str, Any], cautions: Sequence[Caution], seen: str) -> str:
    count = test["n"]
    if "per_label" in test:
        right = f"All labels right on {round(test['acc_exact'] * count):,} of {count:,} images {seen}"
    elif "tasks" in test:
        each = ", ".join(f"{task} {figures['acc']:.1%}" for task, figures in test["tasks"].items())
        right = f"Right on {count:,} images {seen}: {each}"
    else:
        right = f"Right on {round(test['acc'] * count):,} of {count:,} images {seen}"
    return f"{right}; {_weakness(dict(test), cautions)}."


def _weakness(test: dict[str, Any], cautions: Sequence[Caution]) -> str:
    hidden = ("never-predicted", "poor-recall")
    name, f1 = weakest_class(test)
    if any(caution.level == "bad" and caution.code in hidden for caution in cautions):
        name, recall = _least_found(test)
        return f"yet bad: of '{name}' it finds {recall:.0%}"
    if any(caution.code == "no-better-than-constant" for caution in cautions):
        return "that is bad: one answer for every image would be as often right"
    if f1 >= 1 - _ALL_SAME:
        return "no class is weaker than another"
    return f"weakest on '{name}' (F1 {f1:.3f})"


def _least_found(test: Mapping[str, Any]) -> tuple[str, float]:
    parts = test.get("tasks", {"": test})
    recalls = {
        f"{task} {name}".strip(): own["recall"]
        for task, figures in parts.items()
        for name, own in (figures.get("per_class") or figures["per_label"]).items()
        if own["support"]
    }
    name = min(recalls, key=lambda key: recalls[key])
    return name, recalls[name]
