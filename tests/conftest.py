"""What tests of several packages share."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

# Tests that run side by side, and the processes they start, take a core each; before anything imports torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.digits_run import digits_place
from tests.photos import save_photo

__all__ = ["digits_place"]

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the stores of tests, and of the processes they start, out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a folder of photos: `{"train/cat": 3}` gives three in train/cat."""

    def make(
        layout: Mapping[str, int], *, name: str = "photos", size: tuple[int, int] = (12, 10), suffix: str = ".png"
    ) -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        for folder, count in layout.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                save_photo(root / folder / f"{number}{suffix}", seed=f"{folder}{number}", size=size)
        return root

    return make
