"""A teacher for distillation: found, refused where it would mislead, asked, and remembered.

It is never trained. It sees the same images as its student, augmented by the same draws, at its own resolution.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.loader import Batch
from unfreeze.data.sources.bands import bands_for
from unfreeze.data.splits.splits import judged_differently
from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import UntrustedRepoError
from unfreeze.models.classifier import Classifier
from unfreeze.models.find_model import find_classifier
from unfreeze.models.heads import head_inputs
from unfreeze.models.model_argument import is_run
from unfreeze.models.outputs import Outputs
from unfreeze.models.partition import Partition
from unfreeze.results.run_directory import run_dir_of
from unfreeze.system.accelerator import to_device
from unfreeze.system.files import read_json
from unfreeze.system.text import format_seconds
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.demand import Demand, PrefixCacheOptions, data_of
from unfreeze.training.features.extraction import Kind
from unfreeze.training.features.stage_features import StageFeatures
from unfreeze.training.features.table import FeatureTable
from unfreeze.training.module import ImageClassifier

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that knows.

    Args:
        classifier: The network, in eval mode.
        name: What a person named it by.
        run_dir: The run that it comes from; None for none.
        is_published: Whether it tells what its published weights were trained for, mostly more than is asked.
    """

    classifier: Classifier
    name: str
    run_dir: Path | None = None
    is_published: bool = False


def find_teacher(given: str, *, trust_repo: bool = False) -> Teacher:
    """Return the teacher that a person means.

    Args:
        given: The directory of a run, a checkpoint of this project, or the name of a network of torchvision or timm,
            which then has its published weights and classes.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If there is none such.
    """
    try:
        classifier = find_classifier(given, trust_repo=trust_repo)
    except UntrustedRepoError as error:
        raise UnfreezeError(
            f"objective.teacher: {given} is a network of the repository {error.repo}, whose code would run; if you "
            "trust it, type model.trust_repo=true"
        ) from None
    except UnfreezeError as error:
        raise UnfreezeError(f"objective.teacher: {error}") from None
    if not is_run(given):
        return Teacher(classifier, given, is_published=True)
    return Teacher(classifier, given, run_dir_of(Path(given)))


def check_classes(teacher: Teacher, outputs: Outputs) -> None:
    """Refuse a teacher whose answers are not about the student's classes.

    Raises:
        UnfreezeError: Naming the classes that differ.
    """
    theirs, ours = teacher.classifier.outputs, outputs.names
    if theirs.multilabel or len(theirs.tasks) > 1:
        raise UnfreezeError(
            f"objective.teacher: {teacher.name} tells {'labels' if theirs.multilabel else 'several tasks'}; want one "
            "that tells the classes of the data, or type objective.match=features"
        )
    lacking = [name for name in ours if name not in theirs.names]
    spare = [] if teacher.is_published else sorted(set(theirs.names) - set(ours))
    if lacking or spare:
        told = f"it does not know {_some(lacking)}" if lacking else f"it also tells {_some(spare)}"
        raise UnfreezeError(
            f"objective.teacher: the classes of {teacher.name} are not those of the data: {told}; want a teacher "
            "trained on these classes, or type objective.match=features, which needs none"
        )


def check_bands(teacher: Teacher, bands: int) -> None:
    """Refuse a teacher that does not see images of so many bands.

    Raises:
        UnfreezeError: If it doesn't; one that sees grey sees colour too.
    """
    seen = len(teacher.classifier.preprocessing.mean)
    if bands != bands_for(seen):
        raise UnfreezeError(
            f"objective.teacher: {teacher.name} sees {seen} {'channel' if seen == 1 else 'channels'}, and the images "
            f"have {bands}; want a teacher that was trained with model.in_chans={bands}"
        )


def check_splits(teacher: Teacher, described: dict[str, Any]) -> None:
    """Refuse a teacher that was trained on other splits: it may know what this run is judged by.

    Args:
        teacher: One that comes from a run is checked, no other can be.
        described: What `ImageDataModule.describe_splits` says of this run's.

    Raises:
        UnfreezeError: Naming the splits that differ.
    """
    if teacher.run_dir is None:
        return
    theirs = read_json(teacher.run_dir / "splits.json", keys=("splits",))
    differing = judged_differently(described, theirs)
    if differing:
        raise UnfreezeError(
            f"objective.teacher: the {' and '.join(differing)} images of {teacher.name} are not those of this run, so "
            "it may have learnt from what this run is judged by; train both with the same data and data.seed"
        )


class TeacherAnswers(L.Callback):
    """Answers each batch that a student trains on.

    Where the images of a stage are the same in each epoch, or where stored views stand for them, the answers are
    computed once and kept like any other features of a frozen network; else the teacher sees each batch.

    Args:
        teacher: Who answers.
        data: The student's images, decoded for the teacher; the student's own where both see one size.
        stages: The callback whose stages are taught.
        on_features: Whether it gives its features in place of logits.
        outputs: The student's.
        options: What is cached, and where; None for nothing.
    """

    def __init__(
        self,
        teacher: Teacher,
        data: ImageDataModule,
        stages: StagedUnfreezing,
        *,
        on_features: bool,
        outputs: Outputs,
        options: PrefixCacheOptions | None,
    ) -> None:
        classifier, columns = teacher.classifier, None
        if not on_features:
            check_classes(teacher, outputs)
            columns = [classifier.classes.index(name) for name in outputs.names]
        self._name = teacher.name
        self._answering = _Answering(classifier, columns=columns, on_features=on_features)
        self._data = data
        self._stages = stages
        self._options = options
        self._module: ImageClassifier | None = None
        self._student: ImageClassifier | None = None
        self._features: StageFeatures | None = None
        self._opened: int | None = None
        self._table: FeatureTable | None = None
        self._drawn_in: int | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go to the student's device."""
        assert isinstance(pl_module, ImageClassifier)
        network = self._answering.requires_grad_(False).eval()
        module = ImageClassifier(
            replace(self._answering.classifier, network=network),
            mirror=pl_module.mirror,
            seed=pl_module.seed,
            channels_last=pl_module.channels_last,
            objective=pl_module.objective,
        )
        self._module, self._student = module.to(trainer.strategy.root_device).eval(), pl_module
        self._context = trainer.precision_plugin.forward_context
        self._student_data = data_of(trainer)
        pl_module.teacher = self

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Get ready where a stage is resumed in mid-epoch, and no epoch starts."""
        if data_of(trainer).is_within_epoch:
            self._prepare(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Get ready for the images of an epoch."""
        self._prepare(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let go of everything."""
        self._close()
        if self._student is not None:
            self._student.teacher = None

    @torch.no_grad()
    def answers(self, batch: Batch, epoch: int) -> Tensor:
        """Return what the teacher says of the images of a batch, on the device, shape (N, D).

        Args:
            batch: As the loader has served it.
            epoch: The current one.
        """
        assert self._module is not None
        module, device = self._module, self._module.device
        if self._table is not None:
            return self._table.gather(batch.indices, device)[0]
        images = batch.images
        if self._data is not self._student_data or images.ndim == 1:
            images = to_device(self._data.store.read(batch.indices.numpy()), device)
        drawn_in = epoch if self._drawn_in is None else self._drawn_in
        prepared = module.prepared_for_training(batch._replace(images=images), drawn_in)
        with self._context():
            said: Tensor = module(prepared.images)
        return said.float()

    def _prepare(self, trainer: L.Trainer) -> None:
        student, module = self._student, self._module
        assert student is not None and module is not None
        module.augment = student.augment
        fed = student.cached is not None and student.cached.train is not None
        self._drawn_in = student.cached.drawn_in if fed and student.cached is not None else None
        how = student.augmentation
        same_each_epoch = fed or not (how.is_random or how.is_mixing)
        if self._opened != self._stages.stage:
            self._close()
            self._opened = self._stages.stage
            if self._options is not None:
                self._features = StageFeatures(trainer, module, self._partition(), self._options, data=self._data)
        kind = Kind(self._drawn_in, str(trainer.precision), True)
        self._table = self._answers_to(trainer, kind) if same_each_epoch else None

    def _answers_to(self, trainer: L.Trainer, kind: Kind) -> FeatureTable | None:
        features = self._features
        if features is None:
            return None
        images = self._data.splits.train
        if kind not in features.kinds:
            features.want(Demand(kind, images, len(images) * self._stages.plan.stages[self._stages.stage].epochs))
        lack = features.find_place() if trainer.is_global_zero else None
        if trainer.strategy.broadcast(lack) is not None:
            return None
        before, seconds = features.computed, features.seconds
        table = features.table(kind)
        if trainer.is_global_zero and features.computed > before:
            log.info(
                f"  {'teacher':<13} {self._name} has answered {features.computed - before:,} images in "
                f"{format_seconds(features.seconds - seconds)}"
            )
        return table

    def _partition(self) -> Partition:
        """Return the teacher as a prefix after which nothing comes."""
        said = "features" if self._answering.on_features else "logits"
        return Partition(_AsPrefix(self._answering), nn.Identity(), boundary=(said,), groups=())

    def _close(self) -> None:
        if self._features is not None:
            self._features.close()
        self._features, self._opened, self._table = None, None, None


class _Answering(nn.Module):
    """A network that says what a student wants to hear: logits in its order, or features."""

    def __init__(self, classifier: Classifier, *, columns: list[int] | None, on_features: bool) -> None:
        super().__init__()
        self.network = classifier.network
        self.classifier = classifier
        self.on_features = on_features
        self.columns: Tensor | None
        self.register_buffer("columns", None if columns is None else torch.tensor(columns))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (N, C), or features, shape (N, D)."""
        if self.on_features:
            with head_inputs(self.classifier) as seen:
                self.network(images)
            return seen[0]
        logits: Tensor = self.network(images)
        return logits if self.columns is None else logits.index_select(1, self.columns)


class _AsPrefix(nn.Module):
    """A network whose answer is its only activation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the answer alone in a tuple."""
        return (self.network(images),)


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
