"""What the engine promises of each stage."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from tests.training.conftest import Probe, equal, make_classifier, state_of
from unfreeze.errors import UnfreezeError
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.module import ImageClassifier
from unfreeze.training.plan.plan import Rates, Stage

RATES = Rates(head=1e-2, decay=0.1, floor=0.01)


def keys_of(module: ImageClassifier, *groups: str) -> list[str]:
    """Return the state_dict keys of some groups, buffers too."""
    prefixes = [name for group in module.classifier.groups if group.name in groups for name in group.modules]
    return [key for key in module.network.state_dict() if key.rpartition(".")[0] in prefixes]


class StateAt(L.Callback):
    """Keeps the network's state at the start of each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.states.append(state_of(pl_module))


def test_frozen_weights_and_statistics_stay_bitwise_what_they_were(fit: Any) -> None:
    module = ImageClassifier(make_classifier())
    before = state_of(module)
    fit(module, [StagedUnfreezing([Stage("head", 1, 2), Stage("block", 2, 1)], rates=RATES)])
    after = state_of(module)
    assert equal(before, after, keys_of(module, "stem", "stage2", "stage3"))
    for group in ("head", "stage4"):
        assert not equal(before, after, keys_of(module, group))


def test_keys_of_frozen_groups_cover_batchnorm_statistics() -> None:
    module = ImageClassifier(make_classifier())
    frozen = keys_of(module, "stem", "stage2", "stage3", "stage4")
    assert sum(key.endswith("running_mean") for key in frozen) > 10
    assert set(frozen) | set(keys_of(module, "head")) == set(module.network.state_dict())


def test_everything_frozen_is_in_eval_mode_and_has_neither_gradient_nor_state(fit: Any) -> None:
    def look(trainer: L.Trainer, module: ImageClassifier) -> tuple[set[str], set[str], int, int]:
        training = {
            group.name
            for group in module.classifier.groups
            if any(module.network.get_submodule(key).training for key in group.modules)
        }
        wants_grad = {
            group.name
            for group in module.classifier.groups
            if any(p.requires_grad or p.grad is not None for p in module.classifier.parameters_of(group))
        }
        live = sum(p.requires_grad for p in module.network.parameters())
        return training, wants_grad, len(trainer.optimizers[0].state), live

    probe = Probe(look)
    fit(ImageClassifier(make_classifier()), [StagedUnfreezing([Stage("head", 1, 2), Stage("block", 2, 1)]), probe])
    steps = len(probe.seen) // 3
    for training, wants_grad, states, live in probe.seen[: 2 * steps]:
        assert (training, wants_grad) == ({"head"}, {"head"})
        assert states == live == 2
    training, wants_grad, states, live = probe.seen[-1]
    assert (training, wants_grad) == ({"head", "stage4"}, {"head", "stage4"})
    assert states == live


def test_dropout_in_the_frozen_part_is_off(fit: Any) -> None:
    classifier = make_classifier()
    classifier.network.stage2.add_module("drop", nn.Dropout(0.5))
    module = ImageClassifier(build_again(classifier))
    probe = Probe(lambda _, m: (m.network.stage2.drop.training, m.network.fc.dropout.training))
    fit(module, [StagedUnfreezing([Stage("head", 1, 1), Stage("all", "all", 1)]), probe])
    assert probe.seen[0] == (False, True)
    assert probe.seen[-1] == (True, True)


def build_again(classifier: Any) -> Any:
    """Resolve a classifier's groups anew after its network was changed."""
    from dataclasses import replace

    from unfreeze.models.groups import build_layer_groups

    return replace(classifier, groups=build_layer_groups(classifier.network, classifier.heads))


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle", "cyclic"])
def test_every_step_has_the_rates_of_the_plan(fit: Any, schedule: str) -> None:
    stages = StagedUnfreezing(
        [Stage("head", 1, 1), Stage("block", 3, 2, warmup=0.4)], rates=RATES, schedule=schedule, restore="last"
    )
    probe = Probe(lambda trainer, _: {g["name"]: g["lr"] for g in trainer.optimizers[0].param_groups})
    fit(ImageClassifier(make_classifier()), [stages, probe])
    steps = len(probe.seen) // 3
    for step, rates in enumerate(probe.seen):
        stage, done, epochs = (0, step, 1) if step < steps else (1, step - steps, 2)
        progress = (done + 0.5) / (steps * epochs)
        for name, lr in rates.items():
            assert lr == stages.plan.lr(name.removesuffix(".no_decay"), stage, progress)
        if stage == 1:
            assert rates["stage4"] == pytest.approx(rates["head"] * 0.1)
            assert rates["stage3"] == pytest.approx(rates["head"] * 0.01)
            assert rates["stem"] == 0


def test_an_adam_step_moves_a_newly_live_group_by_its_rate(fit: Any) -> None:
    """Adam's first step is the rate times the gradient's sign."""
    module = ImageClassifier(make_classifier(dropout=None))
    states = StateAt()
    stages = [Stage("head", 1, 1), Stage("block", 2, 1, schedule="constant")]
    probe = Probe(lambda _, m: state_of(m))
    fit(module, [StagedUnfreezing(stages, rates=RATES, restore="last"), states, probe])
    steps = len(probe.seen) // 2
    moved = probe.seen[steps]["conv5.1.bias"] - states.states[1]["conv5.1.bias"]
    assert moved.abs().max().item() == pytest.approx(1e-3, rel=1e-3)


def test_patience_ends_a_stage_and_the_last_one_ends_the_fit(fit: Any) -> None:
    frozen_rates = Rates(head=1e-12)
    callback = StagedUnfreezing(
        [Stage("head", 1, 30, patience=2), Stage("block", 2, 30, patience=3)], rates=frozen_rates, monitor="val/acc"
    )
    trainer = fit(ImageClassifier(make_classifier()), [callback])
    assert callback.complete
    assert trainer.current_epoch == (1 + 2) + (1 + 3)


def test_the_next_stage_starts_from_the_best_weights_of_the_one_before(fit: Any) -> None:
    class Scores(L.Callback):
        """Makes the second of four epochs the best by what it logs, before the callback under test looks."""

        scores = (0.2, 0.9, 0.3, 0.4, 0.1)

        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("val/score", self.scores[trainer.current_epoch])

    module, states = ImageClassifier(make_classifier()), StateAt()
    callback = StagedUnfreezing([Stage("block", 2, 4), Stage("all", "all", 1)], rates=RATES, monitor="val/score")
    moments = Probe(lambda trainer, m: trainer.optimizers[0].state[m.network.fc.weight]["exp_avg"].clone())
    fit(module, [Scores(), callback, moments, states])
    per_epoch = len(moments.seen) // 5
    # A state at an epoch's start is what the epoch before it ended with; the callback restores before that is noted.
    assert equal(states.states[4], states.states[2])
    assert not equal(states.states[4], states.states[3])
    assert not torch.equal(moments.seen[2 * per_epoch - 1], moments.seen[4 * per_epoch - 1])


def test_a_stage_may_name_its_own_optimizer_and_augmentation(fit: Any) -> None:
    stages = [Stage("head", 1, 1, augment="none"), Stage("block", 2, 1, optimizer="sgd")]
    probe = Probe(lambda trainer, m: (type(trainer.optimizers[0]), m.augment))
    fit(ImageClassifier(make_classifier(), augment="standard"), [StagedUnfreezing(stages), probe])
    assert probe.seen[0] == (AdamW, "none")
    assert probe.seen[-1] == (SGD, "standard")


def test_a_group_that_is_frozen_again_neither_moves_nor_decays(fit: Any) -> None:
    module, states = ImageClassifier(make_classifier()), StateAt()
    callback = StagedUnfreezing([Stage("all", "all", 1), Stage("head", 1, 2)], rates=RATES, restore="last")
    probe = Probe(lambda trainer, _: len(trainer.optimizers[0].state))
    fit(module, [callback, states, probe])
    assert equal(states.states[1], state_of(module), keys_of(module, "stage4", "stage3", "stage2", "stem"))
    assert probe.seen[-1] == 2


def test_frozen_norms_may_go_on_counting(fit: Any) -> None:
    module = ImageClassifier(make_classifier())
    before = state_of(module)
    fit(module, [StagedUnfreezing([Stage("head", 1, 1)], frozen_norm="train")])
    after = state_of(module)
    assert not torch.equal(before["conv1.1.running_mean"], after["conv1.1.running_mean"])
    assert torch.equal(before["conv1.1.weight"], after["conv1.1.weight"])


def test_validation_and_test_do_not_wake_what_is_frozen(fit: Any) -> None:
    module = ImageClassifier(make_classifier())
    module.set_live_groups(frozenset({"head"}))
    module.eval()
    module.train()
    assert not module.network.conv1.training
    assert not module.network.stage4.training or not any(m.training for m in module.network.stage4.children())
    assert module.network.fc.training


def test_applying_a_stage_twice_changes_nothing() -> None:
    module = ImageClassifier(make_classifier())
    module.set_live_groups(frozenset({"head", "stage4"}))
    first = {key: (p.requires_grad, p.grad) for key, p in module.named_parameters()}
    modes = {key: m.training for key, m in module.named_modules()}
    module.set_live_groups(frozenset({"head", "stage4"}))
    assert first == {key: (p.requires_grad, p.grad) for key, p in module.named_parameters()}
    assert modes == {key: m.training for key, m in module.named_modules()}


def test_another_plan_is_refused_when_a_checkpoint_is_loaded(fit: Any, tmp_path: Any) -> None:
    trainer = fit(ImageClassifier(make_classifier()), [StagedUnfreezing([Stage("head", 1, 1)])], max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(UnfreezeError, match=r"plan has changed: stage 'head': epochs was 1, is 2"):
        fit(
            ImageClassifier(make_classifier()),
            [StagedUnfreezing([Stage("head", 1, 2)])],
            ckpt_path=tmp_path / "a.ckpt",
        )


def test_a_monitor_that_nobody_logs_is_named(fit: Any) -> None:
    with pytest.raises(UnfreezeError, match=r"nothing logs 'val/auc'; what is logged: .*val/acc"):
        fit(ImageClassifier(make_classifier()), [StagedUnfreezing([Stage("head", 1, 1)], monitor="val/auc")])


def test_parameters_are_in_one_optimizer_group_each_by_identity(fit: Any) -> None:
    module = ImageClassifier(make_classifier())
    optimizer = module.configure_optimizers()
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in module.network.parameters())
    for group in optimizer.param_groups:
        flat = [p.ndim <= 1 for p in group["params"]]
        assert all(flat) if group["name"].endswith(".no_decay") else not any(flat)
        assert (group["weight_decay"] == 0) == group["name"].endswith(".no_decay")
