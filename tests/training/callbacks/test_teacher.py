"""A teacher sees what its student sees, as it was trained to see it, and is asked once where that will do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torchvision import models as tv

from tests.training.conftest import make_classifier, make_source, state_of
from unfreeze.data.augment.presets import Augmentation, augmentation
from unfreeze.data.datamodule import ImageDataModule
from unfreeze.data.loader import Batch
from unfreeze.data.splits.splits import split_source
from unfreeze.data.store.framing import Resize
from unfreeze.errors import UnfreezeError
from unfreeze.models.classifier import CHECKPOINT_SCHEMA, Classifier, build_classifier
from unfreeze.models.outputs import Outputs
from unfreeze.models.spec import ModelSpec
from unfreeze.training.callbacks.staged_unfreezing import StagedUnfreezing
from unfreeze.training.callbacks.teacher import TeacherTargets
from unfreeze.training.features.options import PrefixCacheOptions
from unfreeze.training.features.prefix_cache import FrozenPrefixCache
from unfreeze.training.module import ImageClassifier
from unfreeze.training.objectives import Distill
from unfreeze.training.plan.plan import Rates, Stage
from unfreeze.training.teacher import Teacher, check_bands, check_classes, find_teacher

Fit = Callable[..., L.Trainer]
NAMES = ("class0", "class1", "class2")
TURNED = ("class2", "class0", "class1")
MIXING = augmentation("light", mixup=1.0)


def images_for(size: int) -> ImageDataModule:
    """Return the same images and splits, decoded for one size."""
    source = make_source(side=64)
    data = ImageDataModule(source, batch_size=8, splits=split_source(source, val_fraction=0.2))
    data.build_store(Resize(size))
    return data


def knowing(classes: tuple[str, ...] = TURNED) -> Classifier:
    torch.manual_seed(7)
    classifier = build_classifier("tiny", classes=classes, weights=None, image_size=48)
    classifier.network.eval()
    return classifier


class Heard(Callback):
    """Keeps what batches bring, and by which draws their images were augmented."""

    def __init__(self, cache: FrozenPrefixCache | None) -> None:
        self._cache = cache
        self.batches: list[tuple[Batch, Any, Augmentation]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        served = None if self._cache is None else self._cache.served
        fed = served is not None and served.train is not None
        epoch = served.drawn_in if fed else trainer.current_epoch
        self.batches.append((batch, epoch, pl_module.augmentation))


@pytest.mark.parametrize("on_features", [False, True])
@pytest.mark.parametrize(("augment", "views"), [("none", None), ("light", None), ("light", 2), (MIXING, None)], ids=str)
@pytest.mark.parametrize("cached", [True, False])
def test_it_says_what_it_would_say_of_the_same_draws(
    augment: Any, views: int | None, cached: bool, on_features: bool, fit: Fit
) -> None:
    teacher = knowing()
    objective = Distill(NAMES, on_features=on_features)
    stages = StagedUnfreezing(
        [Stage("head", train=1, epochs=2), Stage("all", train="all", epochs=1)], rates=Rates(head=1e-3)
    )
    options = PrefixCacheOptions(views=views)
    cache = FrozenPrefixCache(stages, options=options) if cached else None
    targets = TeacherTargets(
        Teacher(teacher, "a teacher"),
        images_for(teacher.preprocessing.resize_px),
        stages,
        cache=cache,
        on_features=on_features,
        outputs=Outputs.of(NAMES),
        options=options if cached else None,
    )
    student = ImageClassifier(make_classifier(), objective=objective, augment=augment, seed=3, teacher=targets)
    heard = Heard(cache)
    before = {key: value.clone() for key, value in teacher.network.state_dict().items()}
    fit(
        student,
        [stages, *([cache] if cache is not None else []), targets, heard],
        data=images_for(student.preprocessing.resize_px),
    )
    data = images_for(teacher.preprocessing.resize_px)
    sees = ImageClassifier(teacher, seed=3).eval()
    for batch, epoch, how in heard.batches:
        sees.set_augmentation(how)
        own = Batch(data.store.read(batch.indices.numpy()), batch.labels, batch.indices, draw_keys=batch.draw_keys)
        seen = sees.prepared_for_evaluation(own) if epoch is None else sees.prepared_for_training(own, epoch)
        with torch.no_grad():
            if on_features:
                features: list[torch.Tensor] = []
                hook = teacher.network.get_submodule("fc").register_forward_pre_hook(
                    lambda _, inputs, kept=features: kept.append(inputs[0])
                )
                teacher.network(seen.images)
                hook.remove()
                expected = features[0]
            else:
                expected = teacher.network(seen.images)[:, [1, 2, 0]]
        assert batch.soft_targets is not None
        torch.testing.assert_close(batch.soft_targets, expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in teacher.network.state_dict().items())
    assert not any("teacher" in key or "answering" in key for key in student.state_dict())


def test_a_student_learns_from_its_teacher_alone_where_alpha_is_one(fit: Fit) -> None:
    runs = []
    for labels in (False, True):
        source = make_source(side=64)
        wrong = source.labels if labels else (source.labels + 1) % 3
        data = ImageDataModule(source, batch_size=8, labels=wrong, splits=split_source(source, val_fraction=0.2))
        stages = StagedUnfreezing([Stage("head", train=1, epochs=2)])
        teacher = Teacher(knowing(NAMES), "a teacher")
        targets = TeacherTargets(
            teacher,
            images_for(teacher.classifier.preprocessing.resize_px),
            stages,
            on_features=False,
            outputs=Outputs.of(NAMES),
            options=None,
        )
        objective = Distill(NAMES, alpha=1.0)
        student = ImageClassifier(make_classifier(dropout=0.0), objective=objective, augment="none", teacher=targets)
        fit(student, [stages, targets], data=data)
        runs.append(state_of(student))
    assert torch.equal(runs[0]["fc.weight"], runs[1]["fc.weight"])


def test_classes_may_be_in_another_order_but_not_others() -> None:
    check_classes(Teacher(knowing(), "t"), Outputs.of(NAMES))
    with pytest.raises(UnfreezeError, match="it does not know 'class2'"):
        check_classes(Teacher(knowing(("class0", "class1", "dog")), "t"), Outputs.of(NAMES))
    with pytest.raises(UnfreezeError, match="it also tells 'class2'"):
        check_classes(Teacher(knowing(), "t"), Outputs.of(NAMES[:2]))
    check_classes(Teacher(knowing(), "t", is_published=True), Outputs.of(NAMES[:2]))


def test_it_sees_the_bands_of_the_images() -> None:
    check_bands(Teacher(knowing(), "t"), 3)
    with pytest.raises(UnfreezeError, match="t sees 3 channels, and the images have 5; want a teacher"):
        check_bands(Teacher(knowing(), "t"), 5)
    grey = build_classifier(ModelSpec("tiny", in_chans=1), classes=NAMES, weights=None)
    check_bands(Teacher(grey, "t"), 3)
    with pytest.raises(UnfreezeError, match="sees 1 channel, and the images have 4"):
        check_bands(Teacher(grey, "t"), 4)


def test_the_code_of_a_repository_does_not_run_unasked(tmp_path: Path) -> None:
    (tmp_path / "hubconf.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), "
        "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    classifier = build_classifier(ModelSpec("net", "hub", repo=str(tmp_path)), classes=NAMES, weights=None)
    state = {f"network.{key}": value for key, value in classifier.network.state_dict().items()}
    record = {"schema": CHECKPOINT_SCHEMA, "classifier": classifier.to_record()}
    torch.save({"state_dict": state, "unfreeze": record}, tmp_path / "best.ckpt")
    with pytest.raises(UnfreezeError, match=r"^objective.teacher: .* type model.trust_repo=true$"):
        find_teacher(str(tmp_path / "best.ckpt"))
    assert find_teacher(str(tmp_path / "best.ckpt"), trust_repo=True).classifier.classes == NAMES


def test_a_published_network_comes_from_no_run_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tv.ShuffleNet_V2_X0_5_Weights.DEFAULT
    place = tmp_path / "hub" / "checkpoints" / Path(weights.url).name
    place.parent.mkdir(parents=True)
    torch.save(tv.shufflenet_v2_x0_5(weights=None).state_dict(), place)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "splits.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    teacher = find_teacher("shufflenet_v2_x0_5")
    assert teacher.is_published
    assert teacher.run is None
