"""Partitions of networks at every edge between layer groups compute the same as the whole network."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.families import FAMILIES
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.groups import LayerGroup, build_layer_groups
from unfreeze.models.partition import (
    Partition,
    activations_of,
    check_partition,
    partition_network,
)
from unfreeze.models.tracing import CannotPartitionError
from unfreeze.training.features.keys import digest_of

CLASSES = ["a", "b", "c"]
SIZES = {"inception_v3": 96, "maxvit_t": 224, "vit_b_32": 224}


def parts_of(classifier: Classifier, live: list[str]) -> Partition | None:
    shape = classifier.preprocessing.shape
    return partition_network(classifier.network, classifier.groups, live, image_shape=shape)


def edges(classifier: Classifier) -> Iterator[tuple[list[str], Partition]]:
    names = [group.name for group in classifier.groups]
    for depth in range(1, len(names)):
        live = names[:depth]
        partition = partition_network(
            classifier.network, classifier.groups, live, image_shape=classifier.preprocessing.shape
        )
        assert partition is not None
        assert partition.groups == tuple(names[depth:])
        yield live, partition


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "maxvit_t" else name for name in FAMILIES.values()],
)
def test_parts_give_the_bits_of_the_whole_at_every_edge(name: str) -> None:
    torch.manual_seed(0)
    size = SIZES.get(name, 64)
    classifier = build_classifier(name, classes=CLASSES, weights=None, image_size=size)
    network, keys = classifier.network, list(classifier.network.state_dict())
    images = torch.randn(2, 3, size, size)
    for live, partition in edges(classifier):
        classifier.network.train()
        classifier.set_frozen_modes(live, "eval")
        check_partition(network, partition, images)
        with torch.no_grad():
            activations = activations_of(partition.prefix, images)
            torch.manual_seed(1)
            parts = partition.suffix(*activations)
            torch.manual_seed(1)
            whole = network(images)
        assert torch.equal(parts, whole), f"{name} trains otherwise when cut before {live}"
        ours = {id(parameter) for parameter in network.parameters()}
        assert {id(parameter) for parameter in partition.suffix.parameters()} <= ours
        assert list(network.state_dict()) == keys


def test_the_whole_network_is_not_cut() -> None:
    classifier = build_classifier("tiny", classes=CLASSES, weights=None)
    names = [group.name for group in classifier.groups]
    assert partition_network(classifier.network, classifier.groups, names, image_shape=(3, 64, 64)) is None


def test_the_edge_is_below_the_deepest_live_group() -> None:
    classifier = build_classifier("resnet18", classes=CLASSES, weights=None)
    partition = partition_network(
        classifier.network, classifier.groups, ["head", "layer2"], image_shape=classifier.preprocessing.shape
    )
    assert partition is not None
    assert (partition.name, partition.groups) == ("layer1", ("layer1", "stem"))


def test_gradients_reach_the_network_itself() -> None:
    classifier = build_classifier("tiny", classes=CLASSES, weights=None, image_size=32)
    partition = partition_network(
        classifier.network, classifier.groups, ["head"], image_shape=classifier.preprocessing.shape
    )
    assert partition is not None
    activations = activations_of(partition.prefix, torch.randn(2, 3, 32, 32))
    partition.suffix(*(value.detach() for value in activations)).sum().backward()
    head = classifier.network.get_submodule(classifier.heads[0])
    assert head.weight.grad is not None
    assert all(p.grad is None for key, p in classifier.network.named_parameters() if not key.startswith("fc"))


class Net(nn.Module):
    """Two blocks and a head, with something odd in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.between(self.second(self.first(images)), images).mean((2, 3)))

    def between(self, maps: Tensor, images: Tensor) -> Tensor:
        return maps


class Branches(Net):
    def between(self, maps: Tensor, images: Tensor) -> Tensor:
        return maps if maps.sum() > 0 else -maps


class DropsBeforeHead(Net):
    def between(self, maps: Tensor, images: Tensor) -> Tensor:
        return F.dropout(maps, 0.5, self.training)


class DropsInFrozenPart(Net):
    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.second(F.dropout(self.first(images), 0.5, self.training)).mean((2, 3)))


class MakesConstants(Net):
    def between(self, maps: Tensor, images: Tensor) -> Tensor:
        return maps * torch.tensor([0.5, 1.0, 1.5, 2.0]).view(4, 1, 1)


class MixesBatch(Net):
    def forward(self, images: Tensor) -> Tensor:
        pooled = self.second(self.first(images)).mean((0, 2, 3))
        return self.fc(pooled)[None]


class Draws(nn.Module):
    """A layer without parameters whose name tells nothing."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps + torch.randn_like(maps) if self.training else maps


class DrawsInFrozenPart(Net):
    def __init__(self) -> None:
        super().__init__()
        self.noise = Draws()

    def between(self, maps: Tensor, images: Tensor) -> Tensor:
        return self.noise(maps)


def cut(network: nn.Module, live: list[str]) -> Partition:
    partition = partition_network(network, build_layer_groups(network, "fc"), live, image_shape=(3, 8, 8))
    assert partition is not None
    return partition


@pytest.mark.parametrize(("kind", "message"), [(Branches, "traced"), (DropsInFrozenPart, "in training")])
def test_what_can_not_be_traced_is_refused(kind: type[Net], message: str) -> None:
    with pytest.raises(CannotPartitionError, match=message):
        cut(kind(), ["head"])


def test_what_the_forward_itself_drops_before_the_head_is_dropped_in_training_alone() -> None:
    network = DropsBeforeHead().train()
    partition, images = cut(network, ["head"]), torch.randn(2, 3, 8, 8)
    activations = check_partition(network, partition, images)
    assert torch.equal(activations[0], network.second(network.first(images)))
    for mode in (True, False):
        network.train(mode)
        torch.manual_seed(1)
        parts = partition.suffix(*activations)
        torch.manual_seed(1)
        assert torch.equal(parts, network(images)), "training" if mode else "evaluation"
    assert not torch.equal(network.train()(images), network(images)), "dropout draws"
    assert {id(each) for each in partition.suffix.parameters()} <= {id(each) for each in network.parameters()}


def test_tensors_that_the_forward_makes_stay_off_the_network_and_have_the_same_names_each_time() -> None:
    network = MakesConstants().eval()
    before, images = set(vars(network)), torch.randn(2, 3, 8, 8)
    partitions = [cut(network, ["head"]) for _ in range(2)]
    assert set(vars(network)) == before
    names = [[name for name, _ in each.prefix.named_buffers()] for each in partitions]
    assert names[0] == names[1] == ["_constant0"]
    assert digest_of(partitions[0].prefix) == digest_of(partitions[1].prefix)
    for partition in partitions:
        check_partition(network, partition, images)


def test_values_without_a_row_per_image_are_refused() -> None:
    network = MixesBatch()
    partition = cut(network, ["head"])
    with pytest.raises(CannotPartitionError, match="row per image"):
        activations_of(partition.prefix, torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize("zero_head", [False, True])
def test_a_prefix_that_draws_is_refused(zero_head: bool) -> None:
    network = DrawsInFrozenPart().train()
    if zero_head:  # whose logits are the same whatever it sees
        nn.init.zeros_(network.fc.weight)
    partition = cut(network, ["head"])
    with pytest.raises(CannotPartitionError, match="training"):
        check_partition(network, partition, torch.randn(2, 3, 8, 8))
    assert network.noise.training, "modes are put back"


class CentresOnItsBatch(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps - maps.mean(0, keepdim=True)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, track_running_stats=False), CentresOnItsBatch()])
def test_a_prefix_that_looks_at_the_whole_batch_is_refused(norm: nn.Module) -> None:
    network = Net()
    network.second = nn.Sequential(network.second, norm)  # type: ignore[assignment]
    partition = cut(network.eval(), ["head"])
    with pytest.raises(CannotPartitionError, match="depends on the other images of the batch"):
        check_partition(network, partition, torch.randn(2, 3, 8, 8))


def test_a_prefix_that_wants_more_than_one_image_is_refused() -> None:
    network = Net()
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    network.second = nn.Sequential(network.second, nn.AdaptiveAvgPool2d(1), norm)  # type: ignore[assignment]
    partition = cut(network.eval(), ["head"])
    with pytest.raises(CannotPartitionError, match="does not support a single image"):
        check_partition(network, partition, torch.randn(2, 3, 8, 8))


def test_a_prefix_whose_values_are_not_finite_is_refused() -> None:
    network = Net().eval()
    nn.init.constant_(network.second.weight, float("nan"))
    with pytest.raises(CannotPartitionError, match="not finite"):
        check_partition(network, cut(network, ["head"]), torch.randn(2, 3, 8, 8))


def test_a_prefix_is_passed_once_more_where_something_in_it_trains() -> None:
    network, seen = Net(), []
    network.first.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    for mode, passes in ((False, [2, 1, 2]), (True, [2, 2, 1, 2])):
        seen.clear()
        check_partition(network.train(mode), cut(network, ["head"]), torch.randn(2, 3, 8, 8))
        assert seen == passes


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow),
        "convnext_atto",
        "efficientnet_lite0",
    ],
)
def test_timm_modules_are_cut_as_well(name: str) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    network = timm.create_model(name, num_classes=3).eval()
    by_group = timm.models.group_parameters(network, network.group_matcher(coarse=True))
    groups = [LayerGroup(f"group{number}", tuple(keys), ()) for number, keys in sorted(by_group.items(), reverse=True)]
    images = torch.randn(2, 3, 224, 224)
    for depth in range(1, len(groups)):
        partition = partition_network(
            network, groups, [group.name for group in groups[:depth]], image_shape=(3, 224, 224)
        )
        assert partition is not None
        with torch.no_grad():
            parts = partition.suffix(*activations_of(partition.prefix, images))
            assert torch.equal(parts, network(images))
