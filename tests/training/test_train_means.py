"""Batches that are noted and added later count as though each had been added at once."""

import copy

import torch
from torch import Tensor

from unfreeze.training.train_means import TrainMeans

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])


def right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels)[:, None]


def test_means_are_over_images_however_many_batches_were_noted() -> None:
    means = TrainMeans(right)
    assert means.means() == {}
    for step in range(100):
        size = 3 if step < 99 else 1
        means.add(torch.tensor(float(size)), LOGITS[:size], torch.zeros(size, dtype=torch.int64))
    told = means.means()
    assert told["loss"] == (99 * 3 * 3 + 1) / (99 * 3 + 1)
    assert told["acc"] == (99 * 2 + 1) / (99 * 3 + 1)


def test_a_checkpoint_in_mid_epoch_has_what_was_noted_and_goes_on_to_the_same_bits() -> None:
    torch.manual_seed(0)
    batches = [(torch.rand(()), torch.randn(5, 4), torch.randint(4, (5,))) for _ in range(150)]
    whole, first, second = TrainMeans(right), TrainMeans(right), TrainMeans(right)
    for batch in batches:
        whole.add(*batch)
    for batch in batches[:70]:
        first.add(*batch)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for batch in batches[70:]:
        second.add(*batch)
    assert all(torch.equal(whole.means()[name], second.means()[name]) for name in ("loss", "acc"))


def test_large_batches_are_not_kept_waiting() -> None:
    means = TrainMeans(right)
    logits = torch.zeros(64, 5000)
    means.add(torch.tensor(1.0), logits, torch.zeros(64, dtype=torch.int64))
    assert means.images == 64


def test_after_a_reset_nothing_is_left() -> None:
    means = TrainMeans(right)
    means.add(torch.tensor(1.0), LOGITS, torch.zeros(3, dtype=torch.int64))
    means.reset()
    assert means.means() == {}
