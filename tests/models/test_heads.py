"""Heads of every family are found and replaced, and nothing else changes."""

from functools import cache

import pytest
import torch
from torch import nn

from tests.models.families import FAMILIES, HEADS
from unfreeze.errors import UnfreezeError
from unfreeze.models.architecture import find_architecture
from unfreeze.models.heads import CosineHead, DropoutLinear, MLPHead, find_head, replace_head
from unfreeze.models.spec import HeadName, HeadSpec

MEMBERS = sorted(FAMILIES.values())
WITH_DROPOUT = {
    "vgg11": "classifier.5",
    "vgg11_bn": "classifier.5",
    "efficientnet_b0": "classifier.0",
    "efficientnet_v2_s": "classifier.0",
    "mobilenet_v2": "classifier.0",
    "mobilenet_v3_small": "classifier.2",
    "squeezenet1_1": "classifier.0",
    "mnasnet0_5": "classifier.0",
}


@cache
def stock_skeleton(name: str) -> nn.Module:
    """Return a stock network that no test changes."""
    return find_architecture(name).skeleton()


def skeleton_with_head(name: str, *, num_classes: int, dropout: float | None = None) -> nn.Module:
    network = find_architecture(name).skeleton()
    with torch.device("meta"):
        replace_head(network, find_head(network), num_classes=num_classes, head=HeadSpec(dropout=dropout))
    return network.eval()


@pytest.mark.parametrize("name", MEMBERS)
def test_the_layer_that_gives_the_logits_is_found(name: str) -> None:
    assert find_head(stock_skeleton(name)) == HEADS[name]


@pytest.mark.parametrize("name", MEMBERS)
def test_the_new_head_gives_as_many_logits_as_classes_and_keeps_the_keys(name: str) -> None:
    stock = stock_skeleton(name).state_dict()
    network = skeleton_with_head(name, num_classes=7)
    with torch.no_grad():
        assert network(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 7)
    state = network.state_dict()
    assert list(state) == list(stock)
    changed = {key for key in state if state[key].shape != stock[key].shape}
    assert changed == {key for key in stock if key.startswith(f"{HEADS[name]}.")}


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small"])
def test_cheap_networks_answer_with_finite_logits(name: str) -> None:
    network = find_architecture(name).build()
    replace_head(network, find_head(network), num_classes=3, head=HeadSpec(dropout=0.3))
    with torch.no_grad():
        logits = network.eval()(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", MEMBERS)
def test_dropout_leaves_the_keys_of_the_state_dict_unchanged(name: str) -> None:
    stock = stock_skeleton(name).state_dict()
    assert list(skeleton_with_head(name, num_classes=7, dropout=0.4).state_dict()) == list(stock)


@pytest.mark.parametrize("name", sorted(WITH_DROPOUT))
def test_dropout_goes_into_the_layer_that_stands_before_the_head(name: str) -> None:
    network = skeleton_with_head(name, num_classes=7, dropout=0.4)
    existing = network.get_submodule(WITH_DROPOUT[name])
    assert isinstance(existing, nn.Dropout)
    assert existing.p == 0.4
    assert not isinstance(network.get_submodule(HEADS[name]), DropoutLinear)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_b_32", "swin_t", "convnext_tiny", "regnet_x_400mf"])
def test_dropout_is_added_where_a_plain_linear_layer_stands(name: str) -> None:
    head = skeleton_with_head(name, num_classes=7, dropout=0.4).get_submodule(HEADS[name])
    assert isinstance(head, DropoutLinear)
    assert head.dropout.p == 0.4


@pytest.mark.parametrize("name", sorted(WITH_DROPOUT))
def test_without_a_dropout_given_the_architectures_own_stays(name: str) -> None:
    stock = stock_skeleton(name).get_submodule(WITH_DROPOUT[name])
    kept = skeleton_with_head(name, num_classes=7).get_submodule(WITH_DROPOUT[name])
    assert isinstance(stock, nn.Dropout)
    assert isinstance(kept, nn.Dropout)
    assert kept.p == stock.p


def test_a_dropout_of_0_switches_the_architectures_own_off() -> None:
    assert skeleton_with_head("mobilenet_v2", num_classes=7, dropout=0.0).get_submodule("classifier.0").p == 0.0


def test_dropout_linear_drops_in_training_and_only_there() -> None:
    torch.manual_seed(0)
    layer = DropoutLinear(1000, 1, dropout=0.25)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    ones = torch.ones(200, 1000)
    assert torch.equal(layer.eval()(ones), torch.full((200, 1), 1000.0))
    dropped = layer.train()(ones)
    assert dropped.std() > 1
    assert dropped.mean().item() == pytest.approx(1000, rel=0.01)


def test_a_head_can_be_replaced_twice() -> None:
    network = find_architecture("shufflenet_v2_x0_5").build()
    replace_head(network, "fc", num_classes=3, head=HeadSpec(dropout=0.5))
    replace_head(network, "fc", num_classes=4)
    assert type(network.fc) is nn.Linear
    assert network.fc.out_features == 4


def test_a_convolutional_head_takes_dropout_only_where_it_has_one() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    with pytest.raises(UnfreezeError, match=r"head.dropout=0.1: the head of this architecture is a convolution"):
        replace_head(network, find_head(network), num_classes=2, head=HeadSpec(dropout=0.1))


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(UnfreezeError, match="no linear or convolutional layer"):
        find_head(nn.Sequential(nn.ReLU(), nn.Flatten()))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "swin_t"])
@pytest.mark.parametrize(("kind", "expected"), [("mlp", MLPHead), ("cosine", CosineHead)])
def test_another_kind_of_head_takes_the_place_of_the_linear_layer(name: str, kind: HeadName, expected: type) -> None:
    network = find_architecture(name).skeleton()
    with torch.device("meta"):
        replace_head(network, HEADS[name], num_classes=5, head=HeadSpec(kind, dropout=0.4, hidden=7))
    new = network.get_submodule(HEADS[name])
    assert isinstance(new, expected)
    around = network.get_submodule(HEADS[name].split(".")[0])
    assert any(isinstance(module, nn.Dropout) and module.p == 0.4 for module in [*around.modules(), *new.modules()])
    with torch.no_grad():
        assert network.eval()(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 5)
    if kind == "mlp":
        assert new[0].out_features == 7


def test_a_cosine_head_does_not_mind_the_length_of_features() -> None:
    torch.manual_seed(0)
    head, features = CosineHead(6, 3, dropout=0.0), torch.randn(4, 6)
    torch.testing.assert_close(head(features), head(100 * features))
    assert head(features).abs().max() <= head.scale
    with torch.no_grad():
        head.weight[1] = features[0]
    assert head(features)[0].argmax() == 1
    torch.testing.assert_close(head(features)[0, 1], head.scale.detach())


@pytest.mark.parametrize(
    ("head", "message"),
    [(HeadSpec("mlp"), "head=mlp"), (HeadSpec("cosine"), "head=cosine")],
)
def test_a_convolutional_head_can_not_be_of_another_kind(head: HeadSpec, message: str) -> None:
    network = find_architecture("squeezenet1_1").skeleton()
    with pytest.raises(UnfreezeError, match=f"{message}: the head of this architecture is a convolution"):
        replace_head(network, "classifier.1", num_classes=2, head=head)
