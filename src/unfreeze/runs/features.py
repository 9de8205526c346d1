"""`unfreeze features`: the activations of a network for the images of a run or of a configuration."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from unfreeze.config.schema import Config
from unfreeze.config.values import check_values
from unfreeze.data.image_data import ImageData
from unfreeze.data.sources.images import Indices
from unfreeze.errors import UnfreezeError
from unfreeze.inference.batch_loader import BatchLoader
from unfreeze.inference.device import claim_device
from unfreeze.inference.feature_file import FeatureMetadata, write_features
from unfreeze.inference.layers import FeatureExtractor
from unfreeze.inference.prediction import names_of
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.find_model import find_classifier
from unfreeze.models.model_argument import check_weights_file, is_run, published_spec
from unfreeze.models.outputs import Outputs
from unfreeze.results.run_directory import RunDirectory
from unfreeze.runs.builders.data import build_data, decode
from unfreeze.runs.builders.outputs import outputs_of
from unfreeze.runs.builders.source import build_source
from unfreeze.runs.reopen import reopen
from unfreeze.system.terminal import counting_bar

ALL = "all"


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
        model: A run, a checkpoint, or the name of a network, for its published backbone.
        typed: Overrides.
        raw: The composed configuration; None for the run's own images.
        layer: As for `FeatureExtractor`.
        pool: As for `FeatureExtractor`.
        split: train, val, test, or all of them in that order.
        out: The file.
        device: Where the network computes.
        batch_size: Images per forward pass.
        weights: A file of the backbone's weights, as for `find_classifier`.
        trust_repo: Whether the code of the repository that a hub's network comes from may run.

    Raises:
        UnfreezeError: If the network, the layer or the images are missing.
    """
    where, config = claim_device(device), None if raw is None else check_values(raw, typed)
    classifier = _classifier(model, config, weights, trust_repo=trust_repo)
    extractor = FeatureExtractor(classifier, layer, pool=pool)
    loader = BatchLoader(classifier, device=where, batch_size=batch_size)
    data, outputs = _images(model, config, classifier)
    indices, metadata = _describe(data, outputs, split)
    with counting_bar("features", len(indices)) as progress:
        return write_features(out, _rows(loader, extractor, data, indices, progress), metadata)


def _describe(data: ImageData, outputs: Outputs, split: str) -> tuple[Indices, FeatureMetadata]:
    """Return the images of a split or of all, and their labels, paths, splits and classes."""
    chosen = {name: indices for name, indices in data.splits.parts.items() if split in (name, ALL)}
    indices = np.concatenate(list(chosen.values()))
    if not len(indices):
        raise UnfreezeError(f"--split: got {split!r}, and the data has no such images")
    return indices, FeatureMetadata(
        labels=data.labels.numpy()[indices],
        paths=[data.source.images.name(index) for index in indices.tolist()],
        splits=[name for name, own in chosen.items() for _ in range(len(own))],
        classes=[name for names in names_of(outputs) for name in names],
    )


def _classifier(model: str, config: Config | None, weights: Path | None, *, trust_repo: bool) -> Classifier:
    check_weights_file(model, weights)
    if config is None or is_run(model):
        return find_classifier(model, trust_repo=trust_repo)
    # What it was published to tell apart does not matter, and is not always known.
    size, source = config.data.image_size, "DEFAULT" if weights is None else str(weights)
    classifier = build_classifier(published_spec(model), classes=("none",), weights=source, image_size=size)
    classifier.network.eval()
    return classifier


def _images(model: str, config: Config | None, classifier: Classifier) -> tuple[ImageData, Outputs]:
    """Return images in their splits, decoded for a classifier, and their outputs."""
    if config is None:
        run = RunDirectory.containing(Path(model))
        if run is None:
            raise UnfreezeError(f"features: {model!r} lies in no run's directory; type data=imagefolder data.root=...")
        return reopen(run, classifier.preprocessing).data, classifier.outputs
    channels = len(classifier.preprocessing.mean)
    config = config.model_copy(update={"model": config.model.model_copy(update={"in_chans": channels})})
    source = build_source(config)
    data = build_data(ImageData, config, source)
    decode(data, classifier.preprocessing)
    return data, outputs_of(config, source.tasks)[0]


def _rows(
    loader: BatchLoader,
    extractor: FeatureExtractor,
    data: ImageData,
    indices: Indices,
    progress: Callable[[int], None],
) -> Iterator[NDArray[np.float32]]:
    size = loader.batch_size
    chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
    for number, images in enumerate(data.store.pixels.batches(chunks), 1):
        yield extractor(loader.prepare(images)).cpu().numpy()
        progress(min(number * size, len(indices)))
