"""The input transform against torchvision's own preset, on photos."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models import get_model_weights
from torchvision.transforms.functional import pil_to_tensor

from unfreeze.models.architecture import find_architecture
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.torchvision_models import classifier_names


def smooth_photo(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Return noise enlarged to a size: gradients and edges, as in a photo."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    return noise.resize((width, height), Image.Resampling.BICUBIC)


def as_batch(image: Image.Image) -> Tensor:
    return pil_to_tensor(image)[None]


@pytest.mark.parametrize("size", [(256, 256), (500, 375), (375, 500), (301, 299), (160, 90), (64, 64)])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b0", "swin_t", "vit_b_16"])
def test_equals_torchvisions_preset_within_rounding(name: str, size: tuple[int, int]) -> None:
    architecture = find_architecture(name)
    image = smooth_photo(*size)
    ours = architecture.preprocessing()(as_batch(image))[0]
    theirs = get_model_weights(name).DEFAULT.transforms()(image)
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    # PIL rounds after each pass of a resize, tensors do so elsewhere: a few pixels differ by a step or two of 255.
    levels = (ours - theirs).abs() * torch.tensor(architecture.preprocessing().std).view(3, 1, 1) * 255
    assert levels.max() <= 2.01
    assert levels.mean() <= 0.02


@pytest.mark.parametrize("name", classifier_names())
def test_takes_every_field_from_the_default_weights(name: str) -> None:
    default = get_model_weights(name).DEFAULT
    preset, ours = default.transforms(), find_architecture(name).preprocessing()
    assert find_architecture(name).weight_names[0] == default.name
    assert ([ours.resize_px], [ours.crop_px]) == (preset.resize_size, preset.crop_size)
    assert ours.interpolation == preset.interpolation.value
    assert (list(ours.mean), list(ours.std)) == (preset.mean, preset.std)


def test_weights_by_name_bring_their_own_transform_and_files_that_of_the_default() -> None:
    resnet50 = find_architecture("resnet50")
    assert resnet50.weight_names == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert resnet50.preprocessing("IMAGENET1K_V1").resize_px == 256
    assert {resnet50.preprocessing(given).resize_px for given in ("DEFAULT", "my/file.pth", None)} == {232}


SMALL = Preprocessing(resize_px=232, crop_px=224, interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("crop_px", "resize_px"), [(None, 232), (224, 232), (112, 116), (96, 99), (448, 464), (8, 8), (32, 33)]
)
def test_at_another_size_the_resize_scales_alike(crop_px: int | None, resize_px: int) -> None:
    scaled = SMALL.at(crop_px)
    assert (scaled.crop_px, scaled.resize_px) == (crop_px or 224, resize_px)
    assert replace(scaled, crop_px=224, resize_px=232) == SMALL


def test_never_resizes_below_the_crop() -> None:
    for crop_px in range(8, 300):
        assert SMALL.at(crop_px).resize_px >= crop_px


@pytest.mark.parametrize("shape", [(20, 40), (24, 60), (60, 24), (24, 24)])
def test_squashing_shows_all_of_an_image_whatever_its_shape(shape: tuple[int, int]) -> None:
    squashing = replace(SMALL, resize_px=24, crop_px=24, squash=True)
    image = smooth_photo(shape[1], shape[0])
    expected = as_batch(image.resize((24, 24), Image.Resampling.BILINEAR)).float()
    resized = squashing.resize(as_batch(image)).float()
    assert resized.shape == (1, 3, 24, 24)
    assert (resized - expected).abs().max() <= 2


def test_dict_round_trip_is_plain_json() -> None:
    assert Preprocessing.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL


def test_normalize_is_value_minus_mean_over_std() -> None:
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([(0 - 0.5) / 0.2, (0.2 - 0.4) / 0.3, (1 - 0.3) / 0.4]).view(1, 3, 1, 1)
    torch.testing.assert_close(SMALL.normalize(image), expected)
    assert image.flatten().tolist() == [0, 51, 255]


def test_a_gradient_flows_through_normalize() -> None:
    images = torch.randint(0, 256, (3, 3, 5, 7)).float()
    asked = images.clone().requires_grad_()
    normalized = SMALL.normalize(asked)
    plain = SMALL.normalize(images)
    torch.testing.assert_close(normalized.detach(), plain, check_stride=True)
    normalized.sum().backward()
    expected = (1 / (255 * torch.tensor(SMALL.std))).view(1, 3, 1, 1).expand_as(images)
    torch.testing.assert_close(asked.grad, expected)


def test_resize_leaves_alone_what_has_the_size() -> None:
    images = torch.randint(0, 256, (2, 3, 232, 300), dtype=torch.uint8)
    assert SMALL.resize(images) is images


@pytest.mark.parametrize("shape", [(20, 40), (40, 20), (7, 7), (300, 233)])
def test_every_shape_ends_as_the_square_that_the_backbone_sees(shape: tuple[int, int]) -> None:
    small = SMALL.at(24)
    assert small(torch.randint(0, 256, (3, 3, *shape), dtype=torch.uint8)).shape == (3, 3, 24, 24)
