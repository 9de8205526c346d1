"""Features of networks whose channels are not where a convolution has them."""

import pytest
import torch

from unfreeze.errors import UnfreezeError
from unfreeze.inference.layers import FeatureExtractor
from unfreeze.models.classifier import build_classifier


@pytest.mark.parametrize(
    ("model", "layer", "width", "shape"),
    [
        ("resnet18", "layer3", 256, (2, 256, 4, 4)),
        ("resnet18", "layer1.0.relu", 64, (2, 64, 16, 16)),
        ("vit_b_32", "encoder.layers.encoder_layer_3", 768, (2, 5, 768)),
        ("swin_t", "features.1", 96, (2, 16, 16, 96)),
        ("squeezenet1_1", None, 512, None),
    ],
)
def test_the_mean_is_over_positions(model: str, layer: str | None, width: int, shape: tuple[int, ...] | None) -> None:
    classifier = build_classifier(model, classes=("a", "b"), weights=None, image_size=64)
    classifier.network.eval()
    images = torch.randn(2, 3, 64, 64)
    assert FeatureExtractor(classifier, layer)(images).shape == (2, width)
    if shape is not None:
        maps = FeatureExtractor(classifier, layer, pool="none")(images)
        assert maps.shape == shape
        positions = {"resnet18": (2, 3), "vit_b_32": (1,), "swin_t": (1, 2)}[model]
        torch.testing.assert_close(FeatureExtractor(classifier, layer)(images), maps.mean(dim=positions))


def test_every_layer_group_has_features() -> None:
    for model in ("resnet18", "mobilenet_v2", "densenet121"):
        classifier = build_classifier(model, classes=("a", "b"), weights=None, image_size=64)
        classifier.network.eval()
        for group in classifier.groups:
            features = FeatureExtractor(classifier, group.name)(torch.randn(2, 3, 64, 64))
            assert features.ndim == 2 and len(features) == 2, (model, group.name)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(FeatureExtractor(classifier, "head")(images), classifier.network(images))


def test_modules_that_are_never_called_are_refused() -> None:
    classifier = build_classifier("vit_b_32", classes=("a", "b"), weights=None, image_size=64)
    classifier.network.eval()
    with pytest.raises(
        UnfreezeError, match=r"layer: 'encoder.layers.encoder_layer_0.self_attention.out_proj' of vit_b_32"
    ):
        FeatureExtractor(classifier, "encoder.layers.encoder_layer_0.self_attention.out_proj")(
            torch.randn(1, 3, 64, 64)
        )
