"""Decoding all images of a source once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.sources.images import Images
from unfreeze.data.store.blocks import BlockDecoder
from unfreeze.data.store.facts import ImageFacts
from unfreeze.data.store.framing import Frame

Sink = Callable[[int, NDArray[np.uint8]], None]
"""Takes the images of a block, shape (n, H, W, C), and the index of the first."""

Progress = Callable[[int], None]

_BLOCK = 64


class OtherSizeError(Exception):
    """An image has another size than all before it."""


def survey_images(
    images: Images, *, frame: Frame, sink: Sink | None, workers: int, progress: Progress | None
) -> ImageFacts:
    """Decode all images and return what they are.

    Args:
        images: What to decode.
        frame: The shape to bring it to.
        sink: Where pixels go; None for facts alone.
        workers: Processes; 0 to decode in this one.
        progress: Called with the number of images done, now and then.

    Raises:
        OtherSizeError: If an image has another size than the frame wants to keep.
    """
    facts = ImageFacts.empty(len(images))
    decoder = BlockDecoder(images, frame, workers=workers, keep_pixels=sink is not None)
    chunks = [np.arange(start, min(start + _BLOCK, len(images))) for start in range(0, len(images), _BLOCK)]
    for block in decoder.decode(chunks):
        if block.is_foreign:
            raise OtherSizeError
        first, stop = int(block.indices[0]), int(block.indices[-1]) + 1
        facts.note(block)
        if sink is not None and block.pixels is not None:
            sink(first, block.pixels)
        if progress is not None:
            progress(stop)
    return facts
