"""A run that has ended, for scripts: its predictions, features, metrics and plots."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unfreeze.data.sources.images import printable
from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.record import read_record
from unfreeze.inference.batch_loader import BATCH_SIZE, BatchLoader, ImageBatch
from unfreeze.inference.device import find_device
from unfreeze.inference.inputs import ImageChunk, ImageInput, chunk_images
from unfreeze.inference.layers import FeatureExtractor, Pool
from unfreeze.inference.prediction import Prediction, logits_of, predict
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier
from unfreeze.results.run_directory import BEST, RunDirectory
from unfreeze.runs.report import planned_rates
from unfreeze.system.files import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_run(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    trust_repo: bool = False,
) -> "Run":
    """Return a run that has ended, ready to predict.

    Args:
        path: Its directory, whose best checkpoint is meant, or a .ckpt file.
        device: "auto", "cpu", "cuda" or "mps"; auto is a GPU where there is one.
        batch_size: Images per forward pass.
        workers: Processes that decode files; 0 for this one alone, None for one per core.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If there is no checkpoint, or no such device.

    Example:
        >>> from unfreeze import load_run
        >>> run = load_run("outputs/digits")
        >>> run.classes[:3]
        ('0', '1', '2')
        >>> run.predict("photos/seven.png")[0].label
        '7'
    """
    where = find_device(device)
    classifier = load_classifier(Path(path), trust_repo=trust_repo)
    loader = BatchLoader(classifier, device=where, batch_size=batch_size, workers=workers)
    return Run(Path(path).expanduser(), loader)


class Run:
    """A run that has ended; `load_run` makes it.

    Images are a path, a folder (looked through for images, sorted), a picture of Pillow, a uint8 array or tensor of
    shape (H, W, C) or (N, C, H, W), or a list of paths or of pictures. Each is prepared as in training, however it was
    handed over.

    Args:
        path: What it was loaded from.
        loader: Brings images to its classifier.

    Attributes:
        path: What it was loaded from.
        classifier: Of its best checkpoint, in eval mode, on the device, channels last in memory.
    """

    def __init__(self, path: Path, loader: BatchLoader) -> None:
        self.path = path
        self._loader = loader

    @property
    def classifier(self) -> Classifier:
        """The network with its classes and its preprocessing."""
        return self._loader.classifier

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their probabilities."""
        return self.classifier.classes

    @property
    def result(self) -> dict[str, Any]:
        """The content of the run's result.json.

        Raises:
            UnfreezeError: If there is none, as beside a checkpoint that was taken out of its run, or if it is that of
                another checkpoint.

        Example:
            >>> from unfreeze import load_run
            >>> run = load_run("outputs/digits")
            >>> run.result["status"], run.result["test"]["acc"] > 0.8
            ('completed', True)
        """
        return read_json(self._directory.result_file)

    @property
    def _directory(self) -> RunDirectory:
        run = RunDirectory.containing(self.path)
        if run is None:
            raise UnfreezeError(f"{self.path} lies in no run's directory, which alone has figures and pictures")
        if self.path.is_file() and self.path.name != BEST:
            raise UnfreezeError(
                f"{self.path}: the figures and pictures of a run are those of its best checkpoint; want "
                f"load_run({str(run.path)!r})"
            )
        return run

    def predict(self, images: ImageInput, top_k: int | None = None) -> list[Prediction]:
        """Return a prediction for each image, in order.

        Args:
            images: As the class has it.
            top_k: Classes per image, and per task, >= 1; None for one, and for the labels that are given where an image
                may have several.

        Raises:
            UnfreezeError: If an image can't be read.

        Example:
            >>> from unfreeze import load_run
            >>> run = load_run("outputs/digits")
            >>> best = run.predict("photos/seven.png")[0]
            >>> best.path, best.label, best.probability > 0.5
            ('photos/seven.png', '7', True)
            >>> [len(each.classes) for each in run.predict("photos", top_k=3)]
            [3, 3]
        """
        if top_k is not None and top_k < 1:
            raise UnfreezeError(f"top_k: got {top_k}, want 1 or more")
        found = []
        for predictions, unreadable in predict(self._loader, self._parts(images), top_k=top_k):
            _check_readable(unreadable)
            found += predictions
        return found

    def probabilities(self, images: ImageInput) -> Tensor:
        """Return the probability of each class, float32, shape (N, C), on the CPU.

        Those of a task sum to one; where an image may have several labels, each stands for itself.

        Args:
            images: As the class has it.

        Raises:
            UnfreezeError: If an image can't be read.

        Example:
            >>> import numpy as np
            >>> from unfreeze import load_run
            >>> run = load_run("outputs/digits")
            >>> grey = np.zeros((5, 1, 8, 8), dtype=np.uint8)
            >>> run.probabilities(grey).shape
            torch.Size([5, 10])
        """
        rows = [logits_of(self._loader, batch.images) for batch in self._batches(images)]
        logits = torch.cat(rows) if rows else torch.zeros(0, len(self.classes))
        return self.classifier.outputs.probabilities(logits)

    def features(self, images: ImageInput, layer: str | None = None, pool: Pool = "avg") -> Tensor:
        """Return what a layer puts out, float32, on the CPU: shape (N, D), or the layer's own without pooling.

        Args:
            images: As the class has it; at least one.
            layer: A layer group or a module by its name, as `FeatureExtractor` has it; None for what the head sees.
            pool: "avg" for the mean over positions, "none" for all of them.

        Raises:
            UnfreezeError: If an image can't be read, or there is no such layer.

        Example:
            >>> from unfreeze import load_run
            >>> run = load_run("outputs/digits")
            >>> [group.name for group in run.classifier.groups]
            ['head', 'stage4', 'stage3', 'stage2', 'stem']
            >>> run.features("photos").shape, run.features("photos", layer="stage3", pool="none").shape
            (torch.Size([2, 1024]), torch.Size([2, 96, 2, 2]))
        """
        extractor = FeatureExtractor(self.classifier, layer, pool=pool)
        rows = [extractor(batch.images).cpu() for batch in self._batches(images)]
        if not rows:
            raise UnfreezeError("images: got none, want one or more")
        return torch.cat(rows)

    def plot_learning_curves(self) -> "Figure":
        """Return accuracy and loss over the epochs, with a line where each stage begins.

        Raises:
            UnfreezeError: If nothing was validated.

        Example:
            >>> from unfreeze import load_run
            >>> run = load_run("outputs/digits")
            >>> run.plot_learning_curves().savefig("curves.png")
        """
        return self._picture("learning_curves")

    def plot_rates(self) -> "Figure":
        """Return the learning rate of each layer group over the epochs."""
        return self._picture("rates")

    def plot_confusion(self, split: str | None = None) -> "Figure":
        """Return the confusion matrix of a split, of several tasks that of the first; rows are shares of a true class.

        Args:
            split: "val" or "test"; None for the test, or for validation where there was none.

        Raises:
            UnfreezeError: If the run has kept no answers for the split.

        Example:
            >>> from unfreeze import load_run
            >>> run = load_run("outputs/digits")
            >>> run.plot_confusion("val").axes[0].get_xlabel()
            'predicted'
        """
        return self._picture("confusion", split)

    def plot_per_class(self) -> "Figure":
        """Return F1, precision and recall of each class in the test, the weakest first."""
        return self._picture("per_class")

    def plot_reliability(self, split: str | None = None) -> "Figure":
        """Return the reliability diagram: accuracy by confidence, before and after temperature scaling.

        Args:
            split: "val" or "test"; None for the test, or for validation where there was none.
        """
        return self._picture("reliability", split)

    def _picture(self, name: str, split: str | None = None) -> "Figure":
        from unfreeze.evaluation.pictures.gallery import draw_pictures  # matplotlib, only where it is asked for

        record = read_record(self._directory)
        kept = record.predictions
        there = tuple(kept.splits) if kept is not None else ()
        if name == "per_class" and "test" not in there:
            raise UnfreezeError(f"{self._directory.path}: the run was not tested, so its classes have no metrics")
        if name == "confusion" and kept is not None and kept.outputs.multilabel:
            raise UnfreezeError("plot_confusion: an image may have several labels, which are not taken for each other")
        split = split or ("test" if "test" in there else "val")
        if name in ("confusion", "reliability") and split not in there:
            raise record.missing_predictions_error(split)
        for picture in draw_pictures(record, None, rates=planned_rates(record), split=split):
            if picture.name.partition("-")[0] == name:
                return picture.figure
        raise UnfreezeError(f"{self._directory.path}: the run has nothing to draw {name.replace('_', ' ')} of")

    def _parts(self, images: ImageInput) -> Iterator[ImageChunk]:
        return chunk_images(images, bands=self._loader.bands, size=self._loader.batch_size)

    def _batches(self, images: ImageInput) -> Iterator[ImageBatch]:
        for batch in self._loader.load(self._parts(images)):
            _check_readable(batch.unreadable)
            yield batch


def _check_readable(unreadable: Iterable[tuple[str, str]]) -> None:

    for name, reason in unreadable:
        raise UnfreezeError(f"images: {printable(name)} can't be read ({reason})")
