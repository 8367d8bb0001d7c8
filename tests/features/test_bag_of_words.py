"""The bag of visual words: histograms, flat images, refusals."""

import numpy as np
import pytest
import torch
from sklearn.metrics import pairwise_distances

from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import SiftBagOfWords
from retrieval_geometry.features.bag_of_words import sift_descriptors


def _image_set(pixels):
    ids = tuple(f"image/{i}" for i in range(len(pixels)))
    return ImageSet(
        "toy", torch.zeros(len(ids), dtype=torch.long), ("image",), ids, "0",
        dict(zip(ids, pixels, strict=True)).__getitem__,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images():
    """Five images of blots, and a flat one."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(5, 1, 10, 10, generator=generator)
    blots = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").clamp(0, 1)
    pixels = [(255 * blot).to(torch.uint8).expand(3, 64, 64) for blot in blots]
    return _image_set([*pixels, torch.full((3, 64, 64), 90, dtype=torch.uint8)])


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_histograms_count_the_nearest_words(images, norm):
    bag = SiftBagOfWords(12, norm, progress=False).fit(images)
    histograms = bag.transform(images)
    assert histograms.shape == (6, 12)
    assert bag.words.shape == (12, 128)
    compared = 0
    for i in range(5):
        distances = pairwise_distances(sift_descriptors(images.load(i)).astype(float), bag.words.double())
        first, second = np.sort(distances, axis=1)[:, :2].T
        counts = np.bincount(distances.argmin(axis=1), minlength=12)
        expected = counts / np.linalg.norm(counts, ord=int(norm[1]))
        if (first < (1 - 1e-4) * second).all():  # where float32 knows the nearest word
            compared += 1
            np.testing.assert_allclose(histograms[i], expected, rtol=1e-6)
    assert compared


def test_a_flat_image_has_a_zero_histogram(images):
    histograms = SiftBagOfWords(5, progress=False).fit(images).transform(images)
    assert histograms[5].eq(0).all()
    torch.testing.assert_close(histograms[:5].norm(dim=1), torch.ones(5))


def test_the_seed_decides(images):
    one, same, other = (SiftBagOfWords(8, seed=seed, progress=False).fit(images).words for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_new_images_are_described_by_old_words(images):
    bag = SiftBagOfWords(8, progress=False).fit(images.subset([0, 1, 2]))
    together, alone = bag.transform(images), bag.transform(images.subset([4]))
    torch.testing.assert_close(together[4], alone[0])
    assert bag.transform(images.subset([])).shape == (0, 8)


def test_the_draw_of_descriptors_is_limited(images, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "sklearn.cluster.MiniBatchKMeans.fit",
        lambda self, samples: seen.append(len(samples)) or self,
    )
    SiftBagOfWords(3, max_descriptors=12, progress=False).fit(images)
    assert 3 <= seen[0] <= 12


def test_too_few_descriptors(images):
    with pytest.raises(
        ValueError, match="n_words = 5 needs as many SIFT descriptors, but the 1 images of toy"
    ):
        SiftBagOfWords(5, progress=False).fit(images.subset([5]))
    with pytest.raises(ValueError, match="have 0"):
        SiftBagOfWords(5, progress=False).fit(images.subset([]))


def test_transform_before_fit(images):
    with pytest.raises(ValueError, match="call fit before transform"):
        SiftBagOfWords().transform(images)


@pytest.mark.parametrize(
    ("arguments", "name"), [((0,), "n_words"), ((5, "max"), "norm"), ((5, "l2", 0), "max_")]
)
def test_settings_out_of_range(arguments, name):
    with pytest.raises(ValueError, match=name):
        SiftBagOfWords(*arguments)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 40), (3, 2, 3)])
def test_tiny_images_have_no_keypoint(shape):
    assert sift_descriptors(torch.zeros(shape, dtype=torch.uint8)).shape == (0, 128)


@pytest.mark.parametrize("image", [torch.rand(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8)])
def test_images_of_another_kind(image):
    with pytest.raises(ValueError, match="image must be uint8"):
        sift_descriptors(image)
