"""Networks of timm: groups, head, stages, weights, image sizes and channels."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.models.timm_families import ALL, SMALLEST
from unfreeze.data.sources.imagefolder import folder_source
from unfreeze.data.store.framing import Resize
from unfreeze.data.store.store import build_store
from unfreeze.errors import UnfreezeError
from unfreeze.models.analysis import check_image_size, describe_groups, group_sizes
from unfreeze.models.architecture import find_architecture
from unfreeze.models.classifier import Classifier, build_classifier, published_classifier, rebuild_classifier
from unfreeze.models.spec import HeadSpec, ModelSpec
from unfreeze.models.timm_models import TimmModel
from unfreeze.training.param_groups import OptimizerSpec, build_optimizer, build_param_groups

timm = pytest.importorskip("timm", reason="timm is not installed")
CLASSES = ("a", "b", "c")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ALL if name not in SMALLEST]


def build(name: str, **options) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(ModelSpec(name, "timm"), classes=CLASSES, weights=None, **options)


def step(classifier: Classifier, live: list[str]) -> None:
    """Take one step of the groups named, as a stage does."""
    classifier.freeze_all_but(live)
    classifier.network.train()
    classifier.set_frozen_modes(live, "eval")
    optimizer = build_optimizer(OptimizerSpec(), build_param_groups(classifier, weight_decay=0.01))
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    size = classifier.preprocessing.crop_px
    logits = classifier.network(torch.randn(2, 3, size, size))
    assert logits.shape == (2, len(CLASSES))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimizer.step()


@pytest.mark.parametrize("name", [*SMALLEST, *SLOW])
def test_stages_train_what_they_name_and_nothing_else(name: str) -> None:
    classifier = build(name)
    names = [group.name for group in classifier.groups]
    assert names[0] == "head"
    assert len(names) == len(set(names)) <= 8
    members = [key for group in classifier.groups for key in group.parameters]
    assert sorted(members) == sorted(key for key, _ in classifier.network.named_parameters())
    head = [key for key in members if key.startswith(tuple(f"{head}." for head in classifier.heads))]
    assert list(classifier.groups[0].parameters) == head
    for live in (names[:1], names[:2]):
        before = copy.deepcopy(classifier.network.state_dict())
        step(classifier, live)
        after = classifier.network.state_dict()
        trained = {key for group in classifier.groups if group.name in live for key in group.parameters}
        changed = {key for key in after if not torch.equal(before[key], after[key])}
        frozen = {key for key in before if key not in trained and key in dict(classifier.network.named_parameters())}
        assert not changed & frozen
        assert changed & trained
    record, state = classifier.to_record(), classifier.network.state_dict()
    again = rebuild_classifier(record, state, trust_repo=False)
    assert again.groups == classifier.groups
    assert all(torch.equal(state[key], value) for key, value in again.network.state_dict().items())


@pytest.mark.parametrize("name", SMALLEST)
def test_groups_are_known_without_memory(name: str) -> None:
    spec = ModelSpec(name, "timm")
    sizes = group_sizes(spec, 3)
    assert [group.name for group in describe_groups(spec, 3)] == [group for group, _ in sizes]
    assert sum(size for _, size in sizes) > 1000


def test_the_input_transform_is_timms_own() -> None:
    preprocessing = find_architecture(ModelSpec("resnet18.a1_in1k", "timm")).preprocessing()
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg("resnet18.a1_in1k").to_dict())
    assert preprocessing.crop_px == config["input_size"][1]
    assert preprocessing.resize_px == int(config["input_size"][1] / config["crop_pct"])
    assert preprocessing.interpolation == config["interpolation"]
    assert (preprocessing.mean, preprocessing.std) == (config["mean"], config["std"])


def test_a_file_of_timms_weights_fits_at_another_size_and_in_grey(tmp_path: Path) -> None:
    stock = timm.create_model("vit_tiny_patch16_224")
    torch.save(stock.state_dict(), tmp_path / "vit.pth")
    spec = ModelSpec("vit_tiny_patch16_224", "timm", in_chans=1)
    classifier = build_classifier(spec, classes=CLASSES, weights=str(tmp_path / "vit.pth"), image_size=96)
    assert classifier.network.pos_embed.shape[1] == 1 + 6 * 6
    assert torch.equal(classifier.network.blocks[0].attn.qkv.weight, stock.blocks[0].attn.qkv.weight)
    grey = stock.patch_embed.proj.weight.sum(dim=1, keepdim=True)
    torch.testing.assert_close(classifier.network.patch_embed.proj.weight, grey)
    assert classifier.report is not None
    assert classifier.report.old_head == ("head.weight", "head.bias")
    assert classifier.network(torch.randn(2, 1, 96, 96)).shape == (2, 3)


def test_a_file_without_its_head_fits_too(tmp_path: Path) -> None:
    stock = timm.create_model("resnet18", num_classes=0)
    torch.save(stock.state_dict(), tmp_path / "headless.pth")
    spec = ModelSpec("resnet18", "timm")
    classifier = build_classifier(spec, classes=CLASSES, weights=str(tmp_path / "headless.pth"))
    assert torch.equal(classifier.network.conv1.weight, stock.conv1.weight)


def test_a_file_of_another_network_is_refused_by_its_first_entries(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(UnfreezeError, match=r"does not fit the backbone of resnet18: .*conv1"):
        build_classifier(ModelSpec("resnet18", "timm"), classes=CLASSES, weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "no network 'resnet19' in timm; near: .*resnet18"),
        ("resnet18.nobody", "timm has no weights 'resnet18.nobody'; want one of .*resnet18.a1_in1k"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UnfreezeError, match=message):
        find_architecture(ModelSpec(name, "timm"))


def test_offline_one_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as read from the environment at import
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UnfreezeError, match=r"^model\.weights: the weights of resnet18 could not be downloaded .*null"
    ) as message:
        build_classifier(ModelSpec("resnet18", "timm"), classes=CLASSES)
    assert "\n" not in str(message.value)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_lite0"])
def test_dropout_before_the_head_is_what_was_asked_for(name: str) -> None:
    classifier = build(name, head=HeadSpec(dropout=0.25))
    rates = {module.p for module in classifier.network.modules() if isinstance(module, nn.Dropout)}
    assert 0.25 in rates or classifier.network.drop_rate == 0.25


@pytest.mark.parametrize(
    ("spec", "size", "works"),
    [
        (ModelSpec("inception_v4", "timm"), 32, 75),
        (ModelSpec("inception_v3"), 32, 75),
        (ModelSpec("vit_b_32"), 100, 128),
    ],
)
def test_sizes_that_a_network_can_not_take_are_refused_with_the_next_that_works(
    spec: ModelSpec, size: int, works: int
) -> None:
    with pytest.raises(UnfreezeError, match=f"can't take images of {size} px .*data.image_size={works}$"):
        check_image_size(spec, size)
    check_image_size(spec, works)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto"])
def test_other_sizes_that_work_are_taken(name: str) -> None:
    check_image_size(ModelSpec(name, "timm"), 96)


@pytest.mark.parametrize("size", [(300, 300), (500, 375), (375, 700), (160, 90), (64, 64)])
@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "convnext_tiny.fb_in22k_ft_in1k_384", "tf_efficientnet_b0.ns_jft_in1k"]
)
def test_what_a_network_sees_of_a_folder_is_what_timms_own_transform_gives(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for folder, colour in (("a", 0), ("b", 255)):
        (tmp_path / folder).mkdir()
        noise = Image.fromarray(rng.integers(colour // 4, 128 + colour // 2, (9, 11, 3), dtype=np.uint8))
        noise.resize(size, Image.Resampling.BICUBIC).save(tmp_path / folder / "x.png")
    preprocessing = find_architecture(ModelSpec(name, "timm")).preprocessing()
    store = build_store(folder_source(tmp_path), Resize.of(preprocessing))
    ours = preprocessing(store.read(np.array([0, 1])))
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**config)
    assert preprocessing.squash == (config["crop_mode"] == "squash")
    for index, folder in enumerate("ab"):
        theirs = transform(Image.open(tmp_path / folder / "x.png"))
        levels = (ours[index] - theirs).abs() * torch.tensor(preprocessing.std).view(3, 1, 1) * 255
        assert levels.mean() <= 0.1
        assert levels.max() <= 4


def test_a_published_network_tells_imagenets_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TimmModel, "_downloaded", lambda self, image_size, **options: self.build(image_size))
    classifier = published_classifier(ModelSpec("resnet18", "timm"))
    assert classifier.network(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
    assert (len(classifier.classes), classifier.classes[0]) == (1000, "tench, Tinca tinca")
    with pytest.raises(UnfreezeError, match=r"the classes of vit_small_patch14_dinov2 .* are not known"):
        published_classifier(ModelSpec("vit_small_patch14_dinov2", "timm"))
