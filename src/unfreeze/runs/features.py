"""`unfreeze features`: what a network sees in the images of a run, or of a configuration."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from unfreeze.config.overrides import override_key
from unfreeze.config.schema import Config
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.sources.images import Indices
from unfreeze.data.sources.source import SPLIT_NAMES
from unfreeze.errors import UnfreezeError
from unfreeze.inference.device import claim_device
from unfreeze.inference.feature_file import Described, check_file, write_features
from unfreeze.inference.feeder import Feeder
from unfreeze.inference.layers import FeatureTap
from unfreeze.inference.prediction import names_of
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.find_model import find_classifier
from unfreeze.models.model_argument import check_weights_file, is_run, published_spec
from unfreeze.models.outputs import Outputs
from unfreeze.results.run_directory import run_dir_of
from unfreeze.runs.build.data import build_data, build_source, decode
from unfreeze.runs.build.outputs import answers_of
from unfreeze.runs.fit import check_values
from unfreeze.runs.reopen import reopen
from unfreeze.system.terminal import counting_bar

ALL = "all"


def check_request(model: str, typed: Sequence[str], *, split: str, out: Path) -> None:
    """Refuse what can be refused before anything is loaded.

    Args:
        model: A run, a checkpoint, or the name of a network.
        typed: Overrides.
        split: "all", or of which images.
        out: The file.

    Raises:
        UnfreezeError: If the file can't be written, or it is not said of which images.
    """
    check_file(out)
    if split not in (*SPLIT_NAMES, ALL):
        raise UnfreezeError(f"--split: got {split!r}, want one of {', '.join((*SPLIT_NAMES, ALL))}")
    keys = [override_key(override) for override in typed]
    if typed and "data" not in keys:
        own = ", or nothing for the run's own images" if is_run(model) else ""
        raise UnfreezeError(f"features: got {typed[0]} without data=...; type data=imagefolder data.root=...{own}")
    if not typed and not is_run(model):
        raise UnfreezeError(f"features: {model!r} has no images of its own; type data=imagefolder data.root=...")
    if "data.image_size" in keys and is_run(model):
        raise UnfreezeError("data.image_size: a run sees its images at its own size; leave it out")


def extract_features(
    model: str,
    typed: Sequence[str],
    raw: DictConfig | None,
    *,
    layer: str | None,
    pool: Any,
    split: str,
    out: Path,
    device: str,
    batch_size: int,
    weights: Path | None = None,
    trust_repo: bool = False,
) -> tuple[int, ...]:
    """Write the features of images into a file, and return their shape.

    Args:
        model: A run, a checkpoint, or the name of a network, whose published backbone is meant then.
        typed: Overrides.
        raw: What they were composed to; None for the run's own images.
        layer: As `FeatureTap` has it.
        pool: As `FeatureTap` has it.
        split: One of train, val, test; or all, in that order.
        out: The file.
        device: Where the network computes.
        batch_size: Images that pass through it together.
        weights: As `find_classifier` has it; those of the backbone do.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If the network, the layer or the images can't be had.
    """
    where = claim_device(device)
    config = check_values(raw, typed) if raw is not None else None
    classifier = _classifier(model, config, weights, trust_repo=trust_repo)
    tap = FeatureTap(classifier, layer, pool=pool)
    feeder = Feeder(classifier, device=where, batch_size=batch_size)
    data, outputs = _images(model, config, classifier)
    chosen = {name: indices for name, indices in data.splits.parts.items() if split in (name, ALL)}
    indices = np.concatenate(list(chosen.values()))
    if not len(indices):
        raise UnfreezeError(f"--split: got {split!r}, and the data has no such images")
    about = Described(
        labels=data.labels.numpy()[indices],
        paths=[data.source.images.name(index) for index in indices.tolist()],
        splits=[name for name, own in chosen.items() for _ in range(len(own))],
        classes=[name for names in names_of(outputs) for name in names],
    )
    with counting_bar("features", len(indices)) as progress:
        return write_features(out, _rows(feeder, tap, data, indices, progress), about)


def _classifier(model: str, config: Config | None, weights: Path | None, *, trust_repo: bool) -> Classifier:
    check_weights_file(model, weights)
    if config is None or is_run(model):
        return find_classifier(model, trust_repo=trust_repo)
    # What it was published to tell apart does not matter, and is not always known.
    size, source = config.data.image_size, "DEFAULT" if weights is None else str(weights)
    classifier = build_classifier(published_spec(model), classes=("none",), weights=source, image_size=size)
    classifier.network.eval()
    return classifier


def _images(model: str, config: Config | None, classifier: Classifier) -> tuple[ImageDataModule, Outputs]:
    """Return images in their splits, decoded for a classifier, and what their labels tell."""
    if config is None:
        run_dir = run_dir_of(Path(model))
        if run_dir is None:
            raise UnfreezeError(f"features: {model!r} lies in no run's directory; type data=imagefolder data.root=...")
        return reopen(run_dir, classifier.preprocessing).data, classifier.outputs
    channels = len(classifier.preprocessing.mean)
    config = config.model_copy(update={"model": config.model.model_copy(update={"in_chans": channels})})
    source = build_source(config)
    data = build_data(config, source)
    decode(data, classifier.preprocessing)
    return data, answers_of(config, source.tasks)[0]


def _rows(
    feeder: Feeder, tap: FeatureTap, data: ImageDataModule, indices: Indices, progress: Callable[[int], None]
) -> Iterator[NDArray[np.float32]]:
    size = feeder.batch_size
    chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
    for number, images in enumerate(data.store.pixels.batches(chunks), 1):
        yield tap(feeder.prepare(images)).cpu().numpy()
        progress(min(number * size, len(indices)))
