"""Exports to every format, of networks of many families: outputs, metadata and separate files."""

import json
import runpy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.photos import save_photo
from unfreeze.errors import UnfreezeError
from unfreeze.inference.export import export as exporting
from unfreeze.inference.export.check import CheckFailedError, CheckImages
from unfreeze.inference.export.export import Exported, export_classifier
from unfreeze.inference.export.graph import Signature
from unfreeze.inference.export.onnx_file import open_onnx
from unfreeze.inference.export.provenance import Provenance
from unfreeze.inference.export.request import SUFFIXES, Request
from unfreeze.inference.export.stock import find_stock
from unfreeze.inference.export.torch_file import open_torch
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.norms import BATCH_NORMS
from unfreeze.models.outputs import Outputs, TaskClasses
from unfreeze.models.spec import HeadSpec, ModelSpec

AWKWARD = (
    'say "cheese"',
    "<b>bold</b> & more",
    "🦔",
    "قطة",
    "two\nlines | pipe",
    "x" * 200,
    "back\\slash `code`",
    "---",
)


def classifier_of(name: str = "test_resnet", source: str = "timm", size: int = 32, **options: object) -> Classifier:
    """Return a classifier with random weights and calibrated norms, so that its outputs differ between images."""
    torch.manual_seed(0)
    classes = options.pop("classes", ("cat", "dog", "hen"))
    head = options.pop("head", None)
    spec = ModelSpec(name, source=source, **options)  # type: ignore[arg-type]
    weights = "DEFAULT" if name == "tiny" else None
    classifier = build_classifier(spec, classes=classes, weights=weights, image_size=size, head=head)  # type: ignore[arg-type]
    side = classifier.preprocessing.crop_px
    for module in classifier.network.modules():
        if isinstance(module, BATCH_NORMS):
            module.momentum = None
    with torch.no_grad():
        classifier.network.train()(torch.randn(16, spec.in_chans, side, side))
    classifier.network.eval()
    return classifier


def images_for(classifier: Classifier, count: int = 12) -> CheckImages:
    torch.manual_seed(1)
    shape = Signature.of(classifier, inside=True).shape
    return CheckImages(torch.randint(0, 256, (count, *shape), dtype=torch.uint8), "random images")


def export(
    classifier: Classifier, folder: Path, to: str, *, inside: bool = False, name: str = "net", **more: object
) -> Exported:
    request = Request(to, folder / f"{name}{SUFFIXES[to]}", inside, **more)  # type: ignore[arg-type]
    return export_classifier(classifier, request, images=images_for(classifier), provenance=Provenance())


def opened(exported: Exported) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    if exported.file.suffix == ".onnx":
        return open_onnx(exported.file, exported.signature)
    return open_torch(exported.file)


QUICK = [("test_resnet", "timm", 32), ("test_vit", "timm", 64)]
SLOW = [
    ("tiny", "torchvision", 32),
    ("squeezenet1_1", "torchvision", 64),
    *((name, "torchvision", 64) for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0")),
    *(
        (name, "torchvision", 64)
        for name in ("densenet121", "convnext_tiny", "vit_b_32", "swin_t", "swin_v2_t", "vgg11")
    ),
    *((name, "torchvision", 64) for name in ("regnet_x_400mf", "mnasnet0_5", "googlenet")),
    *((name, "torchvision", 96) for name in ("inception_v3",)),
    ("maxvit_t", "torchvision", 224),
    *((name, "timm", 64) for name in ("vit_tiny_patch16_224", "convnext_atto", "resnet10t", "mobilevit_xxs")),
    *((name, "timm", 64) for name in ("levit_128s", "swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224")),
]
NETWORKS = [*QUICK, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)]


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("to", ["onnx", "torch"])
@pytest.mark.parametrize(("name", "source", "size"), NETWORKS)
def test_outputs_equal_the_networks_for_batches_of_any_size(
    name: str, source: str, size: int, to: str, inside: bool, tmp_path: Path
) -> None:
    classifier = classifier_of(name, source, size)
    exported = export(classifier, tmp_path, to, inside=inside)
    assert exported.check.passed
    assert exported.check.spread > 1e-4
    run_file = opened(exported)
    pixels = images_for(classifier, 64).pixels
    seen = classifier.preprocessing(pixels)
    with torch.no_grad():
        logits = classifier.network(seen)
        expected = logits.softmax(dim=1) if inside else logits
        for count in (1, 2, 7, 64):
            (outputs,) = run_file((pixels if inside else seen)[:count].contiguous())
            assert (outputs - expected[:count]).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize(("name", "source", "size"), NETWORKS)
def test_weights_load_strictly_into_the_stock_network(name: str, source: str, size: int, tmp_path: Path) -> None:
    classifier = classifier_of(name, source, size)
    exported = export(classifier, tmp_path, "safetensors")
    assert not exported.notes
    stock = find_stock(classifier)
    assert stock is not None
    network = stock.network
    network.load_state_dict(load_file(exported.file), strict=True)
    seen = classifier.preprocessing(images_for(classifier).pixels)
    with torch.no_grad():
        assert torch.equal(network.eval()(seen), classifier.network(seen))
    assert exported.file.stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize(
    ("head", "classes", "note"),
    [
        (HeadSpec("mlp"), "abc", "the head (mlp, fc)"),
        (HeadSpec("cosine"), "abc", "the head (cosine, fc)"),
        (
            HeadSpec(tasks=(2, 3)),
            Outputs((TaskClasses("t", ("a", "b")), TaskClasses("u", ("c", "d", "e")))),
            "(multi-task, fc)",
        ),
    ],
    ids=str,
)
def test_a_head_of_ones_own_is_written_and_the_stock_network_takes_the_backbone(
    head: HeadSpec, classes: object, note: str, tmp_path: Path
) -> None:
    classifier = classifier_of(head=head, classes=classes)
    exported = export(classifier, tmp_path, "safetensors")
    assert note in exported.notes[0]
    assert "backbone only" in exported.notes[0]
    assert load_file(exported.file).keys() == classifier.network.state_dict().keys()
    assert "stock head keeps random weights" in exported.card.read_text()
    if classifier.head.tasks:
        graph = export(classifier, tmp_path, "onnx", inside=True)
        pixels = images_for(classifier).pixels
        with torch.no_grad():
            logits = classifier.network(classifier.preprocessing(pixels))
        wanted = [own.softmax(dim=1) for own in classifier.outputs.split(logits)]
        for own, given in zip(wanted, opened(graph)(pixels), strict=True):
            torch.testing.assert_close(own, given, rtol=1e-4, atol=1e-5)
        session = onnxruntime.InferenceSession(graph.file)
        assert [output.name for output in session.get_outputs()] == ["probabilities_t", "probabilities_u"]


def test_dropout_before_the_stock_head_changes_nothing(tmp_path: Path) -> None:
    assert not export(classifier_of(head=HeadSpec(dropout=0.5)), tmp_path, "safetensors").notes


def test_other_channels_have_no_stock_network_in_torchvision_but_in_timm(tmp_path: Path) -> None:
    exported = export(classifier_of("tiny", "torchvision", in_chans=5), tmp_path, "safetensors")
    assert "neither torchvision nor timm has this network" in exported.notes[0]
    assert not export(classifier_of(in_chans=5), tmp_path, "safetensors").notes
    assert export(classifier_of(in_chans=1), tmp_path, "onnx", inside=True).signature.shape[0] == 3


def test_labels_get_probabilities_of_their_own_and_thresholds_travel(tmp_path: Path) -> None:
    labels = Outputs((TaskClasses("label", ("red", "wet")),), multilabel=True)
    classifier = replace(classifier_of(classes=labels), thresholds=(0.25, 0.75))
    exported = export(classifier, tmp_path, "onnx", inside=True)
    pixels = images_for(classifier).pixels
    with torch.no_grad():
        expected = classifier.network(classifier.preprocessing(pixels)).sigmoid()
    torch.testing.assert_close(opened(exported)(pixels)[0], expected, rtol=1e-4, atol=1e-5)
    metadata = onnxruntime.InferenceSession(exported.file).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["thresholds"]) == [0.25, 0.75]
    assert metadata["task"] == "multi-label classification"


@pytest.mark.parametrize("to", SUFFIXES)
def test_metadata_with_any_class_names(to: str, tmp_path: Path) -> None:
    classifier = replace(classifier_of(classes=(*AWKWARD, "lone \udcff")), weights="/home/somebody/secret/net.pth")
    exported = export(classifier, tmp_path, to, inside=to != "safetensors")
    if to == "onnx":
        metadata = onnxruntime.InferenceSession(exported.file).get_modelmeta().custom_metadata_map
    elif to == "torch":
        extra = {"metadata.json": ""}
        torch.export.load(exported.file, extra_files=extra)
        metadata = {
            k: v if isinstance(v, str) else json.dumps(v) for k, v in json.loads(extra["metadata.json"]).items()
        }
    else:
        with safe_open(exported.file, "pt") as file:
            metadata = file.metadata()
        assert metadata["format"] == "pt"
    assert json.loads(metadata["classes"]) == [*AWKWARD, "lone \udcff"]
    seen = json.loads(metadata["preprocessing"])
    assert seen == {**classifier.preprocessing.to_dict(), "inside": to != "safetensors", "native_px": None}
    assert json.loads(metadata["architecture"])["name"] == "test_resnet"
    assert metadata["weights"] == "net.pth"
    assert "torch" in json.loads(metadata["versions"])
    assert json.loads(metadata["input"])["dtype"] == ("float32" if to == "safetensors" else "uint8")
    assert "somebody" not in exported.card.read_bytes().decode()


@pytest.mark.slow
def test_weights_have_their_own_file_only_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_of()
    alone = export(classifier, tmp_path, "onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "net.onnx"]
    monkeypatch.setattr("unfreeze.inference.export.onnx_file._MOST_BYTES", 1000)
    exported = export(classifier, tmp_path, "onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", "net.onnx", "net.onnx.data"]
    assert exported.file.stat().st_size < exported.nbytes
    assert exported.nbytes == pytest.approx(alone.nbytes, rel=0.1)
    pixels = classifier.preprocessing(images_for(classifier).pixels).contiguous()
    with torch.no_grad():
        torch.testing.assert_close(opened(exported)(pixels)[0], classifier.network(pixels), rtol=1e-4, atol=1e-5)


def test_a_file_with_other_outputs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = classifier_of()
    place = tmp_path / "exports"
    right = exporting.open_torch

    def wrong(file: Path) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
        run = right(file)
        return lambda images: tuple(each * 1.01 for each in run(images))

    monkeypatch.setattr(exporting, "open_torch", wrong)
    with pytest.raises(CheckFailedError, match="Nothing was written"):
        export(classifier, place, "torch")
    assert not place.exists()
    place.mkdir()
    (place / "net.pt2").write_text("of before")
    with pytest.raises(CheckFailedError):
        export(classifier, place, "torch")
    assert [(file.name, file.read_text()) for file in place.iterdir()] == [("net.pt2", "of before")]


def test_a_network_that_can_t_be_traced_is_refused_in_a_line(tmp_path: Path) -> None:
    class Choosing(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = self.network(images)
            return -logits if float(logits.sum()) > 0 else logits

    classifier = classifier_of()
    for to in ("onnx", "torch"):
        with pytest.raises(UnfreezeError, match=r"can't follow the network's code .* --to safetensors") as error:
            export(replace(classifier, network=Choosing(classifier.network).eval()), tmp_path, to)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("native", [None, (24, 20)], ids=str)
@pytest.mark.parametrize(
    "classes", [AWKWARD, Outputs((TaskClasses("l", ("a", "b")),), multilabel=True)], ids=["classes", "labels"]
)
def test_the_script_of_the_card_runs(
    classes: object,
    native: tuple[int, int] | None,
    inside: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    classifier = replace(classifier_of(classes=classes), native_px=native)
    save_photo(tmp_path / "photo.jpg", size=(60, 44))
    monkeypatch.chdir(tmp_path)
    for to in ("torch",) if inside else ("torch", "safetensors"):
        run_snippet(export(classifier, tmp_path, to, inside=inside))
        printed = capsys.readouterr().out
        assert any(printed.startswith(name) for name in classifier.classes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "to", "inside"),
    [
        ({}, "onnx", False),
        ({"in_chans": 1}, "onnx", True),
        ({"in_chans": 1}, "torch", False),
        ({"in_chans": 5}, "torch", True),
        ({"in_chans": 5}, "safetensors", False),
        ({"head": HeadSpec("mlp")}, "safetensors", False),
        ({"classes": Outputs((TaskClasses("t", ("a", "b")), TaskClasses("u", ("c", "d"))))}, "torch", False),
        ({"classes": Outputs((TaskClasses("t", ("a", "b")), TaskClasses("u", ("c", "d"))))}, "onnx", True),
    ],
    ids=str,
)
def test_the_scripts_of_other_cards_run(
    options: dict[str, object],
    to: str,
    inside: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_photo(tmp_path / "photo.jpg", size=(60, 44))
    monkeypatch.chdir(tmp_path)
    run_snippet(export(classifier_of(**options), tmp_path, to, inside=inside))
    assert capsys.readouterr().out


def script_of(exported: Exported) -> str:
    text = exported.card.read_text()
    section = text.split(f"<!-- file: {exported.file.name} -->")[1].split("<!-- end of file -->")[0]
    return section.split("```python\n")[1].split("```")[0]


def run_snippet(exported: Exported) -> None:
    Path("script.py").write_text(script_of(exported))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runpy.run_path("script.py")
