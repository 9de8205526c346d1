"""Crops, boxes and affine maps compared with Pillow on single images."""

import math

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from tests.data.augment.noise import draws_of, from_pil, smooth_noise, to_pil
from unfreeze.data.augment.draws import Draw
from unfreeze.data.augment.geometry import box_matrices, centre_crop, random_resized_crop, shift_and_mirror, warp


def drawn_box(draws: Tensor, height: int, width: int, *, min_area: float) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the box of one image, by plain arithmetic."""
    area = (min_area + (1 - min_area) * draws[Draw.AREA].item()) * height * width
    ratio = (4 / 3) ** (2 * draws[Draw.RATIO].item() - 1)
    box_width, box_height = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left = draws[Draw.LEFT].item() * (width - box_width)
    top = draws[Draw.TOP].item() * (height - box_height)
    return left, top, left + box_width, top + box_height


@pytest.mark.parametrize(("height", "width"), [(40, 48), (33, 32), (35, 41), (32, 32)])
def test_the_centre_crop_is_torchvisions(height: int, width: int) -> None:
    images = smooth_noise(3, height, width)
    assert torch.equal(centre_crop(images, crop_px=32), F.center_crop(images, [32, 32]))


class TestShift:
    @pytest.mark.parametrize(("height", "width", "crop_px"), [(40, 48, 32), (32, 32, 32), (33, 70, 31), (8, 9, 8)])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_it_is_exactly_what_padding_cropping_and_mirroring_one_image_gives(
        self, height: int, width: int, crop_px: int, channels: int
    ) -> None:
        images, draws = smooth_noise(30, height, width, channels), draws_of(30)
        results = shift_and_mirror(images, draws, crop_px=crop_px, mirror=True)
        room = crop_px + crop_px // 8
        down, across = (max(0, math.ceil((room - side) / 2)) for side in (height, width))
        for image, result, draw in zip(images, results, draws, strict=True):
            padded = F.pad(image, [across, down, across, down], padding_mode="reflect")
            top = int(draw[Draw.TOP] * (height + 2 * down - crop_px + 1))
            left = int(draw[Draw.LEFT] * (width + 2 * across - crop_px + 1))
            expected = F.crop(padded, top, left, crop_px, crop_px)
            if draw[Draw.MIRROR] < 0.5:
                expected = F.horizontal_flip(expected)
            assert torch.equal(result, expected)

    def test_every_place_is_chosen_about_as_often(self) -> None:
        count = 3000
        place = (torch.arange(36)[:, None] * 6 + torch.arange(36)).remainder(251).to(torch.uint8)
        images = place.expand(count, 1, 36, 36)
        corners = shift_and_mirror(images, draws_of(count), crop_px=32, mirror=False)[:, 0, 0, 0]
        counts = torch.stack([(corners == place[row, column]).sum() for row in range(5) for column in range(5)])
        assert counts.sum() == count
        assert counts.min() > 0.6 * count / 25
        assert counts.max() < 1.4 * count / 25

    def test_an_image_without_room_is_shifted_over_its_reflection(self) -> None:
        images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(200, 1, 8, 8)
        results = shift_and_mirror(images, draws_of(200), crop_px=8, mirror=False)
        assert len(results.unique(dim=0)) == 9


class TestResizedCrop:
    """Pillow rounds twice, after rows and after columns: a level of difference."""

    @pytest.mark.parametrize(("height", "width"), [(40, 48), (32, 32), (30, 45)])
    @pytest.mark.parametrize("mirror", [True, False])
    def test_it_is_what_pillow_makes_of_the_same_box(self, height: int, width: int, mirror: bool) -> None:
        images, draws = smooth_noise(40, height, width), draws_of(40)
        results = random_resized_crop(images, draws, crop_px=48, min_area=0.2, degrees=0, mirror=mirror)
        for image, result, draw in zip(images, results, draws, strict=True):
            box = drawn_box(draw, height, width, min_area=0.2)
            picture = to_pil(image).resize((48, 48), Image.Resampling.BILINEAR, box=box)
            if mirror and draw[Draw.MIRROR] < 0.5:
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            assert (result - from_pil(picture)).abs().max() <= 1.01

    def test_a_box_of_the_crops_own_size_comes_out_as_it_is(self) -> None:
        images = smooth_noise(4, 40, 48)
        boxes = torch.tensor([[3, 5, 32, 32]]).expand(4, -1).float()
        matrices = box_matrices(boxes, torch.zeros(4), torch.tensor([False, True, False, True]), crop_px=32)
        results = warp(images.float(), matrices, size_px=(32, 32), padding="reflection")
        cut = images[..., 5:37, 3:35].float()
        for result, expected in zip(results, [cut[0], cut[1].flip(-1), cut[2], cut[3].flip(-1)], strict=True):
            torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)

    def test_images_are_turned_as_pillow_turns_them(self) -> None:
        images = smooth_noise(12, 40, 48)
        boxes = torch.tensor([[4.5, 3.0, 36.0, 30.0]]).expand(12, -1)
        angles = torch.linspace(-0.5, 0.5, 12)
        mirrored = torch.arange(12) % 2 == 0
        matrices = box_matrices(boxes, angles, mirrored, crop_px=44)
        results = warp(images.float(), matrices, size_px=(44, 44), padding="reflection")
        for image, result, matrix in zip(images, results, matrices, strict=True):
            coefficients = matrix.flatten().tolist()
            arguments = ((44, 44), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
            inside = from_pil(Image.new("L", (48, 40), 255).transform(*arguments))[0] == 255
            assert inside.float().mean() > 0.8
            assert (result - from_pil(to_pil(image).transform(*arguments)))[:, inside].abs().max() <= 1.01

    def test_a_turn_keeps_the_boxs_centre_and_right_angles(self) -> None:
        boxes, angles = torch.tensor([[2.0, 3.0, 20.0, 10.0]]), torch.tensor([0.3])
        (matrix,) = box_matrices(boxes, angles, torch.tensor([False]), crop_px=16)
        torch.testing.assert_close(matrix @ torch.tensor([8.0, 8.0, 1.0]), torch.tensor([12.0, 8.0]))
        across, down = matrix[:, 0], matrix[:, 1]
        torch.testing.assert_close(across @ down, torch.tensor(0.0))
        torch.testing.assert_close(torch.stack([across.norm(), down.norm()]) * 16, torch.tensor([20.0, 10.0]))
        assert math.atan2(across[1], across[0]) == pytest.approx(0.3)

    def test_boxes_have_the_areas_and_shapes_of_the_paper_whatever_the_images_shape(self) -> None:
        boxes = [drawn_box(draw, 40, 80, min_area=0.1) for draw in draws_of(2000)]
        sizes = [(right - left, bottom - top) for left, top, right, bottom in boxes]
        shares = torch.tensor([width * height / 3200 for width, height in sizes])
        ratios = torch.tensor([width / height for width, height in sizes if height < 40])
        assert 0.1 <= shares.min() < 0.12
        assert 0.75 - 1e-4 <= ratios.min() < 0.77
        assert 1.3 < ratios.max() <= 4 / 3 + 1e-4
