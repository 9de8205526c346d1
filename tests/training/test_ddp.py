"""Two ranks stay equal through every stage, and do what one process with the doubled batch does."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.multiprocessing import ProcessExitedException

from tests.training.conftest import make_classifier, make_source, quiet_trainer, state_of
from unfreeze.cache.folder import CacheFolder
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.models.classifier import Classifier, build_classifier
from unfreeze.models.spec import HeadSpec
from unfreeze.system.signals import STOP
from unfreeze.training.callbacks.checkpointing import LastCheckpoint
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.prefix_cache import FrozenPrefixCache
from unfreeze.training.module import ImageClassifier
from unfreeze.training.param_groups import OptimizerSpec
from unfreeze.training.plan.plan import Rates, Stage

STAGES = [Stage("head", 1, 2), Stage("block", 2, 4, patience=1), Stage("all", "all", 2)]
# SGD, because Adam turns a difference in the last bit into a difference in the first where gradients are near zero.
RATES = Rates(head=1e-2, decay=0.5)


class Notes(L.Callback):
    """Keeps the weights after each epoch and what was decided, by rank."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._weights: list[dict[str, torch.Tensor]] = []
        self._stages: list[int] = []

    def on_train_epoch_end(self, trainer, pl_module):
        self._weights.append(state_of(pl_module))
        self._stages.append(next(c.stage for c in trainer.callbacks if isinstance(c, StagedUnfreezing)))
        torch.save(self._weights, self._folder / f"weights-{trainer.global_rank}.pt")
        (self._folder / f"stages-{trainer.global_rank}.json").write_text(json.dumps(self._stages))


class SignalToTheSecondRank(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            STOP.received = signal.SIGTERM


def without_norms(classes: list[str]) -> Classifier:
    """Return a network whose steps depend on the union of the ranks' batches alone."""
    return build_classifier("squeezenet1_1", classes=classes, weights=None, head=HeadSpec(dropout=0.0), image_size=64)


def fit(
    folder: Path, *, network: str, batch_size: int, augment: str = "light", cached: bool = False, **trainer: Any
) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    classes = ["class0", "class1", "class2"]
    build = {"norms": lambda: make_classifier(dropout=None), "no norms": lambda: without_norms(classes)}[network]
    module = ImageClassifier(build(), optimizer=OptimizerSpec("sgd"), augment=augment)
    source = make_source(per_class=12)
    source.splits[:] = np.tile(["train"] * 8 + ["val"] * 3 + ["test"], 3)
    data = ImageDataModule(source, batch_size=batch_size)
    callback = StagedUnfreezing(STAGES, rates=RATES, schedule="constant", monitor="val/loss", mode="min")
    callbacks: list[L.Callback] = [callback, Notes(folder)]
    if cached:
        options = PrefixCacheOptions(folder=CacheFolder(folder / "cache", 1.0))
        ready = folder / f"ready-{os.environ.get('LOCAL_RANK', 0)}.txt"
        callbacks.append(FrozenPrefixCache(callback, options=options, on_ready=lambda row: ready.write_text(str(row))))
    quiet_trainer(max_epochs=20, use_distributed_sampler=False, callbacks=callbacks, **trainer).fit(module, data)


def read(folder: Path, rank: int) -> tuple[list[dict[str, torch.Tensor]], list[int]]:
    weights = torch.load(folder / f"weights-{rank}.pt", weights_only=True)
    return weights, json.loads((folder / f"stages-{rank}.json").read_text())


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "run"
    fit(folder, network="no norms", batch_size=12, devices=1)
    return folder


def fit_on_two_ranks(folder: Path, network: str, find_unused_parameters: bool, **options: Any) -> None:
    strategy = DDPStrategy(
        start_method="fork", process_group_backend="gloo", find_unused_parameters=find_unused_parameters
    )
    fit(folder, network=network, batch_size=6, devices=2, strategy=strategy, **options)


@pytest.mark.parametrize("network", ["norms", "no norms"])
@pytest.mark.parametrize("find_unused_parameters", [True, False], ids=["registers everything", "wraps anew"])
def test_ranks_agree(network: str, find_unused_parameters: bool, single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit_on_two_ranks(folder, network, find_unused_parameters)
    (first, stages), (second, other_stages) = read(folder, 0), read(folder, 1)
    assert stages == other_stages
    assert stages[-1] == 2
    for epoch, (a, b) in enumerate(zip(first, second, strict=True)):
        # Statistics of live norms are each rank's own until the next step; weights never differ.
        for key in (k for k in a if "running" not in k):
            assert torch.equal(a[key], b[key]), f"{key} differs between ranks after epoch {epoch + 1}"
    if network == "norms":
        return
    alone, alone_stages = read(single, 0)
    assert alone_stages == stages
    for a, b in zip(alone, first, strict=True):
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    assert not torch.equal(first[0]["features.0.weight"], first[-1]["features.0.weight"])


@pytest.mark.parametrize(("unasked_s", "stopped_at"), [(0.0, 3), (1e9, 17)], ids=["slow steps", "fast steps"])
def test_a_signal_to_one_rank_stops_all_after_a_second_or_a_few_steps(
    unasked_s: float, stopped_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unfreeze.training.callbacks.checkpointing._LONGEST_UNASKED_S", unasked_s)
    source = make_source(per_class=36)
    source.splits[:] = np.tile(["train"] * 8 + ["val"] * 3 + ["test"], 9)
    trainer = quiet_trainer(
        max_epochs=1,
        use_distributed_sampler=False,
        devices=2,
        strategy=DDPStrategy(start_method="fork", process_group_backend="gloo"),
        callbacks=[SignalToTheSecondRank(), LastCheckpoint(tmp_path)],
        enable_checkpointing=True,
    )
    with pytest.raises(ProcessExitedException, match="exit code 143"):
        trainer.fit(ImageClassifier(make_classifier()), ImageDataModule(source, batch_size=2))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == stopped_at


@pytest.mark.parametrize("find_unused_parameters", [True, False], ids=["registers everything", "wraps anew"])
def test_ranks_share_features_and_learn_what_one_process_learns_without(
    find_unused_parameters: bool, tmp_path: Path
) -> None:
    fit(tmp_path / "alone", network="no norms", batch_size=12, devices=1, augment="none")
    folder = tmp_path / "ranks"
    fit_on_two_ranks(folder, "no norms", find_unused_parameters, augment="none", cached=True)
    (alone, _), (first, _), (second, _) = read(tmp_path / "alone", 0), read(folder, 0), read(folder, 1)
    for one, a, b in zip(alone, first, second, strict=True):
        for key in a:
            assert torch.equal(a[key], b[key]), f"{key} differs between ranks"
            torch.testing.assert_close(
                one[key], a[key], rtol=1e-3, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
            )
    assert list(folder.glob("ready-*.txt")), "the stages were fed from the cache"
    assert not list((folder / "cache" / "features").glob("*/")), "maps are dropped with their stage"
