"""The outputs of a model and its targets, from the objective, the head and the labels of the data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unfreeze.config.schema import Config
from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unfreeze.data.sources.source import Task
    from unfreeze.models.outputs import Outputs


def outputs_of(config: Config, tasks: "Sequence[Task]") -> "tuple[Outputs, NDArray[np.int64]]":
    """Return the outputs of a model, and the targets of all images.

    Args:
        config: With the objective and the head.
        tasks: The tasks of a source.

    Returns:
        The meaning of the logits; and the targets, int64, shape (N,), or (N, T) with a column per task or label.

    Raises:
        UnfreezeError: If the objective and the head do not go with the labels.
    """
    import numpy as np

    from unfreeze.models.outputs import Outputs, TaskClasses

    if config.objective.name == "multilabel":
        return _multilabel_outputs(config, tasks)
    if config.head.is_multitask:
        _check_tasks(config, [task.name for task in tasks])
        outputs = Outputs(tuple(TaskClasses(task.name, task.classes) for task in tasks))
        return outputs, np.stack([task.labels for task in tasks], axis=1)
    if len(tasks) > 1:
        raise UnfreezeError(
            f"head={config.head.name}: learns one task, but the data has {len(tasks)}: "
            f"{', '.join(task.name for task in tasks)}; type head=multitask for a head each, objective=multilabel for "
            f"labels of 0 and 1, or data.columns.label={tasks[0].name}"
        )
    return Outputs.of(tasks[0].classes, task=tasks[0].name), tasks[0].labels


def _multilabel_outputs(config: Config, tasks: "Sequence[Task]") -> "tuple[Outputs, NDArray[np.int64]]":
    import numpy as np

    from unfreeze.models.outputs import Outputs, TaskClasses

    if config.head.is_multitask:
        raise UnfreezeError("head=multitask: objective=multilabel has one head for all labels; type head=linear")
    if config.data.balance == "sampler":
        raise UnfreezeError(
            "data.balance: an image with several labels can't be drawn by one of them; type data.balance=weights"
        )
    columns = []
    for task in tasks:
        presence = task.presence
        if presence is None:
            raise UnfreezeError(
                f"objective=multilabel: {task.name!r} has {len(task.classes)} classes, such as {task.classes[0]!r}; "
                "want columns of 0 and 1 (data=manifest data.columns.label=[furry,tame]), or one whose cells hold "
                "several labels (data.columns.separator='|')"
            )
        columns.append(presence)
    labels = TaskClasses("label", tuple(task.name for task in tasks))
    return Outputs((labels,), multilabel=True), np.stack(columns, axis=1)


def _check_tasks(config: Config, names: list[str]) -> None:
    if len(names) < 2:
        raise UnfreezeError(
            f"head=multitask: the data has one task, {names[0]!r}; type data=manifest "
            "data.columns.label=[<column>,<column>], or head=linear"
        )
    if config.objective.name == "distill":
        raise UnfreezeError("head=multitask: objective=distill teaches one task; type head=linear, or no objective")
    unknown = sorted(set(config.head.weights or {}) - set(names))
    if unknown:
        raise UnfreezeError(f"head.weights: no task {unknown[0]!r}; want {', '.join(names)}")
    task = config.monitor.split("/")[1]
    if config.monitor.count("/") == 2 and task not in names:
        raise UnfreezeError(f"monitor: no task {task!r}; want one of {', '.join(names)}, or their mean, val/acc")
