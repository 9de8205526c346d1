"""Grad-CAM maps highlight the evidence, for every layout of a network's features."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unfreeze.evaluation.saliency import grad_cam

SIDE = 8


class Convolutional(nn.Module):
    """Class 1 is as likely as the image is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 4, stride=4)
        self.head = nn.Linear(4, 2)
        nn.init.constant_(self.features.weight, 0.1)
        nn.init.zeros_(self.features.bias)
        self.head.weight.data = torch.tensor([[-1.0] * 4, [1.0] * 4])

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


class ChannelsLast(Convolutional):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.features(images).permute(0, 2, 3, 1)).mean(dim=(1, 2)))
        return logits


class ClassToken(Convolutional):
    """Predicts from a class token that attends to the others; patch tokens after that do not affect the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.features(images).flatten(2).transpose(1, 2)
        tokens = self.before(torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1))
        attended = torch.cat([tokens.mean(dim=1, keepdim=True), tokens[:, 1:]], dim=1)
        logits: Tensor = self.head(self.after(attended)[:, 0])
        return logits


def bright_corner() -> Tensor:
    images = torch.zeros(2, 3, 4 * SIDE, 4 * SIDE)
    images[0, :, :8, :8] = 1  # above, left
    images[1, :, -8:, -8:] = 1  # below, right
    return images


@pytest.mark.parametrize("build", [Convolutional, ChannelsLast, ClassToken])
def test_the_bright_corner_is_highlighted(build: Callable[[], nn.Module]) -> None:
    network = build().eval()
    heat = grad_cam(network, bright_corner(), torch.tensor([1, 1]))
    assert heat is not None
    assert heat.shape == (2, SIDE, SIDE)
    first, second = torch.from_numpy(heat)
    assert first[:2, :2].min() == 1
    assert first.sum() == 4
    assert second[-2:, -2:].min() == 1
    assert second.sum() == 4


def test_the_map_of_the_other_class_is_zero() -> None:
    heat = grad_cam(Convolutional().eval(), bright_corner(), torch.tensor([0, 0]))
    assert heat is not None
    assert heat.max() == 0


def test_a_network_without_spatial_positions_has_no_map() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * SIDE * SIDE, 2))
    assert grad_cam(flat, bright_corner(), torch.tensor([0, 1])) is None


def test_the_network_is_unchanged() -> None:
    network = Convolutional().eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.inference_mode():
        grad_cam(network, bright_corner(), torch.tensor([1, 1]))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_stock_networks_have_maps() -> None:
    import torchvision

    torch.manual_seed(0)
    for name, side in (("mobilenet_v3_small", 2), ("swin_t", 2), ("vit_b_16", 4)):
        network = torchvision.models.get_model(name, **({"image_size": 64} if name == "vit_b_16" else {})).eval()
        if name == "vit_b_16":
            nn.init.normal_(network.heads.head.weight)  # published as zeros
        heat = grad_cam(network, torch.randn(2, 3, 64, 64), torch.tensor([3, 5]))
        assert heat is not None, name
        assert heat.shape[1] >= side, name
        assert heat.max() == 1, name
