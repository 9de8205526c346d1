"""Features are found again by what decides them, and never used where anything of that has changed."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.cached_run import BLOCK, HEAD, Fit, Run, make_data
from unfreeze.cache.folder import CacheFolder
from unfreeze.training.features.keys import digest_of
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.module import ImageClassifier


def other_weights(module: ImageClassifier) -> None:
    with torch.no_grad():
        module.network.conv1[0].weight[0, 0, 0, 0] += 1e-3


def other_statistics(module: ImageClassifier) -> None:
    module.network.conv1[1].running_mean[0] += 1e-3


def other_transforms(module: ImageClassifier) -> None:
    old = module.classifier.preprocessing
    object.__setattr__(module.classifier, "preprocessing", replace(old, mean=(0.5, 0.5, 0.5)))


def other_options(module: ImageClassifier) -> None:
    """As timm's number of attention heads, which no tensor shows."""
    object.__setattr__(module.classifier, "spec", replace(module.classifier.spec, options=(("num_heads", 4),)))


def other_resolution(module: ImageClassifier) -> None:
    object.__setattr__(module.classifier, "preprocessing", module.classifier.preprocessing.at(40))


CHANGES = {
    "weights": {"change": other_weights},
    "statistics": {"change": other_statistics},
    "transforms": {"change": other_transforms},
    "options": {"change": other_options},
    "resolution": {"change": other_resolution},
    "data": {"data": 1},
    "boundary": {"stages": [BLOCK]},
    "draws": {"augment": "light"},
}


@pytest.mark.parametrize("what", CHANGES)
def test_features_of_something_else_are_never_used(fit: Fit, tmp_path: Path, what: str) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0), sweep=tmp_path, views=2)
    Run(fit, [HEAD], options=options)
    changed = dict(CHANGES[what])
    stages = changed.pop("stages", [HEAD])
    if "data" in changed:
        changed["data"] = make_data(seed=changed["data"])
    run = Run(fit, stages, options=options, **changed)
    assert run.reports[0]["images"] > 0, f"features from before the change of {what} were taken"


@pytest.mark.parametrize("library", ["torch", "torchvision", "PIL", "unfreeze"])
def test_features_of_another_version_are_never_used(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    Run(fit, [HEAD], options=options)
    monkeypatch.setattr(f"{library}.__version__", "99.0")
    assert not Run(fit, [HEAD], options=options).reports[0]["reused"]


def test_features_of_another_version_of_what_the_prefix_is_made_of_are_never_used(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_this_module(module: ImageClassifier) -> None:
        module.network.conv1.append(Scaled(2.0, 1.0))

    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    reused = [Run(fit, [HEAD], options=options, change=of_this_module).reports[0]["reused"] for _ in range(2)]
    monkeypatch.setattr(sys.modules["tests"], "__version__", "2", raising=False)
    reused.append(Run(fit, [HEAD], options=options, change=of_this_module).reports[0]["reused"])
    assert reused == [False, True, False]


def test_features_of_products_rounded_otherwise_are_never_used(fit: Fit, tmp_path: Path) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    Run(fit, [HEAD], options=options)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert not Run(fit, [HEAD], options=options).reports[0]["reused"]
    finally:
        torch.set_float32_matmul_precision(before)


class Scaled(nn.Module):
    """Has what no state_dict shows."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.factor + self.offset


def holding(value: object) -> nn.Module:
    network = Scaled(2.0, 1.0)
    network.more = value  # type: ignore[assignment]
    return network


def test_prefixes_that_differ_in_what_no_state_dict_shows_have_other_digests() -> None:
    networks = [Scaled(2.0, 1.0), Scaled(3.0, 1.0), Scaled(2.0, 2.0)]
    networks += map(holding, [None, {"at": [1]}, {"at": [2]}, {1}, torch.relu, torch.tanh, torch.float64, nn.ReLU()])
    networks += map(holding, [np.arange(3), np.arange(3) * 2, np.arange(3.0)])
    digests = [digest_of(nn.Sequential(network)) for network in networks]
    assert len(set(digests)) == len(networks)
    assert digest_of(nn.Sequential(Scaled(2.0, 1.0))) == digests[0]
    assert digest_of(nn.Sequential(holding({"at": [2]}))) == digests[5]


def test_code_that_a_class_inherits_or_its_file_imports_decides_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "squashing_of_mine": "import torch\n\ndef squash(x):\n    return torch.relu(x)\n",
        "bases_of_mine": "from torch import nn\n\nclass Base(nn.Module):\n"
        "    def forward(self, x):\n        return self.act(x)\n",
        "blocks_of_mine": "from bases_of_mine import Base\nfrom squashing_of_mine import squash\n\n"
        "class Block(Base):\n    def act(self, x):\n        return squash(x)\n",
    }
    monkeypatch.syspath_prepend(tmp_path)

    def digest(changed: str | None = None) -> str:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text + "# other\n" * (name == changed))
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return digest_of(importlib.import_module("blocks_of_mine").Block())

    first = digest()
    assert digest() == first
    assert len({first, *map(digest, files)}) == 4


def test_features_of_another_precision_are_never_used(fit: Fit, tmp_path: Path) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    run = Run(lambda *a, **k: fit(*a, trainer={"precision": "bf16-mixed"}, **k), [HEAD], options=options)
    sizes = {item.key: item.nbytes for item in options.folder.entries()}
    assert len(sizes) == 2, "trained on in bf16, judged in float32"
    assert run.reports[0]["images"] == len(make_data().splits.train) + len(make_data().splits.val)
    assert not Run(fit, [HEAD], options=options).reports[0]["reused"]
