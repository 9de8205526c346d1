"""A classifier by what a person calls it: a run, its checkpoint, or a published network."""

from pathlib import Path

from unfreeze.errors import UnfreezeError
from unfreeze.inference.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier, published_classifier
from unfreeze.models.spec import ModelSpec

_TIMM = "timm/"


def find_classifier(given: str, *, trust_repo: bool = False) -> Classifier:
    """Return the classifier that a person means, in eval mode, on the CPU.

    Args:
        given: The directory of a run, a checkpoint, or the name of a network, which then has its published weights and
            tells the classes that these were trained for.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If there is none such.
    """
    if is_run(given):
        return load_classifier(given, trust_repo=trust_repo)
    try:
        return published_classifier(published_spec(given))
    except UnfreezeError as error:
        raise UnfreezeError(f"{given!r}: no run, no checkpoint, and as a model: {error}") from None


def is_run(given: str) -> bool:
    """Return whether a run or a checkpoint is meant, not the name of a network; it may not be there."""
    path = Path(given).expanduser()
    return path.exists() or path.suffix == ".ckpt" or ("/" in given and not given.startswith(_TIMM))


def published_spec(name: str) -> ModelSpec:
    """Return the network that a name stands for: torchvision's, else timm's; `timm/` before it says timm's."""
    from unfreeze.models.torchvision_models import classifier_names

    if name.startswith(_TIMM):
        return ModelSpec(name.removeprefix(_TIMM), source="timm")
    if name == "tiny" or name in classifier_names():
        return ModelSpec(name)
    try:
        import timm
    except ImportError:
        return ModelSpec(name)
    return ModelSpec(name, source="timm") if timm.is_model(name) else ModelSpec(name)
