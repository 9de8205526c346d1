"""The LightningModule of a configuration."""

from unfreeze.config.schema import Config
from unfreeze.data.augment.presets import augmentation
from unfreeze.data.image_data import ImageData
from unfreeze.models.classifier import Classifier
from unfreeze.runs.builders.objective import build_objective
from unfreeze.training.gradient_checkpointing import recompute_blocks
from unfreeze.training.module import ImageClassifier, SoftTargets
from unfreeze.training.param_groups import OptimizerSpec


def build_module(
    config: Config,
    classifier: Classifier,
    data: ImageData,
    *,
    channels_last: bool = True,
    teacher: SoftTargets | None = None,
) -> ImageClassifier:
    """Return the LightningModule of a configuration.

    Args:
        config: Checked values.
        classifier: The network with its weights.
        data: The images that it trains on, or is evaluated on.
        channels_last: Memory layout of the run.
        teacher: Gives soft targets; None without distillation.
    """
    module = ImageClassifier(
        classifier,
        objective=build_objective(config, classifier.outputs, data),
        optimizer=OptimizerSpec(
            name=config.optimizer.name,
            weight_decay=config.optimizer.weight_decay,
            momentum=config.optimizer.momentum,
        ),
        augment=augmentation(**config.augment.model_dump()),
        mirror=config.data.mirror,
        seed=config.seed,
        channels_last=channels_last,
        teacher=teacher,
    )
    if config.model.checkpointing:
        recompute_blocks(classifier)
    if config.trainer.get("compile"):
        # In place: torch.compile(network) would rename every key of the checkpoint.
        module.network.compile()
    return module
