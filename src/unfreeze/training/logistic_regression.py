"""Multinomial logistic regression by L-BFGS, its L2 strength chosen on validation (Kornblith et al. 2019)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from unfreeze.errors import UnfreezeError
from unfreeze.results.monitor import Mode, is_better

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
        l2: Weight of half the squared norm beside the mean loss.
        score: Of this head, on validation.
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
    evaluate: Callable[[Tensor, Tensor], float],
    mode: Mode,
) -> SolvedHead:
    """Minimise the mean cross entropy plus l2/2 · |W|² for several strengths, and return the best head on validation.

    Decades are tried from the strongest down, each from the head before it, until weaker ones no longer help, which
    take the longest; then the quarters of a decade around the best, as far apart as those of Kornblith et al. Of heads
    that are as good the one with the smaller weights is taken.

    Args:
        features: float32, shape (N, D).
        labels: int64, shape (N,).
        num_classes: C.
        weights: Class weights, shape (C,); None for equal weights.
        evaluate: Returns the score of a weight and a bias.
        mode: Whether a higher score ("max") or a lower one ("min") is better.

    Raises:
        UnfreezeError: If the images are of one class, or a feature is not finite.
    """
    search = _StrengthSearch(_RegularizedLogistic(features, labels, weights), num_classes, evaluate, mode)
    worse = 0
    for strength in COARSE:
        score = search.try_strength(strength)
        worse = worse + 1 if is_better(search.best.score, score, mode) else 0
        if worse == _PATIENCE:
            break
    around = np.log10(search.best.l2)
    for step in sorted(_FINER, reverse=True):
        search.try_strength(float(10 ** (around + step)))
    return search.best


class _StrengthSearch:
    """The best head so far; of equal scores, the one with the stronger penalty."""

    def __init__(
        self,
        problem: "_RegularizedLogistic",
        num_classes: int,
        evaluate: Callable[[Tensor, Tensor], float],
        mode: Mode,
    ) -> None:
        self._problem = problem
        self._num_classes = num_classes
        self._evaluate = evaluate
        self._mode: Mode = mode
        self._tried: dict[float, float] = {}
        self._best: SolvedHead | None = None

    @property
    def best(self) -> SolvedHead:
        """The best head of those that were tried."""
        assert self._best is not None
        return self._best

    def try_strength(self, l2: float) -> float:
        """Solve the head for a strength, and return its score."""
        weight, bias = self._problem.solve(l2, self._num_classes)
        self._tried[l2] = score = self._evaluate(weight, bias)
        best = self._best
        is_tie = best is not None and score == best.score and l2 > best.l2
        if is_better(score, None if best is None else best.score, self._mode) or is_tie:
            self._best = SolvedHead(weight, bias, l2, score, self._tried)
        return score


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
