"""Smallest image sizes of networks, for tests that only run them."""

import torch

from unfreeze.errors import UnfreezeError
from unfreeze.models.analysis import check_image_size
from unfreeze.models.classifier import build_classifier
from unfreeze.models.spec import ModelSpec


def smallest_px(spec: ModelSpec) -> int:
    """Return the first of some sizes at which a network gives logits."""
    for size_px in (32, 64, 96, 128, 160, 192, 224, 240, 256):
        try:
            check_image_size(spec, size_px)
            network = build_classifier(spec, classes=["a", "b"], weights=None, image_size=size_px).network
            with torch.no_grad():
                network.eval()(torch.rand(1, spec.in_chans, size_px, size_px))
        except (UnfreezeError, RuntimeError, AssertionError, ValueError):
            continue
        return size_px
    raise AssertionError(f"no size found for {spec.name}")
