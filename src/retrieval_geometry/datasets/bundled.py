"""Photo textures: a retrieval benchmark that needs no download.

Two dependencies of this package, scikit-image and scikit-learn, carry photographs inside their wheels. Each,
cut into patches that do not overlap, makes a class: the protocol of the Brodatz album, where one photograph
is one texture. It is small and easy next to a real benchmark, since the patches of one photograph share its
light and its focus; and hard where a photograph shows several things at once.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval_geometry._check import check_count
from retrieval_geometry._files import file_sha256
from retrieval_geometry.datasets.image_set import ImageSet

MIN_PATCHES = 12
"""A photograph that gives fewer patches than this is left out."""

MAX_PATCHES = 24
"""A photograph that gives more patches than this gives so many of them, evenly spread, unless told."""

FLAT = 1.0
"""A patch whose grey levels (0 to 255) have a smaller standard deviation shows nothing and is left out."""


@dataclass(frozen=True)
class Photograph:
    """One photograph of the set: its file, subject, author and licence.

    Used in chapter 1. Author and licence are those that the shipping package states (``skimage.data``, and
    the ``README.txt`` beside scikit-learn's images); "not stated" where it states none.
    """

    name: str
    package: str
    file: str
    subject: str
    author: str
    licence: str


def _skimage(name: str, file: str, subject: str, author: str, licence: str) -> Photograph:
    return Photograph(name, "skimage", f"data/{file}", subject, author, licence)


def _sklearn(name: str, file: str, subject: str, author: str, licence: str) -> Photograph:
    return Photograph(name, "sklearn", f"datasets/images/{file}", subject, author, licence)


PHOTOGRAPHS: tuple[Photograph, ...] = (
    _skimage("astronaut", "astronaut.png", "Eileen Collins", "NASA", "public domain"),
    _skimage("brick", "brick.png", "brick wall", "CC0Textures, Bricks25", "CC0"),
    _skimage("camera", "camera.png", "man with a camera on a lawn", "Lav Varshney", "CC0"),
    _skimage("cell", "cell.png", "cell in saline, quantitative phase image", "Müller et al. 2018", "CC0"),
    _skimage("chelsea", "chelsea.png", "Chelsea the cat", "Stefan van der Walt", "CC0"),
    _sklearn("china", "china.jpg", "Chinese pavilion", "danielbuechele, Flickr", "CC BY 2.0"),
    _skimage("clock", "clock_motion.png", "moving wall clock", "Stefan van der Walt", "public domain"),
    _skimage("coffee", "coffee.png", "cup of coffee", "Rachel Michetti", "CC0"),
    _skimage("coins", "coins.png", "Greek coins from Pompeii", "Brooklyn Museum", "no known restrictions"),
    _sklearn("flower", "flower.jpg", "dahlia", "vultilion, Flickr", "CC BY 2.0"),
    _skimage("grass", "grass.png", "grass", "linolafett, DeviantArt", "CC0"),
    _skimage("gravel", "gravel.png", "gravel", "CC0Textures, Gravel04", "CC0"),
    _skimage("hubble", "hubble_deep_field.jpg", "eXtreme Deep Field", "NASA, HubbleSite", "public domain"),
    _skimage("ihc", "ihc.png", "stained colonic glands", "CMMI", "no known restrictions"),
    _skimage("moon", "moon.png", "surface of the Moon", "not stated", "not stated"),
    _skimage("motorcycle", "motorcycle_left.png", "motorcycle", "Scharstein et al. 2014", "not stated"),
    _skimage("retina", "retina.jpg", "human retina", "Mikael Häggström", "CC0"),
    _skimage("rocket", "rocket.jpg", "Falcon 9 before launch", "SpaceX", "public domain"),
)
"""The photographs of the set. Left out of the two packages: the right half of the stereo pair (a twin of the
left), printed and written pages, the retina detail (one patch), drawings, silhouettes and computed images.
Used in chapter 1."""


def photo_textures(patch: int = 96, most: int = MAX_PATCHES) -> ImageSet:
    """Square patches of the bundled photographs, without overlap; one photograph is one class.

    Source: this package's own, by the protocol of Brodatz 1966 as retrieval uses it. Used in chapter 1.

    The grid of patches is centred on the photograph. Nothing is resized. Flat patches (:data:`FLAT`) are left
    out, then photographs with fewer than :data:`MIN_PATCHES`; where there are more than ``most``, that many
    are kept, evenly spread over the photograph. At 96 pixels that gives 396 patches of 18 photographs.

    How hard the set is depends on both numbers: a smaller patch shows less, and a few of a photograph lie
    further apart than many.

    Args:
        patch: the side of a patch in pixels.
        most: of the patches of one photograph that are kept.

    Raises:
        ValueError: ``patch`` is below 8, or so large that no two photographs give enough patches; ``most`` is
            below :data:`MIN_PATCHES`.
        FileNotFoundError: scikit-image or scikit-learn is installed without its photographs.

    Example:
        >>> images = photo_textures()
        >>> len(images), len(images.classes), images.ids[24], tuple(images.load(24).shape)
        (396, 18, 'brick/00', (3, 96, 96))
    """
    side = check_count(patch, "patch", at_least=8)
    check_count(most, "most", at_least=MIN_PATCHES)
    corners = {photo.name: _patch_corners(photo, side, most) for photo in PHOTOGRAPHS}
    kept = [name for name, found in corners.items() if len(found) >= MIN_PATCHES]
    if len(kept) < 2:
        raise ValueError(
            f"patch = {side} leaves {len(kept)} photographs with at least {MIN_PATCHES} patches; "
            "take a smaller one"
        )
    where = {f"{name}/{i:02d}": (name, *corner) for name in kept for i, corner in enumerate(corners[name])}
    labels = [kept.index(name) for name, _, _ in where.values()]
    return ImageSet(
        name="photo textures",
        labels=torch.tensor(labels),
        classes=tuple(kept),
        ids=tuple(where),
        sha256=_content_sha256(side, where),
        read=partial(_read_patch, where, side),
    )


def _patch_corners(photo: Photograph, side: int, most: int) -> tuple[tuple[int, int], ...]:
    """Find the top left corners of the patches that are kept."""
    pixels = _decode(photo)
    height, width = pixels.shape[:2]
    rows, columns = height // side, width // side
    # The grid in the middle: what is cut off is shared by all sides.
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    grid = [(top + r * side, left + c * side) for r in range(rows) for c in range(columns)]
    grid = [(y, x) for y, x in grid if pixels[y : y + side, x : x + side].mean(axis=2).std() >= FLAT]
    if len(grid) > most:
        # Evenly spread, or large photographs would be represented by their upper parts.
        grid = [grid[i] for i in np.linspace(0, len(grid) - 1, most).round().astype(int)]
    return tuple(grid)


def _read_patch(where: dict[str, tuple[str, int, int]], side: int, image_id: str) -> Tensor:
    """Read one patch, uint8 RGB ``(3, side, side)``."""
    name, y, x = where[image_id]
    photo = next(photo for photo in PHOTOGRAPHS if photo.name == name)
    return torch.from_numpy(_decode(photo)[y : y + side, x : x + side].copy()).permute(2, 0, 1).contiguous()


@lru_cache(maxsize=2)  # images are read class by class
def _decode(photo: Photograph) -> np.ndarray:
    """Decode a photograph, uint8 RGB ``(height, width, 3)``."""
    with Image.open(_photograph_path(photo)) as image:
        return np.asarray(image.convert("RGB"))


def _photograph_path(photo: Photograph) -> Path:
    # Found without importing the package: scikit-learn alone would take a second.
    spec = importlib.util.find_spec(photo.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (path := Path(folder) / photo.file).is_file():
            return path
    raise FileNotFoundError(
        f"the photograph {photo.file} is missing from the installed {photo.package}; install it again"
    )


def _content_sha256(side: int, where: dict[str, tuple[str, int, int]]) -> str:
    digest = hashlib.sha256(f"photo textures {side}".encode())
    for photo in PHOTOGRAPHS:
        digest.update(f"{photo.name} {_file_sha256(photo)}".encode())
    digest.update(repr(sorted(where.items())).encode())
    return digest.hexdigest()


@cache
def _file_sha256(photo: Photograph) -> str:
    return file_sha256(_photograph_path(photo))
