"""The rule on precision: instructions of the device and the share of depthwise convolutions decide."""

from typing import Any

import pytest
import torch
from torchvision.models import convnext_tiny, mobilenet_v2, resnet18, vit_b_16

from unfreeze.training.precision import rule
from unfreeze.training.precision.precision import Precision
from unfreeze.training.precision.rule import choose_precision, cpu_flags, depthwise_share

CPU = torch.device("cpu")
SHAPE = (3, 224, 224)


def choose(network: torch.nn.Module, device: torch.device = CPU) -> Precision:
    return choose_precision(network, image_shape=SHAPE, device=device)


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "cpu_flags", lambda: frozenset({"avx2", "avx512_bf16"}))


@pytest.mark.parametrize(
    ("build", "precision"),
    [(resnet18, "bf16-mixed"), (vit_b_16, "bf16-mixed"), (convnext_tiny, "bf16-mixed"), (mobilenet_v2, "32-true")],
)
@pytest.mark.usefixtures("with_bf16")
def test_a_cpu_with_bf16_uses_it_except_for_networks_of_depthwise_convolutions(build: Any, precision: str) -> None:
    assert choose(build(weights=None)).precision == precision


@pytest.mark.parametrize("flags", [frozenset(), frozenset({"avx2", "avx512f"})])
def test_a_cpu_without_bf16_instructions_uses_float32(flags: frozenset[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "cpu_flags", lambda: flags)
    chosen = choose(resnet18(weights=None))
    assert str(chosen) == "32-true · channels_last (the device has no bf16 instructions)"


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")]
)
def test_a_gpu_uses_bf16_from_ampere_on_whatever_the_network(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for build in (mobilenet_v2, convnext_tiny):
        assert choose(build(weights=None), torch.device("cuda")).precision == precision


def test_other_accelerators_use_float32() -> None:
    assert choose(resnet18(weights=None), torch.device("mps")).precision == "32-true"


def test_shares_are_those_of_the_multiply_adds() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=False),  # 49 products per value
        torch.nn.Conv2d(8, 49, 1, bias=False),  # 8 products for each of 49 channels
    )
    assert depthwise_share(network, (8, 10, 10)) == pytest.approx(0.5)


def test_flags_are_those_of_the_kernel() -> None:
    flags = cpu_flags()
    assert not flags or flags & {"sse2", "asimd"}
