"""Answers that are stored, and read back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unfreeze.errors import UnfreezeError
from unfreeze.evaluation.predictions import Predictions, StoredPredictions, predictions_by_task
from unfreeze.models.outputs import Outputs, TaskClasses

NAMES = ('quo"te', "<b>bold</b>", "\N{DEER} שלום", "x" * 200)


def predictions(images: int = 6, classes: int = 4, *, seed: int = 0, tasks: int = 1) -> Predictions:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images, tasks), generator=draw)
    digests = np.frombuffer(np.random.default_rng(seed).bytes(16 * images), dtype="V16")
    return Predictions(
        logits=torch.randn(images, classes * tasks, generator=draw),
        labels=labels if tasks > 1 else labels[:, 0],
        indices=np.arange(images) * 3,
        names=tuple(f"{NAMES[0]}/{number}.jpg" for number in range(images)),
        digests=digests,
    )


@pytest.mark.parametrize("temperatures", [None, (1.5,)])
def test_stored_predictions_are_read_back(tmp_path: Path, temperatures: tuple[float, ...] | None) -> None:
    stored = StoredPredictions(
        {"val": predictions(5), "test": predictions(7, seed=1)},
        Outputs.of(NAMES),
        None,
        temperatures,
        predictions(9).digests,
    )
    stored.save(tmp_path / "predictions.npz")
    read = StoredPredictions.load(tmp_path / "predictions.npz")
    assert read.outputs == stored.outputs
    assert read.temperatures == temperatures
    assert read.thresholds is None
    assert (read.train_digests == stored.train_digests).all()
    for split, own in stored.splits.items():
        found = read.splits[split]
        assert torch.equal(found.logits, own.logits)
        assert torch.equal(found.labels, own.labels)
        assert (found.indices == own.indices).all()
        assert (found.digests == own.digests).all()
        assert found.names == own.names


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut off"])
def test_a_file_that_is_not_whole_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(UnfreezeError, match=r"predictions\.npz: can't be read"):
        StoredPredictions.load(tmp_path / "predictions.npz")


def test_predictions_by_task() -> None:
    outputs = Outputs((TaskClasses("one", NAMES), TaskClasses("two", NAMES)))
    both = predictions(tasks=2)
    for number, task in enumerate(predictions_by_task(both, outputs)):
        own = both.logits[:, 4 * number : 4 * number + 4].double().softmax(dim=1)
        assert task.truth.tolist() == both.labels[:, number].tolist()
        assert task.predicted.tolist() == own.argmax(dim=1).tolist()
        assert task.confidence == pytest.approx(own.amax(dim=1).numpy())
        assert task.true_probability == pytest.approx(own[range(6), both.labels[:, number]].numpy())
    assert predictions_by_task(both, Outputs((TaskClasses("label", NAMES),), multilabel=True)) == []


def test_some_are_taken_in_their_order() -> None:
    some = predictions().take(np.array([4, 1]))
    assert some.indices.tolist() == [12, 3]
    assert len(some) == 2
