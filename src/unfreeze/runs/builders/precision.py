"""The precision of a run: typed, saved with the run that is resumed, or chosen by the rule."""

import json
from pathlib import Path

import torch

from unfreeze.config.schema import Config
from unfreeze.models.classifier import Classifier
from unfreeze.results.run_directory import RunDirectory
from unfreeze.training.precision.precision import AUTO, FLOAT32, Precision
from unfreeze.training.precision.rule import choose_precision


def find_precision(config: Config, *, classifier: Classifier, device: torch.device) -> Precision:
    """Return the precision of a run; all ranks find the same on devices of one kind.

    Args:
        config: Checked values.
        classifier: Left as it is.
        device: Where this process trains.
    """
    asked = str(config.trainer.get("precision") or FLOAT32)
    saved = read_precision(RunDirectory(Path(config.resume))) if config.resume else None
    if asked != AUTO:
        precision = FLOAT32 if asked == "32" else asked
        return Precision(precision, channels_last=saved is None or saved.channels_last)
    return saved or choose_precision(classifier.network, image_shape=classifier.preprocessing.shape, device=device)


def with_precision(config: Config, precision: Precision) -> Config:
    """Return the configuration with the precision that was found."""
    return config.model_copy(update={"trainer": {**config.trainer, "precision": precision.precision}})


def allow_tf32(config: Config, device: torch.device) -> None:
    """Allow or forbid TF32 on an NVIDIA GPU as `trainer.tf32` says; other devices are left as they are.

    Args:
        config: With the precision that was found. Null allows TF32 in matrix products where the precision is mixed;
            PyTorch allows it in convolutions unless `trainer.tf32` is false.
        device: Where this process trains.
    """
    if device.type != "cuda":
        return
    asked = config.trainer.get("tf32")
    products = "mixed" in str(config.trainer.get("precision")) if asked is None else asked
    torch.set_float32_matmul_precision("high" if products else "highest")
    torch.backends.cudnn.allow_tf32 = asked is not False


def read_precision(directory: RunDirectory) -> Precision | None:
    """Return the precision that was saved with a run; None where there is none."""
    try:
        return Precision.from_dict(json.loads(directory.precision_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
