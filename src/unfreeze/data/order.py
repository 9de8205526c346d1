"""Order of the training images in an epoch: a function of the images, the seed and the epoch."""

import numpy as np

from unfreeze.data.sources.images import Indices


def epoch_order(indices: Indices, labels: Indices, *, seed: int, epoch: int, balance: bool = False) -> Indices:
    """Return the images of an epoch in training order.

    A balanced epoch has the same length, but equal numbers of images per class, to within one. Images of rare classes
    are repeated equally often, to within one; images of frequent classes are distributed over successive epochs.

    Args:
        indices: Indices of the training images, shape (N,).
        labels: Labels of the training images, shape (N,).
        seed: Seed of the run.
        epoch: Epoch, from 0.
        balance: Whether to balance the classes.

    Returns:
        Indices of the images, shape (N,).
    """
    chosen = indices[_balanced(labels, seed=seed, epoch=epoch)] if balance else indices
    return np.random.default_rng([seed, epoch]).permutation(chosen)


def _balanced(labels: Indices, *, seed: int, epoch: int) -> Indices:
    """Return positions of images with equal numbers per class, shape (N,).

    The images of each class form a cycle, which each epoch continues where the previous one stopped.
    """
    # The third number makes these draws independent of those of any epoch.
    random = np.random.default_rng([seed, 0, 1])
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    used, quotas = _quotas(len(labels), random.permutation(len(counts)), epoch)
    class_of = np.repeat(np.arange(len(counts)), quotas)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(quotas) - quotas, quotas)
    first = np.cumsum(counts) - counts
    return by_class[first[class_of] + (used[class_of] + rank) % counts[class_of]]


def _quotas(count: int, ranks: Indices, epoch: int) -> tuple[Indices, Indices]:
    """Return the numbers of images of each class in all previous epochs and in this one.

    The remainder of the division goes to the classes in the order of their ranks, continued from epoch to epoch.
    """
    if not count:
        return ranks, ranks
    share, rest = divmod(count, len(ranks))
    before, after = (((epoch + more) * rest - ranks + len(ranks) - 1) // len(ranks) for more in (0, 1))
    return epoch * share + before, share + after - before


def steps_per_epoch(images: int, batch_size: int, world_size: int = 1, *, limit: float = 1.0) -> int:
    """Return the number of batches of an epoch on each rank.

    Args:
        images: Number of training images.
        batch_size: Images per batch and rank.
        world_size: Number of ranks.
        limit: Largest number of batches, or their fraction, as the Trainer's `limit_train_batches`.
    """
    batches = len(step_bounds(images, batch_size, world_size)) - 1
    return min(limit, batches) if isinstance(limit, int) else int(limit * batches)


def step_bounds(count: int, batch_size: int, world_size: int) -> list[int]:
    """Return the bounds of the steps in the order of an epoch, over all ranks."""
    per_rank = -(-count // world_size)
    sizes = [batch_size] * (per_rank // batch_size)
    rest = per_rank % batch_size
    if rest == 1 and sizes:
        # BatchNorm can't train on one image.
        sizes = [*sizes[:-1], *([batch_size - 1, 2] if batch_size > 2 else [batch_size + 1])]
    elif rest:
        sizes.append(rest)
    return [0, *(np.cumsum(sizes) * world_size).tolist()]
