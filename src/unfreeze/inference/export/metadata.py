"""Metadata of an exported file: classes, preprocessing, network, versions."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from unfreeze.inference.export.graph import Signature
from unfreeze.models.classifier import Classifier

_LIBRARIES = ("unfreeze", "torch", "torchvision", "timm", "onnx", "onnxscript")


def describe(classifier: Classifier, signature: Signature) -> dict[str, Any]:
    """Return the metadata as plain values, without paths of this machine."""
    outputs, spec = classifier.outputs, classifier.spec
    tasks = {task.name: list(task.classes) for task in outputs.tasks}
    return {
        "task": _kind(classifier),
        "classes": next(iter(tasks.values())) if len(tasks) == 1 else tasks,
        "thresholds": list(classifier.thresholds) if classifier.thresholds else None,
        **signature.to_dict(),
        "preprocessing": {
            **classifier.preprocessing.to_dict(),
            "inside": signature.inside,
            "native_px": list(classifier.native_px) if classifier.native_px else None,
        },
        "architecture": {
            "name": spec.name,
            "source": spec.source,
            "in_chans": spec.in_chans,
            "options": dict(spec.options),
            "repo": None if spec.repo is None or Path(spec.repo).expanduser().is_dir() else spec.repo,
            "head": classifier.head.name,
            "heads": list(classifier.heads),
        },
        "weights": weights_name(classifier),
        "versions": {"python": python_version(), **_versions()},
    }


def weights_name(classifier: Classifier) -> str | None:
    """Return the name of the initial weights, published or from a file; None for random ones."""
    return Path(classifier.weights).name if classifier.weights else None


def as_strings(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata for formats that store only strings: other values as ASCII JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def _kind(classifier: Classifier) -> str:
    if classifier.outputs.multilabel:
        return "multi-label classification"
    return "classification" if len(classifier.outputs.tasks) == 1 else "multi-task classification"


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
