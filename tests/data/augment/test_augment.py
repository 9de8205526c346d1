"""Presets of the augmentation, and changes of single values."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from tests.data.augment.noise import draws_of, smooth_noise
from unfreeze.data.augment import augment
from unfreeze.data.augment.augment import augment_batch
from unfreeze.data.augment.boxes import FILL, random_erase
from unfreeze.data.augment.color import color_jitter
from unfreeze.data.augment.geometry import centre_crop, random_resized_crop
from unfreeze.data.augment.presets import PRESETS, Augmentation, AugmentName, augmentation
from unfreeze.data.augment.randaugment import SPACES, apply_ops

NAMES = tuple(PRESETS)
RANDOM = NAMES[1:]


def augmented(images: Tensor, name: AugmentName, *, epoch: int = 0, crop_px: int = 32, mirror: bool = True) -> Tensor:
    draws = draws_of(len(images), epoch=epoch)
    return augment_batch(images, draws, how=PRESETS[name], crop_px=crop_px, mirror=mirror)


class TestBatches:
    @pytest.mark.parametrize("name", NAMES)
    def test_an_image_comes_out_the_same_however_batches_are_cut(self, name: AugmentName) -> None:
        images, draws = smooth_noise(12), draws_of(12)
        whole = augment_batch(images, draws, how=PRESETS[name], crop_px=32, mirror=True)
        order = torch.tensor([7, 0, 11, 3, 5])
        for part in (order[:1], order[:3], order):
            alone = augment_batch(images[part], draws[part], how=PRESETS[name], crop_px=32, mirror=True)
            assert torch.equal(alone, whole[part])

    @pytest.mark.parametrize("name", NAMES)
    def test_large_batches_are_worked_on_in_chunks_that_change_nothing(
        self, name: AugmentName, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = smooth_noise(25)
        whole = augmented(images, name)
        monkeypatch.setattr(augment, "_CHUNK", 4 * images[0].numel())
        assert torch.equal(augmented(images, name), whole)

    @pytest.mark.parametrize("name", RANDOM)
    def test_images_and_epochs_draw_for_themselves(self, name: AugmentName) -> None:
        images = smooth_noise(1).expand(30, -1, -1, -1)
        first, second = (augmented(images, name, epoch=epoch) for epoch in (0, 1))
        assert torch.equal(augmented(images, name), first)
        assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) > 50

    @given(
        name=st.sampled_from(NAMES),
        count=st.integers(0, 5),
        channels=st.integers(1, 4),
        crop_px=st.integers(8, 24),
        margins=st.tuples(st.integers(0, 20), st.integers(0, 20)),
        mirror=st.booleans(),
        dtype=st.sampled_from([torch.uint8, torch.float32]),
    )
    @settings(deadline=None)
    def test_shapes_and_ranges(
        self,
        name: AugmentName,
        count: int,
        channels: int,
        crop_px: int,
        margins: tuple[int, int],
        mirror: bool,
        dtype: torch.dtype,
    ) -> None:
        height, width = (crop_px + margin for margin in margins)
        images = smooth_noise(count, height, width, channels).to(dtype)
        before = images.clone()
        result = augmented(images, name, crop_px=crop_px, mirror=mirror)
        assert result.shape == (count, channels, crop_px, crop_px)
        assert result.dtype in (torch.uint8, torch.float32)
        assert ((result >= 0) & (result <= 255.001)).all()
        assert torch.equal(images, before)


def ramp(count: int, size: int = 48) -> Tensor:
    """Return images that get brighter from left to right."""
    return torch.linspace(20, 235, size).to(torch.uint8).expand(count, 3, size, size).contiguous()


def is_mirrored(images: Tensor) -> Tensor:
    half = images.shape[-1] // 2
    return images[..., :half].float().mean(dim=(1, 2, 3)) > images[..., -half:].float().mean(dim=(1, 2, 3))


class TestMirror:
    @pytest.mark.parametrize("name", ["none", "light", "standard"])
    def test_where_it_is_not_allowed_nothing_is_mirrored(self, name: AugmentName) -> None:
        assert not is_mirrored(augmented(ramp(300), name, mirror=False)).any()

    def test_without_what_else_turns_brightness_round_strong_does_not_mirror_either(self) -> None:
        how = augmentation("strong", ops="none", erase=0.0)
        assert not is_mirrored(augment_batch(ramp(300), draws_of(300), how=how, crop_px=32, mirror=False)).any()

    @pytest.mark.parametrize("name", RANDOM)
    def test_where_it_is_allowed_half_of_the_images_are(self, name: AugmentName) -> None:
        assert 0.42 < is_mirrored(augmented(ramp(400), name)).float().mean() < 0.58

    def test_none_never_mirrors(self) -> None:
        assert not is_mirrored(augmented(ramp(50), "none")).any()


class TestPresets:
    def test_none_is_the_centre_crop_of_evaluation(self) -> None:
        images = smooth_noise(3)
        assert torch.equal(augmented(images, "none"), F.center_crop(images, [32, 32]))
        assert torch.equal(augmented(images, "none", epoch=5), F.center_crop(images, [32, 32]))

    def test_light_cuts_at_full_scale(self) -> None:
        for image, result in zip(smooth_noise(20), augmented(smooth_noise(20), "light"), strict=True):
            windows = image.unfold(1, 32, 1).unfold(2, 32, 1)
            upright = (windows == result[:, None, None]).all(dim=(0, 3, 4)).any()
            mirrored = (windows == result.flip(-1)[:, None, None]).all(dim=(0, 3, 4)).any()
            assert upright or mirrored

    def test_standard_is_a_box_and_then_its_colours(self) -> None:
        images, draws = smooth_noise(9), draws_of(9)
        boxes = random_resized_crop(images, draws, crop_px=32, min_area=0.35, degrees=10, mirror=True)
        assert torch.equal(augmented(images, "standard"), color_jitter(boxes, draws, strength=0.2))

    def test_strong_is_a_box_two_operations_and_erasing(self) -> None:
        images, draws = smooth_noise(40), draws_of(40)
        boxes = random_resized_crop(images, draws, crop_px=32, min_area=0.15, degrees=15, mirror=True)
        expected = random_erase(apply_ops(boxes, draws, space=SPACES["randaugment"]), draws, probability=0.25)
        assert torch.equal(augmented(images, "strong"), expected)

    def test_only_strong_mixes(self) -> None:
        assert [name for name in NAMES if PRESETS[name].is_mixing] == ["strong"]


class TestKnobs:
    @pytest.mark.parametrize("name", NAMES)
    def test_untouched_they_leave_the_preset_as_it_is(self, name: AugmentName) -> None:
        untouched = {field.name: None for field in fields(Augmentation)}
        assert augmentation(name) == augmentation(name, **untouched) == PRESETS[name]

    @pytest.mark.parametrize(
        ("name", "changes", "mixes"),
        [
            ("light", {"mixup": 0.2}, True),
            ("light", {"cutmix": 1.0}, True),
            ("light", {"mix": 0.5}, False),
            ("strong", {"mixup": 0.0}, True),
            ("strong", {"mixup": 0.0, "cutmix": 0.0}, False),
            ("strong", {"mix": 0.0}, False),
        ],
    )
    def test_mixing_needs_a_kind_and_a_probability(
        self, name: AugmentName, changes: dict[str, Any], mixes: bool
    ) -> None:
        assert augmentation(name, **changes).is_mixing is mixes

    def test_operations_and_erasing_can_be_added_to_any_preset(self) -> None:
        images, draws = smooth_noise(30), draws_of(30)
        how = augmentation("none", ops="trivial", erase=1.0)
        expected = apply_ops(centre_crop(images, crop_px=32), draws, space=SPACES["trivial"])
        result = augment_batch(images, draws, how=how, crop_px=32, mirror=True)
        assert torch.equal(result, random_erase(expected, draws, probability=1.0))
        assert (result == FILL).flatten(1).any(dim=1).all()
