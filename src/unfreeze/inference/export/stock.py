"""The torchvision or timm module that can load the weights of a classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from unfreeze.models.architecture import find_architecture
from unfreeze.models.channels import PRETRAINED
from unfreeze.models.classifier import Classifier
from unfreeze.models.timm_models import TimmModel
from unfreeze.models.torchvision_models import TorchvisionModel

_AUXILIARY = {"init_weights": False, "aux_logits": False}
"""Options that omit auxiliary heads, which are used in training only."""


@dataclass(frozen=True, eq=False)
class Stock:
    """A network of torchvision or timm, unmodified.

    Args:
        library: "torchvision" or "timm".
        call: The line of Python that builds it.
        network: The network.
        takes_head: True if it loads all weights; False if it loads all but those of the heads.
    """

    library: str
    call: str
    network: nn.Module
    takes_head: bool


def find_stock(classifier: Classifier) -> Stock | None:
    """Return the stock network that loads a classifier's weights, or its backbone's; None if there is none."""
    if classifier.spec.source == "hub":
        return None
    architecture = find_architecture(classifier.spec)
    if isinstance(architecture, TimmModel):
        return _timm_stock(architecture, classifier)
    if isinstance(architecture, TorchvisionModel) and classifier.spec.in_chans == PRETRAINED:
        return _torchvision_stock(architecture, classifier)
    return None


def _torchvision_stock(architecture: TorchvisionModel, classifier: Classifier) -> Stock | None:
    from torchvision.models import get_model

    name, classes = architecture.builder, len(classifier.outputs)
    options = {
        **dict(classifier.spec.options),
        **(_AUXILIARY if name in ("inception_v3", "googlenet") else {}),
        **architecture.size_options(classifier.preprocessing.crop_px),
    }
    network = get_model(name, num_classes=classes, **options)
    return _stock("torchvision", _call("torchvision.models.get_model", name, classes, options), network, classifier)


def _timm_stock(architecture: TimmModel, classifier: Classifier) -> Stock | None:
    from timm import create_model

    classes, side = len(classifier.outputs), classifier.preprocessing.crop_px
    options = dict(classifier.spec.options)
    if classifier.spec.in_chans != PRETRAINED:
        options["in_chans"] = classifier.spec.in_chans
    if side != architecture.preprocessing().crop_px:
        try:
            sized = {**options, "img_size": side}
            network = create_model(architecture.name, num_classes=classes, **sized)
            return _stock("timm", _call("timm.create_model", architecture.name, classes, sized), network, classifier)
        except TypeError:  # no position embeddings: any size works
            pass
    network = create_model(architecture.name, num_classes=classes, **options)
    return _stock("timm", _call("timm.create_model", architecture.name, classes, options), network, classifier)


def _stock(library: str, call: str, network: nn.Module, classifier: Classifier) -> Stock | None:
    own, theirs = _shapes(classifier.network), _shapes(network)
    if _backbone_of(own, classifier) != _backbone_of(theirs, classifier):
        return None
    return Stock(library, call, network, takes_head=own == theirs)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def _backbone_of(shapes: Mapping[str, tuple[int, ...]], classifier: Classifier) -> dict[str, tuple[int, ...]]:
    heads = tuple(f"{head}." for head in classifier.heads)
    return {key: shape for key, shape in shapes.items() if not key.startswith(heads)}


def _call(function: str, name: str, classes: int, options: Mapping[str, Any]) -> str:
    arguments = [repr(name), f"num_classes={classes}", *(f"{key}={value!r}" for key, value in options.items())]
    return f"{function}({', '.join(arguments)})"
