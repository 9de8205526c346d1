"""The headline of a report: a grade of the model and one sentence on its test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unfreeze.results.result import RunWarning, weakest_class

Grade = Literal["good", "careful", "bad", "unknown"]
_PERFECT_MARGIN = 1e-9


@dataclass(frozen=True)
class Headline:
    """A grade and a sentence.

    Args:
        grade: "good": no warnings against the metrics; "careful": there are some; "bad": do not use the model as it
            is; "unknown": it was not tested.
        text: The sentence.
    """

    grade: Grade
    text: str


def build_headline(result: Mapping[str, Any], warnings: Sequence[RunWarning]) -> Headline:
    """Return the headline of a run.

    Args:
        result: The content of result.json.
        warnings: The warnings of the run.
    """
    test, val = result.get("test"), result.get("val")
    if result["status"] != "completed":
        return Headline("unknown", _of_unfinished(result))
    if test is None:
        known = f" Validation accuracy, by which it was selected: {val['acc']:.1%}." if val and "acc" in val else ""
        return Headline("unknown", f"Not tested.{known}")
    levels = {warning.level for warning in warnings}
    grade: Grade = "bad" if "bad" in levels else "careful" if "warn" in levels else "good"
    return Headline(grade, _of_test(test, warnings, _exposure(result)))


def _exposure(result: Mapping[str, Any]) -> str:
    """Return in words which of the test images the model was trained or selected on."""
    data, count = result.get("data") or {}, result["test"]["n"]
    trained, chose = (data.get("also_in_train") or {}).get("test", 0), data.get("chose_model", 0)
    if trained >= count:
        return "it was trained on"
    if trained:
        return f"of which {trained:,} were trained on"
    if chose >= count:
        return "it was selected on"
    return f"of which {chose:,} were used to select it" if chose else "it had never seen"


def _of_unfinished(result: Mapping[str, Any]) -> str:
    how = {"stopped": "Stopped before its end", "failed": "Failed"}[result["status"]]
    reason = f" ({result['reason']})" if result.get("reason") else ""
    best, val = result.get("best"), result.get("val")
    if not best or not val or "acc" not in val:
        return f"{how}{reason}, before anything was validated."
    return f"{how}{reason}. Not tested; best so far in epoch {best['epoch']}, validation accuracy {val['acc']:.1%}."


def _of_test(test: Mapping[str, Any], warnings: Sequence[RunWarning], exposure: str) -> str:
    count = test["n"]
    if "per_label" in test:
        right = f"All labels right on {round(test['acc_exact'] * count):,} of {count:,} images {exposure}"
    elif "tasks" in test:
        each = ", ".join(f"{task} {metrics['acc']:.1%}" for task, metrics in test["tasks"].items())
        right = f"Right on {count:,} images {exposure}: {each}"
    else:
        right = f"Right on {round(test['acc'] * count):,} of {count:,} images {exposure}"
    return f"{right}; {_weakness(dict(test), warnings)}."


def _weakness(test: dict[str, Any], warnings: Sequence[RunWarning]) -> str:
    hidden = ("never-predicted", "poor-recall")
    name, f1 = weakest_class(test)
    if any(warning.level == "bad" and warning.code in hidden for warning in warnings):
        name, recall = _lowest_recall(test)
        return f"but the recall of '{name}' is only {recall:.0%}"
    if any(warning.code == "no-better-than-constant" for warning in warnings):
        return "no better than predicting one class for every image"
    if f1 >= 1 - _PERFECT_MARGIN:
        return "no class is weaker than another"
    return f"weakest on '{name}' (F1 {f1:.3f})"


def _lowest_recall(test: Mapping[str, Any]) -> tuple[str, float]:
    parts = test.get("tasks", {"": test})
    recalls = {
        f"{task} {name}".strip(): own["recall"]
        for task, metrics in parts.items()
        for name, own in (metrics.get("per_class") or metrics["per_label"]).items()
        if own["support"]
    }
    name = min(recalls, key=lambda key: recalls[key])
    return name, recalls[name]
