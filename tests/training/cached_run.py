"""A small fit with a cache, and what it left."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from tests.training.conftest import Probe, make_classifier, make_source
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.splits.splits import split_source
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.prefix_cache import FrozenPrefixCache
from unfreeze.training.module import ImageClassifier
from unfreeze.training.plan.plan import Rates, Stage

Fit = Callable[..., L.Trainer]
HEAD = Stage("head", 1, 3)
BLOCK = Stage("block", 2, 3)


def make_data(seed: int = 0, per_class: int = 12) -> ImageDataModule:
    source = make_source(per_class, seed=seed)
    return ImageDataModule(source, batch_size=8, splits=split_source(source, val_fraction=0.2))


class Run:
    """A fit with a cache, and what it left."""

    def __init__(
        self,
        fit: Fit,
        stages: list[Stage],
        *,
        options: PrefixCacheOptions | None = None,
        cached: bool = True,
        augment: str = "none",
        data: ImageDataModule | None = None,
        look: Callable[[L.Trainer, ImageClassifier], Any] = lambda trainer, module: None,
        change: Callable[[ImageClassifier], None] = lambda module: None,
        **rest: Any,
    ) -> None:
        torch.manual_seed(0)
        self.module = ImageClassifier(make_classifier(), augment=augment)
        change(self.module)
        self.reports: list[dict[str, Any]] = []
        unfreezing = StagedUnfreezing(stages, rates=Rates(head=1e-2, decay=0.3), restore="last", **rest)
        self.cache = FrozenPrefixCache(unfreezing, options=options, on_ready=self.reports.append)
        self.probe = Probe(look)
        self.prefix_images = 0
        stem = self.module.network.conv1
        stem.register_forward_hook(lambda _module, inputs, _output: self._count(inputs[0]))
        callbacks = [unfreezing, *([self.cache] if cached else []), self.probe]
        self.trainer = fit(self.module, callbacks, data=data or make_data())

    def _count(self, images: torch.Tensor) -> None:
        self.prefix_images += len(images)

    @property
    def val_acc(self) -> float:
        return float(self.trainer.callback_metrics["val/acc"])
