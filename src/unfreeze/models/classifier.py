"""A classifier: a stock network with a new head, its layer groups, and what it wants to see."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from unfreeze.models.architecture import Architecture, find_architecture
from unfreeze.models.groups import NORMS, LayerGroup, build_layer_groups, choose_parameters
from unfreeze.models.outputs import Outputs
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.state_dicts import load_state
from unfreeze.models.weights import WeightsReport

FrozenNorm = Literal["eval", "train"]

CHECKPOINT_SCHEMA = 2
"""How a checkpoint lays out the record of its classifier."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network and all that is needed to build it again, to feed it, and to read its answers.

    Args:
        network: The stock module with its new head; its state_dict has the stock keys.
        groups: Layer groups from the head down.
        preprocessing: What the network sees.
        outputs: What the logits stand for.
        spec: Which network it is.
        weights: Where the backbone's weights came from; None for random ones.
        heads: Qualified names of the modules that give the logits; mostly one.
        head: Of which kind they are.
        report: What became of the loaded weights; None where none were.
        thresholds: The probability from which each label is given, where an image may have several; None for 0.5.
        native_px: Width and height of the images it learnt from, where all had that one, small size and were resized
            in batches; None where each was resized as it was decoded, by Pillow, which can differ in a last bit.
    """

    network: nn.Module
    groups: tuple[LayerGroup, ...]
    preprocessing: Preprocessing
    outputs: Outputs
    spec: ModelSpec
    weights: str | None
    heads: tuple[str, ...]
    head: HeadSpec
    report: WeightsReport | None = None
    thresholds: tuple[float, ...] | None = None
    native_px: tuple[int, int] | None = None

    @property
    def architecture(self) -> str:
        """The name of the network."""
        return self.spec.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the logits, in order."""
        return self.outputs.names

    def parameters_of(self, group: LayerGroup) -> list[nn.Parameter]:
        """Return a group's parameters."""
        return [self.network.get_parameter(key) for key in group.parameters]

    def freeze_all_but(self, live: Collection[str], only: Collection[str] | None = None) -> None:
        """Let the groups named train, and freeze every other: no gradient, and none left over.

        Args:
            live: Names of the groups.
            only: What trains of them below the head, as `models.groups.choose_parameters` has it.
        """
        chosen = choose_parameters(self.network, self.groups, live, only)
        for group in self.groups:
            for key in group.parameters:
                parameter = self.network.get_parameter(key)
                parameter.requires_grad_(key in chosen)
                if key not in chosen:
                    parameter.grad = None

    def set_frozen_modes(self, live: Collection[str], frozen_norm: FrozenNorm) -> None:
        """Put what is frozen into eval mode: BatchNorm, dropout and drop-path of frozen groups alike.

        In a live group, of which `freeze_all_but` has let some parameters train alone, that is what has parameters of
        its own and trains none of them.
        """
        for group in self.groups:
            for key in group.modules:
                module = self.network.get_submodule(key)
                if group.name in live and not _is_frozen(module):
                    continue
                module.training = frozen_norm == "train" and isinstance(module, NORMS)

    def to_record(self) -> dict[str, Any]:
        """Return plain values from which `rebuild_classifier` makes the same classifier, but for its weights."""
        return {
            "model": self.spec.to_record(),
            "weights": self.weights,
            "head": asdict(self.head),
            "outputs": self.outputs.to_record(),
            "preprocessing": self.preprocessing.to_dict(),
            "native_px": None if self.native_px is None else list(self.native_px),
        }


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


def build_classifier(
    model: str | ModelSpec,
    *,
    classes: Sequence[str] | Outputs,
    weights: str | None = "DEFAULT",
    head: HeadSpec | None = None,
    image_size: int | None = None,
) -> Classifier:
    """Return a classifier on a pretrained backbone.

    Args:
        model: A spec, or the name of a classifier of `torchvision.models`, or "tiny".
        classes: Names of the classes, in the order of their labels; or outputs of several tasks or labels.
        weights: The name of published weights, "DEFAULT", a file, or None for random weights.
        head: Of which kind; None for a linear one, with the dropout of the architecture.
        image_size: Side in px that the network sees; None for what the weights were trained at.

    Raises:
        UnfreezeError: If the name or the weights are unknown, can't be had, or do not fit.
    """
    architecture = find_architecture(model)
    preprocessing = architecture.preprocessing(weights).at(image_size)
    return assemble(architecture, classes=classes, preprocessing=preprocessing, weights=weights, head=head)


def assemble(
    architecture: Architecture,
    *,
    classes: Sequence[str] | Outputs,
    preprocessing: Preprocessing,
    weights: str | None,
    head: HeadSpec | None = None,
    load: bool = True,
) -> Classifier:
    """Return a classifier out of its parts.

    Args:
        architecture: What to build.
        classes: As for `build_classifier`.
        preprocessing: What the network will see.
        weights: Where the backbone's weights come from; None for random ones.
        head: Of which kind; None for a linear one.
        load: Whether to load them; else they are random all the same.
    """
    head, report, outputs = head or HeadSpec(), None, Outputs.of(classes)
    if weights is not None and load:
        network, report = architecture.pretrained(weights, preprocessing.crop_px, dropout=head.dropout)
    else:
        network = architecture.build(preprocessing.crop_px, dropout=head.dropout)
    heads = architecture.replace_heads(network, num_classes=len(outputs), head=head)
    return Classifier(
        network=network,
        groups=build_layer_groups(network, heads, architecture.parts(network, heads)),
        preprocessing=preprocessing,
        outputs=outputs,
        spec=architecture.spec,
        weights=weights,
        heads=heads,
        head=head,
        report=report,
    )


def published_classifier(model: str | ModelSpec, *, file: Path | None = None) -> Classifier:
    """Return a stock network as it is published, with its own head and the names of its own classes, in eval mode.

    Args:
        model: A spec, or the name of a classifier of torchvision.
        file: Of its published weights; None to take them from a cache, or to download them.

    Raises:
        UnfreezeError: If there is no such network, or its weights or classes can't be had.
    """
    architecture = find_architecture(model)
    network, classes = architecture.published(file)
    heads = architecture.find_heads(network)
    return Classifier(
        network=network.eval(),
        groups=build_layer_groups(network, heads, architecture.parts(network, heads)),
        preprocessing=architecture.preprocessing(),
        outputs=Outputs.of(classes),
        spec=architecture.spec,
        weights="DEFAULT" if file is None else str(file),
        heads=heads,
        head=HeadSpec(),
    )


def rebuild_classifier(record: Mapping[str, Any], state: Mapping[str, Tensor], *, trust_repo: bool) -> Classifier:
    """Return the classifier that `Classifier.to_record` described, with all of its weights, offline.

    Args:
        record: Plain values out of a checkpoint.
        state: The network's whole state_dict, head included.
        trust_repo: Whether code of the repository that a hub's network comes from may run.
    """
    classifier = assemble(
        find_architecture(ModelSpec.from_record(record["model"], trust_repo=trust_repo)),
        classes=Outputs.from_record(record["outputs"]),
        preprocessing=Preprocessing.from_dict(record["preprocessing"]),
        weights=record["weights"],
        head=HeadSpec(**record["head"]),
        load=False,
    )
    load_state(classifier.network, state)
    classifier.network.eval()
    thresholds, native_px = record.get("thresholds"), record.get("native_px")
    return replace(
        classifier,
        thresholds=tuple(thresholds) if thresholds else None,
        native_px=(native_px[0], native_px[1]) if native_px else None,
    )
