"""Glyphs: hundreds of classes for zero-shot retrieval that need no download."""

import hashlib
import json
import os
import unicodedata
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_path
from retrieval_geometry._files import file_sha256
from retrieval_geometry._sealed import Kind
from retrieval_geometry._sources import combined, loaded_sources
from retrieval_geometry.datasets._typefaces import FACES, choose_characters, font_file, glyph_mask
from retrieval_geometry.datasets.image_set import ImageSet

MAPS = {"fill": 0.6, "shrink": 0.85, "grow": 1.1, "degrees": 12.0, "shear": 0.15, "shift": 0.05}
"""The longer side of a glyph and its shift are shares of the image's side, the shear is a slope. A glyph at
the ends of all the ranges still lies inside its image."""


Faces = dict[str, tuple[str, ...]]  # of characters
GLYPHS = Kind("file of glyphs", 1, "it is made again")


def glyphs(
    size: int = 32, n_maps: int = 3, seed: int = 0, cache: str | os.PathLike[str] | None = None
) -> ImageSet:
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
        cache: a folder that keeps the characters and all images for the next call, ``size * size`` bytes an
            image. A damaged file is made again, and a line on stderr says so.

    Raises:
        ValueError: ``size`` is below 8, or ``n_maps`` below 1.
        FileNotFoundError: matplotlib is installed without its typefaces.
        OSError: a file of the cache cannot be read or written.

    Example:
        >>> images = glyphs()
        >>> images.ids[0], images.classes[0], tuple(images.load(0).shape)
        ('U+0021/DejaVuSans/0', 'U+0021 EXCLAMATION MARK', (3, 32, 32))
    """
    check_count(size, "size", at_least=8)
    check_count(n_maps, "n_maps")
    # To choose the characters takes longer than to draw them: the cache keeps both.
    drawn = None if cache is None else _Drawn.kept(check_path(cache, "cache"), size, n_maps, seed)
    characters = choose_characters() if drawn is None else drawn.characters
    ids = _ids(characters, n_maps)
    sizes = torch.tensor([len(faces) * n_maps for faces in characters.values()])
    # Another version of a typeface draws other images: they get another digest.
    parts = [_fonts_sha256(), size, n_maps, seed, sorted(MAPS.items()), ids]
    return ImageSet(
        name="glyphs",
        labels=torch.arange(len(sizes)).repeat_interleave(sizes),
        classes=tuple(f"{_code(character)} {unicodedata.name(character)}" for character in characters),
        ids=tuple(ids),
        sha256=hashlib.sha256(repr(parts).encode()).hexdigest(),
        read=partial(_draw, size, seed) if drawn is None else drawn.read,
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


@dataclass(frozen=True)
class _Drawn:
    """All glyphs of some settings.

    Args:
        characters: with the faces that show them.
        pixels: ``(n, size, size)`` uint8.
        place: of each id.
    """

    characters: Faces
    pixels: Tensor
    place: dict[str, int]

    @classmethod
    def kept(cls, folder: Path, size: int, n_maps: int, seed: int) -> "_Drawn":
        """Those in a folder; they are drawn and put there where it has none that today's code would draw."""
        about = _about(size, n_maps, seed)
        file = folder / f"{about}.glyphs"
        content = GLYPHS.recover(file, about)
        if content is None:
            characters = choose_characters()
            images = [_draw(size, seed, name)[0] for name in _ids(characters, n_maps)]
            content = json.dumps(characters).encode() + b"\n" + torch.stack(images).numpy().tobytes()
            GLYPHS.write(file, content, about)
        # One line of JSON, and then the pixels as they are.
        head, _, images_bytes = content.partition(b"\n")
        characters = {name: tuple(faces) for name, faces in json.loads(head).items()}
        pixels = torch.frombuffer(bytearray(images_bytes), dtype=torch.uint8).view(-1, size, size)
        place = {name: i for i, name in enumerate(_ids(characters, n_maps))}
        return cls(characters, pixels, place)

    def read(self, image_id: str) -> Tensor:
        """One image, uint8 ``(3, size, size)``."""
        grey = self.pixels[self.place[image_id]]
        return grey.expand(3, *grey.shape).contiguous()


def _about(size: int, n_maps: int, seed: int) -> str:
    """A digest of all that glyphs follow from: settings, typefaces, the code here and in libraries."""
    sources = loaded_sources()
    code = sources.digest(sources.closure(sources.file(__name__)))
    libraries = [version(name) for name in ("pillow", "opencv-python-headless", "numpy", "scipy")]
    return combined([f"{size} {n_maps} {seed}", *_fonts_sha256(), code, *libraries])


def _ids(characters: Faces, n_maps: int) -> list[str]:
    return [
        f"{_code(character)}/{face}/{i}"
        for character, faces in characters.items()
        for face in faces
        for i in range(n_maps)
    ]


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def _fonts_sha256() -> list[str]:
    return [file_sha256(font_file(face)) for face in FACES]


@lru_cache(maxsize=256)
def _mask(face: str, character: str, pixels: int) -> np.ndarray:
    """Kept between the maps of one outline."""
    return glyph_mask(face, character, pixels)


def _draw(size: int, seed: int, image_id: str) -> Tensor:
    """Draw one image, uint8 ``(3, size, size)``, at twice its size and then averaged: smooth edges."""
    code, face, _ = image_id.split("/")
    mask = _mask(face, chr(int(code[2:], 16)), 3 * size)
    # By the id alone: an image is the same in every subset and in every order.
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
    # Shear, then rotation, then scale, about the centre of the mask.
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
