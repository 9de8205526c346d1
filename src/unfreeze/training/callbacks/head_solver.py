"""A linear head solved by L-BFGS on cached features, its L2 strength chosen on validation (Kornblith et al. 2019)."""

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError
from unfreeze.models.classifier import Classifier
from unfreeze.results.monitor import Mode, is_better
from unfreeze.system.signals import STOP
from unfreeze.system.text import format_seconds
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.demand import data_of
from unfreeze.training.features.table import CachedPrefix, FeatureTable
from unfreeze.training.losses import class_weights
from unfreeze.training.metrics import taken, validation_metrics
from unfreeze.training.module import ImageClassifier
from unfreeze.training.objectives import Classify

log = logging.getLogger(__name__)

COARSE = tuple(float(strength) for strength in np.logspace(2, -6, 9))
"""Strengths that are tried first, a decade apart; above them the mean loss counts for nothing."""

_FINER = (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75)
"""Decades from the best of these to those that are tried then."""

_PATIENCE = 2
"""So many decades in a row that are worse than the best before them end the search for weaker strengths."""

_MOST_ITERATIONS, _GRADIENT = 1000, 1e-5
"""Of L-BFGS, for each strength: it ends when no derivative is larger."""

_ABSENT = -20.0
"""Logit of a class without training images, below the lowest of the others."""


@dataclass(frozen=True, eq=False)
class SolvedHead:
    """A linear layer, and how it was chosen.

    Args:
        weight: float32, shape (C, D).
        bias: float32, shape (C,).
        l2: Strength: what half the squared norm of the weights counts beside the mean loss.
        score: Of this head, as it was judged.
        tried: The score of each strength.
    """

    weight: Tensor
    bias: Tensor
    l2: float
    score: float
    tried: dict[float, float]


def solve_head(
    features: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    weights: Tensor | None,
    judge: Callable[[Tensor, Tensor], float],
    mode: Mode,
) -> SolvedHead:
    """Minimise the mean cross entropy plus l2/2 · |W|² for several strengths, and return the head that is judged best.

    Decades are tried from the strongest down, each from the head before it, until weaker ones no longer help, which
    take the longest; then the quarters of a decade around the best, as far apart as those of Kornblith et al. Of heads
    that are as good the one with the smaller weights is taken.

    Args:
        features: float32, shape (N, D).
        labels: int64, shape (N,).
        num_classes: C.
        weights: What an image of each class counts, shape (C,); None for all alike.
        judge: Gives a weight and a bias their score.
        mode: "max" or "min": what is better.

    Raises:
        UnfreezeError: If the images are of one class, or a feature is not finite.
    """
    problem = _RegularizedLogistic(features, labels, weights)
    tried: dict[float, float] = {}
    best: SolvedHead | None = None

    def try_strength(l2: float) -> None:
        nonlocal best
        weight, bias = problem.solve(l2, num_classes)
        tried[l2] = score = judge(weight, bias)
        if is_better(score, None if best is None else best.score, mode) or (
            best is not None and score == best.score and l2 > best.l2
        ):
            best = SolvedHead(weight, bias, l2, score, tried)

    worse = 0
    for strength in COARSE:
        try_strength(strength)
        worse = worse + 1 if best is not None and is_better(best.score, tried[strength], mode) else 0
        if worse == _PATIENCE:
            break
    assert best is not None
    around = np.log10(best.l2)
    for step in sorted(_FINER, reverse=True):
        try_strength(float(10 ** (around + step)))
    return best


class _RegularizedLogistic:
    """Multinomial logistic regression with an L2 penalty on the weights, none on the biases, by scikit-learn.

    Features are centred, which moves the biases alone and spares most of the iterations: what comes out of a ReLU has
    a mean that is large beside its spread.

    Args:
        features: As for `solve_head`.
        labels: As for `solve_head`.
        weights: As for `solve_head`.
    """

    def __init__(self, features: Tensor, labels: Tensor, weights: Tensor | None) -> None:
        self._present = torch.from_numpy(np.unique(labels.numpy()))
        if len(self._present) < 2:
            raise UnfreezeError("strategy.stages: solver lbfgs tells classes apart, but all training images are of one")
        if not features.isfinite().all():
            raise UnfreezeError(
                "strategy.stages: solver lbfgs needs finite features, and the frozen part gives some that are not; "
                "look at model.weights, or type trainer.precision=32"
            )
        inputs = features.to(torch.float64, copy=True)
        self._centre = inputs.mean(dim=0)
        self._inputs, self._labels = inputs.sub_(self._centre).numpy(), labels.numpy()
        counts = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights.double()[labels]
        self._counts = (counts / counts.sum()).numpy()
        self._model = LogisticRegression(tol=_GRADIENT, max_iter=_MOST_ITERATIONS, warm_start=True)

    def solve(self, l2: float, num_classes: int) -> tuple[Tensor, Tensor]:
        """Return weight, float32, shape (C, D), and bias, shape (C,), for all classes, starting from the last ones."""
        is_binary = len(self._present) == 2  # then scikit-learn restrains the difference of the two rows
        self._model.set_params(C=(2 if is_binary else 1) / l2)
        with threadpool_limits(1), warnings.catch_warnings():  # its threads would fight with PyTorch's for the cores
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(self._inputs, self._labels, self._counts)
        weight, bias = torch.from_numpy(self._model.coef_), torch.from_numpy(self._model.intercept_)
        if is_binary:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        bias = bias - weight @ self._centre
        all_weights = torch.zeros(num_classes, weight.shape[1])
        all_biases = torch.full((num_classes,), float(bias.min()) + _ABSENT)
        all_weights[self._present], all_biases[self._present] = weight.float(), bias.float()
        return all_weights, all_biases


def find_linear_head(classifier: Classifier) -> nn.Linear:
    """Return the layer that the head group consists of.

    Raises:
        UnfreezeError: If the head is something else.
    """
    head = classifier.groups[0]
    owner = classifier.network.get_submodule(head.parameters[0].rpartition(".")[0])
    if not isinstance(owner, nn.Linear) or len(head.parameters) != len(list(owner.parameters())):
        raise UnfreezeError(
            f"strategy.stages: solver lbfgs solves a single nn.Linear with its bias, but the head of "
            f"{classifier.architecture} is another; type strategy=feature_extraction"
        )
    return owner


class HeadSolver(L.Callback):
    """Solves the head where a stage with `solver: lbfgs` starts; the epoch that follows, at rate 0, measures it.

    Args:
        stages: The callback whose stages are solved; it and `FrozenPrefixCache` must stand before this one.
        on_solved: Called with what stages.json says of the solution.
    """

    def __init__(self, stages: StagedUnfreezing, *, on_solved: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._stages = stages
        self._on_solved = on_solved

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse what can't be solved.

        Raises:
            UnfreezeError: If the run has several ranks.
        """
        if trainer.world_size > 1 and any(planned.solver for planned in self._stages.plan.stages):
            raise UnfreezeError("trainer.devices: solver lbfgs runs on one device; type trainer.devices=1")

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Solve the head, unless that was done in this stage."""
        planned = self._stages.plan.stages[self._stages.stage]
        if planned.solver is None or self._stages.epochs_in_stage:
            return
        assert isinstance(pl_module, ImageClassifier)
        data, cached = data_of(trainer), pl_module.cached
        if cached is None or cached.train is None or cached.evaluate is None:
            raise UnfreezeError(
                f"strategy.stages {planned.name!r}: solver lbfgs needs the features of all training and validation "
                "images, and they can't be had (the line above, or trainer.limit_val_batches, says why)"
            )
        started = time.monotonic()
        with STOP.at_once():
            solved = self._solve(pl_module, data, cached)
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

    def _solve(self, module: ImageClassifier, data: ImageDataModule, cached: CachedPrefix) -> SolvedHead:
        assert cached.train is not None and cached.evaluate is not None
        all_labels = torch.from_numpy(data.source.labels)
        labels, val_labels = all_labels[data.splits.train], all_labels[data.splits.val]
        features = _inputs_of(module, cached, cached.train, data.splits.train)
        val_features = _inputs_of(module, cached, cached.evaluate, data.splits.val)
        classes = len(data.classes)
        metrics = validation_metrics(classes)

        def judge(weight: Tensor, bias: Tensor) -> float:
            logits = F.linear(val_features, weight, bias)
            metrics.update(logits, val_labels)
            figures = {**taken(metrics), "val/loss": F.cross_entropy(logits, val_labels)}
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
            judge=judge,
            mode=self._stages.mode,
        )


@torch.no_grad()
def _inputs_of(module: ImageClassifier, cached: CachedPrefix, table: FeatureTable, images: Indices) -> Tensor:
    """Return what the head's layer sees of some images, float32 on the CPU, shape (n, D)."""
    seen: list[Tensor] = []
    was_training = module.training
    module.eval()
    hook = find_linear_head(module.classifier).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].float().cpu())
    )
    try:
        for part in torch.split(torch.from_numpy(images), 1024):
            features = tuple(value.float() for value in table.gather(part, module.device))
            cached.suffix(*features)
    finally:
        hook.remove()
        module.train(was_training)
    return torch.cat(seen)
