"""The predictions of a model for splits of the images, by the Trainer's test loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning import Trainer

from unfreeze.data.image_data import ImageData
from unfreeze.evaluation.calibration import fit_temperatures
from unfreeze.evaluation.predictions import Predictions, StoredPredictions
from unfreeze.models.checkpoint import read_checkpoint
from unfreeze.models.state_dicts import load_state
from unfreeze.training.module import ImageClassifier
from unfreeze.training.objectives import Multilabel


def load_weights(module: ImageClassifier, checkpoint: Path) -> None:
    """Load the weights of a checkpoint into a module; `ckpt_path` would also reset the callbacks."""
    load_state(module, read_checkpoint(checkpoint)["state_dict"])


def predict_splits(
    trainer: Trainer, module: ImageClassifier, data: ImageData, splits: Sequence[Literal["val", "test"]]
) -> StoredPredictions:
    """Return the logits of a module for some splits, in float32.

    Args:
        trainer: The trainer of the run.
        module: With its weights.
        data: Decoded images.
        splits: "val" or "test"; empty ones are left out. Temperatures are fitted on validation where it is among them.
    """
    facts, outputs, objective = data.store.facts, module.classifier.outputs, module.objective
    found: dict[str, Predictions] = {}
    for split in splits:
        if not len(data.splits.parts[split]):
            continue
        trainer.test(module, dataloaders=data.eval_loader(split, trainer), verbose=False)
        logits, labels, rows = module.test_predictions()
        indices = rows.numpy()
        names = tuple(data.source.images.name(int(index)) for index in indices)
        found[split] = Predictions(logits, labels, indices, names, facts.digests[indices])
    val = found.get("val")
    return StoredPredictions(
        splits=found,
        outputs=outputs,
        thresholds=tuple(objective.thresholds.tolist()) if isinstance(objective, Multilabel) else None,
        temperatures=None if val is None else fit_temperatures(val.logits, val.labels, outputs),
        train_digests=facts.digests[data.splits.train],
    )
