"""Small, real training: a network with BatchNorm and dropout on images whose classes can be told apart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import ArrayImages
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.splits.splits import split_source
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.spec import HeadSpec
from unfreeze.training.module import ImageClassifier


def _data() -> ImageDataModule:
    source = make_source()
    return ImageDataModule(source, batch_size=8, splits=split_source(source, val_fraction=0.2))


def make_source(per_class: int = 12, classes: int = 3, side: int = 32, seed: int = 0) -> ImageSource:
    """Return noisy images whose brightness tells the class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    level = 40 + 170 * labels / max(1, classes - 1)
    noise = random.normal(0, 25, (len(labels), side, side, 3))
    pixels = np.clip(level[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    names = tuple(f"class{i}" for i in range(classes))
    return ImageSource("noise", names, ArrayImages(pixels), labels.astype(np.int64), np.full(len(labels), "train"))


def make_classifier(classes: int = 3, *, dropout: float | None = 0.3, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    names = [f"class{i}" for i in range(classes)]
    return build_classifier("tiny", classes=names, weights=None, head=HeadSpec(dropout=dropout), image_size=32)


def quiet_trainer(**options: Any) -> L.Trainer:
    """Return a Trainer that trains on the CPU, and writes and says nothing unless asked to."""
    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(accelerator="cpu", **{**silent, **options})


class Probe(Callback):
    """Notes what tests ask about, at each step."""

    def __init__(self, look: Callable[[L.Trainer, ImageClassifier], Any]) -> None:
        self._look = look
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(self._look(trainer, pl_module))


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Return a function that fits a module on noise with some callbacks."""

    def run(
        module: ImageClassifier,
        callbacks: Sequence[Callback],
        *,
        data: ImageDataModule | None = None,
        max_epochs: int = 50,
        **options: Any,
    ) -> L.Trainer:
        trainer = quiet_trainer(
            max_epochs=max_epochs,
            enable_checkpointing=options.pop("enable_checkpointing", False),
            default_root_dir=tmp_path,
            callbacks=list(callbacks),
            **options.pop("trainer", {}),
        )
        trainer.fit(module, data or _data(), **options)
        return trainer

    return run


def state_of(module: ImageClassifier) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.network.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], keys: Sequence[str] | None = None) -> bool:
    return all(torch.equal(a[key], b[key]) for key in (keys if keys is not None else a))
