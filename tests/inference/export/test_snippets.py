"""The scripts of model cards, run in a separate process on all kinds of photos, against `predict`."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.export.test_export import classifier_of, export, script_of
from unfreeze.inference.batch_loader import BatchLoader
from unfreeze.inference.inputs import chunk_files
from unfreeze.inference.prediction import predict
from unfreeze.models.classifier import Classifier
from unfreeze.models.preprocessing import Preprocessing

RUN_ON_EACH = """
import runpy, shutil, sys
for name in sys.argv[1:]:
    shutil.copyfile(name, "photo.jpg")
    runpy.run_path("script.py")
assert "unfreeze" not in sys.modules
"""
SIZES = ((61, 44), (45, 70), (53, 53), (200, 37), (33, 91))


def save_photos(folder: Path) -> list[str]:
    """Write photos of odd sizes: turned by EXIF, transparent, grey, CMYK, of 16 bits, of a palette."""
    random = np.random.default_rng(0)
    names = []
    for number, (width, height) in enumerate(SIZES):
        small = random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 4), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        grey = np.asarray(picture.convert("L")).astype(np.uint16)
        wide = Image.fromarray(grey * 257 + random.integers(0, 128, grey.shape, dtype=np.uint16))
        kinds = {"rgb.png": picture.convert("RGB"), "alpha.png": picture, "grey.png": picture.convert("L")}
        kinds |= {"wide.png": wide, "cmyk.jpg": picture.convert("CMYK"), "palette.png": picture.convert("P")}
        for kind, image in kinds.items():
            names.append(f"{number}-{kind}")
            image.save(folder / names[-1])
        for turn in (6, 8):
            exif = Image.Exif()
            exif[0x0112] = turn
            names.append(f"{number}-exif{turn}.jpg")
            picture.convert("RGB").save(folder / names[-1], exif=exif, quality=95)
    return names


def sensitive_classifier(folder: Path, names: list[str], *, squash: bool = False, **options: object) -> Classifier:
    """Return a classifier that crops what it sees, and whose probabilities differ much between some photos."""
    classifier = classifier_of(**options)
    seen = Preprocessing.from_dict({**classifier.preprocessing.to_dict(), "resize_px": 37, "squash": squash})
    classifier = replace(classifier, preprocessing=seen)
    loader = BatchLoader(classifier, device=torch.device("cpu"), workers=0)
    head = classifier.network.get_submodule(classifier.heads[0])
    with torch.no_grad():
        (batch,) = loader.load(chunk_files([str(folder / name) for name in names], bands=loader.bands, size=64))
        logits = classifier.network(batch.images) - head.bias
        factor = 2 / logits.std(dim=0).mean()
        head.weight *= factor
        head.bias.copy_(-factor * logits.mean(dim=0))
    classifier.network.to(memory_format=torch.contiguous_format)
    return classifier


def predicted(classifier: Classifier, folder: Path, names: list[str]) -> dict[str, tuple[str | None, float | None]]:
    loader = BatchLoader(classifier, device=torch.device("cpu"), workers=0)
    parts = chunk_files([str(folder / name) for name in names], bands=loader.bands, size=64)
    predictions = [each for batch in predict(loader, parts) for each in batch.predictions]
    return {Path(each.path).name: (each.label, each.probability) for each in predictions}


@pytest.mark.parametrize(
    ("to", "inside", "options"),
    [
        ("onnx", True, {}),
        pytest.param("safetensors", False, {}, marks=pytest.mark.slow),
        pytest.param("onnx", False, {"squash": True}, marks=pytest.mark.slow),
        pytest.param("onnx", False, {"in_chans": 1}, marks=pytest.mark.slow),
        pytest.param("onnx", True, {"in_chans": 1}, marks=pytest.mark.slow),
        pytest.param("torch", True, {"squash": True}, marks=pytest.mark.slow),
        pytest.param("torch", False, {}, marks=pytest.mark.slow),
        pytest.param("safetensors", False, {"name": "mnasnet0_5", "source": "torchvision"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_script_prints_the_predictions_of_predict(
    to: str, inside: bool, options: dict[str, object], tmp_path: Path
) -> None:
    names = save_photos(tmp_path)
    classifier = sensitive_classifier(tmp_path, names, **options)
    exported = export(classifier, tmp_path, to, inside=inside)
    (tmp_path / "script.py").write_text(script_of(exported))
    (tmp_path / "each.py").write_text(RUN_ON_EACH)
    done = subprocess.run([sys.executable, "each.py", *names], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    expected = predicted(classifier, tmp_path, names)
    for name, line in zip(names, lines, strict=True):
        label, probability = line.rsplit(" ", 1)
        assert (label, float(probability)) == (expected[name][0], pytest.approx(expected[name][1], abs=1e-4)), name
    assert len({label for label, _ in expected.values()}) > 1
