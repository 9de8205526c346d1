"""Runs that have ended: their images and their splits again, and models judged on them as the run did."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from unfreeze.announce import shown_path
from unfreeze.build import build_data, build_module, build_source, check_trainer, decode
from unfreeze.compute import read_verdict
from unfreeze.config import Config
from unfreeze.errors import UnfreezeError, first_line
from unfreeze.files import read_json
from unfreeze.run import build_trainer, check_values, judge_on_test

if TYPE_CHECKING:
    from lightning import Trainer

    from unfreeze.data.datamodule import ImageDataModule
    from unfreeze.models.classifier import Classifier
    from unfreeze.models.preprocessing import Preprocessing
    from unfreeze.training.module import ImageClassifier


@dataclass(frozen=True, eq=False)
class Reopened:
    """The images of a run that has ended, and a trainer that judges models on them as the run did.

    Args:
        config: Of the run, without what only training needs.
        data: Decoded images, in the run's splits.
        trainer: Logs nothing, and calls nothing back.
        channels_last: The memory layout of the run.
    """

    config: Config
    data: "ImageDataModule"
    trainer: "Trainer"
    channels_last: bool

    def module_of(self, classifier: "Classifier") -> "ImageClassifier":
        """Return a classifier as the trainer judges it."""
        return build_module(self.config, classifier, self.data, channels_last=self.channels_last)


def reopen(run_dir: Path, preprocessing: "Preprocessing") -> Reopened:
    """Return what judges models as a run that has ended was judged.

    Args:
        run_dir: Of the run.
        preprocessing: What its network saw.

    Raises:
        UnfreezeError: If the run's data can't be had any more, or is not what it was.
    """
    config = check_values(_read_request(run_dir / "config.yaml"), ())
    model = config.model.model_copy(update={"checkpointing": False})
    trainer_values = {**config.trainer, "compile": False, "devices": 1, "num_nodes": 1, "strategy": "auto"}
    config = config.model_copy(update={"model": model, "trainer": trainer_values, "callbacks": None})
    check_trainer(config)
    data = build_data(config, build_source(config))
    decode(data, preprocessing)
    kept = read_json(run_dir / "splits.json", keys=("fingerprint", "splits"))
    now = data.describe_splits()
    if (now["fingerprint"], now["splits"]) != (kept["fingerprint"], kept["splits"]):
        raise UnfreezeError(f"data: not the images, or not the splits, of {shown_path(run_dir / 'splits.json')}")
    trainer = build_trainer(config, OmegaConf.create({"callbacks": None, "logger": None}), run_dir, [])
    verdict = read_verdict(run_dir)
    return Reopened(config, data, trainer, verdict is None or verdict.channels_last)


def test_run(run_dir: Path) -> dict[str, Any]:
    """Test the best checkpoint of a completed run that was not tested, and add the figures to its result.

    Raises:
        UnfreezeError: If the run's data can't be had any more, or is not what it was.
    """
    from unfreeze.inference.checkpoint import load_classifier
    from unfreeze.training.checkpointing import BEST
    from unfreeze.training.recorder import write_json

    file = run_dir / "result.json"
    result = read_json(file)
    checkpoint = run_dir / "checkpoints" / BEST
    classifier = load_classifier(checkpoint, trust_repo=True)
    reopened = reopen(run_dir, classifier.preprocessing)
    if not len(reopened.data.splits.test):
        return result
    result["test"] = judge_on_test(reopened.trainer, reopened.module_of(classifier), reopened.data, checkpoint)
    write_json(file, result)
    return result


def _read_request(file: Path) -> DictConfig:
    from yaml import YAMLError

    try:
        raw = OmegaConf.load(file)
    except (OSError, YAMLError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnfreezeError(f"{file} can't be read ({reason}); want a run's directory, as train.py leaves it") from None
    if not isinstance(raw, DictConfig):
        raise UnfreezeError(f"{file} holds no configuration; want a run's directory, as train.py leaves it")
    return raw
