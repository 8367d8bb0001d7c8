"""Random changes of the images of a batch: small maps, drawn from the seed for the whole batch."""

import math

import pytest
import torch

from retrieval_geometry.training import Augmentation
from retrieval_geometry.training._affine import inverse_maps, warp

AFFINE = {"rotation": 20.0, "shear": 15.0, "scale": 0.3}


def pixels(n: int = 12, side: int = 12, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side, side), generator=generator).byte()


def apply(augment: Augmentation, images: torch.Tensor, seed: int = 0, share: slice = slice(None)):
    generator = torch.Generator().manual_seed(seed)
    return augment.apply(images[share], generator, share, len(images))


def test_without_strength_nothing_changes():
    images = pixels()
    assert torch.equal(apply(Augmentation(), images), images)
    generator = torch.Generator().manual_seed(0)
    maps = inverse_maps(torch.rand(12, 3, generator=generator), 0.0, 0.0, 0.0)
    torch.testing.assert_close(maps, torch.eye(2).expand(12, 2, 2))
    assert torch.equal(warp(images, maps), images)
    weak = Augmentation(rotation=1e-4, shear=1e-4, scale=1e-6)  # no grey level is moved by a half
    assert torch.equal(apply(weak, images), images)


@pytest.mark.parametrize("settings", [AFFINE, {**AFFINE, "shift": 2, "flip": True}])
def test_an_image_changes_alike_however_the_batch_is_shared_out(settings):
    augment, images = Augmentation(**settings), pixels()
    whole = apply(augment, images)
    for size in (1, 3, 4, 6):
        shares = [slice(start, start + size) for start in range(0, 12, size)]
        assert torch.equal(torch.cat([apply(augment, images, share=share) for share in shares]), whole)


def test_the_seed_decides_and_every_image_has_a_map_of_its_own():
    augment = Augmentation(**AFFINE)
    same = pixels(1).expand(8, -1, -1, -1).contiguous()
    first = apply(augment, same)
    assert torch.equal(apply(augment, same), first)
    assert not torch.equal(apply(augment, same, seed=1), first)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 8


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("strength", [{"rotation": 90.0}, {"shear": 45.0}, {"scale": 1.0}, AFFINE])
def test_dtype_and_range_are_kept(dtype, strength):
    images = pixels() if dtype == torch.uint8 else pixels().to(dtype) / 255
    found = apply(Augmentation(**strength), images)
    assert found.dtype == dtype
    assert found.shape == images.shape
    assert found.min() >= images.min()
    assert found.max() <= images.max()
    constant = torch.full_like(images, 200) if dtype == torch.uint8 else torch.full_like(images, 0.7)
    assert torch.equal(apply(Augmentation(**strength), constant), constant)


def test_shift_shows_what_lies_beyond_the_middle():
    images = pixels(side=16)
    found = apply(Augmentation(shift=2), images)
    assert found.shape[-1] == 12
    crops = [images[:, :, y : y + 12, x : x + 12] for y in range(5) for x in range(5)]
    assert all(any(torch.equal(found[i], crop[i]) for crop in crops) for i in range(12))


def test_maps_are_those_of_rotation_shear_and_size():
    """The inverse of size times rotation times shear, and no larger than asked for."""
    draws = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [-0.5, 0.25, -1.0]])
    found = inverse_maps(draws, 30.0, 20.0, 0.5)
    for (turn, lean, size), inverse in zip(draws.tolist(), found, strict=True):
        a, t, s = math.radians(30 * turn), math.tan(math.radians(20 * lean)), 1.5**size
        rotation = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        forward = s * rotation @ torch.tensor([[1.0, t], [0.0, 1.0]])
        torch.testing.assert_close(forward @ inverse, torch.eye(2))


def test_a_quarter_turn_is_rot90():
    images = pixels()
    maps = inverse_maps(torch.tensor([[1.0, 0.0, 0.0]]).expand(12, 3), 90.0, 0.0, 0.0)
    torch.testing.assert_close(warp(images, maps), images.rot90(-1, (2, 3)))  # y points down


def test_an_image_grows_about_its_middle():
    image = torch.zeros(1, 1, 21, 21)
    image[:, :, 8:13, 8:13] = 1.0
    maps = inverse_maps(torch.tensor([[0.0, 0.0, 1.0]]), 0.0, 0.0, 1.0)
    grown = warp(image, maps)[0, 0]
    assert grown[10, 10] == 1
    assert torch.equal(grown, grown.flip(0))
    assert torch.equal(grown, grown.mT)
    assert float(grown.sum()) == pytest.approx(4 * 25, rel=0.05)  # twice as wide, and as high


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shift": -1}, "shift must be"),
        ({"flip": 1.5}, "flip must be"),
        ({"rotation": 200.0}, r"rotation \(degrees\) must be"),
        ({"rotation": float("nan")}, "rotation"),
        ({"shear": 80.0}, r"shear \(degrees\) must be"),
        ({"scale": -0.1}, "scale must be"),
        ({"scale": "big"}, "scale must be"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)
