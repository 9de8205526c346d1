"""The values of `trainer`: arguments of Lightning's Trainer, and the few keys of this project beside them."""

import math
from collections.abc import Mapping
from typing import Any

_COUNTS = (
    "max_epochs",
    "max_steps",
    "num_nodes",
    "accumulate_grad_batches",
    "log_every_n_steps",
    "check_val_every_n_epoch",
)
_LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "val_check_interval")
_PRECISIONS = ("auto", "32", "32-true", "16-mixed", "bf16-mixed")
_RESERVED = frozenset(
    {
        "barebones",
        "callbacks",
        "default_root_dir",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "fast_dev_run",
        "logger",
        "num_sanity_val_steps",
        "overfit_batches",
        "use_distributed_sampler",
    }
)
"""Arguments that the run sets itself."""


def check_trainer_values(trainer: Mapping[str, Any], *, shortest_stage: int) -> None:
    """Refuse values of the Trainer that Lightning would refuse later, or in several lines.

    Args:
        trainer: The `trainer` part of a configuration.
        shortest_stage: Epochs of the shortest stage.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """
    for key in sorted(_RESERVED & trainer.keys()):
        raise ValueError(f"trainer.{key}: set by the run itself; leave it out")
    for key in _COUNTS:
        _check_count(key, trainer.get(key))
    for key in _LIMITS:
        _check_limit(key, trainer.get(key))
    if str(trainer.get("precision", 32)) not in _PRECISIONS:
        raise ValueError(f"trainer.precision: got {trainer['precision']!r}, want one of {', '.join(_PRECISIONS)}")
    _check_switch("compile", trainer, (True, False))
    _check_switch("tf32", trainer, (True, False, None))
    every = trainer.get("check_val_every_n_epoch") or 1
    if every > shortest_stage:
        raise ValueError(
            f"trainer.check_val_every_n_epoch: got {every}, but a stage has {shortest_stage} epochs; want one "
            "validation in each stage at least"
        )
    clip = trainer.get("gradient_clip_val")
    is_number = isinstance(clip, int | float) and not isinstance(clip, bool)
    if clip is not None and not (is_number and math.isfinite(clip) and clip >= 0):
        raise ValueError(f"trainer.gradient_clip_val: got {clip!r}, want a number of 0 or more, or null")


def _check_count(key: str, count: Any) -> None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ValueError(f"trainer.{key}: got {count!r}, want an integer of 1 or more, or null")


def _check_limit(key: str, limit: Any) -> None:
    share = isinstance(limit, float) and 0 < limit <= 1
    if not (limit is None or share or (type(limit) is int and limit >= 1)):
        raise ValueError(f"trainer.{key}: got {limit!r}, want a share in (0, 1], a number of batches, or null")


def _check_switch(key: str, trainer: Mapping[str, Any], wanted: tuple[bool | None, ...]) -> None:
    value = trainer.get(key, False)
    if value not in wanted or type(value) is int:
        raise ValueError(f"trainer.{key}: got {value!r}, want true{', null' if None in wanted else ''} or false")
