"""Layer groups of every torchvision family, on the meta device: names and shapes without memory."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.ops import StochasticDepth

from tests.models.families import FAMILIES
from unfreeze.models import parts
from unfreeze.models.analysis import describe_groups, group_sizes
from unfreeze.models.architecture import find_architecture
from unfreeze.models.groups import LayerGroup, build_layer_groups
from unfreeze.models.heads import find_head, replace_head
from unfreeze.models.meta import on_meta
from unfreeze.models.norms import NORMS
from unfreeze.models.parts import backbone_parts
from unfreeze.models.torchvision_models import classifier_names

MEMBERS = sorted(FAMILIES.values())
MODE_MATTERS = (nn.Dropout, nn.AlphaDropout, StochasticDepth, nn.MultiheadAttention, *NORMS)
NETWORKS: dict[str, tuple[nn.Module, tuple[LayerGroup, ...]]] = {}


def network_of(name: str) -> tuple[nn.Module, tuple[LayerGroup, ...]]:
    """Return a backbone with ten classes and its groups; built once, for nothing here changes it."""
    if name not in NETWORKS:
        network = find_architecture(name).skeleton().eval()
        head = find_head(network)
        with torch.device("meta"):
            replace_head(network, head, num_classes=10)
        NETWORKS[name] = network, build_layer_groups(network, head)
    return NETWORKS[name]


def order_of_calls(network: nn.Module) -> list[str]:
    """Return the names of the modules that own a tensor, in the order in which a forward pass calls them."""
    called: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, key=key: called.append(key))
        for key, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    with torch.no_grad():
        network(torch.empty(2, 3, 224, 224, device="meta"))
    for handle in handles:
        handle.remove()
    return called


def runs(values: list[str]) -> list[str]:
    return [value for i, value in enumerate(values) if i == 0 or values[i - 1] != value]


@pytest.mark.parametrize("name", MEMBERS)
def test_every_parameter_is_in_exactly_one_group_by_identity(name: str) -> None:
    network, groups = network_of(name)
    members = [id(network.get_parameter(key)) for group in groups for key in group.parameters]
    assert len(members) == len(set(members))
    assert set(members) == {id(parameter) for parameter in network.parameters()}


@pytest.mark.parametrize("name", MEMBERS)
def test_groups_are_resolution_stages_with_the_head_first(name: str) -> None:
    network, groups = network_of(name)
    assert 4 <= len(groups) <= 8
    assert len({group.name for group in groups}) == len(groups)
    assert groups[0].name == "head"
    head = find_head(network)
    assert set(groups[0].parameters) == {f"{head}.{key}" for key, _ in network.get_submodule(head).named_parameters()}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_forward_pass_goes_through_the_groups_from_the_last_to_the_head(name: str) -> None:
    network, groups = network_of(name)
    owner = {key: group.name for group in groups for key in group.modules}
    walked = runs([owner[key] for key in order_of_calls(network) if key in owner])
    assert walked == [group.name for group in reversed(groups)]


@pytest.mark.parametrize("name", MEMBERS)
def test_every_module_whose_mode_matters_is_in_one_group(name: str) -> None:
    network, groups = network_of(name)
    owners: dict[str, list[str]] = {}
    for group in groups:
        for key in group.modules:
            owners.setdefault(key, []).append(group.name)
    matters = [
        key
        for key, module in network.named_modules()
        if isinstance(module, MODE_MATTERS) or any(True for _ in module.buffers(recurse=False))
    ]
    assert [key for key in matters if len(owners.get(key, [])) != 1] == []


@pytest.mark.parametrize("name", MEMBERS)
def test_modules_stand_with_their_own_parameters(name: str) -> None:
    network, groups = network_of(name)
    owner = {key: group.name for group in groups for key in group.parameters}
    for group in groups:
        for key in group.modules:
            prefix = f"{key}." if key else ""
            below = {owner[f"{prefix}{parameter}"] for parameter, _ in network.get_submodule(key).named_parameters()}
            assert below <= {group.name}, key


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_resnet_has_its_layers_between_stem_and_head(name: str) -> None:
    names = [group.name for group in describe_groups(name, 10)]
    assert list(reversed(names)) == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]


def test_resnet50_with_ten_classes_has_the_known_numbers_of_parameters() -> None:
    sizes = dict(group_sizes("resnet50", 10))
    assert sizes["head"] == 2048 * 10 + 10 == 20_490
    assert sum(sizes.values()) == 23_528_522


@pytest.mark.parametrize("name", ["resnet18", "vit_b_32", "squeezenet1_1", "vgg11_bn", "shufflenet_v2_x0_5"])
def test_sizes_add_up_to_the_whole_network(name: str) -> None:
    network, groups = network_of(name)
    sizes = group_sizes(name, 10)
    assert [group for group, _ in sizes] == [group.name for group in groups]
    assert sum(size for _, size in sizes) == sum(parameter.numel() for parameter in network.parameters())
    assert all(size > 0 for _, size in sizes)


def test_the_dropout_of_a_classifier_goes_with_what_it_regularises() -> None:
    _, mobilenet = network_of("mobilenet_v2")
    assert "classifier.0" in mobilenet[0].modules
    _, vgg = network_of("vgg11")
    assert "classifier.5" in vgg[0].modules
    assert "classifier.2" in vgg[1].modules
    _, vit = network_of("vit_b_32")
    assert "encoder.dropout" in vit[-1].modules


def test_every_family_of_torchvision_is_covered() -> None:
    def family(name: str) -> type[nn.Module]:
        return type(find_architecture(name).skeleton())

    covered = {family(name) for name in MEMBERS}
    stems = {name.split("_")[0].rstrip("0123456789") for name in classifier_names()}
    one_of_each = [next(name for name in classifier_names() if name.startswith(stem)) for stem in sorted(stems)]
    assert {family(name) for name in one_of_each} <= covered


class OwnNetwork(nn.Module):
    """A network as a person writes it: loose parameter, named children, dropout, shared use."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.neck = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(5, 2)


def test_networks_of_the_same_modules_are_analysed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    analysed: list[str] = []

    def record(network: nn.Module) -> nn.Module:
        analysed.append(type(network).__name__)
        return on_meta(network)

    monkeypatch.setattr(parts, "_AREAS", {})
    monkeypatch.setattr(parts, "on_meta", record)
    first, second, other = (
        backbone_parts(get_model(name, weights=None), "classifier.6") for name in ("vgg11", "vgg11", "vgg13")
    )
    assert analysed == ["VGG", "VGG"]
    assert first == second
    assert first != other


def test_a_persons_own_network_falls_back_to_its_children() -> None:
    network = OwnNetwork()
    groups = build_layer_groups(network, find_head(network))
    assert [group.name for group in groups] == ["head", "neck", "body", "stem"]
    assert groups[-1].parameters == ("scale",)
    assert "drop" in groups[0].modules
    assert {"body", "body.0", "body.1", "body.2"} <= set(groups[2].modules)


def test_a_network_that_uses_one_layer_twice_has_its_parameters_in_one_group() -> None:
    network = OwnNetwork()
    network.neck.append(network.neck[2])
    groups = build_layer_groups(network, find_head(network))
    assert [key for group in groups for key in group.parameters].count("neck.2.weight") == 1


def test_a_parameter_shared_between_two_groups_is_counted_once() -> None:
    network = OwnNetwork()
    network.more = nn.Linear(4, 5)
    network.more.weight = network.neck[2].weight
    groups = build_layer_groups(network, "out")
    members = [id(network.get_parameter(key)) for group in groups for key in group.parameters]
    assert sorted(members) == sorted({id(parameter) for parameter in network.parameters()})
