"""Glyphs: hundreds of classes for zero-shot retrieval that need no download."""

import hashlib
import unicodedata
from functools import lru_cache, partial

import cv2
import numpy as np
import torch
from torch import Tensor

from retrieval_geometry._check import check_count
from retrieval_geometry.datasets._typefaces import FACES, choose_characters, font_file, glyph_mask
from retrieval_geometry.datasets.image_set import ImageSet

MAPS = {"fill": 0.6, "shrink": 0.85, "grow": 1.1, "degrees": 12.0, "shear": 0.15, "shift": 0.05}
"""The longer side of a glyph and its shift are shares of the image's side, the shear is a slope. A glyph at
the ends of all the ranges still lies inside its image."""


def glyphs(size: int = 32, n_maps: int = 3, seed: int = 0) -> ImageSet:
    """Unicode characters rendered in the typefaces that matplotlib ships; a character is a class.

    Source: this package's own. Used in chapter 10.

    DejaVu Sans, Sans Mono and Serif and STIX General, each regular, bold, italic and bold italic, show the
    letters of five scripts, digits, punctuation, arrows, operators and other symbols. A character counts if
    it is in at least 12 of the 16 faces, with at least 8 different outlines, and does not look like one
    before it. Each outline is shown through ``n_maps`` small random affine maps (:data:`MAPS`: scale,
    rotation, shear, shift), white on black or black on white. Images are drawn when they are asked for.

    The classes are in the order of Unicode: split them at random (``class_split(images, 0.5, seed=0)``) to
    have all scripts on both sides, or in their order to meet new scripts.

    Args:
        size: the side of an image in pixels.
        n_maps: images of one outline.
        seed: of the maps; an image depends on it and on its id alone.

    Raises:
        ValueError: ``size`` is below 8, or ``n_maps`` below 1.
        FileNotFoundError: matplotlib is installed without its typefaces.

    Example:
        >>> images = glyphs()
        >>> images.ids[0], images.classes[0], tuple(images.load(0).shape)
        ('U+0021/DejaVuSans/0', 'U+0021 EXCLAMATION MARK', (3, 32, 32))
    """
    check_count(size, "size", at_least=8)
    check_count(n_maps, "n_maps")
    characters = choose_characters()
    ids, labels = [], []
    for label, (character, faces) in enumerate(characters.items()):
        ids += [f"{_code(character)}/{face}/{i}" for face in faces for i in range(n_maps)]
        labels += [label] * (len(faces) * n_maps)
    parts = [_fonts_sha256(), size, n_maps, seed, sorted(MAPS.items()), ids]
    return ImageSet(
        name="glyphs",
        labels=torch.tensor(labels),
        classes=tuple(f"{_code(character)} {unicodedata.name(character)}" for character in characters),
        ids=tuple(ids),
        sha256=hashlib.sha256(repr(parts).encode()).hexdigest(),
        read=partial(_draw, size, seed),
    )


def handwritten_digits() -> ImageSet:
    """Handwritten digits of scikit-learn: 1,797 images of 8 x 8 pixels, ten classes.

    Source: Alpaydin and Kaynak 1998. Used in no chapter.

    They are from the UCI repository (CC BY 4.0), by 43 writers, white on black.

    Example:
        >>> images = handwritten_digits()
        >>> len(images), images.ids[0], tuple(images.load(0).shape)
        (1797, '0/0000', (3, 8, 8))
    """
    pixels, labels = _digits()
    ids = [f"{label}/{i:04d}" for i, label in enumerate(labels.tolist())]
    return ImageSet(
        name="handwritten digits",
        labels=torch.from_numpy(labels),
        classes=tuple("0123456789"),
        ids=tuple(ids),
        sha256=hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest(),
        read=_read_digit,
    )


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def _fonts_sha256() -> list[str]:
    return [hashlib.sha256(font_file(face).read_bytes()).hexdigest() for face in FACES]


@lru_cache(maxsize=256)
def _mask(face: str, character: str, pixels: int) -> np.ndarray:
    """Kept between the maps of one outline."""
    return glyph_mask(face, character, pixels)


def _draw(size: int, seed: int, image_id: str) -> Tensor:
    """Draw one image, uint8 ``(3, size, size)``, at twice its size and then averaged: smooth edges."""
    code, face, _ = image_id.split("/")
    mask = _mask(face, chr(int(code[2:], 16)), 3 * size)
    digest = hashlib.sha256(f"{seed} {image_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    drawn = cv2.warpAffine(mask, _random_map(rng, mask.shape, 2 * size), (2 * size, 2 * size))
    grey = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        grey = 255 - grey
    return torch.from_numpy(grey).expand(3, size, size).contiguous()


def _random_map(rng: np.random.Generator, shape: tuple[int, ...], side: int) -> np.ndarray:
    """An affine map, ``(2, 3)``, from the middle of a mask to about the middle of a square image."""
    scale = MAPS["fill"] * side / max(shape) * rng.uniform(MAPS["shrink"], MAPS["grow"])
    angle = np.deg2rad(rng.uniform(-1, 1) * MAPS["degrees"])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * turn @ np.array([[1.0, rng.uniform(-1, 1) * MAPS["shear"]], [0.0, 1.0]])
    target = side / 2 + rng.uniform(-1, 1, 2) * MAPS["shift"] * side
    centre = np.array([shape[1], shape[0]]) / 2
    return np.column_stack([linear, target - linear @ centre])


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    return (bunch.images * (255 / 16)).round().astype(np.uint8), bunch.target.astype(np.int64)


def _read_digit(image_id: str) -> Tensor:
    pixels = torch.from_numpy(_digits()[0][int(image_id.split("/")[1])])
    return pixels.expand(3, *pixels.shape).contiguous()
