"""Search for duplicate images: equal byte for byte, or nearly equal to the eye."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unfreeze.data.sources.bands import RGB
from unfreeze.data.sources.images import Indices
from unfreeze.data.store.pixels import Pixels

Pairs = NDArray[np.int64]

_THUMB_PX = 32
_HASH_PX = 8
_CHUNK = 256
_MAX_BITS_APART = 8
_MIN_CORRELATION = 0.93
_MIN_CONTRAST = 4.0


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Thumbnails and perceptual hashes for the search for near duplicates.

    Args:
        indices: Indices of the images in their source, shape (N,).
        grey: Grey thumbnails, uint8, shape (N, 32, 32).
        hashes: 64-bit perceptual hashes, uint64, shape (N,).
        mirrored: Hashes of the mirrored images, uint64, shape (N,).
    """

    indices: Indices
    grey: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    mirrored: NDArray[np.uint64]


def exact_pairs(contents: Indices, first: Indices, second: Indices) -> Pairs:
    """Return each image of the second split paired with the first image of the first split that it equals.

    Args:
        contents: Content number of each image, equal for equal images, int64, shape (N,).
        first: Images of a split.
        second: Images of another split, or of the same one, where the first of equal images is not paired.

    Returns:
        Pairs of indices, shape (P, 2).
    """
    unique, positions = np.unique(contents[first], return_index=True)
    if not len(unique):
        return np.empty((0, 2), dtype=np.int64)
    nearest = np.searchsorted(unique, contents[second]).clip(max=len(unique) - 1)
    pairs = np.stack([first[positions][nearest], second], axis=1)
    equal: Pairs = pairs[(unique[nearest] == contents[second]) & (pairs[:, 0] != pairs[:, 1])]
    return equal


def near_pairs(thumbnails: Thumbnails) -> Pairs:
    """Return all pairs of images that look the same, mirrored or not, shape (P, 2), smaller index first.

    Candidates are pairs whose perceptual hashes (Zauner 2010, section 3.2.1) differ in at most 8 of 64 bits; the
    correlation of their thumbnails decides. All images are compared with each other, in quadratic time.
    """
    count = len(thumbnails.indices)
    hashes = torch.from_numpy(np.concatenate([_signs(thumbnails.hashes), _signs(thumbnails.mirrored)]))
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, count, _CHUNK):
        # The first image of a pair is compared unmirrored with the second, both unmirrored and mirrored.
        agreement = hashes[start : min(start + _CHUNK, count)] @ hashes.view(2, count, -1)[:, start:].transpose(1, 2)
        side, row, column = torch.nonzero(agreement >= 64 - 2 * _MAX_BITS_APART, as_tuple=True)
        candidates = torch.stack([row + start, column + start + side * count], dim=1)[column > row]
        found.append(_confirmed(thumbnails.grey, candidates.numpy(), count))
    pairs: Pairs = thumbnails.indices[np.concatenate(found)]
    unique: Pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return unique


def _signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the bits as -1 and 1, shape (N, 64), so that a dot product counts equal bits."""
    return np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32) * 2 - 1


def build_thumbnails(pixels: Pixels, indices: Indices) -> Thumbnails:
    """Return thumbnails and perceptual hashes of images by index."""
    grey = np.empty((len(indices), _THUMB_PX, _THUMB_PX), dtype=np.uint8)
    hashes, mirrored = (np.empty(len(indices), dtype=np.uint64) for _ in range(2))
    starts = range(0, len(indices), _CHUNK)
    for start, images in zip(starts, pixels.batches([indices[i : i + _CHUNK] for i in starts]), strict=True):
        chunk = slice(start, start + _CHUNK)
        thumbnails = _grey_thumbnails(images)
        grey[chunk] = thumbnails.round()
        hashes[chunk], mirrored[chunk] = perceptual_hashes(thumbnails), perceptual_hashes(thumbnails[:, :, ::-1])
    return Thumbnails(indices=indices, grey=grey, hashes=hashes, mirrored=mirrored)


def perceptual_hashes(grey: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return 64-bit hashes, shape (N,), of grey thumbnails, float, shape (N, 32, 32).

    A bit is set if one of the 8 x 8 lowest frequencies, without the mean, is above their median.
    """
    low = dctn(grey, axes=(1, 2))[:, :_HASH_PX, :_HASH_PX].reshape(len(grey), -1)
    low[:, 0] = 0
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    hashes: NDArray[np.uint64] = np.packbits(bits, axis=1).view(np.uint64)[:, 0]
    return hashes


def _grey_thumbnails(images: Tensor) -> NDArray[np.float32]:
    grey = F.rgb_to_grayscale(images) if images.shape[1] == RGB else images.float().mean(dim=1, keepdim=True)
    thumbnails: Tensor = F.resize(grey.to(torch.float32), [_THUMB_PX, _THUMB_PX], antialias=True)
    return thumbnails[:, 0].contiguous().numpy()


def _confirmed(grey: NDArray[np.uint8], pairs: Pairs, count: int) -> Pairs:
    """Return the pairs whose thumbnails correlate; a second index of `count` or more is a mirrored image."""
    confirmed = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), 4096):
        block = pairs[start : start + 4096]
        first = grey[block[:, 0]].astype(np.float32)
        second = grey[block[:, 1] % count].astype(np.float32)
        mirrored = block[:, 1] >= count
        second[mirrored] = second[mirrored][:, :, ::-1]
        confirmed.append(block[_correlation(first, second) >= _MIN_CORRELATION] % count)
    return np.sort(np.concatenate(confirmed), axis=1)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Pearson's correlation of each pair; 0 if an image has almost no contrast."""
    first, second = (values - values.mean(axis=(1, 2), keepdims=True) for values in (first, second))
    spread = [np.sqrt((values**2).mean(axis=(1, 2))) for values in (first, second)]
    product: NDArray[np.float32] = (first * second).mean(axis=(1, 2)) / np.maximum(spread[0] * spread[1], 1e-6)
    return np.where(np.minimum(*spread) < _MIN_CONTRAST, np.float32(0), product)
