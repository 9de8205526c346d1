"""The objective of a configuration, and the teacher that it may have."""

from unfreeze.config.schema import Config
from unfreeze.data.image_data import ImageData
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.store.framing import Resize
from unfreeze.models.outputs import Outputs
from unfreeze.runs.builders.data import build_data, decode
from unfreeze.training.losses import class_weights, positive_weights
from unfreeze.training.objectives import Classify, Distill, Multilabel, Multitask, Objective
from unfreeze.training.teacher import Teacher, check_bands, check_classes, check_splits, find_teacher


def build_objective(config: Config, outputs: Outputs, data: ImageData) -> Objective:
    """Return what a configuration minimises."""
    asked = config.objective
    gamma = asked.gamma if asked.loss == "focal" else 0.0
    smoothing = asked.label_smoothing
    weighted = config.data.balance == "weights"
    labels = data.labels[data.splits.train] if weighted else None
    if outputs.multilabel:
        positive = None if labels is None else positive_weights(labels)
        return Multilabel(outputs, gamma=gamma, label_smoothing=smoothing, weights=positive)
    if config.head.is_multitask:
        each = None
        if labels is not None:
            each = [class_weights(own, size) for own, size in zip(labels.T, outputs.sizes, strict=True)]
        return Multitask(
            outputs, task_weights=config.head.weights, gamma=gamma, label_smoothing=smoothing, weights=each
        )
    weights = None if labels is None else class_weights(labels, len(outputs))
    if asked.name == "distill":
        return Distill(
            outputs,
            on_features=asked.match == "features",
            temperature=asked.temperature,
            alpha=asked.alpha,
            gamma=gamma,
            label_smoothing=smoothing,
            weights=weights,
        )
    return Classify(outputs, gamma=gamma, label_smoothing=smoothing, weights=weights)


def build_teacher(config: Config, source: ImageSource, data: ImageData, outputs: Outputs) -> tuple[Teacher, ImageData]:
    """Return the teacher of a configuration, and the images of a run as it sees them, decoded.

    Raises:
        UnfreezeError: If there is none such, or it does not go with the data.
    """
    assert config.objective.teacher is not None
    teacher = find_teacher(config.objective.teacher, trust_repo=config.model.trust_repo)
    if config.objective.match == "logits":
        check_classes(teacher, outputs)
    check_bands(teacher, source.images.bands)
    check_splits(teacher, data.describe_splits())
    wanted = teacher.classifier.preprocessing
    if Resize.of(wanted) == data.decoded_for:
        return teacher, data
    own = build_data(ImageData, config, source)
    decode(own, wanted)
    return teacher, own
