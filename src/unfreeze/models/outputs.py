"""Tasks and classes of a network's logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_THRESHOLD = 0.5
"""Default probability threshold of a label in multilabel classification."""


@dataclass(frozen=True)
class TaskClasses:
    """A classification task.

    Args:
        name: Name of the task.
        classes: Names of the classes, in the order of their logits.
    """

    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Outputs:
    """Tasks and classes of a network's logits.

    Args:
        tasks: Tasks in the order of their logits.
        multilabel: Whether an image may have several of the classes or none; then there is one task.
    """

    tasks: tuple[TaskClasses, ...]
    multilabel: bool = False

    @classmethod
    def of(cls, classes: "Sequence[str] | Outputs", *, task: str = "label") -> "Outputs":
        """Return the outputs of a single task with these classes; outputs are returned unchanged."""
        return classes if isinstance(classes, Outputs) else cls((TaskClasses(task, tuple(classes)),))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the logits."""
        return tuple(name for task in self.tasks for name in task.classes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of logits of each task."""
        return tuple(len(task.classes) for task in self.tasks)

    def __len__(self) -> int:
        """Return the number of logits."""
        return sum(self.sizes)

    def __str__(self) -> str:
        """Return the numbers of classes as text, such as "10 classes"."""
        if self.multilabel:
            return f"{len(self)} labels"
        return f"{' + '.join(map(str, self.sizes))} classes"

    def split(self, logits: "Tensor") -> "tuple[Tensor, ...]":
        """Return the logits of each task, shape (N, classes of the task), from those of all, shape (N, C)."""
        import torch

        return torch.split(logits, list(self.sizes), dim=1)

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Return probabilities, shape (N, C), by a softmax per task, or by a sigmoid in multilabel classification."""
        if self.multilabel:
            return logits.sigmoid()
        import torch

        return torch.cat([own.softmax(dim=1) for own in self.split(logits)], dim=1)

    def to_record(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"tasks": {task.name: list(task.classes) for task in self.tasks}, "multilabel": self.multilabel}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Outputs":
        """Return the outputs of a record by `to_record`."""
        tasks = tuple(TaskClasses(name, tuple(classes)) for name, classes in record["tasks"].items())
        return cls(tasks, multilabel=record["multilabel"])
