"""Classifier of a model argument: a run, a checkpoint, or a published network."""

from pathlib import Path

from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier, published_classifier
from unfreeze.models.model_argument import check_weights_file, is_run, published_spec, unknown_model


def find_classifier(given: str, *, weights: Path | None = None, trust_repo: bool = False) -> Classifier:
    """Return the classifier of a model argument, in eval mode, on the CPU.

    Args:
        given: Directory of a run, checkpoint, or name of a network with its published weights and classes.
        weights: File of the published weights of a network by name; None to download them.
        trust_repo: Whether the code of the network's torch.hub repository may run.

    Raises:
        UnfreezeError: If there is no such model.
    """
    check_weights_file(given, weights)
    if is_run(given):
        return load_classifier(given, trust_repo=trust_repo)
    try:
        return published_classifier(published_spec(given), file=weights)
    except UnfreezeError as error:
        if weights is not None and str(weights) in str(error):
            raise UnfreezeError(str(error).replace("model.weights:", "--weights:", 1)) from None
        raise unknown_model(given, error) from None
