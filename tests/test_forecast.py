"""What plan and log say of limits and ranks."""

import pytest

from tests.composing import composed
from unfreeze.config.values import check_values
from unfreeze.runs.estimate import describe_ranks


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ([], ""),
        (
            ["trainer.devices=2"],
            "2 ranks with 64 images each: 128 a step, 12 steps an epoch for 23; rates stay; optimizer.lr_batch=64 "
            "would multiply SGD's by 2, AdamW's by 1.41, data.batch_size=32 keep the step",
        ),
        (
            ["trainer.devices=2", "trainer.num_nodes=2", "optimizer.lr_batch=64"],
            "4 ranks with 64 images each: 256 a step, 6 steps an epoch for 23; rates follow optimizer.lr_batch=64",
        ),
        (
            ["trainer.devices=2", "data.batch_size=4096"],
            "2 ranks with 720 images each: 1440 a step, 1 steps an epoch for 1; rates stay; optimizer.lr_batch=4096 "
            "would multiply SGD's by 2, AdamW's by 1.41, data.batch_size=2048 keep the step",
        ),
    ],
)
def test_what_several_ranks_make_of_the_batch(typed: list[str], told: str) -> None:
    config = check_values(composed("data=digits", "model=tiny", *typed), [])
    assert describe_ranks(config, 1440) == told
