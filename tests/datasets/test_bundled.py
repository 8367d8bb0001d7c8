"""Photo textures: 18 photographs of two wheels, cut into patches."""

import itertools
from collections import Counter

import pytest
import torch

from retrieval_geometry.datasets import PHOTOGRAPHS, bundled, photo_textures
from retrieval_geometry.datasets.bundled import FLAT, MAX_PATCHES, MIN_PATCHES


@pytest.fixture(scope="module")
def images():
    return photo_textures()


def test_eighteen_photographs_with_twelve_to_twenty_four_patches_each(images):
    counts = Counter(images.labels.tolist())
    assert len(images) == 396
    assert len(images.classes) == len(PHOTOGRAPHS) == len(counts) == 18
    assert min(counts.values()) >= MIN_PATCHES
    assert max(counts.values()) == MAX_PATCHES


def test_ids_name_the_photograph_and_the_patch(images):
    for position, (image_id, label) in enumerate(zip(images.ids, images.labels.tolist(), strict=True)):
        name, number = image_id.split("/")
        assert name == images.classes[label]
        assert int(number) == position - images.labels.tolist().index(label)


def test_the_set_is_the_same_from_call_to_call(images):
    again = photo_textures()
    assert (again.ids, again.sha256) == (images.ids, images.sha256)
    assert torch.equal(again.load(100), images.load(100))
    assert photo_textures(64).sha256 != images.sha256


def test_patches_are_uint8_rgb_and_show_something(images):
    for i in range(0, len(images), 7):
        patch = images.load(i)
        assert patch.dtype == torch.uint8
        assert patch.shape == (3, 96, 96)
        assert patch.double().mean(0).std(correction=0) >= FLAT


def test_patches_of_one_photograph_do_not_overlap():
    for photo in PHOTOGRAPHS:
        corners = bundled._patch_corners(photo, 96, MAX_PATCHES)
        assert all(
            abs(y1 - y2) >= 96 or abs(x1 - x2) >= 96
            for (y1, x1), (y2, x2) in itertools.combinations(corners, 2)
        )


def test_no_two_patches_are_alike(images):
    thumbnails = torch.stack([images.load(i)[:, ::12, ::12].flatten() for i in range(len(images))])
    assert len(thumbnails.unique(dim=0)) == len(images)


def test_every_photograph_is_credited():
    assert all(photo.subject and photo.author and photo.licence for photo in PHOTOGRAPHS)
    assert len({photo.name for photo in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    assert [photo.name for photo in PHOTOGRAPHS] == sorted(photo.name for photo in PHOTOGRAPHS)


def test_larger_patches_leave_fewer_photographs():
    large = photo_textures(160)
    assert len(large.classes) == 4
    assert large.load(0).shape == (3, 160, 160)


def test_a_few_patches_of_each_photograph_lie_apart():
    few = photo_textures(28, 16)
    assert max(few.labels.bincount().tolist()) == 16
    for photo in PHOTOGRAPHS:
        corners = bundled._patch_corners(photo, 28, 16)
        assert corners[0] == bundled._patch_corners(photo, 28, 1000)[0]
        assert corners[-1] == bundled._patch_corners(photo, 28, 1000)[-1]


def test_too_few_patches_are_no_class():
    with pytest.raises(ValueError, match="most must be a whole number at least 12, got 11"):
        photo_textures(96, 11)


@pytest.mark.parametrize(
    ("patch", "message"),
    [(4, "patch must be .* at least 8"), (600, "take a smaller one"), (9.5, "whole number")],
)
def test_patch_size_out_of_range(patch, message):
    with pytest.raises(ValueError, match=message):
        photo_textures(patch)


def test_a_missing_photograph_is_named(monkeypatch):
    lost = bundled.Photograph("lost", "skimage", "data/lost.png", "", "", "")
    with pytest.raises(FileNotFoundError, match=r"data/lost\.png is missing from the installed skimage"):
        bundled._photograph_path(lost)
    with pytest.raises(FileNotFoundError, match="no_such_package"):
        bundled._photograph_path(bundled.Photograph("x", "no_such_package", "x.png", "", "", ""))
