"""Runs that have ended: their images and their splits again, and models judged on them as the run did."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from unfreeze.config.schema import Config
from unfreeze.errors import UnfreezeError, first_line
from unfreeze.results.lock import owned
from unfreeze.results.run_directory import best_of
from unfreeze.runs.announce import shown_path
from unfreeze.runs.build.data import build_data, build_module, build_source, check_trainer, decode, prefix_cache_options
from unfreeze.runs.build.precision import allow_tf32, read_verdict, with_verdict
from unfreeze.runs.fit import build_trainer, check_values, chosen_by_validation
from unfreeze.runs.test import figures_of, load_weights, predict_splits, write_report
from unfreeze.sweeps.summary import UNENDED, read_jobs
from unfreeze.system.files import read_json
from unfreeze.system.memory import keep_freed_pages

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
        trainer: Logs nothing.
        channels_last: The memory layout of the run.
    """

    config: Config
    data: "ImageDataModule"
    trainer: "Trainer"
    channels_last: bool

    @classmethod
    def with_data(cls, config: Config, data: "ImageDataModule", run_dir: Path) -> "Reopened":
        """Return decoded images with a trainer in the precision and memory layout of a run."""
        from unfreeze.training.features.kept_features import JudgeByKeptFeatures

        kept = prefix_cache_options(config.cache, sweep=None)
        judging = [JudgeByKeptFeatures(kept)] if config.cache.enabled else []
        trainer = build_trainer(config, OmegaConf.create({"callbacks": None, "logger": None}), run_dir, judging)
        verdict = read_verdict(run_dir)
        if verdict is not None:
            allow_tf32(with_verdict(config, verdict), trainer.strategy.root_device)
        if trainer.strategy.root_device.type == "cpu" and data.store.pixels.fits_in_memory:
            keep_freed_pages()
        return cls(config, data, trainer, verdict is None or verdict.channels_last)

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
    config = run_without_training(check_values(read_request(run_dir / "config.yaml"), ()))
    data = build_data(config, build_source(config))
    decode(data, preprocessing)
    kept = read_json(run_dir / "splits.json", keys=("fingerprint", "splits"))
    now = data.describe_splits()
    if (now["fingerprint"], now["splits"]) != (kept["fingerprint"], kept["splits"]):
        raise UnfreezeError(f"data: not the images, or not the splits, of {shown_path(run_dir / 'splits.json')}")
    return Reopened.with_data(config, data, run_dir)


def run_without_training(config: Config) -> Config:
    """Return the configuration of a run as one process on one device judges by it.

    Raises:
        UnfreezeError: If its trainer can't be made here.
    """
    model = config.model.model_copy(update={"checkpointing": False})
    trainer_values = {**config.trainer, "compile": False, "devices": 1, "num_nodes": 1, "strategy": "auto"}
    config = config.model_copy(update={"model": model, "trainer": trainer_values, "callbacks": None})
    check_trainer(config)
    return config


def test_run(run_dir: Path) -> None:
    """Test the best checkpoint of a completed run that was not tested, and add the figures to its result.

    Raises:
        UnfreezeError: If the run's data can't be had any more, or is not what it was.
    """
    with owned(run_dir, verb="test", advice="test it later by unfreeze evaluate"):
        classifier, reopened = _reopen_best(run_dir, trust_repo=True)
        _judge_again(run_dir, classifier, reopened, test=True)


def runs_in(folder: Path) -> list[Path]:
    """Return a run's directory alone, or all those in a folder of runs, by name.

    Raises:
        UnfreezeError: If there are none.
    """
    if (folder / "result.json").is_file():
        return [folder]
    runs = sorted(file.parent for file in folder.rglob("result.json") if "evaluations" not in file.parts)
    if not runs:
        raise UnfreezeError(f"no run in {str(folder)!r}; want a directory with a result.json, as train.py leaves it")
    return runs


def report_run(run_dir: Path, *, trust_repo: bool = False) -> str | None:
    """Write the pictures and the page of a run anew, and judge it first where it has kept no predictions.

    The test split is left alone where the run has not been tested.

    Args:
        run_dir: Of the run.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Returns:
        Why its images can't be looked at; None where they can.

    Raises:
        UnfreezeError: If the directory holds no run, can't be written to, or another process is writing it.
    """
    read_json(run_dir / "result.json", keys=("status",))
    with owned(run_dir, verb="report", advice="report on a copy of it"):
        return _report_owned(run_dir, trust_repo=trust_repo)


def _report_owned(run_dir: Path, *, trust_repo: bool) -> str | None:
    from unfreeze.evaluation.predictions import PREDICTIONS_FILE, KeptPredictions

    result = read_json(run_dir / "result.json", keys=("status",))
    if result.get("reason") == UNENDED:
        _recover(run_dir, result)
    if not best_of(run_dir).is_file():
        write_report(run_dir, None, None)
        return None
    try:
        classifier, reopened = _reopen_best(run_dir, trust_repo=trust_repo)
    except UnfreezeError as error:
        write_report(run_dir, None, None)
        return str(error)
    if result["status"] == "completed":
        kept = run_dir / PREDICTIONS_FILE
        if not kept.is_file() or "val" not in KeptPredictions.load(kept).splits:
            _judge_again(run_dir, classifier, reopened, test=result.get("test") is not None)
    write_report(run_dir, reopened.data, reopened.trainer.strategy.root_device, classifier=classifier)
    return None


def _recover(run_dir: Path, result: dict[str, Any]) -> None:
    """Let the result of a run that was killed say what it had come to, by what it wrote after each epoch."""
    import json

    from unfreeze.evaluation.record import read_history
    from unfreeze.evaluation.result import RunResult
    from unfreeze.results.monitor import mode_of
    from unfreeze.training.callbacks.recorder import write_json

    stages, monitor = run_dir / "stages.json", str(result.get("monitor"))
    rows = json.loads(stages.read_text(encoding="utf-8")) if stages.is_file() else []
    known = RunResult(
        monitor=monitor,
        mode=mode_of(monitor),
        seed=result["seed"],
        overrides=result["overrides"],
        data=result["data"],
        compute=result["compute"],
        status=result["status"],
        reason=result["reason"],
        seconds=sum(row["seconds"] for row in rows),
    )
    known.take_training(read_history(run_dir), rows, resumed=result["resumed"])
    if known.best is not None:
        known.judge_trust(planned_epochs=None)
        write_json(run_dir / "result.json", {**known.to_dict(), "versions": result["versions"]})


def _reopen_best(run_dir: Path, *, trust_repo: bool) -> "tuple[Classifier, Reopened]":
    from unfreeze.models.checkpoint import load_classifier

    classifier = load_classifier(best_of(run_dir), trust_repo=trust_repo)
    return classifier, reopen(run_dir, classifier.preprocessing)


def _judge_again(run_dir: Path, classifier: "Classifier", reopened: Reopened, *, test: bool) -> None:
    """Let the best checkpoint answer for validation, and for the test where it may, and keep what follows."""
    from dataclasses import asdict

    from unfreeze.evaluation.predictions import PREDICTIONS_FILE
    from unfreeze.evaluation.record import read_record
    from unfreeze.evaluation.result import best_validation, count_epochs
    from unfreeze.evaluation.warnings import judge_trust
    from unfreeze.training.callbacks.recorder import write_json

    module = reopened.module_of(classifier)
    load_weights(module, best_of(run_dir))
    kept = predict_splits(reopened.trainer, module, reopened.data, ["val", "test"] if test else ["val"])
    kept.save(run_dir / PREDICTIONS_FILE)
    record = read_record(run_dir)
    monitor = reopened.config.monitor
    best = best_validation(record.history, monitor, reopened.config.monitor_mode) or {}
    result = {**record.result, "temperatures": kept.temperatures, "test": figures_of(kept, "test")}
    runs = len(read_jobs(run_dir.parent))
    chosen = ((f"the best of {runs} runs",) if runs > 1 else ()) + chosen_by_validation(reopened.config)
    cautions = judge_trust(
        result,
        epochs=count_epochs(record.history),
        planned_epochs=None if record.plan is None else record.plan.epochs,
        train_acc=best.get("train/acc"),
        chosen=chosen,
    )
    write_json(run_dir / "result.json", {**result, "warnings": [asdict(caution) for caution in cautions]})


def read_request(file: Path) -> DictConfig:
    """Return what a run was asked for, from its config.yaml.

    Raises:
        UnfreezeError: If there is none.
    """
    from yaml import YAMLError

    try:
        raw = OmegaConf.load(file)
    except (OSError, YAMLError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnfreezeError(f"{file} can't be read ({reason}); want a run's directory, as train.py leaves it") from None
    if not isinstance(raw, DictConfig):
        raise UnfreezeError(f"{file} holds no configuration; want a run's directory, as train.py leaves it")
    return raw
