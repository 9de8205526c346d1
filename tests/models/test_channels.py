"""First convolutions for other than three channels keep their output for grey images."""

import pytest
import torch
from torchvision.transforms.functional import rgb_to_grayscale

from tests.models.families import FAMILIES
from unfreeze.models.architecture import find_architecture
from unfreeze.models.channels import adapt_weight, find_first_convolution
from unfreeze.models.classifier import build_classifier, rebuild_classifier
from unfreeze.models.spec import ModelSpec


@pytest.mark.parametrize("in_chans", [1, 2, 4, 5, 6, 12])
def test_grey_images_are_answered_as_before(in_chans: int) -> None:
    weight, grey = torch.randn(8, 3, 5, 5), torch.randn(2, 1, 9, 9)
    adapted = adapt_weight(weight, in_chans)
    assert adapted.shape == (8, in_chans, 5, 5)
    before = torch.conv2d(grey.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(torch.conv2d(grey.expand(-1, in_chans, -1, -1), adapted), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES.values())
def test_the_first_convolution_sees_the_channels(name: str) -> None:
    network = find_architecture(ModelSpec(name, in_chans=1)).skeleton()
    stock = find_architecture(name).skeleton()
    first = find_first_convolution(stock)
    assert network.get_submodule(first).in_channels == 1
    changed = [key for key, value in network.state_dict().items() if value.shape != stock.state_dict()[key].shape]
    assert changed == [f"{first}.weight"]
    with torch.no_grad():
        assert network.eval()(torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 1000)


def test_pretrained_weights_are_adapted_and_coloured_images_become_grey() -> None:
    grey = build_classifier(ModelSpec("tiny", in_chans=1), classes=("a", "b"))
    coloured = build_classifier("tiny", classes=("a", "b"))
    summed = coloured.network.get_parameter("conv1.0.weight").sum(dim=1, keepdim=True)
    torch.testing.assert_close(grey.network.get_parameter("conv1.0.weight"), summed)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    seen = grey.preprocessing(images)
    assert seen.shape == (2, 1, 64, 64)
    torch.testing.assert_close(seen, grey.preprocessing(rgb_to_grayscale(images)))
    again = rebuild_classifier(grey.to_record(), grey.network.state_dict(), trust_repo=False)
    assert torch.equal(again.network.eval()(seen), grey.network.eval()(seen))
