"""A linear head solved by L-BFGS on cached features, its L2 strength chosen on validation (Kornblith et al. 2019)."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError
from unfreeze.models.classifier import Classifier
from unfreeze.training.features import CachedPrefix, FeatureTable
from unfreeze.training.interruption import STOP
from unfreeze.training.losses import class_weights
from unfreeze.training.module import ImageClassifier, validation_metrics
from unfreeze.training.monitors import Mode, is_better
from unfreeze.training.progress import format_seconds
from unfreeze.training.stage_features import data_of
from unfreeze.training.staged_unfreezing import StagedUnfreezing

log = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]

COARSE = tuple(float(strength) for strength in np.logspace(2, -6, 9))
"""Strengths that are tried first, a decade apart; above them the mean loss counts for nothing."""

_FINER = (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75)
"""Decades from the best of these to those that are tried then."""

_PATIENCE = 2
"""So many decades in a row that are worse than the best before them end the search for weaker strengths."""

_MOST_ITERATIONS, _GRADIENT, _GAIN, _MEMORY = 1000, 1e-5, 1e-9, 20
"""Of L-BFGS: it ends when no derivative is larger, or a step gains a smaller share; gradients that it remembers."""

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
        UnfreezeError: If the images are of one class.
    """
    problem = _RegularizedLogistic.of(features, labels, weights)
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
    """Multinomial logistic regression with an L2 penalty on the weights, none on the biases, by SciPy's L-BFGS.

    Features are centred, which moves the biases alone and spares most of the iterations: what comes out of a ReLU has
    a mean that is large beside its spread.

    Args:
        inputs: Centred, float64, shape (N, D).
        centre: What was taken away, shape (D,).
        present: Classes that there are images of, int64, shape (P,), P > 1.
        targets: Their positions, int64, shape (N,).
        shares: What each image counts, float64, shape (N,); they add up to one.
    """

    def __init__(self, inputs: Tensor, centre: Tensor, present: Tensor, targets: Tensor, shares: Tensor) -> None:
        self._inputs, self._centre = inputs, centre
        self._present, self._targets, self._shares = present, targets, shares
        self._found = np.zeros(len(present) * (inputs.shape[1] + 1))

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, weights: Tensor | None) -> "_RegularizedLogistic":
        """Return the problem of some features; the arguments are those of `solve_head`."""
        present, targets = torch.unique(labels, return_inverse=True)
        if len(present) < 2:
            raise UnfreezeError("strategy.stages: solver lbfgs tells classes apart, but all training images are of one")
        inputs = features.double()
        centre = inputs.mean(dim=0)
        counts = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights.double()[labels]
        return cls(inputs.sub_(centre), centre, present, targets, counts / counts.sum())

    def solve(self, l2: float, num_classes: int) -> tuple[Tensor, Tensor]:
        """Return weight, float32, shape (C, D), and bias, shape (C,), for all classes, starting from the last ones."""
        options = {"maxiter": _MOST_ITERATIONS, "gtol": _GRADIENT, "ftol": _GAIN, "maxcor": _MEMORY}
        with threadpool_limits(1, "blas"):  # SciPy's threads would fight with PyTorch's for the cores
            found = minimize(self._value_and_gradient, self._found, (l2,), "L-BFGS-B", jac=True, options=options)
        self._found = found.x
        weight, bias = self._layer(torch.from_numpy(self._found))
        bias = bias - weight @ self._centre
        all_weights = torch.zeros(num_classes, weight.shape[1])
        all_biases = torch.full((num_classes,), float(bias.min()) + _ABSENT)
        all_weights[self._present], all_biases[self._present] = weight.float(), bias.float()
        return all_weights, all_biases

    def _value_and_gradient(self, values: FloatArray, l2: float) -> tuple[float, FloatArray]:
        weight, bias = self._layer(torch.from_numpy(values))
        log_probabilities = torch.addmm(bias, self._inputs, weight.T).log_softmax(dim=1)
        chosen = log_probabilities.gather(1, self._targets[:, None])[:, 0]
        loss = l2 / 2 * weight.square().sum() - self._shares @ chosen
        errors = log_probabilities.exp_().mul_(self._shares[:, None])
        errors.scatter_add_(1, self._targets[:, None], -self._shares[:, None])
        slope = torch.cat([(errors.T @ self._inputs).add_(weight, alpha=l2).view(-1), errors.sum(dim=0)])
        return float(loss), slope.numpy()

    def _layer(self, values: Tensor) -> tuple[Tensor, Tensor]:
        classes = len(self._present)
        return values[:-classes].view(classes, -1), values[-classes:]


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
            metrics.reset()
            figures = {**metrics(logits, val_labels), "val/loss": F.cross_entropy(logits, val_labels)}
            return float(figures[self._stages.monitor])

        weights = module.class_weights
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
