"""A stage on cached features learns what it would learn without them."""

import errno
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from tests.training.cached_run import BLOCK, HEAD, Fit, Run, make_data
from tests.training.conftest import equal, make_classifier, quiet_trainer, state_of
from unfreeze.cache.folder import CacheEntry, CacheFolder
from unfreeze.data.store.framing import Resize
from unfreeze.errors import Stopped
from unfreeze.models.partition import partition_network
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.stored_features import StoredFeatureTest
from unfreeze.training.features.table import FeatureTable, RowLayout
from unfreeze.training.module import ImageClassifier
from unfreeze.training.plan.plan import Stage


class Look(L.Callback):
    """Looks at test batches."""

    def __init__(self, look: Callable[[Any], None]) -> None:
        self._look = look

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self._look(batch)


def assert_close(a: ImageClassifier, b: ImageClassifier) -> None:
    for (key, x), y in zip(state_of(a).items(), state_of(b).values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("stages", [[HEAD], [BLOCK], [HEAD, BLOCK], [Stage("both", ["head", "stage3"], 3)]])
def test_a_cached_run_learns_what_an_uncached_one_learns(fit: Fit, stages: list[Stage]) -> None:
    # Not Adam, whose first step is a rate in the direction of a gradient however small: rounding would decide it.
    stages = [replace(stage, optimizer="sgd") for stage in stages]
    cached, uncached = Run(fit, stages), Run(fit, stages, cached=False)
    assert_close(cached.module, uncached.module)
    assert cached.val_acc == uncached.val_acc
    assert sum(report["images"] for report in cached.reports) == 32 * len(stages), "each image once per stage"
    assert [report["splits"] for report in cached.reports] == [["train", "val"]] * len(stages)


def test_batches_have_no_images_and_the_module_no_more_keys(fit: Fit) -> None:
    run = Run(fit, [HEAD], look=lambda trainer, module: (module._suffix is not None, len(module.state_dict())))
    fed, keys = zip(*run.probe.seen, strict=True)
    assert all(fed)
    assert set(keys) == {len(run.module.state_dict())}
    assert run.module._suffix is None, "let go of when the fit ends"


def test_logits_on_features_are_those_of_the_network_bit_for_bit() -> None:
    torch.manual_seed(0)
    classifier = make_classifier()
    module = ImageClassifier(classifier).eval()
    images = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for depth in range(1, len(classifier.groups)):
        live = [group.name for group in classifier.groups[:depth]]
        partition = partition_network(module.network, classifier.groups, live, image_shape=(3, 32, 32))
        assert partition is not None
        with torch.no_grad():
            assert torch.equal(partition.suffix(*partition.prefix(images)), module.network(images))


def test_random_augmentation_is_not_cached_but_validation_is(fit: Fit) -> None:
    cached, uncached = (Run(fit, [BLOCK], augment="light", cached=on) for on in (True, False))
    assert cached.reports[0]["splits"] == ["val"]
    assert_close(cached.module, uncached.module)


def test_views_are_the_draws_of_the_first_epochs(fit: Fit) -> None:
    options = PrefixCacheOptions(views=2)
    two = [replace(BLOCK, epochs=2, schedule="constant")]
    cached = Run(fit, two, augment="standard", options=PrefixCacheOptions(views=2))
    uncached = Run(fit, two, augment="standard", cached=False)
    longer = Run(fit, [replace(BLOCK, epochs=5)], augment="standard", options=options)
    assert_close(cached.module, uncached.module)
    train = len(make_data().splits.train)
    assert longer.reports[-1]["images"] == 2 * train + len(make_data().splits.val)


def test_mixed_images_are_not_cached(fit: Fit) -> None:
    run = Run(fit, [BLOCK], augment="strong", options=PrefixCacheOptions(views=2))
    assert run.reports[0]["splits"] == ["val"]


def test_norms_that_go_on_counting_are_not_cached(fit: Fit, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run = Run(fit, [HEAD], frozen_norm="train")
    assert run.reports == []
    assert "frozen_norm=train" in caplog.text


def test_features_of_pooled_maps_are_found_by_the_next_run(fit: Fit, tmp_path: Path) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    first, second = (Run(fit, [HEAD], options=options) for _ in range(2))
    assert [run.reports[0]["reused"] for run in (first, second)] == [False, True]
    assert equal(state_of(first.module), state_of(second.module))
    assert second.prefix_images <= 8, "some to check the parts by, no more"


def test_the_runs_of_a_sweep_look_once_at_a_cut_that_all_of_them_make(fit: Fit, tmp_path: Path) -> None:
    def other_head(module: ImageClassifier) -> None:
        module.network.fc.temperature = {"at first": 2.0}  # a forward may go by it

    def other_options(module: ImageClassifier) -> None:
        spec = replace(module.classifier.spec, options=(("center", "batch"),))
        object.__setattr__(module.classifier, "spec", spec)

    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0), sweep=tmp_path)
    Run(fit, [HEAD], options=options)
    assert Run(fit, [HEAD], options=options).prefix_images == 0
    for change in (other_head, other_options):
        assert Run(fit, [HEAD], options=options, change=change).prefix_images > 0


def test_vectors_are_judged_in_batches_of_their_own_size(fit: Fit) -> None:
    counted: list[int] = []

    def change(module: ImageClassifier) -> None:
        judge = module.validation_step

        def validation_step(batch: Any, batch_idx: int) -> None:
            counted.append(len(batch.labels))
            judge(batch, batch_idx)

        module.validation_step = validation_step

    val = 9
    data = make_data()
    data.splits = replace(data.splits, val=np.arange(val))
    Run(fit, [replace(HEAD, epochs=2), replace(BLOCK, epochs=1)], data=data, change=change)
    assert counted == [val, val, 5, 4], "the maps of a block in batches as large as those of images"


def test_maps_are_dropped_with_their_stage_unless_kept(fit: Fit, tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache", 1.0)
    Run(fit, [BLOCK], options=PrefixCacheOptions(folder=folder))
    assert folder.entries() == []
    kept = PrefixCacheOptions(folder=folder, sweep=tmp_path)
    assert [Run(fit, [BLOCK], options=kept).reports[0]["reused"] for _ in range(2)] == [False, True]
    assert [item.kind for item in folder.entries()] == ["features"]


def test_some_rows_of_a_table_are_copied_by_the_images_they_stand_for() -> None:
    layouts = [RowLayout((4,), (0,), torch.float32)]
    images, wanted = torch.arange(12), np.array([2, 5, 9])
    table = FeatureTable.allocate(layouts, wanted, images=12, device=torch.device("cpu"))
    table.put(torch.from_numpy(wanted), (torch.from_numpy(wanted)[:, None].expand(3, 4).float(),))
    copy = table.copy_of(np.array([5, 9]), images=12, device=torch.device("cpu"))
    assert copy.gather(images[[9, 5]])[0].tolist() == [[9.0] * 4, [5.0] * 4]


@pytest.mark.parametrize("stages", [[HEAD], [BLOCK]], ids=["pooled", "maps"])
def test_a_disk_that_is_full_is_told_and_the_run_goes_on(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stages: list[Stage]
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("unfreeze.training.features.stage_features.free_memory_bytes", lambda: 1000)
    monkeypatch.setattr("os.posix_fallocate", full)
    caplog.set_level("INFO")
    run = Run(fit, stages, options=PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0)))
    assert f"nothing in {stages[0].name}, since [Errno 28] No space left on device" in caplog.text
    assert not run.reports
    assert run.module._suffix is None
    assert run.trainer.current_epoch == 3


def test_rows_that_no_file_can_take_stay_in_memory_where_they_fit(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    run = Run(fit, [HEAD], options=PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0)))
    assert run.reports[0]["place"] == "in RAM"
    assert f"! features are not kept for later runs: can't write to {tmp_path / 'cache'} (No space left" in caplog.text
    (tmp_path / "file").touch()
    Run(fit, [HEAD], options=PrefixCacheOptions(folder=CacheFolder(tmp_path / "file" / "cache", 1.0)))
    assert f"can't write to {tmp_path / 'file' / 'cache'} (Not a directory)" in caplog.text
    assert equal(state_of(run.module), state_of(Run(fit, [HEAD]).module))


def test_features_that_are_there_are_read_where_nothing_may_be_written(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CacheEntry) -> None:
        raise PermissionError("a folder that may only be read")

    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    Run(fit, [HEAD], options=options)
    monkeypatch.setattr(CacheEntry, "locked", refuse)
    assert Run(fit, [HEAD], options=options).reports[0]["reused"]


def test_an_error_in_a_stage_leaves_no_features_in_use(fit: Fit, tmp_path: Path) -> None:
    def fail(trainer: L.Trainer, module: ImageClassifier) -> None:
        raise ValueError("in the middle")

    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0), sweep=tmp_path)
    with pytest.raises(ValueError, match="in the middle"):
        Run(fit, [BLOCK], options=options, look=fail)
    assert options.folder is not None
    entries = options.folder.entries()
    assert entries
    assert not any(entry.in_use for entry in entries)


def test_the_part_that_trains_is_compiled_where_the_network_is(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))

    def change(module: ImageClassifier) -> None:
        module.network._compiled_call_impl = module.network._call_impl

    run = Run(fit, [HEAD, BLOCK], change=change)
    assert len(compiled) == 1, "a linear head on vectors is not worth it"
    assert len(list(compiled[0].parameters())) > 2
    assert run.reports


def test_a_head_on_cached_vectors_trains_in_float32_where_the_run_is_in_bf16(fit: Fit) -> None:
    dtypes = []

    def change(module: ImageClassifier) -> None:
        module.network.fc.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))

    for stages, expected in (([HEAD], {torch.float32}), ([BLOCK], {torch.float32, torch.bfloat16})):
        dtypes.clear()
        Run(lambda *a, **k: fit(*a, trainer={"precision": "bf16-mixed"}, **k), stages, change=change)
        assert set(dtypes) == expected, "the deeper stage is judged in float32"


def test_what_is_judged_is_exact_where_what_is_trained_on_need_not_be(fit: Fit, tmp_path: Path) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0), exact=False)
    near, exact = Run(fit, [HEAD], options=options), Run(fit, [HEAD])
    assert len(options.folder.entries()) == 2
    assert near.val_acc == pytest.approx(exact.val_acc, abs=0.3)
    assert 0 < near.reports[-1]["trial_seconds"] <= near.reports[-1]["seconds"]
    assert exact.reports[-1]["trial_seconds"] == 0
    for a, b in zip(state_of(near.module).values(), state_of(exact.module).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.02)


def test_a_resume_computes_by_the_copy_that_had_won_its_trial(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unfreeze.training.features.faster._CLEARLY", 1e9)  # whatever a copy takes is soon enough
    monkeypatch.setattr("unfreeze.training.features.faster._HOPELESS", 1e9)
    options = PrefixCacheOptions(exact=False)
    first = Run(fit, [HEAD], options=options)
    state = first.cache.state_dict()
    assert state["copies"] == {"head": "bf16"}
    monkeypatch.setattr(
        "unfreeze.training.features.stage_features.faster_prefix", lambda *a, **k: pytest.fail("tried again")
    )

    def resumed(*positional: Any, **named: Any) -> L.Trainer:
        positional[1][1].load_state_dict(state)
        return fit(*positional, **named)

    again = Run(resumed, [HEAD], options=options)
    assert equal(state_of(again.module), state_of(first.module))
    assert again.reports[0]["faster"] == "bf16"


@pytest.mark.parametrize(("error", "noted_every_s"), [(Stopped(signal.SIGTERM), 30.0), (RuntimeError("killed"), 0.0)])
def test_what_was_computed_before_the_end_came_is_taken_up(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, noted_every_s: float
) -> None:
    put = FeatureTable.put
    batches: list[int] = []

    def end_in_the_second_batch(table: FeatureTable, indices: torch.Tensor, activations: Any) -> None:
        put(table, indices, activations)
        batches.append(len(indices))
        if len(batches) == 2:
            raise error

    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    with monkeypatch.context() as patch:
        patch.setattr("unfreeze.training.features.extraction._RECORDED_EVERY_S", noted_every_s)
        patch.setattr(FeatureTable, "put", end_in_the_second_batch)
        with pytest.raises(type(error)):
            Run(fit, [HEAD], options=options, data=make_data(per_class=30))
    resumed = Run(fit, [HEAD], options=options, data=make_data(per_class=30))
    untouched = Run(fit, [HEAD], data=make_data(per_class=30))
    assert resumed.reports[0]["images"] == untouched.reports[0]["images"] - batches[0]
    assert equal(state_of(resumed.module), state_of(untouched.module))


def test_damaged_files_are_computed_anew(fit: Fit, tmp_path: Path) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    first = Run(fit, [HEAD], options=options)
    entry = next((tmp_path / "cache" / "features").glob("*/rows0.bin"))
    entry.write_bytes(entry.read_bytes()[:100])
    second = Run(fit, [HEAD], options=options)
    assert not second.reports[0]["reused"]
    assert equal(state_of(first.module), state_of(second.module))


def test_what_does_not_fit_into_memory_goes_to_files(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = Run(fit, [BLOCK])
    monkeypatch.setattr("unfreeze.training.features.stage_features.free_memory_bytes", lambda: 1000)
    folder = CacheFolder(tmp_path / "cache", 1.0)
    mapped = Run(fit, [BLOCK], options=PrefixCacheOptions(folder=folder))
    assert (resident.reports[0]["place"], mapped.reports[0]["place"]) == ("in RAM", "mapped from disk")
    assert equal(state_of(resident.module), state_of(mapped.module))
    assert folder.entries() == []


@pytest.mark.parametrize("gb", [None, 1e-6], ids=["no folder", "a cap too small"])
def test_what_fits_nowhere_is_told_and_the_run_goes_on(
    fit: Fit,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gb: float | None,
) -> None:
    uncached = Run(fit, [BLOCK], cached=False)
    monkeypatch.setattr("unfreeze.training.features.stage_features.free_memory_bytes", lambda: 1000)
    options = PrefixCacheOptions(folder=None if gb is None else CacheFolder(tmp_path / "cache", gb))
    with caplog.at_level("INFO"):
        run = Run(fit, [BLOCK], options=options)
    assert run.reports == []
    assert "cache." in caplog.text
    assert equal(state_of(run.module), state_of(uncached.module))


def test_images_without_validation_of_their_own_are_judged_whole_and_nothing_is_kept_of_them(
    fit: Fit, tmp_path: Path
) -> None:
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    run, others = Run(fit, [HEAD], options=options), make_data(seed=1)
    before = {item.key: item.nbytes for item in options.folder.entries()}
    others.splits = replace(others.splits, val=np.arange(0), test=np.arange(9))
    others.build_store(Resize.of(run.module.preprocessing))
    had_images = []
    look = Look(lambda batch: had_images.append(batch.images is not None))
    quiet_trainer(callbacks=[StoredFeatureTest(options, others), look]).test(
        run.module, dataloaders=others.eval_loader("test"), verbose=False
    )
    assert had_images == [True, True]
    assert {item.key: item.nbytes for item in options.folder.entries()} == before


@pytest.mark.parametrize(("stages", "fed"), [([HEAD], True), ([HEAD, BLOCK], False)], ids=["head", "block too"])
def test_the_test_is_judged_by_features_where_the_backbone_never_trained(
    fit: Fit, tmp_path: Path, stages: list[Stage], fed: bool
) -> None:
    data = make_data()
    data.splits = replace(data.splits, test=np.arange(0, 36, 5))
    options = PrefixCacheOptions(folder=CacheFolder(tmp_path / "cache", 1.0))
    run = Run(fit, stages, options=options, data=data)
    had_images = []
    look = Look(lambda batch: had_images.append(batch.images is not None))
    quiet_trainer(callbacks=[StoredFeatureTest(options, data), look]).test(
        run.module, dataloaders=data.eval_loader("test"), verbose=False
    )
    assert had_images == [not fed]
    logits, labels, indices = run.module.test_predictions()
    images = run.module.preprocessing(data.store.read(data.splits.test))
    with torch.no_grad():
        torch.testing.assert_close(logits, run.module.network.eval()(images), rtol=1e-5, atol=1e-5)
    assert indices.tolist() == data.splits.test.tolist()
    assert labels.tolist() == data.source.labels[data.splits.test].tolist()
