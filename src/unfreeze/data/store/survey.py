"""Single pass that decodes all images of a source."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from unfreeze.data.sources.images import Images
from unfreeze.data.store.blocks import BlockDecoder
from unfreeze.data.store.facts import ImageFacts
from unfreeze.data.store.framing import Frame

Sink = Callable[[int, NDArray[np.uint8]], None]
"""Function of the index of a block's first image and the block's pixels, shape (n, H, W, C)."""

Progress = Callable[[int], None]

_BLOCK = 64


class OtherSizeError(Exception):
    """An image has another size than the images before it."""


def survey_images(
    images: Images, *, frame: Frame, sink: Sink | None, workers: int, progress: Progress | None
) -> ImageFacts:
    """Decode all images and return the facts about them.

    Args:
        images: Images to decode.
        frame: Shape of the decoded images.
        sink: Function that stores the pixels of a block; None for facts only.
        workers: Number of processes; 0 to decode in this process.
        progress: Callback with the number of decoded images; None for none.

    Raises:
        OtherSizeError: If an image does not fit the frame.
    """
    facts = ImageFacts.empty(len(images))
    decoder = BlockDecoder(images, frame, workers=workers, keep_pixels=sink is not None)
    chunks = [np.arange(start, min(start + _BLOCK, len(images))) for start in range(0, len(images), _BLOCK)]
    for block in decoder.decode(chunks):
        if block.has_other_size:
            raise OtherSizeError
        first, stop = int(block.indices[0]), int(block.indices[-1]) + 1
        facts.update(block)
        if sink is not None and block.pixels is not None:
            sink(first, block.pixels)
        if progress is not None:
            progress(stop)
    return facts
