"""Networks of a local torch.hub repository: built, staged, loaded; and refusal of untrusted ones on GitHub."""

from pathlib import Path

import pytest
import torch

from unfreeze.errors import UnfreezeError
from unfreeze.models.analysis import check_image_size, find_edge
from unfreeze.models.architecture import find_architecture
from unfreeze.models.classifier import build_classifier, rebuild_classifier
from unfreeze.models.spec import ModelSpec
from unfreeze.training.features.keys import digest_of

HUBCONF = '''
dependencies = ["torch"]
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.out = nn.Linear(width, 10)

    def forward(self, images):
        return self.out(self.body(self.stem(images)).mean((2, 3)))


def net(width=8):
    """A plain network."""
    return Net(width)


def known(pretrained=False, width=8):
    network = Net(width)
    if pretrained:
        nn.init.constant_(network.stem.weight, 0.5)
    return network


def breaks():
    raise KeyError("no such thing")


def gives_text():
    return "text"
'''
DECIDES = """
        images = self.stem(images)
        images = images if images.mean() > 0 else -images
        return self.out(self.body(images).mean((2, 3)))
"""
CLASSES = ("a", "b", "c")


@pytest.fixture
def repo(tmp_path: Path) -> str:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "hubconf.py").write_text(HUBCONF)
    return str(tmp_path / "repo")


def test_a_plain_network_is_cut_at_its_children_and_gets_a_head(repo: str) -> None:
    spec = ModelSpec("net", "hub", repo=repo, options=(("width", 12),))
    classifier = build_classifier(spec, classes=CLASSES, weights=None, image_size=32)
    assert [group.name for group in classifier.groups] == ["head", "body", "stem"]
    assert classifier.network(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert classifier.network.stem.out_channels == 12
    again = rebuild_classifier(classifier.to_record(), classifier.network.state_dict(), trust_repo=True)
    assert torch.equal(again.network.out.weight, classifier.network.out.weight)


def test_a_network_that_decides_by_values_takes_images_and_is_not_cut(repo: str) -> None:
    conf = Path(repo, "hubconf.py")
    conf.write_text(HUBCONF.replace("\n        return self.out(self.body(self.stem(images)).mean((2, 3)))\n", DECIDES))
    assert DECIDES in conf.read_text()
    spec = ModelSpec("net", "hub", repo=repo, options=(("width", 9),))
    check_image_size(spec, 32)
    assert find_edge(spec, 3, size_px=32, live=("head",)) is None


def test_another_forward_with_the_same_weights_has_another_digest(repo: str) -> None:
    def digest() -> str:
        spec = ModelSpec("net", "hub", repo=repo)
        classifier = build_classifier(spec, classes=CLASSES, weights=None, image_size=32)
        for parameter in classifier.network.parameters():
            torch.nn.init.constant_(parameter, 0.1)
        return digest_of(classifier.network)

    conf = Path(repo, "hubconf.py")
    conf.write_text(HUBCONF)
    first = digest()
    assert digest() == first
    conf.write_text(HUBCONF.replace("return self.out(self.body(", "return -self.out(self.body("))
    assert digest() != first


def test_weights_come_from_the_entry_point_or_a_file(repo: str, tmp_path: Path) -> None:
    known = ModelSpec("known", "hub", repo=repo)
    published = build_classifier(known, classes=CLASSES)
    assert published.network.stem.weight.eq(0.5).all()
    torch.save(published.network.state_dict(), tmp_path / "net.pth")
    loaded = build_classifier(ModelSpec("net", "hub", repo=repo), classes=("a", "b"), weights=str(tmp_path / "net.pth"))
    assert loaded.network.stem.weight.eq(0.5).all()
    assert loaded.report is not None
    assert loaded.report.old_head == ("out.weight", "out.bias")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("nothing", None, "hubconf.py has no 'nothing'; want .*net"),
        ("net", "DEFAULT", "net of .* takes no argument `pretrained`; type model.weights=path/to/file"),
        ("breaks", None, "can't be built .*no such thing"),
        ("gives_text", None, "is a str, not a network"),
    ],
)
def test_an_unavailable_network_is_refused_in_one_line(repo: str, name: str, weights: str | None, message: str) -> None:
    with pytest.raises(UnfreezeError, match=message):
        build_classifier(ModelSpec(name, "hub", repo=repo), classes=CLASSES, weights=weights)


def test_code_from_github_runs_only_where_that_was_said() -> None:
    with pytest.raises(UnfreezeError, match=r"model\.trust_repo=true"):
        find_architecture(ModelSpec("resnet18", "hub", repo="pytorch/vision"))
    with pytest.raises(UnfreezeError, match=r"model\.repo: no folder 'nets' with a hubconf\.py"):
        find_architecture(ModelSpec("resnet18", "hub", repo="nets", trust_repo=True))
    with pytest.raises(UnfreezeError, match=r"model\.repo: missing"):
        find_architecture(ModelSpec("resnet18", "hub"))
