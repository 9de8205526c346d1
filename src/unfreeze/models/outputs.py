"""What the logits of a network stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

GIVEN_AT = 0.5
"""The probability from which a label is given where validation has chosen none."""


@dataclass(frozen=True)
class TaskClasses:
    """One thing to tell images apart by, and the names of its classes in the order of their logits."""

    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Outputs:
    """The logits of a network, by name.

    Args:
        tasks: What is told apart; the logits of one task follow those of the one before it.
        multilabel: Whether the classes are labels, of which an image may have several or none; then there is one task.
    """

    tasks: tuple[TaskClasses, ...]
    multilabel: bool = False

    @classmethod
    def of(cls, classes: "Sequence[str] | Outputs", *, task: str = "label") -> "Outputs":
        """Return the outputs of one task; what is outputs already, as it is."""
        return classes if isinstance(classes, Outputs) else cls((TaskClasses(task, tuple(classes)),))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each logit."""
        return tuple(name for task in self.tasks for name in task.classes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of logits of each task."""
        return tuple(len(task.classes) for task in self.tasks)

    def __len__(self) -> int:
        """Return the number of logits."""
        return sum(self.sizes)

    def __str__(self) -> str:
        """Return how many things are told apart."""
        if self.multilabel:
            return f"{len(self)} labels"
        return f"{' + '.join(map(str, self.sizes))} classes"

    def split(self, logits: "Tensor") -> "tuple[Tensor, ...]":
        """Return the logits of each task, shape (N, its classes) out of (N, all)."""
        import torch

        return torch.split(logits, list(self.sizes), dim=1)

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Return values in [0, 1], shape (N, C); of each task they sum to one, of labels each stands for itself."""
        if self.multilabel:
            return logits.sigmoid()
        import torch

        return torch.cat([own.softmax(dim=1) for own in self.split(logits)], dim=1)

    def to_record(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"tasks": {task.name: list(task.classes) for task in self.tasks}, "multilabel": self.multilabel}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Outputs":
        """Return what `to_record` described."""
        tasks = tuple(TaskClasses(name, tuple(classes)) for name, classes in record["tasks"].items())
        return cls(tasks, multilabel=record["multilabel"])
