"""A greedy soup: the weights of several checkpoints averaged, as far as validation gains (Wortsman et al. 2022)."""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unfreeze.data.splits.splits import judged_differently
from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.predictions import PREDICTIONS_FILE, KeptPredictions
from unfreeze.evaluation.result import RESULT_SCHEMA
from unfreeze.results.lock import owned
from unfreeze.results.monitor import Score
from unfreeze.results.run_directory import best_of, checkpoints_of
from unfreeze.runs.announce import shown_path
from unfreeze.runs.build.precision import COMPUTE_FILE
from unfreeze.runs.ingredients import ingredient_files
from unfreeze.runs.reopen import Reopened, reopen
from unfreeze.runs.test import figures_of, predict_splits
from unfreeze.system.files import read_json, refuse_occupied, replacing
from unfreeze.system.terminal import counting_bar

if TYPE_CHECKING:
    from torch import Tensor

    from unfreeze.models.classifier import Classifier
    from unfreeze.training.module import ImageClassifier


@dataclass(frozen=True, eq=False)
class Ingredient:
    """A checkpoint that may go into a soup.

    Args:
        path: Of the checkpoint.
        run_dir: The run that it comes from.
        classifier: What it holds.
    """

    path: Path
    run_dir: Path
    classifier: "Classifier"


def make_soup(
    folder: Path,
    *,
    out: Path | None = None,
    say: Callable[[str], None] | None = None,
    trust_repo: bool = False,
) -> dict[str, Any]:
    """Average checkpoints, best first, each that does not make the validation worse; test the average once.

    Args:
        folder: Of a sweep, whose completed jobs' best checkpoints are taken; or of a run that has kept several.
        out: Where the soup goes, a directory as a run's; None for `soup` in the folder.
        say: Called with a line for each checkpoint; None to say nothing.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Returns:
        The content of its result.json.

    Raises:
        UnfreezeError: If there is nothing to average, or what there is does not go together.
    """
    ingredients = find_ingredients(folder, trust_repo=trust_repo)
    _check_go_together(ingredients)
    place = folder / "soup" if out is None else out
    refuse_occupied(place, verb="soup")
    with owned(folder if out is None else out, verb="soup", advice="name another place with --out"):
        return _average_greedily(ingredients, place, say or _say_nothing)


def _average_greedily(ingredients: Sequence[Ingredient], place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    refuse_occupied(place, verb="soup")
    kitchen = _Kitchen(reopen(ingredients[0].run_dir, ingredients[0].classifier.preprocessing))
    config = kitchen.run.config
    monitor, mode = config.monitor, config.monitor_mode
    judged = [(kitchen.judge(each.classifier), each) for each in ingredients]
    sign = -1 if mode == "max" else 1
    judged.sort(key=lambda pair: (sign * pair[0].score.value, pair[0].score.loss))
    best, first = judged[0]
    chosen = [first]
    say(f"  {shown_path(first.path)}  {monitor} {best.score.value:.4f}  the best")
    for alone, each in judged[1:]:
        mixed = kitchen.judge(kitchen.mix([*chosen, each]))
        gains = not best.score.beats(mixed.score, mode)
        if gains:
            chosen, best = [*chosen, each], mixed
        together = f"{'in' if gains else 'out'}: {mixed.score.value:.4f} together"
        say(f"  {shown_path(each.path)}  {monitor} {alone.score.value:.4f}  {together}")
    kept = kitchen.predict(best)
    result = {
        "schema": RESULT_SCHEMA,
        "status": "completed",
        "monitor": monitor,
        "val": {key.removeprefix("val/"): value for key, value in best.figures.items()},
        "test": figures_of(kept, "test"),
        "temperatures": kept.temperatures,
        "ingredients": [str(each.path) for each in chosen],
        "left_out": [str(each.path) for _, each in judged if each not in chosen],
        "seed": config.seed,
    }
    _serve(place, best.module, first, result)
    kept.save(place / PREDICTIONS_FILE)
    return result


def _say_nothing(line: str) -> None:
    """Keep a line to oneself."""


def find_ingredients(folder: Path, *, trust_repo: bool = False) -> list[Ingredient]:
    """Return the checkpoints that a folder has for a soup.

    Raises:
        UnfreezeError: If there are fewer than two, or their network is not trusted.
    """
    from unfreeze.models.checkpoint import load_classifier

    return [
        Ingredient(file, run_dir, load_classifier(file, trust_repo=trust_repo))
        for file, run_dir in ingredient_files(folder)
    ]


def _check_go_together(ingredients: Sequence[Ingredient]) -> None:
    first = ingredients[0]
    splits = read_json(first.run_dir / "splits.json", keys=("splits",))
    for each in ingredients[1:]:
        ours, theirs = first.classifier.to_record(), each.classifier.to_record()
        differing = [key for key in ("model", "head", "outputs", "preprocessing") if ours[key] != theirs[key]]
        if differing:
            raise UnfreezeError(
                f"soup: {shown_path(each.path)} has another {' and '.join(differing)} than {shown_path(first.path)}; "
                "want runs of one network on one task"
            )
        if judged_differently(splits, read_json(each.run_dir / "splits.json", keys=("splits",))):
            raise UnfreezeError(
                f"soup: the val or test images of {shown_path(each.run_dir)} are not those of "
                f"{shown_path(first.run_dir)}, so that it may have learnt from them; want runs with one data.seed"
            )


@dataclass(frozen=True, eq=False)
class _Judged:
    """A soup as validation sees it: its metrics, and what it is chosen by."""

    module: "ImageClassifier"
    figures: dict[str, float]
    score: Score


@dataclass(frozen=True, eq=False)
class _Kitchen:
    """What mixes and judges a soup, as the first run was judged."""

    run: Reopened

    def mix(self, ingredients: Sequence[Ingredient]) -> "Classifier":
        """Return the average of some classifiers; norms that have counted since, each in its run, count anew."""
        import copy

        import torch

        from unfreeze.models.groups import BATCH_NORMS
        from unfreeze.models.state_dicts import load_state

        states = [each.classifier.network.state_dict() for each in ingredients]
        first = ingredients[0].classifier
        network = copy.deepcopy(first.network)
        load_state(network, {key: _mean([state[key] for state in states]) for key in states[0]})
        classifier = replace(first, network=network)
        counting = [name for name, module in network.named_modules() if isinstance(module, BATCH_NORMS)]
        moved = [
            name
            for name in counting
            if network.get_submodule(name).track_running_stats
            and not all(
                torch.equal(states[0][f"{name}.running_mean"], state[f"{name}.running_mean"]) for state in states
            )
        ]
        if moved:
            self._recount(classifier, moved)
        return classifier

    def judge(self, classifier: "Classifier") -> "_Judged":
        """Return what validation says of a classifier; of labels, it chooses the thresholds."""
        module = self.run.module_of(classifier)
        (figures,) = self.run.trainer.validate(module, self.run.data, verbose=False)
        return _Judged(module, dict(figures), Score.of(figures, self.run.config.monitor))

    def predict(self, judged: "_Judged") -> "KeptPredictions":
        """Return the answers for validation, and for the test split unless it is not to be touched."""
        splits: list[Literal["val", "test"]] = ["val", "test"] if self.run.config.test else ["val"]
        return predict_splits(self.run.trainer, judged.module, self.run.data, splits)

    def _recount(self, classifier: "Classifier", names: Collection[str]) -> None:
        """Let norms count the training images, as evaluation sees them, through the averaged weights."""
        import numpy as np
        import torch

        from unfreeze.data.loader import Batch

        data = self.run.data
        module = self.run.module_of(classifier).to(self.run.trainer.strategy.root_device).eval()
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


def _mean(values: Sequence["Tensor"]) -> "Tensor":
    import torch

    if not values[0].is_floating_point():
        return values[0]
    return torch.stack([value.double() for value in values]).mean(dim=0).to(values[0].dtype)


def _serve(place: Path, module: "ImageClassifier", first: Ingredient, result: dict[str, Any]) -> None:
    """Write a soup as a run's directory, which whatever takes a run takes."""
    import torch

    from unfreeze.models.weights import NETWORK_PREFIX
    from unfreeze.training.callbacks.recorder import write_json

    checkpoints_of(place).mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "splits.json", "overrides.yaml", COMPUTE_FILE):
        if (first.run_dir / name).is_file():
            shutil.copyfile(first.run_dir / name, place / name)
    state = module.network.state_dict(prefix=NETWORK_PREFIX)
    state.update({key: value.cpu() for key, value in state.items()})
    checkpoint: dict[str, Any] = {"state_dict": state}
    module.on_save_checkpoint(checkpoint)
    with replacing(best_of(place), sum(weight.nbytes for weight in state.values())) as building:
        torch.save(checkpoint, building)
    write_json(place / "result.json", result)
