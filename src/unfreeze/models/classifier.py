"""Classifiers: a stock network with a new head, its layer groups and its preprocessing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from unfreeze.errors import UnfreezeError
from unfreeze.models.architecture import Architecture, find_architecture
from unfreeze.models.groups import LayerGroup, build_layer_groups, choose_parameters
from unfreeze.models.norms import NORMS
from unfreeze.models.outputs import Outputs
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.state_dicts import load_state
from unfreeze.models.weights import WeightsReport

FrozenNorm = Literal["eval", "train"]

CHECKPOINT_SCHEMA = 2
"""Version of a classifier's record in a checkpoint."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with everything needed to rebuild it, to feed it, and to interpret its logits.

    Args:
        network: Stock module with its new head; its state_dict has the stock keys.
        groups: Layer groups from the head down.
        preprocessing: Input transform.
        outputs: Tasks and classes of the logits.
        spec: Specification of the network.
        weights: Origin of the backbone's weights; None for random ones.
        heads: Qualified names of the modules that output the logits, usually one.
        head: Specification of the heads.
        report: Report on the loaded weights; None if none were loaded.
        thresholds: Probability threshold of each label in multilabel classification; None for 0.5.
        native_px: Width and height of the training images if all had that one small size and were resized in batches;
            None if each was resized by Pillow when it was decoded, which can differ in the last bit.
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
        """Name of the network."""
        return self.spec.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the logits, in order."""
        return self.outputs.names

    def parameters_of(self, group: LayerGroup) -> list[nn.Parameter]:
        """Return the parameters of a group."""
        return [self.network.get_parameter(key) for key in group.parameters]

    def freeze_all_but(self, live: Collection[str], only: Collection[str] | None = None) -> None:
        """Unfreeze the named groups, and freeze all others and delete their gradients.

        Args:
            live: Names of the trainable groups.
            only: Parameters to train in the groups below the head; see `models.groups.choose_parameters`.
        """
        chosen = choose_parameters(self.network, self.groups, live, only)
        for group in self.groups:
            for key in group.parameters:
                parameter = self.network.get_parameter(key)
                parameter.requires_grad_(key in chosen)
                if key not in chosen:
                    parameter.grad = None

    def set_frozen_modes(self, live: Collection[str], frozen_norm: FrozenNorm) -> None:
        """Set the frozen groups to eval mode, with BatchNorm, dropout and drop-path.

        In a trainable group, modules with parameters that are all frozen by `freeze_all_but` are set to it too.
        """
        for group in self.groups:
            for key in group.modules:
                module = self.network.get_submodule(key)
                if group.name in live and not _is_frozen(module):
                    continue
                module.training = frozen_norm == "train" and isinstance(module, NORMS)

    def to_record(self) -> dict[str, Any]:
        """Return plain values from which, with the weights, `rebuild_classifier` builds the same classifier."""
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
        model: Specification, name of a classifier of `torchvision.models`, or "tiny".
        classes: Names of the classes, in the order of their labels; or outputs of several tasks or labels.
        weights: Name of published weights, "DEFAULT", a file, or None for random weights.
        head: Specification of the head; None for a linear head with the dropout of the architecture.
        image_size: Image size in pixels; None for that of the weights.

    Raises:
        UnfreezeError: If the name or the weights are unknown, can't be downloaded, or do not fit.
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
    """Return a classifier from its parts.

    Args:
        architecture: Network to build.
        classes: See `build_classifier`.
        preprocessing: Input transform.
        weights: Origin of the backbone's weights; None for random ones.
        head: Specification of the head; None for a linear head.
        load: Whether to load the weights; otherwise they stay random.
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
    """Return a stock network with its published head and classes, in eval mode.

    Args:
        model: Specification, or name of a classifier of torchvision.
        file: File of its published weights; None to read them from a cache, or to download them.

    Raises:
        UnfreezeError: If there is no such network, or its weights or classes are not available.
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
    """Return the classifier of a record by `Classifier.to_record`, with its weights, offline.

    Args:
        record: Plain values from a checkpoint.
        state: State dict of the whole network, head included.
        trust_repo: Whether the code of the network's torch.hub repository may run.
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


def find_linear_head(classifier: Classifier) -> nn.Linear:
    """Return the head if it is a single linear layer.

    Raises:
        UnfreezeError: If it is not.
    """
    head = classifier.groups[0]
    owner = classifier.network.get_submodule(head.parameters[0].rpartition(".")[0])
    if not isinstance(owner, nn.Linear) or len(head.parameters) != len(list(owner.parameters())):
        raise UnfreezeError(
            f"strategy.stages: solver lbfgs solves a single nn.Linear with its bias, but the head of "
            f"{classifier.architecture} is another; type strategy=feature_extraction"
        )
    return owner
