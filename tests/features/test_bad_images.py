"""From awkward files to descriptors: nothing breaks, nothing is silently wrong."""

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval_geometry.datasets import load_image_folder
from retrieval_geometry.features import SiftBagOfWords, extract_descriptors, load_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One scene in several modes and sizes, a flat image, a dot, and files that are no image."""
    place = tmp_path_factory.mktemp("awkward")
    generator = np.random.default_rng(0)
    scene = np.kron(generator.integers(0, 256, (12, 12)), np.ones((8, 8))).astype(np.uint8)
    Image.fromarray(scene).save(place / "grey.png")
    Image.fromarray(np.stack([scene] * 3, -1)).save(place / "rgb.png")
    Image.fromarray(np.stack([scene] * 3 + [np.full_like(scene, 255)], -1)).save(place / "rgba.png")
    Image.fromarray(scene.astype(np.uint16) * 257).save(place / "deep.png")
    Image.fromarray(np.full((96, 96), 77, dtype=np.uint8)).save(place / "flat.png")
    Image.new("RGB", (1, 1), (200, 10, 10)).save(place / "dot.png")
    Image.fromarray(scene[:5]).save(place / "strip.png")
    (place / "broken.png").write_bytes((place / "rgb.png").read_bytes()[:100])
    (place / "notes.txt").write_text("notes")
    return place


@pytest.fixture(scope="module")
def images(folder):
    return load_image_folder(folder)


@pytest.mark.parametrize("name", ["scattering", "squeezenet1_1"])
def test_every_mode_of_a_scene_has_the_same_descriptors(images, name):
    weights = None if name == "scattering" else "random"
    descriptors = extract_descriptors(images, load_backbone(name, weights=weights), progress=False)
    assert descriptors.isfinite().all()
    row = {image_id.partition(".")[0]: descriptors[i] for i, image_id in enumerate(images.ids)}
    for mode in ("grey", "rgba", "deep"):
        assert torch.equal(row[mode], row["rgb"])
    assert {file.path for file in images.skipped} == {"broken.png", "notes.txt"}


def test_flat_images_have_flat_descriptors(images):
    descriptors = extract_descriptors(images, load_backbone(), progress=False)
    for name in ("flat.png", "dot.png"):
        flat = descriptors[images.ids.index(name)]
        assert float(flat.std(dim=0).max()) < 1e-4


def test_visual_words_of_awkward_files(images):
    histograms = SiftBagOfWords(4, progress=False).fit(images).transform(images)
    row = {image_id: histograms[i] for i, image_id in enumerate(images.ids)}
    assert torch.equal(row["grey.png"], row["rgba.png"])
    assert torch.equal(row["grey.png"], row["deep.png"])
    assert row["flat.png"].eq(0).all()
    assert row["dot.png"].eq(0).all()
