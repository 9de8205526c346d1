"""The teacher of a distillation: a run, a checkpoint or a published network, checked against the data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unfreeze.data.sources.bands import bands_for
from unfreeze.data.splits.splits import differing_splits
from unfreeze.errors import UnfreezeError
from unfreeze.models.checkpoint import UntrustedRepoError
from unfreeze.models.classifier import Classifier
from unfreeze.models.find_model import find_classifier
from unfreeze.models.model_argument import is_run
from unfreeze.models.outputs import Outputs
from unfreeze.results.run_directory import RunDirectory
from unfreeze.system.files import read_json


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network whose outputs or features a student learns.

    Args:
        classifier: The network, in eval mode.
        name: What a person named it by.
        run: The run that it comes from; None for none.
        is_published: Whether it tells what its published weights were trained for, mostly more than is asked.
    """

    classifier: Classifier
    name: str
    run: RunDirectory | None = None
    is_published: bool = False


def find_teacher(given: str, *, trust_repo: bool = False) -> Teacher:
    """Return the teacher that a person means.

    Args:
        given: The directory of a run, a checkpoint of this project, or the name of a network of torchvision or timm,
            which then has its published weights and classes.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If there is none such.
    """
    try:
        classifier = find_classifier(given, trust_repo=trust_repo)
    except UntrustedRepoError as error:
        raise UnfreezeError(
            f"objective.teacher: {given} is a network of the repository {error.repo}, whose code would run; if you "
            "trust it, type model.trust_repo=true"
        ) from None
    except UnfreezeError as error:
        raise UnfreezeError(f"objective.teacher: {error}") from None
    if not is_run(given):
        return Teacher(classifier, given, is_published=True)
    return Teacher(classifier, given, RunDirectory.containing(Path(given)))


def check_classes(teacher: Teacher, outputs: Outputs) -> None:
    """Refuse a teacher of other classes than the student's.

    Raises:
        UnfreezeError: Naming the classes that differ.
    """
    theirs, ours = teacher.classifier.outputs, outputs.names
    if theirs.multilabel or len(theirs.tasks) > 1:
        raise UnfreezeError(
            f"objective.teacher: {teacher.name} tells {'labels' if theirs.multilabel else 'several tasks'}; want one "
            "that tells the classes of the data, or type objective.match=features"
        )
    lacking = [name for name in ours if name not in theirs.names]
    spare = [] if teacher.is_published else sorted(set(theirs.names) - set(ours))
    if lacking or spare:
        told = f"it does not know {_some(lacking)}" if lacking else f"it also tells {_some(spare)}"
        raise UnfreezeError(
            f"objective.teacher: the classes of {teacher.name} are not those of the data: {told}; want a teacher "
            "trained on these classes, or type objective.match=features, which needs none"
        )


def check_bands(teacher: Teacher, bands: int) -> None:
    """Refuse a teacher that does not see images of so many bands.

    Raises:
        UnfreezeError: If it doesn't; one that sees grey sees colour too.
    """
    seen = len(teacher.classifier.preprocessing.mean)
    if bands != bands_for(seen):
        raise UnfreezeError(
            f"objective.teacher: {teacher.name} sees {seen} {'channel' if seen == 1 else 'channels'}, and the images "
            f"have {bands}; want a teacher that was trained with model.in_chans={bands}"
        )


def check_splits(teacher: Teacher, described: dict[str, Any]) -> None:
    """Refuse a teacher that was trained on other splits: it may have seen this run's test images.

    Args:
        teacher: One that comes from a run is checked, no other can be.
        described: What `ImageData.describe_splits` says of this run's.

    Raises:
        UnfreezeError: Naming the splits that differ.
    """
    if teacher.run is None:
        return
    theirs = read_json(teacher.run.splits_file, keys=("splits",))
    differing = differing_splits(described, theirs)
    if differing:
        raise UnfreezeError(
            f"objective.teacher: the {' and '.join(differing)} images of {teacher.name} are not those of this run, so "
            "it may have learnt from what this run is judged by; train both with the same data and data.seed"
        )


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
