"""A run that has ended, in a script: what it says of images, and what it was worth."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unfreeze.errors import UnfreezeError
from unfreeze.inference.device import find_device
from unfreeze.inference.feeder import BATCH_SIZE, Fed, Feeder
from unfreeze.inference.inputs import GivenImages, Part, given_parts
from unfreeze.inference.layers import FeatureTap, Pool
from unfreeze.inference.prediction import Prediction, logits_of, predict
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier
from unfreeze.results.run_directory import BEST, run_dir_of
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
    """Return a run that has ended, ready to be asked.

    Args:
        path: Its directory, whose best checkpoint is meant, or a .ckpt file.
        device: "auto", "cpu", "cuda" or "mps"; auto is a GPU where there is one.
        batch_size: Images that pass through the network together.
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
    feeder = Feeder(classifier, device=where, batch_size=batch_size, workers=workers)
    return Run(Path(path).expanduser(), feeder)


class Run:
    """A run that has ended; `load_run` makes it.

    Images are a path, a folder (looked through for images, sorted), a picture of Pillow, a uint8 array or tensor of
    shape (H, W, C) or (N, C, H, W), or a list of paths or of pictures. Each is prepared as in training, however it was
    handed over.

    Args:
        path: What it was loaded from.
        feeder: Brings images to its classifier.

    Attributes:
        path: What it was loaded from.
        classifier: Of its best checkpoint, in eval mode, on the device, channels last in memory.
    """

    def __init__(self, path: Path, feeder: Feeder) -> None:
        self.path = path
        self._feeder = feeder

    @property
    def classifier(self) -> Classifier:
        """The network with its classes and its preprocessing."""
        return self._feeder.classifier

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
        return read_json(self._folder / "result.json")

    @property
    def _folder(self) -> Path:
        run_dir = run_dir_of(self.path)
        if run_dir is None:
            raise UnfreezeError(f"{self.path} lies in no run's directory, which alone has figures and pictures")
        if self.path.is_file() and self.path.name != BEST:
            raise UnfreezeError(
                f"{self.path}: the figures and pictures of a run are those of its best checkpoint; want "
                f"load_run({str(run_dir)!r})"
            )
        return run_dir

    def predict(self, images: GivenImages, top_k: int | None = None) -> list[Prediction]:
        """Return what the run says of images, one prediction for each, in order.

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
            >>> [len(each.answers) for each in run.predict("photos", top_k=3)]
            [3, 3]
        """
        if top_k is not None and top_k < 1:
            raise UnfreezeError(f"top_k: got {top_k}, want 1 or more")
        found = []
        for predictions, unreadable in predict(self._feeder, self._parts(images), top_k=top_k):
            _check_readable(unreadable)
            found += predictions
        return found

    def probabilities(self, images: GivenImages) -> Tensor:
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
        rows = [logits_of(self._feeder, fed.images) for fed in self._fed(images)]
        logits = torch.cat(rows) if rows else torch.zeros(0, len(self.classes))
        return self.classifier.outputs.probabilities(logits)

    def features(self, images: GivenImages, layer: str | None = None, pool: Pool = "avg") -> Tensor:
        """Return what a layer puts out, float32, on the CPU: shape (N, D), or the layer's own without pooling.

        Args:
            images: As the class has it; at least one.
            layer: A layer group or a module by its name, as `FeatureTap` has it; None for what the head sees.
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
        tap = FeatureTap(self.classifier, layer, pool=pool)
        rows = [tap(fed.images).cpu() for fed in self._fed(images)]
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
        """Return how often answers of like confidence are right, as they are and after temperature scaling.

        Args:
            split: "val" or "test"; None for the test, or for validation where there was none.
        """
        return self._picture("reliability", split)

    def _picture(self, name: str, split: str | None = None) -> "Figure":
        from unfreeze.evaluation.pictures.gallery import draw_pictures
        from unfreeze.evaluation.record import read_record

        record = read_record(self._folder)
        kept = record.predictions
        there = tuple(kept.splits) if kept is not None else ()
        if name == "per_class" and "test" not in there:
            raise UnfreezeError(f"{self._folder}: the run was not tested, so that there are no figures of its classes")
        if name == "confusion" and kept is not None and kept.outputs.multilabel:
            raise UnfreezeError("plot_confusion: an image may have several labels, which are not taken for each other")
        split = split or ("test" if "test" in there else "val")
        if name in ("confusion", "reliability") and split not in there:
            raise record.lacks(split)
        for picture in draw_pictures(record, None, split=split):
            if picture.name.partition("-")[0] == name:
                return picture.figure
        raise UnfreezeError(f"{self._folder}: the run has nothing to draw {name.replace('_', ' ')} of")

    def _parts(self, images: GivenImages) -> Iterator[Part]:
        return given_parts(images, bands=self._feeder.bands, size=self._feeder.batch_size)

    def _fed(self, images: GivenImages) -> Iterator[Fed]:
        for fed in self._feeder.feed(self._parts(images)):
            _check_readable(fed.unreadable)
            yield fed


def _check_readable(unreadable: Iterable[tuple[str, str]]) -> None:
    from unfreeze.data.sources.images import printable

    for name, reason in unreadable:
        raise UnfreezeError(f"images: {printable(name)} can't be read ({reason})")
