"""Built-in data."""

from pathlib import Path

import numpy as np
import pytest

from unfreeze.data.sources.builtin import cifar10_source, digits_source
from unfreeze.errors import UnfreezeError


def test_cifar10_that_is_not_there_says_where_from_and_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UnfreezeError) as refusal:
        cifar10_source(tmp_path / "none", download=False)
    message = str(refusal.value)
    for part in ("data.root: CIFAR-10 is not in", "https://", "cifar-10-python.tar.gz", "data=digits", "imagefolder"):
        assert part in message
    assert "\n" not in message


def test_digits_are_what_scikit_learn_ships() -> None:
    source = digits_source()
    assert source.classes == tuple("0123456789")
    assert len(source.images) == len(source.labels) == 1797
    assert np.bincount(source.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert set(source.splits.tolist()) == {"train"}
    first = np.asarray(source.images.read(0).image)
    assert first.shape == (8, 8, 3)
    assert (first[..., 0] == first[..., 1]).all()
    assert first[0, :, 0].tolist() == [round(value * 255 / 16) for value in (0, 0, 5, 13, 9, 1, 0, 0)]
