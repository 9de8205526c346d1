"""A classifier by what a person calls it: a run, its checkpoint, or a published network."""

from unfreeze.errors import UnfreezeError
from unfreeze.inference.checkpoint import load_classifier
from unfreeze.inference.meant import as_no_model, is_run, published_spec
from unfreeze.models.classifier import Classifier, published_classifier


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
        raise as_no_model(given, error) from None
