"""Resizing and cutting, against torchvision."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from retrieval_geometry.features._resizing import MAX_ASPECT, cut_middle, resize_shorter_side


def drawn_images(n):
    """Images of drawn sizes, in both layouts of memory, with a drawn side and a drawn window."""
    generator = torch.Generator().manual_seed(0)
    for k in range(n):
        height, width, side, *window = torch.randint(1, 120, (5,), generator=generator).tolist()
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        yield image if k % 2 else image.permute(1, 2, 0).contiguous().permute(2, 0, 1), side, window


def test_an_image_is_resized_to_the_bits_of_torchvision():
    for image, side, _ in drawn_images(100):
        longest = MAX_ASPECT * min(image.shape[1:])
        middle = reference.center_crop(image, [min(length, longest) for length in image.shape[1:]])
        expected = reference.resize(middle.float(), [side], antialias=True)
        assert torch.equal(resize_shorter_side(image.float(), side), expected)


def test_the_middle_is_that_of_torchvision():
    for image, _, window in drawn_images(100):
        assert torch.equal(cut_middle(image, *window), reference.center_crop(image, window))


@pytest.mark.parametrize("shape", [(3, 1, 300_000), (3, 300_000, 1)])
def test_a_very_long_image_takes_little_memory(shape):
    assert resize_shorter_side(torch.zeros(shape), 96).numel() == 3 * 96 * MAX_ASPECT * 96
