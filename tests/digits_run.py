"""A run on pictures of digits, small and good enough to be asked."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.launch import train
from unfreeze.data.sources.builtin import digits_source

REQUEST = [
    "data=imagefolder",
    "model=tiny",
    "data.image_size=32",
    "logger=none",
    "report=false",
    "trainer.precision=32",
]


def save_digits(root: Path, *, train: int, test: int, sizes: tuple[tuple[int, int], ...] = ((8, 8),)) -> Path:
    """Write pictures of digits, so many of each, in folders of their classes."""
    source = digits_source()
    for digit in range(10):
        found = np.flatnonzero(source.labels == digit)[: train + test]
        for number, index in enumerate(found.tolist()):
            folder = root / ("train" if number < train else "test") / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            picture = source.images.read(index).image
            picture.resize(sizes[number % len(sizes)]).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def digits_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `digits/`, `photos/seven.png`, `photos/two.png` and the run `outputs/digits`."""
    place = tmp_path_factory.mktemp("inference")
    save_digits(place / "digits", train=60, test=12)
    (place / "photos").mkdir()
    for digit, name in ((7, "seven"), (2, "two")):
        picture = Image.open(place / "digits" / "train" / str(digit) / "0.png")
        picture.save(place / "photos" / f"{name}.png")
    words = [*REQUEST, "data.root=digits", "strategy=probe", "hydra.run.dir=outputs/digits"]
    done = train(words, place)
    assert done.code == 0, done.err
    return place
