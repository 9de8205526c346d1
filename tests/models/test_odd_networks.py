"""User-defined networks: heads and layer groups of supported ones, and errors about others."""

import contextlib
from pathlib import Path

import pytest
import torch

from unfreeze.errors import UnfreezeError
from unfreeze.models.analysis import group_sizes
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.output_layer import NoOutputLayerError, find_output_layer
from unfreeze.models.spec import ModelSpec

HUBCONF = """
import warnings

import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.fc = nn.Linear(8, 10)

    def features(self, images):
        return self.stem(images).mean((2, 3))

    def forward(self, images):
        return self.fc(self.features(images))


class Loose(Plain):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def features(self, images):
        return self.gain * super().features(images)


class HeadInside(Plain):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 8)

    def forward(self, images):
        return self.fc(self.head(self.features(images)))


class DefinedEarly(Plain):
    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(8, 8)


class LogProbabilities(Plain):
    def forward(self, images):
        return super().forward(images).log_softmax(dim=1)


class Tied(Plain):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.a, self.b = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.b.weight = self.a.weight

    def features(self, images):
        return self.b(self.a(self.stem(images))).mean((2, 3))


class Two(Plain):
    def forward(self, images):
        return super().forward(images), images


class Named(Plain):
    def forward(self, images):
        return {"out": super().forward(images)}


class Auxiliary(Plain):
    def forward(self, images):
        answer = super().forward(images)
        return (answer, answer) if self.training else answer


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 32, 3, stride=4), nn.BatchNorm2d(32), nn.ReLU())

    def forward(self, images):
        return self.body(images).mean((2, 3))


class Map(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 10, 3, stride=4)

    def forward(self, images):
        return self.body(images)


class Nothing(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, images):
        return images.mean((2, 3))


class Grey(Plain):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=4)

    def forward(self, images):
        return super().forward(images[:, :1])


class ForSmall(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(3 * 16 * 16, 10)

    def forward(self, images):
        return self.out(images.flatten(1))


class KeepsWhatItComputed(Plain):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.stem = nn.utils.weight_norm(self.stem)


class OutOfOrder(nn.Module):
    def __init__(self):
        super().__init__()
        self.shades = torch.ones(1, 3, 1, 1)
        self.fc, self.stem, self.projection = nn.Linear(8, 10), nn.Conv2d(3, 8, 3), nn.Linear(8, 8)

    def forward(self, images):
        return self.fc(self.projection(self.stem(images * self.shades).mean((2, 3))))


class Counting(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def features(self, images):
        return nn.functional.dropout(self.norm(self.stem(images)), 0.5, self.training).mean((2, 3))


class Excited(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.gate = nn.Conv2d(3, 32, 3, stride=4), nn.Linear(32, 32)

    def forward(self, images):
        seen = self.body(images)
        return (seen * self.gate(seen.mean((2, 3)))[..., None, None]).mean((2, 3))


class Lazy(Plain):
    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.LazyBatchNorm2d(), nn.LazyLinear(10)

    def features(self, images):
        return self.norm(self.stem(images)).mean((2, 3))


class OneNumber(Plain):
    def __init__(self):
        super().__init__()
        self.fc, self.after = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, images):
        features = self.features(images)
        answer = self.fc(features)
        self.doubt = self.after(features)
        return answer


class BreaksInTraining(Counting):
    def forward(self, images):
        answer = super().forward(images)
        assert not self.training, "never trained"
        return answer


class Mute(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 10)


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.hidden = nn.Linear(8, 10), nn.Linear(3 * 32 * 32, 8)

    def forward(self, images):
        return self.fc(self.hidden(images.flatten(1)))


class ReadsValues(Plain):
    def forward(self, images):
        assert images.abs().sum().item() >= 0
        return super().forward(images)
"""
TAKEN = {
    "Plain": ["head", "stem"],
    "Loose": ["head", "stem_", "stem"],
    "HeadInside": ["head", "neck", "stem"],
    "DefinedEarly": ["head", "projection", "stem"],
    "LogProbabilities": ["head", "stem"],
    "Tied": ["head", "b", "a", "stem"],
    "KeepsWhatItComputed": ["head", "stem"],
    "ReadsValues": ["head", "stem"],
    "OutOfOrder": ["head", "projection", "stem"],
    "Counting": ["head", "norm", "stem"],
    "Lazy": ["head", "norm", "stem"],
    "OneNumber": ["head", "after", "stem"],
}
REFUSED = {
    "Two": "in eval mode it outputs a tuple",
    "Named": "in eval mode it outputs a dict",
    "Auxiliary": "in train mode it outputs a tuple",
    "Features": "its 32 outputs per image are not those of a linear layer",
    "Excited": "its 32 outputs per image are not those of a linear layer",
    "Mute": 'missing the required "forward" function',
    "Map": r"its output for 2 images has shape \(2, 10, 56, 56\), not \(2, classes\)",
    "BreaksInTraining": "in train mode: never trained",
    "Nothing": "its 3 outputs per image are not those of a linear layer",
    "ForSmall": "no logits for images of 224 px .*data.image_size=",
}


@pytest.fixture
def repo(tmp_path: Path) -> str:
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    return str(tmp_path)


def built(repo: str, name: str, **options: object) -> Classifier:
    spec = ModelSpec(name, "hub", repo=repo)
    return build_classifier(spec, classes=("a", "b", "c"), **{"weights": None, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TAKEN)
def test_the_layer_that_answers_is_the_head_wherever_it_was_defined(name: str, repo: str) -> None:
    classifier = built(repo, name, image_size=32)
    assert classifier.heads == ("fc",)
    assert [group.name for group in classifier.groups] == TAKEN[name]
    assert classifier.network(torch.randn(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_answer_with_logits_is_refused_in_a_line(name: str, repo: str) -> None:
    with pytest.raises(UnfreezeError, match=REFUSED[name]) as refusal:
        built(repo, name)
    assert "\n" not in str(refusal.value)


def test_a_network_for_small_images_is_taken_at_its_size(repo: str) -> None:
    assert built(repo, "ForSmall", image_size=16).network(torch.randn(2, 3, 16, 16)).shape == (2, 3)


def test_shared_weights_count_once_and_train_with_the_first_that_has_them(repo: str) -> None:
    spec = ModelSpec("Tied", "hub", repo=repo)
    classifier = built(repo, "Tied")
    sizes = dict(group_sizes(spec, 3))
    assert sizes == {"head": 27, "b": 8, "a": 584, "stem": 32}
    assert sum(sizes.values()) == sum(parameter.numel() for parameter in classifier.network.parameters())
    classifier.freeze_all_but(["head", "b"])
    assert not classifier.network.b.weight.requires_grad
    assert classifier.network.b.bias.requires_grad


def test_a_file_is_made_to_fit_other_channels(repo: str, tmp_path: Path) -> None:
    stock = built(repo, "Plain")
    torch.save(stock.network.state_dict(), tmp_path / "plain.pth")
    spec = ModelSpec("Plain", "hub", repo=repo, in_chans=1)
    grey = build_classifier(spec, classes=("a", "b"), weights=str(tmp_path / "plain.pth"), image_size=32)
    images = torch.rand(2, 1, 32, 32)
    expected = stock.network.stem(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey.network.stem(images), expected, rtol=1e-4, atol=1e-5)


def test_other_channels_need_a_convolution_that_takes_three(repo: str) -> None:
    with pytest.raises(UnfreezeError, match=r"^model\.in_chans: the network has no convolution that takes three"):
        build_classifier(ModelSpec("Grey", "hub", repo=repo, in_chans=5), classes=("a", "b"), weights=None)


@pytest.mark.parametrize("name", ["Counting", "BreaksInTraining"])
def test_looking_for_the_layer_leaves_no_trace(name: str, repo: str) -> None:
    torch.manual_seed(0)
    network = torch.hub.load(repo, name, source="local")
    network.stem.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    randomness = torch.get_rng_state()
    with contextlib.nullcontext() if name == "Counting" else pytest.raises(NoOutputLayerError):
        assert find_output_layer(network, channels=3, size_px=32) == "fc"
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), randomness)
    assert network.training
    assert not network.stem.training
    assert not any(module._forward_hooks for module in network.modules())


def test_without_a_size_one_that_works_is_found(repo: str) -> None:
    assert [name for name, _ in group_sizes(ModelSpec("Fixed", "hub", repo=repo), 3)] == ["head", "hidden"]
    assert built(repo, "Fixed", image_size=32).heads == ("fc",)
