"""A classifier by what a person calls it: a run, its checkpoint, or a published network."""

from pathlib import Path

from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier, published_classifier
from unfreeze.models.model_argument import as_no_model, check_weights_file, is_run, published_spec


def find_classifier(given: str, *, weights: Path | None = None, trust_repo: bool = False) -> Classifier:
    """Return the classifier that a person means, in eval mode, on the CPU.

    Args:
        given: The directory of a run, a checkpoint, or the name of a network, which then has its published weights and
            tells the classes that these were trained for.
        weights: A file of these weights, where they are not to be downloaded; goes with the name of a network.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If there is none such.
    """
    check_weights_file(given, weights)
    if is_run(given):
        return load_classifier(given, trust_repo=trust_repo)
    try:
        return published_classifier(published_spec(given), file=weights)
    except UnfreezeError as error:
        if weights is not None and str(weights) in str(error):
            raise UnfreezeError(str(error).replace("model.weights:", "--weights:", 1)) from None
        raise as_no_model(given, error) from None
