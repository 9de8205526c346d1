"""Augmentation: what is drawn depends on seed, epoch and image alone, and does what it says."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unfreeze.data.augment import DRAWS, AugmentName, augment_batch, uniform_draws

NAMES: tuple[AugmentName, ...] = ("none", "light", "standard", "strong")
RANDOM = NAMES[1:]


def photos(count: int, height: int = 40, width: int = 48, channels: int = 3) -> Tensor:
    """Return noise that is smooth enough to be resampled."""
    coarse = torch.randint(0, 256, (count, channels, 6, 7), generator=torch.Generator().manual_seed(0))
    return F.resize(coarse.to(torch.uint8), [height, width])


def draws_of(count: int, *, seed: int = 0, epoch: int = 0) -> Tensor:
    return uniform_draws(seed=seed, epoch=epoch, indices=torch.arange(count))


def augmented(images: Tensor, name: AugmentName, *, epoch: int = 0, crop_px: int = 32, mirror: bool = True) -> Tensor:
    return augment_batch(images, draws_of(len(images), epoch=epoch), name=name, crop_px=crop_px, mirror=mirror)


class TestDraws:
    def test_they_lie_between_0_and_1_and_have_their_shape(self) -> None:
        draws = draws_of(5000)
        assert draws.shape == (5000, DRAWS)
        assert draws.dtype == torch.float32
        assert draws.min() >= 0
        assert draws.max() < 1

    @pytest.mark.parametrize("epoch", [0, 1, 99])
    def test_each_column_is_uniform(self, epoch: int) -> None:
        draws = draws_of(20_000, seed=epoch + 5, epoch=epoch).sort(dim=0).values
        expected = (torch.arange(20_000) + 0.5)[:, None] / 20_000
        # Kolmogorov-Smirnov: beyond 1.95 / sqrt(n) once in a thousand columns.
        assert (draws - expected).abs().max() < 1.95 / 20_000**0.5

    def test_neighbours_are_independent(self) -> None:
        draws = draws_of(20_000) - 0.5
        between_columns = torch.corrcoef(draws.T) - torch.eye(DRAWS)
        assert between_columns.abs().max() < 0.04
        for other in (draws.roll(1, dims=0), draws_of(20_000, epoch=1) - 0.5, draws_of(20_000, seed=1) - 0.5):
            assert ((draws * other).mean(dim=0) * 12).abs().max() < 0.04

    def test_seed_epoch_and_image_decide_and_nothing_else(self) -> None:
        draws = draws_of(100, seed=7, epoch=3)
        torch.manual_seed(5)
        shuffled = torch.randperm(100)
        assert torch.equal(uniform_draws(seed=7, epoch=3, indices=shuffled), draws[shuffled])
        assert not torch.equal(draws_of(100, seed=8, epoch=3), draws)
        assert not torch.equal(draws_of(100, seed=7, epoch=4), draws)
        assert len(draws.unique()) == draws.numel() or len(draws.unique()) > draws.numel() - 3

    def test_the_next_epoch_of_a_seed_is_not_an_epoch_of_the_next_seed(self) -> None:
        first = {tuple(draws_of(1, seed=0, epoch=epoch)[0].tolist()) for epoch in range(50)}
        second = {tuple(draws_of(1, seed=1, epoch=epoch)[0].tolist()) for epoch in range(50)}
        assert len(first) == len(second) == 50
        assert not first & second

    @pytest.mark.parametrize("seed", [0, 2**32 - 1])
    def test_large_seeds_epochs_and_images_will_do(self, seed: int) -> None:
        draws = uniform_draws(seed=seed, epoch=10**6, indices=torch.tensor([0, 2**40]))
        assert draws.isfinite().all()
        assert 0 <= draws.min() <= draws.max() < 1


class TestBatches:
    @pytest.mark.parametrize("name", NAMES)
    def test_an_image_comes_out_the_same_however_batches_are_cut(self, name: AugmentName) -> None:
        images, draws = photos(12), draws_of(12)
        whole = augment_batch(images, draws, name=name, crop_px=32, mirror=True)
        order = torch.tensor([7, 0, 11, 3, 5])
        for part in (order[:1], order[:3], order):
            alone = augment_batch(images[part], draws[part], name=name, crop_px=32, mirror=True)
            assert torch.equal(alone, whole[part])

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(("height", "width", "crop_px"), [(40, 48, 32), (32, 32, 32), (8, 8, 8), (33, 70, 31)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_shapes_and_ranges(self, name: AugmentName, height: int, width: int, crop_px: int, channels: int) -> None:
        images = photos(4, height, width, channels)
        before = images.clone()
        result = augmented(images, name, crop_px=crop_px)
        assert result.shape == (4, channels, crop_px, crop_px)
        assert result.dtype in (torch.uint8, torch.float32)
        assert 0 <= result.min() <= result.max() <= 255
        assert torch.equal(images, before)

    @pytest.mark.parametrize("name", RANDOM)
    def test_each_epoch_shows_an_image_otherwise(self, name: AugmentName) -> None:
        images = photos(16)
        first, second = (augmented(images, name, epoch=epoch).float() for epoch in (0, 1))
        assert ((first - second).abs().amax(dim=(1, 2, 3)) > 0).float().mean() > 0.9

    @pytest.mark.parametrize(("height", "width"), [(40, 48), (33, 32), (35, 41), (32, 32)])
    def test_none_is_the_centre_crop_of_evaluation(self, height: int, width: int) -> None:
        images = photos(3, height, width)
        assert torch.equal(augmented(images, "none"), F.center_crop(images, [32, 32]))
        assert torch.equal(augmented(images, "none", epoch=5), F.center_crop(images, [32, 32]))


def ramp(count: int, size: int = 48) -> Tensor:
    """Return images that get brighter from left to right."""
    return torch.linspace(20, 235, size).to(torch.uint8).expand(count, 3, size, size).contiguous()


def is_mirrored(images: Tensor) -> Tensor:
    half = images.shape[-1] // 2
    return images[..., :half].float().mean(dim=(1, 2, 3)) > images[..., -half:].float().mean(dim=(1, 2, 3))


class TestMirror:
    @pytest.mark.parametrize("name", NAMES)
    def test_where_it_is_not_allowed_nothing_is_mirrored(self, name: AugmentName) -> None:
        assert not is_mirrored(augmented(ramp(300), name, mirror=False)).any()

    @pytest.mark.parametrize("name", RANDOM)
    def test_where_it_is_allowed_half_of_the_images_are(self, name: AugmentName) -> None:
        assert 0.42 < is_mirrored(augmented(ramp(400), name)).float().mean() < 0.58

    def test_none_never_mirrors(self) -> None:
        assert not is_mirrored(augmented(ramp(50), "none")).any()


class TestLight:
    def test_every_result_is_a_part_of_its_image_mirrored_or_not(self) -> None:
        images = photos(20, 40, 44)
        for image, result in zip(images, augmented(images, "light"), strict=True):
            windows = image.unfold(1, 32, 1).unfold(2, 32, 1)
            same = (windows == result[:, None, None]) | (windows == result.flip(-1)[:, None, None])
            upright = (windows == result[:, None, None]).all(dim=(0, 3, 4)).any()
            mirrored = (windows == result.flip(-1)[:, None, None]).all(dim=(0, 3, 4)).any()
            assert same.any()
            assert upright or mirrored

    def test_every_place_is_chosen_about_as_often(self) -> None:
        count = 3000
        place = (torch.arange(36)[:, None] * 6 + torch.arange(36)).remainder(251).to(torch.uint8)
        corners = augmented(place.expand(count, 1, 36, 36).contiguous(), "light", mirror=False)[:, 0, 0, 0]
        counts = torch.stack([(corners == place[row, column]).sum() for row in range(5) for column in range(5)])
        assert counts.sum() == count
        assert counts.min() > 0.6 * count / 25
        assert counts.max() < 1.4 * count / 25

    def test_an_image_without_room_is_padded_by_reflection(self) -> None:
        images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(200, 1, 8, 8).contiguous()
        results = augmented(images, "light", crop_px=8, mirror=False)
        assert len(results.unique(dim=0)) > 1
        assert set(results.unique().tolist()) <= set(range(64))


class TestColour:
    def test_standard_scales_brightness_by_a_fifth_at_most(self) -> None:
        grey = torch.full((500, 3, 16, 16), 100, dtype=torch.uint8)
        levels = augmented(grey, "standard", crop_px=16).mean(dim=(1, 2, 3))
        assert 79.9 < levels.min() < 82
        assert 118 < levels.max() < 120.1
        assert levels.mean().item() == pytest.approx(100, abs=2)

    def test_strong_erases_boxes_in_a_quarter_of_the_images(self) -> None:
        black = torch.zeros(800, 3, 40, 40, dtype=torch.uint8)
        results = augmented(black, "strong", crop_px=40)
        assert set(results.unique().tolist()) == {0.0, 127.5}
        share = (results[:, 0] > 0).float().mean(dim=(1, 2))
        assert 0.2 < (share > 0).float().mean() < 0.3
        assert share[share > 0].min() > 0.005
        assert share.max() < 0.25
