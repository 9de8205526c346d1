"""Networks of timm's families can be cut at every edge of a layer group, except those in docs/cache.md."""

import re
from pathlib import Path

import pytest
import torch

from tests.models.sizes import smallest_px
from tests.models.timm_families import SMALLEST
from unfreeze.models.analysis import find_edge
from unfreeze.models.classifier import build_classifier
from unfreeze.models.partition import activations_of, check_partition, partition_network
from unfreeze.models.spec import ModelSpec
from unfreeze.models.tracing import CannotPartitionError

pytest.importorskip("timm", reason="timm is not installed")
QUICK = ("vit_small_patch16_dinov3", "test_vit", "lcnet_035")
MORE = (
    *("vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224", "vit_base_patch16_siglip_224", "hiera_tiny_224"),
    *("mobilenetv4_conv_small_050", "nest_tiny", "davit_tiny", "gcvit_xxtiny", "legacy_seresnet18", "selecsls42"),
    *("sequencer2d_s", "skresnet18", "visformer_tiny", "vitamin_small_224", "samvit_base_patch16_224", "rdnet_tiny"),
)
NOT_CUT = {
    "crossvit_tiny_240": {2, 3},
    "pit_ti_224": {4},
    "selecsls42": {3, 4},
    "tnt_s_legacy_patch16_224": {2, 3, 4, 5},
}
"""By how many groups train."""


def depths_not_cut(name: str) -> set[int]:
    """Return at how many live groups a network is not cut, having compared the logits at all other edges."""
    spec = ModelSpec(name, "timm")
    torch.manual_seed(0)
    classifier = build_classifier(spec, classes=["a", "b", "c"], weights=None, image_size=smallest_px(spec))
    network, shape = classifier.network, classifier.preprocessing.shape
    names, images, lacking = [group.name for group in classifier.groups], torch.randn(2, *shape), set()
    for depth in range(1, len(names)):
        network.train()
        classifier.set_frozen_modes(names[:depth], "eval")
        try:
            partition = partition_network(network, classifier.groups, names[:depth], image_shape=shape)
            assert partition is not None
            check_partition(network, partition, images)
        except CannotPartitionError:
            lacking.add(depth)
            continue
        with torch.no_grad():
            torch.manual_seed(1)
            parts = partition.suffix(*activations_of(partition.prefix, images))
            torch.manual_seed(1)
            torch.testing.assert_close(parts, network(images), rtol=1e-5, atol=1e-5)
    return lacking


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(each, marks=pytest.mark.slow) for each in [*SMALLEST, *MORE])])
def test_a_family_is_cut_at_every_edge(name: str) -> None:
    assert depths_not_cut(name) == NOT_CUT.get(name, set())


def test_the_plan_knows_where_dinov3_is_cut() -> None:
    edge = find_edge(ModelSpec("vit_small_patch16_dinov3", "timm"), 2, size_px=96, live=("head",))
    assert edge is not None
    assert edge.row_bytes == 4 * 384


def test_what_is_not_cut_is_documented() -> None:
    section = (Path(__file__).parents[2] / "docs/cache.md").read_text().split("## What can't be cut")[1]
    families = {re.split(r"[_\d]", name)[0] for name in NOT_CUT}
    assert all(family in section.lower() for family in families)
