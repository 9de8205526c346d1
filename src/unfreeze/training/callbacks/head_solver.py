"""A linear head solved by L-BFGS on cached features, its L2 strength chosen on validation (Kornblith et al. 2019)."""

import logging
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError
from unfreeze.models.classifier import find_linear_head
from unfreeze.system.accelerator import to_device
from unfreeze.system.signals import STOP
from unfreeze.system.text import format_seconds
from unfreeze.training.callback_order import check_comes_after
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.demand import data_of
from unfreeze.training.features.prefix_cache import FrozenPrefixCache
from unfreeze.training.features.table import FeatureTable, ServedFeatures
from unfreeze.training.logistic_regression import SolvedHead, solve_head
from unfreeze.training.losses import class_weights
from unfreeze.training.metrics import compute_and_reset, validation_metrics
from unfreeze.training.module import ImageClassifier
from unfreeze.training.objectives import Classify

log = logging.getLogger(__name__)


class HeadSolver(L.Callback):
    """Solves the head where a stage with `solver: lbfgs` starts; the epoch that follows, at rate 0, measures it.

    Args:
        stages: The callback whose stages are solved.
        cache: The callback that serves their features.
        on_solved: Called with what stages.json says of the solution.
    """

    def __init__(
        self,
        stages: StagedUnfreezing,
        cache: FrozenPrefixCache,
        *,
        on_solved: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._stages = stages
        self._cache = cache
        self._on_solved = on_solved

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse what can't be solved.

        Raises:
            UnfreezeError: If the run has several ranks, or the callbacks are in another order.
        """
        if stage == "fit":
            check_comes_after(trainer, self, self._stages, self._cache)
        if trainer.world_size > 1 and any(planned.solver for planned in self._stages.plan.stages):
            raise UnfreezeError("trainer.devices: solver lbfgs runs on one device; type trainer.devices=1")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Solve the head, unless that was done in this stage."""
        planned = self._stages.plan.stages[self._stages.stage]
        if planned.solver is None or self._stages.epochs_in_stage:
            return
        assert isinstance(pl_module, ImageClassifier)
        data, served = data_of(trainer), self._cache.served
        if served is None or served.train is None or served.evaluate is None:
            raise UnfreezeError(
                f"strategy.stages {planned.name!r}: solver lbfgs needs the features of all training and validation "
                "images, and they can't be had (the line above, or trainer.limit_val_batches, says why)"
            )
        started = time.monotonic()
        with STOP.at_once():
            solved = self._solve(pl_module, data, served)
        layer = find_linear_head(pl_module.classifier)
        with torch.no_grad():
            layer.weight.copy_(solved.weight)
            layer.bias.copy_(solved.bias)
        seconds = time.monotonic() - started
        log.info(
            f"  {'solved':<13} {planned.name} by L-BFGS · L2 {solved.l2:.3g} of {len(solved.tried)} strengths · "
            f"{self._stages.monitor} {solved.score:.3f} · {format_seconds(seconds)}"
        )
        if self._on_solved is not None:
            tried = {f"{l2:.3g}": round(score, 6) for l2, score in sorted(solved.tried.items())}
            self._on_solved({"l2": solved.l2, "tried": tried, "seconds": round(seconds, 3)})

    def _solve(self, module: ImageClassifier, data: ImageDataModule, served: ServedFeatures) -> SolvedHead:
        assert served.train is not None and served.evaluate is not None
        all_labels = torch.from_numpy(data.source.labels)
        labels, val_labels = all_labels[data.splits.train], all_labels[data.splits.val]
        features = _inputs_of(module, served, served.train, data.splits.train)
        val_features = _inputs_of(module, served, served.evaluate, data.splits.val)
        classes = len(data.classes)
        metrics = validation_metrics(classes)

        def evaluate(weight: Tensor, bias: Tensor) -> float:
            logits = F.linear(val_features, weight, bias)
            metrics.update(logits, val_labels)
            figures = {**compute_and_reset(metrics), "val/loss": F.cross_entropy(logits, val_labels)}
            return float(figures[self._stages.monitor])

        assert isinstance(module.objective, Classify), "what a solved head minimises"
        weights = module.objective.weights
        if weights is None and data.balance:
            weights = class_weights(labels, num_classes=classes)
        return solve_head(
            features,
            labels,
            num_classes=classes,
            weights=None if weights is None else weights.cpu(),
            evaluate=evaluate,
            mode=self._stages.mode,
        )


@torch.no_grad()
def _inputs_of(module: ImageClassifier, served: ServedFeatures, table: FeatureTable, images: Indices) -> Tensor:
    """Return what the head's layer sees of some images, float32 on the CPU, shape (n, D)."""
    seen: list[Tensor] = []
    was_training = module.training
    module.eval()
    hook = find_linear_head(module.classifier).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].float().cpu())
    )
    try:
        for part in torch.split(torch.from_numpy(images), 1024):
            features = tuple(to_device(value, module.device).float() for value in table.gather(part))
            served.suffix(*features)
    finally:
        hook.remove()
        module.train(was_training)
    return torch.cat(seen)
