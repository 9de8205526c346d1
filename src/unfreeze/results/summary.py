"""The terminal summary of a run or an evaluation."""

from typing import Any

from unfreeze.results.result import RunResult, weakest_class
from unfreeze.system.text import format_seconds

_SHOWN = {
    "accuracy": "acc",
    "all labels": "acc_exact",
    "balanced": "acc_balanced",
    "ranking": "ap_macro",
    "f1 macro": "f1_macro",
}
"""The metrics of the summary, if the objective has them."""


def format_result(result: RunResult, place: str, *, page: str, total_seconds: float) -> list[str]:
    """Return the closing lines of a run for the terminal.

    Args:
        result: The run's result.
        place: The run's directory, for the command that resumes it.
        page: Path of the report.
        total_seconds: Wall time of the run, with loading, testing and reporting.
    """
    if result.status != "completed":
        resume = [f"  go on with: python train.py resume={place}"] if result.can_go_on else []
        return ["", f"  {result.status:<13} {result.reason}", *resume, f"  {page}"]
    assert result.best is not None and result.val is not None
    test = result.test
    title = (
        f"test (once, epoch {result.best['epoch']}, {result.best['stage']})"
        if test
        else f"epoch {result.best['epoch']}"
    )
    lines = ["", f"  {'result':<13} val     {title}"]
    for name, key in _SHOWN.items():
        if key in result.val:
            lines.append(f"  {name:<13} {result.val[key]:.3f}   {_test_value(test, key)}".rstrip())
    if test:
        name, f1 = weakest_class(test)
        lines[-1] += f"     weakest {'label' if 'per_label' in test else 'class'}: {name} {f1:.3f}"
        if "ece" in test:
            lines.append(f"  {'calibration':<13}         {test['ece']:.3f}{_after_scaling(result, test)}")
        for task, metrics in test.get("tasks", {}).items():
            lines.append(f"  {task:<13} {result.val[f'{task}/acc']:.3f}   {metrics['acc']:.3f} (accuracy)")
    stages = ", ".join(f"{stage['name']} {format_seconds(stage['seconds'])}" for stage in result.stages)
    lines.append(f"  {'time':<13} {format_seconds(total_seconds)}: {stages}")
    warnings = [f"  ! {warning.text}" for warning in result.warnings if warning.level != "note"]
    return [*lines, *([""] if warnings else []), *warnings, "", f"  {page}"]


def _after_scaling(result: RunResult, test: dict[str, Any]) -> str:
    if "ece_scaled" not in test or result.temperatures is None:
        return " (expected error)"
    temperatures = ", ".join(f"{value:.2f}" for value in result.temperatures)
    return f" → {test['ece_scaled']:.3f} after temperature {temperatures}"


def format_test(result: dict[str, Any]) -> list[str]:
    """Return the lines of an evaluation for the terminal."""
    test = result["test"]
    lines = ["", f"  {result['evaluated']}, {test['n']:,} images"]
    lines += [f"  {name:<13} {_test_value(test, key)}" for name, key in _SHOWN.items() if test.get(key) is not None]
    name, f1 = weakest_class(test)
    lines.append(f"  {'weakest':<13} {name} {f1:.3f} (F1)")
    return lines + [f"  ! {warning['text']}" for warning in result["warnings"] if warning["level"] != "note"]


def _test_value(test: dict[str, Any] | None, key: str) -> str:
    value = test.get(key) if test else None
    if test is None or value is None:
        return ""
    ends = (test.get("intervals") or {}).get(key)
    return f"{value:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else f"{value:.3f}"
