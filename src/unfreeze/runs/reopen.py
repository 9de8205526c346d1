"""The images of a run that has ended, in its splits; without Lightning."""

from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from unfreeze.config.schema import Config
from unfreeze.config.values import check_values
from unfreeze.data.image_data import ImageData
from unfreeze.errors import UnfreezeError, first_line
from unfreeze.models.preprocessing import Preprocessing
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.builders.data import build_data, decode
from unfreeze.runs.builders.source import build_source
from unfreeze.system.files import shown_path


@dataclass(frozen=True, eq=False)
class Reopened:
    """The images of a run that has ended.

    Args:
        directory: The run.
        config: Its configuration, without the keys that only training needs.
        data: Decoded images, in the run's splits.
    """

    directory: RunDirectory
    config: Config
    data: ImageData


def reopen(directory: RunDirectory, preprocessing: Preprocessing) -> Reopened:
    """Return the images of a run that has ended.

    Args:
        directory: The run.
        preprocessing: The preprocessing of its network.

    Raises:
        UnfreezeError: If the run's data is missing or has changed.
    """
    config = run_without_training(check_values(read_request(directory), ()))
    data = build_data(ImageData, config, build_source(config))
    decode(data, preprocessing)
    saved, current = directory.read_splits(), data.describe_splits()
    if (current["fingerprint"], current["splits"]) != (saved["fingerprint"], saved["splits"]):
        raise UnfreezeError(f"data: not the images, or not the splits, of {shown_path(directory.splits_file)}")
    return Reopened(directory, config, data)


def run_without_training(config: Config) -> Config:
    """Return the configuration of a run for evaluation in one process on one device."""
    model = config.model.model_copy(update={"checkpointing": False})
    trainer_values = {**config.trainer, "compile": False, "devices": 1, "num_nodes": 1, "strategy": "auto"}
    return config.model_copy(update={"model": model, "trainer": trainer_values, "callbacks": None})


def read_request(directory: RunDirectory) -> DictConfig:
    """Return the configuration of a run.

    Raises:
        UnfreezeError: If there is none.
    """
    file = directory.config_file
    try:
        raw = OmegaConf.load(file)
    except (OSError, YAMLError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnfreezeError(f"{file} can't be read ({reason}); want a run's directory, as train.py leaves it") from None
    if not isinstance(raw, DictConfig):
        raise UnfreezeError(f"{file} holds no configuration; want a run's directory, as train.py leaves it")
    return raw
