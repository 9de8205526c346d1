"""A LightningModule around a classifier."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric

from unfreeze.data.augment.augment import augment_batch
from unfreeze.data.augment.draws import uniform_draws
from unfreeze.data.augment.mixing import mix_batch
from unfreeze.data.augment.presets import PRESETS, Augmentation, AugmentName
from unfreeze.data.loader import Batch
from unfreeze.errors import TrainingFailedError
from unfreeze.models.classifier import CHECKPOINT_SCHEMA, Classifier, FrozenNorm
from unfreeze.models.heads import head_inputs
from unfreeze.models.norms import BATCH_NORMS
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.weights import CHECKPOINT_KEY
from unfreeze.system.accelerator import to_device
from unfreeze.training.gathering import TestPredictions
from unfreeze.training.objectives import Classify, Multilabel, Objective
from unfreeze.training.param_groups import OptimizerName, OptimizerSpec, build_optimizer, build_param_groups
from unfreeze.training.step_savings import PlainHookName, only_live_groups
from unfreeze.training.train_means import TrainMeans


class SoftTargets(Protocol):
    """A teacher's outputs for the batches that are trained on."""

    def soft_targets(self, batch: Batch, epoch: int) -> Tensor:
        """Return the teacher's logits or features for a batch, on the device of the training, shape (N, D)."""
        ...


class ImageClassifier(PlainHookName, L.LightningModule):
    """Trains a classifier on batches of uint8 images.

    It augments and normalises on the device, and keeps what is frozen in eval mode. Which groups are live is up to
    `StagedUnfreezing`; without that callback all of them train, at `lr`.

    Args:
        classifier: The network with its groups and preprocessing.
        objective: What is minimised; None for the cross entropy.
        optimizer: Which optimizer, and its weight decay.
        lr: Rate of every group where no callback sets rates, > 0.
        augment: Augmentation of the training images, or the name of a preset.
        mirror: Whether augmentation may mirror images.
        seed: Decides the augmentation's draws.
        channels_last: Memory layout of images and convolutions; false for runs of earlier versions.
        teacher: Gives soft targets beside the labels; None without distillation.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        objective: Objective | None = None,
        optimizer: OptimizerSpec | None = None,
        lr: float = 1e-3,
        augment: AugmentName | Augmentation = "light",
        mirror: bool = True,
        seed: int = 0,
        channels_last: bool = True,
        teacher: SoftTargets | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.channels_last = channels_last
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network: nn.Module = classifier.network.to(memory_format=self._layout)
        self.optimizer_spec = optimizer or OptimizerSpec()
        self.lr = lr
        self.augment: AugmentName | Augmentation = augment
        self.mirror = mirror
        self.objective = objective or Classify(classifier.outputs)
        self.seed = seed
        self._suffix: Callable[..., Tensor] | None = None
        self._teacher = teacher
        self._live = frozenset(group.name for group in classifier.groups)
        self._live_parameters = list(self.network.parameters())
        self._frozen_norm: FrozenNorm = "eval"
        self._uses_running_statistics = False
        self.train_means = TrainMeans(self.objective.right)
        self.val_loss = MeanMetric(nan_strategy="disable")
        self._test_predictions = TestPredictions()

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the network."""
        return self.classifier.preprocessing

    @property
    def live_groups(self) -> frozenset[str]:
        """Names of the layer groups that train now."""
        return self._live

    def set_live_groups(
        self, live: frozenset[str], frozen_norm: FrozenNorm = "eval", only: Collection[str] | None = None
    ) -> None:
        """Make some layer groups trainable, or some of their parameters, and freeze the others; idempotent.

        Args:
            live: Names of the groups.
            frozen_norm: What frozen norms do.
            only: What trains of them below the head, as `models.groups.choose_parameters` has it.
        """
        self._live, self._frozen_norm = live, frozen_norm
        self.classifier.freeze_all_but(live, only)
        self._live_parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.train(self.training)

    def set_suffix(self, suffix: Callable[..., Tensor] | None) -> None:
        """Run batches of stored features through the live part of the network.

        Args:
            suffix: Takes the activations of a batch, returns logits, shape (N, number of classes); None for none.
        """
        object.__setattr__(self, "_suffix", suffix)  # no child: its modules are the network's

    def set_augmentation(self, augment: AugmentName | Augmentation) -> None:
        """Augment the training images in another way from now on."""
        self.augment = augment

    def set_optimizer(self, name: OptimizerName) -> None:
        """Build another optimizer the next time that one is configured."""
        self.optimizer_spec = replace(self.optimizer_spec, name=name)

    def train(self, mode: bool = True) -> "ImageClassifier":
        """Set the training mode of the live groups; frozen groups stay in eval mode."""
        super().train(mode)
        if mode:
            self.classifier.set_frozen_modes(self._live, self._frozen_norm)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits.

        Args:
            images: Preprocessed, float32, shape (N, C, H, W).

        Returns:
            Shape (N, number of classes).
        """
        logits: Tensor = self.network(images)
        return logits

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move images or features and labels; the indices stay, so that augmentation is drawn without a host sync."""
        images, labels = batch.images, batch.labels
        features = tuple(to_device(value, device) for value in batch.features)
        if labels.device != device or (images is not None and images.device != device):
            images, labels = super().transfer_batch_to_device((images, labels), device, dataloader_idx)
        return batch._replace(images=images, labels=labels, features=features)

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment and normalise a batch of uint8 images on its device; features are served ready."""
        training = self.trainer.training
        if training and self._teacher is not None:
            batch = batch._replace(soft_targets=self._teacher.soft_targets(batch, self.current_epoch))
        if batch.images is None:
            return batch
        return self.prepared_for_training(batch) if training else self.prepared_for_evaluation(batch)

    def prepared_for_training(self, batch: Batch, epoch: int | None = None) -> Batch:
        """Return a batch of uint8 images on its device as the network trains on it, augmented and normalised.

        Args:
            batch: As a loader serves it.
            epoch: The epoch whose draws augment it; None for the current one.
        """
        batch = self._augmented(batch, self.current_epoch if epoch is None else epoch)
        images = self.preprocessing.normalize(batch.pixels)
        return batch._replace(images=images.contiguous(memory_format=self._layout))

    def prepared_for_evaluation(self, batch: Batch) -> Batch:
        """Return a batch of uint8 images on its device in the preprocessing of evaluation."""
        images = self.preprocessing(batch.pixels).contiguous(memory_format=self._layout)
        return batch._replace(images=images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, a scalar in nats per image; a mixed image is counted as what it shows most of."""
        objective = self.objective
        self._use_running_statistics(len(batch.labels) == 1)
        if objective.sees_features:
            with head_inputs(self.classifier) as seen:
                logits = self._logits_to_train(batch)
            loss = objective.loss(logits, batch, seen[0])
        else:
            logits = self._logits_to_train(batch)
            loss = objective.loss(logits, batch)
        labels = batch.labels if batch.targets is None else objective.dominant_labels(batch.targets)
        self.train_means.add(loss, logits, labels)
        return loss

    def _use_running_statistics(self, stand: bool) -> None:
        """Use running statistics in BatchNorm while a batch is one image, which has no statistics of its own."""
        if stand:
            for module in self.network.modules():
                if isinstance(module, BATCH_NORMS):
                    module.training = False
        elif self._uses_running_statistics:
            self.train()
        self._uses_running_statistics = stand

    def on_validation_start(self) -> None:
        """Stop before a model that is not finite can be validated, chosen or saved."""
        if not self.trainer.sanity_checking:
            self.check_loss_is_finite()

    def check_loss_is_finite(self) -> None:
        """Raise on all ranks when a training loss since the epoch's start was not finite on any; one host sync.

        Raises:
            TrainingFailedError: Naming the epoch and what to try.
        """
        means = self.train_means.means()
        if means and not math.isfinite(means["loss"]):
            batch = self.train_means.find_not_finite()
            raise TrainingFailedError(
                f"the training loss is not finite in epoch {self.current_epoch + 1}, since its batch {batch} of "
                f"{self.trainer.num_training_batches}; {self._describe_weights()}"
            )

    def _describe_weights(self) -> str:
        """Return which layer groups hold values that are not finite, and their rates."""
        parameters = {group.name: self.classifier.parameters_of(group) for group in self.classifier.groups}
        broken = [name for name, own in parameters.items() if not all(value.isfinite().all() for value in own)]
        rates = {group["layer_group"]: group["lr"] for group in self.trainer.optimizers[0].param_groups}
        told = ", ".join(f"{name} (lr {rates[name]:.3g})" for name in broken)
        return f"weights that are not finite: {told}" if broken else "all weights are still finite"

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training loss and accuracy."""
        self.check_loss_is_finite()
        self._log_at_step({f"train/{name}": value for name, value in self.train_means.means().items()})
        self.train_means.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the validation metrics, in float32; with fewer images than ranks, some have none."""
        if not len(batch.labels):
            return
        logits = self._logits_in_float32(batch)
        self.objective.update(logits, batch.labels)
        self.val_loss.update(self.objective.losses(logits, batch.labels))

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_at_step({"val/loss": self.val_loss.compute(), **self.objective.compute()})
        self.val_loss.reset()

    def _log_at_step(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Log metrics at the optimizer step that metrics.csv names; Lightning would log validation a step before it."""
        step = {"step": float(self.global_step)} if self.trainer.state.fn == "fit" else {}
        self.log_dict({**metrics, **step})

    def on_test_epoch_start(self) -> None:
        """Remove the predictions of an earlier test."""
        self._test_predictions.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the logits of a batch, in float32; with fewer images than ranks, some have none."""
        if len(batch.labels):
            self._test_predictions.update(self._logits_in_float32(batch), batch.labels, batch.indices)

    def on_test_epoch_end(self) -> None:
        """Gather the predictions of all ranks; after the test the module is on the CPU."""
        self._test_predictions.gather()

    def test_predictions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the predictions of the last test over all ranks, on the CPU, ordered by the images' indices.

        Returns:
            Logits, float32, shape (N, C); labels, int64, shape (N,) or (N, T); and indices in the source, shape (N,).
        """
        return self._test_predictions.ordered(len(self.classifier.outputs))

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer over all groups, frozen ones too."""
        groups = build_param_groups(self.classifier, weight_decay=self.optimizer_spec.weight_decay)
        # Lightning clips no gradients for a fused optimizer in mixed precision: it would unscale them itself.
        trainer = self._trainer
        fused = trainer is None or not (trainer.gradient_clip_val and "mixed" in trainer.precision)
        return build_optimizer(self.optimizer_spec, [{**group, "lr": self.lr} for group in groups], fused=fused)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Drop the gradients of what is live; what is frozen has none."""
        for parameter in self._live_parameters:
            parameter.grad = None

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step the groups that are live; those without gradients would cost a small step a tenth of its time."""
        with only_live_groups(optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer):
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record in plain values what the model is, so that it can be rebuilt without this run's configuration."""
        record = self.classifier.to_record()
        if isinstance(self.objective, Multilabel):
            record["thresholds"] = self.objective.thresholds.tolist()
        checkpoint[CHECKPOINT_KEY] = {"schema": CHECKPOINT_SCHEMA, "classifier": record}

    @property
    def augmentation(self) -> Augmentation:
        """The current augmentation of the training images."""
        return PRESETS[self.augment] if isinstance(self.augment, str) else self.augment

    def _augmented(self, batch: Batch, epoch: int) -> Batch:
        """Return a batch of images in [0, 255] as the network trains on them, with targets where they are mixed."""
        how = self.augmentation
        keys = batch.indices if batch.draw_keys is None else batch.draw_keys
        draws = uniform_draws(seed=self.seed, epoch=epoch, indices=keys)
        images = self.preprocessing.resize(batch.pixels)
        images = augment_batch(images, draws, how=how, crop_px=self.preprocessing.crop_px, mirror=self.mirror)
        if not how.is_mixing:
            return batch._replace(images=images)
        images, shares = mix_batch(images, draws, mixup=how.mixup, cutmix=how.cutmix, probability=how.mix)
        return batch._replace(images=images, targets=self.objective.mixed_targets(batch.labels, shares))

    def _logits_to_train(self, batch: Batch) -> Tensor:
        """Return logits in the precision of the run, but for a head on cached vectors: casts would cost it more."""
        if batch.features and all(value[0].numel() == value.shape[1] for value in batch.features):
            return self._logits_in_float32(batch)
        return self._logits(batch)

    def _logits(self, batch: Batch) -> Tensor:
        if not batch.features:
            whole: Tensor = self(batch.pixels)
            return whole
        assert self._suffix is not None, "features, and no suffix to run them through"
        return self._suffix(*batch.features)

    def _logits_in_float32(self, batch: Batch) -> Tensor:
        features = tuple(value.float() for value in batch.features)
        with torch.autocast(self.device.type, enabled=False):
            images = None if batch.images is None else batch.images.float()
            return self._logits(batch._replace(images=images, features=features)).float()
