"""Which images and which network a profile uses, and who is ranked against whom."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry.datasets import (
    ImageSet,
    load_dtd,
    photo_textures,
    query_database_split,
)
from retrieval_geometry.datasets.bundled import MIN_PATCHES
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.data import find_weights

QUERIES_PER_CLASS = 10
SQUEEZENET_LAST = ("features.12.expand1x1", "features.12.expand3x3")
"""The last convolutions, which make up the last feature map between them, before its ReLU."""
EFFICIENTNET_MIDDLE = "stage4"
"""A linear bottleneck with more places than channels, 14 x 14 x 80: a sample covariance of full rank."""
TEXTURE_SIDE, TEXTURES = 32, MIN_PATCHES
"""Pixels, and patches of a photograph: a third of the set's usual width, and as few as a class may have.

At the usual width and number, trained features answer nearly every query, whatever the distance. At 36 pixels
some distances still answer more than nine of ten; here none does, whatever another processor rounds.
"""
DTD_LICENCE = "for research; Cimpoi et al. 2014"


@dataclass(frozen=True, eq=False)
class Setting:
    """Images, queries and database of a profile.

    Args:
        images: all images that are described.
        queries: indices of the images that are asked with.
        database: indices of the images that are searched; a query never finds itself.
        protocol: the same in words.
        licence: of the images.
        backbone: name, layer and weights, as ``load_backbone`` takes them.
    """

    images: ImageSet
    queries: Tensor
    database: Tensor
    protocol: str
    licence: str
    backbone: dict[str, str | tuple[str, ...] | None]

    def split(self, models: Any) -> tuple[Any, Any]:
        """The models of the queries and of the database; a database of all images is not copied."""
        # Models of all images are the largest thing in memory: indexing would copy them.
        complete = torch.equal(self.database, torch.arange(len(self.images)))
        return models[self.queries], models if complete else models[self.database]

    @property
    def query_labels(self) -> Tensor:
        """Class of each query."""
        return self.images.labels[self.queries]

    @property
    def n_relevant(self) -> Tensor:
        """How many images of its class a query can find: those of the database but itself."""
        labels = self.images.labels
        counts = torch.bincount(labels[self.database], minlength=len(self.images.classes))
        # A query in the database is no answer to itself.
        return counts[self.query_labels] - torch.isin(self.queries, self.database).long()


def load_setting(context: RunContext) -> Setting:
    """Images, split and network of a profile.

    Raises:
        FileNotFoundError: data or weights are missing; the message says where to get and to put them.
    """
    makers: dict[str, Callable[[Path, int], Setting]] = {"quick": _quick, "real": _real, "paper": _paper}
    root = Path(context.data_root)
    if context.profile != "quick" and not root.is_dir():
        raise FileNotFoundError(
            f"--data-root {context.data_root}: there is no such folder; it should hold the data sets"
        )
    return makers[context.profile](root, context.seed)


def _quick(root: Path, seed: int) -> Setting:
    images = photo_textures(TEXTURE_SIDE, TEXTURES)
    queries, _ = query_database_split(images.labels, QUERIES_PER_CLASS, seed)
    return Setting(
        images,
        queries,
        torch.arange(len(images)),
        f"{QUERIES_PER_CLASS} random patches of each photograph (seed {seed}) against all other patches",
        "public domain, CC0, CC BY 2.0 or not stated, by photograph: datasets.PHOTOGRAPHS",
        {"name": "efficientnet_lite0", "layer": EFFICIENTNET_MIDDLE, "weights": "package"},
    )


def _real(root: Path, seed: int) -> Setting:
    images = load_dtd(root)
    queries, _ = query_database_split(images.labels, QUERIES_PER_CLASS, seed)
    weights = find_weights(
        root,
        "squeezenet1_1*.pth",
        "any SqueezeNet 1.1 state dict, such as torchvision's squeezenet1_1-b8a52dc0.pth",
    )
    return Setting(
        images,
        queries,
        torch.arange(len(images)),
        f"{QUERIES_PER_CLASS} random images of each class (seed {seed}) against all other images",
        DTD_LICENCE,
        {"name": "squeezenet1_1", "layer": SQUEEZENET_LAST, "weights": str(weights)},
    )


def _paper(root: Path, seed: int) -> Setting:
    test, rest = load_dtd(root, "test1"), load_dtd(root, "train1+val1")
    both = load_dtd(root, "test1+train1+val1")
    # One set of all images, so that each is described once; the two lists are places in it.
    place = {name: i for i, name in enumerate(both.ids)}
    weights = find_weights(root, "*vgg_m*", "the public VGG-M weight file, or what convert_vgg_m makes of it")
    return Setting(
        both,
        torch.tensor([place[name] for name in test.ids]),
        torch.tensor([place[name] for name in rest.ids]),
        "all of test1 against train1 and val1; the paper took two queries of each class of test1",
        DTD_LICENCE,
        {"name": "vgg_m", "layer": "conv5", "weights": str(weights)},
    )
