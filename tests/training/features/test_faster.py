"""Nearly equal copies of a frozen prefix are used only where they are near, and sooner."""

import pytest
import torch
from torch import Tensor, nn

from unfreeze.models.classifier import build_classifier
from unfreeze.models.partition import Partition, activations_of, partition_network
from unfreeze.training.features import faster
from unfreeze.training.features.faster import faster_prefix, same_copy

IMAGES = torch.randn(2, 3, 64, 64)


def make_partition(live: list[str]) -> Partition:
    torch.manual_seed(0)
    classifier = build_classifier("resnet18", classes=["a", "b"], weights=None)
    for module in classifier.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # What training leaves: folding such norms is not the identity.
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    classifier.network.eval()
    partition = partition_network(
        classifier.network, classifier.groups, live, image_shape=classifier.preprocessing.shape
    )
    assert partition is not None
    return partition


def clock(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Let modules of some kinds seem to take so long."""
    monkeypatch.setattr(faster, "_seconds", lambda module, images: seconds.get(type(module).__name__, 1.0))


@pytest.mark.parametrize("live", [["head"], ["head", "layer4"]])
def test_norms_are_folded_where_that_is_faster(monkeypatch: pytest.MonkeyPatch, live: list[str]) -> None:
    partition = make_partition(live)
    times = iter([1.0, 0.5, 0.5])
    monkeypatch.setattr(faster, "_seconds", lambda module, images: next(times))
    found = faster_prefix(partition.prefix, IMAGES, passes=10)
    assert found.how == "norms folded"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.module.modules())
    with torch.no_grad():
        for a, b in zip(activations_of(found.module, IMAGES), activations_of(partition.prefix, IMAGES), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert any(isinstance(module, nn.BatchNorm2d) for module in partition.prefix.modules()), "the network keeps its own"


def test_the_prefix_itself_stays_where_nothing_is_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    partition = make_partition(["head"])
    monkeypatch.setattr(faster, "_seconds", lambda module, images: 1.0)
    found = faster_prefix(partition.prefix, IMAGES, passes=10)
    assert (found.module, found.how) == (partition.prefix, "")


def test_bf16_hands_out_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, _InBf16=0.3)
    found = faster_prefix(make_partition(["head"]).prefix, IMAGES, passes=10)
    assert found.how == "bf16"
    with torch.no_grad():
        assert {value.dtype for value in found.module(IMAGES)} == {torch.float32}


def test_the_copy_that_was_found_is_made_again_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    partition = make_partition(["head"])
    times = iter([1.0, 0.5, 0.2, 0.2])
    monkeypatch.setattr(faster, "_seconds", lambda module, images: next(times))
    found = faster_prefix(partition.prefix, IMAGES, passes=10)
    assert found.how == "norms folded, bf16"
    monkeypatch.setattr(faster, "_seconds", lambda module, images: pytest.fail("tried again"))
    again = same_copy(partition.prefix, IMAGES, how=found.how)
    assert again.how == found.how
    with torch.no_grad():
        for a, b in zip(activations_of(again.module, IMAGES), activations_of(found.module, IMAGES), strict=True):
            assert torch.equal(a, b)
    assert same_copy(partition.prefix, IMAGES, how="").module is partition.prefix


def test_what_is_not_near_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (torch.zeros(2, 512),)

    monkeypatch.setattr(faster, "_copies", lambda dtypes: [("wrong", lambda module: Wrong())])
    clock(monkeypatch, Wrong=0.1)
    assert faster_prefix(make_partition(["head"]).prefix, IMAGES, passes=10).how == ""


def test_compiling_is_left_where_it_can_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faster, "_compiled", lambda module: pytest.fail("compiled for a few images"))
    faster_prefix(make_partition(["head"]).prefix, IMAGES, passes=100)
