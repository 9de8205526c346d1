"""The order of an epoch: a function of the images, the seed and the epoch."""

import numpy as np

from unfreeze.data.sources.images import Indices


def epoch_order(indices: Indices, labels: Indices, *, seed: int, epoch: int, balance: bool = False) -> Indices:
    """Return the images of an epoch in the order in which they are trained on.

    Balanced, an epoch is as long, but each class stands in it equally often, within one: the images of rare classes
    are repeated, each as often as another of its class, within one; those of frequent classes take turns over the
    epochs.

    Args:
        indices: The training images, shape (N,).
        labels: The class of each of them, shape (N,).
        seed: The run's seed.
        epoch: The epoch, counted from 0.
        balance: Whether classes stand equally often.

    Returns:
        Shape (N,).
    """
    chosen = indices[_balanced(labels, seed=seed, epoch=epoch)] if balance else indices
    return np.random.default_rng([seed, epoch]).permutation(chosen)


def _balanced(labels: Indices, *, seed: int, epoch: int) -> Indices:
    """Return positions that have each class equally often, shape (N,).

    Each class goes round its own images for ever, and each epoch takes up where the one before it stopped.
    """
    # The third number keeps these draws apart from those of any epoch.
    random = np.random.default_rng([seed, 0, 1])
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    taken, quotas = _quotas(len(labels), random.permutation(len(counts)), epoch)
    class_of = np.repeat(np.arange(len(counts)), quotas)
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(quotas) - quotas, quotas)
    first = np.cumsum(counts) - counts
    return by_class[first[class_of] + (taken[class_of] + turn) % counts[class_of]]


def _quotas(count: int, ranks: Indices, epoch: int) -> tuple[Indices, Indices]:
    """Return how many images each class has had in the epochs before, and has in this one.

    What does not divide evenly goes to one class after the other by rank, this epoch going on where the last stopped.
    """
    if not count:
        return ranks, ranks
    share, rest = divmod(count, len(ranks))
    before, after = (((epoch + more) * rest - ranks + len(ranks) - 1) // len(ranks) for more in (0, 1))
    return epoch * share + before, share + after - before


def steps_per_epoch(images: int, batch_size: int, world_size: int = 1, *, limit: float = 1.0) -> int:
    """Return the number of batches of an epoch, as each rank has them.

    Args:
        images: To train on.
        batch_size: Images per batch and rank.
        world_size: The number of ranks.
        limit: The most batches, or their share, as the Trainer's `limit_train_batches`.
    """
    batches = len(step_bounds(images, batch_size, world_size)) - 1
    return min(limit, batches) if isinstance(limit, int) else int(limit * batches)


def step_bounds(count: int, batch_size: int, world_size: int) -> list[int]:
    """Return where each step begins and ends in an epoch's order, over all ranks."""
    per_rank = -(-count // world_size)
    sizes = [batch_size] * (per_rank // batch_size)
    rest = per_rank % batch_size
    if rest == 1 and sizes:
        # BatchNorm can't learn from one image.
        sizes = [*sizes[:-1], *([batch_size - 1, 2] if batch_size > 2 else [batch_size + 1])]
    elif rest:
        sizes.append(rest)
    return [0, *(np.cumsum(sizes) * world_size).tolist()]
