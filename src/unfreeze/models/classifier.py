"""A classifier: a stock network with a new head, its layer groups, and what it wants to see."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from unfreeze.models.backbones import Architecture, find_architecture, preprocessing_of
from unfreeze.models.groups import NORMS, LayerGroup, build_layer_groups
from unfreeze.models.heads import find_head, replace_head
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.weights import WeightsReport, load_backbone, read_weights, resolve_weights

FrozenNorm = Literal["eval", "train"]

CHECKPOINT_KEY = "unfreeze"
CHECKPOINT_SCHEMA = 1
"""Where a checkpoint keeps the record of its classifier, and how that record is laid out."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network and all that is needed to build it again, to feed it, and to read its answers.

    Args:
        network: The stock module with its new head; its state_dict has the stock keys.
        groups: Layer groups from the head down.
        preprocessing: What the network sees.
        classes: Names of the logits, in order.
        architecture: The name of the architecture.
        weights: Where the backbone's weights came from; None for random ones.
        head: Qualified name of the head.
        dropout: Dropout before the head; None for the architecture's own.
        report: What became of the loaded weights; None where none were.
    """

    network: nn.Module
    groups: tuple[LayerGroup, ...]
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    architecture: str
    weights: str | None
    head: str
    dropout: float | None
    report: WeightsReport | None = None

    def parameters_of(self, group: LayerGroup) -> list[nn.Parameter]:
        """Return a group's parameters."""
        return [self.network.get_parameter(key) for key in group.parameters]

    def freeze_all_but(self, live: Collection[str]) -> None:
        """Let the groups named train, and freeze every other: no gradient, and none left over."""
        for group in self.groups:
            for parameter in self.parameters_of(group):
                parameter.requires_grad_(group.name in live)
                if group.name not in live:
                    parameter.grad = None

    def set_frozen_modes(self, live: Collection[str], frozen_norm: FrozenNorm) -> None:
        """Put the modules of frozen groups into eval mode: BatchNorm, dropout and drop-path alike."""
        for group in self.groups:
            if group.name in live:
                continue
            for key in group.modules:
                module = self.network.get_submodule(key)
                module.training = frozen_norm == "train" and isinstance(module, NORMS)

    def to_record(self) -> dict[str, Any]:
        """Return plain values from which `rebuild_classifier` makes the same classifier, but for its weights."""
        return {
            "architecture": self.architecture,
            "weights": self.weights,
            "head": {"name": "linear", "dropout": self.dropout},
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
        }


def build_classifier(
    name: str,
    *,
    classes: Sequence[str],
    weights: str | None = "DEFAULT",
    dropout: float | None = None,
    image_size: int | None = None,
) -> Classifier:
    """Return a classifier on a pretrained backbone.

    Args:
        name: "tiny" or a classifier of `torchvision.models`.
        classes: Names of the classes, in the order of their labels.
        weights: A weight enum's name, "DEFAULT", a file, or None for random weights.
        dropout: Dropout before the head, in [0, 1); None leaves what the architecture has.
        image_size: Side in px that the network sees; None for what the weights were trained at.

    Raises:
        UnfreezeError: If the name or the weights are unknown, can't be had, or do not fit.
    """
    architecture = find_architecture(name)
    source = resolve_weights(architecture, weights)
    state = None if source is None else read_weights(architecture, source)
    classifier = assemble(
        architecture,
        classes=classes,
        preprocessing=preprocessing_for(architecture, weights).at(image_size),
        weights=weights,
        dropout=dropout,
        state=state,
    )
    return classifier


def preprocessing_for(architecture: Architecture, weights: str | None) -> Preprocessing:
    """Return the input transform of some weights; those of a file are the architecture's default."""
    named = {member.name: member for member in architecture.weights}
    return preprocessing_of(named[weights]) if weights in named else architecture.preprocessing


def assemble(
    architecture: Architecture,
    *,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    weights: str | None,
    dropout: float | None,
    state: Mapping[str, Tensor] | None = None,
) -> Classifier:
    """Return a classifier out of its parts.

    Args:
        architecture: What to build.
        classes: Names of the classes.
        preprocessing: What the network will see.
        weights: Where the state came from, for the record and for messages.
        dropout: Dropout before the head; None for the architecture's own.
        state: Weights of the backbone by the stock keys; None leaves random ones.
    """
    network = architecture.build()
    head = find_head(network)
    report = None
    if state is not None:
        report = load_backbone(network, state, head=head, source=str(weights))
    replace_head(network, head, num_classes=len(classes), dropout=dropout)
    return Classifier(
        network=network,
        groups=build_layer_groups(network, head),
        preprocessing=preprocessing,
        classes=tuple(classes),
        architecture=architecture.name,
        weights=weights,
        head=head,
        dropout=dropout,
        report=report,
    )


def rebuild_classifier(record: Mapping[str, Any], state: Mapping[str, Tensor]) -> Classifier:
    """Return the classifier that `Classifier.to_record` described, with all of its weights, offline.

    Args:
        record: Plain values out of a checkpoint.
        state: The network's whole state_dict, head included.
    """
    classifier = assemble(
        find_architecture(record["architecture"]),
        classes=record["classes"],
        preprocessing=Preprocessing.from_dict(record["preprocessing"]),
        weights=record["weights"],
        dropout=record["head"]["dropout"],
    )
    classifier.network.load_state_dict(state)
    classifier.network.eval()
    return classifier
