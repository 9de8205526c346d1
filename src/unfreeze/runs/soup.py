"""A greedy soup: the weights of several checkpoints averaged while validation improves (Wortsman et al. 2022)."""

import copy
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from unfreeze.data.loader import Batch
from unfreeze.data.splits.splits import differing_splits
from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.metrics import metrics_of
from unfreeze.evaluation.predictions import StoredPredictions
from unfreeze.models.checkpoint import load_classifier
from unfreeze.models.classifier import Classifier
from unfreeze.models.norms import BATCH_NORMS
from unfreeze.models.state_dicts import load_state
from unfreeze.models.weights import NETWORK_PREFIX
from unfreeze.results.lock import owned
from unfreeze.results.monitor import Score
from unfreeze.results.result import RESULT_SCHEMA
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.ingredients import ingredient_files
from unfreeze.runs.reopen import reopen
from unfreeze.system.files import read_json, refuse_occupied, replacing, shown_path
from unfreeze.system.terminal import counting_bar

if TYPE_CHECKING:
    from unfreeze.runs.evaluator import Evaluator
    from unfreeze.training.module import ImageClassifier


@dataclass(frozen=True, eq=False)
class Ingredient:
    """A checkpoint that may go into a soup.

    Args:
        path: The checkpoint.
        run: The run that it comes from.
        classifier: Its classifier.
    """

    path: Path
    run: RunDirectory
    classifier: Classifier


def make_soup(
    folder: Path,
    *,
    out: Path | None = None,
    say: Callable[[str], None] | None = None,
    trust_repo: bool = False,
) -> dict[str, Any]:
    """Average checkpoints, best first, skipping those that make validation worse; test the average once.

    Args:
        folder: A sweep, for the best checkpoints of its completed jobs; or a run with `keep_best` above 1.
        out: Where the soup goes, a directory as a run's; None for `soup` in the folder.
        say: Called with a line for each checkpoint; None to say nothing.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Returns:
        The content of its result.json.

    Raises:
        UnfreezeError: If there are fewer than two checkpoints, or they are of different networks or splits.
    """
    ingredients = find_ingredients(folder, trust_repo=trust_repo)
    _check_go_together(ingredients)
    place = folder / "soup" if out is None else out
    refuse_occupied(place, verb="soup")
    with owned(folder if out is None else out, verb="soup", advice="name another place with --out"):
        return _average_greedily(ingredients, place, say or _say_nothing)


def _average_greedily(ingredients: Sequence[Ingredient], place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    refuse_occupied(place, verb="soup")
    from unfreeze.runs.evaluator import Evaluator  # Lightning: only once nothing is left to refuse

    run = reopen(ingredients[0].run, ingredients[0].classifier.preprocessing)
    averaging = _Averaging(Evaluator(run))
    monitor, mode = run.config.monitor, run.config.monitor_mode
    ranked = [(averaging.validate(each.classifier), each) for each in ingredients]
    sign = -1 if mode == "max" else 1
    ranked.sort(key=lambda pair: (sign * pair[0].score.value, pair[0].score.loss))
    best, first = ranked[0]
    chosen = [first]
    say(f"  {shown_path(first.path)}  {monitor} {best.score.value:.4f}  the best")
    for alone, each in ranked[1:]:
        average = averaging.validate(averaging.average([*chosen, each]))
        improves = not best.score.beats(average.score, mode)
        if improves:
            chosen, best = [*chosen, each], average
        together = f"{'in' if improves else 'out'}: {average.score.value:.4f} together"
        say(f"  {shown_path(each.path)}  {monitor} {alone.score.value:.4f}  {together}")
    predictions = averaging.predict(best)
    result = {
        "schema": RESULT_SCHEMA,
        "status": "completed",
        "monitor": monitor,
        "val": {key.removeprefix("val/"): value for key, value in best.metrics.items()},
        "test": metrics_of(predictions, "test"),
        "temperatures": predictions.temperatures,
        "ingredients": [str(each.path) for each in chosen],
        "left_out": [str(each.path) for _, each in ranked if each not in chosen],
        "seed": run.config.seed,
    }
    directory = RunDirectory(place)
    _write(directory, best.module, first.run, result)
    predictions.save(directory.predictions_file)
    return result


def _say_nothing(line: str) -> None:
    """Print nothing."""


def find_ingredients(folder: Path, *, trust_repo: bool = False) -> list[Ingredient]:
    """Return the checkpoints that a folder has for a soup.

    Raises:
        UnfreezeError: If there are fewer than two, or their network is not trusted.
    """
    return [
        Ingredient(file, RunDirectory(run_dir), load_classifier(file, trust_repo=trust_repo))
        for file, run_dir in ingredient_files(folder)
    ]


def _check_go_together(ingredients: Sequence[Ingredient]) -> None:
    first = ingredients[0]
    splits = read_json(first.run.splits_file, keys=("splits",))
    for each in ingredients[1:]:
        ours, theirs = first.classifier.to_record(), each.classifier.to_record()
        differing = [key for key in ("model", "head", "outputs", "preprocessing") if ours[key] != theirs[key]]
        if differing:
            raise UnfreezeError(
                f"soup: {shown_path(each.path)} has another {' and '.join(differing)} than {shown_path(first.path)}; "
                "want runs of one network on one task"
            )
        if differing_splits(splits, read_json(each.run.splits_file, keys=("splits",))):
            raise UnfreezeError(
                f"soup: the val or test images of {shown_path(each.run.path)} are not those of "
                f"{shown_path(first.run.path)}, so it may have been trained on them; want runs with one data.seed"
            )


@dataclass(frozen=True, eq=False)
class _Validated:
    """A module with its validation metrics."""

    module: "ImageClassifier"
    metrics: dict[str, float]
    score: Score


@dataclass(frozen=True, eq=False)
class _Averaging:
    """Averages classifiers and evaluates the averages on the first run's images."""

    evaluator: "Evaluator"

    def average(self, ingredients: Sequence[Ingredient]) -> Classifier:
        """Return the average of some classifiers; BatchNorm statistics that differ are estimated anew."""
        states = [each.classifier.network.state_dict() for each in ingredients]
        first = ingredients[0].classifier
        network = copy.deepcopy(first.network)
        load_state(network, {key: _mean([state[key] for state in states]) for key in states[0]})
        classifier = replace(first, network=network)
        norms = [
            name
            for name, module in network.named_modules()
            if isinstance(module, BATCH_NORMS) and module.track_running_stats
        ]
        moved = [
            name
            for name in norms
            if any(not torch.equal(states[0][f"{name}.running_mean"], each[f"{name}.running_mean"]) for each in states)
        ]
        if moved:
            self._recompute_statistics(classifier, moved)
        return classifier

    def validate(self, classifier: Classifier) -> _Validated:
        """Return the validation metrics of a classifier; of labels, validation chooses the thresholds."""
        run, trainer = self.evaluator.reopened, self.evaluator.trainer
        module = self.evaluator.module_of(classifier)
        (metrics,) = trainer.validate(module, dataloaders=run.data.eval_loader("val", trainer), verbose=False)
        return _Validated(module, dict(metrics), Score.of(metrics, run.config.monitor))

    def predict(self, validated: _Validated) -> StoredPredictions:
        """Return the predictions for validation, and for the test split unless the run has `test=false`."""
        from unfreeze.runs.test import predict_splits

        run = self.evaluator.reopened
        splits: list[Literal["val", "test"]] = ["val", "test"] if run.config.test else ["val"]
        return predict_splits(self.evaluator.trainer, validated.module, run.data, splits)

    def _recompute_statistics(self, classifier: Classifier, names: Collection[str]) -> None:
        """Estimate the statistics of some BatchNorms on the training images, in the preprocessing of evaluation."""
        data = self.evaluator.reopened.data
        module = self.evaluator.module_of(classifier).to(self.evaluator.trainer.strategy.root_device).eval()
        norms: list[Any] = [module.network.get_submodule(name) for name in names]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        images = data.splits.train
        chunks = np.array_split(images, max(1, len(images) // data.batch_size))
        with counting_bar("norms", len(images)) as progress, torch.no_grad():
            done = 0
            for chunk, pixels in zip(chunks, data.store.pixels.batches(chunks), strict=True):
                index = torch.from_numpy(np.ascontiguousarray(chunk))
                batch = Batch(pixels.to(module.device), index, index)
                module.network(module.prepared_for_evaluation(batch).images)
                done += len(chunk)
                progress(done)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        classifier.network.to("cpu").eval()


def _mean(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).to(values[0].dtype)


def _write(directory: RunDirectory, module: "ImageClassifier", first: RunDirectory, result: dict[str, Any]) -> None:
    """Write a soup as the directory of a run, which every command that takes a run accepts."""
    directory.checkpoints.mkdir(parents=True, exist_ok=True)
    for file in (first.config_file, first.splits_file, first.overrides_file, first.precision_file):
        if file.is_file():
            shutil.copyfile(file, directory.path / file.name)
    state = module.network.state_dict(prefix=NETWORK_PREFIX)
    state.update({key: value.cpu() for key, value in state.items()})
    checkpoint: dict[str, Any] = {"state_dict": state}
    module.on_save_checkpoint(checkpoint)
    with replacing(directory.best, sum(weight.nbytes for weight in state.values())) as building:
        torch.save(checkpoint, building)
    directory.write_result(result)
