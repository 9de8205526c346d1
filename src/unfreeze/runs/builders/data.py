"""The images of a configuration, and their decoding."""

from typing import TypeVar

from unfreeze.config.schema import Config
from unfreeze.data.image_data import ImageData
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.splits.splits import Splits
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import StoreOptions
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.runs.builders.cache import cache_folder
from unfreeze.runs.builders.outputs import outputs_of
from unfreeze.runs.builders.splits import build_splits
from unfreeze.system.terminal import counting_bar

Data = TypeVar("Data", bound=ImageData)


def build_data(kind: type[Data], config: Config, source: ImageSource, splits: Splits | None = None) -> Data:
    """Return the images of a configuration, not yet decoded.

    Args:
        kind: `ImageData`, or `ImageDataModule` for a run that trains.
        config: Checked values.
        source: Its images.
        splits: Which of them train, validate and test; None for what the configuration says.
    """
    return kind(
        source,
        batch_size=config.data.batch_size,
        labels=outputs_of(config, source.tasks)[1],
        splits=build_splits(config.data, source) if splits is None else splits,
        split_seed=config.data.seed,
        balance=config.data.balance == "sampler",
        seed=config.seed,
        store=store_options(config),
        on_error=config.data.on_error,
    )


def store_options(config: Config) -> StoreOptions:
    """Return where decoded images are stored."""
    return StoreOptions(
        place=config.data.store,
        memory_gb=config.data.store_gb,
        folder=cache_folder(config.cache),
        folder_gb=config.cache.gb,
        workers=config.data.num_workers,
    )


def decode(data: ImageData, preprocessing: Preprocessing) -> None:
    """Decode all images, with a bar in a terminal."""
    with counting_bar("decoding", len(data.source.images)) as progress:
        data.build_store(Resize.of(preprocessing), progress)
