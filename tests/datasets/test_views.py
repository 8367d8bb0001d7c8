import pytest
import torch

from retrieval_geometry.datasets import ImageSet, photo_textures, random_views


@pytest.fixture(scope="module")
def images() -> ImageSet:
    textures = photo_textures()
    return textures.subset(range(0, len(textures), 40))


def test_the_images_come_first_as_they_are(images: ImageSet) -> None:
    views = random_views(images, 3)
    assert views.ids[: len(images)] == images.ids
    assert len(views) == 3 * len(images)
    assert torch.equal(views.load(1), images.load(1))
    assert torch.equal(views.labels, images.labels.repeat(3))


def test_a_view_depends_on_its_image_and_number_alone(images: ImageSet) -> None:
    all_views, some = random_views(images, 3), random_views(images.subset([2, 0]), 2)
    place = {name: i for i, name in enumerate(all_views.ids)}
    for i, name in enumerate(some.ids):
        assert torch.equal(some.load(i), all_views.load(place[name]))
    assert some.sha256 == all_views.sha256


def test_views_differ_by_seed_and_number(images: ImageSet) -> None:
    n = len(images)
    one, other = random_views(images, 3), random_views(images, 3, seed=1)
    assert one.sha256 != other.sha256
    shapes = {tuple(views.load(k * n).shape) for views in (one, other) for k in (1, 2)}
    assert len(shapes) > 1


def test_a_crop_keeps_its_share_and_pixels_of_the_image() -> None:
    numbers = torch.arange(60 * 80, dtype=torch.int32).view(60, 80)
    image = torch.stack([numbers % 256, numbers // 256, torch.zeros_like(numbers)]).to(torch.uint8)
    alone = ImageSet("one", torch.zeros(1, dtype=torch.int64), ("a",), ("a/1",), "0" * 64, lambda name: image)
    views, mirrored = random_views(alone, 41, smallest=0.4), 0
    for i in range(1, 41):
        found = views.load(i).to(torch.int32)
        where = found[0] + 256 * found[1]
        # A crop is a block of consecutive columns and rows, read one way or the other.
        steps = where.diff(dim=1).unique().tolist()
        assert steps in ([1], [-1])
        assert where.diff(dim=0).unique().tolist() == [80]
        mirrored += steps == [-1]
        share = where.numel() / numbers.numel()
        assert 0.3 < share <= 1, "shares are clamped where a stretched crop would reach beyond the image"
    assert 10 < mirrored < 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_views": 0}, "n_views"),
        ({"smallest": 0}, "smallest"),
        ({"smallest": 1.5}, "smallest"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_named(images: ImageSet, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_views(images, **settings)
