"""Labelled images with their tasks, splits and groups: the result of every data source."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.sources.images import Images

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Names of each split in folders and tables."""

SPLIT_NAMES = tuple(SPLIT_WORDS)


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task.

    Args:
        name: Name of the task, such as the column of a table.
        classes: Names of the classes, in the order of their labels.
        labels: Labels of the images, int64, shape (N,), in [0, len(classes)).
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    @property
    def presence(self) -> NDArray[np.int64] | None:
        """Binary labels, 1 for positive, int64, shape (N,); None if the classes are not a yes and a no."""
        words = {name.lower() for name in self.classes}
        if len(words) != 2 or not words & _POSITIVE or not words & _NEGATIVE:
            return None
        return np.array([name.lower() in _POSITIVE for name in self.classes], dtype=np.int64)[self.labels]

    def select(self, mask: NDArray[np.bool_]) -> "Task":
        """Return the task for the images of a mask, shape (N,)."""
        return replace(self, labels=self.labels[mask])


_POSITIVE = {"1", "1.0", "yes", "true", "y", "t", "present", "positive"}
_NEGATIVE = {"0", "0.0", "-1", "no", "false", "n", "f", "absent", "negative"}


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Labelled images with their splits.

    Args:
        name: Name of the data.
        classes: Names of the classes, in the order of their labels.
        images: Images by index.
        labels: Labels of the images, int64, shape (N,), in [0, len(classes)).
        splits: "train", "val" or "test" for each image, shape (N,).
        groups: Group of each image, such as a patient, which is kept in one split: int64, shape (N,); None for none.
        task: Name of the task of `classes` and `labels`.
        more_tasks: Further tasks.
        ignored: Names of files that are not images.
        notes: Further remarks on how the data was read.
    """

    name: str
    classes: tuple[str, ...]
    images: Images
    labels: NDArray[np.int64]
    splits: NDArray[np.str_]
    groups: NDArray[np.int64] | None = None
    task: str = "label"
    more_tasks: tuple[Task, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks, that of `labels` first."""
        return (Task(self.task, self.classes, self.labels), *self.more_tasks)

    @property
    def similar_class_names(self) -> tuple[tuple[str, ...], ...]:
        """Groups of class names that differ only in case or Unicode form, such as Cat and cat."""
        found: dict[tuple[str, str], list[str]] = {}
        for task in self.tasks:
            for name in task.classes:
                found.setdefault((task.name, unicodedata.normalize("NFKC", name).casefold()), []).append(name)
        return tuple(tuple(names) for names in found.values() if len(names) > 1)

    @property
    def strata(self) -> NDArray[np.int64]:
        """Joint labels of all tasks, by which splits are stratified, int64 from 0, shape (N,).

        A combination of labels that only one image has is replaced by the class of the first task.
        """
        if not self.more_tasks:
            return self.labels
        joint = self.labels
        for task in self.more_tasks:
            _, joint = np.unique(joint * len(task.classes) + task.labels, return_inverse=True)
        is_single = np.bincount(joint)[joint] == 1
        _, strata = np.unique(np.where(is_single, joint.max() + 1 + self.labels, joint), return_inverse=True)
        return strata.astype(np.int64)


def describe_similar_names(names: Sequence[str]) -> str:
    """Return a line about class names that are easily taken for one name."""
    shown = " and ".join(map(ascii, names) if len({name.casefold() for name in names}) > 1 else map(repr, names))
    return f"classes {shown} differ only in case or Unicode form; one class should have one name"
