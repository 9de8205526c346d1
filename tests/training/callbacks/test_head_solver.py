"""A head solved by L-BFGS is the minimum of its loss, chosen on validation, and the same each time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.launch import train
from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import load_classifier, read_checkpoint
from unfreeze.models.classifier import build_classifier, find_linear_head
from unfreeze.training.logistic_regression import COARSE, solve_head
from unfreeze.training.plan.plan import Group, Rates, Stage
from unfreeze.training.plan.resolve import resolve_plan

PROBE = ["data=digits", "data.fraction=0.3", "data.image_size=32", "model=tiny", "strategy=probe", "cache.dir=cache"]


def clouds(classes: int, *, each: int = 40, noise: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.arange(classes * each) % classes
    return torch.randn(classes, 12)[labels] + noise * torch.randn(len(labels), 12), labels


def solve(features, labels, classes, *, weights=None, evaluate=None, mode="max"):
    def accuracy(weight, bias):
        return float((F.linear(features, weight, bias).argmax(dim=1) == labels).float().mean())

    return solve_head(features, labels, num_classes=classes, weights=weights, evaluate=evaluate or accuracy, mode=mode)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_solution_is_a_minimum_of_the_restrained_loss(classes: int, weighted: bool) -> None:
    features, labels = clouds(classes)
    weights = torch.linspace(0.5, 2.0, classes) if weighted else None
    solved = solve(features, labels, classes, weights=weights)
    weight, bias = solved.weight.double().requires_grad_(), solved.bias.double().requires_grad_()
    loss = F.cross_entropy(
        F.linear(features.double(), weight, bias), labels, weight=None if weights is None else weights.double()
    )
    (loss + solved.l2 / 2 * weight.square().sum()).backward()
    assert weight.grad is not None and bias.grad is not None
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4


def test_the_strength_is_what_the_judge_likes_best_to_a_quarter_of_a_decade() -> None:
    features, labels = clouds(4)
    wanted = 0.03

    def judge(weight: torch.Tensor, bias: torch.Tensor) -> float:
        # Smaller is better, and smallest for the norm that this strength gives.
        return abs(float(weight.norm()) - norm)

    norm = 0.0
    norms = {}

    def measure(weight: torch.Tensor, bias: torch.Tensor) -> float:
        norms[len(norms)] = float(weight.norm())
        return -len(norms)

    solve(features, labels, 4, evaluate=measure, mode="min")
    tried = dict(zip(COARSE, norms.values(), strict=False))
    norm = float(np.interp(np.log10(wanted), np.log10(COARSE[::-1]), [tried[l2] for l2 in COARSE[::-1]]))
    solved = solve(features, labels, 4, evaluate=judge, mode="min")
    assert abs(np.log10(solved.l2 / wanted)) <= 0.25
    assert solved.score == min(solved.tried.values())
    assert len(solved.tried) < len(COARSE) + 6, "weak strengths that can't help are left out"


def test_of_heads_that_are_as_good_the_smaller_one_is_taken() -> None:
    features, labels = clouds(3)
    solved = solve(features, labels, 3, evaluate=lambda weight, bias: 0.5)
    assert solved.l2 == max(solved.tried)


def test_a_class_without_training_images_is_never_predicted() -> None:
    features, labels = clouds(3)
    solved = solve(features, labels * 2, 6)
    assert set(F.linear(features, solved.weight, solved.bias).argmax(dim=1).tolist()) == {0, 2, 4}


def test_images_of_one_class_are_refused() -> None:
    with pytest.raises(UnfreezeError, match="are of one"):
        solve(torch.randn(6, 12), torch.zeros(6, dtype=torch.int64), 3)


def test_features_that_are_not_finite_are_refused() -> None:
    features, labels = clouds(3)
    features[7, 2] = torch.nan
    with pytest.raises(UnfreezeError, match="finite features"):
        solve(features, labels, 3)


def test_features_stay_what_they_are() -> None:
    features, labels = clouds(3)
    features = features.double()
    kept = features.clone()
    solve_head(features, labels, num_classes=3, weights=None, evaluate=lambda weight, bias: 0.5, mode="max")
    assert torch.equal(features, kept)


def test_a_head_of_another_kind_is_refused() -> None:
    squeezenet = build_classifier("squeezenet1_0", classes=("a", "b"), weights=None, image_size=64)
    with pytest.raises(UnfreezeError, match=r"a single nn\.Linear"):
        find_linear_head(squeezenet)


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        (Stage("head", 2, 1, solver="lbfgs"), "solves the head alone; want train: 1, got 2"),
        (Stage("head", 1, 3, solver="lbfgs", warmup=0.1), "epochs, warmup beside solver lbfgs"),
        (Stage("head", 1, 1, solver="lbfgs", lr=0.1), "lr beside solver lbfgs"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stage: Stage, told: str) -> None:
    with pytest.raises(UnfreezeError, match=told):
        resolve_plan([stage], [Group("head", 10), Group("body", 20)], rates=Rates(head=1e-3))


def test_a_run_solves_its_head_and_tells_how(tmp_path: Path) -> None:
    done = train([*PROBE, "hydra.run.dir=run"], tmp_path)
    assert done.code == 0, done.err
    (stage,) = json.loads((tmp_path / "run" / "stages.json").read_text())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"L2 {stage['solved']['l2']:.3g} of {len(stage['solved']['tried'])} strengths" in done.out
    assert max(stage["solved"]["tried"].values()) == pytest.approx(result["val"]["acc"], abs=1e-6)
    assert result["val"]["acc"] > 0.8
    assert "L-BFGS" in (tmp_path / "run" / "plan.txt").read_text()
    # Features are found by the next run, which solves to the same bits; so does one that was killed on the way.
    kill = ["+callbacks.kill._target_=tests.killing.KillAt", "+callbacks.kill.step=2"]
    assert train([*PROBE, *kill, "hydra.run.dir=killed"], tmp_path).code < 0
    resumed = train(["resume=killed", "callbacks.kill=null"], tmp_path)
    assert resumed.code == 0, resumed.err
    first, second = (load_classifier(tmp_path / run / "checkpoints" / "best.ckpt") for run in ("run", "killed"))
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))
    last = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert last["global_step"] > 0
    assert torch.equal(last["state_dict"]["network.fc.weight"], find_linear_head(first).weight)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("cache.enabled=false", "works on cached features; leave out cache.enabled=false"),
        ("objective.label_smoothing=0.1", "leave out objective.label_smoothing"),
        ("strategy.stages=[{name: head, train: 1, epochs: 1, solver: lbfgs}]", "give the stage augment: none"),
        ("trainer.limit_val_batches=1", "needs the features of all training and validation images"),
    ],
)
def test_what_a_solver_cannot_follow_is_refused(typed: str, told: str, tmp_path: Path) -> None:
    done = train([*PROBE, typed], tmp_path)
    assert done.code == 2, done.out + done.err
    assert told in done.err
