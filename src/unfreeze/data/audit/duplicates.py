"""Images that stand in the data twice: byte for byte, or so alike that a person would call them the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unfreeze.data.sources.images import Indices
from unfreeze.data.store.pixels import Pixels

Pairs = NDArray[np.int64]

_THUMB_PX = 32
_HASH_PX = 8
_CHUNK = 256
_MAX_BITS_APART = 8
_MIN_CORRELATION = 0.93
_MIN_CONTRAST = 4.0
_MOST_NEIGHBOURS = 1024


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """What near duplicates are told by.

    Args:
        indices: Of the images in their source, shape (N,).
        grey: uint8, shape (N, 32, 32).
        hashes: 64-bit perceptual hashes, uint64, shape (N,).
        mirrored: Likewise, of the mirrored images.
    """

    indices: Indices
    grey: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]


def exact_pairs(digests: NDArray[np.void], indices: Indices) -> Pairs:
    """Return pairs of images of equal content, each image with the first that it equals, shape (P, 2)."""
    _, first, group = np.unique(digests[indices], return_index=True, return_inverse=True)
    leaders = indices[first][group]
    pairs: Pairs = np.stack([leaders, indices], axis=1)[leaders != indices]
    return pairs


def near_pairs(thumbnails: Thumbnails) -> Pairs:
    """Return pairs of images that look the same, mirrored or not, shape (P, 2), smaller index first.

    Perceptual hashes (Zauner 2010, section 3.2.1) at most 8 of 64 bits apart propose a pair; the thumbnails'
    correlation decides.
    """
    count = len(thumbnails.indices)
    hashes = np.concatenate([thumbnails.hashes, thumbnails.mirrored])
    found = [_confirmed(thumbnails.grey, pairs, count) for pairs in _candidates(hashes, count)]
    pairs: Pairs = thumbnails.indices[np.concatenate([*found, np.empty((0, 2), dtype=np.int64)])]
    unique: Pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return unique


def build_thumbnails(pixels: Pixels, indices: Indices) -> Thumbnails:
    """Return thumbnails and perceptual hashes of some images."""
    chunks = np.array_split(indices, max(1, -(-len(indices) // _CHUNK)))
    grey = np.concatenate([_grey_thumbnails(images) for images in pixels.batches(chunks)])
    return Thumbnails(
        indices=indices,
        grey=grey.round().astype(np.uint8),
        hashes=perceptual_hashes(grey),
        mirrored=perceptual_hashes(grey[:, :, ::-1]),
    )


def perceptual_hashes(grey: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return 64-bit hashes, shape (N,), of grey thumbnails, float, shape (N, 32, 32).

    A bit says whether one of the 8 x 8 lowest frequencies but the mean lies above their median.
    """
    low = dctn(grey, axes=(1, 2))[:, :_HASH_PX, :_HASH_PX].reshape(len(grey), -1)
    low[:, 0] = 0
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    hashes: NDArray[np.uint64] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


def _grey_thumbnails(images: Tensor) -> NDArray[np.float32]:
    grey = F.rgb_to_grayscale(images)
    thumbnails: Tensor = F.resize(grey.to(torch.float32), [_THUMB_PX, _THUMB_PX], antialias=True)
    return thumbnails[:, 0].contiguous().numpy()


def _candidates(hashes: NDArray[np.uint64], count: int) -> Iterator[Pairs]:
    """Yield pairs of hashes few bits apart, the first of them of an image that is not mirrored.

    Of 9 bands of bits, hashes 8 bits apart share one at least; only hashes that do are compared.
    """
    edges = np.linspace(0, 64, _MAX_BITS_APART + 2).astype(int).tolist()
    for low, high in pairwise(edges):
        band = hashes >> np.uint64(low) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        band = band[order]
        for step in range(1, min(_MOST_NEIGHBOURS, len(order))):
            same = np.flatnonzero(band[step:] == band[:-step])
            if not len(same):
                break
            first, second = order[same], order[same + step]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= _MAX_BITS_APART
            pairs = np.sort(np.stack([first[near], second[near]], axis=1), axis=1)
            # Two mirrored images say what the two as they are say, and every image is like itself mirrored or not.
            yield pairs[(pairs[:, 0] < count) & (pairs[:, 0] != pairs[:, 1] % count)]


def _confirmed(grey: NDArray[np.uint8], pairs: Pairs, count: int) -> Pairs:
    """Keep the pairs whose thumbnails correlate; the second of a pair is mirrored where it is `count` or more."""
    kept = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), 4096):
        block = pairs[start : start + 4096]
        first = grey[block[:, 0]].astype(np.float32)
        second = grey[block[:, 1] % count].astype(np.float32)
        mirrored = block[:, 1] >= count
        second[mirrored] = second[mirrored][:, :, ::-1]
        kept.append(block[_correlation(first, second) >= _MIN_CORRELATION] % count)
    return np.sort(np.concatenate(kept), axis=1)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Pearson's correlation of each pair; 0 where an image has next to no contrast."""
    first, second = (values - values.mean(axis=(1, 2), keepdims=True) for values in (first, second))
    spread = [np.sqrt((values**2).mean(axis=(1, 2))) for values in (first, second)]
    product: NDArray[np.float32] = (first * second).mean(axis=(1, 2)) / np.maximum(spread[0] * spread[1], 1e-6)
    return np.where(np.minimum(*spread) < _MIN_CONTRAST, np.float32(0), product)
