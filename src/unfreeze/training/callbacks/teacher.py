"""The soft targets of a distillation, computed by a teacher and cached.

It is never trained. It sees the same images as its student, augmented by the same draws, at its own resolution.
"""

import logging
from dataclasses import replace

import lightning as L
import torch
from torch import Tensor, nn

from unfreeze.data.image_data import ImageData
from unfreeze.data.loader import Batch
from unfreeze.models.classifier import Classifier
from unfreeze.models.heads import head_inputs
from unfreeze.models.outputs import Outputs
from unfreeze.models.partition import Partition
from unfreeze.system.accelerator import to_device
from unfreeze.system.text import format_seconds
from unfreeze.training.callback_order import check_comes_after
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.demand import Demand, data_of
from unfreeze.training.features.extraction import Kind
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.prefix_cache import FrozenPrefixCache
from unfreeze.training.features.stage_features import StageFeatures
from unfreeze.training.features.table import FeatureTable
from unfreeze.training.module import ImageClassifier
from unfreeze.training.teacher import Teacher, check_classes

log = logging.getLogger(__name__)


class TeacherTargets(L.Callback):
    """Gives the soft targets of each batch that a student trains on.

    Where the images of a stage are the same in each epoch, or stored views take their place, the targets are computed
    once and stored like the features of any frozen network; else the teacher sees each batch.

    Args:
        teacher: The teacher.
        data: The student's images, decoded for the teacher; the student's own where both see one size.
        stages: The callback that carries out the student's plan.
        cache: The callback that serves the student's features; None without.
        on_features: Whether the targets are the teacher's features instead of its logits.
        outputs: The student's outputs.
        options: What is stored, and where; None for nothing.
    """

    def __init__(
        self,
        teacher: Teacher,
        data: ImageData,
        stages: StagedUnfreezing,
        *,
        cache: FrozenPrefixCache | None = None,
        on_features: bool,
        outputs: Outputs,
        options: PrefixCacheOptions | None,
    ) -> None:
        classifier, columns = teacher.classifier, None
        if not on_features:
            check_classes(teacher, outputs)
            columns = [classifier.classes.index(name) for name in outputs.names]
        self._name = teacher.name
        self._outputs = _TeacherOutputs(classifier, columns=columns, on_features=on_features)
        self._data = data
        self._stages = stages
        self._cache = cache
        self._options = options
        self._module: ImageClassifier | None = None
        self._student: ImageClassifier | None = None
        self._features: StageFeatures | None = None
        self._opened: int | None = None
        self._table: FeatureTable | None = None
        self._drawn_in: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the callbacks that the targets depend on come first."""
        if stage == "fit":
            check_comes_after(trainer, self, self._stages, self._cache)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the teacher to the student's device."""
        assert isinstance(pl_module, ImageClassifier)
        network = self._outputs.requires_grad_(False).eval()
        module = ImageClassifier(
            replace(self._outputs.classifier, network=network),
            mirror=pl_module.mirror,
            seed=pl_module.seed,
            channels_last=pl_module.channels_last,
            objective=pl_module.objective,
        )
        self._module, self._student = module.to(trainer.strategy.root_device).eval(), pl_module
        self._context = trainer.precision_plugin.forward_context
        self._student_data = data_of(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare a stage that is resumed in mid-epoch, where no epoch starts."""
        if data_of(trainer).is_within_epoch:
            self._prepare(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Prepare the targets of an epoch."""
        self._prepare(trainer)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Release all features."""
        self._close()

    @torch.no_grad()
    def soft_targets(self, batch: Batch, epoch: int) -> Tensor:
        """Return the teacher's logits or features for a batch, on the device, shape (N, D).

        Args:
            batch: As the loader served it.
            epoch: The current one.
        """
        assert self._module is not None
        module, device = self._module, self._module.device
        if self._table is not None:
            return to_device(self._table.gather(batch.indices)[0], device)
        images = batch.images
        if images is None or self._data is not self._student_data:
            images = to_device(self._data.store.read(batch.indices.numpy()), device)
        drawn_in = epoch if self._drawn_in is None else self._drawn_in
        prepared = module.prepared_for_training(batch._replace(images=images), drawn_in)
        with self._context():
            outputs: Tensor = module(prepared.images)
        return outputs.float()

    def _prepare(self, trainer: L.Trainer) -> None:
        student, module = self._student, self._module
        assert student is not None and module is not None
        module.set_augmentation(student.augment)
        served = None if self._cache is None else self._cache.served
        fed = served is not None and served.train is not None
        self._drawn_in = served.drawn_in if fed and served is not None else None
        how = student.augmentation
        same_each_epoch = fed or not (how.is_random or how.is_mixing)
        if self._opened != self._stages.stage:
            self._close()
            self._opened = self._stages.stage
            if self._options is not None:
                self._features = StageFeatures(trainer, module, self._partition(), self._options, data=self._data)
        kind = Kind(self._drawn_in, str(trainer.precision), True)
        self._table = self._stored_targets(trainer, kind) if same_each_epoch else None

    def _stored_targets(self, trainer: L.Trainer, kind: Kind) -> FeatureTable | None:
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
                f"  {'teacher':<13} {self._name}: targets of {features.computed - before:,} images in "
                f"{format_seconds(features.seconds - seconds)}"
            )
        return table

    def _partition(self) -> Partition:
        """Return the teacher as a prefix with an empty suffix."""
        output = "features" if self._outputs.on_features else "logits"
        return Partition(_AsPrefix(self._outputs), nn.Identity(), boundary=(output,), groups=())

    def _close(self) -> None:
        if self._features is not None:
            self._features.close()
        self._features, self._opened, self._table = None, None, None


class _TeacherOutputs(nn.Module):
    """A teacher's network that returns logits in the student's class order, or features."""

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
    """A network whose output is its only activation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the output in a tuple."""
        return (self.network(images),)
