"""A run's network as a file for other programs, checked on the run's own images."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from unfreeze.data.sources.builtin import digits_source
from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError
from unfreeze.inference.export.check import MAX_IMAGES, CheckImages
from unfreeze.inference.export.export import Exported, default_name, export_classifier
from unfreeze.inference.export.graph import Signature
from unfreeze.inference.export.provenance import read_provenance
from unfreeze.inference.export.request import Request, check_request
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier
from unfreeze.results.lock import owned
from unfreeze.results.run_directory import RunDirectory, check_checkpoint
from unfreeze.runs.reopen import reopen
from unfreeze.system.files import shown_path

FOLDER = "exports"
"""Where files go, in a run's directory."""


def export_run(
    run: Path,
    *,
    to: str,
    out: Path | None = None,
    preprocessing: str = "outside",
    license_name: str | None = None,
    trust_repo: bool = False,
) -> Exported:
    """Write the network of a run as a file, with its model card.

    Args:
        run: A run's directory, whose best checkpoint is meant, or a .ckpt file.
        to: "onnx", "torch" or "safetensors".
        out: The file; None for one in the run's exports/.
        preprocessing: "inside" for a file that takes uint8 images and gives probabilities, or "outside".
        license_name: License of the model, for its card.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If there is no such run, or the file can't be written or its outputs differ from the network's.
    """
    check_request(to, preprocessing=preprocessing, file=out)
    run = run.expanduser()
    own = RunDirectory(run) if run.is_dir() else RunDirectory.containing(run)
    checkpoint = RunDirectory(run).best if run.is_dir() else run
    check_checkpoint(checkpoint)
    classifier = load_classifier(checkpoint, trust_repo=trust_repo)
    home = checkpoint.parent if own is None else own.path
    file = out or home / FOLDER / default_name(classifier, checkpoint, to, inside=preprocessing == "inside")
    # The images that the file is checked on go through the whole network, whatever the file takes.
    shape = Signature.of(classifier, inside=True).shape
    with owned(home, verb="export", advice="name another place with --out") if out is None else nullcontext():
        return export_classifier(
            classifier,
            Request(to, file, preprocessing == "inside", license_name),
            images=_images(classifier, shape, own),
            provenance=read_provenance(own, checkpoint),
        )


def describe_export(exported: Exported) -> list[str]:
    """Return the lines that a person reads of an export."""
    check = exported.check
    batches = " and ".join(map(str, check.batches))
    return [
        f"  {exported.file.suffix.removeprefix('.'):<13} {exported.nbytes / 1e6:,.1f} MB · {exported.signature}",
        f"  {'check':<13} {check.images} {exported.images} in batches of {batches}: {check}",
        *(f"  {'':<13} {note}" for note in exported.notes),
        f"  {'model card':<13} {shown_path(exported.card.absolute())}",
        "",
        f"  {shown_path(exported.file.absolute())}",
    ]


def _images(classifier: Classifier, shape: tuple[int, int, int], run: RunDirectory | None) -> CheckImages:
    """Return the run's own images, validation before test; where they can't be had, digits, and why."""
    if run is None:
        return CheckImages(_digits(shape), "digits", "checked on digits: the checkpoint lies alone, without its run")

    try:
        data = reopen(run, classifier.preprocessing).data
    except UnfreezeError as error:
        return CheckImages(_digits(shape), "digits", f"checked on digits, as the run's images can't be had: {error}")
    split = "val" if len(data.splits.val) else "test"
    pixels = data.store.read(_spread(data.splits.parts[split]))
    return CheckImages(_fitted(pixels, shape, classifier), f"{split} images")


def _digits(shape: tuple[int, int, int]) -> Tensor:
    """Return scikit-learn's digits as images of a shape: channels, height, width."""
    images = digits_source().images
    grey = np.stack([np.asarray(images.read(int(index)).image)[..., 0] for index in _spread(np.arange(len(images)))])
    sized = interpolate(torch.from_numpy(grey)[:, None], size=shape[1:], mode="nearest")
    return sized.expand(-1, shape[0], -1, -1).contiguous()


def _spread(indices: Indices) -> Indices:
    """Return some of many images, evenly spread."""
    some: Indices = indices[np.linspace(0, len(indices) - 1, min(len(indices), MAX_IMAGES)).astype(int)]
    return some


def _fitted(pixels: Tensor, shape: tuple[int, int, int], classifier: Classifier) -> Tensor:
    """Return images in the size that a file takes; those of a checkpoint that does not know its images' size."""
    if tuple(pixels.shape[2:]) == shape[1:]:
        return pixels
    resized: Tensor = F.center_crop(classifier.preprocessing.resize(pixels), list(shape[1:]))
    return resized
