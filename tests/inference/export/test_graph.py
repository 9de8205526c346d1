"""What a graph that takes pixels makes of them, beside the preprocessing that the network learnt with."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from unfreeze.inference.export.graph import Graph, GraphFromPixels, Signature, build_graph
from unfreeze.inference.export.onnx_file import open_onnx, write_onnx
from unfreeze.models.classifier import build_classifier
from unfreeze.models.outputs import Outputs, TaskClasses
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import ModelSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDED_DOWN_LATE = [(10, 0, 81), (100, 10, 83), (213, 20, 84)]


class Seen(nn.Module):
    """Gives the pixels that it sees."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.mark.parametrize(
    ("preprocessing", "shape"),
    [
        (Preprocessing(36, 32, "bilinear", MEAN, STD), (3, 36, 36)),
        (Preprocessing(36, 32, "bilinear", MEAN, STD), (3, 8, 8)),
        (Preprocessing(36, 33, "bicubic", MEAN, STD), (3, 12, 10)),
        (Preprocessing(32, 32, "bicubic", MEAN, STD, squash=True), (3, 9, 9)),
        (Preprocessing(32, 32, "bilinear", MEAN, STD), (3, 32, 32)),
        (Preprocessing(32, 28, "bilinear", MEAN[:1], STD[:1]), (3, 28, 28)),
        (Preprocessing(32, 28, "bicubic", MEAN[:1], STD[:1]), (1, 20, 20)),
        (Preprocessing(36, 32, "bilinear", MEAN * 3, STD * 3), (9, 11, 11)),
    ],
    ids=str,
)
def test_preprocessing_equals_that_of_training(preprocessing: Preprocessing, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    seen: list[torch.Tensor] = []
    network = nn.Sequential(Seen(), nn.LazyLinear(2))
    network[0].register_forward_hook(lambda _, __, out: seen.append(out))
    GraphFromPixels(network, Outputs.of("ab"), preprocessing, shape)(images)
    # A pixel that is off by one would be off by a hundredth.
    torch.testing.assert_close(seen[0], preprocessing(images).flatten(1), rtol=0, atol=2e-6)


def test_grey_is_rounded_as_torchvision_does_in_a_file_too(tmp_path: Path) -> None:
    seen = Preprocessing(256, 256, "bilinear", (0.0,), (1 / 255,))
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    # Coarse colours, among which are those whose grey is a whole number but for rounding.
    images[1, 0] = torch.arange(0, 256).clamp(max=250) // 10 * 10
    signature = Signature(True, (3, 256, 256), ("probabilities",), (256 * 256,), multilabel=True)
    outputs = Outputs((TaskClasses("label", tuple(map(str, range(256 * 256)))),), multilabel=True)
    write_onnx(GraphFromPixels(Halved(), outputs, seen, (3, 256, 256)).eval(), signature, tmp_path / "grey.onnx", {})
    (output,) = open_onnx(tmp_path / "grey.onnx", signature)(images)
    levels = (output.double().logit() * 32 + 128).round()
    assert torch.equal(levels, seen(images).flatten(1).double())


class Halved(nn.Module):
    """Gives the pixels that it sees, as logits that a sigmoid keeps apart."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images.flatten(1) - 128) / 32


def test_the_input_is_the_format_of_the_runs_data() -> None:
    classifier = build_classifier("tiny", classes="ab", weights=None, image_size=64)
    assert Signature.of(classifier, inside=False).shape == (3, 64, 64)
    resized = classifier.preprocessing.resize_px
    assert Signature.of(classifier, inside=True).shape == (3, resized, resized)
    assert Signature.of(replace(classifier, native_px=(12, 10)), inside=True).shape == (3, 10, 12)
    grey = build_classifier(ModelSpec("tiny", in_chans=1), classes="ab", weights=None, image_size=64)
    assert Signature.of(grey, inside=False).shape == (1, 64, 64)
    assert Signature.of(grey, inside=True).shape == (3, resized, resized)
    bands = build_classifier(ModelSpec("tiny", in_chans=5), classes="ab", weights=None, image_size=64)
    assert Signature.of(bands, inside=True).shape == (5, resized, resized)


def test_each_task_has_an_output_with_a_name_that_runtimes_take() -> None:
    names = ("tone", "the hue", "the-hue", "色", "")
    tasks = tuple(TaskClasses(name, ("a", "b", "c")[: 2 + number % 2]) for number, name in enumerate(names))
    classifier = build_classifier("tiny", classes=Outputs(tasks), weights=None, image_size=32)
    classifier.network.eval()
    signature = Signature.of(classifier, inside=False)
    assert signature.outputs == ("logits_tone", "logits_the_hue", "logits_the_hue_2", "logits_3", "logits_4")
    graph = build_graph(classifier, signature)
    assert isinstance(graph, Graph)
    with torch.no_grad():
        outputs = graph(torch.randn(4, 3, 32, 32))
        probabilities = build_graph(classifier, Signature.of(classifier, inside=True))(
            torch.randint(0, 256, (4, *Signature.of(classifier, inside=True).shape), dtype=torch.uint8)
        )
    assert [output.shape[1] for output in outputs] == [2, 3, 2, 3, 2]
    for each in probabilities:
        torch.testing.assert_close(each.sum(dim=1), torch.ones(4))
