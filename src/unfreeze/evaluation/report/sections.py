"""Rows of text for the sections of a report page."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unfreeze.evaluation.confusions import count_confusions, most_frequent_confusions
from unfreeze.evaluation.predictions import TaskPredictions, predictions_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.results.monitor import mode_of
from unfreeze.system.text import format_seconds

_HEADLINE = {
    "acc": "accuracy",
    "acc_exact": "all labels right",
    "acc_balanced": "balanced accuracy",
    "f1_macro": "F1, macro",
    "precision_macro": "precision, macro",
    "recall_macro": "recall, macro",
    "acc_top5": "top-5 accuracy",
    "ap_macro": "average precision, macro",
    "auroc_macro": "ROC AUC, macro",
    "mcc": "Matthews correlation",
    "ece": "calibration error",
    "brier": "Brier score",
}
_OVERFIT = 0.05
"""Least gap between training and validation accuracy of a stage that overfits."""

_OF_TASK = ("acc", "acc_balanced", "f1_macro", "auroc_macro", "ece")
_COLUMNS = ("precision", "recall", "f1", "ap", "auroc")
_COLUMN_NAMES = {"f1": "F1", "ap": "average precision", "auroc": "ROC AUC"}


def model_of(record: RunRecord) -> str:
    """Return the name of the network."""
    return str((record.config.get("model") or {}).get("name", "a model"))


def status_lines(record: RunRecord) -> Iterator[str]:
    """Yield lines on how the run ended, unless it simply completed."""
    result = record.result
    status, reason = result["status"], result.get("reason")
    if status != "completed":
        how = "was stopped" if status == "stopped" else "failed"
        yield f"This run {how}: {reason or 'no reason was recorded'}."
        if record.directory.last.is_file():
            yield "Resume it with: python train.py resume=<its directory>"
    for resumed in result.get("resumed") or []:
        yield f"It was interrupted and resumed in epoch {resumed['epoch']}, after step {resumed['step']:,}."
    started = len(record.stages)
    for number, (stage, planned) in enumerate(
        zip(record.stages, record.plan["stages"] if record.plan else (), strict=False)
    ):
        has_ended = number + 1 < started or status == "completed"
        if has_ended and planned["patience"] is not None and stage["epochs"] < planned["epochs"]:
            yield (
                f"Stage {stage['name']} was stopped early, after {stage['epochs']} of {planned['epochs']} epochs: "
                f"no improvement in validation for {planned['patience']}."
            )
    if result.get("evaluated"):
        yield f"An evaluation on {result['evaluated']}, apart from the run's own test."


def headline_metrics(result: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the main metrics, each with its interval or its value after temperature scaling."""
    test = result.get("test")
    if test is not None and "tasks" in test:
        for task, metrics in test["tasks"].items():
            yield from _rows({key: metrics.get(key) for key in (*_OF_TASK, "intervals")}, of=f", {task}")
        return
    yield from _rows(test or result.get("val") or {})


def _rows(metrics: Mapping[str, Any], of: str = "") -> Iterator[dict[str, str]]:
    intervals = metrics.get("intervals") or {}
    for key, name in _HEADLINE.items():
        value = metrics.get(key)
        if value is None:
            continue
        ends = intervals.get(key)
        detail = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        if f"{key}_scaled" in metrics:
            detail = f"{metrics[f'{key}_scaled']:.3f} after temperature scaling"
        yield {"name": f"{name}{of}", "value": f"{value:.3f}", "detail": detail}


def metrics_note(result: Mapping[str, Any]) -> str:
    """Return a sentence on the images and weights of the main metrics."""
    test = result.get("test")
    if test is None:
        return "Of the validation images, which chose the model; there was no test."
    best, temperatures = result.get("best"), result.get("temperatures")
    once = "images" if result.get("evaluated") else "test images, evaluated once"
    parts = [f"On {test['n']:,} {once}"]
    if best:
        parts[0] += f", by the weights of epoch {best['epoch']} ({best['stage']})"
    if test.get("intervals"):
        parts.append("ranges are 95 % bootstrap intervals")
    if temperatures:
        names = list(test["tasks"]) if "tasks" in test else [""]
        values = ", ".join(f"{name} {value:.2f}".strip() for name, value in zip(names, temperatures, strict=True))
        parts.append(f"the temperature, {values}, was fitted on validation")
    return "; ".join(parts) + "."


def class_tables(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield a table of classes or labels per task, the weakest first."""
    test = record.result.get("test")
    if test is None:
        return
    stored = record.predictions
    has_test = stored is not None and "test" in stored.splits
    tasks = predictions_by_task(stored.splits["test"], stored.outputs) if stored is not None and has_test else []
    for number, (name, metrics) in enumerate(test.get("tasks", {"": test}).items()):
        kind = "label" if "per_label" in metrics else "class"
        rows = metrics.get("per_class") or metrics.get("per_label") or {}
        columns = [key for key in _COLUMNS if any(key in own for own in rows.values())]
        yield {
            "title": f"Metrics per {kind}{f', {name}' if name else ''}",
            "confusions": _confusions(tasks[number]) if tasks else [],
            "columns": [kind, *(_COLUMN_NAMES.get(key, key) for key in columns), "images", "predicted"],
            "rows": _class_rows(rows, columns),
        }


def _confusions(task: TaskPredictions) -> list[dict[str, Any]]:
    return [
        {"true": task.classes[true], "predicted": task.classes[predicted], "count": count}
        for true, predicted, count in most_frequent_confusions(count_confusions(task), 8)
    ]


def _class_rows(rows: Mapping[str, Any], columns: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "cells": [
                *(_number(own.get(key)) for key in columns),
                f"{own['support']:,}",
                f"{own.get('predicted', 0):,}",
            ],
        }
        for name, own in sorted(rows.items(), key=lambda pair: pair[1]["f1"])
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def stage_rows(record: RunRecord) -> Iterator[dict[str, str]]:
    """Yield the trained groups, cost and gain of each stage."""
    monitor = str(record.result.get("monitor", "val/acc"))
    before: float | None = None
    for stage in record.stages:
        score = stage.get(monitor)
        gain = "-" if score is None or before is None else f"{score - before:+.3f}"
        yield {
            "name": stage["name"],
            "groups": ", ".join(stage.get("groups", [])),
            "parameters": f"{stage['trainable']:,}",
            "epochs": str(stage["epochs"]),
            "time": format_seconds(stage["seconds"]),
            "memory": f"{stage['memory_mb']:,} MB" if stage.get("memory_mb") else "-",
            "score": _number(score),
            "gain": gain,
        }
        before = score if score is not None else before


def stages_note(record: RunRecord) -> str:
    """Return a sentence on all stages: time, parameters and cached features."""
    total = f" of {record.stages[0]['total']:,} parameters" if record.stages else ""
    seconds = record.result.get("seconds")
    cached = [stage["name"] for stage in record.stages if stage.get("cache")]
    parts = [
        f"Training took {format_seconds(seconds)}" if seconds else "",
        f"trainable parameters{total}" if total else "",
    ]
    parts.append(f"{', '.join(cached)} trained on cached features" if cached else "")
    parts.append("gain is over the stage before, in validation")
    return "; ".join(part for part in parts if part) + "."


def stage_advice(record: RunRecord) -> str:
    """Return advice if the last stages do not improve on an earlier one; empty if the last one is the best.

    It depends on the gap between training and validation accuracy in the last stage's best epoch.
    """
    monitor = str(record.result.get("monitor", "val/acc"))
    scored = [stage for stage in record.stages if stage.get(monitor) is not None]
    best, later = _best_stage(scored, monitor)
    if best is None or not later:
        return ""
    scores = ", ".join(f"{stage['name']} {_number(stage[monitor])}" for stage in later)
    parts = [f"No later stage improves on {best['name']} ({monitor} {_number(best[monitor])}): {scores}."]
    count = (record.result.get("data") or {}).get("val")
    if count and monitor == "val/acc" and _is_within_chance(best[monitor], later, count):
        parts.append(f"With {count:,} validation images such differences may be chance.")
    fewer = f"only the stages up to {best['name']}" if best is not scored[0] else "strategy=feature_extraction"
    images = (record.result.get("data") or {}).get("train")
    overfit = _overfit(record, later[-1])
    if overfit is not None:
        train, val = overfit
        more = f"more than the {images:,} training images" if images else "more training images"
        parts.append(f"{later[-1]['name']} overfits (accuracy {train:.3f} in training, {val:.3f} in validation).")
        parts.append(f"Try {more}, augment=strong, or fewer stages: {fewer}.")
    else:
        rate = ((record.config.get("strategy") or {}).get("lr") or {}).get("head")
        lower = f" (strategy.lr.head={rate / 3:.1g}, from {rate:g})" if rate else ""
        parts.append(f"Try a lower rate in the later stages{lower}, or fewer stages: {fewer}.")
    return " ".join(parts)


def _best_stage(
    stages: Sequence[Mapping[str, Any]], monitor: str
) -> tuple[Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]:
    """Return the first stage with the best monitored value, and those after it."""
    if not stages:
        return None, ()
    sign = 1 if mode_of(monitor) == "max" else -1
    index = max(range(len(stages)), key=lambda number: (sign * stages[number][monitor], -number))
    return stages[index], stages[index + 1 :]


def _is_within_chance(best: float, later: Sequence[Mapping[str, Any]], count: int) -> bool:
    """Return whether the best of some later accuracies is within two standard errors of an earlier one."""
    nearest = max(stage["val/acc"] for stage in later)
    return bool(best - nearest <= 2 * (nearest * (1 - nearest) / count) ** 0.5)


def _overfit(record: RunRecord, stage: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return a stage's training and validation accuracy at its best epoch if the gap is wide, else None."""
    row = next((row for row in record.history if row["epoch"] == stage.get("best_epoch")), {})
    train, val = row.get("train/acc"), row.get("val/acc")
    return (train, val) if train is not None and val is not None and train - val >= _OVERFIT else None


def data_rows(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield name and value of the facts about the images."""
    facts, config = record.result.get("data") or {}, record.config.get("data") or {}
    place = config.get("root") or config.get("csv") or config.get("name")
    yield "images", str(place)
    for split in ("train", "val", "test"):
        if split in facts:
            own = (record.splits.get("splits") or {}).get(split) or {}
            origin = ", held out from train" if own.get("cut_from_train") else ""
            proof = f"; hash {own['hash']}" if own.get("hash") else ""
            yield split, f"{facts[split]:,} images{origin}{proof}"
    if facts.get("unreadable"):
        yield "left out", f"{facts['unreadable']:,} images that can't be read"
    also = facts.get("also_in_train") or {}
    yield "also in train", f"{also.get('val', 0):,} of val, {also.get('test', 0):,} of test, byte for byte"
    if facts.get("fingerprint"):
        yield "fingerprint", str(facts["fingerprint"])


def command_of(result: Mapping[str, Any]) -> str:
    """Return the command that repeats the run."""
    typed = [shlex.quote(override) for override in result.get("overrides") or []]
    begin = ["unfreeze evaluate", shlex.quote(result["run"])] if result.get("evaluated") else ["python train.py"]
    return " ".join([*begin, *typed])


def reproduction_rows(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield name and value of the other settings that the run depends on."""
    result = record.result
    yield "seed", str(result.get("seed"))
    compute = result.get("compute") or {}
    if compute:
        layout = "channels last" if compute.get("channels_last") else "channels first"
        yield "computed in", f"{compute.get('precision')}, {layout}"
    versions = result.get("versions") or {}
    if versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "all settings", "config.yaml, and plan.txt for what was planned, beside this page"
