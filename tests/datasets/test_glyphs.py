"""Glyphs: which characters there are, that they differ, and that an id is an image."""

from importlib import import_module

import numpy as np
import pytest
import torch

from retrieval_geometry.datasets import glyphs, handwritten_digits
from retrieval_geometry.datasets._typefaces import FACES, MIN_OUTLINES, choose_characters, glyph_mask


@pytest.fixture(scope="module")
def characters():
    return choose_characters()


def test_hundreds_of_characters_of_many_scripts(characters):
    assert len(characters) >= 400
    names = " ".join(glyphs().classes)
    for word in ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "DIGIT", "ARROW", "INTEGRAL", "SIGN"):
        assert word in names
    assert all(len(faces) >= MIN_OUTLINES for faces in characters.values())
    assert "U+03B1 GREEK SMALL LETTER ALPHA" in glyphs().classes


@pytest.mark.parametrize("group", ["AΑА", "BΒВ", "OΟО", "CcСсϹϲ", "pрρ", ",‚՚’", "‒–―", ".·։⋅"])
def test_of_look_alikes_one_is_kept(characters, group):
    assert [character for character in group if character in characters] == [group[0]]


def test_different_letters_are_kept_and_composed_ones_are_not(characters):
    assert set("ABEFGRαβδяжЩ∀∃←→") <= characters.keys()
    assert not set("äÅ①½") & characters.keys()


def test_a_twin_of_an_outline_counts_once(characters):
    """The oblique faces of DejaVu Sans show arrows upright."""
    upright, oblique = (glyph_mask(face, "→", 48) for face in ("DejaVuSans", "DejaVuSans-Oblique"))
    np.testing.assert_array_equal(upright, oblique)
    assert "DejaVuSans" in characters["→"]
    assert "DejaVuSans-Oblique" not in characters["→"]
    assert set(characters["R"]) == set(FACES)


def test_an_image_depends_on_its_id_and_the_seed_alone():
    images, again, other = glyphs(), glyphs(), glyphs(seed=1)
    picked = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:40].tolist()
    assert all(torch.equal(images.load(i), again.load(i)) for i in reversed(picked))
    assert any(not torch.equal(images.load(i), other.load(i)) for i in picked)
    assert images.sha256 == again.sha256 != other.sha256
    assert len({images.sha256, glyphs(size=40).sha256, glyphs(n_maps=2).sha256}) == 3
    assert len(glyphs(n_maps=1)) * 3 == len(images)


def test_images_are_grey_smooth_of_both_polarities_and_whole():
    images = glyphs(size=48, n_maps=1)
    stack = torch.stack([images.load(i) for i in range(0, len(images), 29)])
    assert stack.shape[1:] == (3, 48, 48)
    assert stack.dtype == torch.uint8
    assert torch.equal(stack[:, 0], stack[:, 2])
    border = torch.cat([stack[:, 0, 0], stack[:, 0, -1], stack[:, 0, :, 0], stack[:, 0, :, -1]], dim=1).int()
    assert ((border - border[:, :1]).abs() < 8).all()  # nothing is cut off
    white = border[:, 0] > 128
    assert 0.35 < white.float().mean() < 0.65
    between = ((stack > 30) & (stack < 225)).flatten(1).any(dim=1)
    assert between.float().mean() > 0.99  # anti-aliased


@pytest.mark.parametrize(
    ("settings", "message"), [({"size": 4}, "size must be"), ({"n_maps": 0}, "n_maps must be")]
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        glyphs(**settings)


def test_digits():
    images = handwritten_digits()
    assert len(images) == 1797
    assert torch.bincount(images.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = torch.stack([images.load(i) for i in range(50)])
    assert pixels.shape == (50, 3, 8, 8)
    assert int(pixels.max()) == 255
    assert images.ids[7].startswith(images.classes[int(images.labels[7])])


def test_what_the_cache_keeps_is_what_would_be_drawn(tmp_path, monkeypatch):
    plain, kept = glyphs(size=8, n_maps=1, seed=3), glyphs(size=8, n_maps=1, seed=3, cache=tmp_path)
    monkeypatch.setattr(import_module("retrieval_geometry.datasets.glyphs"), "choose_characters", None)
    again = glyphs(size=8, n_maps=1, seed=3, cache=tmp_path)
    for images in (kept, again):
        assert (images.ids, images.classes, images.sha256) == (plain.ids, plain.classes, plain.sha256)
        assert torch.equal(images.labels, plain.labels)
        assert all(torch.equal(images.load(i), plain.load(i)) for i in range(0, len(images), 97))


def test_a_damaged_cache_is_drawn_again(tmp_path, capfd):
    glyphs(size=8, n_maps=1, cache=tmp_path)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:])
    glyphs(size=8, n_maps=1, cache=tmp_path)
    assert "it is made again" in capfd.readouterr().err
    assert file.read_bytes() == whole
    glyphs(size=8, n_maps=1, seed=1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
