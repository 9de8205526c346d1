"""What the parts of a page say of a run, as rows of text."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unfreeze.evaluation.confusions import commonest_confusions, count_confusions
from unfreeze.evaluation.predictions import answers_by_task
from unfreeze.evaluation.record import RunRecord
from unfreeze.results.monitor import mode_of
from unfreeze.results.run_directory import last_of
from unfreeze.system.text import format_seconds

_HEADLINE = {
    "acc": "accuracy",
    "acc_exact": "all labels right",
    "acc_balanced": "balanced accuracy",
    "f1_macro": "F1, macro",
    "precision_macro": "precision, macro",
    "recall_macro": "recall, macro",
    "acc_top5": "among the first five",
    "ap_macro": "average precision, macro",
    "auroc_macro": "ROC AUC, macro",
    "mcc": "Matthews correlation",
    "ece": "calibration error",
    "brier": "Brier score",
}
_OVERFIT = 0.05
"""Accuracy in training above that in validation from which a stage is said to overfit."""

_OF_TASK = ("acc", "acc_balanced", "f1_macro", "auroc_macro", "ece")
_COLUMNS = ("precision", "recall", "f1", "ap", "auroc")
_COLUMN_NAMES = {"f1": "F1", "ap": "average precision", "auroc": "ROC AUC"}


def model_of(record: RunRecord) -> str:
    """Return what the network is called."""
    return str((record.config.get("model") or {}).get("name", "a model"))


def status_lines(record: RunRecord) -> Iterator[str]:
    """Yield what became of the run, where it did not simply end."""
    result = record.result
    status, reason = result["status"], result.get("reason")
    if status != "completed":
        how = "was stopped" if status == "stopped" else "failed"
        yield f"This run {how}: {reason or 'no reason was left'}."
        if last_of(record.folder).is_file():
            yield "It goes on with: python train.py resume=<its directory>"
    for resumed in result.get("resumed") or []:
        yield f"It was interrupted and resumed in epoch {resumed['epoch']}, after step {resumed['step']:,}."
    begun = len(record.stages)
    for number, (stage, planned) in enumerate(
        zip(record.stages, record.plan.stages if record.plan else (), strict=False)
    ):
        has_ended = number + 1 < begun or status == "completed"
        if has_ended and planned.patience is not None and stage["epochs"] < planned.epochs:
            yield (
                f"Stage {stage['name']} was stopped early, after {stage['epochs']} of {planned.epochs} epochs: "
                f"validation had not improved for {planned.patience}."
            )
    if result.get("evaluated"):
        yield f"An evaluation on {result['evaluated']}, apart from the run's own test."


def headline_figures(result: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the figures that come first, each with its interval, or with what scaling makes of it."""
    test = result.get("test")
    if test is not None and "tasks" in test:
        for task, figures in test["tasks"].items():
            yield from _figures({key: figures.get(key) for key in (*_OF_TASK, "intervals")}, of=f", {task}")
        return
    yield from _figures(test or result.get("val") or {})


def _figures(figures: Mapping[str, Any], of: str = "") -> Iterator[dict[str, str]]:
    intervals = figures.get("intervals") or {}
    for key, name in _HEADLINE.items():
        value = figures.get(key)
        if value is None:
            continue
        ends = intervals.get(key)
        detail = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        if f"{key}_scaled" in figures:
            detail = f"{figures[f'{key}_scaled']:.3f} after temperature scaling"
        yield {"name": f"{name}{of}", "value": f"{value:.3f}", "detail": detail}


def headline_note(result: Mapping[str, Any]) -> str:
    """Return where these figures come from."""
    test = result.get("test")
    if test is None:
        return "Of the validation images, which chose the model; there was no test."
    best, temperatures = result.get("best"), result.get("temperatures")
    once = "images" if result.get("evaluated") else "test images, looked at once"
    parts = [f"On {test['n']:,} {once}"]
    if best:
        parts[0] += f", by the weights of epoch {best['epoch']} ({best['stage']})"
    if test.get("intervals"):
        parts.append("ranges are 95 % bootstrap intervals")
    if temperatures:
        names = list(test["tasks"]) if "tasks" in test else [""]
        told = ", ".join(f"{name} {value:.2f}".strip() for name, value in zip(names, temperatures, strict=True))
        parts.append(f"the temperature, {told}, was fitted on validation")
    return "; ".join(parts) + "."


def class_tables(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Yield a table of classes or labels per task, the weakest first."""
    test = record.result.get("test")
    if test is None:
        return
    kept = record.predictions
    tasks = answers_by_task(kept.splits["test"], kept.outputs) if kept is not None and "test" in kept.splits else []
    for number, (task, figures) in enumerate(test.get("tasks", {"": test}).items()):
        by_label = "per_label" in figures
        rows = figures.get("per_class") or figures.get("per_label") or {}
        columns = [key for key in _COLUMNS if any(key in own for own in rows.values())]
        confusions = commonest_confusions(count_confusions(tasks[number]), 8) if tasks else []
        yield {
            "title": f"Metrics per {'label' if by_label else 'class'}{f', {task}' if task else ''}",
            "confusions": [
                {"true": tasks[number].classes[true], "said": tasks[number].classes[said], "count": count}
                for true, said, count in confusions
            ],
            "columns": [
                "label" if by_label else "class",
                *(_COLUMN_NAMES.get(key, key) for key in columns),
                "images",
                "predicted",
            ],
            "rows": [
                {
                    "name": name,
                    "cells": [
                        *(_figure(own.get(key)) for key in columns),
                        f"{own['support']:,}",
                        f"{own.get('predicted', 0):,}",
                    ],
                }
                for name, own in sorted(rows.items(), key=lambda pair: pair[1]["f1"])
            ],
        }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def stage_rows(record: RunRecord) -> Iterator[dict[str, str]]:
    """Yield what each stage trained, cost and gained."""
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
            "score": _figure(score),
            "gain": gain,
        }
        before = score if score is not None else before


def stages_note(record: RunRecord) -> str:
    """Return what is to be said of all stages."""
    total = f" of {record.stages[0]['total']:,} parameters" if record.stages else ""
    seconds = record.result.get("seconds")
    cached = [stage["name"] for stage in record.stages if stage.get("cache")]
    parts = [
        f"Training took {format_seconds(seconds)}" if seconds else "",
        f"parameters that train{total}" if total else "",
    ]
    parts.append(f"{', '.join(cached)} trained on cached features" if cached else "")
    parts.append("gain is over the stage before, in validation")
    return "; ".join(part for part in parts if part) + "."


def stage_advice(record: RunRecord) -> str:
    """Return what to try where no stage is better than an earlier one; empty where the last one is the best.

    The reason is read from the last stage's best epoch: the gap between training and validation accuracy.
    """
    monitor = str(record.result.get("monitor", "val/acc"))
    scored = [stage for stage in record.stages if stage.get(monitor) is not None]
    best, later = _best_stage(scored, monitor)
    if best is None or not later:
        return ""
    told = ", ".join(f"{stage['name']} {_figure(stage[monitor])}" for stage in later)
    parts = [f"No later stage improves on {best['name']} ({monitor} {_figure(best[monitor])}): {told}."]
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
    """Return whether the best of some accuracies lies within two standard errors below another."""
    nearest = max(stage["val/acc"] for stage in later)
    return bool(best - nearest <= 2 * (nearest * (1 - nearest) / count) ** 0.5)


def _overfit(record: RunRecord, stage: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return a stage's accuracy in training and in validation at its best epoch where they lie far apart."""
    row = next((row for row in record.history if row["epoch"] == stage.get("best_epoch")), {})
    train, val = row.get("train/acc"), row.get("val/acc")
    return (train, val) if train is not None and val is not None and train - val >= _OVERFIT else None


def data_rows(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield what is known of the images, by name."""
    about, config = record.result.get("data") or {}, record.config.get("data") or {}
    place = config.get("root") or config.get("csv") or config.get("name")
    yield "images", str(place)
    for split in ("train", "val", "test"):
        if split in about:
            own = (record.splits.get("splits") or {}).get(split) or {}
            origin = ", cut from train" if own.get("cut_from_train") else ""
            proof = f"; hash {own['hash']}" if own.get("hash") else ""
            yield split, f"{about[split]:,} images{origin}{proof}"
    if about.get("unreadable"):
        yield "left out", f"{about['unreadable']:,} images that can't be read"
    also = about.get("also_in_train") or {}
    yield "also in train", f"{also.get('val', 0):,} of val, {also.get('test', 0):,} of test, byte for byte"
    if about.get("fingerprint"):
        yield "fingerprint", str(about["fingerprint"])


def command_of(result: Mapping[str, Any]) -> str:
    """Return what to type for the same run."""
    typed = [shlex.quote(override) for override in result.get("overrides") or []]
    begin = ["unfreeze evaluate", shlex.quote(result["run"])] if result.get("evaluated") else ["python train.py"]
    return " ".join([*begin, *typed])


def reproduction_rows(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield what else the run depends on, by name."""
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
