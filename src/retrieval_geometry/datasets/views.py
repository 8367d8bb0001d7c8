"""Several random views of each image: features of a frozen network are computed once for all of them."""

import hashlib
import math
from dataclasses import replace

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_kind, check_number, check_seed
from retrieval_geometry.datasets.image_set import ImageSet

RATIO = 4 / 3
"""The sides of a crop are drawn in a proportion of at most that times the image's own, either way."""


def random_views(images: ImageSet, n_views: int = 4, smallest: float = 0.5, seed: int = 0) -> ImageSet:
    """The images, and random crops of each, every second one mirrored: augmentation that is drawn once.

    Source: Szegedy et al. 2015 (crops of random area and proportion). Used in chapter 14.

    A view depends on the seed, the name of its image and its number, on nothing else in the set.

    Args:
        images: the set. Its images come first, as they are; then the second views of all, and so on.
        n_views: of each image, the image itself among them.
        smallest: the least share of the area that a crop keeps.
        seed: of the draws.

    Raises:
        ValueError: not an image set, or a number out of its range.

    Example:
        >>> from retrieval_geometry.datasets import photo_textures
        >>> views = random_views(photo_textures().subset([0, 20]), n_views=3)
        >>> len(views), views.ids[4] == f"{views.ids[0]}, view 3"
        (6, True)
    """
    kept = check_kind(images, "images", ImageSet)
    check_count(n_views, "n_views")
    check_number(smallest, "smallest", above=0, at_most=1)
    check_seed(seed)

    def name_of(name: str, view: int) -> str:
        return f"{name}, view {view}" if view > 1 else name

    views = range(1, n_views + 1)
    sources = {name_of(name, view): (name, view) for view in views for name in kept.ids}

    def read(name: str) -> Tensor:
        source, view = sources[name]
        image = kept.read(source)
        return image if view == 1 else _crop(image, smallest, _generator(seed, name))

    return replace(
        kept,
        labels=kept.labels.repeat(n_views),
        ids=tuple(sources),
        # Other pixels under the same names, if drawn otherwise.
        sha256=hashlib.sha256(f"{kept.sha256} {smallest} {seed}".encode()).hexdigest(),
        read=read,
    )


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _crop(image: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    """A random part of an image ``(3, H, W)``, mirrored in half of all cases."""
    area, ratio, down, right, coin = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    share = smallest + (1 - smallest) * area
    stretch = math.exp((2 * ratio - 1) * math.log(RATIO) / 2)
    height, width = image.shape[1:]
    # A stretched crop of nearly all of the image would reach beyond it: it keeps less of that side.
    rows = min(height, max(1, round(height * math.sqrt(share) * stretch)))
    columns = min(width, max(1, round(width * math.sqrt(share) / stretch)))
    top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
    part = image[:, top : top + rows, left : left + columns]
    return (part.flip(2) if coin < 0.5 else part).contiguous()
