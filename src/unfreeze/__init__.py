"""Transfer learning on images with staged unfreezing.

The names below are loaded on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.inference.prediction import Prediction
    from unfreeze.models.checkpoint import load_classifier
    from unfreeze.models.classifier import Classifier, build_classifier
    from unfreeze.runs.loaded_run import Run, load_run
    from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
    from unfreeze.training.module import ImageClassifier
    from unfreeze.training.plan.plan import Plan, Rates, Stage

_HOMES = {
    "Classifier": "unfreeze.models.classifier",
    "ImageClassifier": "unfreeze.training.module",
    "ImageDataModule": "unfreeze.data.datamodule",
    "Plan": "unfreeze.training.plan.plan",
    "Prediction": "unfreeze.inference.prediction",
    "Rates": "unfreeze.training.plan.plan",
    "Run": "unfreeze.runs.loaded_run",
    "Stage": "unfreeze.training.plan.plan",
    "StagedUnfreezing": "unfreeze.training.callbacks.staged_unfreezing",
    "build_classifier": "unfreeze.models.classifier",
    "load_classifier": "unfreeze.models.checkpoint",
    "load_run": "unfreeze.runs.loaded_run",
}

__all__ = [
    "Classifier",
    "ImageClassifier",
    "ImageDataModule",
    "Plan",
    "Prediction",
    "Rates",
    "Run",
    "Stage",
    "StagedUnfreezing",
    "build_classifier",
    "load_classifier",
    "load_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
