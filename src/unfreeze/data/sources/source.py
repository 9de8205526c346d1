"""Labelled images: what each kind of data ends as."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.sources.images import Images

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What people call each split, in folders and in tables."""

SPLIT_NAMES = tuple(SPLIT_WORDS)


@dataclass(frozen=True, eq=False)
class Task:
    """One thing to tell images apart by.

    Args:
        name: What a person calls it, such as the column of a table.
        classes: Names of the classes, in the order of their labels.
        labels: int64, shape (N,), in [0, len(classes)).
    """

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]

    @property
    def is_there(self) -> NDArray[np.int64] | None:
        """Whether each image has what the task is called by, 0 or 1, shape (N,); None where its classes don't say."""
        words = {name.lower() for name in self.classes}
        if len(words) != 2 or not words & _THERE or not words & _NOT_THERE:
            return None
        return np.array([name.lower() in _THERE for name in self.classes], dtype=np.int64)[self.labels]


_THERE = {"1", "1.0", "yes", "true", "y", "t", "present", "positive"}
_NOT_THERE = {"0", "0.0", "-1", "no", "false", "n", "f", "absent", "negative"}


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Labelled images, with the split that each of them came in.

    Args:
        name: What a person calls the data.
        classes: Names of the classes, in the order of their labels.
        images: The images.
        labels: int64, shape (N,), in [0, len(classes)).
        splits: "train", "val" or "test" for each image, shape (N,).
        groups: What must not be torn apart by splits, such as patients: int64, shape (N,); None for no groups.
        task: Name of what the labels tell.
        more_tasks: What else there is to learn, beside `classes` and `labels`.
        ignored: Names of files that were left out by their names.
        notes: What else a person should know of how the data was read.
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
        """All tasks, the one of `labels` first."""
        return (Task(self.task, self.classes, self.labels), *self.more_tasks)

    @property
    def alike(self) -> tuple[tuple[str, ...], ...]:
        """Names of classes that differ in case or Unicode form alone, such as Cat and cat, together."""
        found: dict[tuple[str, str], list[str]] = {}
        for task in self.tasks:
            for name in task.classes:
                found.setdefault((task.name, unicodedata.normalize("NFKC", name).casefold()), []).append(name)
        return tuple(tuple(names) for names in found.values() if len(names) > 1)

    @property
    def strata(self) -> NDArray[np.int64]:
        """What splits are stratified by: the labels of all tasks jointly, int64 from 0, shape (N,).

        A combination that one image alone has counts as the class of the first task.
        """
        if not self.more_tasks:
            return self.labels
        joint = self.labels
        for task in self.more_tasks:
            _, joint = np.unique(joint * len(task.classes) + task.labels, return_inverse=True)
        alone = np.bincount(joint)[joint] == 1
        _, strata = np.unique(np.where(alone, joint.max() + 1 + self.labels, joint), return_inverse=True)
        return strata.astype(np.int64)


def describe_alike(names: Sequence[str]) -> str:
    """Return in a line that classes have names which a person may take for one."""
    shown = " and ".join(map(ascii, names) if len({name.casefold() for name in names}) > 1 else map(repr, names))
    return f"classes {shown} differ in case or Unicode form alone; one class should have one name"
