"""Checkpoints of networks that have learnt nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unfreeze.models.classifier import CHECKPOINT_SCHEMA, Classifier, build_classifier
from unfreeze.models.outputs import Outputs
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.weights import CHECKPOINT_KEY

SaveCheckpoint = Callable[..., Path]


@pytest.fixture
def save_checkpoint(tmp_path: Path) -> SaveCheckpoint:
    """Return a function that writes the checkpoint of a tiny network with random weights."""

    def save(
        outputs: Outputs | tuple[str, ...] = ("cat", "dog", "fox"),
        *,
        in_chans: int = 3,
        native_px: tuple[int, int] | None = None,
        thresholds: list[float] | None = None,
        name: str = "net.ckpt",
    ) -> Path:
        torch.manual_seed(0)
        several = isinstance(outputs, Outputs) and len(outputs.tasks) > 1
        classifier = build_classifier(
            ModelSpec("tiny", in_chans=in_chans),
            classes=outputs,
            weights=None,
            head=HeadSpec(tasks=outputs.sizes) if several else None,
            image_size=32,
        )
        for module in classifier.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_var, 0.02, 0.1)  # else all that it says is nearly the same
        record = classifier.to_record() | {"thresholds": thresholds, "native_px": native_px}
        state = {f"network.{key}": value for key, value in classifier.network.state_dict().items()}
        torch.save(
            {CHECKPOINT_KEY: {"schema": CHECKPOINT_SCHEMA, "classifier": record}, "state_dict": state}, tmp_path / name
        )
        return tmp_path / name

    return save


def logits_of(classifier: Classifier, images: torch.Tensor) -> torch.Tensor:
    """Return what a classifier says of uint8 images, shape (N, C, H, W), as training has it say."""
    with torch.no_grad():
        return classifier.network(classifier.preprocessing(images))
